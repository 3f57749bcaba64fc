//! Requests that failed and are sent again, and those that are not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use outrigger_config::model::{ProxySettings, Retry, RetryMethods, RetryOn, Timeouts};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::harness::*;

fn with_retry(name: &str, endpoints: &[SocketAddr], retry: Retry) -> Service {
    let service = Service::new(name, endpoints);
    let mut rule = route("/", &service.cluster());
    rule.retry = Some(Arc::new(retry));
    service.routes(vec![rule])
}

/// What an app was asked: each request's attempt header and body.
type Seen = Arc<Mutex<Vec<(Option<String>, Bytes)>>>;

/// Answers 503 to the first `failures` requests.
async fn flaky(failures: usize) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let log = seen.clone();
    let at = app(move |request: Request<hyper::body::Incoming>| {
        let log = log.clone();
        async move {
            let attempt =
                request.headers().get("x-outrigger-attempt").map(|v| v.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let before = {
                let mut log = log.lock();
                log.push((attempt, body));
                log.len() - 1
            };
            let mut response = Response::new(text("done"));
            if before < failures {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
    })
    .await;
    (at, seen)
}

fn post(body: impl Into<Bytes>) -> Request<ClientBody> {
    let body = http_body_util::Full::new(body.into()).boxed();
    Request::post("http://flaky/").header("host", "flaky").body(body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_answer_is_asked_for_again_and_the_app_is_told() {
    let (at, seen) = flaky(2).await;
    let caller = caller(&[with_retry("flaky:80", &[at], Retry::default())]);
    for version in ["1", "2"] {
        seen.lock().clear();
        let answer = match version {
            "1" => Http1::connect(caller.outbound[0]).await.get("http://flaky/", "flaky").await,
            _ => Http2::connect(caller.outbound[0]).await.get("http://flaky/").await,
        };
        assert_eq!(answer.status, 200, "{answer:?}");
        let attempts: Vec<_> = seen.lock().iter().map(|(attempt, _)| attempt.clone()).collect();
        assert_eq!(attempts, [None, Some("2".into()), Some("3".into())]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_last_attempt_the_answer_is_the_apps_own() {
    let (at, seen) = flaky(usize::MAX).await;
    let caller = caller(&[with_retry("flaky:80", &[at], Retry::default())]);
    let answer = Http1::connect(caller.outbound[0]).await.get("http://flaky/", "flaky").await;
    assert_eq!((answer.status, answer.body.as_ref()), (503, b"done".as_ref()));
    assert_eq!(seen.lock().len(), 3);
    assert_eq!(suppressed(&caller, "attempts").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_is_sent_once_unless_the_policy_lists_it() {
    let (at, seen) = flaky(1).await;
    let listed = Retry { methods: RetryMethods::Listed(vec![Method::POST]), ..Retry::default() };
    for (retry, status, copies) in [(Retry::default(), 503, 1), (listed, 200, 2)] {
        seen.lock().clear();
        let caller = caller(&[with_retry("flaky:80", &[at], retry)]);
        let response = Http1::connect(caller.outbound[0]).await.send(post("the body")).await;
        assert_eq!(response.status(), status);
        let bodies: Vec<_> = seen.lock().iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(bodies, vec!["the body"; copies]);
        if copies == 1 {
            assert_eq!(suppressed(&caller, "not_idempotent").await, 1);
        }
    }
}

/// Requirements 2.2: the app reads a POST and resets; nobody may send it twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_was_read_and_reset_arrives_exactly_once() {
    let copies = Arc::new(AtomicUsize::new(0));
    let counted = copies.clone();
    let at = bytes_app(move |mut stream| {
        let counted = counted.clone();
        async move {
            let mut head = [0; 1024];
            if stream.read(&mut head).await.is_ok_and(|n| n > 0) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            let _ = stream.set_zero_linger();
        }
    })
    .await;
    for service in [Service::new("flaky:80", &[at]), with_retry("flaky:80", &[at], Retry::default())] {
        copies.store(0, Ordering::Relaxed);
        let caller = caller(&[service]);
        let response = Http1::connect(caller.outbound[0]).await.send(post("money")).await;
        assert_eq!(response.status(), 502);
        assert_eq!(copies.load(Ordering::Relaxed), 1);
    }
    // A GET may be.
    copies.store(0, Ordering::Relaxed);
    let caller = caller(&[with_retry("flaky:80", &[at], Retry::default())]);
    let answer = Http1::connect(caller.outbound[0]).await.get("http://flaky/", "flaky").await;
    assert_eq!((answer.status, copies.load(Ordering::Relaxed)), (502, 3));
}

/// Requirements 2.1: an app closes a connection that was idle just as a request is on its way there. What it saw of that nobody can know; a GET is
/// sent again, a POST is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_closed_while_idle_costs_no_safe_request() {
    let copies = Arc::new(AtomicUsize::new(0));
    let counted = copies.clone();
    let at = bytes_app(move |mut stream| {
        let counted = counted.clone();
        async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            if stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            let _ = stream.set_zero_linger();
        }
    })
    .await;
    let caller = caller(&[Service::new("flaky:80", &[at])]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    for round in 1..=5 {
        assert_eq!(client.get("http://flaky/", "flaky").await.status, 200, "round {round}");
        // Longer than a connection has to be idle to be suspected.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let met = copies.load(Ordering::Relaxed);
    assert!(met >= 2, "{met} requests met a connection that was closed");
    let response = client.send(post("money")).await;
    assert_eq!(response.status(), 502);
    assert_eq!(copies.load(Ordering::Relaxed), met + 1, "it arrived once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_repeated_byte_for_byte_up_to_the_limit() {
    let (at, seen) = flaky(1).await;
    let retry = Retry { methods: RetryMethods::Listed(vec![Method::POST]), ..Retry::default() };
    let caller = caller(&[with_retry("flaky:80", &[at], retry)]);
    for (size, status, copies) in [(60_000, 200, 2), (200_000, 503, 1)] {
        let body: Bytes = (0..size).map(|n: usize| (n * 31 % 251) as u8).collect();
        for version in ["1", "2"] {
            seen.lock().clear();
            let request = post(body.clone());
            let response = match version {
                "1" => Http1::connect(caller.outbound[0]).await.send(request).await,
                _ => Http2::connect(caller.outbound[0]).await.send(request).await,
            };
            assert_eq!(response.status(), status, "{size} over HTTP/{version}");
            let seen = seen.lock();
            assert_eq!(seen.len(), copies, "{size} over HTTP/{version}");
            assert!(seen.iter().all(|(_, copy)| *copy == body), "{size} over HTTP/{version}");
        }
    }
    assert_eq!(suppressed(&caller, "body_too_large").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_endpoint_than_the_last_is_asked() {
    let (bad, seen_bad) = flaky(usize::MAX).await;
    let (good, _) = flaky(0).await;
    let caller = caller(&[with_retry("flaky:80", &[bad, good], Retry::default())]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    for _ in 0..50 {
        assert_eq!(client.get("http://flaky/", "flaky").await.status, 200);
    }
    assert!(seen_bad.lock().iter().all(|(attempt, _)| attempt.is_none()), "never twice in a row");
}

/// The real-socket twin of `upstream::budget`, whose tests have the exact figures. Two seconds each, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_total_failure_the_budget_bounds_what_is_added() {
    let mut runs = tokio::task::JoinSet::new();
    for workers in [1, 2] {
        for rate in [20, 200, 1_000] {
            runs.spawn(total_failure(workers, rate));
        }
    }
    while let Some(done) = runs.join_next().await {
        done.expect("within the budget");
    }
}

async fn total_failure(workers: usize, rate: u64) {
    let (at, seen) = flaky(usize::MAX).await;
    let service = with_retry("flaky:80", &[at], Retry::default());
    let caller = caller_with(&[service], ProxySettings::default(), |setup| setup.workers = Some(workers));
    // Several connections, so that each worker has some.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Http2::connect(caller.outbound[0]).await);
    }
    let begun = Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..2 * rate {
        tokio::time::sleep_until(begun + Duration::from_micros(number * 1_000_000 / rate)).await;
        let mut client = clients[number as usize % clients.len()].clone();
        requests.spawn(async move { client.get("http://flaky/").await.status });
    }
    let made = requests.len() as u64;
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.expect("an answer"), 503);
    }
    let seconds = begun.elapsed().as_secs() + 1;
    let attempts = seen.lock().len() as u64;
    let bound = made * 12 / 10 + 10 * seconds + 100;
    assert!(attempts <= bound, "{attempts} attempts of {made} requests in {seconds} s, {workers} workers");
    // What may be added is added: all of it at first, and a fifth at least.
    assert!(attempts >= (made + made / 5).min(3 * made), "{attempts} attempts of {made} requests");
    let budget = suppressed(&caller, "budget").await;
    assert_eq!(budget > 0, rate >= 200, "{budget} of {made} suppressed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_tried_that_cannot_end_in_time() {
    let at = app(|_| async {
        let mut response = Response::new(text(""));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert("retry-after", 4.into());
        response
    })
    .await;
    let service = Service::new("busy:80", &[at]);
    let mut rule = route("/", &service.cluster());
    rule.retry = Some(Arc::new(Retry::default()));
    rule.timeouts = Timeouts { request: Some(Duration::from_secs(3)), ..Timeouts::default() };
    let caller = caller(&[service.routes(vec![rule])]);
    let answer = Http1::connect(caller.outbound[0]).await.get("http://busy/", "busy").await;
    assert_eq!(answer.status, 503, "the answer there is, and at once");
    assert_eq!(suppressed(&caller, "deadline").await, 1);
}

/// How a gRPC server says that a call failed.
#[derive(Clone, Copy, Debug)]
enum Failing {
    TrailersOnly,
    Trailers,
    AfterMessage,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_statuses_are_retried_until_a_message_went_to_the_caller() {
    for (failing, calls, last) in
        [(Failing::TrailersOnly, 2, "0"), (Failing::Trailers, 2, "0"), (Failing::AfterMessage, 1, "14")]
    {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let at = app(move |_| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                let status = |code: &'static str| {
                    HeaderMap::from_iter([(
                        http::HeaderName::from_static("grpc-status"),
                        code.parse().unwrap(),
                    )])
                };
                let mut response = match (first, failing) {
                    (false, _) => Response::new(with_trailers("message".into(), status("0"))),
                    (true, Failing::TrailersOnly) => {
                        let mut response = Response::new(text(""));
                        response.headers_mut().extend(status("14"));
                        response
                    }
                    (true, Failing::Trailers) => {
                        let (send, body) = frames();
                        let trailers = http_body::Frame::trailers(status("14"));
                        tokio::spawn(async move { send.send(trailers).await });
                        Response::new(body)
                    }
                    (true, Failing::AfterMessage) => {
                        Response::new(with_trailers("message".into(), status("14")))
                    }
                };
                response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
                response
            }
        })
        .await;
        let retry = Retry { on: vec![RetryOn::Unavailable], ..Retry::default() };
        let caller = caller(&[with_retry("calls:80", &[at], retry)]);
        let request = Request::post("http://calls/pkg.Service/Method")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(text("request"))
            .unwrap();
        let response = Http2::connect(caller.outbound[0]).await.send(request).await;
        let collected = within("the whole answer", response.into_body().collect()).await.unwrap();
        let trailers = collected.trailers().expect("a call ends with trailers").clone();
        assert_eq!(trailers["grpc-status"], last, "{failing:?}");
        assert_eq!(collected.to_bytes(), "message", "{failing:?}");
        assert_eq!(count.load(Ordering::Relaxed), calls, "{failing:?}");
        let too_late = suppressed(&caller, "response_begun").await;
        assert_eq!(too_late, u64::from(matches!(failing, Failing::AfterMessage)), "{failing:?}");
    }
}

/// An answer that breaks off is passed on broken; that it was too late to ask again is counted, where that would have been allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_not_asked_for_again_and_that_is_counted() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let at = bytes_app(move |mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
        }
    })
    .await;
    for (method, too_late) in [("GET", 1), ("POST", 0)] {
        let caller = caller(&[with_retry("flaky:80", &[at], Retry::default())]);
        let request = format!("{method} http://flaky/ HTTP/1.1\r\nhost: flaky\r\ncontent-length: 0\r\n\r\n");
        let mut stream = TcpStream::connect(caller.outbound[0]).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        // A reset, or an end.
        let _ = within("the answer's end", stream.read_to_end(&mut Vec::new())).await;
        within("it is counted", async {
            while suppressed(&caller, "response_begun").await != too_late {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

/// `outrigger_retries_suppressed_total` by its cause.
pub async fn suppressed(proxy: &outrigger_proxy::app::Running, cause: &str) -> u64 {
    counted(proxy, "outrigger_retries_suppressed_total", &format!("cause=\"{cause}\"")).await
}

/// The sum of a counter's samples with a label.
pub async fn counted(proxy: &outrigger_proxy::app::Running, family: &str, label: &str) -> u64 {
    let mut stream = tokio::net::TcpStream::connect(proxy.metrics).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    within("the metrics", stream.read_to_string(&mut page)).await.unwrap();
    let samples = page.lines().filter(|line| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{')) && line.contains(label)
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
