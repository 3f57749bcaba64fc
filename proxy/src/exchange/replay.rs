//! A request's body that can be sent from its beginning again, while not too much of it has gone.
//!
//! One owner, the loop over attempts; each attempt reads a body of its own. What an attempt reads is kept (shared memory, never a
//! copy) until the answer goes to the caller or the limits of `upstream::replay` are reached. One attempt at a time reads on; once the whole body is kept,
//! two may read it side by side. An attempt that was given up reads nothing more.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError};
use crate::failure::Reason;
use crate::upstream::replay::{Budget, Kept};

/// The body, held by who may send it again. Dropped, it keeps nothing any more; the attempts under way go on.
#[derive(Debug)]
pub struct Replay(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    rest: Body,
    /// `rest` has nothing more.
    ended: bool,
    /// `None`: not all of it is there any more.
    kept: Option<Kept>,
    /// The first attempt that may read, and the last one there is.
    oldest: usize,
    newest: usize,
    /// Nobody begins again: what is kept is of use only to those who have not read it yet.
    released: bool,
}

/// The body of one attempt.
#[derive(Debug)]
pub struct Attempt {
    state: Rc<RefCell<State>>,
    number: usize,
    /// Frames it has read, while they are kept.
    position: usize,
}

impl Replay {
    pub fn new(body: Body, budget: &Rc<Budget>) -> Self {
        let kept = Some(Kept::new(budget));
        let state = State { rest: body, ended: false, kept, oldest: 0, newest: 0, released: false };
        Self(Rc::new(RefCell::new(state)))
    }

    /// The body from its beginning, and the end of the attempts before. `None` if too much of it has gone.
    pub fn again(&self) -> Option<Body> {
        let mut state = self.0.borrow_mut();
        state.kept.as_ref()?;
        state.newest += 1;
        state.oldest = state.newest;
        drop(state);
        Some(self.attempt())
    }

    /// The body from its beginning, beside the attempt that has read it all; `None` if none has, or too much of it has gone.
    pub fn beside(&self) -> Option<Body> {
        let mut state = self.0.borrow_mut();
        if state.kept.is_none() || !state.is_read() {
            return None;
        }
        state.newest += 1;
        drop(state);
        Some(self.attempt())
    }

    fn attempt(&self) -> Body {
        let number = self.0.borrow().newest;
        Body::replayed(Attempt { state: Rc::clone(&self.0), number, position: 0 })
    }

    pub fn is_whole(&self) -> bool {
        self.0.borrow().kept.is_some()
    }
}

impl State {
    fn is_read(&self) -> bool {
        self.ended || self.rest.is_end_stream()
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.0.borrow_mut().released = true;
    }
}

impl Attempt {
    /// From the beginning again, for the same attempt over another connection; false if too much of it has gone.
    pub fn rewind(&mut self) -> bool {
        let state = self.state.borrow();
        let may = self.number >= state.oldest && state.kept.is_some() && !state.released;
        drop(state);
        if may {
            self.position = 0;
        }
        may
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.state.borrow_mut();
        if self.number < state.oldest {
            return Poll::Ready(Some(Err(BodyError::Ended(Reason::UpstreamReset))));
        }
        if let Some(frame) = state.kept.as_ref().and_then(|kept| kept.frame(self.position)) {
            self.position += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        if state.released {
            state.kept = None;
        }
        let polled = Pin::new(&mut state.rest).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.position += 1;
                if state.kept.as_mut().is_some_and(|kept| !kept.keep(frame)) {
                    state.kept = None;
                }
            }
            Poll::Ready(None) => state.ended = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    pub fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        let read = state.kept.as_ref().is_none_or(|kept| self.position >= kept.len());
        read && state.is_read()
    }

    pub fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let kept = state.kept.as_ref().map_or(0, |kept| kept.bytes_from(self.position));
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
