//! What is to be written: as little as possible apart, so that a message leaves in one write where it can.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

use crate::spare::Spare;

/// Bytes in three parts, in this order. Without memory of its own while it is empty.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Heads, the lines around chunks, small data.
    before: Vec<u8>,
    /// How much of it is gone.
    gone: usize,
    /// Data too large to be copied.
    data: Bytes,
    after: &'static [u8],
    /// Something of the message was written.
    pub begun: bool,
}

/// Data up to this size is copied behind what is there: cheaper than another slice of a write.
const COPIED: usize = 4 * 1024;

/// More is not collected before a write.
const ENOUGH: usize = 16 * 1024;

impl Output {
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.data.is_empty() && self.after.is_empty()
    }

    /// Whether more may be added before it is written.
    pub fn has_room(&self) -> bool {
        self.data.is_empty() && self.after.is_empty() && self.before.len() - self.gone < ENOUGH
    }

    /// Where heads are written. Only with room.
    pub fn head(&mut self, spare: &Spare) -> &mut Vec<u8> {
        debug_assert!(
            self.data.is_empty() && self.after.is_empty(),
            "it would stand before what comes first"
        );
        if self.before.capacity() == 0 {
            self.before = spare.buffer();
        }
        &mut self.before
    }

    /// Only with room.
    pub fn data(&mut self, data: Bytes, after: &'static [u8], spare: &Spare) {
        if data.len() <= COPIED {
            let before = self.head(spare);
            before.extend_from_slice(&data);
            before.extend_from_slice(after);
        } else {
            (self.data, self.after) = (data, after);
        }
    }

    /// The end of a chunked body.
    pub fn last_chunk(&mut self, spare: &Spare) {
        if self.data.is_empty() {
            self.head(spare).extend_from_slice(b"0\r\n\r\n");
        } else {
            self.after = b"\r\n0\r\n\r\n";
        }
    }

    /// Writes everything.
    pub fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        spare: &Spare,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let mut io = Pin::new(&mut *io);
            let before = &self.before[self.gone..];
            let count = if !self.data.is_empty() || !self.after.is_empty() {
                let parts = [IoSlice::new(before), IoSlice::new(&self.data), IoSlice::new(self.after)];
                let from = parts.iter().position(|part| !part.is_empty()).unwrap_or_default();
                ready!(io.poll_write_vectored(cx, &parts[from..]))?
            } else {
                ready!(io.as_mut().poll_write(cx, before))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            self.advance(count, spare);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize, spare: &Spare) {
        let before = count.min(self.before.len() - self.gone);
        self.gone += before;
        count -= before;
        if self.gone == self.before.len() {
            self.gone = 0;
            spare.give_buffer(std::mem::take(&mut self.before));
        }
        let data = count.min(self.data.len());
        self.data.advance(data);
        count -= data;
        if self.data.is_empty() {
            self.data = Bytes::new();
        }
        self.after = &self.after[count.min(self.after.len())..];
    }
}
