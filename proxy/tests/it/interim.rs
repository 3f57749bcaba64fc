//! Interim responses (RFC 9110 §15.2), between all kinds of clients and endpoints.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use outrigger_config::model::{Protocol, UpstreamHttp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::harness::*;

/// What is said of a response: its status, and a field where it has it.
type Said = (u16, String);

fn said<B>(response: &Response<B>) -> Said {
    let link = response.headers().get("link").map_or("", |link| link.to_str().expect("text"));
    (response.status().as_u16(), link.to_owned())
}

/// An app that says 100, 103 and 102 before its answer, over HTTP/2.
async fn hinting_http2() -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.headers().get("expect"), None, "it is this hop's own");
                    for (status, link) in [(100, ""), (103, "</a>"), (103, "</b>"), (102, "")] {
                        let mut hint = Response::builder().status(status);
                        if !link.is_empty() {
                            hint = hint.header("link", link);
                        }
                        let hint = hint.body(()).expect("a response");
                        respond.send_informational(hint).expect("it is open");
                    }
                    let mut send = respond.send_response(Response::new(()), false).expect("it is open");
                    send.send_data(Bytes::from_static(b"ok"), true).expect("it is open");
                }
            });
        }
    });
    at
}

/// The same over HTTP/1, with what concerns one hop only.
async fn hinting_http1() -> SocketAddr {
    bytes_app(|mut stream: TcpStream| async move {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            read.push(byte);
        }
        let answer = b"HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n\
            HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n\
            HTTP/1.1 102 Processing\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.ok();
        stream.shutdown().await.ok();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

/// An HTTP/2 connection of a client.
async fn client(at: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(at).await.expect("it listens");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    client.ready().await.expect("it is open")
}

/// All heads of the answer to a request over HTTP/2, in order, and its body.
async fn heads(client: &mut h2::client::SendRequest<Bytes>, host: &str) -> (Vec<Response<()>>, Bytes) {
    let request = Request::get(format!("http://{host}/")).body(()).expect("a request");
    let (mut response, _) = client.send_request(request, true).expect("it is open");
    let mut all = Vec::new();
    while let Some(hint) = within("a head", poll_fn(|cx| response.poll_informational(cx))).await {
        all.push(hint.expect("a response"));
    }
    let (head, mut body) = within("the answer", response).await.expect("a response").into_parts();
    all.push(Response::from_parts(head, ()));
    (all, within("its body", body.data()).await.expect("there is one").expect("it is whole"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_responses_of_either_kind_of_app_reach_a_client_over_http2() {
    let (two, one) = (hinting_http2().await, hinting_http1().await);
    let (_callee, behind) = callee(Protocol::Http2, two).await;
    let caller = caller(&[
        Service::new("two:80", &[two]).http(UpstreamHttp::Http2),
        Service::new("hops:80", &[behind]).http(UpstreamHttp::Http2),
        Service::new("one:80", &[one]).http(UpstreamHttp::Http1),
    ]);
    let mut client = client(caller.outbound[0]).await;
    for host in ["two:80", "hops:80", "one:80"] {
        let (heads, body) = heads(&mut client, host).await;
        let got: Vec<Said> = heads.iter().map(said).collect();
        let want = [(103, "</a>"), (103, "</b>"), (102, ""), (200, "")];
        assert_eq!(got, want.map(|(status, link)| (status, link.to_owned())), "{host}");
        assert_eq!(body, "ok", "{host}");
        for name in ["x-hop", "keep-alive", "connection"] {
            assert!(heads.iter().all(|head| !head.headers().contains_key(name)), "{host}: {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_responses_over_http2_reach_a_client_over_http1() {
    let app = hinting_http2().await;
    let caller = caller(&[Service::new("two:80", &[app]).http(UpstreamHttp::Http2)]);
    let request = b"GET / HTTP/1.1\r\nHost: two:80\r\nConnection: close\r\n\r\n";
    let answer = exchange_bytes(caller.outbound[0], request).await;
    let want = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n\
        HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(answer.starts_with(want) && answer.contains("\r\n\r\n2\r\nok\r\n"), "{answer}");
    // HTTP/1.0 knows none.
    let answer = exchange_bytes(caller.outbound[0], b"GET / HTTP/1.0\r\nHost: two:80\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_100_over_http2_gets_one_when_its_body_is_wanted() {
    let app = app(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        Response::new(text(body))
    })
    .await;
    let caller = caller(&[Service::new("echo:80", &[app]).http(UpstreamHttp::Http1)]);
    let client = client(caller.outbound[0]).await;
    let post = |host: &str| {
        let request = Request::builder().method(Method::POST).uri(format!("http://{host}/"));
        request.header("expect", "100-Continue").body(()).expect("a request")
    };
    let mut client = client.ready().await.expect("it is open");
    let (mut response, mut send) = client.send_request(post("echo:80"), false).expect("it is open");
    let hint = within("a 100", poll_fn(|cx| response.poll_informational(cx))).await;
    assert_eq!(hint.expect("a head").expect("a response").status(), 100);
    send.send_data(Bytes::from_static(b"hello"), true).expect("it is open");
    let mut answer = within("the answer", response).await.expect("a response").into_body();
    assert_eq!(within("its body", answer.data()).await.expect("there is one").expect("whole"), "hello");
    // Where nobody wants it, there is none.
    let mut client = client.ready().await.expect("it is open");
    let (mut response, _send) = client.send_request(post("nobody:80"), false).expect("it is open");
    let hint = within("an answer", poll_fn(|cx| response.poll_informational(cx))).await;
    assert!(hint.is_none(), "{hint:?}");
    assert!(!within("the answer", response).await.expect("a response").status().is_success());
}
