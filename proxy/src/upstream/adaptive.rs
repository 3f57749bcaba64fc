//! A cap on requests under way that finds itself: as many as are answered without waiting for each other.
//!
//! The median latency of each window is held against the least one known: while it is near, the cap grows by its square root; where requests
//! wait, it shrinks with the ratio of the two, so that what comes on top is refused before a queue grows (the gradient of Envoy's
//! adaptive_concurrency and Netflix' concurrency-limits). What the least latency is, is found anew every minute: from calm traffic as it
//! is, under pressure with a quarter of the cap for some moments.
//!
//! Shared by all workers. A request costs two atomics; whoever ends one at the end of a window works out the next cap under a lock that
//! nobody waits for. Never refuses anything by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use outrigger_config::model::{self, Fraction};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::latencies::{Counts, percentile};

#[derive(Debug)]
pub(super) struct Adaptive {
    rules: model::Adaptive,
    under_way: AtomicU32,
    cap: AtomicU32,
    /// Most that were under way in this window.
    peak: AtomicU32,
    /// Latencies of this window, and how many.
    counts: Counts,
    counted: AtomicU32,
    /// When the window is old enough, in microseconds since `born`.
    due: AtomicU64,
    born: Instant,
    control: Mutex<Control>,
}

#[derive(Debug)]
struct Control {
    /// The least median known.
    least: Option<Duration>,
    /// When that is looked for anew.
    until: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Adapting,
    /// The cap is lowered, and requests that were let in before are still under way.
    Draining {
        cap: u32,
    },
    /// What is answered now was let in under the lowered cap.
    Measuring {
        cap: u32,
    },
}

/// A window lasts as long and has as many answers, at least.
const WINDOW: Duration = Duration::from_millis(100);
const ANSWERS: u32 = 25;

/// How long the least latency is believed; each time up to a sixth more, so that callers do not measure at the same moment.
const BELIEVED: Duration = Duration::from_secs(60);

/// Where nothing is known.
const FIRST_CAP: u32 = 20;

/// By how much a median may be over the least before that is waiting.
const TOLERANCE: f64 = 1.25;

impl Adaptive {
    pub fn new(rules: model::Adaptive, now: Instant) -> Self {
        let cap = FIRST_CAP.clamp(rules.least, rules.most);
        Self {
            under_way: AtomicU32::new(0),
            cap: AtomicU32::new(cap),
            peak: AtomicU32::new(0),
            counts: Counts::default(),
            counted: AtomicU32::new(0),
            due: AtomicU64::new(0),
            born: now,
            control: Mutex::new(Control { least: None, until: now, phase: Phase::Adapting }),
            rules,
        }
    }

    pub fn rules(&self) -> &model::Adaptive {
        &self.rules
    }

    pub fn cap(&self) -> u32 {
        self.cap.load(Ordering::Relaxed)
    }

    pub fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Lets one more in, if the cap allows it. The error is the cap.
    pub fn enter(self: &Arc<Self>) -> Result<Admission, u32> {
        let cap = self.cap();
        let next = |n| (n < cap).then_some(n + 1);
        match self.under_way.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next) {
            Ok(before) => Ok(self.admitted(before + 1)),
            Err(_) => {
                // That is as much pressure as there can be.
                self.peak.fetch_max(cap, Ordering::Relaxed);
                Err(cap)
            }
        }
    }

    /// Lets one in whatever the cap is.
    pub fn force(self: &Arc<Self>) -> Admission {
        let before = self.under_way.fetch_add(1, Ordering::AcqRel);
        self.admitted(before + 1)
    }

    fn admitted(self: &Arc<Self>, under_way: u32) -> Admission {
        self.peak.fetch_max(under_way, Ordering::Relaxed);
        Admission(Arc::clone(self))
    }

    fn answered(&self, latency: Duration, now: Instant) {
        self.counts.add(latency);
        let counted = self.counted.fetch_add(1, Ordering::Relaxed) + 1;
        if counted < ANSWERS || self.micros(now) < self.due.load(Ordering::Relaxed) {
            return;
        }
        if let Some(mut control) = self.control.try_lock() {
            self.close_window(&mut control, now);
        }
    }

    fn close_window(&self, control: &mut Control, now: Instant) {
        let Some(median) = percentile(&[&self.counts], Fraction::HALF, ANSWERS.into()) else { return };
        self.counts.clear();
        self.counted.store(0, Ordering::Relaxed);
        let peak = self.peak.swap(self.under_way(), Ordering::Relaxed);
        self.due.store(self.micros(now + WINDOW), Ordering::Relaxed);
        let cap = self.cap();
        let pressed = u64::from(peak) * 2 >= u64::from(cap);
        let next = match control.phase {
            Phase::Draining { cap: before } => {
                control.phase = Phase::Measuring { cap: before };
                cap
            }
            Phase::Measuring { cap: before } => {
                control.phase = Phase::Adapting;
                control.believe(median, now, self.born);
                before
            }
            Phase::Adapting if now >= control.until && pressed => {
                control.phase = Phase::Draining { cap };
                cap / 4
            }
            Phase::Adapting => {
                if now >= control.until {
                    control.believe(median, now, self.born);
                }
                let least = *control.least.insert(control.least.map_or(median, |least| least.min(median)));
                adapted(cap, least, median, pressed)
            }
        };
        self.cap.store(next.clamp(self.rules.least, self.rules.most), Ordering::Relaxed);
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Control {
    fn believe(&mut self, least: Duration, now: Instant, born: Instant) {
        self.least = Some(least);
        let odd = now.saturating_duration_since(born).as_micros() % (BELIEVED.as_micros() / 6);
        self.until = now + BELIEVED + Duration::from_micros(u64::try_from(odd).unwrap_or_default());
    }
}

/// The next cap. One that nobody comes near shows nothing when latencies are good, and is not raised.
fn adapted(cap: u32, least: Duration, median: Duration, pressed: bool) -> u32 {
    let gradient = (TOLERANCE * least.as_secs_f64() / median.as_secs_f64()).clamp(0.5, 1.0);
    let cap_now = f64::from(cap);
    let next = (gradient * cap_now + cap_now.sqrt()) as u32;
    if pressed { next } else { next.min(cap) }
}

/// One request under way; let out when it is dropped.
#[derive(Debug)]
pub struct Admission(Arc<Adaptive>);

impl Admission {
    /// A good answer began, so long after the request was sent.
    pub fn answered(&self, latency: Duration, now: Instant) {
        self.0.answered(latency, now);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
