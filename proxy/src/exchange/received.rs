//! A request's body on its way from the client: counted, and not waited for without end.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::outgoing::Held;
use crate::body::{Body, BodyError};
use crate::failure::{Reason, is_grpc};
use crate::telemetry::{ByteCount, Way};
use crate::timers::{Sleep, Timers};

/// What became of a request's body so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Reading,
    Whole,
    /// The client sent nothing for too long.
    Stalled,
    /// The client broke it off.
    Broken,
    /// What the client sent is no body.
    Malformed,
}

/// No byte for this long ends the request (design.md section 5); streams may pause as long as they like.
const NO_PROGRESS: Duration = Duration::from_secs(60);

/// Puts a watch on the request's body, if it has one.
pub fn watch(request: &mut Request<Body>, held: &mut Held, timers: &Rc<Timers>) {
    if request.body().is_end_stream() {
        return;
    }
    let fate = Rc::new(Cell::new(Fate::Reading));
    held.request_body = Some(fate.clone());
    let stream = is_grpc(request.headers()) || super::is_connect(request);
    let received = Received {
        body: std::mem::take(request.body_mut()),
        count: held.record.count(Way::Request),
        fate,
        stall: (!stream).then(|| Stall::of(timers)),
    };
    *request.body_mut() = Body::wrapped(received);
}

struct Received {
    body: Body,
    count: ByteCount,
    fate: Rc<Cell<Fate>>,
    /// `None` where it may pause as long as it likes.
    stall: Option<Stall>,
}

/// Waits for what does not come. The timer is made when the client is first waited for; most bodies come with their head.
struct Stall {
    timers: Rc<Timers>,
    sleep: Option<Sleep>,
}

impl Stall {
    fn of(timers: &Rc<Timers>) -> Self {
        Self { timers: timers.clone(), sleep: None }
    }

    /// Nothing came. Ready when that is so for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.get_or_insert_with(|| self.timers.sleep(NO_PROGRESS)).poll(cx)
    }

    fn moved(&mut self) {
        // Moving a timer costs more than letting it be a second early.
        if let Some(sleep) = &mut self.sleep {
            let deadline = Instant::now() + NO_PROGRESS;
            if deadline.duration_since(sleep.deadline()) >= Duration::from_secs(1) {
                sleep.reset(deadline);
            }
        }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {
                if self.stall.as_mut().is_some_and(|stall| stall.poll(cx).is_ready()) {
                    self.fate.set(Fate::Stalled);
                    return Poll::Ready(Some(Err(BodyError::Stalled(NO_PROGRESS))));
                }
            }
            Poll::Ready(None) => self.fate.set(Fate::Whole),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.count.add(data.len() as u64);
                }
                if let Some(stall) = &mut self.stall {
                    stall.moved();
                }
                if self.body.is_end_stream() {
                    self.fate.set(Fate::Whole);
                }
            }
            Poll::Ready(Some(Err(error))) => self.fate.set(match error.reason() {
                Reason::BadRequest => Fate::Malformed,
                _ => Fate::Broken,
            }),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_body_that_trickles_is_awaited_and_one_that_stopped_is_not() {
        let (mut stall, begun) = (Stall::of(&Timers::new()), Instant::now());
        for _ in 0..1000 {
            let pause = tokio::time::sleep(NO_PROGRESS - Duration::from_secs(2));
            tokio::select! {
                biased;
                () = poll_fn(|cx| stall.poll(cx)) => panic!("it moved in time"),
                () = pause => {}
            }
            stall.moved();
        }
        assert_eq!(begun.elapsed(), (NO_PROGRESS - Duration::from_secs(2)) * 1000);
        poll_fn(|cx| stall.poll(cx)).await;
        let waited = begun.elapsed() - (NO_PROGRESS - Duration::from_secs(2)) * 1000;
        assert!((NO_PROGRESS - Duration::from_secs(1)..=NO_PROGRESS).contains(&waited), "{waited:?}");
    }
}
