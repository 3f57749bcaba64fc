//! A downstream socket whose protocol was told from its first bytes, and which can keep each HTTP/1 head as received.
//!
//! hyper hands out headers in lower case and grouped by name. What a proxy does to their case and order shows only in
//! the bytes, so the echo sample keeps those. A kept head is a best effort: a pipelined request has none.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

#[derive(Debug)]
pub struct Wire {
    /// Read while telling the protocol and not yet handed on.
    sniffed: Bytes,
    stream: TcpStream,
    heads: Option<Heads>,
}

impl Wire {
    /// Reads until the bytes can only be HTTP/2's connection preface (RFC 9113 §3.4) or can't be it any more.
    pub async fn sniff(mut stream: TcpStream, keep_heads: bool) -> io::Result<(Self, Protocol)> {
        let mut sniffed = BytesMut::with_capacity(PREFACE.len());
        let protocol = loop {
            if sniffed.starts_with(PREFACE) {
                break Protocol::Http2;
            }
            if !PREFACE.starts_with(&sniffed) || stream.read_buf(&mut sniffed).await? == 0 {
                break Protocol::Http1;
            }
        };
        let heads = (keep_heads && protocol == Protocol::Http1).then(Heads::default);
        Ok((Self { sniffed: sniffed.freeze(), stream, heads }, protocol))
    }

    pub fn heads(&self) -> Option<Heads> {
        self.heads.clone()
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begin = buf.filled().len();
        if self.sniffed.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let some = self.sniffed.len().min(buf.remaining());
            buf.put_slice(&self.sniffed[..some]);
            self.sniffed.advance(some);
        }
        if let Some(heads) = &self.heads {
            heads.keep(&buf.filled()[begin..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The header fields of one request, names and values as received, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head(pub Vec<(String, String)>);

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&bytes[..end]);
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        };
        text.split("\r\n").skip(1).map(field).collect::<Option<Vec<_>>>().map(Self)
    }
}

/// The bytes read since the last request was answered, at most `KEPT` of them.
#[derive(Clone, Debug, Default)]
pub struct Heads(Arc<Mutex<Tap>>);

#[derive(Debug)]
enum Tap {
    /// Between an answer and the next request: everything read is its head, then perhaps its body.
    Open(Vec<u8>),
    /// Within a request: what is read is its body.
    Shut,
}

impl Default for Tap {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

impl Heads {
    /// The head of the request that was just received, once.
    pub fn take(&self) -> Option<Head> {
        match std::mem::replace(&mut *self.tap(), Tap::Shut) {
            Tap::Open(bytes) => Head::parse(&bytes),
            Tap::Shut => None,
        }
    }

    /// To be called when a request was read to its end and answered.
    pub fn expect_next(&self) {
        *self.tap() = Tap::default();
    }

    fn keep(&self, bytes: &[u8]) {
        if let Tap::Open(kept) = &mut *self.tap() {
            let room = KEPT.saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn tap(&self) -> std::sync::MutexGuard<'_, Tap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const KEPT: usize = 128 * 1024;
