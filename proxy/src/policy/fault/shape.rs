//! Answers that come slowly, that break off, and whose trailers say nothing anybody understands.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};
use smallvec::SmallVec;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Busy;
use crate::body::{Body, BodyError};
use crate::failure::{Reason, grpc_status, is_grpc, proxys_own};

/// What becomes of the bytes on their way to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bytes a second.
    pub rate: Option<u64>,
    /// It breaks off behind so many.
    pub cut: Option<u64>,
    /// The values of its trailers are made unusable.
    pub corrupt: bool,
}

impl Shape {
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// The slower and shorter of both.
    pub fn and(self, other: Self) -> Self {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let corrupt = self.corrupt || other.corrupt;
        Self { rate: least(self.rate, other.rate), cut: least(self.cut, other.cut), corrupt }
    }

    pub fn body(self, body: Body) -> Body {
        self.body_with(body, SmallVec::new())
    }

    /// `busy` lives as long as the body.
    pub fn body_with(self, body: Body, busy: SmallVec<[Busy; 1]>) -> Body {
        if self.is_nothing() || body.is_end_stream() {
            return body;
        }
        let flow = Flow::new(self);
        Body::wrapped(Shaped { body, held: Bytes::new(), flow, corrupt: self.corrupt, _busy: busy })
    }

    /// The trailers of a gRPC answer without a body stand in its head. Whether they were made unusable.
    pub fn head(self, response: &mut Response<Body>) -> bool {
        let trailers_only = self.corrupt
            && response.body().is_end_stream()
            && is_grpc(response.headers())
            && response.headers().contains_key(GRPC[0]);
        if trailers_only {
            for name in GRPC {
                if let Some(value) = response.headers_mut().get_mut(name) {
                    *value = CORRUPT;
                }
            }
            response.headers_mut().insert(PROXY_STATUS, told());
        }
        trailers_only
    }
}

/// Whether nobody can have meant what these trailers say: we, or the proxy of the callee, made it up.
pub fn were_corrupted(trailers: &HeaderMap) -> bool {
    !trailers.is_empty()
        && grpc_status(trailers).is_none()
        && proxys_own(trailers).is_some_and(Reason::is_injected)
}

fn corrupt(trailers: &mut HeaderMap) {
    trailers.values_mut().for_each(|value| *value = CORRUPT);
    trailers.insert(PROXY_STATUS, told());
}

/// No number, no base64, no percent-encoding.
const CORRUPT: HeaderValue = HeaderValue::from_static("%!corrupt!%");
/// What gRPC has in its trailers.
const GRPC: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
const PROXY_STATUS: &str = "proxy-status";

fn told() -> HeaderValue {
    HeaderValue::from_static("outrigger; error=http_protocol_error; reason=\"fault_trailers\"")
}

/// Lets bytes through at their pace, and says where it is over.
#[derive(Debug)]
pub struct Flow {
    rate: Option<u64>,
    /// Before it breaks off.
    left: Option<u64>,
    /// What is let through next is due then.
    due: Option<Pin<Box<Sleep>>>,
    /// Bytes that are waited for.
    waiting: u64,
    /// What was let through went out, as far as could be seen to.
    parted: bool,
}

/// What may go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Bytes(u64),
    /// Nothing more, ever.
    Cut,
}

/// Slices a second at most, so that a slow answer trickles instead of coming in lumps.
const SLICES: u64 = 20;

impl Flow {
    pub fn new(Shape { rate, cut, .. }: Shape) -> Self {
        Self { rate, left: cut, due: None, waiting: 0, parted: false }
    }

    /// How many of `there` (1 or more) may pass. Pending until the first of them may.
    pub fn poll(&mut self, cx: &mut Context<'_>, there: u64) -> Poll<Pass> {
        if self.left == Some(0) {
            // Once in between, so that whoever writes has sent what came before.
            if !std::mem::replace(&mut self.parted, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Pass::Cut);
        }
        let mut pass = self.left.map_or(there, |left| there.min(left));
        if let Some(rate) = self.rate {
            if self.waiting == 0 {
                self.waiting = pass.min((rate / SLICES).max(1));
                let takes = Duration::from_nanos(nanos(self.waiting, rate));
                // From when the last ones were due: late wake-ups do not add up.
                let now = Instant::now();
                match &mut self.due {
                    Some(due) => {
                        let from = due.deadline().max(now.checked_sub(takes).unwrap_or(now));
                        due.as_mut().reset(from + takes);
                    }
                    None => self.due = Some(Box::pin(sleep_until(now + takes))),
                }
            }
            let due = self.due.as_mut().expect("made before it is waited for");
            ready!(due.as_mut().poll(cx));
            pass = pass.min(self.waiting);
        }
        Poll::Ready(Pass::Bytes(pass))
    }

    /// So many went on.
    pub fn passed(&mut self, bytes: u64) {
        self.waiting = self.waiting.saturating_sub(bytes);
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes);
        }
    }
}

/// How long `bytes` take at `rate` a second.
fn nanos(bytes: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX / 2)
}

struct Shaped {
    body: Body,
    /// Read, and not yet due.
    held: Bytes,
    flow: Flow,
    corrupt: bool,
    _busy: SmallVec<[Busy; 1]>,
}

impl http_body::Body for Shaped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, held, flow, corrupt: is_corrupt, .. } = &mut *self;
        while held.is_empty() {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => *held = data,
                    Err(mut frame) => {
                        if let Some(trailers) = frame.trailers_mut().filter(|_| *is_corrupt) {
                            corrupt(trailers);
                        }
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
                other => return Poll::Ready(other),
            }
        }
        match ready!(flow.poll(cx, held.len() as u64)) {
            Pass::Cut => Poll::Ready(Some(Err(BodyError::Ended(Reason::FaultCut)))),
            Pass::Bytes(bytes) => {
                flow.passed(bytes);
                // At most as many as there are.
                Poll::Ready(Some(Ok(Frame::data(held.split_to(bytes as usize)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (held, rest) = (self.held.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn read(mut body: Body) -> (usize, Option<Reason>) {
        let mut bytes = 0;
        loop {
            match body.frame().await {
                None => return (bytes, None),
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(error)) => return (bytes, Some(error.reason())),
            }
        }
    }

    fn text(length: usize) -> Body {
        "x".repeat(length).into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_takes_as_long_as_its_bytes_do() {
        for (bytes, rate, seconds) in [(1_000, 100, 10), (7, 1, 7), (1_000_000, 1_000_000, 1)] {
            let begun = Instant::now();
            let shape = Shape { rate: Some(rate), ..Shape::default() };
            assert_eq!(read(shape.body(text(bytes))).await, (bytes, None));
            let took = begun.elapsed();
            let wanted = Duration::from_secs(seconds);
            // A timer is exact to a millisecond.
            assert!(
                took >= wanted && took <= wanted + Duration::from_millis(5),
                "{took:?} for {bytes} at {rate}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_trickle() {
        let mut body = Shape { rate: Some(1_000), ..Shape::default() }.body(text(500));
        let (begun, mut frames) = (Instant::now(), 0);
        while let Some(frame) = body.frame().await {
            let length = frame.expect("no end").data_ref().map_or(0, Bytes::len);
            assert!(length <= 50, "{length} at once");
            frames += 1;
        }
        assert_eq!((frames, begun.elapsed().as_millis() / 10), (10, 50));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_breaks_off_behind_as_many_bytes_as_it_says() {
        let cut = |after| Shape { cut: Some(after), ..Shape::default() };
        assert_eq!(read(cut(10).body(text(100))).await, (10, Some(Reason::FaultCut)));
        assert_eq!(read(cut(100).body(text(100))).await, (100, None), "it came whole");
        assert_eq!(read(cut(101).body(text(100))).await, (100, None));
        let both = Shape { rate: Some(10), ..Shape::default() }.and(cut(20)).and(cut(30));
        let begun = Instant::now();
        assert_eq!(read(both.body(text(100))).await, (20, Some(Reason::FaultCut)));
        assert_eq!(begun.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn trailers_come_behind_the_bytes() {
        let trailers: http::HeaderMap =
            [(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]
                .into_iter()
                .collect();
        let body = || {
            let frames = [Ok(Frame::data(Bytes::from_static(b"abc"))), Ok(Frame::trailers(trailers.clone()))];
            Body::wrapped(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
        };
        let shape = Shape { rate: Some(1), ..Shape::default() };
        let collected = shape.body(body()).collect().await.expect("whole");
        let whole = collected.trailers().expect("there are some");
        assert_eq!((whole.len(), grpc_status(whole)), (1, Some(0)));
        assert!(!were_corrupted(whole));

        let shape = Shape { corrupt: true, ..Shape::default() };
        let collected = shape.body(body()).collect().await.expect("whole");
        let broken = collected.trailers().expect("there are some");
        assert!(broken.contains_key("grpc-status") && grpc_status(broken).is_none(), "{broken:?}");
        assert!(were_corrupted(broken));
        assert_eq!(collected.to_bytes(), "abc", "nothing else is touched");
    }
}
