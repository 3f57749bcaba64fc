//! Each algorithm against the slow obvious one, in a world of its own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use outrigger_config::model::{self, Algorithm, Balance, Health, SlowStart};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::upstream::Circuit;

mod affinity;
mod hashing;
mod peak_ewma;

fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 8080))
}

fn one(n: u16) -> model::Endpoint {
    model::Endpoint {
        address: address(n),
        health: Health::Healthy,
        weight: 1,
        workload: None,
        zone: None,
        for_zones: vec![],
        identity: None,
        meshed: false,
    }
}

fn weighted(weights: &[u32]) -> Vec<model::Endpoint> {
    (0..).zip(weights).map(|(n, weight)| model::Endpoint { weight: *weight, ..one(n) }).collect()
}

fn balance(algorithm: Algorithm) -> Balance {
    Balance { algorithm, ..Balance::default() }
}

fn set(endpoints: Vec<model::Endpoint>, balance: &Balance) -> EndpointSet {
    let circuit = circuit();
    let live = endpoints.into_iter().map(|model| Endpoint::new(model, Duration::from_millis(5), &circuit));
    EndpointSet::new(live.map(Arc::new).collect(), balance, true)
}

fn circuit() -> Arc<Circuit> {
    Circuit::new(Default::default(), std::sync::Weak::new())
}

fn seeded() -> SmallRng {
    SmallRng::seed_from_u64(5)
}

/// How often each endpoint is picked, in their order, when every request is over before the next.
fn picks(
    set: &EndpointSet,
    times: usize,
    mut asked: impl FnMut(&mut SmallRng) -> Asked<'static>,
) -> Vec<usize> {
    let (mut rng, turn, now) = (seeded(), Turn::default(), Instant::now());
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let asked = asked(&mut rng);
        let picked = set.pick(&asked, &turn, now, &mut rng).expect("there is one");
        *counts.entry(picked.id).or_insert(0) += 1;
    }
    set.iter().map(|endpoint| counts.get(&endpoint.id).copied().unwrap_or_default()).collect()
}

fn anything(rng: &mut SmallRng) -> Asked<'static> {
    Asked { hash: Some(rng.random()), ..Asked::default() }
}

const ALL: [Algorithm; 6] = [
    Algorithm::PeakEwma,
    Algorithm::LeastRequest { choices: 2 },
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::RingHash { min_size: 1_024, max_size: 65_536 },
    Algorithm::Maglev { table_size: 65_537 },
];

/// The share of each by its weight, which is what every algorithm comes to where all answer alike.
#[tokio::test(start_paused = true)]
async fn every_algorithm_shares_by_weight() {
    for algorithm in ALL {
        for weights in [&[1; 10][..], &[1, 2, 3, 4], &[5, 5, 90], &[7]] {
            let set = set(weighted(weights), &balance(algorithm));
            let counts = picks(&set, 40_000, anything);
            let total: u32 = weights.iter().sum();
            for (n, (count, weight)) in counts.iter().zip(weights).enumerate() {
                let expected = 40_000.0 * f64::from(*weight) / f64::from(total);
                let off = *count as f64 / expected - 1.0;
                assert!(off.abs() < 0.2, "{algorithm:?} {weights:?}: {n} got {count}, not {expected}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_is_exact_and_spread_out() {
    for weights in [&[1, 1, 1][..], &[1, 2, 3], &[10, 20, 30], &[1, 1, 6]] {
        let set = set(weighted(weights), &balance(Algorithm::RoundRobin));
        let divisor = if weights[0] == 10 { 10 } else { 1 };
        let round: usize = weights.iter().map(|weight| *weight as usize / divisor).sum();
        let counts = picks(&set, round * 7, |_| Asked::default());
        let want: Vec<_> = weights.iter().map(|weight| *weight as usize / divisor * 7).collect();
        assert_eq!(counts, want, "{weights:?}");
    }
    // Half of all turns are the heavy one's, and never two in a row are another's.
    let set = set(weighted(&[3, 1, 1, 1]), &balance(Algorithm::RoundRobin));
    let (mut rng, turn, now) = (seeded(), Turn::default(), Instant::now());
    let heavy = set.iter().next().expect("there are four").id;
    let order: Vec<bool> = (0..600)
        .map(|_| set.pick(&Asked::default(), &turn, now, &mut rng).expect("there is one").id == heavy)
        .collect();
    assert!(order.windows(4).all(|turns| turns.contains(&true)), "{order:?}");
}

/// What weights there may be, a round stays short.
#[tokio::test(start_paused = true)]
async fn a_round_of_odd_weights_is_short_and_leaves_nobody_out() {
    let weights: Vec<u32> = (0..100).map(|n| 1 + n * 9_973).collect();
    let set = set(weighted(&weights), &balance(Algorithm::RoundRobin));
    let counts = picks(&set, 4_000, |_| Asked::default());
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let expected = 4_000.0 * f64::from(weights[99]) / total;
    assert!((counts[99] as f64 / expected - 1.0).abs() < 0.1, "{} is not {expected}", counts[99]);
}

/// Of those drawn, the one with the fewest requests: compared with drawing them by hand.
#[tokio::test(start_paused = true)]
async fn least_request_takes_the_least_loaded_of_those_drawn() {
    for choices in [2, 3, 10] {
        let set = set(weighted(&[1; 5]), &balance(Algorithm::LeastRequest { choices }));
        for (n, endpoint) in set.iter().enumerate() {
            (0..n * 3).for_each(|_| endpoint.begin());
        }
        let counts = picks(&set, 20_000, |_| Asked::default());
        // It is chosen where all others drawn are busier: in C(busier, k - 1) of C(all, k) draws.
        let choose = |n: usize, k: usize| (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product::<f64>();
        let k = usize::from(choices).min(5);
        for (n, count) in counts.iter().enumerate() {
            let busier = 4 - n;
            let expected = if busier < k - 1 { 0.0 } else { choose(busier, k - 1) / choose(5, k) };
            let got = *count as f64 / 20_000.0;
            assert!((got - expected).abs() < 0.02, "{choices} choices: {n} got {got}, not {expected}");
        }
    }
}

/// Whatever else holds, only what fits is picked, and somebody is while anybody is left.
#[tokio::test(start_paused = true)]
async fn every_algorithm_avoids_what_is_to_be_avoided() {
    for algorithm in ALL {
        let mut endpoints = weighted(&[1; 6]);
        endpoints[0].health = Health::Draining;
        endpoints[1].health = Health::Unhealthy;
        let set = set(endpoints, &balance(algorithm));
        let ids: Vec<EndpointId> = set.iter().map(|endpoint| endpoint.id).collect();
        let (mut rng, turn, now) = (seeded(), Turn::default(), Instant::now());
        for avoid in [&ids[2..2], &ids[2..3], &ids[2..5], &ids[2..6]] {
            let left: BTreeSet<_> = ids[2..].iter().filter(|id| !avoid.contains(id)).collect();
            for _ in 0..300 {
                let asked = Asked { avoid, hash: Some(rng.random()), session: None };
                let picked = set.pick(&asked, &turn, now, &mut rng).expect("somebody is left").id;
                assert!(ids[2..].contains(&picked), "{algorithm:?}: neither draining nor unhealthy");
                assert!(left.is_empty() || left.contains(&picked), "{algorithm:?} avoiding {avoid:?}");
            }
        }
    }
}

/// In `minutes` of an endpoint's life, the part of the others' share it has.
#[tokio::test(start_paused = true)]
async fn a_new_endpoint_gets_its_share_bit_by_bit() {
    for algorithm in &ALL[..4] {
        let slow_start = Some(SlowStart { window: Duration::from_secs(30), min_percent: 10 });
        let set = set(weighted(&[1; 5]), &Balance { slow_start, ..balance(*algorithm) });
        let new = set.iter().next().expect("there are five");
        let begin = Instant::now();
        new.rise(begin);
        for (seconds, part) in [(0, 0.1), (3, 0.1), (15, 0.5), (24, 0.8), (30, 1.0), (300, 1.0)] {
            let (mut rng, turn) = (seeded(), Turn::default());
            let now = begin + Duration::from_secs(seconds);
            let mut count = 0;
            for _ in 0..30_000 {
                let picked = set.pick(&Asked::default(), &turn, now, &mut rng).expect("there is one");
                count += usize::from(picked.id == new.id);
            }
            let expected = part / (4.0 + part);
            let got = f64::from(count as u32) / 30_000.0;
            assert!(
                (expected * 0.85..=expected * 1.15).contains(&got),
                "{algorithm:?} after {seconds} s: {got}, not {expected}"
            );
        }
    }
}

/// Endpoints near and far, usable and not, and the share that stays near.
#[tokio::test(start_paused = true)]
async fn requests_stay_near_while_that_can_carry_them() {
    let near = |n| model::Endpoint { zone: Some("a".into()), ..one(n) };
    let far = |n| model::Endpoint { zone: Some("b".into()), ..one(n) };
    let down = |endpoint| model::Endpoint { health: Health::Unhealthy, ..endpoint };
    let leaving = |endpoint| model::Endpoint { health: Health::Draining, ..endpoint };
    for algorithm in &ALL[..4] {
        for (endpoints, want) in [
            (vec![near(0), near(1), far(2), far(3)], 1.0),
            (vec![near(0), far(1), far(2), far(3)], 1.0),
            (vec![near(0), near(1), near(2), down(near(3)), far(4)], 1.0 /* 1.4 × 3/4 */),
            (vec![near(0), down(near(1)), far(2)], 0.7),
            (vec![near(0), leaving(near(1)), far(2)], 1.0 /* nothing is missing */),
            (vec![near(0), down(near(1)), down(near(2)), down(near(3)), far(4)], 0.35),
            (vec![down(near(0)), far(1), far(2)], 0.0),
            (vec![far(0), far(1)], 0.0),
            (vec![near(0), down(near(1)), down(near(2))], 1.0 /* there is nothing else */),
        ] {
            let is_near: Vec<bool> = endpoints.iter().map(|e| e.zone.as_deref() == Some("a")).collect();
            let set = set(endpoints, &Balance { zone: Some("a".into()), ..balance(*algorithm) });
            let counts = picks(&set, 10_000, |_| Asked::default());
            let near: usize = counts.iter().zip(&is_near).filter(|(_, near)| **near).map(|(n, _)| n).sum();
            let got = near as f64 / 10_000.0;
            assert!((got - want).abs() < 0.03, "{algorithm:?}: {got} stays near, not {want}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hints_say_what_is_near_where_every_endpoint_has_one() {
    let hinted = |n, zone: &str, meant: &[&str]| model::Endpoint {
        zone: Some(zone.into()),
        for_zones: meant.iter().map(|zone| (*zone).into()).collect(),
        ..one(n)
    };
    for (endpoints, want) in [
        (vec![hinted(0, "b", &["a"]), hinted(1, "a", &["b"])], vec![true, false]),
        (vec![hinted(0, "b", &["a", "b"]), hinted(1, "a", &["a"])], vec![true, true]),
        (vec![hinted(0, "b", &["a"]), hinted(1, "a", &[])], vec![false, true] /* not all have one */),
        (
            vec![hinted(0, "b", &["c"]), hinted(1, "a", &["b"])],
            vec![false, true], /* nobody is meant for a */
        ),
    ] {
        let set = set(endpoints, &Balance { zone: Some("a".into()), ..balance(Algorithm::Random) });
        let counts = picks(&set, 200, |_| Asked::default());
        assert_eq!(counts.iter().map(|count| *count > 0).collect::<Vec<_>>(), want);
    }
}

/// Somebody of the other zone is better than the one that just failed.
#[tokio::test(start_paused = true)]
async fn another_attempt_goes_to_the_other_zone_where_it_has_to() {
    let near = model::Endpoint { zone: Some("a".into()), ..one(0) };
    let set = set(vec![near, one(1)], &Balance { zone: Some("a".into()), ..Balance::default() });
    let ids: Vec<EndpointId> = set.iter().map(|endpoint| endpoint.id).collect();
    let (mut rng, turn, now) = (seeded(), Turn::default(), Instant::now());
    for (avoid, want) in [(&ids[..0], ids[0]), (&ids[..1], ids[1]), (&ids[1..], ids[0])] {
        let picked = set.pick(&avoid.into(), &turn, now, &mut rng).expect("there is one");
        assert_eq!(picked.id, want);
    }
}
