use std::collections::BTreeMap;

use http::StatusCode;
use outrigger_config::model::{BreakerMode, CircuitBreaker, Ejection, Fraction};

use super::*;
use crate::field::Known;
use crate::upstream::{EjectedState, EndpointSet, Picked};

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, n], 80))
}

fn rules() -> Ejection {
    Ejection { jitter: Fraction::ZERO, ..Ejection::default() }
}

fn cluster(count: u8, ejection: Ejection) -> Arc<Cluster> {
    let cluster = Cluster::new(with(ejection));
    cluster.set_endpoints(endpoints((1..=count).map(|n| endpoint(address(n))).collect()));
    cluster
}

fn with(ejection: Ejection) -> model::Cluster {
    let circuit_breaker = CircuitBreaker { ejection: Some(ejection), ..CircuitBreaker::default() };
    model::Cluster { circuit_breaker: circuit_breaker.into(), ..settings() }
}

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(11)
}

fn number(picked: &Picked) -> u8 {
    match &picked.endpoint().address {
        crate::upstream::Address::Socket(SocketAddr::V4(address)) => address.ip().octets()[3],
        other => panic!("{other}"),
    }
}

/// Sends `count` requests, of which those to the endpoints in `bad` fail; how many each got.
fn send(cluster: &Cluster, rng: &mut SmallRng, count: usize, bad: &[u8]) -> BTreeMap<u8, usize> {
    let mut got = BTreeMap::new();
    for _ in 0..count {
        let now = Instant::now();
        let picked = cluster.pick(now, rng, &[]).expect("there is always one");
        *got.entry(number(&picked)).or_default() += 1;
        let status = if bad.contains(&number(&picked)) { 503 } else { 200 };
        let status = StatusCode::from_u16(status).expect("valid");
        // What a new endpoint is taken to need, so that the balancer prefers none.
        picked.answered(status, &http::HeaderMap::new(), Known::default(), Duration::from_millis(30), now);
    }
    got
}

fn states(set: &EndpointSet) -> Vec<Option<EjectedState>> {
    set.iter().map(|one| one.ejected(Instant::now()).map(|ejected| ejected.state)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_gets_its_probe_and_nothing_else() {
    let (cluster, mut rng) = (cluster(3, rules()), rng());
    let got = send(&cluster, &mut rng, 1_000, &[2]);
    assert_eq!(got[&2], 5, "{got:?}");
    assert_eq!(states(&cluster.endpoints()), [None, Some(EjectedState::Ejected), None]);

    tokio::time::advance(Duration::from_secs(10)).await;
    let got = send(&cluster, &mut rng, 1_000, &[2]);
    assert_eq!(got[&2], 1, "one probe, which fails: {got:?}");
    tokio::time::advance(Duration::from_secs(19)).await;
    assert!(!send(&cluster, &mut rng, 1_000, &[]).contains_key(&2));
    tokio::time::advance(Duration::from_secs(1)).await;

    // Well again: a part of its share, then all of it.
    send(&cluster, &mut rng, 1, &[]);
    assert_eq!(states(&cluster.endpoints())[1], Some(EjectedState::Ramping));
    tokio::time::advance(Duration::from_secs(3)).await;
    let part = send(&cluster, &mut rng, 3_000, &[])[&2];
    assert!((100..600).contains(&part), "{part} of 1000 after three tenths of the ramp");
    tokio::time::advance(Duration::from_secs(7)).await;
    let whole = send(&cluster, &mut rng, 3_000, &[])[&2];
    assert!((800..1_200).contains(&whole), "{whole} of 1000 after the ramp");
    assert_eq!(states(&cluster.endpoints()), [None; 3]);
}

#[tokio::test(start_paused = true)]
async fn the_probe_is_one_however_many_ask_at_once() {
    let (cluster, mut rng) = (cluster(2, rules()), rng());
    send(&cluster, &mut rng, 200, &[1]);
    tokio::time::advance(Duration::from_secs(10)).await;
    let now = Instant::now();
    let held: Vec<_> = (0..50).map(|_| cluster.pick(now, &mut rng, &[]).expect("there is one")).collect();
    assert_eq!(held.iter().filter(|picked| number(picked) == 1).count(), 1);
    // It was given up, so that nothing is known: the next one may ask again.
    drop(held);
    let again = cluster.pick(now, &mut rng, &[]).expect("there is one");
    assert_eq!(number(&again), 1);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_bad_half_of_them_stay_and_the_last_one_always() {
    for (count, stay) in [(1, 1), (2, 1), (3, 2), (8, 4)] {
        let (cluster, mut rng) = (cluster(count, rules()), rng());
        let all: Vec<u8> = (1..=count).collect();
        for _ in 0..100 {
            send(&cluster, &mut rng, 100, &all);
            tokio::time::advance(Duration::from_millis(700)).await;
            let in_use = states(&cluster.endpoints()).iter().filter(|state| state.is_none()).count();
            assert!(in_use >= stay, "{in_use} of {count}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn observing_ejects_nobody_and_knows_who_would_be() {
    let (cluster, mut rng) = (cluster(3, Ejection { mode: BreakerMode::Observe, ..rules() }), rng());
    let got = send(&cluster, &mut rng, 3_000, &[2]);
    assert!(got[&2] > 100, "{got:?}");
    assert_eq!(states(&cluster.endpoints())[1], Some(EjectedState::Ejected));
    tokio::time::advance(Duration::from_secs(11)).await;
    send(&cluster, &mut rng, 300, &[]);
    assert_eq!(states(&cluster.endpoints())[1], Some(EjectedState::Ramping), "it would be back");
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_come_and_go_keep_the_bounds() {
    let (cluster, mut rng) = (cluster(4, rules()), rng());
    send(&cluster, &mut rng, 400, &[1, 2]);
    assert_eq!(states(&cluster.endpoints())[..2], [Some(EjectedState::Ejected); 2]);
    // Of two, one may be out.
    cluster.set_endpoints(endpoints(vec![endpoint(address(1)), endpoint(address(2))]));
    let out = |cluster: &Cluster| {
        let ejected = Some(EjectedState::Ejected);
        states(&cluster.endpoints()).iter().filter(|state| **state == ejected).count()
    };
    assert_eq!(out(&cluster), 1);
    assert!(cluster.endpoints().is_usable());
    // What is not ready is not ejected, and the last one is not either.
    let away = model::Endpoint { health: Health::Unhealthy, ..endpoint(address(2)) };
    cluster.set_endpoints(endpoints(vec![endpoint(address(1)), away]));
    assert_eq!(out(&cluster), 0);
    // A rule that is taken back lets everybody in.
    cluster.set_endpoints(endpoints((1..=4).map(|n| endpoint(address(n))).collect()));
    send(&cluster, &mut rng, 400, &[3]);
    assert_eq!(out(&cluster), 1);
    cluster.update(model::Cluster {
        circuit_breaker: CircuitBreaker { ejection: None, ..CircuitBreaker::default() }.into(),
        ..settings()
    });
    assert_eq!(send(&cluster, &mut rng, 4_000, &[]).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_grpc_says_at_the_end_counts() {
    let (cluster, mut rng) = (cluster(2, rules()), rng());
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", "application/grpc".parse().expect("valid"));
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "14".parse().expect("valid"));
    for _ in 0..50 {
        let now = Instant::now();
        let picked = cluster.pick(now, &mut rng, &[]).expect("there is one");
        picked.answered(StatusCode::OK, &headers, Known::of(&headers), Duration::from_millis(1), now);
        if number(&picked) == 1 {
            picked.ended(&trailers);
        }
    }
    assert_eq!(states(&cluster.endpoints()), [Some(EjectedState::Ejected), None]);
}

#[tokio::test(start_paused = true)]
async fn what_is_dismissed_teaches_nothing() {
    let (cluster, mut rng) = (cluster(2, rules()), rng());
    for _ in 0..200 {
        let picked = cluster.pick(Instant::now(), &mut rng, &[]).expect("there is one");
        picked.dismiss();
        picked.failed(Duration::from_secs(1), Instant::now());
        drop(cluster.pick(Instant::now(), &mut rng, &[]).expect("there is one"));
    }
    assert_eq!(states(&cluster.endpoints()), [None; 2]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_is_not_held_to_what_it_was() {
    let (cluster, mut rng) = (cluster(2, rules()), rng());
    let now = Instant::now();
    for _ in 0..50 {
        let picked = cluster.pick(now, &mut rng, &[]).expect("there is one");
        match number(&picked) {
            1 => picked.failed(Duration::from_secs(60), now),
            _ => picked.observe(Duration::from_millis(30), now),
        }
        if states(&cluster.endpoints())[0].is_none() {
            // The balancer would not choose it again by itself.
            cluster.endpoints().iter().next().expect("it is there").restart(Duration::from_millis(30));
        }
    }
    assert_eq!(states(&cluster.endpoints())[0], Some(EjectedState::Ejected));
    let held: Vec<_> = (0..2)
        .map(|_| {
            Picked::new(cluster.endpoints().iter().next().expect("it is there").clone(), None, Instant::now())
        })
        .collect();
    tokio::time::advance(Duration::from_secs(10)).await;
    send(&cluster, &mut rng, 1, &[]);
    tokio::time::advance(Duration::from_secs(10)).await;
    // Answers, and failures, of before it was out.
    held[0].observe(Duration::from_secs(40), Instant::now());
    held[1].failed(Duration::from_secs(40), Instant::now());
    drop(held);
    let got = send(&cluster, &mut rng, 1_000, &[]);
    assert!((350..650).contains(&got[&1]), "{got:?}");
}
