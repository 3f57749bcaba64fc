//! Whether an endpoint gets requests, by how its last ones went: closed, open, half-open with one probe, closed again with a rising share.
//!
//! Owns the state of one endpoint, a word that is changed by compare-exchange, and the counts behind it. Is told the time, in milliseconds of
//! its cluster's clock, and what was drawn at random. Never chooses an endpoint (`balance`), and never knows who else is out: for a place among
//! those who are it asks [`Places`], which has none for the last endpoint.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outrigger_config::model::{BreakerMode, Ejection, Fraction};

/// Since the cluster's clock began.
pub(super) type Millis = u64;

/// How an attempt went, as far as the endpoint is to blame or to praise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    /// There was not even a connection.
    Unreached,
}

/// Why an endpoint is out. The `reason` label of `outrigger_ejections_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EjectionReason {
    ConsecutiveErrors,
    ConnectFailures,
    SuccessRate,
    SlowCalls,
}

impl EjectionReason {
    pub const ALL: [Self; 4] =
        [Self::ConsecutiveErrors, Self::ConnectFailures, Self::SuccessRate, Self::SlowCalls];

    pub const fn word(self) -> &'static str {
        match self {
            Self::ConsecutiveErrors => "consecutive_errors",
            Self::ConnectFailures => "connect_failures",
            Self::SuccessRate => "success_rate",
            Self::SlowCalls => "slow_calls",
        }
    }
}

impl fmt::Display for EjectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whether an endpoint gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does. `back` is when it came back from an ejection, 0 if it never was out.
    Closed { errors: u8, unreached: u8, back: Millis },
    /// It gets none until then.
    Open { until: Millis, reason: EjectionReason },
    /// It gets the one that was sent then, and that one decides.
    Probing { since: Millis, reason: EjectionReason },
    /// It is not among the cluster's any more, or not ready.
    Gone,
}

/// What a call of [`Breaker`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is out from now on.
    Ejected(EjectionReason),
    /// It would be, but has to stay: it is the last one, or enough others are out.
    Spared(EjectionReason),
    /// Its probe failed.
    StillOut,
    /// Its probe succeeded.
    Back,
}

/// The one request that may find out whether an ejected endpoint is well; by the time it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe(Millis);

/// Of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    word: AtomicU64,
    failing: Window,
    slow: Window,
}

/// What the word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    standing: Standing,
    /// Ejections in a row; 0 to [`MOST_TIMES`].
    times: u8,
}

const MOST_TIMES: u8 = 31;

impl Breaker {
    pub fn standing(&self) -> Standing {
        self.load().standing
    }

    /// Whether it gets no requests but a probe.
    pub fn is_out(&self) -> bool {
        matches!(self.standing(), Standing::Open { .. } | Standing::Probing { .. })
    }

    /// Whether what began then was before it came back, and says nothing about it any more. Asked only where it ever came back.
    pub fn is_past(&self, begun: impl FnOnce() -> Millis) -> bool {
        matches!(self.standing(), Standing::Closed { back: back @ 1.., .. } if begun() < back)
    }

    /// When it may be probed, if it is out.
    pub fn next_probe(&self) -> Option<Millis> {
        match self.standing() {
            Standing::Open { until, .. } => Some(until),
            _ => None,
        }
    }

    /// The part of its share it gets, above 0 and at most 1: less than 1 for a while after it came back.
    pub fn share(&self, now: Millis, rules: &Ejection) -> f32 {
        let Standing::Closed { back: back @ 1.., .. } = self.standing() else { return 1.0 };
        let (gone, ramp) = (now.saturating_sub(back), rules.ramp.as_millis() as u64);
        if gone >= ramp { 1.0 } else { (gone as f32 / ramp as f32).max(LEAST_SHARE) }
    }

    /// An attempt came to its end. `slow`: whether it took longer than `rules` call slow; `random`: 0 to 1, drawn only if it is needed.
    pub fn tell(
        &self,
        outcome: Outcome,
        slow: bool,
        probe: Option<Probe>,
        (now, rules): (Millis, &Ejection),
        places: &Places,
        random: impl Fn() -> f64,
    ) -> Option<Change> {
        if let Some(probe) = probe {
            return self.judge(probe, outcome == Outcome::Success && !slow, (now, rules), places, random);
        }
        if self.is_out() {
            // It was sent before.
            return None;
        }
        let statistical = self.count(outcome, slow, now, rules);
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let State { standing: Standing::Closed { errors, unreached, back }, times } = State::unpack(word)
            else {
                return None;
            };
            let (errors, unreached) = match outcome {
                Outcome::Success => (0, 0),
                Outcome::Failure => (more(errors), 0),
                Outcome::Unreached => (more(errors), more(unreached)),
            };
            let reason = if rules.connect_failures.is_some_and(|most| unreached >= most) {
                Some(EjectionReason::ConnectFailures)
            } else if rules.consecutive_errors.is_some_and(|most| errors >= most) {
                Some(EjectionReason::ConsecutiveErrors)
            } else {
                statistical
            };
            let Some(reason) = reason else {
                let next = State { standing: Standing::Closed { errors, unreached, back }, times };
                if self.replace(word, next) {
                    return None;
                }
                continue;
            };
            if !places.take(rules.max_ejected) {
                // Counted from the beginning, so that it is reported once for each row.
                let next = State { standing: Standing::Closed { errors: 0, unreached: 0, back }, times };
                if self.replace(word, next) {
                    return Some(Change::Spared(reason));
                }
                continue;
            }
            let times = times.saturating_sub(forgiven(now, back, rules));
            if self.replace(word, opened(now, reason, times, rules, random())) {
                return Some(Change::Ejected(reason));
            }
            places.give_back();
        }
    }

    /// The right to probe it now, for one caller. A probe that is not heard of for long counts as one that failed.
    pub fn probe(&self, now: Millis, rules: &Ejection, random: impl Fn() -> f64) -> Option<Probe> {
        let word = self.word.load(Ordering::Relaxed);
        let State { standing, times } = State::unpack(word);
        match standing {
            Standing::Open { until, reason } if now >= until => {
                let next = State { standing: Standing::Probing { since: now, reason }, times };
                self.replace(word, next).then_some(Probe(now))
            }
            Standing::Probing { since, reason } if now >= since + patience(rules) => {
                self.replace(word, opened(now, reason, times, rules, random()));
                None
            }
            _ => None,
        }
    }

    /// Nothing was learned by the probe: the next request may be one.
    pub fn withdraw(&self, probe: Probe, now: Millis) {
        let word = self.word.load(Ordering::Relaxed);
        let State { standing, times } = State::unpack(word);
        if let Standing::Probing { since, reason } = standing
            && since == probe.0
        {
            self.replace(word, State { standing: Standing::Open { until: now, reason }, times });
        }
    }

    /// It is not counted among those that are ready any more; what is still under way there changes nothing.
    pub fn leave(&self, places: &Places) {
        let word = self.word.swap(State { standing: Standing::Gone, times: 0 }.pack(), Ordering::Relaxed);
        if State::unpack(word).is_out() {
            places.give_back();
        }
    }

    /// It is ready (again).
    pub fn join(&self) {
        let word = self.word.load(Ordering::Relaxed);
        if State::unpack(word).standing == Standing::Gone {
            self.replace(word, State { standing: Standing::NEW, times: 0 });
        }
    }

    /// Takes it back in before its time, because too many are out.
    pub fn pardon(&self, now: Millis, places: &Places) {
        let word = self.word.load(Ordering::Relaxed);
        let state = State::unpack(word);
        if state.is_out() && self.replace(word, state.back(now)) {
            places.give_back();
        }
    }

    fn judge(
        &self,
        probe: Probe,
        well: bool,
        (now, rules): (Millis, &Ejection),
        places: &Places,
        random: impl Fn() -> f64,
    ) -> Option<Change> {
        let word = self.word.load(Ordering::Relaxed);
        let state = State::unpack(word);
        let Standing::Probing { since, reason } = state.standing else { return None };
        if since != probe.0 {
            return None;
        }
        // Nobody else changes it meanwhile, but whoever takes the endpoint out of the cluster.
        if well {
            self.replace(word, state.back(now)).then(|| {
                places.give_back();
                Change::Back
            })
        } else {
            self.replace(word, opened(now, reason, state.times, rules, random())).then_some(Change::StillOut)
        }
    }

    /// Counts it in the windows, and returns the rule that is broken by it.
    fn count(&self, outcome: Outcome, slow: bool, now: Millis, rules: &Ejection) -> Option<EjectionReason> {
        let since = match self.standing() {
            Standing::Closed { back, .. } => back,
            _ => return None,
        };
        let failed = outcome != Outcome::Success;
        let mut reason = None;
        if let Some(rule) = &rules.slow_calls {
            self.slow.add(now, rule.interval, slow);
            if slow {
                let (all, bad) = self.slow.within(now, rule.interval, since);
                let broken =
                    all >= u64::from(rule.min_requests) && bad * MILLION >= all * millionths(rule.share);
                reason = broken.then_some(EjectionReason::SlowCalls);
            }
        }
        if let Some(rule) = &rules.success_rate {
            self.failing.add(now, rule.interval, failed);
            if failed {
                let (all, bad) = self.failing.within(now, rule.interval, since);
                let broken = all >= u64::from(rule.min_requests)
                    && (all - bad) * MILLION < all * millionths(rule.below);
                reason = broken.then_some(EjectionReason::SuccessRate).or(reason);
            }
        }
        reason
    }

    fn load(&self) -> State {
        State::unpack(self.word.load(Ordering::Relaxed))
    }

    fn replace(&self, from: u64, to: State) -> bool {
        let to = to.pack();
        from == to || self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// At the beginning of a ramp.
const LEAST_SHARE: f32 = 0.05;

const MILLION: u64 = 1_000_000;

fn millionths(share: Fraction) -> u64 {
    share.millionths().into()
}

fn more(count: u8) -> u8 {
    count.saturating_add(1).min(Ejection::MAX_CONSECUTIVE)
}

/// How long a probe is waited for.
fn patience(rules: &Ejection) -> Millis {
    (rules.base.as_millis() as u64).max(1_000)
}

/// Ejections that are forgotten at `now`: one for each base time without one.
fn forgiven(now: Millis, back: Millis, rules: &Ejection) -> u8 {
    let base = (rules.base.as_millis() as u64).max(1);
    u8::try_from(now.saturating_sub(back) / base).unwrap_or(u8::MAX)
}

fn opened(now: Millis, reason: EjectionReason, times: u8, rules: &Ejection, random: f64) -> State {
    let until = now + duration(rules, times, random).as_millis() as u64;
    State { standing: Standing::Open { until, reason }, times: (times + 1).min(MOST_TIMES) }
}

/// base × 2^times, moved by up to the jitter to both sides, at most max.
fn duration(rules: &Ejection, times: u8, random: f64) -> Duration {
    let doubled = rules.base.saturating_mul(1 << times.min(MOST_TIMES - 1));
    let jitter = f64::from(rules.jitter.millionths()) / MILLION as f64;
    let factor = 1.0 + jitter * (2.0 * random.clamp(0.0, 1.0) - 1.0);
    doubled.min(rules.max).mul_f64(factor).min(rules.max)
}

impl Standing {
    const NEW: Self = Self::Closed { errors: 0, unreached: 0, back: 0 };
}

/// From the low end: at (40 bits), unreached (7), errors (7), times (5), reason (3), kind (2).
impl State {
    fn is_out(self) -> bool {
        matches!(self.standing, Standing::Open { .. } | Standing::Probing { .. })
    }

    fn back(self, now: Millis) -> Self {
        Self { standing: Standing::Closed { errors: 0, unreached: 0, back: now.max(1) }, ..self }
    }

    fn pack(self) -> u64 {
        let (kind, reason, errors, unreached, at) = match self.standing {
            Standing::Closed { errors, unreached, back } => (0, 0, errors, unreached, back),
            Standing::Open { until, reason } => (1, reason as u64, 0, 0, until),
            Standing::Probing { since, reason } => (2, reason as u64, 0, 0, since),
            Standing::Gone => (3, 0, 0, 0, 0),
        };
        let (errors, unreached, times) = (u64::from(errors), u64::from(unreached), u64::from(self.times));
        kind << 62 | reason << 59 | times << 54 | errors << 47 | unreached << 40 | (at & AT)
    }

    fn unpack(word: u64) -> Self {
        let at = word & AT;
        let reason = EjectionReason::ALL[(word >> 59 & 0b11) as usize];
        let standing = match word >> 62 {
            0 => Standing::Closed {
                errors: (word >> 47 & 0x7f) as u8,
                unreached: (word >> 40 & 0x7f) as u8,
                back: at,
            },
            1 => Standing::Open { until: at, reason },
            2 => Standing::Probing { since: at, reason },
            _ => Standing::Gone,
        };
        Self { standing, times: (word >> 54 & 0x1f) as u8 }
    }
}

/// 34 years.
const AT: u64 = (1 << 40) - 1;

/// How many of a cluster's endpoints are ready, and how many of these are out: one word, so that no two are ejected for one place.
#[derive(Debug, Default)]
pub(super) struct Places(AtomicU64);

impl Places {
    /// Sets how many are ready.
    pub fn set_ready(&self, ready: usize) {
        let ready = u64::try_from(ready).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
        let result = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
            Some(ready << 32 | word & u64::from(u32::MAX))
        });
        debug_assert!(result.is_ok(), "the closure always returns a value");
    }

    /// A place among those that are out, if there is one.
    fn take(&self, most: Fraction) -> bool {
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
            (word & u64::from(u32::MAX) < allowed(word >> 32, most)).then_some(word + 1)
        });
        taken.is_ok()
    }

    fn give_back(&self) {
        let result = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
            (word & u64::from(u32::MAX) > 0).then(|| word - 1)
        });
        debug_assert!(result.is_ok(), "who is out took a place");
    }

    /// Whether more are out than may be.
    pub fn are_too_many(&self, most: Fraction) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word & u64::from(u32::MAX) > allowed(word >> 32, most)
    }
}

/// Never the last one. One always where there are several: a share of few endpoints would be none.
fn allowed(ready: u64, most: Fraction) -> u64 {
    (ready * millionths(most) / MILLION).max(1).min(ready.saturating_sub(1))
}

/// Calls of late and how many of them were bad, in [`BUCKETS`] parts of an interval: one word each, changed by compare-exchange.
#[derive(Debug, Default)]
struct Window([AtomicU64; BUCKETS as usize]);

const BUCKETS: u64 = 10;

/// Which part (22 bits), its calls (21) and the bad ones (21). One that is full counts no more: its share stays as it is.
const COUNT: u64 = (1 << 21) - 1;
const PART: u64 = (1 << 22) - 1;

impl Window {
    fn add(&self, now: Millis, interval: Duration, bad: bool) {
        let part = part(now, interval) & PART;
        let result =
            self.0[(part % BUCKETS) as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let (of, all, counted) =
                    if word >> 42 == part { (part, word >> 21 & COUNT, word & COUNT) } else { (part, 0, 0) };
                (all < COUNT).then(|| of << 42 | (all + 1) << 21 | (counted + u64::from(bad)))
            });
        // A full one is left as it is.
        let _ = result;
    }

    /// All and bad ones within the interval, none of them before `since`.
    fn within(&self, now: Millis, interval: Duration, since: Millis) -> (u64, u64) {
        let now = part(now, interval);
        // In the part in which it came back there are calls of before.
        let parts = if since == 0 { BUCKETS } else { BUCKETS.min(now.saturating_sub(part(since, interval))) };
        let words = self.0.iter().map(|word| word.load(Ordering::Relaxed));
        let recent = words.filter(|word| (now.wrapping_sub(word >> 42) & PART) < parts);
        recent.fold((0, 0), |(all, bad), word| (all + (word >> 21 & COUNT), bad + (word & COUNT)))
    }
}

/// From 1, so that an empty bucket is not one of a young cluster.
fn part(now: Millis, interval: Duration) -> u64 {
    now / (interval.as_millis() as u64 / BUCKETS).max(1) + BUCKETS
}

/// Whether an ejection has an effect.
pub(super) fn is_enforced(rules: &Ejection) -> bool {
    rules.mode == BreakerMode::Enforce
}

#[cfg(test)]
mod tests;
