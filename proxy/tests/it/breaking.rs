//! Circuit breakers: endpoints that fail in every way and come back, and caps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use outrigger_config::model::{
    Adaptive, Algorithm, Balance, BreakerMode, Caps, CircuitBreaker, Ejection, Fraction, ProxySettings,
    Resource, Retry, RetryOn, RouteCaps, SlowCalls, Timeouts,
};
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::admin::json;
use super::harness::*;

/// A sidecar whose calls to `service` are under `breaker`.
fn caller_under(service: &Service, breaker: CircuitBreaker, workers: usize) -> Running {
    let mut resources = vec![inbound(&[], ProxySettings::default())];
    resources.extend(service.resources().into_iter().map(|resource| match resource {
        Resource::Cluster(mut cluster) => {
            cluster.circuit_breaker = Arc::new(breaker.clone());
            // Each endpoint gets its part whatever it is like: the default leaves those alone that were slow once.
            cluster.balance = Arc::new(Balance { algorithm: Algorithm::RoundRobin, ..Balance::default() });
            Resource::Cluster(cluster)
        }
        other => other,
    }));
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(workers);
    setup.outbound = vec![(LOOPBACK, 0).into()];
    app::start(setup, |_| Ok((Source::fixed(resources), None))).expect("it starts")
}

fn capped(caps: Caps) -> CircuitBreaker {
    CircuitBreaker { caps, ..CircuitBreaker::default() }
}

/// The sum of the series of a family that have all these labels.
async fn metric(proxy: &Running, name: &str, labels: &[&str]) -> u64 {
    let page =
        exchange_bytes(proxy.metrics, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let of_family =
        page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    let fitting = of_family.filter(|line| labels.iter().all(|label| line.contains(label)));
    fitting.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// `ejection` of the endpoint at `at`, as `/clusters` has it.
async fn ejection(proxy: &Running, at: SocketAddr) -> Value {
    let clusters = json(proxy.admin, "/clusters").await;
    // Before the first request nothing is known of the cluster.
    let endpoints = clusters["clusters"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let endpoint = endpoints.into_iter().find(|one| one["address"] == at.to_string());
    endpoint.map_or(Value::Null, |endpoint| endpoint["ejection"].clone())
}

async fn until(what: &str, proxy: &Running, at: SocketAddr, fits: impl Fn(&Value) -> bool) -> Value {
    within(what, async {
        loop {
            let now = ejection(proxy, at).await;
            if fits(&now) {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// How an app of bytes behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum Mode {
    Well,
    /// As a process under SIGSTOP: the kernel goes on accepting for it.
    Stopped,
    Resets,
    Unavailable,
    Slow,
}

impl Mode {
    const ALL: [Self; 5] = [Self::Well, Self::Stopped, Self::Resets, Self::Unavailable, Self::Slow];
}

const SLOW: Duration = Duration::from_secs(2);

/// An app whose behaviour can be changed, and how many requests it got.
async fn moody() -> (SocketAddr, Arc<AtomicU8>, Arc<AtomicUsize>) {
    let mode = Arc::new(AtomicU8::new(Mode::Well as u8));
    let served = Arc::new(AtomicUsize::new(0));
    let (now, count) = (mode.clone(), served.clone());
    let at = bytes_app(move |mut stream| {
        let (now, count) = (now.clone(), count.clone());
        async move {
            let mut read = Vec::new();
            loop {
                let mut some = [0; 1024];
                match stream.read(&mut some).await {
                    Ok(n @ 1..) => read.extend_from_slice(&some[..n]),
                    _ => return,
                }
                let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                read.drain(..end + 4);
                count.fetch_add(1, Ordering::Relaxed);
                let status = match Mode::ALL[now.load(Ordering::Relaxed) as usize] {
                    Mode::Well => "200 OK",
                    Mode::Stopped => std::future::pending().await,
                    Mode::Resets => return stream.set_zero_linger().expect("it is open"),
                    Mode::Unavailable => "503 Service Unavailable",
                    Mode::Slow => {
                        tokio::time::sleep(SLOW).await;
                        "200 OK"
                    }
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (at, mode, served)
}

/// The rules of design.md section 5 with short times, and retries as a policy would ask for them.
fn with_rules(endpoints: &[SocketAddr]) -> (Service, CircuitBreaker) {
    let service = Service::new("three:80", endpoints);
    let mut rule = route("/", &service.cluster());
    rule.timeouts = Timeouts { backend_request: Some(Duration::from_secs(3)), ..Timeouts::default() };
    rule.retry = Some(Arc::new(Retry { on: vec![RetryOn::ServerError], ..Retry::default() }));
    let ejection = Ejection {
        base: Duration::from_millis(400),
        max: Duration::from_millis(800),
        ramp: Duration::from_millis(600),
        // It looks at ten seconds, in which there may be few calls on a busy machine: then it is first now and then.
        success_rate: None,
        slow_calls: Some(SlowCalls {
            longer_than: SLOW / 2,
            share: Fraction::new(1, 2).expect("a half"),
            interval: Duration::from_secs(10),
            min_requests: 5,
        }),
        ..Ejection::default()
    };
    (service.routes(vec![rule]), CircuitBreaker { ejection: Some(ejection), ..CircuitBreaker::default() })
}

/// Requests without a pause over several connections, until it is dropped.
struct Load {
    sent: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Load {
    fn begin(at: SocketAddr, connections: usize) -> Self {
        let load = Self { sent: Default::default(), failed: Default::default(), ended: Default::default() };
        for _ in 0..connections {
            let (sent, failed, ended) = (load.sent.clone(), load.failed.clone(), load.ended.clone());
            tokio::spawn(async move {
                let mut client = Http1::connect(at).await;
                while !ended.load(Ordering::Relaxed) {
                    let answer = client.get("http://three/", "three").await;
                    failed.fetch_add(usize::from(answer.status != 200), Ordering::Relaxed);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Of the next requests, how many fail.
    async fn of_the_next(&self, count: usize) -> usize {
        let (sent, failed) = (self.sent.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        within("the requests are answered", async {
            while self.sent.load(Ordering::Relaxed) < sent + count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.failed.load(Ordering::Relaxed) - failed
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// One of three endpoints fails in each way; it is out, the others carry on, and it returns when it is well.
async fn one_of_three(workers: usize) {
    let (well, _, _) = moody().await;
    let (other, _, _) = moody().await;
    let (moody, mode, served) = moody().await;
    let (service, breaker) = with_rules(&[well, moody, other]);
    let proxy = caller_under(&service, breaker, workers);
    let load = Load::begin(proxy.outbound[0], 16);
    assert_eq!(load.of_the_next(100).await, 0);
    for (bad, reason) in [
        (Mode::Stopped, "consecutive_errors"),
        (Mode::Resets, "consecutive_errors"),
        (Mode::Unavailable, "consecutive_errors"),
        (Mode::Slow, "slow_calls"),
    ] {
        mode.store(bad as u8, Ordering::Relaxed);
        let out = until("it is ejected", &proxy, moody, |now| now["state"] == "ejected").await;
        assert_eq!(out["reason"], reason, "{bad:?}: {out}");
        assert!(out["next_probe_ms"].as_u64().is_some_and(|wait| wait <= 800), "{out}");
        assert!(
            metric(&proxy, "outrigger_ejections_total", &["service=\"three.default\"", reason]).await >= 1
        );
        let failed = load.of_the_next(1_000).await;
        assert!(failed <= 1, "{bad:?}: {failed} of 1000 failed after the ejection");
        // What was asked of it meanwhile are probes.
        let states = ["ejected", "probing"];
        let now = ejection(&proxy, moody).await;
        assert!(states.iter().any(|state| now["state"] == *state), "{bad:?}: {now}");

        mode.store(Mode::Well as u8, Ordering::Relaxed);
        let back = until("it is back", &proxy, moody, |now| now["state"] == "ramping" || now.is_null()).await;
        assert!(back.is_null() || back["reason"].is_null(), "{back}");
        until("it has its whole share", &proxy, moody, Value::is_null).await;
        let before = served.load(Ordering::Relaxed);
        assert_eq!(load.of_the_next(200).await, 0, "after {bad:?}");
        assert!(served.load(Ordering::Relaxed) > before, "it gets requests again after {bad:?}");
    }
    assert!(metric(&proxy, "outrigger_probes_total", &["result=\"success\""]).await >= 4);
    assert_eq!(metric(&proxy, "outrigger_endpoints", &["state=\"healthy\""]).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_endpoint_of_three_is_left_alone_until_it_is_well() {
    one_of_three(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_what_they_know_of_a_bad_endpoint() {
    one_of_three(2).await;
}

/// Connections that end before they took anything are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_resets_whoever_connects_is_soon_out() {
    let met = Arc::new(AtomicUsize::new(0));
    let count = met.clone();
    let bad = bytes_app(move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { stream.set_zero_linger().expect("it is open") }
    })
    .await;
    let (well, _, _) = moody().await;
    let (service, mut breaker) = with_rules(&[well, bad]);
    breaker.ejection = Some(Ejection::default());
    let proxy = caller_under(&service, breaker, 1);
    let mut client = Http1::connect(proxy.outbound[0]).await;
    for _ in 0..40 {
        assert_eq!(client.get("http://three/", "three").await.status, 200);
    }
    // Whether a reset comes before or behind the first bytes of a request the kernel decides.
    let out = ejection(&proxy, bad).await;
    assert!(["connect_failures", "consecutive_errors"].iter().any(|why| out["reason"] == *why), "{out}");
    assert!((3..=5).contains(&met.load(Ordering::SeqCst)), "{met:?} requests until it was out");
}

/// Twenty idle connections to an endpoint, each of which ends under its next request: a reset each is a failing endpoint, an orderly end each one
/// that keeps none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_are_reset_count_and_those_that_are_closed_do_not() {
    for resets in [true, false] {
        let (open, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, counted) = (open.clone(), ended.clone());
        let bad = bytes_app(move |mut stream| {
            let (opened, counted) = (opened.clone(), counted.clone());
            async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                opened.fetch_add(1, Ordering::SeqCst);
                while opened.load(Ordering::SeqCst) < 20 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                if stream.read(&mut head).await.is_ok_and(|n| n > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    if resets {
                        stream.set_zero_linger().expect("it is open");
                    }
                }
            }
        })
        .await;
        let (well, _, _) = moody().await;
        let service = Service::new("three:80", &[well, bad]);
        let proxy = caller_under(&service, CircuitBreaker::default(), 1);
        let at = proxy.outbound[0];
        let clients: Vec<_> = (0..40)
            .map(|_| {
                tokio::spawn(
                    async move { Http1::connect(at).await.get("http://three/", "three").await.status },
                )
            })
            .collect();
        for client in clients {
            assert_eq!(within("it is answered", client).await.expect("no panic"), 200);
        }
        // Longer than a connection has to be idle to be suspected.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut client = Http1::connect(at).await;
        // Fewer than there are connections: a new one would end when it was idle for a moment only, which is a failure.
        for _ in 0..15 {
            let answer = client.get("http://three/", "three").await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let (met, out) = (ended.load(Ordering::SeqCst), ejection(&proxy, bad).await);
        if resets {
            assert_eq!((met, &out["reason"]), (5, &Value::from("consecutive_errors")), "{out}");
        } else {
            assert!(met > 5 && out.is_null(), "{met} requests met an end, {out}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_three_are_bad_two_of_them_stay() {
    let apps = [moody().await, moody().await, moody().await];
    let (service, breaker) = with_rules(&apps.each_ref().map(|(at, _, _)| *at));
    let proxy = caller_under(&service, breaker, 2);
    for bad in [Mode::Resets, Mode::Unavailable] {
        apps.iter().for_each(|(_, mode, _)| mode.store(bad as u8, Ordering::Relaxed));
        let load = Load::begin(proxy.outbound[0], 4);
        for _ in 0..20 {
            load.of_the_next(10).await;
            let clusters = json(proxy.admin, "/clusters").await;
            let endpoints = clusters["clusters"][0]["endpoints"].as_array().expect("a list");
            let out = endpoints.iter().filter(|one| one["ejection"]["state"] == "ejected").count();
            assert!(out <= 1, "{clusters}");
        }
    }
    // Each request met an app: nothing was answered for want of an endpoint.
    assert_eq!(metric(&proxy, "outrigger_requests_total", &["reason=\"no_endpoint\""]).await, 0);
    assert!(metric(&proxy, "outrigger_ejections_total", &["mode=\"spared\""]).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observing_counts_what_it_would_have_ejected() {
    let (well, _, _) = moody().await;
    let (bad, mode, served) = moody().await;
    mode.store(Mode::Unavailable as u8, Ordering::Relaxed);
    let (service, mut breaker) = with_rules(&[well, bad]);
    breaker.ejection.as_mut().expect("it has rules").mode = BreakerMode::Observe;
    let proxy = caller_under(&service, breaker, 1);
    let load = Load::begin(proxy.outbound[0], 2);
    until("it would be ejected", &proxy, bad, |now| now["mode"] == "observe").await;
    let before = served.load(Ordering::Relaxed);
    within("it gets requests all the same", async {
        while served.load(Ordering::Relaxed) < before + 20 {
            load.of_the_next(10).await;
        }
    })
    .await;
    assert!(metric(&proxy, "outrigger_ejections_total", &["mode=\"observe\""]).await > 0);
    assert_eq!(metric(&proxy, "outrigger_endpoints", &["state=\"healthy\""]).await, 2);
}

/// An app that takes its time, and the most connections it ever had at once.
async fn counted(pause: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let at = bytes_app(move |mut stream| {
        let (open, most) = (open.clone(), most.clone());
        async move {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let mut request = [0; 4096];
            while stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                tokio::time::sleep(pause).await;
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                    break;
                }
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (at, peak)
}

/// As `fortio load -c CONNECTIONS -n REQUESTS`: how many were refused.
async fn fortio(proxy: &Running, connections: usize, each: usize) -> usize {
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let at = proxy.outbound[0];
            tokio::spawn(async move {
                let mut client = Http1::connect(at).await;
                let mut refused = 0;
                for _ in 0..each {
                    let answer = client.get("http://httpbin/", "httpbin").await;
                    match answer.status {
                        200 => {}
                        503 => {
                            assert_eq!(answer.reason(), "overloaded");
                            refused += 1;
                            // Else a machine that stands still for a moment would see all that is left refused in it.
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                        other => panic!("{other}"),
                    }
                }
                refused
            })
        })
        .collect();
    let mut refused = 0;
    for client in clients {
        refused += client.await.expect("it ends");
    }
    refused
}

/// The circuit-breaking task of the field: one connection, one pending request, one request a connection; two connections see few refusals,
/// three see a third to two thirds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_and_one_pending_request_shed_what_comes_on_top() {
    for workers in [1, 2] {
        let (at, peak) = counted(Duration::from_millis(10)).await;
        let caps = Caps {
            connections: Some(1),
            pending: Some(1),
            requests_per_connection: Some(1),
            ..Caps::default()
        };
        let proxy = caller_under(&Service::new("httpbin:80", &[at]), capped(caps), workers);
        let few = fortio(&proxy, 2, 20).await;
        let many = fortio(&proxy, 3, 20).await;
        let shares = format!("{few} of 40 with two, {many} of 60 with three connections, {workers} workers");
        // On a busy machine a client's next request may come before the one that waits has been given its place.
        assert!(few <= 30 && (18..=57).contains(&many), "{shares}");
        let overflow =
            metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"pending\"", "mode=\"enforce\""]);
        assert_eq!(overflow.await, (few + many) as u64);
        assert_eq!(metric(&proxy, "outrigger_cap_limit", &["cap=\"pending\""]).await, 1);
        // The app may see the next one a moment before the end of the last.
        assert!(peak.load(Ordering::SeqCst) <= 2, "one connection at a time");
    }
}

/// Whoever waits gets the connection in turn, whichever worker has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capped_connection_goes_round_among_endpoints_and_workers() {
    for workers in [1, 2] {
        let (one, peak) = counted(Duration::ZERO).await;
        let (other, _) = counted(Duration::ZERO).await;
        let caps = Caps { connections: Some(1), pending: Some(100), ..Caps::default() };
        let proxy = caller_under(&Service::new("httpbin:80", &[one, other]), capped(caps), workers);
        assert_eq!(fortio(&proxy, 6, 50).await, 0, "{workers} workers");
        assert!(peak.load(Ordering::SeqCst) <= 2);
        assert_eq!(metric(&proxy, "outrigger_cap_in_use", &["cap=\"pending\""]).await, 0);
        assert!(metric(&proxy, "outrigger_cap_in_use", &["cap=\"connections\""]).await <= 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_http2_is_capped_too_and_ends_after_its_requests() {
    let at = app(|_| async { Response::new(text("ok")) }).await;
    let caps = Caps {
        connections: Some(1),
        pending: Some(100),
        requests_per_connection: Some(3),
        ..Caps::default()
    };
    let proxy = caller_under(&Service::new("httpbin:80", &[at]), capped(caps), 1);
    let mut client = Http2::connect(proxy.outbound[0]).await;
    for _ in 0..10 {
        assert_eq!(client.get("http://httpbin/").await.status, 200);
    }
}

/// An app that answers when it is told to.
async fn held() -> (SocketAddr, Arc<tokio::sync::Semaphore>) {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let doors = gate.clone();
    let at = app(move |_| {
        let doors = doors.clone();
        async move {
            doors.acquire().await.expect("it is open").forget();
            Response::new(text("ok"))
        }
    })
    .await;
    (at, gate)
}

async fn in_use(proxy: &Running, cap: &str, want: u64) {
    let label = format!("cap=\"{cap}\"");
    within("the cap is in use", async {
        while metric(proxy, "outrigger_cap_in_use", &[&label]).await != want {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_the_cap_are_refused_with_its_name_and_grpc_hears_unavailable() {
    let (at, gate) = held().await;
    let caps = Caps { requests: Some(1), ..Caps::default() };
    let proxy = caller_under(&Service::new("held:80", &[at]), capped(caps), 1);
    let outbound = proxy.outbound[0];
    let first = tokio::spawn(async move { Http1::connect(outbound).await.get("http://held/", "held").await });
    in_use(&proxy, "requests", 1).await;

    let answer = Http1::connect(outbound).await.get("http://held/", "held").await;
    assert_eq!((answer.status, answer.reason()), (503, "overloaded"));
    assert!(answer.body.contains("maxRequests is 1"), "{}", answer.body);
    let call = Request::post("http://held/svc/Method").header("content-type", "application/grpc");
    let call = call.body(http_body_util::Empty::new().boxed()).expect("valid");
    let answer = Answer::read(Http2::connect(outbound).await.send(call).await).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "14"));

    gate.add_permits(1);
    assert_eq!(first.await.expect("it ends").status, 200);
    in_use(&proxy, "requests", 0).await;
    gate.add_permits(1);
    assert_eq!(Http1::connect(outbound).await.get("http://held/", "held").await.status, 200);
    assert_eq!(metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"requests\""]).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_has_caps_of_its_own() {
    let (at, gate) = held().await;
    let service = Service::new("held:80", &[at]);
    let mut narrow = route("/narrow", &service.cluster());
    let caps = RouteCaps {
        mode: BreakerMode::Enforce,
        pending: None,
        requests: Some(1),
        retries: None,
        origin: None,
    };
    narrow.caps = Some(Arc::new(caps));
    let service = service.clone().routes(vec![narrow, route("/", &service.cluster())]);
    let proxy = caller_under(&service, CircuitBreaker::default(), 1);
    let outbound = proxy.outbound[0];
    let ask = |path: &'static str| async move {
        Http1::connect(outbound).await.get(&format!("http://held{path}"), "held").await
    };
    let first = tokio::spawn(ask("/narrow"));
    within("the second is refused", async {
        loop {
            // Until the first one is under way, the second may be it; then it waits.
            let asked = tokio::time::timeout(Duration::from_millis(200), ask("/narrow")).await;
            if asked.is_ok_and(|answer| answer.reason() == "overloaded") {
                return;
            }
        }
    })
    .await;
    gate.add_permits(100);
    assert_eq!(ask("/wide").await.status, 200);
    first.await.expect("it ends");
    assert!(metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"route_requests\""]).await >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observed_caps_refuse_nothing() {
    let (at, peak) = counted(Duration::from_millis(5)).await;
    let caps = Caps {
        mode: BreakerMode::Observe,
        connections: Some(1),
        pending: Some(1),
        requests: Some(1),
        ..Caps::default()
    };
    let proxy = caller_under(&Service::new("httpbin:80", &[at]), capped(caps), 1);
    assert_eq!(fortio(&proxy, 4, 20).await, 0);
    assert!(peak.load(Ordering::SeqCst) > 1);
    assert!(
        metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"requests\"", "mode=\"observe\""]).await > 0
    );
    assert_eq!(metric(&proxy, "outrigger_cap_in_use", &["cap=\"requests\""]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_over_the_cap_are_not_made() {
    let at = app(|_| async {
        let mut response = Response::new(text("no"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let service = Service::new("flaky:80", &[at]);
    let mut rule = route("/", &service.cluster());
    rule.retry = Some(Arc::new(Retry::default()));
    let caps = Caps { retries: Some(0), ..Caps::default() };
    let proxy = caller_under(&service.routes(vec![rule]), capped(caps), 1);
    let answer = Http1::connect(proxy.outbound[0]).await.get("http://flaky/", "flaky").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "no"));
    assert_eq!(super::retries::suppressed(&proxy, "cap").await, 1);
    assert_eq!(metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"retries\""]).await, 1);
}

/// TCP counts, too, and waits like everybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_bytes_wait_for_each_other() {
    use outrigger_config::model::Protocol;
    let (at, peak) = counted(Duration::ZERO).await;
    let caps = Caps { connections: Some(1), pending: Some(1), ..Caps::default() };
    let mut service = Service::new("bytes:80", &[at]);
    service.protocol = Protocol::Tcp;
    let mut resources = vec![inbound(&[], ProxySettings::default())];
    resources.extend(service.resources().into_iter().map(|resource| match resource {
        Resource::Cluster(mut cluster) => {
            cluster.circuit_breaker = Arc::new(capped(caps));
            Resource::Cluster(cluster)
        }
        other => other,
    }));
    let name = service.name.clone();
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(1);
    setup.service_addresses = vec![((LOOPBACK, 0).into(), name)];
    let proxy = app::start(setup, |_| Ok((Source::fixed(resources), None))).expect("it starts");
    let entrance = proxy.service_addresses[0];
    let mut first = TcpStream::connect(entrance).await.expect("it listens");
    first.write_all(b"x").await.expect("it reads");
    let mut answer = [0; 8];
    within("an answer", first.read_exact(&mut answer)).await.expect("it answers");
    let mut second = TcpStream::connect(entrance).await.expect("it listens");
    second.write_all(b"x").await.expect("it reads");
    in_use(&proxy, "pending", 1).await;
    // Nobody else may wait.
    let third = async {
        // It may be reset before it can be written to, or as soon as it stands.
        let mut third = TcpStream::connect(entrance).await?;
        third.write_all(b"x").await?;
        third.read(&mut answer).await
    };
    let ended = within("it is refused", third).await;
    assert!(ended.is_err() || ended.is_ok_and(|n| n == 0));
    drop(first);
    within("its turn", second.read_exact(&mut answer)).await.expect("it answers");
    assert!(peak.load(Ordering::SeqCst) <= 2);
}

/// An app that works on four requests at a time, and how many more wait there: now, and at most since that was last asked.
async fn queueing() -> (SocketAddr, Arc<AtomicUsize>) {
    let places = Arc::new(tokio::sync::Semaphore::new(4));
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let at = app(move |_| {
        let (places, under_way, most) = (places.clone(), under_way.clone(), most.clone());
        async move {
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let place = places.acquire().await.expect("it is open");
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(place);
            under_way.fetch_sub(1, Ordering::SeqCst);
            Response::new(text("ok"))
        }
    })
    .await;
    (at, peak)
}

/// A hundred callers of an app that can work for four: nearly all of what would only wait there is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_cannot_take_is_refused_before_it_queues() {
    for workers in [1, 2] {
        let (at, peak) = queueing().await;
        let adaptive = Adaptive { mode: BreakerMode::Enforce, least: 3, most: 1_000, origin: None };
        let breaker = CircuitBreaker { adaptive: Some(adaptive), ..CircuitBreaker::default() };
        let proxy = caller_under(&Service::new("small:80", &[at]), breaker, workers);
        let ended = Arc::new(AtomicBool::new(false));
        let good = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let (to, ended, good) = (proxy.outbound[0], ended.clone(), good.clone());
                tokio::spawn(async move {
                    let mut client = Http1::connect(to).await;
                    while !ended.load(Ordering::Relaxed) {
                        let answer = client.get("http://small/", "small").await;
                        match answer.status {
                            200 => drop(good.fetch_add(1, Ordering::Relaxed)),
                            503 => {
                                assert_eq!(answer.reason(), "overloaded");
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                            other => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        let served = |count| {
            let (good, want) = (&good, good.load(Ordering::Relaxed) + count);
            within("requests are served", async move {
                while good.load(Ordering::Relaxed) < want {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        served(300).await;
        peak.store(0, Ordering::SeqCst);
        served(300).await;
        let peak = peak.load(Ordering::SeqCst);
        ended.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.expect("every answer was one of the two");
        }
        assert!((3..=50).contains(&peak), "{peak} at a time with {workers} workers");
        assert!(
            metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"adaptive\"", "mode=\"enforce\""]).await
                > 0
        );
        assert_eq!(metric(&proxy, "outrigger_cap_in_use", &["cap=\"adaptive\""]).await, 0);
        assert!(metric(&proxy, "outrigger_cap_limit", &["cap=\"adaptive\""]).await >= 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adaptive_cap_that_observes_refuses_nothing() {
    let (at, gate) = held().await;
    let adaptive = Adaptive { mode: BreakerMode::Observe, least: 1, most: 1, origin: None };
    let breaker = CircuitBreaker { adaptive: Some(adaptive), ..CircuitBreaker::default() };
    let proxy = caller_under(&Service::new("held:80", &[at]), breaker, 1);
    let outbound = proxy.outbound[0];
    let ask = || {
        tokio::spawn(async move { Http1::connect(outbound).await.get("http://held/", "held").await.status })
    };
    let both = [ask(), ask()];
    in_use(&proxy, "adaptive", 2).await;
    gate.add_permits(2);
    for one in both {
        assert_eq!(one.await.expect("it ends"), 200);
    }
    assert_eq!(
        metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"adaptive\"", "mode=\"observe\""]).await,
        1
    );
}
