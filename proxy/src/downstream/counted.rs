//! A client's connection whose bytes are counted as they pass, and whose pauses may be bounded.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::telemetry::ByteCount;
use crate::upstream::relay::Resettable;

/// What is read of it counts as request, what is written to it as response.
#[derive(Debug)]
pub struct Counted<T> {
    io: T,
    request: ByteCount,
    response: ByteCount,
    moved: Option<Rc<Cell<Instant>>>,
}

impl<T> Counted<T> {
    pub fn new(io: T, request: ByteCount, response: ByteCount, pauses: &Pauses) -> Self {
        Self { io, request, response, moved: pauses.moved.as_ref().map(|(moved, _)| moved.clone()) }
    }

    fn moved(&self) {
        if let Some(moved) = &self.moved {
            moved.set(Instant::now());
        }
    }
}

/// How long a tunnel may pause; without a limit as long as it likes.
#[derive(Debug)]
pub struct Pauses {
    moved: Option<(Rc<Cell<Instant>>, Duration)>,
}

impl Pauses {
    pub fn new(limit: Option<Duration>) -> Self {
        Self { moved: limit.map(|limit| (Rc::new(Cell::new(Instant::now())), limit)) }
    }

    /// `None` where the work paused for too long.
    pub async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        let Some((moved, limit)) = self.moved else { return Some(work.await) };
        let paused = async {
            while moved.get() + limit > Instant::now() {
                sleep_until(moved.get() + limit).await;
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = paused => None,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if result.is_ready() {
            self.request.add((buf.filled().len() - before) as u64);
            self.moved();
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &result {
            self.response.add(*written as u64);
            self.moved();
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<T: Resettable> Resettable for Counted<T> {
    fn reset(&mut self) {
        self.io.reset();
    }
}
