//! The client's side of a connection that left HTTP, after a 101 or a 2xx to CONNECT.
//!
//! Owns how it is reset: what hyper hands over knows an orderly end only, and to a client that would be the end of what was to be said.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;
use super::patience::Watched;
use crate::upstream::relay::Resettable;

/// Bytes both ways.
pub struct ClientTunnel {
    /// `None` once it was reset.
    io: Option<TokioIo<Upgraded>>,
    ends: Ends,
}

/// What becomes of a tunnel that is reset, by the codec below it.
#[derive(Clone, Copy)]
pub struct Ends(fn(Upgraded));

impl Ends {
    /// Of our HTTP/1 codec: the connection is the tunnel's own, and is reset.
    pub fn with_connection() -> Self {
        Self(|upgraded| {
            if let Ok(parts) = upgraded.downcast::<TokioIo<Watched<Box<dyn Stream>>>>() {
                parts.io.into_inner().into_inner().reset();
            }
        })
    }

    /// Of our HTTP/2 codec: dropped before its end, the stream is.
    pub fn with_stream() -> Self {
        Self(drop)
    }
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ends")
    }
}

impl ClientTunnel {
    pub fn new(upgraded: Upgraded, ends: Ends) -> Self {
        Self { io: Some(TokioIo::new(upgraded)), ends }
    }

    fn io(&mut self) -> io::Result<Pin<&mut TokioIo<Upgraded>>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl Resettable for ClientTunnel {
    fn reset(&mut self) {
        if let Some(io) = self.io.take() {
            (self.ends.0)(io.into_inner());
        }
    }
}

impl fmt::Debug for ClientTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTunnel")
    }
}

impl AsyncRead for ClientTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_shutdown(cx)
    }
}
