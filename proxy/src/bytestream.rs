//! A stream of an HTTP/2 connection as bytes both ways: a tunnel, or a connection that another one carries.
//!
//! Owns that what was read is given back to the windows, and what a reset stream is to whoever expects a connection. Never interprets a byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use outrigger_http2::{Code, Error, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::http2::{Slot, Waiting};
use crate::upstream::relay::Resettable;

/// Dropped before its end, it is reset.
#[derive(Debug)]
pub struct Stream {
    send: SendStream,
    recv: RecvStream,
    unread: Bytes,
    /// Of who opened it.
    slot: Option<Slot>,
    /// Whoever writes waits for an answer from then on until something comes.
    asks: bool,
    waiting: Option<Waiting>,
}

impl Stream {
    pub(crate) fn new(send: SendStream, recv: RecvStream, slot: Option<Slot>) -> Self {
        Self { send, recv, unread: Bytes::new(), slot, asks: false, waiting: None }
    }

    /// One on which whoever opened it asks, and is answered.
    pub(crate) fn asking(send: SendStream, recv: RecvStream, slot: Slot) -> Self {
        Self { send, recv, unread: Bytes::new(), slot: Some(slot), asks: true, waiting: None }
    }

    /// What it is a stream of may be dead: others wait for their answers, and nothing comes.
    pub(crate) fn is_silent(&self) -> bool {
        self.slot.as_ref().is_some_and(Slot::is_silent)
    }
}

impl Resettable for Stream {
    fn reset(&mut self) {
        self.send.reset(Code::CANCEL);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &mut *self;
        while stream.unread.is_empty() {
            match ready!(stream.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => (stream.unread, stream.waiting) = (data, None),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let taken = move_into(&mut stream.unread, buf);
        // Only what was taken: a reader that stalls stalls its peer.
        stream.recv.release(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.asks && self.waiting.is_none() {
            self.waiting = self.slot.as_ref().map(Slot::waiting);
        }
        self.send.poll_write(cx, buf).map_err(broken)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written leaves at the end of the turn, with that of others.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.end().map_err(broken))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The connection's window is for all of its streams.
        self.recv.release(self.unread.len());
    }
}

/// Gives back what it took all of: whoever holds it may do so for hours.
pub(crate) fn move_into(from: &mut Bytes, to: &mut ReadBuf<'_>) -> usize {
    let taken = from.len().min(to.remaining());
    to.put_slice(&from[..taken]);
    if taken == from.len() {
        *from = Bytes::new();
    } else {
        from.advance(taken);
    }
    taken
}

/// A reset stream is a reset connection to whoever uses it.
fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error.kind().into(),
        error if error.is_unprocessed() => io::Error::new(io::ErrorKind::ConnectionReset, Unprocessed),
        _ => io::ErrorKind::ConnectionReset.into(),
    }
}

/// Inside an error: the peer says that it looked at nothing of the stream (RFC 9113 §8.7).
#[derive(Debug, thiserror::Error)]
#[error("the stream was refused before anything of it was processed")]
pub(crate) struct Unprocessed;

pub(crate) fn is_unprocessed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Unprocessed>())
}
