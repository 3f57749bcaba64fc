//! What was sent of a request's body, kept for the case that it has to be sent again.
//!
//! Owns the copies and their limits: 64 KiB a request, 16 MiB a worker. Copies share memory with what was sent, and live only until the
//! response begins. Never decides that a request is sent again.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use http_body::Frame;

use crate::body::Body;

/// Most that is kept of one request; a longer one is sent once.
const PER_REQUEST: usize = 64 * 1024;
/// Most that is kept by all requests of a worker.
const PER_WORKER: usize = 16 * 1024 * 1024;

/// What the requests of a worker keep together.
#[derive(Debug, Default)]
pub struct Budget {
    kept: Cell<usize>,
}

/// The frames of one body so far.
#[derive(Debug)]
pub struct Kept {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    budget: Rc<Budget>,
}

impl Kept {
    pub fn new(budget: &Rc<Budget>) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, budget: Rc::clone(budget) }
    }

    /// False when it became too much: then what is kept is of no use any more.
    pub fn keep(&mut self, frame: &Frame<Bytes>) -> bool {
        let Some(copy) = copy(frame) else { return true };
        let bytes = copy.data_ref().map_or(0, Bytes::len);
        let kept = self.budget.kept.get() + bytes;
        if self.bytes + bytes > PER_REQUEST || kept > PER_WORKER || self.frames.len() >= MAX_FRAMES {
            return false;
        }
        self.budget.kept.set(kept);
        self.bytes += bytes;
        self.frames.push_back(copy);
        true
    }

    pub fn frame(&self, index: usize) -> Option<Frame<Bytes>> {
        copy(self.frames.get(index)?)
    }

    /// Frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Bytes of the frames from `index` on.
    pub fn bytes_from(&self, index: usize) -> u64 {
        let data = self.frames.iter().skip(index).filter_map(Frame::data_ref);
        data.map(|data| data.len() as u64).sum()
    }

    /// The body from frame `from` on: what is kept, then what was not taken yet.
    pub fn rewind(mut self, from: usize, rest: Body) -> Body {
        let mut frames = std::mem::take(&mut self.frames);
        frames.drain(..from.min(frames.len()));
        rest.behind(frames)
    }
}

fn copy(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Some(Frame::data(data.clone())),
        (None, Some(trailers)) => Some(Frame::trailers(trailers.clone())),
        (None, None) => None,
    }
}

/// Bounds what frames of no size cost.
const MAX_FRAMES: usize = 1024;

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.kept.set(self.budget.kept.get() - self.bytes);
    }
}
