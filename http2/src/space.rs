//! The memory that the connections of a worker read into.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// One a worker: a connection that waits for its next frame has none of its own.
#[derive(Default)]
pub struct Space(RefCell<BytesMut>);

/// Bytes that are read at a time, at most.
const LARGEST: usize = 64 * 1024;
/// A read has room for at least so much.
const LEAST: usize = 17 * 1024;

impl Space {
    /// Reads once, behind what is in `input`. 0 is the end.
    pub(crate) fn poll_read<T: AsyncRead + Unpin>(
        &self,
        io: &mut T,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if !input.is_empty() {
            input.reserve(LEAST);
            return poll_read_buf(Pin::new(io), cx, input);
        }
        let mut space = self.0.take();
        if space.capacity() < LEAST {
            space.reserve(LARGEST);
        }
        let read = poll_read_buf(Pin::new(io), cx, &mut space);
        if !space.is_empty() {
            *input = space.split();
        }
        self.0.replace(space);
        read
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Space")
    }
}
