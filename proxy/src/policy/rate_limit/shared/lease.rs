//! Tokens of one key that were leased from a server, and how many more are wanted.
//!
//! Owns the numbers that requests take from: one atomic while there are tokens, a lock only for whoever has to wait. Told the time, in nanoseconds since a zero
//! of the caller's choice; reads no clock and never asks anybody (that is [`super::asking`], one task for each lease in use).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::gcra::Level;

#[derive(Debug)]
pub struct Lease {
    /// What the server counts it by, one for each part of the limit's key.
    pub values: Box<[String]>,
    /// Which override holds for it.
    pub given: Option<usize>,
    left: AtomicU64,
    /// With fewer left, more is asked for before they are used up.
    low: AtomicU64,
    /// Somebody has said so.
    is_low: AtomicBool,
    /// Until then the server has nothing for whoever wants `denied_cost` or more.
    denied_until: AtomicU64,
    denied_cost: AtomicU64,
    /// When it will have something, as callers are told.
    back_at: AtomicU64,
    /// The server does not answer. Until it does nobody waits for it.
    failed: AtomicBool,
    /// Requests that were not decided on since it was last asked.
    missed: AtomicU64,
    /// What the server had left when it last answered, and when its unit ends.
    remaining: AtomicU64,
    unit_ends: AtomicU64,
    state: Mutex<State>,
    /// Tells those who wait that something has changed.
    changed: Notify,
    /// Tells the task that more is wanted.
    pub wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// A task looks after it.
    working: bool,
    waiting: u64,
    /// The least of those who wait, since somebody does.
    least: u64,
    books: Books,
}

/// What was used of late.
#[derive(Debug, Default)]
struct Books {
    granted: u64,
    /// Of them: no longer left, for whatever reason.
    gone: u64,
    at: u64,
    /// Use within the last [`RECENT`], older use counting less.
    recent: f64,
}

/// Nanoseconds of use that are leased in advance.
const RECENT: f64 = 100e6;

/// Use within [`RECENT`] from which on more is leased in advance: some ten tokens a second. What comes more seldom would be given back unused.
const STEADY: f64 = 1.5;

/// What becomes of somebody who wants tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// `low`: more should be asked for.
    Yes { level: Level, low: bool },
    /// Nanoseconds until it may be tried again.
    No { level: Level, wait: u64 },
    /// The server does not answer.
    Undecided,
    /// Somebody has to ask.
    Empty,
}

/// What should be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    pub hits: u64,
    /// With fewer nobody is helped.
    pub least: u64,
}

impl Lease {
    pub fn new(values: Box<[String]>, given: Option<usize>) -> Self {
        Self {
            values,
            given,
            left: AtomicU64::new(0),
            low: AtomicU64::new(0),
            is_low: AtomicBool::new(false),
            denied_until: AtomicU64::new(0),
            denied_cost: AtomicU64::new(0),
            back_at: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            missed: AtomicU64::new(0),
            remaining: AtomicU64::new(0),
            unit_ends: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Notify::new(),
            wanted: Notify::new(),
        }
    }

    pub fn take(&self, now: u64, cost: u32) -> Taken {
        let cost = u64::from(cost);
        if let Ok(before) = self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(cost)) {
            let low = before - cost < self.low.load(Relaxed) && !self.is_low.swap(true, Relaxed);
            return Taken::Yes { level: self.level(now, before - cost), low };
        }
        if now < self.denied_until.load(Relaxed) && cost >= self.denied_cost.load(Relaxed) {
            let wait = self.back_at.load(Relaxed).saturating_sub(now).max(1);
            return Taken::No { level: Level { left: 0, full_in: wait }, wait };
        }
        if self.failed.load(Relaxed) {
            self.missed.fetch_add(1, Relaxed);
            return Taken::Undecided;
        }
        Taken::Empty
    }

    fn level(&self, now: u64, left: u64) -> Level {
        let left = left.saturating_add(self.remaining.load(Relaxed));
        let full_in = self.unit_ends.load(Relaxed).saturating_sub(now);
        Level { left: u32::try_from(left).unwrap_or(u32::MAX), full_in }
    }

    /// What was taken and is not used after all.
    pub fn put_back(&self, cost: u32) {
        self.left.fetch_add(cost.into(), Relaxed);
    }

    /// Begins to wait for `cost` tokens. The second says whether a task has to be started, which then looks after the lease.
    pub fn wait(&self, cost: u32) -> (Waiting<'_>, bool) {
        let cost = u64::from(cost);
        let mut state = self.state.lock();
        state.least = if state.waiting == 0 { cost } else { state.least.min(cost) };
        state.waiting += cost;
        (Waiting { lease: self, cost }, self.call(&mut state))
    }

    /// More is wanted before it is used up. Returns as [`Self::wait`].
    pub fn low(&self) -> bool {
        self.call(&mut self.state.lock())
    }

    fn call(&self, state: &mut State) -> bool {
        if state.working {
            self.wanted.notify_one();
        }
        !std::mem::replace(&mut state.working, true)
    }

    /// What to ask for now; `None` if there is enough. `most`: of a lease, 1 or more; `limit`: more is never there.
    pub fn wish(&self, now: u64, most: u64, limit: u64) -> Option<Wish> {
        self.is_low.store(false, Relaxed);
        let mut state = self.state.lock();
        let left = self.left.load(Relaxed);
        let recent = state.books.look(now, left);
        let batch = (recent as u64).clamp(1, most);
        self.low.store(if recent >= STEADY { batch.div_ceil(4) } else { 0 }, Relaxed);
        if state.waiting > 0 {
            let hits = state.waiting.max(batch).min(limit).saturating_sub(left).max(1);
            return Some(Wish { hits, least: state.least.saturating_sub(left).clamp(1, hits) });
        }
        let enough = left >= self.low.load(Relaxed) || now < self.denied_until.load(Relaxed);
        (!enough).then(|| Wish { hits: batch.saturating_sub(left).max(1), least: 1 })
    }

    /// The server counted them. `dry_until`: the server has no more, and is not asked before.
    pub fn granted(&self, hits: u64, remaining: u32, unit_ends: u64, dry_until: u64) {
        self.state.lock().books.granted += hits;
        self.remaining.store(remaining.into(), Relaxed);
        self.unit_ends.store(unit_ends, Relaxed);
        self.back_at.store(dry_until, Relaxed);
        self.denied_cost.store(1, Relaxed);
        self.denied_until.store(dry_until, Relaxed);
        self.left.fetch_add(hits, Relaxed);
        self.answered();
    }

    /// The server has nothing for `cost`, and is not asked for it before `until`; at `back_at` it will have.
    pub fn denied(&self, cost: u64, until: u64, back_at: u64) {
        self.remaining.store(0, Relaxed);
        self.back_at.store(back_at, Relaxed);
        self.denied_cost.store(cost, Relaxed);
        self.denied_until.store(until, Relaxed);
        self.answered();
    }

    fn answered(&self) {
        self.failed.store(false, Relaxed);
        self.changed.notify_waiters();
    }

    /// The server did not answer.
    pub fn failed(&self) {
        self.missed.store(0, Relaxed);
        self.failed.store(true, Relaxed);
        self.changed.notify_waiters();
    }

    /// Whether somebody wanted something since it failed.
    pub fn was_missed(&self) -> bool {
        self.missed.swap(0, Relaxed) > 0
    }

    /// Takes what is left if nothing was used since this was last asked.
    pub fn take_idle(&self, now: u64) -> u64 {
        let mut state = self.state.lock();
        let left = self.left.load(Relaxed);
        let gone = state.books.gone;
        state.books.look(now, left);
        if state.books.gone != gone || state.waiting > 0 {
            return 0;
        }
        let taken = self.left.swap(0, Relaxed);
        // Nobody used them.
        state.books.granted -= taken.min(state.books.granted);
        taken
    }

    /// Takes what is left because it is worth nothing any more.
    pub fn expire(&self) {
        let mut state = self.state.lock();
        let taken = self.left.swap(0, Relaxed);
        state.books.granted -= taken.min(state.books.granted);
    }

    /// The task ends, unless somebody wants something or there is something to look after.
    pub fn rest(&self) -> bool {
        let mut state = self.state.lock();
        if state.waiting > 0 || self.left.load(Relaxed) > 0 {
            return false;
        }
        self.failed.store(false, Relaxed);
        state.working = false;
        true
    }

    /// Whether forgetting it loses nothing.
    pub fn is_at_rest(&self, now: u64) -> bool {
        let state = self.state.lock();
        !state.working && state.waiting == 0 && now >= self.denied_until.load(Relaxed)
    }
}

impl Books {
    /// Takes note of what was used by `now`, and says how much it is for [`RECENT`].
    fn look(&mut self, now: u64, left: u64) -> f64 {
        // Tokens that are put back may seem unused for a moment.
        let gone = self.granted.saturating_sub(left);
        let used = gone.saturating_sub(self.gone);
        let passed = now.saturating_sub(self.at) as f64;
        self.recent = self.recent * (-passed / RECENT).exp() + used as f64;
        (self.gone, self.at) = (gone, now);
        self.recent
    }
}

/// Counts as waiting until dropped.
#[derive(Debug)]
pub struct Waiting<'l> {
    lease: &'l Lease,
    cost: u64,
}

impl<'l> Waiting<'l> {
    /// Resolves when something has changed after it was made.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'l> {
        self.lease.changed.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lease.state.lock().waiting -= self.cost;
    }
}
