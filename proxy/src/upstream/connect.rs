//! Opening connections: TCP with its socket options, and the HTTP codecs on top. TLS in between is `tls`.
//!
//! The only place that makes a client codec, so that none is made without its limits. Says what failed and
//! what to look at. Never keeps a connection (`pool`).

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_rustls::client::TlsStream;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::caps::Place;
use super::relay::Resettable as _;
use crate::bytestream::Stream;
use crate::failure::{Failure, Reason};
use crate::socket::{self, Socket};

/// What bytes travel over. Counts as a connection of its cluster until it is dropped.
#[derive(Debug)]
pub struct Transport {
    io: Io,
    place: Option<Place>,
}

#[derive(Debug)]
enum Io {
    Plain(Socket),
    /// Of the mesh. Boxed: it is a thousand bytes larger.
    Tls(Box<TlsStream<Socket>>),
    /// One of those that another connection of the mesh carries.
    Carried(Box<Stream>),
}

impl Transport {
    pub(super) fn plain(stream: TcpStream, place: Place) -> Self {
        Self { io: Io::Plain(Socket::new(stream)), place: Some(place) }
    }

    pub(super) fn tls(stream: TlsStream<Socket>, place: Place) -> Self {
        Self { io: Io::Tls(Box::new(stream)), place: Some(place) }
    }

    /// What carries it has the place.
    pub(super) fn carried(stream: Stream) -> Self {
        Self { io: Io::Carried(Box::new(stream)), place: None }
    }

    /// Its place among the connections of its cluster, for whoever knows better than its drop how long it is one.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// Makes the coming drop a reset.
    pub(crate) fn reset(&mut self) {
        match &mut self.io {
            Io::Plain(socket) => socket.reset(),
            Io::Tls(stream) => stream.get_mut().0.reset(),
            Io::Carried(stream) => stream.reset(),
        }
    }

    /// Says in its own words that nothing comes any more, as far as that can be said at once. What has no words of its own is simply closed.
    pub(super) fn say_goodbye(&mut self) {
        if let Io::Tls(stream) = &mut self.io {
            let _ = Pin::new(stream).poll_shutdown(&mut Context::from_waker(std::task::Waker::noop()));
        }
    }

    /// Whether an idle connection can take a request: nobody closed it, and nothing was sent that nobody asked for.
    ///
    /// Asks the kernel, because what arrived since the last turn of the event loop is not known to anyone else: that
    /// is the race of a reused connection (RFC 9112 §9.3.1) made as narrow as it can be.
    pub(super) fn is_quiet(&self) -> bool {
        let socket = match &self.io {
            Io::Plain(socket) => socket.stream(),
            Io::Tls(stream) => stream.get_ref().0.stream(),
            // What carries it is read all the time, so that the kernel does not know more.
            Io::Carried(stream) => return !stream.is_silent(),
        };
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match SockRef::from(socket).peek(&mut byte) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }
}

/// Opens a TCP connection with all options of design.md section 5.
pub async fn open_tcp(address: SocketAddr, timeout: Duration) -> Result<TcpStream, Failure> {
    open_from(None, address, timeout).await
}

/// Opens a connection to the app beside a captured proxy, from a loopback address: what the proxy sends to the pod's own address from
/// there is redirected to the proxy.
pub async fn open_app(address: SocketAddr, timeout: Duration) -> Result<TcpStream, Failure> {
    let source: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    open_from(Some(source), address, timeout).await
}

async fn open_from(
    source: Option<IpAddr>,
    address: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, Failure> {
    match tokio::time::timeout(timeout, open(source, address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(address, &error)),
        Err(_) => Err(Failure::new(
            Reason::ConnectTimeout,
            format!(
                "no connection to {address} within {timeout:?}: is the instance running, and does a network policy or firewall drop port {}?",
                address.port()
            ),
        )),
    }
}

/// Opens a connection to the first of `addresses` that answers (RFC 8305): the families by turns, the next one tried as soon as
/// the one before failed, or after 250 ms. All together within `timeout`.
pub async fn open_any(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream, Failure> {
    if let [address] = addresses {
        return open_tcp(*address, timeout).await;
    }
    let deadline = Instant::now() + timeout;
    let mut waiting = by_turns(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = Failure::new(Reason::DnsFailed, "there is no address to connect to");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(open_tcp(address, deadline.saturating_duration_since(Instant::now())));
        } else if attempts.is_empty() {
            return Err(failure);
        }
        let next = async {
            if waiting.len() == 0 {
                std::future::pending().await
            } else {
                tokio::time::sleep(STAGGER).await;
            }
        };
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = next => {}
        }
    }
}

/// RFC 8305 §5.
const STAGGER: Duration = Duration::from_millis(250);

/// The first one's family first, then by turns, so that a family that leads nowhere costs one stagger at most.
fn by_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut order = Vec::with_capacity(addresses.len());
    while !(one.is_empty() && other.is_empty()) {
        order.extend(one.pop_front());
        order.extend(other.pop_front());
    }
    order
}

async fn open(source: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        socket.bind((source, 0).into())?;
    }
    let stream = socket.connect(address).await?;
    socket::set_options(&SockRef::from(&stream))?;
    Ok(stream)
}

fn failed(address: SocketAddr, error: &io::Error) -> Failure {
    use io::ErrorKind as K;
    let port = address.port();
    let (reason, advice) = match error.kind() {
        K::ConnectionRefused => (Reason::ConnectFailed, format!("nothing listens on port {port} there")),
        K::TimedOut => {
            (Reason::ConnectTimeout, format!("does a network policy or firewall drop port {port}?"))
        }
        K::HostUnreachable | K::NetworkUnreachable => {
            (Reason::ConnectFailed, "there is no route to it from here".into())
        }
        K::PermissionDenied => (Reason::ConnectFailed, format!("a local rule forbids port {port}")),
        K::AddrNotAvailable => {
            (Reason::ConnectFailed, "no local port is left, or the address family is missing here".into())
        }
        K::ConnectionReset | K::ConnectionAborted => {
            (Reason::ConnectFailed, format!("port {port} was reset during the handshake"))
        }
        _ => (Reason::ConnectFailed, format!("check port {port}")),
    };
    Failure::new(reason, format!("cannot connect to {address}: {error}; {advice}"))
}

/// Limits of what an endpoint may answer (design.md section 5); the same on all four hops.
pub(super) const MAX_HEADER_BYTES: usize = 64 * 1024;
pub(super) const MAX_HEADERS: usize = 128;

/// Of the HTTP/1 codec.
pub(super) const HTTP1: outrigger_http1::Limits =
    outrigger_http1::Limits { head: MAX_HEADER_BYTES, fields: MAX_HEADERS };

/// Of the HTTP/2 codec. Windows of design.md section 5; pings and stalls are `http2`'s.
pub(super) const HTTP2: outrigger_http2::Limits = outrigger_http2::Limits {
    stream_window: 64 * 1024,
    connection_window: 1024 * 1024,
    // As much as streams there may be: those of many clients share it.
    lent: 16 * 1024 * 1024,
    // An endpoint opens none.
    streams: 0,
    // `http2` refuses over 64 KiB itself, knowing why; what is beyond this the codec refuses.
    header_list: 4 * MAX_HEADER_BYTES,
    unseen_resets: 0,
    faulty_streams: 16 * 1024,
    idle_frames: 10_000,
};

/// The same where each stream is a connection of its own: none of them waits for what another one's reader leaves lying.
pub(super) const CARRIER: outrigger_http2::Limits =
    outrigger_http2::Limits { connection_window: CARRIED * HTTP2.stream_window, ..HTTP2 };

/// Connections that one carries at a time.
pub const CARRIED: u32 = 200;

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Carried(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Carried(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Carried(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
            Io::Carried(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Io::Carried(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Carried(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
