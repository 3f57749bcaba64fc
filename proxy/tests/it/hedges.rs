//! A second endpoint asked while the first one is silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use outrigger_config::model::{Fraction, Hedge, Retry, RetryBudget, RetryMethods, RetryOn};
use outrigger_proxy::app::Running;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::harness::*;
use super::retries::counted;

const AFTER: Duration = Duration::from_millis(100);

/// What an endpoint does with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer(u16),
    /// After so many times [`AFTER`].
    AnswerLater(u16, u32),
    Nothing,
}

/// By attempt: what the endpoints do, and what they saw of it.
#[derive(Debug, Default)]
struct Seen {
    attempts: Vec<(Option<String>, Bytes)>,
}

struct Scene {
    endpoints: Vec<SocketAddr>,
    seen: Arc<Mutex<Seen>>,
    /// Told of each attempt that was cancelled.
    cancelled: mpsc::UnboundedReceiver<usize>,
}

/// Two endpoints; the first attempt, wherever it goes, gets the first of `does`, and the second one the second.
async fn scene(does: [Does; 2]) -> Scene {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (cancel, cancelled) = mpsc::unbounded_channel();
    let mut endpoints = Vec::new();
    for _ in 0..2 {
        let (seen, cancel) = (seen.clone(), cancel.clone());
        let at = app(move |request: Request<hyper::body::Incoming>| {
            let (seen, cancel) = (seen.clone(), cancel.clone());
            async move {
                let number =
                    request.headers().get("x-outrigger-attempt").map(|v| v.to_str().unwrap().to_owned());
                let second = number.is_some();
                let mut guard = Cancelled { cancel: Some(cancel), attempt: usize::from(second) + 1 };
                let body =
                    request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                seen.lock().attempts.push((number, body));
                let status = match does[usize::from(second)] {
                    Does::Nothing => std::future::pending().await,
                    Does::Answer(status) => status,
                    Does::AnswerLater(status, times) => {
                        tokio::time::sleep(AFTER * times).await;
                        status
                    }
                };
                guard.cancel = None;
                let mut response = Response::new(text(if second { "second" } else { "first" }));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
            }
        })
        .await;
        endpoints.push(at);
    }
    Scene { endpoints, seen, cancelled }
}

/// Dropped before its answer, it says so.
struct Cancelled {
    cancel: Option<mpsc::UnboundedSender<usize>>,
    attempt: usize,
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(cancel) = &self.cancel {
            let _ = cancel.send(self.attempt);
        }
    }
}

fn hedging(endpoints: &[SocketAddr], retry: Retry) -> Running {
    let service = Service::new("app:80", endpoints);
    let mut rule = route("/", &service.cluster());
    rule.retry = Some(Arc::new(Retry { hedge: Some(Hedge { after: AFTER, percentile: None }), ..retry }));
    caller(&[service.routes(vec![rule])])
}

fn posts() -> Retry {
    Retry { methods: RetryMethods::Listed(vec![Method::POST]), ..Retry::default() }
}

async fn ask(caller: &Running, version: &str, request: Request<ClientBody>) -> Answer {
    let response = match version {
        "1" => Http1::connect(caller.outbound[0]).await.send(request).await,
        _ => Http2::connect(caller.outbound[0]).await.send(request).await,
    };
    Answer::read(response).await
}

fn get() -> Request<ClientBody> {
    Request::get("http://app/").header("host", "app").body(text("")).unwrap()
}

fn post(body: impl Into<Bytes>) -> Request<ClientBody> {
    Request::post("http://app/").header("host", "app").body(text(body)).unwrap()
}

async fn outcome(caller: &Running, outcome: &str) -> u64 {
    counted(caller, "outrigger_hedges_total", &format!("outcome=\"{outcome}\"")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_good_answer_is_taken_and_the_other_attempt_cancelled() {
    for version in ["1", "2"] {
        let mut scene = scene([Does::Nothing, Does::Answer(200)]).await;
        let caller = hedging(&scene.endpoints, posts());
        let body = Bytes::from("paid once, asked twice".repeat(1_000));
        let answer = ask(&caller, version, post(body.clone())).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "second"), "HTTP/{version}");
        // Over HTTP/1 its connection closes, which an app that minds half-closed clients does not take for that.
        if version == "2" {
            assert_eq!(within("the cancellation", scene.cancelled.recv()).await, Some(1));
        }
        let attempts = std::mem::take(&mut scene.seen.lock().attempts);
        assert_eq!(attempts, [(None, body.clone()), (Some("2".into()), body)], "HTTP/{version}");
        assert_eq!(outcome(&caller, "won").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_one_may_still_win() {
    for version in ["1", "2"] {
        let mut scene = scene([Does::AnswerLater(200, 3), Does::Nothing]).await;
        let caller = hedging(&scene.endpoints, Retry::default());
        let answer = ask(&caller, version, get()).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "first"), "HTTP/{version}");
        // Over HTTP/1 its connection closes, which an app that minds half-closed clients does not take for that.
        if version == "2" {
            assert_eq!(within("the cancellation", scene.cancelled.recv()).await, Some(2));
        }
        assert_eq!(outcome(&caller, "lost").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_answer_does_not_win_while_the_other_is_awaited() {
    let scene_of = scene([Does::AnswerLater(200, 4), Does::Answer(503)]).await;
    let caller = hedging(&scene_of.endpoints, Retry::default());
    let answer = ask(&caller, "1", get()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "first"));
    assert_eq!((outcome(&caller, "lost").await, scene_of.seen.lock().attempts.len()), (1, 2));

    // With none left that could be better, the one there is.
    let scene_of = scene([Does::AnswerLater(503, 3), Does::Answer(503)]).await;
    let caller = hedging(&scene_of.endpoints, Retry { attempts: 1, ..Retry::default() });
    assert_eq!(ask(&caller, "1", get()).await.status, 503);
    assert_eq!((outcome(&caller, "failed").await, scene_of.seen.lock().attempts.len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_twice_that_may_not_be() {
    let none = RetryBudget { share: Fraction::ZERO, per_second: 0, ..RetryBudget::default() };
    let slow = [Does::AnswerLater(200, 3); 2];
    for (retry, request, endpoints, why) in [
        (Retry::default(), post("x"), 2, None), // A POST the policy does not list.
        (Retry { of_retries: false, ..Retry::default() }, repeated(), 2, None), // The hop before asks twice.
        (Retry { budget: none, ..Retry::default() }, get(), 2, Some("budget")),
        (Retry::default(), get(), 1, Some("endpoint")),
        (posts(), post("x".repeat(100_000)), 2, Some("body")),
    ] {
        let case = format!("{} {why:?}", request.method());
        let scene = scene(slow).await;
        let caller = hedging(&scene.endpoints[..endpoints], retry);
        let answer = ask(&caller, "1", request).await;
        assert_eq!(answer.status, 200, "{case}");
        assert_eq!(scene.seen.lock().attempts.len(), 1, "{case}");
        for outcome in ["won", "lost", "failed", "body", "endpoint", "deadline", "budget"] {
            let count = counted(&caller, "outrigger_hedges_total", &format!("outcome=\"{outcome}\"")).await;
            assert_eq!(count, u64::from(why == Some(outcome)), "{case}: {outcome}");
        }
    }
}

fn repeated() -> Request<ClientBody> {
    Request::get("http://app/")
        .header("host", "app")
        .header("x-outrigger-attempt", "3")
        .body(text(""))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_still_coming_is_sent_once() {
    let scene = scene([Does::Answer(200), Does::Answer(200)]).await;
    let caller = hedging(&scene.endpoints, posts());
    let (send, body) = frames();
    let request = Request::post("http://app/").header("host", "app").body(body).unwrap();
    let mut client = Http1::connect(caller.outbound[0]).await;
    let answered = tokio::spawn(async move { Answer::read(client.send(request).await).await });
    send.send(Frame::data("half".into())).await.unwrap();
    within("it is not sent twice", async {
        while outcome(&caller, "body").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    send.send(Frame::data(" and half".into())).await.unwrap();
    drop(send);
    assert_eq!(answered.await.unwrap().body, "first");
    assert_eq!(scene.seen.lock().attempts, [(None, Bytes::from("half and half"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_before_the_time_is_retried_as_without_it() {
    let scene = scene([Does::Answer(503), Does::Answer(200)]).await;
    let caller = hedging(&scene.endpoints, Retry { on: vec![RetryOn::GatewayError], ..Retry::default() });
    let answer = ask(&caller, "2", get()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "second"));
    assert_eq!(counted(&caller, "outrigger_hedges_total", "").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_to_wait_is_found_out() {
    let silent = Arc::new(AtomicBool::new(false));
    let mut endpoints = Vec::new();
    for _ in 0..2 {
        let silent = silent.clone();
        endpoints.push(
            app(move |request: Request<hyper::body::Incoming>| {
                let first = !request.headers().contains_key("x-outrigger-attempt");
                let waits = first && silent.load(Ordering::Relaxed);
                async move {
                    if waits {
                        std::future::pending::<()>().await;
                    }
                    Response::new(text(if first { "first" } else { "second" }))
                }
            })
            .await,
        );
    }
    let hedge = Hedge { after: Hedge::LEAST, percentile: Fraction::new(95, 100) };
    let service = Service::new("app:80", &endpoints);
    let mut rule = route("/", &service.cluster());
    rule.retry = Some(Arc::new(Retry { hedge: Some(hedge), ..Retry::default() }));
    let caller = caller(&[service.routes(vec![rule])]);
    for _ in 0..100 {
        assert_eq!(ask(&caller, "1", get()).await.body, "first");
    }
    let clusters = super::admin::json(caller.admin, "/clusters").await;
    let known = &clusters["clusters"][0]["first_attempts_ms"];
    assert!(known["p95"].as_f64().is_some_and(|p95| p95 > 0.0), "how long it would wait: {clusters}");
    // Of fewer answers nothing was concluded, and nobody asked twice.
    assert_eq!(counted(&caller, "outrigger_hedges_total", "").await, 0);
    silent.store(true, Ordering::Relaxed);
    assert_eq!(ask(&caller, "1", get()).await.body, "second");
    assert_eq!(outcome(&caller, "won").await, 1);
}
