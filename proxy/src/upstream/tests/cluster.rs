use std::collections::BTreeMap;

use super::*;
use crate::upstream::EndpointId;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, n], 80))
}

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(7)
}

fn cluster(of: Vec<model::Endpoint>) -> Arc<Cluster> {
    let cluster = Cluster::new(settings());
    cluster.set_endpoints(endpoints(of));
    cluster
}

/// How many of `picks` each endpoint gets when every request takes as long as `latency` says for it, `at_once` at a time.
async fn shares(
    cluster: &Arc<Cluster>,
    picks: usize,
    at_once: usize,
    latency: impl Fn(SocketAddr) -> Duration + Clone + 'static,
) -> BTreeMap<SocketAddr, usize> {
    let counts = Rc::new(std::cell::RefCell::new(BTreeMap::new()));
    let left = Rc::new(std::cell::Cell::new(picks));
    let rng = Rc::new(std::cell::RefCell::new(rng()));
    let callers: Vec<_> = (0..at_once)
        .map(|_| {
            let (cluster, latency) = (Arc::clone(cluster), latency.clone());
            let (counts, left, rng) = (Rc::clone(&counts), Rc::clone(&left), Rc::clone(&rng));
            tokio::task::spawn_local(async move {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    let begun = Instant::now();
                    let picked = cluster.pick(begun, &mut rng.borrow_mut(), &[]).expect("there is one");
                    let super::super::Address::Socket(address) = picked.endpoint().address else {
                        panic!("it has an address")
                    };
                    *counts.borrow_mut().entry(address).or_default() += 1;
                    tokio::time::sleep(latency(address)).await;
                    picked.observe(begun.elapsed(), Instant::now());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("it does not panic");
    }
    Rc::into_inner(counts).expect("all callers ended").into_inner()
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn equal_endpoints_get_equal_shares() {
    for at_once in [1, 8, 64] {
        let cluster = cluster((1..=10).map(|n| endpoint(address(n))).collect());
        let shares = shares(&cluster, 10_000, at_once, |_| Duration::from_millis(5)).await;
        for (address, share) in &shares {
            assert!(
                (800..=1200).contains(share),
                "{address} got {share} of 10000, {at_once} at once: {shares:?}"
            );
        }
        assert_eq!(shares.len(), 10);
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_slow_endpoint_gets_little() {
    let cluster = cluster((1..=4).map(|n| endpoint(address(n))).collect());
    let slow = |address: SocketAddr| match address.ip().to_string().as_str() {
        "127.0.0.4" => Duration::from_millis(200),
        _ => Duration::from_millis(5),
    };
    let shares = shares(&cluster, 10_000, 16, slow).await;
    assert!(shares[&address(4)] < 500, "{shares:?}");
    assert!(shares[&address(4)] > 0, "it is tried, or its recovery would never be seen: {shares:?}");
}

/// Of two endpoints one answered badly, once, and is well since then: somebody who asks now and then comes back to it, however bad that answer was.
#[tokio::test(start_paused = true)]
async fn a_bad_answer_of_long_ago_keeps_nobody_away() {
    for (bad, every) in [(50, 1), (500, 1), (30_000, 1), (500, 5), (500, 30)] {
        let cluster = cluster(vec![endpoint(address(1)), endpoint(address(2))]);
        let mut rng = rng();
        let endpoints: Vec<_> = cluster.endpoints().iter().cloned().collect();
        let begun = Instant::now();
        for endpoint in &endpoints {
            endpoint.succeeded(Duration::from_millis(1), begun);
            endpoint.restart(Duration::from_millis(1));
        }
        endpoints[0].succeeded(Duration::from_millis(bad), begun);
        let mut back = None;
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(every)).await;
            let now = Instant::now();
            let picked = cluster.pick(now, &mut rng, &[]).expect("there is one");
            picked.observe(Duration::from_millis(1), now);
            if picked.endpoint().id == endpoints[0].id {
                back.get_or_insert(now - begun);
            }
        }
        let back = back.expect("it is asked again").as_secs();
        println!("{bad} ms, asked every {every} s: back after {back} s");
        assert!(back <= 20 + 10 * every, "{bad} ms, every {every} s: not before {back} s");
        assert!(bad < 500 || every >= 20 || back >= 20, "{bad} ms, every {every} s: after {back} s already");
    }
}

/// One that stays slow is asked once in twenty seconds by a busy caller, and nothing waits there beside that request.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_slow_endpoint_is_tried_seldom_and_by_one_request() {
    let cluster = cluster(vec![endpoint(address(1)), endpoint(address(2))]);
    let slow = |at: SocketAddr| Duration::from_millis(if at == address(2) { 5_000 } else { 2 });
    // 4 at a time, 2 ms each: a hundred seconds.
    let shares = shares(&cluster, 200_000, 4, slow).await;
    let tries = shares[&address(2)];
    assert!((2..=8).contains(&tries), "{tries} tries within a hundred seconds: {shares:?}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn weights_are_respected() {
    let weighted = |n, weight| model::Endpoint { weight, ..endpoint(address(n)) };
    let cluster = cluster(vec![weighted(1, 1), weighted(2, 2), weighted(3, 7)]);
    let shares = shares(&cluster, 20_000, 20, |_| Duration::from_millis(5)).await;
    for (n, part) in [(1, 0.1), (2, 0.2), (3, 0.7)] {
        let share = shares[&address(n)] as f64 / 20_000.0;
        assert!((share / part - 1.0).abs() < 0.25, "endpoint {n}: {share} instead of {part}");
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_new_endpoint_is_neither_flooded_nor_starved() {
    let cluster = cluster((1..=9).map(|n| endpoint(address(n))).collect());
    shares(&cluster, 9_000, 32, |_| Duration::from_millis(2)).await;
    cluster.set_endpoints(endpoints((1..=10).map(|n| endpoint(address(n))).collect()));
    let shares = shares(&cluster, 5_000, 32, |_| Duration::from_millis(2)).await;
    assert!((400..=600).contains(&shares[&address(10)]), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn an_update_keeps_what_is_known_of_those_that_stay() {
    let cluster = cluster(vec![endpoint(address(1)), endpoint(address(2))]);
    let now = Instant::now();
    let first = cluster.pick(now, &mut rng(), &[]).expect("there is one");
    for _ in 0..100 {
        let picked = cluster.pick(now, &mut rng(), &[]).expect("there is one");
        picked.observe(Duration::from_millis(500), now);
    }
    let before: Vec<_> = cluster.endpoints().iter().cloned().collect();

    let draining = model::Endpoint { health: Health::Draining, weight: 3, ..endpoint(address(1)) };
    let moved = model::Endpoint { workload: Some("default/other".into()), ..endpoint(address(2)) };
    cluster.set_endpoints(endpoints(vec![draining, moved, endpoint(address(3))]));
    let after: Vec<_> = cluster.endpoints().iter().cloned().collect();

    assert!(Arc::ptr_eq(&before[0], &after[0]), "the same instance, in another state");
    assert_eq!((after[0].health(), after[0].weight()), (Health::Draining, 3));
    assert_ne!(before[1].id, after[1].id, "another instance at the same address");
    assert_eq!(after[2].estimate(now), Duration::from_millis(500), "the median of those before");
    assert_eq!(before.iter().map(|e| e.in_flight()).sum::<u32>(), 1);
    drop(first);
    assert_eq!(before.iter().map(|e| e.in_flight()).sum::<u32>(), 0);
}

#[tokio::test(start_paused = true)]
async fn failures_never_make_an_endpoint_look_fast() {
    let cluster = cluster(vec![endpoint(address(1))]);
    let picked = cluster.pick(Instant::now(), &mut rng(), &[]).expect("there is one");
    picked.observe(Duration::from_millis(100), Instant::now());
    for _ in 0..1000 {
        tokio::time::advance(Duration::from_millis(50)).await;
        picked.failed(Duration::from_micros(10), Instant::now());
    }
    assert_eq!(picked.endpoint().estimate(Instant::now()), Duration::from_millis(100));
    picked.failed(Duration::from_secs(3), Instant::now());
    assert_eq!(picked.endpoint().estimate(Instant::now()), Duration::from_secs(3), "but slow, they may");
}

#[tokio::test(start_paused = true)]
async fn an_estimate_rises_at_once_sinks_slowly_and_is_forgotten() {
    let cluster = cluster(vec![endpoint(address(1))]);
    let picked = cluster.pick(Instant::now(), &mut rng(), &[]).expect("there is one");
    let endpoint = Arc::clone(picked.endpoint());
    picked.observe(Duration::from_secs(1), Instant::now());
    assert_eq!(endpoint.estimate(Instant::now()), Duration::from_secs(1));
    tokio::time::advance(Duration::from_secs(10)).await;
    picked.observe(Duration::from_millis(10), Instant::now());
    let estimate = endpoint.estimate(Instant::now()).as_secs_f64();
    assert!((estimate - 0.374).abs() < 0.01, "1/e of it is left after the decay time: {estimate}");
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(endpoint.estimate(Instant::now()) < Duration::from_millis(1));
}

/// One that was silent once, and was asked again 20 s later, is not held back by what it was.
#[tokio::test(start_paused = true)]
async fn what_was_not_asked_for_long_is_what_it_shows_next() {
    let cluster = cluster(vec![endpoint(address(1))]);
    let picked = cluster.pick(Instant::now(), &mut rng(), &[]).expect("there is one");
    let endpoint = Arc::clone(picked.endpoint());
    picked.failed(Duration::from_secs(1), Instant::now());
    tokio::time::advance(Duration::from_secs(20)).await;
    picked.failed(Duration::from_micros(10), Instant::now());
    assert_eq!(endpoint.estimate(Instant::now()), Duration::from_secs(1), "it failed");
    tokio::time::advance(Duration::from_secs(20)).await;
    picked.observe(Duration::from_millis(1), Instant::now());
    assert_eq!(endpoint.estimate(Instant::now()), Duration::from_millis(1));
}

/// Where a request may go, by what the endpoints are and which ones are to be avoided.
#[tokio::test(start_paused = true)]
async fn only_the_usable_are_picked() {
    use Health::{Draining as D, Healthy as H, Unhealthy as U};
    for (states, avoid, want) in [
        (&[H, H, H][..], &[][..], &[0, 1, 2][..]),
        (&[H, D, U], &[], &[0]),
        (&[D, D, U], &[], &[0, 1] /* better than nothing */),
        (&[U, U], &[], &[]),
        (&[], &[], &[]),
        (&[H, H, H], &[0, 2], &[1]),
        (&[H, H], &[0, 1], &[0, 1] /* again is better than not at all */),
        (&[H, D], &[0], &[0] /* a draining one is no alternative */),
    ] {
        let of =
            (1..).zip(states).map(|(n, health)| model::Endpoint { health: *health, ..endpoint(address(n)) });
        let cluster = cluster(of.collect());
        let ids: Vec<EndpointId> = cluster.endpoints().iter().map(|endpoint| endpoint.id).collect();
        let avoid: Vec<_> = avoid.iter().map(|index: &usize| ids[*index]).collect();
        let (mut rng, mut got) = (rng(), std::collections::BTreeSet::new());
        for _ in 0..200 {
            if let Ok(picked) = cluster.pick(Instant::now(), &mut rng, &avoid) {
                got.insert(ids.iter().position(|id| *id == picked.endpoint().id).expect("one of them"));
            }
        }
        assert_eq!(got.into_iter().collect::<Vec<_>>(), want, "{states:?} avoiding {avoid:?}");
    }
}

#[test]
fn no_endpoint_says_why_and_stays_short() {
    let unknown = Cluster::new(settings());
    assert!(!unknown.has_endpoints());
    let text = |cluster: &Arc<Cluster>| {
        cluster.pick(Instant::now(), &mut rng(), &[]).map(|_| ()).expect_err("none is usable").to_string()
    };
    assert_eq!(text(&unknown), "its endpoints are not known yet");
    let none = cluster(vec![]);
    assert!(none.has_endpoints());
    assert_eq!(text(&none), "it has no endpoints");
    let unhealthy = |n| model::Endpoint { health: Health::Unhealthy, ..endpoint(address(n)) };
    assert_eq!(
        text(&cluster(vec![unhealthy(1)])),
        "its one endpoint is not usable: 127.0.0.1:80 is not ready"
    );
    let many = text(&cluster((1..=100).map(unhealthy).collect()));
    assert!(many.starts_with("none of its 100 endpoints is usable: 127.0.0.1:80 is not ready, "), "{many}");
    assert!(many.ends_with(", and 96 more"), "{many}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn waiting_ends_the_moment_an_endpoint_is_usable() {
    let cluster = Cluster::new(settings());
    let begun = Instant::now();
    let waiting = {
        let cluster = Arc::clone(&cluster);
        tokio::task::spawn_local(async move { cluster.ready(Instant::now() + Cluster::DEFAULT_WAIT).await })
    };
    tokio::time::sleep(Duration::from_millis(1234)).await;
    let unhealthy = model::Endpoint { health: Health::Unhealthy, ..endpoint(address(1)) };
    cluster.set_endpoints(endpoints(vec![unhealthy]));
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert!(!waiting.is_finished());
    cluster.set_endpoints(endpoints(vec![endpoint(address(1))]));
    waiting.await.expect("it does not panic").expect("it is ready");
    assert_eq!(begun.elapsed().as_millis(), 2234);

    cluster.set_endpoints(endpoints(vec![]));
    let begun = Instant::now();
    let error = cluster.ready(Instant::now() + Cluster::DEFAULT_WAIT).await.expect_err("none comes");
    assert_eq!((begun.elapsed().as_secs(), error.to_string()), (3, "it has no endpoints".into()));
}

#[tokio::test]
async fn a_name_is_one_endpoint_and_follows_its_settings() {
    let named = |host: &str| model::Cluster {
        discovery: Discovery::Dns { host: host.into(), port: 443 },
        ..settings()
    };
    let cluster = Cluster::new(named("a.example.com"));
    let id = cluster.pick(Instant::now(), &mut rng(), &[]).expect("it has one").endpoint().id;
    cluster.update(model::Cluster { connect_timeout: Duration::from_secs(2), ..named("a.example.com") });
    let same = cluster.pick(Instant::now(), &mut rng(), &[]).expect("it has one");
    assert_eq!((same.endpoint().id, cluster.settings().connect_timeout.as_secs()), (id, 2));
    cluster.update(named("b.example.com"));
    let other = cluster.pick(Instant::now(), &mut rng(), &[]).expect("it has one");
    assert_eq!(other.endpoint().address.to_string(), "b.example.com:443");
    assert_ne!(other.endpoint().id, id);
}

/// 1 → 10 and 9 → 10 endpoints that answer alike: within 5 s each has its share of what came in them (requirements 2.7).
#[tokio::test(flavor = "local", start_paused = true)]
async fn new_endpoints_have_their_share_within_five_seconds() {
    use model::{Algorithm, Balance};
    let latency = Duration::from_millis(10);
    for algorithm in [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest { choices: 2 },
        Algorithm::RoundRobin,
        Algorithm::Random,
    ] {
        for before in [1, 9] {
            let balance = Balance { algorithm, ..Balance::default() };
            let cluster = Cluster::new(model::Cluster { balance: balance.into(), ..settings() });
            let of = |n| endpoints((1..=n).map(|n| endpoint(address(n))).collect());
            cluster.set_endpoints(of(before));
            // 50 streams at a time, 5,000 requests a second: first 5 s, then another 5.
            shares(&cluster, 25_000, 50, move |_| latency).await;
            cluster.set_endpoints(of(10));
            let begun = Instant::now();
            let shares = shares(&cluster, 25_000, 50, move |_| latency).await;
            assert!(begun.elapsed() <= Duration::from_millis(5_100), "{:?}", begun.elapsed());
            for n in 1..=10 {
                let share = shares.get(&address(n)).copied().unwrap_or_default();
                assert!(
                    (2_000..=3_000).contains(&share),
                    "{algorithm:?}, {before} → 10: {n} got {share} of 25,000: {shares:?}"
                );
            }
        }
    }
}
