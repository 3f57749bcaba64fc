//! One policy's faults while they are in force: what was thrown so far, what was done, and when it is enough.
//!
//! Owns the numbers its dice go by, the counts, and the end: by time, or because too many calls fail in earnest. Shared by the workers and by all routes the
//! policy decides for, and kept while a change of configuration leaves the policy as it is. Never touches a call.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_config::model::{self, StopIf};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::dice::{Dice, Throw};
use super::glance::Glance;
use crate::telemetry::{FaultMetrics, Metrics, Worker};

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Delay,
    Abort,
    Reset,
    Refuse,
    Throttle,
    Cut,
    Trailers,
    Accept,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Delay,
        Self::Abort,
        Self::Reset,
        Self::Refuse,
        Self::Throttle,
        Self::Cut,
        Self::Trailers,
        Self::Accept,
    ];

    /// As metrics and listings say it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Abort => "abort",
            Self::Reset => "reset",
            Self::Refuse => "refuse",
            Self::Throttle => "throttle",
            Self::Cut => "cut",
            Self::Trailers => "trailers",
            Self::Accept => "accept",
        }
    }
}

#[derive(Debug)]
pub struct Experiment {
    pub model: Arc<model::Faults>,
    faults: Box<[State]>,
    began: SystemTime,
    /// When its time is over; `None`: never.
    until: Option<Instant>,
    harm: Option<Harm>,
    ended: OnceLock<Ending>,
}

/// Of one fault.
#[derive(Debug)]
struct State {
    glance: Glance,
    dice: Dice,
    /// Calls that met its conditions.
    met: AtomicU64,
    /// Calls it has its hand in now; counted only where there is a bound.
    busy: AtomicU32,
    done: [AtomicU64; Kind::ALL.len()],
    metrics: Arc<FaultMetrics>,
}

/// Why it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub why: Why,
    pub at: SystemTime,
    /// For people.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    ActiveFor,
    StopIf,
}

impl Why {
    /// The field that ends it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ActiveFor => "activeFor",
            Self::StopIf => "stopIf",
        }
    }
}

/// What one fault did.
#[derive(Clone, Debug)]
pub struct Done {
    pub name: Arc<str>,
    pub met: u64,
    pub done: [u64; Kind::ALL.len()],
}

impl Experiment {
    fn new(model: &Arc<model::Faults>, metrics: &Arc<Metrics>) -> Arc<Self> {
        let policy = model.policy();
        let seed = model.seed.unwrap_or_else(rand::random);
        let state = |(index, fault): (usize, &model::Fault)| State {
            glance: Glance::of(fault),
            dice: Dice::new(seed, index),
            met: AtomicU64::new(0),
            busy: AtomicU32::new(0),
            done: Default::default(),
            metrics: metrics.fault(&policy, &fault.name),
        };
        let (now, began) = (Instant::now(), SystemTime::now());
        let passed = model.since.map_or(Duration::ZERO, |since| {
            began.duration_since(UNIX_EPOCH + Duration::from_millis(since)).unwrap_or_default()
        });
        Arc::new(Self {
            faults: model.faults.iter().enumerate().map(state).collect(),
            began,
            until: model.active_for.map(|active| now + active.saturating_sub(passed)),
            harm: model.stop_if.map(Harm::new),
            ended: OnceLock::new(),
            model: model.clone(),
        })
    }

    /// Whether it goes on. Reads the clock only where its time is limited.
    pub fn is_active(&self) -> bool {
        if self.ended.get().is_some() {
            return false;
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            let active = self.model.active_for.unwrap_or_default();
            self.end(Why::ActiveFor, format!("it was active for {active:?}"));
            return false;
        }
        true
    }

    /// Of a fault, by its place.
    pub(super) fn glance(&self, fault: usize) -> &Glance {
        &self.faults[fault].glance
    }

    /// For the next call that meets the conditions of a fault, by its place.
    pub fn throw(&self, fault: usize) -> Throw {
        let state = &self.faults[fault];
        state.dice.throw(state.met.fetch_add(1, Ordering::Relaxed))
    }

    /// One call more that a fault has its hand in, until that is dropped; `None` where there are as many as there may be.
    pub fn enter(self: &Arc<Self>, fault: usize) -> Option<Busy> {
        let Some(most) = self.model.faults[fault].at_most else { return Some(Busy(None)) };
        let more = |now: u32| (now < most).then(|| now + 1);
        let entered = self.faults[fault].busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then(|| Busy(Some((self.clone(), fault))))
    }

    pub fn count(&self, fault: usize, kind: Kind, worker: Worker) {
        let state = &self.faults[fault];
        state.done[kind as usize].fetch_add(1, Ordering::Relaxed);
        state.metrics.count(kind, worker);
    }

    /// Whether somebody has to tell it how calls end that it did not end itself.
    pub fn watches(&self) -> bool {
        self.harm.is_some()
    }

    /// A call ended, and nothing was invented about it.
    pub fn saw(&self, succeeded: bool, now: Instant) {
        let Some(harm) = self.harm.as_ref().filter(|_| self.ended.get().is_none()) else { return };
        if let Some((succeeded, all)) = harm.enough(succeeded, now) {
            let below = f64::from(harm.rule.below.millionths()) / 1e4;
            let detail = format!(
                "{succeeded} of {all} calls succeeded within {:?}, fewer than {below} %",
                harm.rule.interval
            );
            self.end(Why::StopIf, detail);
        }
    }

    fn end(&self, why: Why, detail: String) {
        let ending = Ending { why, at: SystemTime::now(), detail };
        // The first to see it says so.
        if self.ended.set(ending.clone()).is_ok() {
            tracing::warn!(policy = %self.model.origin, by = why.word(), "an experiment is over: {}", ending.detail);
        }
    }

    pub fn ended(&self) -> Option<&Ending> {
        self.ended.get()
    }

    pub fn began(&self) -> SystemTime {
        self.began
    }

    /// How long it still goes on, where that is limited.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now))
    }

    pub fn done(&self) -> Vec<Done> {
        let done = |(model, state): (&model::Fault, &State)| Done {
            name: model.name.clone(),
            met: state.met.load(Ordering::Relaxed),
            done: std::array::from_fn(|kind| state.done[kind].load(Ordering::Relaxed)),
        };
        self.model.faults.iter().zip(&self.faults).map(done).collect()
    }
}

/// Counts as a call that a fault has its hand in, until dropped.
#[derive(Debug)]
pub struct Busy(Option<(Arc<Experiment>, usize)>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some((experiment, fault)) = &self.0 {
            experiment.faults[*fault].busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How the calls of the last while went. One short lock a call, and only where a policy has `stopIf`: an experiment is not where a microsecond counts.
#[derive(Debug)]
struct Harm {
    rule: StopIf,
    born: Instant,
    window: Mutex<[Slice; SLICES]>,
}

/// A part of the interval.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    /// Which one, counted from the beginning.
    number: u64,
    succeeded: u32,
    failed: u32,
}

/// The window slides in so many steps.
const SLICES: usize = 20;

impl Harm {
    fn new(rule: StopIf) -> Self {
        Self { rule, born: Instant::now(), window: Mutex::default() }
    }

    /// Notes an answer. Succeeded and all, where that is too few of enough.
    fn enough(&self, succeeded: bool, now: Instant) -> Option<(u64, u64)> {
        let length = (self.rule.interval / SLICES as u32).as_nanos().max(1);
        let number = (now.saturating_duration_since(self.born).as_nanos() / length) as u64;
        let mut window = self.window.lock();
        let slice = &mut window[(number % SLICES as u64) as usize];
        if slice.number != number {
            *slice = Slice { number, ..Slice::default() };
        }
        let counter = if succeeded { &mut slice.succeeded } else { &mut slice.failed };
        *counter = counter.saturating_add(1);
        let recent = window.iter().filter(|slice| slice.number + SLICES as u64 > number);
        let (mut good, mut bad) = (0_u64, 0_u64);
        for slice in recent {
            good += u64::from(slice.succeeded);
            bad += u64::from(slice.failed);
        }
        let all = good + bad;
        let too_few =
            u128::from(good) * 1_000_000 < u128::from(all) * u128::from(self.rule.below.millionths());
        (all >= u64::from(self.rule.min_requests) && too_few).then_some((good, all))
    }
}

/// Those of all routes, found again when configuration is compiled anew. Those nothing uses any more are gone.
#[derive(Debug, Default)]
pub struct Experiments(Mutex<Vec<Weak<Experiment>>>);

impl Experiments {
    /// The one of this policy; what it counted goes on to count while the policy stays as it is.
    pub fn of(&self, model: &Arc<model::Faults>, metrics: &Arc<Metrics>) -> Arc<Experiment> {
        let mut all = self.0.lock();
        all.retain(|known| known.strong_count() > 0);
        let known = all.iter().filter_map(Weak::upgrade).find(|known| known.model == *model);
        known.unwrap_or_else(|| {
            let new = Experiment::new(model, metrics);
            all.push(Arc::downgrade(&new));
            new
        })
    }

    /// By policy.
    pub fn all(&self) -> Vec<Arc<Experiment>> {
        let mut all: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        all.sort_by_key(|experiment| experiment.model.policy());
        all
    }
}

#[cfg(test)]
mod tests {
    use outrigger_config::model::{Fault, FaultAt, FaultEffect, Fraction, GivenFault, Origin};

    use super::*;

    fn model(active_for: Option<Duration>, stop_if: Option<StopIf>) -> Arc<model::Faults> {
        let fault = Fault {
            name: "f".into(),
            from: Vec::new(),
            matches: Vec::new(),
            share: Fraction::ALL,
            at_most: Some(2),
            effect: FaultEffect::Given(GivenFault { cut: Some(1), ..GivenFault::default() }),
        };
        let origin = Origin::new("TrafficPolicy", "default", "p", "spec.fault");
        let (seed, since) = (Some(1), None);
        let at = FaultAt::Caller;
        Arc::new(model::Faults { at, faults: vec![fault], seed, active_for, since, stop_if, origin })
    }

    fn metrics() -> Arc<Metrics> {
        Metrics::new(1)
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_its_time_is_over() {
        let one = Experiment::new(&model(Some(Duration::from_secs(60)), None), &metrics());
        tokio::time::advance(Duration::from_millis(59_999)).await;
        assert!(one.is_active());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!one.is_active());
        assert_eq!(one.ended().map(|ending| ending.why), Some(Why::ActiveFor));
    }

    #[test]
    fn who_joins_late_ends_with_the_others() {
        let late = |ago: u64| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
            let mut model = (*model(Some(Duration::from_secs(60)), None)).clone();
            model.since = Some(now - ago);
            Experiment::new(&Arc::new(model), &metrics())
        };
        let joined = late(50_000);
        let left = joined.left(Instant::now()).expect("a limit");
        assert!(left <= Duration::from_secs(10) && left > Duration::from_secs(1), "{left:?}");
        assert!(!late(61_000).is_active(), "over before it came");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_too_many_calls_fail_within_the_interval() {
        let rule =
            StopIf { below: Fraction::FOUR_FIFTHS, interval: Duration::from_secs(10), min_requests: 10 };
        let one = Experiment::new(&model(None, Some(rule)), &metrics());
        let tell = |good: usize, bad: usize| {
            (0..good).for_each(|_| one.saw(true, Instant::now()));
            (0..bad).for_each(|_| one.saw(false, Instant::now()));
        };
        tell(0, 9);
        assert!(one.is_active(), "too few to conclude anything");
        tokio::time::advance(Duration::from_secs(11)).await;
        tell(80, 20);
        assert!(one.is_active(), "the first nine are forgotten, and 80 % is not below 80 %");
        tell(0, 1);
        assert!(!one.is_active());
        let ending = one.ended().expect("over");
        assert_eq!(ending.why, Why::StopIf);
        assert_eq!(ending.detail, "80 of 101 calls succeeded within 10s, fewer than 80 %");
    }

    #[test]
    fn it_has_its_hand_in_so_many_calls_at_a_time() {
        let one = Experiment::new(&model(None, None), &metrics());
        let (first, second) = (one.enter(0), one.enter(0));
        assert!(first.is_some() && second.is_some() && one.enter(0).is_none());
        drop(first);
        let third = one.enter(0);
        assert!(third.is_some() && one.enter(0).is_none(), "what is over makes room for one");
    }

    #[test]
    fn an_experiment_is_found_again_while_it_is_the_same() {
        let (all, metrics) = (Experiments::default(), metrics());
        let first = all.of(&model(None, None), &metrics);
        let _ = first.throw(0);
        let again = all.of(&model(None, None), &metrics);
        assert!(Arc::ptr_eq(&first, &again));
        let other = all.of(&model(Some(Duration::from_secs(1)), None), &metrics);
        assert_eq!((other.done()[0].met, again.done()[0].met), (0, 1));
        drop((first, again));
        let anew = all.of(&model(None, None), &metrics);
        assert_eq!(anew.done()[0].met, 0, "nothing held it any more");
        assert_eq!(all.all().len(), 2);
    }
}
