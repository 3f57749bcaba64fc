//! HTTP/1 as clients and apps really write it, byte by byte where that matters.

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outrigger_config::model::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;

/// An app that reads a head and answers with fixed bytes, and hands over what it read.
async fn scripted(
    answer: &'static [u8],
) -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (heads, seen) = tokio::sync::mpsc::unbounded_channel();
    let at = bytes_app(move |mut stream: TcpStream| {
        let heads = heads.clone();
        async move {
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if !matches!(stream.read(&mut byte).await, Ok(1)) {
                    return;
                }
                read.push(byte[0]);
            }
            heads.send(String::from_utf8(read).unwrap()).ok();
            stream.write_all(answer).await.ok();
            stream.shutdown().await.ok();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    (at, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_names_keep_their_case_both_ways_over_two_hops() {
    let answer = b"HTTP/1.1 200 Fine\r\nX-Answer-ID: 7\r\nContent-LENGTH: 2\r\n\r\nok";
    let (app, mut seen) = scripted(answer).await;
    let (_callee, at) = callee(Protocol::Http, app).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let request = b"GET / HTTP/1.1\r\nHost: reviews:9080\r\nX-Custom-ID: 1\r\nSOAPAction: x\r\nConnection: close\r\n\r\n";
    let answer = exchange_bytes(caller.outbound[0], request).await;
    let head = within("the request", seen.recv()).await.unwrap();
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    for line in ["Host: reviews:9080\r\n", "X-Custom-ID: 1\r\n", "SOAPAction: x\r\n"] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    assert!(!head.to_lowercase().contains("connection:"), "{head}");
    assert!(answer.starts_with("HTTP/1.1 200 Fine\r\n"), "{answer}");
    for line in ["X-Answer-ID: 7\r\n", "Content-LENGTH: 2\r\n"] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_is_answered_with_and_without_keep_alive() {
    let (_callee, at) = callee(Protocol::Http, echo().await).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let out = caller.outbound[0];
    let answer = exchange_bytes(out, b"GET http://reviews:9080/ HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\n\nGET") || answer.contains("GET / HTTP/1.1\n"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");

    let mut stream = TcpStream::connect(out).await.unwrap();
    for _ in 0..2 {
        stream
            .write_all(b"GET http://reviews:9080/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .await
            .unwrap();
        let (head, _) = read_message(&mut stream).await;
        assert!(head.to_lowercase().contains("connection: keep-alive"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_speaks_http_1_0_costs_its_callers_no_connection() {
    let (app, mut seen) = scripted(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let (_callee, at) = callee(Protocol::Http, app).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: reviews:9080\r\n\r\n").await.unwrap();
        let (head, body) = read_message(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("connection: close"), "{head}");
        assert_eq!(body, b"ok");
        within("the request", seen.recv()).await.unwrap();
    }
}

/// A head, and as much body as its length says.
pub async fn read_message(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a head", stream.read_u8()).await.expect("a head"));
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ").and_then(|n| n.trim().parse().ok())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    within("a body", stream.read_exact(&mut body)).await.expect("a body");
    (head, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let caller = caller(&[Service::new("reviews:9080", &[echo().await])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    let requests: String = (0..20)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: 3\r\n\r\n{n:03}"))
        .collect();
    stream.write_all(requests.as_bytes()).await.unwrap();
    for n in 0..20 {
        let (_, body) = read_message(&mut stream).await;
        let body = String::from_utf8(body).unwrap();
        assert!(body.starts_with(&format!("POST /{n} ")) && body.ends_with(&format!("\n\n{n:03}")), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_ends_its_side_gets_its_answer() {
    let slow = app(|_| async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        http::Response::new(text("late"))
    })
    .await;
    let (_callee, at) = callee(Protocol::Http, slow).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: reviews:9080\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("late"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_one_hop_stay_on_it() {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=3\r\nProxy-Connection: x\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n";
    let (app, mut seen) = scripted(answer).await;
    let caller = caller(&[Service::new("reviews:9080", &[app])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: reviews:9080\r\nConnection: x-mine, keep-alive, host, x-forwarded-for\r\n\
        X-Mine: 1\r\nX-Forwarded-For: 1.2.3.4\r\nKeep-Alive: 1\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate\r\n\
        Upgrade: TLS/1.2\r\nX-Yours: 1\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, _) = read_message(&mut stream).await;
    let sent = within("the request", seen.recv()).await.unwrap().to_lowercase();
    for gone in ["x-mine:", "keep-alive", "proxy-connection:", "upgrade:", "deflate"] {
        assert!(!sent.contains(gone), "{gone} in {sent}");
    }
    for kept in ["x-yours: 1", "te: trailers", "host: reviews:9080", "x-forwarded-for: 1.2.3.4"] {
        assert!(sent.contains(kept), "{kept} in {sent}");
    }
    let head = head.to_lowercase();
    for gone in ["x-hop", "keep-alive", "proxy-connection", "connection: close"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert!(head.contains("x-end: 1"), "{head}");
    // The app's close was its hop's; the client's connection stays.
    stream.write_all(b"GET / HTTP/1.1\r\nHost: reviews:9080\r\n\r\n").await.unwrap();
    assert!(read_message(&mut stream).await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requests_id_and_origin_go_with_it() {
    let (_callee, at) = callee(Protocol::Http, echo().await).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    let said = client.get("/", "reviews:9080").await.body;
    let line =
        |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let id = line("x-request-id: ");
    assert!(id.len() == 36 && id.as_bytes()[14] == b'4', "a version 4 UUID: {id:?}");
    assert_eq!(line("x-forwarded-proto: "), "http");
    assert_eq!(line("x-forwarded-for: "), "127.0.0.1");

    let request = |id: &str| {
        let request = Request::get("/").header("host", "reviews:9080").header("x-request-id", id);
        request
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .body(text(""))
    };
    let said = Answer::read(client.send(request("mine").unwrap()).await).await.body;
    assert!(said.contains("x-request-id: mine\n"), "{said}");
    assert!(
        said.contains("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n"),
        "{said}"
    );
    let said = Answer::read(client.send(request(&"x".repeat(500)).unwrap()).await).await.body;
    assert!(!said.contains("xxxx"), "an id has a bound: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_without_a_body_keep_their_length() {
    for (method, answer, want) in [
        ("HEAD", &b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"[..], "content-length: 1234"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", "etag: \"a\""),
        ("GET", b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", "x-a: 1"),
    ] {
        let (app, _seen) = scripted(answer).await;
        let (_callee, at) = callee(Protocol::Http, app).await;
        let caller = caller(&[Service::new("reviews:9080", &[at])]);
        let request = format!("{method} / HTTP/1.1\r\nHost: reviews:9080\r\nConnection: close\r\n\r\n");
        let answer = exchange_bytes(caller.outbound[0], request.as_bytes()).await.to_lowercase();
        assert!(answer.contains(want), "{method}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{method} has no body: {answer}");
        assert!(!answer.contains("transfer-encoding"), "{method}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_1xx_before_the_answer_do_no_harm() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (app, _seen) = scripted(answer).await;
    let (_callee, at) = callee(Protocol::Http, app).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let request = b"GET / HTTP/1.1\r\nHost: reviews:9080\r\nConnection: close\r\n\r\n";
    let answer = exchange_bytes(caller.outbound[0], request).await;
    let interim =
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(answer.starts_with(interim) && answer.ends_with("ok"), "they pass, in order: {answer}");
    // HTTP/1.0 knows none.
    let request = b"GET / HTTP/1.0\r\nHost: reviews:9080\r\n\r\n";
    let answer = exchange_bytes(caller.outbound[0], request).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_bodies_and_trailers_pass_both_ways() {
    let app = app(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.unwrap();
        let sum =
            body.trailers().and_then(|t| t.get("x-sum")).map_or("none", |v| v.to_str().unwrap()).to_owned();
        let body = body.to_bytes();
        let trailer = (http::HeaderName::from_static("x-back"), http::HeaderValue::try_from(sum).unwrap());
        let body = with_trailers(body, http::HeaderMap::from_iter([trailer]));
        http::Response::builder().header("trailer", "x-back").body(body).unwrap()
    })
    .await;
    let (_callee, at) = callee(Protocol::Http, app).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let request = "POST / HTTP/1.1\r\nHost: reviews:9080\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\
        Connection: close\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n";
    let answer = exchange_bytes(caller.outbound[0], request.as_bytes()).await.to_lowercase();
    assert!(answer.contains("\r\nhello\r\n0\r\nx-back: 42\r\n\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expect_is_answered_once_there_is_an_endpoint() {
    let caller = caller(&[Service::new("reviews:9080", &[echo().await]), Service::new("nobody:9080", &[])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: reviews:9080\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_message(&mut stream).await.0, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let (head, body) = read_message(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let body = String::from_utf8(body).unwrap();
    assert!(body.ends_with("\n\nhello") && !body.contains("expect:"), "{body}");

    // Nobody can take it: the client is told before it sends.
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: nobody:9080\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (head, _) = read_message(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(head.contains("no_endpoint"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much";
    let (app, _seen) = scripted(answer).await;
    let (_callee, at) = callee(Protocol::Http, app).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..200 {
            if write.write_all(&chunk).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Vec::new();
    // The end may be a reset once the client has sent too much for too long; the answer must be there all the same.
    let _ = within("the answer", read.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("too much"), "{answer}");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_valid_request_is_refused() {
    let caller = caller(&[Service::new("reviews:9080", &[echo().await])]);
    let many = format!("GET / HTTP/1.1\r\nHost: reviews:9080\r\n{}\r\n", "X-A: 1\r\n".repeat(200));
    let long = format!("GET / HTTP/1.1\r\nHost: reviews:9080\r\nX-A: {}\r\n\r\n", "a".repeat(70_000));
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: reviews:9080\r\n{fields}\r\n");
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400", "bad_request"), // no host
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "400", "bad_request"),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), "400", "bad_request"),
        (post("A b: 1\r\n"), "400", "bad_request"),
        (post("Content-Length: a\r\n"), "400", "bad_request"),
        (post("Transfer-Encoding: chunked\r\n") + "nonsense\r\n", "400", "bad_request"),
        (post("Transfer-Encoding: gzip\r\n"), "400", "ambiguous_framing"),
        (post("Content-Length: 1\r\nContent-Length: 2\r\n"), "400", "ambiguous_framing"),
        (
            post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
            "400",
            "ambiguous_framing",
        ),
        (many, "431", "request_headers_too_large"),
        (long, "431", "request_headers_too_large"),
    ] {
        let shown = &request[..request.len().min(100)];
        println!("{shown:?}");
        let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
        // It may be answered, and no more of it read, before it is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.write_all(b"GET /smuggled HTTP/1.1\r\nHost: reviews:9080\r\n\r\n").await;
        let (head, body) = read_message(&mut stream).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?}: {head}");
        assert!(head.contains(&format!("reason=\"{reason}\"")), "{shown:?}: {head}");
        assert!(head.contains("Connection: close\r\n"), "{shown:?}: {head}");
        assert!(String::from_utf8(body).unwrap().starts_with(reason), "{shown:?}");
        let mut more = Vec::new();
        let _ = within("its end", stream.read_to_end(&mut more)).await;
        assert!(more.is_empty(), "{shown:?}: nothing behind it is answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_behind_an_upgrade_that_is_not_granted_is_no_request() {
    let caller = caller(&[Service::new("reviews:9080", &[echo().await])]);
    let ask = "GET /ask HTTP/1.1\r\nHost: reviews:9080\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: reviews:9080\r\n\r\n";
    let answer = exchange_bytes(caller.outbound[0], format!("{ask}{smuggled}").as_bytes()).await;
    assert!(answer.contains("GET /ask ") && !answer.contains("/smuggled"), "{answer}");
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
}
