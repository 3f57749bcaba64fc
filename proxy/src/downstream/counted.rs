//! A client's connection whose bytes are counted as they pass, and whose pauses may be bounded.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::policy::fault::{Flow, Pass};
use crate::telemetry::ByteCount;
use crate::upstream::relay::Resettable;

/// What is read of it counts as request, what is written to it as response.
#[derive(Debug)]
pub struct Counted<T> {
    io: T,
    request: ByteCount,
    response: ByteCount,
    moved: Option<Rc<Cell<Instant>>>,
    /// How what is written is held up or broken off on purpose.
    flow: Option<Box<Flow>>,
    cut: bool,
}

impl<T> Counted<T> {
    pub fn new(io: T, request: ByteCount, response: ByteCount, pauses: &Pauses) -> Self {
        let moved = pauses.moved.as_ref().map(|(moved, _)| moved.clone());
        Self { io, request, response, moved, flow: None, cut: false }
    }

    pub fn with_flow(self, flow: Option<Box<Flow>>) -> Self {
        Self { flow, ..self }
    }

    /// Whether it ended because its flow did.
    pub fn was_cut(&self) -> bool {
        self.cut
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
        let mut pass = buf.len();
        if let Some(flow) = &mut self.flow
            && pass > 0
        {
            pass = match ready!(flow.poll(cx, pass as u64)) {
                // At most as many as there are.
                Pass::Bytes(bytes) => bytes as usize,
                Pass::Cut => {
                    self.cut = true;
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
            };
        }
        let result = Pin::new(&mut self.io).poll_write(cx, &buf[..pass]);
        if let Poll::Ready(Ok(written)) = &result {
            if let Some(flow) = &mut self.flow {
                flow.passed(*written as u64);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_moves_now_and_then_goes_on_and_what_rests_is_ended() {
        let pauses = Pauses::new(Some(LIMIT));
        let moved = pauses.moved.as_ref().expect("a limit").0.clone();
        let begun = Instant::now();
        let work = async {
            for _ in 0..100 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                moved.set(Instant::now());
            }
            std::future::pending::<()>().await;
        };
        assert_eq!(pauses.bound(work).await, None);
        assert_eq!(begun.elapsed(), (LIMIT - Duration::from_secs(1)) * 100 + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_anything_may_rest() {
        let work = tokio::time::sleep(Duration::from_secs(1_000_000));
        assert_eq!(Pauses::new(None).bound(work).await, Some(()));
    }
}
