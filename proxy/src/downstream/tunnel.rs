//! The client's side of an HTTP/2 stream that left HTTP, after a 2xx to CONNECT.
//!
//! Owns how it is reset: what hyper hands over knows an orderly end only, and to a client that would be the end of what was to be said. Dropped
//! before its end, the stream is reset.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::relay::Resettable;

/// Bytes both ways.
pub struct ClientTunnel {
    /// `None` once it was reset.
    io: Option<TokioIo<Upgraded>>,
}

impl ClientTunnel {
    pub fn new(upgraded: Upgraded) -> Self {
        Self { io: Some(TokioIo::new(upgraded)) }
    }

    fn io(&mut self) -> io::Result<Pin<&mut TokioIo<Upgraded>>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl Resettable for ClientTunnel {
    fn reset(&mut self) {
        drop(self.io.take());
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
