//! The body of a message on its way through, whichever codec it came from.
//!
//! The codecs' types end here: `downstream/` makes a `Body` of what it receives, `upstream/` of what it is answered, and nothing between them
//! knows which codec that was. Streams; never collects.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use outrigger_http2::RecvStream;

use crate::downstream::Stream;
use crate::exchange::Attempt;
use crate::failure::Reason;
use crate::upgrade::Upgrade;
use crate::upstream::{http1, http2};

/// A streaming body with trailers.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Bytes(Option<Bytes>),
    /// Of a request over HTTP/2.
    Stream(RecvStream),
    /// Of a request over HTTP/1.
    Asked(outrigger_http1::Incoming<Box<dyn Stream>>),
    Http1(http1::Received),
    Http2(http2::Received),
    Replayed(Attempt),
    /// Nothing to read: the connection behind it became a tunnel.
    Upgrade(Option<Upgrade>),
    Wrapped(Wrapped),
}

/// A body that looks at what passes (counts, limits, replays). Boxed: only exchanges that need one pay for it.
struct Wrapped(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>);

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrapped")
    }
}

impl Body {
    pub const fn empty() -> Self {
        Self(Kind::Bytes(None))
    }

    /// Of a request over HTTP/2.
    pub fn stream(recv: RecvStream) -> Self {
        Self(Kind::Stream(recv))
    }

    /// Of a request over HTTP/1.
    pub fn asked(incoming: outrigger_http1::Incoming<Box<dyn Stream>>) -> Self {
        Self(Kind::Asked(incoming))
    }

    /// Of a response over HTTP/1; gives its connection back when it ended.
    pub(crate) fn http1(received: http1::Received) -> Self {
        Self(Kind::Http1(received))
    }

    /// Of a response over HTTP/2.
    pub(crate) fn http2(received: http2::Received) -> Self {
        Self(Kind::Http2(received))
    }

    /// One of several readings of a request's body.
    pub(crate) fn replayed(attempt: Attempt) -> Self {
        Self(Kind::Replayed(attempt))
    }

    pub(crate) fn is_replayed(&self) -> bool {
        matches!(self.0, Kind::Replayed(_))
    }

    /// Back to its beginning, where that can still be done.
    pub(crate) fn rewind(&mut self) -> bool {
        match &mut self.0 {
            Kind::Replayed(attempt) => attempt.rewind(),
            _ => false,
        }
    }

    pub(crate) fn upgrade(upgrade: Upgrade) -> Self {
        Self(Kind::Upgrade(Some(upgrade)))
    }

    pub(crate) fn take_upgrade(&mut self) -> Option<Upgrade> {
        match &mut self.0 {
            Kind::Upgrade(upgrade) => upgrade.take(),
            _ => None,
        }
    }

    pub fn wrapped(body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self(Kind::Wrapped(Wrapped(Box::pin(body))))
    }

    /// With `frames`, which were taken of it, before what is left.
    pub(crate) fn behind(self, frames: VecDeque<Frame<Bytes>>) -> Self {
        if frames.is_empty() { self } else { Self::wrapped(Behind { frames, rest: self }) }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Bytes((!bytes.is_empty()).then_some(bytes)))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream(recv) => Poll::Ready(match ready!(recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    recv.release(data.len());
                    Some(Ok(Frame::data(data)))
                }
                Some(Err(error)) => Some(Err(BodyError::Stream(error))),
                None => recv.take_trailers().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Kind::Asked(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(BodyError::Http1)))
            }
            Kind::Http1(received) => received.poll_frame(cx),
            Kind::Http2(received) => received.poll_frame(cx),
            Kind::Replayed(attempt) => attempt.poll_frame(cx),
            Kind::Upgrade(_) => Poll::Ready(None),
            Kind::Wrapped(body) => body.0.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_none(),
            Kind::Stream(recv) => recv.is_end_stream(),
            Kind::Asked(incoming) => incoming.is_end_stream(),
            Kind::Http1(received) => received.is_end_stream(),
            Kind::Http2(received) => received.is_end_stream(),
            Kind::Replayed(attempt) => attempt.is_end_stream(),
            Kind::Upgrade(_) => true,
            Kind::Wrapped(body) => body.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream(recv) => recv.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Kind::Asked(incoming) => incoming.size_hint(),
            Kind::Http1(received) => received.size_hint(),
            Kind::Http2(received) => received.size_hint(),
            Kind::Replayed(attempt) => attempt.size_hint(),
            Kind::Upgrade(_) => SizeHint::with_exact(0),
            Kind::Wrapped(body) => body.0.size_hint(),
        }
    }
}

struct Behind {
    frames: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl http_body::Body for Behind {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let taken: u64 = self.frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + taken);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + taken);
        }
        hint
    }
}

/// Why a body ended before its end. Whoever reads it resets the message it belongs to.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("{0}")]
    Http1(outrigger_http1::BodyError),
    #[error("{0}")]
    Stream(outrigger_http2::Error),
    /// No byte moved for as long as it may.
    #[error("the body made no progress for {0:?}")]
    Stalled(std::time::Duration),
    /// The exchange it belongs to was ended.
    #[error("the exchange was ended: {0}")]
    Ended(Reason),
}

impl BodyError {
    /// What a failing request body means for its exchange.
    pub fn reason(&self) -> Reason {
        match self {
            // What its client sent is no body.
            Self::Http1(outrigger_http1::BodyError::Refused(_)) => Reason::BadRequest,
            Self::Http1(_) | Self::Stream(_) => Reason::ClientClosed,
            Self::Stalled(_) => Reason::RequestBodyStalled,
            Self::Ended(reason) => *reason,
        }
    }
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
