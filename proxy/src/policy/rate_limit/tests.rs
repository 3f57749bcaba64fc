use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use outrigger_config::model::{
    KeyPart, LimitOverride, Limits as Model, Origin, PathTemplate, RateLimit, ServiceRef, SpiffeId,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::gcra::{Level, Pace, Short};
use super::keys::Keys;
use super::*;
use crate::failure::Asker;
use crate::telemetry::{Direction, ServiceMetrics, Telemetry, Text};

/// A bucket as one would draw it: credit in nanoseconds, earned with time up to the whole.
struct Drawn {
    credit: u128,
    at: u64,
}

impl Drawn {
    fn take(&mut self, now: u64, cost: u32, interval: u128, burst: u32) -> Result<u32, u128> {
        let whole = interval * u128::from(burst);
        self.credit = whole.min(self.credit + u128::from(now - self.at));
        self.at = now;
        let price = interval * u128::from(cost);
        if self.credit < price {
            return Err(price - self.credit);
        }
        self.credit -= price;
        Ok((self.credit / interval) as u32)
    }
}

#[test]
fn one_number_is_a_bucket() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tokens = rng.random_range(1..2_000_000);
        let per = rng.random_range(1..100);
        let burst = rng.random_range(1..50);
        let Some(rate) = Rate::new(tokens, Duration::from_secs(per), burst) else { continue };
        let (pace, bucket) = (Pace::new(rate), AtomicU64::new(0));
        let second = 1_000_000_000;
        let interval = (u128::from(per) * second + u128::from(tokens) / 2) / u128::from(tokens);
        let mut now = rng.random_range(0..1_000_000_000);
        let mut drawn = Drawn { credit: interval * u128::from(burst), at: now };
        for step in 0..200 {
            now += rng.random_range(0..=2 * interval as u64);
            let cost = rng.random_range(1..=burst);
            let want = drawn.take(now, cost, interval, burst);
            match (gcra::take(&bucket, now, cost, pace), want) {
                (Ok(Level { left, .. }), Ok(want)) => assert_eq!(left, want, "seed {seed}, step {step}"),
                (Err(Short { wait, .. }), Err(want)) => {
                    assert_eq!(u128::from(wait), want, "seed {seed}, step {step}");
                    // As promised, neither earlier nor later.
                    assert!(gcra::take(&bucket, now + wait - 1, cost, pace).is_err(), "seed {seed}");
                    if rng.random() {
                        now += wait;
                        gcra::take(&bucket, now, cost, pace).expect("waited for");
                        drawn.take(now, cost, interval, burst).expect("waited for");
                    }
                }
                (got, want) => panic!("seed {seed}, step {step}: {got:?}, drawn {want:?}"),
            }
            if rng.random_range(0..4) == 0 && gcra::take(&bucket, now, 1, pace).is_ok() {
                gcra::give_back(&bucket, 1, pace);
            }
        }
    }
}

#[test]
fn threads_that_take_from_one_bucket_get_what_is_in_it() {
    let pace = Pace::new(Rate::new(50, Duration::from_secs(1), 1_000).expect("a rate"));
    let bucket = AtomicU64::new(0);
    let taken: usize = std::thread::scope(|scope| {
        let take = || (0..1_000).filter(|_| gcra::take(&bucket, 7, 1, pace).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).sum()
    });
    assert_eq!(taken, 1_000);
}

/// The bounded map against one that forgets nothing: as long as there is room, and whenever a number is at rest, both say the same.
#[test]
fn keys_are_forgotten_at_rest_only_and_never_too_many() {
    for seed in 0..100 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let most = rng.random_range(1..600);
        let (keys, mut all) = (Keys::new(most), HashMap::new());
        let mut now = 0;
        for step in 0..2_000 {
            now += rng.random_range(0..3);
            let hash = rng.random_range(0..1_000_u64) << 24;
            let until = now + rng.random_range(1..200);
            let (before, shared) = keys.with(hash, now, |number| number.swap(until, Ordering::Relaxed));
            assert!(keys.len() <= most, "seed {seed}, step {step}");
            let known = all.get(&hash).copied().filter(|until| *until > now);
            if shared {
                assert!(known.is_none(), "seed {seed}, step {step}: a key that counts lost its place");
                let busy = all.values().filter(|until| **until > now).count();
                assert_eq!(busy, most, "seed {seed}, step {step}: there was a place");
            } else {
                assert_eq!(Some(before).filter(|before| *before > now), known, "seed {seed}, step {step}");
                all.insert(hash, until);
            }
        }
    }
}

struct World {
    telemetry: Arc<Telemetry>,
    limits: Arc<Limits>,
    service: Arc<ServiceMetrics>,
}

impl World {
    fn new(model: &Model) -> Self {
        let telemetry = Telemetry::new(2);
        let states = States::of(std::iter::once(model), &States::default(), &telemetry.metrics, &servers());
        let limits = Limits::new(model, &states, &"td".into()).expect("there are some");
        let service = telemetry.metrics.service(Direction::Inbound, Some(&ServiceRef::new("default", "s")));
        Self { telemetry, limits, service }
    }

    fn of(rates: Vec<RateLimit>) -> Self {
        Self::new(&Model { rates, concurrency: Vec::new(), ..Model::default() })
    }

    fn ask(&self, peer: &Peer, request: &Request<Body>) -> (Counted, Result<(), Failure>) {
        let mut record = Record::http(&self.telemetry, Worker(0), &self.service, request);
        record.complete();
        self.limits.request(Worker(0), peer, request, &mut record)
    }

    fn passes(&self, peer: &Peer, request: &Request<Body>) -> bool {
        self.ask(peer, request).1.is_ok()
    }

    fn metric(&self, line: &str) -> u64 {
        let mut text = Text::default();
        text.metrics(&self.telemetry.metrics);
        let text = text.into_string();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or(0)
    }
}

fn rate(name: &str, tokens: u32, burst: u32, key: Vec<KeyPart>) -> RateLimit {
    RateLimit {
        limit: limit(name, Rate::new(tokens, Duration::from_secs(1), burst).expect("a rate"), key),
        unit: LimitUnit::Requests,
        cost: Cost { fixed: 1, header: None, most: burst },
        headers: LimitHeaders::Always,
        shared: None,
    }
}

/// Of which none is asked.
fn servers() -> Servers {
    let runtime = tokio::runtime::Handle::current();
    Servers::new(crate::dns::Resolver::system(runtime), None)
}

fn limit<A>(name: &str, allowed: A, key: Vec<KeyPart>) -> Limit<A> {
    Limit {
        name: name.into(),
        mode: LimitMode::Enforce,
        matches: Vec::new(),
        key,
        allowed,
        overrides: Vec::new(),
        max_keys: 1_000,
        origin: Origin::new("TrafficPolicy", "default", "p", "spec.rateLimit.limits[0]"),
    }
}

fn peer(account: &str) -> Peer {
    let identity = SpiffeId::new("td", "ns", account).expect("an id");
    Peer { identity: Some(identity), address: "10.0.0.1:1234".parse().expect("an address") }
}

fn get() -> Request<Body> {
    Request::get("/").body(Body::empty()).expect("a request")
}

async fn pass_time(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_a_second_against_fifty() {
    let world = World::of(vec![rate("all", 50, 10, Vec::new())]);
    let mut admitted = 0;
    for _ in 0..3_000 {
        admitted += u32::from(world.passes(&peer("a"), &get()));
        pass_time(10).await;
    }
    let theory = 10 + 50 * 30;
    assert!(admitted.abs_diff(theory) * 50 <= theory, "{admitted} of {theory}");
    let line = "outrigger_limited_total{mode=\"enforce\",policy=\"default/p\",limit=\"all\"}";
    assert_eq!(world.metric(line), u64::from(3_000 - admitted));
}

#[tokio::test(start_paused = true)]
async fn a_noisy_caller_uses_up_its_own_share_alone() {
    let world = World::of(vec![rate("each", 10, 10, vec![KeyPart::Identity])]);
    let mut quiet = 0;
    for step in 0..1_000 {
        world.passes(&peer("noisy"), &get());
        if step % 20 == 0 {
            quiet += u32::from(world.passes(&peer("quiet"), &get()));
        }
        pass_time(5).await;
    }
    assert_eq!(quiet, 50, "ten a second are what it may have");
    let nobody = Peer { identity: None, address: "10.0.0.9:1".parse().expect("an address") };
    let other = Peer { address: "10.0.0.8:1".parse().expect("an address"), ..nobody.clone() };
    assert_eq!((0..30).filter(|_| world.passes(&nobody, &get())).count(), 10);
    assert!(!world.passes(&other, &get()), "who proves nothing is counted with all who prove nothing");
}

#[tokio::test(start_paused = true)]
async fn what_one_limit_refuses_no_other_has_counted() {
    let world = World::of(vec![
        rate("all", 1, 100, Vec::new()),
        rate("each", 1, 5, vec![KeyPart::Identity]),
        rate("last", 1, 1_000, Vec::new()),
    ]);
    assert_eq!((0..500).filter(|_| world.passes(&peer("noisy"), &get())).count(), 5);
    let others = (0..30).map(|n| peer(&format!("caller-{n}")));
    let passed: usize = others.map(|peer| (0..5).filter(|_| world.passes(&peer, &get())).count()).sum();
    assert_eq!(passed, 95, "what is left for all of them");
}

#[tokio::test(start_paused = true)]
async fn a_million_keys_gain_their_caller_nothing_and_take_no_memory() {
    let mut many = rate("each", 1, 5, vec![KeyPart::Header("x-key".parse().expect("a name"))]);
    many.limit.max_keys = 1_000;
    let world = World::of(vec![many]);
    let ask = |key: &str| {
        let request = Request::get("/").header("x-key", key).body(Body::empty()).expect("a request");
        world.passes(&peer("a"), &request)
    };
    assert_eq!((0..10).filter(|_| ask("mine")).count(), 5);
    // A million times without all that surrounds a limit.
    let RateRule { rule: Rule { limit, state }, .. } = &world.limits.rates[0];
    let (now, pace) = (Instant::now(), state.pace(None).expect("it has one"));
    let (peer, mut headers) = (peer("a"), HeaderMap::new());
    let mut take = |key: u32| {
        headers.insert("x-key", key.into());
        let head = Head { method: &http::Method::GET, path: "/", host: "", headers: &headers };
        let place = state.place::<Rate>(&limit.key, &[], Asked { peer: &peer, request: Some(head) }, "td");
        state.take(place, now, 1, pace, Worker(0)).0.is_ok()
    };
    let admitted = (0..1_000_000).filter(|n| take(*n)).count();
    assert_eq!(admitted, 999 + 5, "one for each place that was left, and one bucket for all others");
    assert!(!ask("mine"), "it is not forgotten");
    assert_eq!(world.limits.rates[0].rule.state.remembered(), 1_000);
    let line = "outrigger_limit_overflow_total{policy=\"default/p\",limit=\"each\"}";
    assert_eq!(world.metric(line), 1_000_000 - 999);
    pass_time(1_001).await;
    assert!(ask("mine"), "and has what came back");
    assert_eq!((0..2_000).filter(|n| ask(&format!("new-{n}"))).count(), 999 + 1);
}

#[tokio::test(start_paused = true)]
async fn certain_keys_have_a_rate_of_their_own() {
    let mut each = rate("each", 1, 2, vec![KeyPart::Identity, KeyPart::Method]);
    let given = |account: &str, method: Option<&str>, allowed| LimitOverride {
        key: vec![Some(peer(account).identity.expect("it has one").as_str().into()), method.map(Into::into)],
        allowed,
    };
    let seven = Rate::new(7, Duration::from_secs(60), 7);
    each.limit.overrides =
        vec![given("good", None, seven), given("free", Some("GET"), None), given("free", None, seven)];
    let world = World::of(vec![each]);
    let count = |account: &str, method: &str| {
        let request = Request::builder().method(method).uri("/").body(Body::empty()).expect("a request");
        (0..20).filter(|_| world.passes(&peer(account), &request)).count()
    };
    for (account, method, want) in
        [("any", "GET", 2), ("good", "GET", 7), ("good", "POST", 7), ("free", "GET", 20), ("free", "PUT", 7)]
    {
        assert_eq!(count(account, method), want, "{account} {method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_costs_what_its_header_says_within_bounds() {
    for (said, want) in
        [("", 10), ("4", 5), ("0", 20), ("7", 2), ("999999999999999999", 2), ("-1", 10), ("x", 10)]
    {
        let mut costly = rate("all", 1, 20, Vec::new());
        costly.cost = Cost { fixed: 2, header: Some("x-cost".parse().expect("a name")), most: 8 };
        let world = World::of(vec![costly]);
        let request = Request::get("/").header("x-cost", said).body(Body::empty()).expect("a request");
        assert_eq!((0..30).filter(|_| world.passes(&peer("a"), &request)).count(), want, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn observing_counts_and_lets_go_on() {
    let mut watched = rate("all", 1, 3, Vec::new());
    watched.limit.mode = LimitMode::Observe;
    let mut cap = limit("cap", 1, Vec::new());
    cap.mode = LimitMode::Observe;
    let world = World::new(&Model { rates: vec![watched], concurrency: vec![cap], ..Model::default() });
    let open: Vec<_> = (0..10).map(|_| world.ask(&peer("a"), &get())).collect();
    assert!(open.iter().all(|(_, passed)| passed.is_ok()));
    let of = |limit| {
        world.metric(&format!(
            "outrigger_limited_total{{mode=\"observe\",policy=\"default/p\",limit=\"{limit}\"}}"
        ))
    };
    assert_eq!((of("all"), of("cap")), (7, 9));
    let mut response = Response::new(());
    open[0].0.tell(&mut response);
    assert!(response.headers().is_empty(), "callers learn nothing of it");
}

#[tokio::test(start_paused = true)]
async fn as_many_at_the_same_time_as_may_be() {
    let each = limit("each", 2, vec![KeyPart::Identity]);
    let bucket = rate("all", 1, 1_000, Vec::new());
    let world = World::new(&Model {
        rates: vec![bucket],
        concurrency: vec![limit("all", 3, Vec::new()), each],
        ..Model::default()
    });
    let a = [world.ask(&peer("a"), &get()), world.ask(&peer("a"), &get())];
    assert!(a.iter().all(|(_, passed)| passed.is_ok()));
    let third = world.ask(&peer("a"), &get());
    let refused = third.1.as_ref().expect_err("it has two");
    assert_eq!(refused.reason, Reason::ConcurrencyLimited);
    assert!(refused.detail.as_deref().is_some_and(|detail| detail.contains("limit each of ")), "{refused}");
    let b = world.ask(&peer("b"), &get());
    assert!(b.1.is_ok(), "what was refused left the number of all as it was, even while it is told so");
    assert!(world.ask(&peer("c"), &get()).1.is_err(), "three are all there may be");
    drop((a, third));
    assert!(world.passes(&peer("a"), &get()));
    drop(b);
    for _ in 0..100 {
        assert!(world.passes(&peer("c"), &get()), "nothing is left behind");
    }
    assert_eq!(world.limits.caps[1].rule.state.remembered(), 3);
    let mut response = Response::new(());
    world.ask(&peer("a"), &get()).0.tell(&mut response);
    assert_eq!(
        response.headers()["ratelimit"],
        "\"all\";r=895;t=105",
        "the rate counted those that went on: 105"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_goes_on_to_count_across_changes() {
    let metrics = Telemetry::new(1).metrics.clone();
    let model = |tokens, mode| {
        let mut rate = rate("all", tokens, 10, Vec::new());
        rate.limit.mode = mode;
        Model { rates: vec![rate], concurrency: Vec::new(), ..Model::default() }
    };
    let (first, same) = (model(1, LimitMode::Enforce), model(1, LimitMode::Observe));
    let other = model(2, LimitMode::Enforce);
    let states = States::of([&first, &first].into_iter(), &States::default(), &metrics, &servers());
    let state = |model: &Model, states: &States| {
        Limits::new(model, states, &"td".into()).expect("there are some").rates[0].rule.state.clone()
    };
    assert_eq!(states.0.len(), 1, "two ports of one limit are counted together");
    let kept = States::of(std::iter::once(&same), &states, &metrics, &servers());
    assert!(Arc::ptr_eq(&state(&first, &states), &state(&same, &kept)));
    let new = States::of(std::iter::once(&other), &kept, &metrics, &servers());
    assert!(!Arc::ptr_eq(&state(&same, &kept), &state(&other, &new)));
}

#[test]
fn what_requests_are_counted_by() {
    let path = |texts: &[&str]| {
        KeyPart::Path(texts.iter().map(|text| PathTemplate::new(text).expect("a template")).collect())
    };
    let address = |trusted_hops| KeyPart::Address { trusted_hops };
    let head = |forwarded: &str, grpc: bool| {
        let mut request = Request::post("/users/7/%70osts").header("x-forwarded-for", forwarded);
        request = request.header("x-two", "a").header("x-two", "b");
        if grpc {
            request = request.header("content-type", "application/grpc");
        }
        request.body(Body::empty()).expect("a request")
    };
    let v6 = Peer { identity: None, address: "[2001:db8:1:2:3:4:5:6]:9".parse().expect("an address") };
    let elsewhere = SpiffeId::new("other", "ns", "a").expect("an id");
    let stranger = Peer { identity: Some(elsewhere), ..peer("a") };
    for (part, peer, forwarded, grpc, want) in [
        (KeyPart::Identity, &peer("a"), "", false, "spiffe://td/ns/ns/sa/a"),
        (KeyPart::Identity, &v6, "", false, ""),
        (KeyPart::Namespace, &peer("a"), "", false, "ns"),
        (KeyPart::Namespace, &stranger, "", false, "other/ns"),
        (address(0), &peer("a"), "1.1.1.1", false, "10.0.0.1"),
        (address(0), &v6, "", false, "2001:db8:1:2::/64"),
        (address(1), &peer("a"), "9.9.9.9, 1.1.1.1", false, "1.1.1.1"),
        (address(2), &peer("a"), "9.9.9.9,1.1.1.1", false, "9.9.9.9"),
        (address(3), &peer("a"), "9.9.9.9, 1.1.1.1", false, "10.0.0.1"),
        (address(1), &peer("a"), "9.9.9.9, unknown", false, "10.0.0.1"),
        (address(1), &peer("a"), "1.1.1.1:80", false, "1.1.1.1"),
        (address(1), &peer("a"), "[2001:db8::1]:80", false, "2001:db8::/64"),
        (address(1), &peer("a"), "::ffff:1.2.3.4", false, "1.2.3.4"),
        (KeyPart::Header("x-none".parse().expect("a name")), &peer("a"), "", false, ""),
        (KeyPart::Header("x-two".parse().expect("a name")), &peer("a"), "", false, "a,b"),
        (path(&["/items/{**}", "/users/{id}/posts", "/{**}"]), &peer("a"), "", false, "/users/{id}/posts"),
        (path(&["/items/{**}"]), &peer("a"), "", false, ""),
        (KeyPart::Method, &peer("a"), "", false, "POST"),
        (KeyPart::GrpcMethod, &peer("a"), "", true, "/users/7/%70osts"),
        (KeyPart::GrpcMethod, &peer("a"), "", false, ""),
    ] {
        let request = head(forwarded, grpc);
        let head = Head {
            method: request.method(),
            path: request.uri().path(),
            host: "h",
            headers: request.headers(),
        };
        let parts = [part];
        let values = key::values(&parts, Asked { peer, request: Some(head) }, "td");
        assert_eq!(String::from_utf8_lossy(&values[0]), want, "{parts:?} {forwarded}");
    }
}

#[test]
fn values_of_a_key_do_not_run_together() {
    let secret = std::hash::RandomState::new();
    let hash = |parts: &[&str]| {
        let values = parts.iter().map(|part| part.as_bytes().into()).collect();
        key::hash(&values, &secret)
    };
    assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
    assert_ne!(hash(&["ab", ""]), hash(&["a", "b"]));
    assert_ne!(hash(&["", "ab"]), hash(&["ab", ""]));
}

/// Read by a parser of structured fields that is none of ours.
#[tokio::test(start_paused = true)]
async fn responses_say_what_is_left_and_when_to_come_back() {
    use sfv::{BareItem, ListEntry, Parser};
    let list = |response: &Response<()>, name: &str| -> Vec<(String, Vec<(String, i64)>)> {
        let lines: Vec<_> = response.headers().get_all(name).iter().map(|line| line.as_bytes()).collect();
        let list: sfv::List =
            Parser::new(&lines.join(&b", "[..])).parse().expect("a list of structured fields");
        let item = |entry: &ListEntry| {
            let ListEntry::Item(item) = entry else { panic!("{entry:?}") };
            let BareItem::String(name) = &item.bare_item else { panic!("{item:?}") };
            let number = |value: &BareItem| i64::from(value.as_integer().expect("a number"));
            let params = item.params.iter().map(|(key, value)| (key.to_string(), number(value)));
            (name.to_string(), params.collect())
        };
        list.iter().map(item).collect()
    };
    let params = |pairs: &[(&str, i64)]| -> Vec<(String, i64)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
    };

    let mut each = rate("per caller \"\\", 2, 3, vec![KeyPart::Identity]);
    each.limit.overrides = vec![LimitOverride {
        key: vec![peer("good").identity.map(|id| id.as_str().into())],
        allowed: Rate::new(600, Duration::from_secs(60), 600),
    }];
    let mut secret = rate("secret", 1_000, 1_000, Vec::new());
    secret.headers = LimitHeaders::Never;
    let mut late = rate("late", 100, 100, Vec::new());
    late.headers = LimitHeaders::Refused;
    let world = World::of(vec![each, secret, late]);

    let told = |account: &str, grpc: bool| {
        let (counted, passed) = world.ask(&peer(account), &get());
        let mut response = match &passed {
            Ok(()) => Response::new(()),
            Err(failure) => {
                let mut headers = HeaderMap::new();
                if grpc {
                    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
                }
                failure.response(Asker::new(&http::Method::POST, &headers, true)).map(drop)
            }
        };
        counted.tell(&mut response);
        response
    };
    let name = "per caller \"\\".to_owned();
    let first = told("a", false);
    assert_eq!(list(&first, "ratelimit-policy"), [(name.clone(), params(&[("q", 2), ("w", 1)]))]);
    assert_eq!(list(&first, "ratelimit"), [(name.clone(), params(&[("r", 2), ("t", 1)]))]);
    assert!(!first.headers().contains_key("retry-after"));
    told("a", false);
    told("a", false);

    let refused = told("a", false);
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1", "half a second, in whole ones");
    assert_eq!(list(&refused, "ratelimit"), [(name.clone(), params(&[("r", 0), ("t", 2)]))]);
    let grpc = told("a", true);
    assert_eq!(
        (grpc.status(), &grpc.headers()["grpc-status"]),
        (StatusCode::OK, &http::HeaderValue::from(8))
    );
    assert_eq!(grpc.headers()["grpc-retry-pushback-ms"], "500");
    assert!(!grpc.headers().contains_key("retry-after"));

    let good = told("good", false);
    assert_eq!(list(&good, "ratelimit-policy"), [(name.clone(), params(&[("q", 600), ("w", 60)]))]);
    assert_eq!(list(&good, "ratelimit"), [(name.clone(), params(&[("r", 599), ("t", 1)]))]);
    for _ in 0..96 {
        told("good", false);
    }
    let late = told("good", false);
    assert_eq!(late.status(), StatusCode::TOO_MANY_REQUESTS);
    let both = [(name, params(&[("r", 503), ("t", 10)])), ("late".to_owned(), params(&[("r", 0), ("t", 1)]))];
    assert_eq!(list(&late, "ratelimit"), both, "what is put back was never taken");
}
