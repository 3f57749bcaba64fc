//! Limits that instances share, against real counterparts: Redis behind our own servers, Envoy as their client, and a server of the same call that is not ours.
//!
//! The sidecars run in this process, each before one app and told by files of its own where the server is.

mod counterparts;
#[path = "../../../../control/tests/support/redis.rs"]
mod redis;
mod replica;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::ports;
use crate::support::{PATIENCE, peers};
use counterparts::{Envoy, Foreign, limit_server};
use redis::Redis;
use replica::{Client, Replica, app};

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

/// Two servers on one Redis, three sidecars, 300 a second for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_share_300_a_second_through_two_servers_on_redis() {
    if !peers::present("three_replicas_share_300_a_second_through_two_servers_on_redis", &["redis-server"]) {
        return;
    }
    let redis = Redis::start(ports::free()).await;
    let servers = [limit_server(Some(&redis.url())).await, limit_server(Some(&redis.url())).await];
    let app = app().await;
    let limit = "{name: together, requests: 300, scope: Service, shared: {failureMode: Closed, timeout: 2s}}";
    let mut replicas = Vec::new();
    for n in 0..3 {
        replicas.push(Replica::start(app, servers[n % 2], limit).await);
    }
    // 600 a second from six connections, as far as the machine goes along.
    let (seconds, warm) = (8, Duration::from_secs(2));
    let begun = Instant::now();
    let end = begun + warm + Duration::from_secs(seconds);
    let mut tasks = Vec::new();
    for n in 0..6 {
        let mut client = Client::connect(replicas[n % 3].at).await;
        tasks.push(tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(10));
            let mut seen = BTreeMap::<u16, u32>::new();
            while Instant::now() < end {
                ticks.tick().await;
                let status = client.get().await;
                // The first window has no one before it: what may come at once came in it.
                if begun.elapsed() >= warm && Instant::now() < end {
                    *seen.entry(status).or_default() += 1;
                }
            }
            seen
        }));
    }
    let mut seen = BTreeMap::<u16, u32>::new();
    for task in tasks {
        for (status, count) in within("the requests", task).await.expect("no panic") {
            *seen.entry(status).or_default() += count;
        }
    }
    let calls: f64 = replicas.iter().map(|replica| replica.metric("outrigger_limit_asked_total")).sum();
    println!("in {seconds} s: {seen:?}, {calls} calls to the servers");
    let count = |status| f64::from(seen.get(&status).copied().unwrap_or(0));
    let (admitted, refused, undecided) = (count(200), count(429), count(503));
    assert_eq!(f64::from(seen.values().sum::<u32>()), admitted + refused + undecided, "{seen:?}");
    let theory = 300.0 * seconds as f64;
    assert!(admitted <= theory * 1.05, "{admitted} of {theory}");
    // A machine that cannot send that much, or on which Redis does not answer within its 200 ms, says nothing about less.
    let offered = admitted + refused;
    let conclusive = undecided == 0.0 && offered >= theory * 1.5;
    assert!(!conclusive || admitted >= theory * 0.95, "{admitted} of {theory}");
    eprintln!("{admitted} of {theory}, conclusive: {conclusive}");
}

/// Both failure modes, while Redis is away and after it has come back; nobody waits long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_goes_and_comes_back_under_either_failure_mode() {
    if !peers::present("redis_goes_and_comes_back_under_either_failure_mode", &["redis-server"]) {
        return;
    }
    let redis = Redis::start(ports::free()).await;
    let server = limit_server(Some(&redis.url())).await;
    let app = app().await;
    let limit = |mode: &str| {
        format!("{{name: {mode}, requests: 5, per: 24h, scope: Service, shared: {{failureMode: {mode}, timeout: 300ms}}}}")
            .replace("name: O", "name: o")
            .replace("name: C", "name: c")
    };
    let open = Replica::start(app, server, &limit("Open")).await;
    let closed = Replica::start(app, server, &limit("Closed")).await;
    let modes = [(&open, "open", 200), (&closed, "closed", 503)];
    let used_up = |name: &'static str, at| async move {
        within(name, async {
            while Client::connect(at).await.get().await != 429 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    for (replica, name, _) in &modes {
        used_up(name, replica.at).await;
    }
    let port = redis.port;
    drop(redis);
    for (replica, name, want) in &modes {
        let mut client = Client::connect(replica.at).await;
        within("the failure mode", async {
            // What was refused may be known for a second.
            while client.get().await != *want {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        for _ in 0..100 {
            let begun = Instant::now();
            assert_eq!(client.get().await, *want, "{name}");
            // Ten times what is promised: a test fails on a mistake and not on a slow machine.
            assert!(begun.elapsed() < Duration::from_secs(3), "{name}: {:?}", begun.elapsed());
        }
        assert!(replica.metric("outrigger_limit_undecided_total") >= 100.0, "{name}");
    }
    let _redis = Redis::start(port).await;
    for (replica, name, _) in &modes {
        // A new Redis has counted nothing: five, and then no more.
        used_up(name, replica.at).await;
    }
}

/// Envoy's own filter asks our server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_is_limited_by_our_server() {
    let program = counterparts::fetched("envoy");
    if !peers::present("envoy_is_limited_by_our_server", &[program.to_str().expect("a path")]) {
        return;
    }
    let server = limit_server(None).await;
    let envoy = Envoy::start(server, 4).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(Client::connect(envoy.at).await.answer().await);
    }
    let passed = statuses.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(passed, 4, "{statuses:?}");
    let refused = &statuses[9];
    assert_eq!(refused.status, 429);
    // What it makes of our answer: the limit it named, nothing left, and when it ends.
    assert!(refused.header("x-ratelimit-limit").starts_with('4'), "{refused:?}");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    let reset: u64 = refused.header("x-ratelimit-reset").parse().expect("seconds");
    // Days begin at midnight, and what was used in one counts, less and less, in the next: early in the day it is more than one until there is something again.
    assert!((1..=2 * 86_400).contains(&reset), "{refused:?}");
}

/// A server of the same call, written in Python with grpcio by the rules of the call alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_of_the_call_limits_our_proxies() {
    let python = counterparts::fetched("python");
    if !peers::present("another_server_of_the_call_limits_our_proxies", &[python.to_str().expect("a path")]) {
        return;
    }
    let foreign = Foreign::start(&python).await;
    let app = app().await;
    let limit = "{name: each, requests: 20, per: 24h, scope: Service, key: [{by: Header, name: x-user}], shared: {failureMode: Closed, timeout: 5s}}";
    let replicas =
        [Replica::start(app, foreign.at, limit).await, Replica::start(app, foreign.at, limit).await];
    for user in ["anna", "bert"] {
        let mut passed = 0;
        for n in 0..60 {
            let mut client = Client::connect(replicas[n % 2].at).await;
            match client.get_as(user).await {
                200 => passed += 1,
                status => assert_eq!(status, 429),
            }
        }
        assert_eq!(passed, 20, "{user}: of both replicas together");
    }
    let told = foreign.told();
    let keys: Vec<_> = told.iter().map(|call| call["key"].as_str().unwrap_or_default()).collect();
    assert!(keys.iter().all(|key| key.contains("policy=default/p|limit=each|header:x-user=")), "{keys:?}");
    assert!(
        told.iter().all(|call| call["hits"] == 1 && call["back"] == false),
        "nothing leased, nothing given back"
    );
    let strict =
        Replica::start(app, foreign.at, &limit.replace("timeout: 5s", "strict: true, timeout: 5s")).await;
    let before = foreign.told().len();
    let mut client = Client::connect(strict.at).await;
    for _ in 0..5 {
        assert_eq!(client.get_as("carl").await, 200);
    }
    assert_eq!(foreign.told().len() - before, 5, "each request asks for itself");
}

/// Overrides are counted together, too, each by its own number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certain_keys_have_a_rate_of_their_own_at_the_server() {
    let (server, app) = (limit_server(None).await, app().await);
    let limit = "{name: each, requests: 5, per: 24h, scope: Service, key: [{by: Header, name: x-user}], \
                 overrides: [{key: [vip], rate: 12}, {key: [root], unlimited: true}], shared: {failureMode: Closed, timeout: 5s}}";
    let replicas = [Replica::start(app, server, limit).await, Replica::start(app, server, limit).await];
    for (user, allowed) in [("anna", 5), ("vip", 12), ("bert", 5)] {
        let mut passed = 0;
        // What one of them leased and does not use comes back after a moment.
        within(user, async {
            for n in 0.. {
                match Client::connect(replicas[n % 2].at).await.get_as(user).await {
                    200 => passed += 1,
                    status => assert_eq!(status, 429, "{user}"),
                }
                if passed == allowed {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        for n in 0..20 {
            let status = Client::connect(replicas[n % 2].at).await.get_as(user).await;
            assert_eq!(status, 429, "{user} had {allowed} of both");
        }
    }
    let asked = |replica: &Replica| replica.metric("outrigger_limit_asked_total");
    let before = asked(&replicas[0]);
    for _ in 0..30 {
        assert_eq!(Client::connect(replicas[0].at).await.get_as("root").await, 200);
    }
    assert_eq!(asked(&replicas[0]), before, "nobody is asked about what nothing limits");
}

/// Connections that carry bytes, of all instances together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_together() {
    let (server, app) = (limit_server(None).await, app().await);
    let limit =
        "{name: dials, connections: 4, per: 24h, scope: Service, shared: {failureMode: Closed, timeout: 5s}}";
    let replicas = [Replica::start(app, server, limit).await, Replica::start(app, server, limit).await];
    let mut passed = 0;
    within("four connections", async {
        for n in 0.. {
            passed += usize::from(Client::carried(replicas[n % 2].tcp).await);
            if passed == 4 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for n in 0..10 {
        assert!(!Client::carried(replicas[n % 2].tcp).await, "four were all");
        assert_eq!(Client::connect(replicas[n % 2].at).await.get().await, 200, "a request is no connection");
    }
    let refused: f64 = replicas.iter().map(|replica| replica.metric("outrigger_limited_total")).sum();
    assert!(refused >= 10.0, "{refused}");
}
