//! A server of so many places, each with a service time, and callers who come at random: in simulated time, so that overload costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use outrigger_config::model::BreakerMode;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

const MS: Duration = Duration::from_millis(1);

struct Simulation {
    adaptive: Arc<Adaptive>,
    rng: SmallRng,
    now: Instant,
    /// When each place of the server is free again.
    places: Vec<Instant>,
    service: Duration,
    /// Ends of what is under way.
    ends: BinaryHeap<Reverse<(Instant, u64)>>,
    admitted: std::collections::HashMap<u64, (Instant, Admission)>,
    next: u64,
}

/// What came of some seconds.
#[derive(Debug, Default)]
struct Outcome {
    asked: usize,
    refused: usize,
    latencies: Vec<Duration>,
}

impl Outcome {
    fn share_refused(&self) -> f64 {
        self.refused as f64 / self.asked as f64
    }

    fn percentile(&mut self, percent: usize) -> Duration {
        self.latencies.sort_unstable();
        self.latencies[self.latencies.len() * percent / 100]
    }
}

impl Simulation {
    fn new(places: usize, service: Duration, seed: u64) -> Self {
        let now = Instant::now();
        let rules = model::Adaptive { mode: BreakerMode::Enforce, least: 3, most: 1_000, origin: None };
        Self {
            adaptive: Arc::new(Adaptive::new(rules, now)),
            rng: SmallRng::seed_from_u64(seed),
            now,
            places: vec![now; places],
            service,
            ends: BinaryHeap::new(),
            admitted: Default::default(),
            next: 0,
        }
    }

    /// `rate` requests a second at random moments, for so long.
    fn run(&mut self, rate: f64, time: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_secs_f64(-(1.0 - self.rng.random::<f64>()).ln() / rate);
            self.end_those_due(&mut outcome);
            outcome.asked += 1;
            let Ok(admission) = self.adaptive.enter() else {
                outcome.refused += 1;
                continue;
            };
            let place = self.places.iter_mut().min().unwrap();
            *place = (*place).max(self.now) + self.service.mul_f64(self.rng.random_range(0.8..1.2));
            self.next += 1;
            self.ends.push(Reverse((*place, self.next)));
            self.admitted.insert(self.next, (self.now, admission));
        }
        outcome
    }

    fn end_those_due(&mut self, outcome: &mut Outcome) {
        while let Some(Reverse((end, id))) =
            self.ends.peek().copied().filter(|Reverse((end, _))| *end <= self.now)
        {
            self.ends.pop();
            let (begun, admission) = self.admitted.remove(&id).unwrap();
            admission.answered(end - begun, end);
            outcome.latencies.push(end - begun);
        }
    }
}

#[test]
fn what_can_be_carried_is_let_in() {
    for seed in 0..4 {
        let mut simulation = Simulation::new(50, 10 * MS, seed);
        // Of 5,000 a second that it can take, 40 %.
        simulation.run(2_000.0, Duration::from_secs(3));
        let calm = simulation.run(2_000.0, Duration::from_secs(130));
        assert!(calm.share_refused() < 0.001, "seed {seed}: {}", calm.share_refused());
    }
}

#[test]
fn what_comes_on_top_is_refused_before_it_queues() {
    for (seed, overload) in [(1, 1.5), (2, 2.0), (3, 4.0), (4, 10.0)] {
        // 1,000 a second.
        let mut simulation = Simulation::new(10, 10 * MS, seed);
        simulation.run(1_000.0 * overload, Duration::from_secs(5));
        let mut flood = simulation.run(1_000.0 * overload, Duration::from_secs(150));
        let carried = flood.latencies.len() as f64 / 150.0;
        assert!(carried > 850.0, "seed {seed}: only {carried} a second of 1,000");
        let (median, slow) = (flood.percentile(50), flood.percentile(99));
        assert!(median < 25 * MS && slow < 60 * MS, "seed {seed}: {median:?}, {slow:?}");
        // Without it all but the first second's would have waited for longer and longer.
        assert!(flood.share_refused() > 1.0 - 1.1 / overload, "seed {seed}: {}", flood.share_refused());
    }
}

#[test]
fn it_follows_the_server_down_and_up_again() {
    let mut simulation = Simulation::new(40, 10 * MS, 7);
    simulation.run(3_000.0, Duration::from_secs(10));
    // Three quarters of it are gone: 1,000 a second are left.
    simulation.places.truncate(10);
    simulation.run(3_000.0, Duration::from_secs(5));
    let mut less = simulation.run(3_000.0, Duration::from_secs(20));
    assert!(less.percentile(50) < 30 * MS, "{:?}", less.percentile(50));
    assert!(less.latencies.len() > 20 * 850, "{}", less.latencies.len());
    let now = simulation.now;
    simulation.places.resize(40, now);
    simulation.run(3_000.0, Duration::from_secs(10));
    let all = simulation.run(3_000.0, Duration::from_secs(20));
    assert!(all.share_refused() < 0.02, "{}", all.share_refused());
}

/// What was the least once is not believed for ever: otherwise a service that became slower would be refused most of what it can carry.
#[test]
fn a_service_that_became_slower_is_measured_anew() {
    let mut simulation = Simulation::new(40, 10 * MS, 11);
    simulation.run(2_000.0, Duration::from_secs(10));
    // 40 ms each: 1,000 a second, of which 900 are asked for.
    simulation.service = 40 * MS;
    simulation.run(900.0, Duration::from_secs(90));
    let later = simulation.run(900.0, Duration::from_secs(60));
    assert!(later.share_refused() < 0.1, "{}", later.share_refused());
}

#[test]
fn nothing_is_concluded_from_few_answers_nor_beyond_the_bounds() {
    let now = Instant::now();
    let rules = model::Adaptive { mode: BreakerMode::Enforce, least: 5, most: 8, origin: None };
    let adaptive = Arc::new(Adaptive::new(rules, now));
    assert_eq!(adaptive.cap(), 8);
    let all: Vec<_> = (0..8).map(|_| adaptive.enter().unwrap()).collect();
    assert_eq!(adaptive.enter().err(), Some(8));
    let answer = |ms: u32, at: u64| all[0].answered(MS * ms, now + MS * at as u32);
    (0..u64::from(ANSWERS) - 1).for_each(|n| answer(1, n));
    assert_eq!(adaptive.control.lock().least, None, "too few");
    (1..1_000).for_each(|n| answer(n, 30 + u64::from(n)));
    assert_eq!(adaptive.cap(), 5);
    drop(all);
    assert_eq!(adaptive.under_way(), 0);
}
