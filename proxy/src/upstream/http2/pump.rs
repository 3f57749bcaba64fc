//! The request's half of a stream.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use outrigger_http2::SendStream;

use super::stream::Broken;
use crate::body::Body;
use crate::upstream::replay::{Budget, Kept};

/// Moves a request's body into its stream, no more of it than the peer has room for.
pub(super) struct Pump {
    pub(super) body: Body,
    pub(super) stream: SendStream,
    /// Data taken from the body that has found no room yet.
    held: Bytes,
    /// What was taken, while it is not too much and the response has not begun: the stream may yet be refused.
    pub(super) kept: Option<Kept>,
    pub(super) done: bool,
}

impl Pump {
    pub(super) fn new(body: Body, stream: SendStream, budget: &Rc<Budget>) -> Self {
        // Who can begin it again need not keep it a second time.
        let kept = (!body.is_replayed()).then(|| Kept::new(budget));
        Self { body, stream, held: Bytes::new(), kept, done: false }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let result = ready!(self.advance(cx));
        self.done = true;
        Poll::Ready(result)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if !self.held.is_empty() {
                let end = self.body.is_end_stream();
                ready!(self.stream.poll_send(cx, &mut self.held, end)).map_err(Broken::Stream)?;
                if end {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            // Also while the body has nothing to give: an endpoint that does not want the rest says so here.
            if let Poll::Ready(error) = self.stream.poll_reset(cx) {
                return Poll::Ready(Err(Broken::Stream(error)));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.stream.end().map_err(Broken::Stream)?;
                return Poll::Ready(Ok(()));
            };
            let frame = frame.map_err(Broken::Body)?;
            if self.kept.as_mut().is_some_and(|kept| !kept.keep(&frame)) {
                self.kept = None;
            }
            match frame.into_data() {
                Ok(data) if data.is_empty() && self.body.is_end_stream() => {
                    self.stream.end().map_err(Broken::Stream)?;
                    return Poll::Ready(Ok(()));
                }
                Ok(data) => self.held = data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.stream.trailers(&trailers).map_err(Broken::Stream)?;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}
