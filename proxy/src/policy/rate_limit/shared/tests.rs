use std::collections::HashMap;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, Method};
use outrigger_config::model::{
    Cost, LimitHeaders, LimitMode, LimitServer, LimitUnit, Origin, ServiceRef, SpiffeId,
};
use outrigger_config::xds::pb::Duration as WireDuration;
use outrigger_config::xds::pb::ratelimit::rate_limit_response::{Code, DescriptorStatus};
use outrigger_config::xds::pb::ratelimit::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use outrigger_config::xds::pb::ratelimit::{RateLimitRequest, RateLimitResponse};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Server as GrpcServer;
use tonic::{Request, Response, Status};

use super::lease::{Taken as Found, Wish};
use super::*;
use crate::dns::Resolver;
use crate::identity::Peer;
use crate::policy::rate_limit::Head;
use crate::telemetry::{Metrics, Text};

const MS: u64 = 1_000_000;

fn lease() -> Lease {
    Lease::new([].into(), None)
}

fn grant(lease: &Lease, now: u64, hits: u64) {
    lease.granted(hits, 1_000, now, now);
}

#[test]
fn a_lease_is_a_tenth_of_a_second_of_use_within_its_bounds() {
    for (a_second, want) in [(5, 1), (100, 10), (700, 20), (100_000, 20)] {
        let lease = lease();
        let (waiting, _) = lease.wait(1);
        let (mut now, mut asked) = (0, Vec::new());
        for _ in 0..2_000 {
            now += 1_000 * MS / a_second;
            if let Some(Wish { hits, .. }) = lease.wish(now, 20, 1_000) {
                asked.push(hits);
                grant(&lease, now, hits);
            }
            assert!(matches!(lease.take(now, 1), Found::Yes { .. }), "{a_second} a second at {now}");
        }
        drop(waiting);
        // Somebody waits, so that every wish is for what fills a batch up.
        let held = asked.iter().skip(100).max().copied();
        assert!(held.is_some_and(|held| held <= want), "{a_second} a second: {held:?}");
    }
}

#[test]
fn more_is_asked_for_before_it_is_used_up() {
    let lease = lease();
    let (waiting, start) = lease.wait(1);
    assert!(start, "somebody has to look after it");
    assert_eq!(lease.wish(0, 10, 300), Some(Wish { hits: 1, least: 1 }));
    grant(&lease, 0, 40);
    drop(waiting);
    for n in 0..30 {
        assert!(matches!(lease.take(n * MS, 1), Found::Yes { low: false, .. }));
    }
    assert_eq!(lease.wish(30 * MS, 10, 300), None, "there are 10");
    let lows: Vec<_> = (0..10)
        .map(|_| match lease.take(31 * MS, 1) {
            Found::Yes { low, .. } => low,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        lows.iter().position(|low| *low),
        Some(7),
        "a quarter of a batch is left, and it is said once: {lows:?}"
    );
    assert_eq!(lows.iter().filter(|low| **low).count(), 1);
    assert_eq!(lease.take(31 * MS, 1), Found::Empty);
}

#[test]
fn who_waits_is_asked_for_and_the_least_that_helps_is_known() {
    let lease = lease();
    let (first, start) = lease.wait(7);
    let (second, again) = lease.wait(3);
    assert!(start && !again, "one task, however many wait");
    assert_eq!(lease.wish(0, 2, 300), Some(Wish { hits: 10, least: 3 }));
    assert_eq!(lease.wish(0, 2, 8), Some(Wish { hits: 8, least: 3 }), "more is never there");
    drop(first);
    assert_eq!(lease.wish(0, 2, 300), Some(Wish { hits: 3, least: 3 }));
    drop(second);
    assert_eq!(lease.wish(0, 2, 300), None);
    assert!(lease.rest() && lease.is_at_rest(0));
}

#[test]
fn a_refusal_holds_for_as_much_and_until_then() {
    let lease = lease();
    lease.denied(5, 100, 300);
    assert!(matches!(lease.take(10, 5), Found::No { wait: 290, .. }));
    assert_eq!(lease.take(10, 4), Found::Empty, "less may be there");
    assert_eq!(lease.take(100, 5), Found::Empty);
    lease.failed();
    assert_eq!(lease.take(200, 1), Found::Undecided, "nobody waits for who does not answer");
    assert!(lease.was_missed() && !lease.was_missed());
    grant(&lease, 200, 1);
    assert!(matches!(lease.take(200, 1), Found::Yes { .. }));
    assert_eq!(lease.take(200, 1), Found::Empty, "it answers again");
}

#[test]
fn what_nobody_uses_is_taken_back() {
    let lease = lease();
    grant(&lease, 0, 10);
    assert!(matches!(lease.take(MS, 4), Found::Yes { .. }));
    assert_eq!(lease.take_idle(2 * MS), 0, "some of it was just used");
    assert!(!lease.rest());
    assert_eq!(lease.take_idle(300 * MS), 6);
    assert!(lease.rest());
}

#[test]
fn leases_are_bounded_and_forgotten_at_rest_alone() {
    let leases = Leases::new(100, lease());
    let of = |n: u64, now| leases.of(n << 24, now, lease);
    for n in 0..100 {
        of(n, 0).0.denied(1, 1_000 * MS * (1 + n % 2), 0);
    }
    let held = of(1, 0).0;
    assert!((100..160).all(|n| of(n, 500 * MS).1), "all of them have something to say");
    assert_eq!(leases.len(), 100);
    let places =
        (200..300).filter(|n| !of(*n, 1_500 * MS).1).inspect(|n| of(*n, 1_500 * MS).0.denied(1, u64::MAX, 0));
    assert_eq!(places.count(), 50, "half of them have said it");
    assert!((1..100).step_by(2).all(|n| !of(n, 1_500 * MS).1), "the others are still there");
    assert!(Arc::ptr_eq(&of(1, u64::MAX).0, &held), "what a request holds stays");
}

/// A server that counts in a window that never ends, and does what it is told.
#[derive(Clone)]
struct Script {
    state: Arc<Mutex<Counted>>,
    ours: bool,
    limit: i64,
    hangs: watch::Receiver<bool>,
    fails: Arc<AtomicBool>,
}

#[derive(Default)]
struct Counted {
    used: HashMap<String, i64>,
    /// Key and hits of every call, negative ones given back.
    calls: Vec<(String, i64)>,
}

#[tonic::async_trait]
impl RateLimitService for Script {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let [descriptor] = &request.descriptors[..] else { panic!("{request:?}") };
        let key = descriptor.entries.last().map(|entry| entry.value.clone()).expect("it has entries");
        let hits =
            i64::try_from(descriptor.hits_addend.as_ref().expect("it says how many").value).expect("few");
        let hits = if descriptor.is_negative_hits { -hits } else { hits };
        self.state.lock().calls.push((key.clone(), hits));
        if self.fails.load(Ordering::Relaxed) {
            return Err(Status::unavailable("the store is away"));
        }
        if key == "slow" {
            let _ = self.hangs.clone().wait_for(|hangs| !*hangs).await;
        }
        let mut state = self.state.lock();
        let used = state.used.entry(key).or_default();
        let fits = hits < 0 || *used + hits <= self.limit;
        if fits {
            *used += hits;
        }
        let status = DescriptorStatus {
            code: if fits { Code::Ok } else { Code::OverLimit } as i32,
            limit_remaining: u32::try_from(self.limit - *used).expect("never more"),
            duration_until_reset: Some(WireDuration { seconds: 3_600, nanos: 0 }),
            ..DescriptorStatus::default()
        };
        let mut response = Response::new(RateLimitResponse {
            overall_code: status.code,
            statuses: vec![status],
            ..RateLimitResponse::default()
        });
        if self.ours {
            response.metadata_mut().insert(rate_limit::TAKES_BACK, MetadataValue::from_static("true"));
        }
        Ok(response)
    }
}

struct World {
    limiter: Arc<SharedLimiter>,
    key: Vec<KeyPart>,
    script: Script,
    hang: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    secret: RandomState,
}

impl World {
    /// `limit` an hour, by a header.
    async fn new(limit: u32, ours: bool, change: impl FnOnce(&mut SharedLimit)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at: SocketAddr = listener.local_addr().expect("bound");
        let (hang, hangs) = watch::channel(true);
        let script =
            Script { state: Arc::default(), ours, limit: limit.into(), hangs, fails: Arc::default() };
        let service = RateLimitServiceServer::new(script.clone());
        tokio::spawn(
            GrpcServer::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self::at(at, limit, script, hang, change)
    }

    fn at(
        at: SocketAddr,
        limit: u32,
        script: Script,
        hang: watch::Sender<bool>,
        change: impl FnOnce(&mut SharedLimit),
    ) -> Self {
        let mut shared = SharedLimit {
            service: ServiceRef::new("default", "s"),
            server: LimitServer { address: Some(at.to_string().into()), ..LimitServer::default() },
            strict: false,
            batch: None,
            // Answers are awaited on a machine that does much else.
            timeout: Duration::from_secs(5),
            open: true,
        };
        change(&mut shared);
        let key = vec![KeyPart::Header("x-key".parse().expect("a name"))];
        let rate = RateLimit {
            limit: Limit {
                name: "all".into(),
                mode: LimitMode::Enforce,
                matches: Vec::new(),
                key: key.clone(),
                allowed: Rate::new(limit, Duration::from_secs(3_600), limit).expect("a rate"),
                overrides: Vec::new(),
                max_keys: 100,
                origin: Origin::new("TrafficPolicy", "default", "p", "spec.rateLimit.limits[0]"),
            },
            unit: LimitUnit::Requests,
            cost: Cost { fixed: 1, header: None, most: limit },
            headers: LimitHeaders::Always,
            shared: None,
        };
        let metrics = Metrics::new(1);
        let servers = Servers::new(Resolver::system(tokio::runtime::Handle::current()), None);
        let limiter = SharedLimiter::new(
            "default/p all".into(),
            &rate,
            &shared,
            &servers,
            metrics.limit("default/p", "all"),
        );
        Self { limiter, key, script, hang, metrics, secret: RandomState::new() }
    }

    fn lease(&self, key: &str) -> Arc<Lease> {
        let id = SpiffeId::new("td", "ns", "a").expect("an id");
        let peer = Peer { identity: Some(id), address: "10.0.0.1:1".parse().expect("an address") };
        let mut headers = HeaderMap::new();
        headers.insert("x-key", key.parse().expect("a value"));
        let head = Head { method: &Method::GET, path: "/", host: "", headers: &headers };
        let asked = Asked { peer: &peer, request: Some(head) };
        self.limiter
            .place(&self.key, &[], asked, "td", &self.secret, (Instant::now(), Worker(0)))
            .expect("it is limited")
            .1
    }

    /// As a request does.
    async fn take(&self, key: &str, cost: u32) -> Taken {
        let lease = self.lease(key);
        match self.limiter.take(&lease, cost, Instant::now()) {
            Taken::Wait | Taken::Undecided => self.limiter.wait(&lease, cost).await,
            decided => decided,
        }
    }

    fn calls(&self, key: &str) -> Vec<i64> {
        let state = self.script.state.lock();
        state.calls.iter().filter(|(called, _)| called == key).map(|(_, hits)| *hits).collect()
    }

    fn metric(&self, name: &str) -> u64 {
        let mut text = Text::default();
        text.metrics(&self.metrics);
        let text = text.into_string();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)).sum()
    }
}

/// What is awaited comes; a machine that does much else may take its time.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not seen: {what}");
}

#[tokio::test]
async fn as_many_as_there_are_get_one_and_the_server_is_asked_seldom() {
    let world = World::new(1_000, true, |_| {}).await;
    let mut admitted = 0;
    for _ in 0..1_200 {
        match world.take("a", 1).await {
            Taken::Yes(_) => admitted += 1,
            Taken::No { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(admitted, 1_000);
    // Once the server was asked it is known when.
    let mut told = 0;
    for _ in 0..2_000 {
        let Taken::No { wait, .. } = world.take("a", 1).await else { panic!("there is nothing") };
        told = wait;
        if told > 1_000_000 * MS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(told > 1_000_000 * MS, "an hour, and not {told} ns");
    let calls = world.calls("a").len();
    assert!(calls < 500, "{calls} calls for 1,200 requests");
    assert_eq!(world.metric("outrigger_limit_asked_total"), calls as u64);
}

#[tokio::test]
async fn many_that_want_the_same_key_ask_for_it_once() {
    let world = World::new(1_000, true, |_| {}).await;
    // So that all wait before the server answers the first.
    let requests = futures_util::future::join_all((0..64).map(|_| world.take("slow", 1)));
    let answered = async {
        until("the question", || !world.calls("slow").is_empty()).await;
        world.hang.send_replace(false);
    };
    let (taken, ()) = tokio::join!(requests, answered);
    assert!(taken.iter().all(|taken| matches!(taken, Taken::Yes(_))), "{taken:?}");
    let calls = world.calls("slow");
    assert!(calls.len() <= 3, "{calls:?}");
    assert!(calls.iter().sum::<i64>() >= 64);
}

#[tokio::test]
async fn what_is_refused_is_halved() {
    let world = World::new(10, false, |_| {}).await;
    assert!(matches!(world.take("a", 7).await, Taken::Yes(_)));
    let all = futures_util::future::join_all((0..8).map(|_| world.take("a", 1))).await;
    assert_eq!(all.iter().filter(|taken| matches!(taken, Taken::Yes(_))).count(), 3);
    assert!(matches!(world.take("a", 1).await, Taken::No { .. }));
    assert!(
        world.calls("a").iter().all(|hits| *hits > 0),
        "nothing is given back to a server that is not ours"
    );
    let calls = world.calls("a").len();
    for _ in 0..20 {
        assert!(matches!(world.take("a", 1).await, Taken::No { .. }));
    }
    assert_eq!(world.calls("a").len(), calls, "until the reset nobody asks again");
}

#[tokio::test]
async fn another_server_is_asked_for_one_at_a_time_unless_the_policy_says_more() {
    for (batch, most) in [(None, 1), (Some(20), 20)] {
        let world = World::new(1_000, false, |shared| shared.batch = batch).await;
        for _ in 0..200 {
            assert!(matches!(world.take("a", 1).await, Taken::Yes(_)));
        }
        let largest = world.calls("a").into_iter().max().expect("it was asked");
        assert!(largest <= most, "{largest} at a time");
        assert!(batch.is_none() || largest > 1, "nothing was leased");
    }
}

#[tokio::test]
async fn unused_tokens_are_given_back_to_our_server() {
    let world = World::new(1_000, true, |_| {}).await;
    for _ in 0..100 {
        world.take("a", 1).await;
    }
    until("everything is given back", || world.script.state.lock().used["a"] == 100).await;
    assert!(matches!(world.take("a", 900).await, Taken::Yes(_)), "the rest is there");
}

#[tokio::test]
async fn a_key_that_is_answered_late_delays_no_other() {
    let world = World::new(1_000, true, |_| {}).await;
    let slow = world.take("slow", 1);
    let others = async {
        for n in 0..50 {
            assert!(matches!(world.take(&format!("key-{n}"), 1).await, Taken::Yes(_)));
        }
        world.hang.send_replace(false);
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert!(matches!(slow, Taken::Yes(_)), "{slow:?}");
}

#[tokio::test]
async fn who_is_strict_asks_every_time() {
    let world = World::new(10, true, |shared| shared.strict = true).await;
    let mut admitted = 0;
    for _ in 0..15 {
        admitted += usize::from(matches!(world.take("a", 1).await, Taken::Yes(_)));
    }
    assert_eq!((admitted, world.calls("a")), (10, vec![1; 15]));
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_once_and_found_again() {
    let world = World::new(1_000, true, |_| {}).await;
    world.script.fails.store(true, Ordering::Relaxed);
    for _ in 0..500 {
        assert!(matches!(world.take("a", 1).await, Taken::Undecided));
    }
    let calls = world.calls("a").len();
    assert!(calls < 50, "{calls} calls for 500 requests");
    world.script.fails.store(false, Ordering::Relaxed);
    let mut back = false;
    for _ in 0..2_000 {
        back = matches!(world.take("a", 1).await, Taken::Yes(_));
        if back {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(back, "it is asked again while somebody wants something");
}

#[tokio::test]
async fn the_wait_for_a_server_that_hangs_is_bounded() {
    let world = World::new(1_000, true, |shared| shared.timeout = Duration::from_millis(50)).await;
    let taken = tokio::time::timeout(Duration::from_secs(20), world.take("slow", 1)).await;
    assert!(matches!(taken, Ok(Taken::Undecided)), "{taken:?}");
}

#[tokio::test]
async fn nobody_listens_where_the_server_should_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("bound");
    drop(listener);
    let (hang, hangs) = watch::channel(false);
    let script = Script { state: Arc::default(), ours: true, limit: 1, hangs, fails: Arc::default() };
    for strict in [false, true] {
        let world = World::at(at, 1, script.clone(), hang.clone(), |shared| shared.strict = strict);
        for _ in 0..20 {
            assert!(matches!(world.take("a", 1).await, Taken::Undecided));
        }
    }
}

#[test]
fn long_values_and_those_that_are_no_text_are_told_as_a_hash() {
    let value = |bytes: &'static [u8]| texts(&Values::from_iter([Cow::Borrowed(bytes)]))[0].clone();
    assert_eq!(value(b"spiffe://td/ns/a/sa/b"), "spiffe://td/ns/a/sa/b");
    assert_eq!(value(b""), "");
    let (long, other) = (value(&[b'a'; 300]), value(&[b'a'; 301]));
    assert!(long.starts_with("sha256:") && long.len() == 71 && long != other, "{long}");
    assert_ne!(value(b"\xff"), value(b"\xfe"));
}
