//! gRPC's shapes and HTTP/2's own ways through two sidecars.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outrigger_config::model::{Protocol, UpstreamHttp};

use super::harness::*;

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))])
}

/// Answers by its path: each message is sent back as it comes, or once, or never.
async fn grpc_app() -> std::net::SocketAddr {
    app(|request: Request<Incoming>| async move {
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let mut response = match &*path {
            "/trailers-only" => {
                let mut response = Response::new(text(""));
                response.headers_mut().extend(status("5"));
                response
            }
            "/unary" => {
                let message = body.collect().await.unwrap().to_bytes();
                Response::new(with_trailers(message, status("0")))
            }
            _ => {
                let (send, back) = frames();
                tokio::spawn(async move {
                    while let Some(Ok(frame)) = body.frame().await {
                        if send.send(frame).await.is_err() {
                            return;
                        }
                    }
                    let _ = send.send(Frame::trailers(status("0"))).await;
                });
                Response::new(back)
            }
        };
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    })
    .await
}

fn call(path: &str, body: ClientBody) -> Request<ClientBody> {
    Request::post(format!("http://chat:9000{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_passes_two_sidecars() {
    let (callee, at) = callee(Protocol::Http2, grpc_app().await).await;
    let caller = caller(&[Service::new("chat:9000", &[at]).http(UpstreamHttp::Http2)]);
    let mut client = Http2::connect(caller.outbound[0]).await;

    let answer = Answer::read(client.send(call("/trailers-only", text(""))).await).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "5"));

    let answer = Answer::read(client.send(call("/unary", text("hello"))).await).await;
    assert_eq!(answer.body, "hello");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");

    // Both ways at once: the next message is sent when the last one came back.
    let (send, messages) = frames();
    let response = client.send(call("/stream", messages)).await;
    let mut body = response.into_body();
    for n in 0..50 {
        let message = Bytes::from(format!("message {n}"));
        send.send(Frame::data(message.clone())).await.unwrap();
        let frame = within("the message back", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(send);
    let frame = within("trailers", body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "0");
    drop((caller, callee));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_is_cancelled_at_the_app() {
    let (ended, mut end) = tokio::sync::mpsc::unbounded_channel();
    let app = app(move |request: Request<Incoming>| {
        let ended = ended.clone();
        async move {
            tokio::spawn(async move {
                let mut body = request.into_body();
                let last = loop {
                    match body.frame().await {
                        Some(Ok(_)) => {}
                        last => break last,
                    }
                };
                let _ = ended.send(matches!(last, Some(Err(_))));
            });
            let (send, never) = frames();
            std::mem::forget(send);
            Response::new(never)
        }
    })
    .await;
    let (_callee, at) = callee(Protocol::Http2, app).await;
    let caller = caller(&[Service::new("chat:9000", &[at])]);
    let stream = tokio::net::TcpStream::connect(caller.outbound[0]).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (head, _) = call("/", text("")).into_parts();
    let (response, mut send) = client.send_request(Request::from_parts(head, ()), false).unwrap();
    send.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let response = within("the head", response).await.unwrap();
    send.send_reset(h2::Reason::CANCEL);
    assert_eq!(within("the app sees it", end.recv()).await, Some(true), "the app's stream was reset");
    drop(response);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_caller_is_told_a_grpc_status() {
    let caller = caller(&[Service::new("chat:9000", &[free_address().await])]);
    let mut client = Http2::connect(caller.outbound[0]).await;
    let answer = Answer::read(client.send(call("/", text(""))).await).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "14"));
    assert!(answer.header("grpc-message").starts_with("connect_failed"), "{answer:?}");
    assert_eq!(answer.reason(), "connect_failed");
}

async fn free_address() -> std::net::SocketAddr {
    (LOOPBACK, ports::free()).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_speaks_one_version_is_spoken_to_in_it() {
    let app = echo().await;
    let caller = caller(&[
        Service::new("one:80", &[app]).http(UpstreamHttp::Http1),
        Service::new("two:80", &[app]).http(UpstreamHttp::Http2),
    ]);
    let mut http2 = Http2::connect(caller.outbound[0]).await;
    let mut request = Request::get("http://one/x").body(text("")).unwrap();
    for crumb in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", HeaderValue::from_static(crumb));
    }
    let said = Answer::read(http2.send(request).await).await.body;
    assert!(said.starts_with("GET /x HTTP/1.1\n") && said.contains("host: one\n"), "{said}");
    assert!(said.contains("cookie: a=1; b=2\n"), "one field towards HTTP/1 (RFC 9113 §8.2.3): {said}");

    let said = Http1::connect(caller.outbound[0]).await.get("http://two/x", "-").await.body;
    assert!(said.starts_with("GET http://two/x HTTP/2.0\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_an_http1_app_reach_an_http2_client() {
    let app = bytes_app(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut some = [0; 1024];
        let _ = stream.read(&mut some).await;
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
        let _ = stream.write_all(answer).await;
        let _ = stream.read(&mut some).await;
    })
    .await;
    let caller = caller(&[Service::new("one:80", &[app]).http(UpstreamHttp::Http1)]);
    let answer = Http2::connect(caller.outbound[0]).await.get("http://one/").await;
    assert_eq!(answer.body, "ok");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_over_the_limit_cost_their_stream_alone() {
    let caller = caller(&[Service::new("one:80", &[echo().await])]);
    let mut client = Http2::connect(caller.outbound[0]).await;
    let mut many = Request::get("http://one/").body(text("")).unwrap();
    for _ in 0..200 {
        many.headers_mut().append("x-a", HeaderValue::from_static("1"));
    }
    let answer = Answer::read(client.send(many).await).await;
    assert_eq!((answer.status, answer.reason()), (431, "request_headers_too_large"));
    let long = Request::get("http://one/").header("x-a", "a".repeat(70_000)).body(text("")).unwrap();
    if let Ok(response) = client.try_send(long).await {
        assert_eq!(response.status(), 431);
    }
    assert_eq!(client.get("http://one/").await.status, 200, "the connection lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_stalled_streams_do_not_stop_the_sixteenth() {
    let app = app(|request: Request<Incoming>| async move {
        let size = request.uri().path().len();
        Response::new(text(vec![b'x'; if size > 2 { 10 << 20 } else { 2 }]))
    })
    .await;
    let (_callee, at) = callee(Protocol::Http2, app).await;
    let caller = caller(&[Service::new("one:80", &[at])]);
    let mut client = Http2::connect(caller.outbound[0]).await;
    let mut stalled = Vec::new();
    for _ in 0..15 {
        stalled.push(client.send(Request::get("http://one/large").body(text("")).unwrap()).await);
    }
    assert_eq!(client.get("http://one/").await.body, "xx");
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_streams_share_one_callers_connection() {
    let (_callee, at) = callee(Protocol::Http2, grpc_app().await).await;
    let caller = caller(&[Service::new("chat:9000", &[at])]);
    let client = Http2::connect(caller.outbound[0]).await;
    let calls = (0..2_000).map(|n| {
        let mut client = client.clone();
        async move {
            let response = client.send(call("/unary", text(format!("message {n:012}")))).await;
            (n, Answer::read(response).await)
        }
    });
    let mut calls = futures_util::stream::iter(calls).buffer_unordered(500);
    while let Some((n, answer)) = within("all answers", calls.next()).await {
        assert_eq!(answer.body, format!("message {n:012}"));
    }
}
