//! The timers of one worker: as many as are wanted, and one of the runtime's behind all of them.
//!
//! Nearly every timer of a proxy is set and taken back, over and over: a limit of an attempt that is met, a connection that is used again. One of
//! the runtime's takes a lock to set and another to take back, and is 240 bytes; one of these takes a few dozen instructions and is 40 bytes of a
//! list that all share. They are due at the millisecond, as the runtime's are, and never early; a paused clock moves them as it moves those.
//!
//! Owns which of them is due first and who is woken then. Never leaves its thread. What lies ahead of what is the wheel's (`wheel`).

mod wheel;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use wheel::{Key, Tick, Wheel};

/// One a worker. Its task starts with the first timer that is waited for, and ends with the worker.
pub struct Timers {
    wheel: RefCell<Wheel>,
    /// Tick 0.
    born: Instant,
    /// When the task looks next.
    looks: Cell<Tick>,
    started: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

/// Waits until a point in time. Costs nothing before it is first polled.
pub struct Sleep {
    timers: Rc<Timers>,
    key: Option<Key>,
    at: Instant,
}

/// It looks never, unless it is woken.
const NEVER: Tick = Tick::MAX;

impl Timers {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            wheel: RefCell::default(),
            born: Instant::now(),
            looks: Cell::new(0),
            started: Cell::new(false),
            task: RefCell::default(),
        })
    }

    pub fn sleep_until(self: &Rc<Self>, at: Instant) -> Sleep {
        Sleep { timers: Rc::clone(self), key: None, at }
    }

    pub fn sleep(self: &Rc<Self>, duration: Duration) -> Sleep {
        self.sleep_until(Instant::now() + duration)
    }

    /// What comes of `work` if that is before `at`. Boxed or pinned by the caller, so that it does not lie here a second time.
    pub async fn before<T>(
        self: &Rc<Self>,
        at: Instant,
        mut work: std::pin::Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut sleep = self.sleep_until(at);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => sleep.poll(cx).map(|()| None),
        })
        .await
    }

    /// The first tick that is not before `at`.
    fn tick(&self, at: Instant) -> Tick {
        let after = at.saturating_duration_since(self.born);
        after.as_secs().saturating_mul(1_000) + Tick::from(after.subsec_nanos().div_ceil(1_000_000))
    }

    fn insert(self: &Rc<Self>, at: Instant, waker: &Waker) -> Key {
        let (key, due) = self.wheel.borrow_mut().insert(self.tick(at), waker.clone());
        if due < self.looks.get() {
            self.looks.set(due);
            if let Some(task) = &*self.task.borrow() {
                task.wake_by_ref();
            }
        }
        if !self.started.replace(true) {
            // Its own budget would be the next turn's problem: whoever is late has to hear of it.
            tokio::task::spawn_local(tokio::task::unconstrained(Rc::clone(self).run()));
        }
        key
    }

    async fn run(self: Rc<Self>) {
        let mut sleep = pin!(tokio::time::sleep_until(self.born));
        poll_fn(|cx| {
            self.woken_by(cx.waker());
            loop {
                let Some(next) = self.wheel.borrow().next() else {
                    self.looks.set(NEVER);
                    return Poll::<()>::Pending;
                };
                self.looks.set(next);
                let at = self.born + Duration::from_millis(next);
                if sleep.deadline() != at {
                    sleep.as_mut().reset(at);
                }
                std::task::ready!(sleep.as_mut().poll(cx));
                self.expire(Instant::now());
            }
        })
        .await;
    }

    /// Woken once the wheel is nobody's: what is woken, or dropped with its waker, may have timers of its own.
    fn expire(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.born).as_millis() as Tick;
        let mut due = SmallVec::<[Waker; 8]>::new();
        self.wheel.borrow_mut().expire(passed, |waker| due.push(waker));
        due.into_iter().for_each(Waker::wake);
    }

    fn woken_by(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }
}

impl Sleep {
    pub fn deadline(&self) -> Instant {
        self.at
    }

    /// Whoever polled it before does not hear of it any more, unless he polls it again.
    pub fn reset(&mut self, at: Instant) {
        self.take_back();
        self.at = at;
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(key) = self.key else {
            self.key = Some(self.timers.insert(self.at, cx.waker()));
            return Poll::Pending;
        };
        if self.timers.wheel.borrow().is_due(key) {
            return Poll::Ready(());
        }
        let before = self.timers.wheel.borrow_mut().wake(key, cx.waker());
        drop(before);
        Poll::Pending
    }

    fn take_back(&mut self) {
        if let Some(key) = self.key.take() {
            let waker = self.timers.wheel.borrow_mut().remove(key);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll(&mut self, cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("set", &self.wheel.borrow().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
