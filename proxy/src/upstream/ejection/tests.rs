use std::collections::VecDeque;

use outrigger_config::model::{SlowCalls, SuccessRate};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use Outcome::{Failure, Success, Unreached};

fn percent(percent: u32) -> Fraction {
    Fraction::new(percent, 100).expect("at most all")
}

/// Nothing at random, and no statistics.
fn rules() -> Ejection {
    Ejection { jitter: Fraction::ZERO, success_rate: None, ..Ejection::default() }
}

fn places(ready: usize) -> Places {
    let places = Places::default();
    places.set_ready(ready);
    places
}

fn middle() -> f64 {
    0.5
}

fn tell(
    breaker: &Breaker,
    outcome: Outcome,
    now: Millis,
    rules: &Ejection,
    places: &Places,
) -> Option<Change> {
    breaker.tell(outcome, false, None, (now, rules), places, middle)
}

#[test]
fn five_failures_in_a_row_take_it_out_one_probe_brings_it_back_with_a_rising_share() {
    let (breaker, rules, places) = (Breaker::default(), rules(), places(3));
    let reason = EjectionReason::ConsecutiveErrors;
    for outcome in [Failure, Failure, Failure, Failure, Success, Failure, Failure, Failure, Failure] {
        assert_eq!(tell(&breaker, outcome, 1_000, &rules, &places), None);
    }
    assert!(!breaker.is_out());
    assert_eq!(tell(&breaker, Failure, 1_000, &rules, &places), Some(Change::Ejected(reason)));
    assert_eq!(breaker.standing(), Standing::Open { until: 11_000, reason });
    // What was under way changes nothing.
    assert_eq!(tell(&breaker, Success, 1_500, &rules, &places), None);

    assert_eq!(breaker.probe(10_999, &rules, middle), None);
    let probe = breaker.probe(11_000, &rules, middle).expect("it is time");
    assert_eq!(breaker.probe(11_000, &rules, middle), None, "there is one probe at a time");
    assert_eq!(
        breaker.tell(Failure, false, Some(probe), (11_100, &rules), &places, middle),
        Some(Change::StillOut)
    );
    assert_eq!(breaker.standing(), Standing::Open { until: 31_100, reason }, "twice as long");

    let probe = breaker.probe(40_000, &rules, middle).expect("it is time");
    assert_eq!(
        breaker.tell(Success, false, Some(probe), (40_000, &rules), &places, middle),
        Some(Change::Back)
    );
    assert!(!breaker.is_out());
    assert!(
        breaker.is_past(|| 39_999) && !breaker.is_past(|| 40_000),
        "what was sent before says nothing any more"
    );
    for (now, share) in [(40_000, 0.05), (41_000, 0.1), (45_000, 0.5), (50_000, 1.0), (90_000, 1.0)] {
        assert!((breaker.share(now, &rules) - share).abs() < 1e-6, "{share} at {now}");
    }
}

#[test]
fn connections_that_cannot_be_opened_count_apart() {
    let (rules, places) = (rules(), places(2));
    for (outcomes, want) in [
        (&[Unreached, Unreached, Unreached][..], Some(EjectionReason::ConnectFailures)),
        (&[Unreached, Unreached, Failure, Unreached, Unreached], Some(EjectionReason::ConsecutiveErrors)),
        (&[Unreached, Unreached, Success, Unreached, Unreached], None),
    ] {
        let breaker = Breaker::default();
        let mut reason = None;
        for outcome in outcomes {
            if let Some(Change::Ejected(found)) = tell(&breaker, *outcome, 5, &rules, &places) {
                reason = Some(found);
                places.give_back();
            }
        }
        assert_eq!(reason, want, "{outcomes:?}");
    }
}

#[test]
fn a_rate_of_success_is_judged_over_its_window_and_not_on_a_few_calls() {
    let rules = Ejection { consecutive_errors: None, success_rate: Some(SuccessRate::default()), ..rules() };
    let places = places(2);
    let breaker = Breaker::default();
    // Every fourth one fails: 75 %.
    let mut ejected_at = None;
    for n in 0..12u64 {
        let outcome = if n % 4 == 3 { Failure } else { Success };
        if let Some(Change::Ejected(EjectionReason::SuccessRate)) =
            tell(&breaker, outcome, n * 100, &rules, &places)
        {
            ejected_at = Some(n);
        }
    }
    assert_eq!(
        ejected_at,
        Some(11),
        "after seven calls with one failure there were too few, after eleven it was enough"
    );

    let breaker = Breaker::default();
    places.give_back();
    for n in 0..1_000u64 {
        // Every fifth: 80 % exactly, which is not fewer.
        let outcome = if n % 5 == 4 { Failure } else { Success };
        assert_eq!(tell(&breaker, outcome, n * 10, &rules, &places), None, "{n}");
    }
    // Failures of long ago are forgotten.
    for n in 0..100u64 {
        assert_eq!(tell(&breaker, Success, 100_000 + n, &rules, &places), None);
    }
    assert_eq!(tell(&breaker, Failure, 100_200, &rules, &places), None);
}

#[test]
fn slow_calls_take_it_out_where_a_policy_says_so() {
    let slow = SlowCalls {
        longer_than: Duration::from_secs(1),
        share: percent(50),
        interval: Duration::from_secs(10),
        min_requests: 4,
    };
    let rules = Ejection { slow_calls: Some(slow), ..rules() };
    let (breaker, places) = (Breaker::default(), places(2));
    let call = |slow| breaker.tell(Success, slow, None, (500, &rules), &places, middle);
    assert_eq!([call(true), call(false), call(false), call(false), call(false)], [None; 5]);
    assert_eq!([call(true), call(true)], [None; 2]);
    assert_eq!(call(true), Some(Change::Ejected(EjectionReason::SlowCalls)));
    let probe = breaker.probe(20_000, &rules, middle).expect("it is time");
    let change = breaker.tell(Success, true, Some(probe), (22_000, &rules), &places, middle);
    assert_eq!(change, Some(Change::StillOut), "a slow probe proves nothing");
}

#[test]
fn what_it_did_before_it_was_out_is_not_held_against_it() {
    let rules =
        Ejection { base: Duration::from_millis(200), success_rate: Some(SuccessRate::default()), ..rules() };
    let (breaker, places) = (Breaker::default(), places(2));
    for _ in 0..30 {
        tell(&breaker, Failure, 1_000, &rules, &places);
    }
    let probe = breaker.probe(3_000, &rules, middle).expect("it is out");
    breaker.tell(Success, false, Some(probe), (3_001, &rules), &places, middle);
    for n in 0..20 {
        tell(&breaker, Success, 4_100 + n, &rules, &places);
    }
    assert_eq!(tell(&breaker, Failure, 4_200, &rules, &places), None);
}

#[test]
fn times_double_up_to_the_longest_and_are_forgiven_one_by_one() {
    let rules = Ejection { max: Duration::from_secs(60), ..rules() };
    let (breaker, places) = (Breaker::default(), places(2));
    for _ in 0..5 {
        tell(&breaker, Failure, 1, &rules, &places);
    }
    let mut now = 1;
    for seconds in [10, 20, 40, 60, 60, 60] {
        let until = breaker.next_probe().expect("it is out");
        assert_eq!(until - now, seconds * 1_000);
        now = until;
        let probe = breaker.probe(now, &rules, middle).expect("it is time");
        breaker.tell(Unreached, false, Some(probe), (now, &rules), &places, middle);
    }
    now = breaker.next_probe().expect("it is out");
    let probe = breaker.probe(now, &rules, middle).expect("it is time");
    breaker.tell(Success, false, Some(probe), (now, &rules), &places, middle);
    // Seven in a row; five base times later two are left.
    now += 50_500;
    for _ in 0..5 {
        tell(&breaker, Failure, now, &rules, &places);
    }
    assert_eq!(breaker.next_probe(), Some(now + 40_000));
}

#[test]
fn a_time_is_moved_by_half_at_most_and_stays_below_the_longest() {
    let rules = Ejection::default();
    let mut rng = SmallRng::seed_from_u64(5);
    let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
    for _ in 0..10_000 {
        let time = duration(&rules, 1, rng.random());
        (least, most) = (least.min(time), most.max(time));
        assert!(duration(&rules, 30, rng.random()) <= rules.max);
    }
    assert!(least >= Duration::from_secs(10) && least < Duration::from_millis(10_100), "{least:?}");
    assert!(most <= Duration::from_secs(30) && most > Duration::from_millis(29_900), "{most:?}");
}

#[test]
fn a_probe_nobody_hears_of_counts_as_failed_and_one_that_is_withdrawn_as_none() {
    let (breaker, rules, places) = (Breaker::default(), rules(), places(2));
    for _ in 0..5 {
        tell(&breaker, Failure, 1, &rules, &places);
    }
    let lost = breaker.probe(20_000, &rules, middle).expect("it is time");
    assert_eq!(breaker.probe(29_999, &rules, middle), None);
    assert_eq!(breaker.probe(30_000, &rules, middle), None, "it is out again");
    assert_eq!(breaker.next_probe(), Some(50_000));
    let next = breaker.probe(50_000, &rules, middle).expect("it is time");
    let late = breaker.tell(Success, false, Some(lost), (50_001, &rules), &places, middle);
    assert_eq!(late, None, "an answer to another probe");
    breaker.withdraw(next, 50_002);
    assert!(breaker.probe(50_003, &rules, middle).is_some());
}

#[test]
fn the_last_one_and_more_than_the_share_stay() {
    for (ready, share, most) in [
        (0, 50, 0),
        (1, 100, 0),
        (2, 50, 1),
        (2, 100, 1),
        (3, 50, 1),
        (4, 50, 2),
        (5, 50, 2),
        (10, 10, 1),
        (10, 0, 1),
        (10, 100, 9),
        (1_000, 33, 330),
    ] {
        let places = places(ready);
        let taken = (0..2_000).filter(|_| places.take(percent(share))).count();
        assert_eq!(taken, most, "{ready} at {share} %");
    }
}

/// Any history of several endpoints, against what must hold at every moment of it.
#[test]
fn no_history_ejects_too_many_or_probes_twice() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = rng.random_range(1..8usize);
        let rules = Ejection {
            consecutive_errors: Some(rng.random_range(1..6)),
            connect_failures: Some(rng.random_range(1..4)),
            success_rate: rng.random_bool(0.5).then(SuccessRate::default),
            slow_calls: rng.random_bool(0.5).then(|| SlowCalls {
                longer_than: Duration::from_millis(100),
                share: percent(rng.random_range(1..=100)),
                interval: Duration::from_secs(10),
                min_requests: rng.random_range(1..20),
            }),
            base: Duration::from_millis(rng.random_range(1..5_000)),
            max_ejected: percent(rng.random_range(0..=100)),
            ..Ejection::default()
        };
        let breakers: Vec<_> = (0..count).map(|_| Breaker::default()).collect();
        let places = places(count);
        let mut probes: Vec<Option<Probe>> = vec![None; count];
        let mut now = 1;
        for step in 0..2_000 {
            now += rng.random_range(0..300);
            let at = rng.random_range(0..count);
            let breaker = &breakers[at];
            let random = || 0.25;
            match rng.random_range(0..10) {
                0..6 => {
                    let outcome = [Success, Failure, Failure, Unreached][rng.random_range(0..4usize)];
                    let slow = rules.slow_calls.is_some() && rng.random_bool(0.5);
                    breaker.tell(outcome, slow, None, (now, &rules), &places, random);
                }
                6 | 7 => {
                    if let Some(probe) = breaker.probe(now, &rules, random) {
                        probes[at] = Some(probe);
                    }
                }
                8 => {
                    if let Some(probe) = probes[at].take() {
                        let outcome = if rng.random_bool(0.5) { Success } else { Failure };
                        breaker.tell(outcome, false, Some(probe), (now, &rules), &places, random);
                    }
                }
                _ if rng.random_bool(0.2) => {
                    breaker.leave(&places);
                    breaker.join();
                }
                _ => breaker.pardon(now, &places),
            }
            let out = breakers.iter().filter(|breaker| breaker.is_out()).count() as u64;
            assert_eq!(
                out,
                places.0.load(Ordering::Relaxed) & u64::from(u32::MAX),
                "seed {seed}, step {step}"
            );
            assert!(
                out <= allowed(count as u64, rules.max_ejected),
                "seed {seed}, step {step}: {out} of {count}"
            );
            if let Standing::Open { until, .. } = breaker.standing() {
                assert!(until <= now + rules.max.as_millis() as u64, "seed {seed}, step {step}");
            }
            assert_eq!(State::unpack(breaker.load().pack()), breaker.load());
        }
    }
}

#[test]
fn the_window_counts_what_a_list_of_all_calls_does() {
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let interval = Duration::from_millis(rng.random_range(1_000..20_000));
        let window = Window::default();
        let mut calls: VecDeque<(Millis, bool)> = VecDeque::new();
        let mut now = rng.random_range(0..100_000);
        for _ in 0..500 {
            now += rng.random_range(0..interval.as_millis() as u64 / 20);
            let bad = rng.random_bool(0.3);
            window.add(now, interval, bad);
            calls.push_back((now, bad));
            let recent = calls.iter().filter(|(at, _)| part(now, interval) - part(*at, interval) < BUCKETS);
            let want = recent.fold((0, 0), |(all, bads), (_, bad)| (all + 1, bads + u64::from(*bad)));
            assert_eq!(window.within(now, interval, 0), want, "seed {seed}");
        }
    }
}

/// What two workers do at the same time to the endpoints of one cluster.
#[test]
fn two_workers_never_eject_two_for_one_place() {
    let rules = Ejection { consecutive_errors: Some(1), base: Duration::from_millis(1), ..rules() };
    let breakers = [(); 4].map(|()| Breaker::default());
    let places = places(4);
    std::thread::scope(|threads| {
        for seed in 0..2u64 {
            let (breakers, places, rules) = (&breakers, &places, &rules);
            threads.spawn(move || {
                let mut rng = SmallRng::seed_from_u64(seed);
                for now in 1..20_000 {
                    let breaker = &breakers[rng.random_range(0..4usize)];
                    match breaker.probe(now, rules, middle) {
                        Some(probe) => {
                            let outcome = if rng.random_bool(0.7) { Success } else { Failure };
                            breaker.tell(outcome, false, Some(probe), (now, rules), places, middle);
                        }
                        None => {
                            tell(breaker, Failure, now, rules, places);
                        }
                    }
                    let out = places.0.load(Ordering::Relaxed) & u64::from(u32::MAX);
                    assert!(out <= 2, "{out} of 4 are out");
                }
            });
        }
    });
    let out = breakers.iter().filter(|breaker| breaker.is_out()).count() as u64;
    assert_eq!(out, places.0.load(Ordering::Relaxed) & u64::from(u32::MAX));
}
