//! How much time a call has left, told from hop to hop and obeyed by each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outrigger_config::model::{Protocol, Retry, Timeouts};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;
use super::http1::read_message;
use super::tunnels::{ASK, upgrading};

const SHORT: Duration = Duration::from_millis(200);

fn limited(name: &str, at: SocketAddr, timeouts: Timeouts) -> Service {
    let service = Service::new(name, &[at]);
    let mut rule = route("/", &service.cluster());
    rule.timeouts = timeouts;
    service.routes(vec![rule])
}

/// Takes requests, counts them and answers none.
async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let at = app(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Response<AppBody>>()
    })
    .await;
    (at, asked)
}

/// What an app is told of the time it has.
async fn told() -> (SocketAddr, Arc<Mutex<Vec<HeaderMap>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let at = app(move |request: Request<Incoming>| {
        log.lock().push(request.headers().clone());
        async { Response::new(text("ok")) }
    })
    .await;
    (at, seen)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name).map(|value| value.to_str().unwrap().trim_end_matches('u').parse().expect("a number"))
}

fn call(headers: &[(&str, &str)]) -> Request<ClientBody> {
    let request =
        Request::post("http://app:80/pkg.Service/Method").header("content-type", "application/grpc");
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(text(""))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_is_told_from_hop_to_hop() {
    let (app, seen) = told().await;
    let (_callee, at) = callee(Protocol::Http, app).await;
    let minute = Timeouts { request: Some(Duration::from_secs(60)), ..Timeouts::default() };
    let caller = caller(&[limited("app:80", at, minute), Service::new("free:80", &[at])]);
    let mut client = Http2::connect(caller.outbound[0]).await;

    assert_eq!(client.get("http://free/").await.status, 200);
    assert_eq!(client.get("http://app/").await.status, 200);
    assert_eq!(client.send(call(&[("x-outrigger-timeout-ms", "5000")])).await.status(), 200);
    assert_eq!(client.send(call(&[("grpc-timeout", "30S")])).await.status(), 200);

    let seen = seen.lock();
    let told: Vec<_> =
        seen.iter().map(|h| (number(h, "x-outrigger-timeout-ms"), number(h, "grpc-timeout"))).collect();
    assert_eq!(told[0], (None, None), "nothing is said where nothing is limited");
    assert!(told[1].0.is_some_and(|ms| ms < 60_000) && told[1].1.is_none(), "{told:?}");
    assert!(told[2].0.is_some_and(|ms| ms < 5_000), "{told:?}");
    assert!(told[3].0.is_some_and(|ms| ms < 30_000), "{told:?}");
    assert!(told[3].1.is_some_and(|us| us < 30_000_000), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_obeys_the_deadline_it_receives() {
    let (app, asked) = silent().await;
    let (_callee, at) = callee(Protocol::Http, app).await;
    let request = |left: &str| {
        Request::get("/").header("host", "app").header("x-outrigger-timeout-ms", left).body(text("")).unwrap()
    };
    let answer = Answer::read(Http1::connect(at).await.send(request("200")).await).await;
    assert_eq!((answer.status, answer.reason()), (504, "deadline_exceeded"), "{answer:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // Nobody waits for this one any more: the app is not even asked.
    let answer = Answer::read(Http1::connect(at).await.send(request("0")).await).await;
    assert_eq!((answer.status, answer.reason()), (504, "deadline_exceeded"), "{answer:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    let answer = Answer::read(Http2::connect(at).await.send(call(&[("grpc-timeout", "200m")])).await).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "4"), "{answer:?}");
    assert!(answer.header("grpc-message").starts_with("deadline_exceeded"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_has_what_its_predecessors_left() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let at = app(move |request: Request<Incoming>| {
        log.lock().push(number(request.headers(), "x-outrigger-timeout-ms").expect("it is told"));
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut response = Response::new(text(""));
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    })
    .await;
    let service = Service::new("app:80", &[at]);
    let mut rule = route("/", &service.cluster());
    rule.timeouts = Timeouts { request: Some(PATIENCE), ..Timeouts::default() };
    rule.retry = Some(Arc::new(Retry::default()));
    let caller = caller(&[service.routes(vec![rule])]);
    assert_eq!(Http1::connect(caller.outbound[0]).await.get("http://app/", "app").await.status, 503);
    let seen = seen.lock();
    assert_eq!(seen.len(), 3);
    assert!(seen.is_sorted_by(|earlier, later| *earlier >= later + 20), "{seen:?}");
}

/// Sends something now and then, for ever.
async fn endless() -> SocketAddr {
    app(|request: Request<Incoming>| async move {
        let (send, body) = frames();
        tokio::spawn(async move {
            while send.send(Frame::data("tick".into())).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut response = Response::new(body);
        if let Some(kind) = request.headers().get("content-type") {
            response.headers_mut().insert("content-type", kind.clone());
        }
        response
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_at_its_limit_however_lively_it_is() {
    let at = endless().await;
    let limit = Timeouts { stream: Some(SHORT), ..Timeouts::default() };
    let caller = caller(&[limited("app:80", at, limit)]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"GET http://app/ HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("its end", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("tick") && !answer.ends_with("0\r\n\r\n"), "cut, not ended: {answer}");

    // A gRPC caller is told by the status of the call.
    let response = Http2::connect(caller.outbound[0]).await.send(call(&[])).await;
    let body = within("its end", response.into_body().collect()).await.expect("an orderly end");
    let trailers = body.trailers().expect("a status").clone();
    assert_eq!(
        (trailers["grpc-status"].as_bytes(), trailers["grpc-message"].as_bytes()),
        (&b"4"[..], &b"stream_timeout"[..])
    );
    assert!(body.to_bytes().starts_with(b"tick"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_with_the_time_its_caller_gave_it_stream_or_not() {
    let caller = caller(&[Service::new("app:80", &[endless().await])]);
    let response = Http2::connect(caller.outbound[0]).await.send(call(&[("grpc-timeout", "200m")])).await;
    let body = within("its end", response.into_body().collect()).await.expect("an orderly end");
    assert_eq!(body.trailers().expect("a status")["grpc-status"], "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_ends_at_the_limit_of_streams_and_not_at_that_of_requests() {
    let at = upgrading().await;
    let stream = Timeouts { stream: Some(2 * SHORT), ..Timeouts::default() };
    let request = Timeouts { request: Some(SHORT), ..Timeouts::default() };
    for (limits, ends) in [(stream, true), (request, false)] {
        let caller = caller(&[limited("chat:80", at, limits)]);
        let mut tunnel = TcpStream::connect(caller.outbound[0]).await.unwrap();
        tunnel.write_all(ASK.as_bytes()).await.unwrap();
        let (head, _) = read_message(&mut tunnel).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let mut byte = [0];
        if ends {
            let end = within("its end", tunnel.read(&mut byte)).await;
            assert!(!matches!(end, Ok(1..)), "{end:?}");
        } else {
            tokio::time::sleep(2 * SHORT).await;
            tunnel.write_all(b"x").await.unwrap();
            within("the echo", tunnel.read_exact(&mut byte)).await.unwrap();
        }
    }
}
