//! A connection or stream that left HTTP behind: after a 101, or a 2xx to CONNECT.
//!
//! Owns the one type both sides of the proxy hand to the relay, whatever made it. Never interprets a byte.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use outrigger_http2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::body::Body;
use crate::bytestream::{Stream, move_into};
use crate::downstream::Stream as Connection;
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
    /// Downstream: the codec lets go of the connection or stream when the response's head is written.
    Promised(oneshot::Receiver<Tunnel>),
    /// HTTP/2 upstream: the stream is the tunnel.
    Stream(Box<Stream>),
}

/// Keeps what was promised.
pub struct Promise(oneshot::Sender<Tunnel>);

impl Promise {
    // Nobody waits for it if its exchange was ended meanwhile: then it is dropped.

    pub fn socket(self, io: Box<dyn Connection>, unread: Bytes) {
        let _ = self.0.send(Tunnel::Socket(Socket { io, unread }));
    }

    pub fn stream(self, send: SendStream, recv: RecvStream) {
        let _ = self.0.send(Tunnel::Stream(Box::new(Stream::new(send, recv, None))));
    }
}

/// A connection of which HTTP/1 was spoken.
struct Socket {
    io: Box<dyn Connection>,
    /// Came in the same packet as the head.
    unread: Bytes,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

impl Upgrade {
    /// Of a client: its connection or stream comes when its answer is written.
    pub fn promised() -> (Promise, Self) {
        let (promise, promised) = oneshot::channel();
        (Promise(promise), Self(Kind::Promised(promised)))
    }

    pub(crate) fn socket(io: Box<dyn Connection>, unread: Bytes) -> Self {
        Self(Kind::Socket(Box::new(Socket { io, unread })))
    }

    pub(crate) fn stream(send: SendStream, recv: RecvStream, slot: Option<Slot>) -> Self {
        Self(Kind::Stream(Box::new(Stream::new(send, recv, slot))))
    }

    /// Waits until the tunnel stands.
    pub async fn established(self) -> io::Result<Upgraded> {
        let tunnel = match self.0 {
            Kind::Socket(socket) => Tunnel::Socket(*socket),
            Kind::Promised(promised) => match promised.await {
                Ok(tunnel) => tunnel,
                Err(_) => return Err(io::ErrorKind::ConnectionReset.into()),
            },
            Kind::Stream(stream) => Tunnel::Stream(stream),
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
}

impl Resettable for Upgraded {
    fn reset(&mut self) {
        match &mut self.0 {
            Tunnel::Socket(socket) => socket.io.reset(),
            Tunnel::Stream(stream) => stream.reset(),
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
                Poll::Ready(Ok(()))
            }
            Tunnel::Stream(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Tunnel::Socket(Socket { io, .. }) => Pin::new(io).poll_write(cx, buf),
            Tunnel::Stream(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Tunnel::Socket(Socket { io, .. }) => Pin::new(io).poll_flush(cx),
            Tunnel::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Tunnel::Socket(Socket { io, .. }) => Pin::new(io).poll_shutdown(cx),
            Tunnel::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
