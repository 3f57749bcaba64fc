//! The phase of a drain as the connections of one worker see it: one watch for all of them.
//!
//! A connection that waits for a watch of its own is 200 bytes larger, and asks it for each of its requests.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Waker};

use slab::Slab;

use super::{Phase, Watch};

/// One a worker.
pub struct Seen {
    phase: Cell<Phase>,
    waiting: RefCell<Slab<Option<Waker>>>,
}

/// Of one connection.
pub struct Place {
    seen: Rc<Seen>,
    key: usize,
}

impl Seen {
    pub fn new() -> Rc<Self> {
        Rc::new(Self { phase: Cell::new(Phase::Running), waiting: RefCell::default() })
    }

    /// Tells all connections of each change, until the drain itself is gone.
    pub async fn follow(self: Rc<Self>, mut watch: Watch) {
        loop {
            self.phase.set(watch.phase_and_seen());
            let woken: Vec<Waker> =
                self.waiting.borrow_mut().iter_mut().filter_map(|(_, waker)| waker.take()).collect();
            // Not while the list is borrowed: whoever is woken may leave it.
            woken.into_iter().for_each(Waker::wake);
            if !watch.changed().await {
                return;
            }
        }
    }

    pub fn enter(self: &Rc<Self>) -> Place {
        Place { seen: self.clone(), key: self.waiting.borrow_mut().insert(None) }
    }
}

impl Place {
    /// The phase it is. Whoever asked last is woken when it is another one.
    pub fn poll(&self, cx: &mut Context<'_>) -> Phase {
        let waiting = &mut self.seen.waiting.borrow_mut()[self.key];
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        self.seen.phase.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waker = self.seen.waiting.borrow_mut().remove(self.key);
        drop(waker);
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("phase", &self.phase).finish_non_exhaustive()
    }
}
