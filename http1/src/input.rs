//! What was read of a connection and not used yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::spare::{LARGEST_READ, Spare};

/// Without memory of its own while it is empty.
#[derive(Debug, Default)]
pub(crate) struct Input {
    buffer: BytesMut,
    /// How much of it was looked through for the end of a head.
    pub scanned: usize,
    /// The peer has said everything.
    pub ended: bool,
    /// What was read last was half of the most, or more.
    filled: bool,
    /// Counted by [`Spare`].
    pub flows: bool,
}

impl Input {
    /// Reads once. 0 is the end.
    pub fn poll_fill<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        spare: &Spare,
        want: usize,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        let read = if self.buffer.is_empty() {
            let most = spare.most(&mut self.flows, self.filled && want > LARGEST_READ);
            spare.with_space(want, most, |space| {
                let read = poll_read_buf(io, cx, space);
                if let Poll::Ready(Ok(1..)) = read {
                    self.buffer = space.split();
                }
                read
            })
        } else {
            self.buffer.reserve(want.clamp(1024, LARGEST_READ));
            poll_read_buf(io, cx, &mut self.buffer)
        };
        match read {
            Poll::Ready(Ok(0)) => self.ended = true,
            Poll::Ready(Ok(count)) => self.filled = count >= LARGEST_READ / 2,
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        read
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn take(&mut self, count: usize) -> Bytes {
        self.scanned = 0;
        if count == self.buffer.len() {
            // Not one reference is left to the space it was read into.
            return std::mem::take(&mut self.buffer).freeze();
        }
        self.buffer.split_to(count).freeze()
    }

    pub fn skip(&mut self, count: usize) {
        self.scanned = 0;
        if count == self.buffer.len() {
            self.buffer = BytesMut::new();
        } else {
            self.buffer.advance(count);
        }
    }
}
