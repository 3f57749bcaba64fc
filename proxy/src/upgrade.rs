//! A connection or stream that left HTTP behind: after a 101, or a 2xx to CONNECT.
//!
//! Owns the one type both sides of the proxy hand to the relay, whatever made it. Never interprets a byte.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::body::Body;
use crate::downstream::Stream as Connection;
use crate::downstream::tunnel::ClientTunnel;
use crate::upstream::http2::Slot;
use crate::upstream::relay::Resettable;

/// The tunnel behind a response of the upstream, if it opened one. What is left of the response has no body.
pub fn take(response: &mut Response<Body>) -> Option<Upgrade> {
    response.body_mut().take_upgrade()
}

/// A tunnel that is about to stand.
pub struct Upgrade(Kind);

enum Kind {
    /// HTTP/1 upstream: the codec has let go of the connection.
    Socket(Box<Socket>),
    /// HTTP/1 downstream: the codec lets go of the connection when the response's head is written.
    Promised(oneshot::Receiver<Socket>),
    /// HTTP/2 upstream: the stream is the tunnel.
    Stream(Box<Stream>),
    /// HTTP/2 downstream: hyper hands it over when the response's head is written.
    Client(hyper::upgrade::OnUpgrade),
}

/// A connection of which HTTP/1 was spoken.
pub struct Socket {
    io: Box<dyn Connection>,
    /// Came in the same packet as the head.
    unread: Bytes,
}

impl Socket {
    pub fn new(io: Box<dyn Connection>, unread: Bytes) -> Self {
        Self { io, unread }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

impl Upgrade {
    /// Of a request that came in through hyper.
    pub fn downstream(upgrade: hyper::upgrade::OnUpgrade) -> Self {
        Self(Kind::Client(upgrade))
    }

    /// Of a request over HTTP/1: the connection comes when its answer is written.
    pub fn promised() -> (oneshot::Sender<Socket>, Self) {
        let (promise, promised) = oneshot::channel();
        (promise, Self(Kind::Promised(promised)))
    }

    pub(crate) fn socket(io: Box<dyn Connection>, unread: Bytes) -> Self {
        Self(Kind::Socket(Box::new(Socket { io, unread })))
    }

    pub(crate) fn stream(send: SendStream<Bytes>, recv: RecvStream, slot: Slot) -> Self {
        Self(Kind::Stream(Box::new(Stream { send, recv, unread: Bytes::new(), _slot: slot })))
    }

    /// Waits until the tunnel stands.
    pub async fn established(self) -> io::Result<Upgraded> {
        let tunnel = match self.0 {
            Kind::Socket(socket) => Tunnel::Socket(*socket),
            Kind::Promised(promised) => match promised.await {
                Ok(socket) => Tunnel::Socket(socket),
                Err(_) => return Err(io::ErrorKind::ConnectionReset.into()),
            },
            Kind::Stream(stream) => Tunnel::Stream(stream),
            Kind::Client(upgrade) => {
                let upgraded = upgrade.await.map_err(io::Error::other)?;
                Tunnel::Client(Box::new(ClientTunnel::new(upgraded)))
            }
        };
        Ok(Upgraded(tunnel))
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}

/// A tunnel: bytes both ways.
#[derive(Debug)]
pub struct Upgraded(Tunnel);

#[derive(Debug)]
enum Tunnel {
    Socket(Socket),
    Stream(Box<Stream>),
    Client(Box<ClientTunnel>),
}

/// A stream of an HTTP/2 connection used as a tunnel.
#[derive(Debug)]
struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    unread: Bytes,
    _slot: Slot,
}

impl Resettable for Upgraded {
    fn reset(&mut self) {
        match &mut self.0 {
            Tunnel::Socket(socket) => socket.io.reset(),
            Tunnel::Stream(stream) => stream.send.send_reset(h2::Reason::CANCEL),
            Tunnel::Client(io) => io.reset(),
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Tunnel::Socket(Socket { io, unread }) => {
                if unread.is_empty() {
                    return Pin::new(io).poll_read(cx, buf);
                }
                move_into(unread, buf);
                if unread.is_empty() {
                    // Gives the buffer back: a tunnel may live for hours.
                    *unread = Bytes::new();
                }
                Poll::Ready(Ok(()))
            }
            Tunnel::Stream(stream) => stream.poll_read(cx, buf),
            Tunnel::Client(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Tunnel::Socket(Socket { io, .. }) => Pin::new(io).poll_write(cx, buf),
            Tunnel::Stream(stream) => stream.poll_write(cx, buf),
            Tunnel::Client(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Tunnel::Socket(Socket { io, .. }) => Pin::new(io).poll_flush(cx),
            Tunnel::Stream(_) => Poll::Ready(Ok(())),
            Tunnel::Client(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Tunnel::Socket(Socket { io, .. }) => Pin::new(io).poll_shutdown(cx),
            Tunnel::Stream(stream) => Poll::Ready(stream.send.send_data(Bytes::new(), true).map_err(broken)),
            Tunnel::Client(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let taken = move_into(&mut self.unread, buf);
        // Only what was taken: a reader that stalls stalls its peer.
        let _ = self.recv.flow_control().release_capacity(taken);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let taken = self.send.capacity().min(buf.len());
        self.send.send_data(Bytes::copy_from_slice(&buf[..taken]), false).map_err(broken)?;
        Poll::Ready(Ok(taken))
    }
}

fn move_into(from: &mut Bytes, to: &mut ReadBuf<'_>) -> usize {
    let taken = from.len().min(to.remaining());
    to.put_slice(&from[..taken]);
    from.advance(taken);
    taken
}

/// A reset stream is a reset connection to whoever uses the tunnel.
fn broken(error: h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) => error,
        None => io::ErrorKind::ConnectionReset.into(),
    }
}
