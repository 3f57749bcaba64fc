//! A request's body that can be sent from its beginning again, while not too much of it has gone.
//!
//! One owner, the loop over attempts; each attempt reads a body of its own. What an attempt reads is kept (shared memory, never a
//! copy) until the answer goes to the caller or the limits of `upstream::replay` are reached. An attempt that was given up reads nothing more.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError};
use crate::failure::Reason;
use crate::upstream::replay::{Budget, Kept};

/// The body, held by who may send it again. Dropped, it keeps nothing any more; the attempt under way goes on.
#[derive(Debug)]
pub struct Replay(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    rest: Body,
    /// `None`: not all of it is there any more.
    kept: Option<Kept>,
    /// The attempt that may read.
    attempt: usize,
    /// Frames it has read, while they are kept.
    position: usize,
}

/// The body of one attempt.
#[derive(Debug)]
pub struct Attempt {
    state: Rc<RefCell<State>>,
    number: usize,
}

impl Replay {
    pub fn new(body: Body, budget: &Rc<Budget>) -> Self {
        let kept = Some(Kept::new(budget));
        Self(Rc::new(RefCell::new(State { rest: body, kept, attempt: 0, position: 0 })))
    }

    /// The body from its beginning, and the end of the attempt before. `None` if too much of it has gone.
    pub fn again(&self) -> Option<Body> {
        let mut state = self.0.borrow_mut();
        state.kept.as_ref()?;
        state.attempt += 1;
        state.position = 0;
        Some(Body::replayed(Attempt { state: Rc::clone(&self.0), number: state.attempt }))
    }

    pub fn is_whole(&self) -> bool {
        self.0.borrow().kept.is_some()
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        let State { rest, kept, position, .. } = &mut *state;
        // The attempt under way may not have read all that is kept yet.
        if let Some(kept) = kept.take() {
            *rest = kept.rewind(*position, std::mem::take(rest));
        }
    }
}

impl Attempt {
    /// From the beginning again, for the same attempt over another connection; false if too much of it has gone.
    pub fn rewind(&mut self) -> bool {
        let mut state = self.state.borrow_mut();
        let may = state.attempt == self.number && state.kept.is_some();
        if may {
            state.position = 0;
        }
        may
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.state.borrow_mut();
        if state.attempt != self.number {
            return Poll::Ready(Some(Err(BodyError::Ended(Reason::UpstreamReset))));
        }
        if let Some(frame) = state.kept.as_ref().and_then(|kept| kept.frame(state.position)) {
            state.position += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        let polled = Pin::new(&mut state.rest).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            state.position += 1;
            if state.kept.as_mut().is_some_and(|kept| !kept.keep(frame)) {
                state.kept = None;
            }
        }
        polled
    }

    pub fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        let read = state.kept.as_ref().is_none_or(|kept| state.position >= kept.len());
        read && state.rest.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let kept = state.kept.as_ref().map_or(0, |kept| kept.bytes_from(state.position));
        let rest = state.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}

#[cfg(test)]
mod tests;
