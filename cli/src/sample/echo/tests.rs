//! The echo over loopback, spoken to in raw bytes where bytes matter.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::sample::listen::serve;

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Stop::default();
    let echo = Echo { name: "one".into(), max_streams: MAX_STREAMS, stop: stop.clone() };
    tokio::spawn(serve(listener, Arc::new(echo), stop));
    address
}

/// Reads one answer: its head, in lower case, and as much body as its `content-length` says.
async fn read_answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "{:?}", String::from_utf8_lossy(&bytes));
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    while body.len() < length {
        assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0);
    }
    assert_eq!(body.len(), length);
    (head, body)
}

async fn ask(stream: &mut TcpStream, request: &str) -> Value {
    stream.write_all(request.as_bytes()).await.unwrap();
    serde_json::from_slice(&read_answer(stream).await.1).unwrap()
}

#[tokio::test]
async fn a_request_is_described_with_its_fields_in_order_and_case() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    for round in 0..2 {
        let request = "POST /a/b?c=d HTTP/1.1\r\nhOsT: x\r\nB-Two: 2\r\nA-One: 1\r\nb-two: 3\r\nContent-Length: 9\r\n\r\n123456789";
        let said = ask(&mut stream, request).await;
        assert_eq!(said["instance"], "one");
        assert_eq!(
            (&said["method"], &said["path"], &said["query"], &said["version"]),
            (&json!("POST"), &json!("/a/b"), &json!("c=d"), &json!("HTTP/1.1"))
        );
        let fields =
            json!([["hOsT", "x"], ["B-Two", "2"], ["A-One", "1"], ["b-two", "3"], ["Content-Length", "9"]]);
        assert_eq!((&said["headers"], &said["headersAsReceived"]), (&fields, &json!(true)), "round {round}");
        // The check value every description of CRC-32 gives for these nine digits.
        assert_eq!(said["body"], json!({"length": 9, "crc32": "cbf43926"}));
    }
}

#[tokio::test]
async fn pipelined_requests_are_all_described_the_later_ones_in_lower_case() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    let one = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 29\r\n\r\nGET / HTTP/1.1\r\nHost: fake\r\n\r\n";
    stream.write_all([one, one].concat().as_bytes()).await.unwrap();
    let mut both = Vec::new();
    while both.windows(16).filter(|at| *at == b"headersAsReceive").count() < 2 || !both.ends_with(b"\"}") {
        assert_ne!(stream.read_buf(&mut both).await.unwrap(), 0);
    }
    let both = String::from_utf8(both).unwrap();
    assert_eq!(both.matches("\"headersAsReceived\":true").count(), 1, "{both}");
    assert_eq!(both.matches("[\"host\",\"x\"]").count(), 1, "{both}");
}

#[tokio::test]
async fn statuses_are_given_as_asked_and_nonsense_is_refused() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    for (path, want) in [
        ("/status/200", "200"),
        ("/status/204", "204"),
        ("/status/304", "304"),
        ("/status/503", "503"),
        ("/status/599", "599"),
        ("/status/101", "400"),
        ("/status/600", "400"),
        ("/status/x", "400"),
        ("/delay/x", "400"),
        ("/delay/0", "200"),
        ("/delay/600001", "400"),
        ("/bytes/-1", "400"),
        ("/upgrade", "400"),
        ("/ws", "400"),
    ] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let (head, _) = read_answer(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {want} ")), "{path}: {head}");
    }
}

#[tokio::test]
async fn a_delayed_answer_takes_its_time() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(ask(&mut stream, "GET /delay/30 HTTP/1.1\r\nHost: x\r\n\r\n").await["path"], "/delay/30");
    assert!(begun.elapsed() >= Duration::from_millis(30));
}

type Http2<B> = hyper::client::conn::http2::SendRequest<B>;

async fn http2<B>(address: SocketAddr) -> Http2<B>
where
    B: hyper::body::Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    send
}

#[tokio::test]
async fn http2_requests_and_trailers_are_described_and_trailers_answered() {
    let mut send = http2(start().await).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-end", HeaderValue::from_static("here"));
    let body =
        Full::new(Bytes::from_static(b"123456789")).with_trailers(async { Some(Ok(trailers)) }).boxed();
    let answer = send.send_request(Request::put("http://shop/x").body(body).unwrap()).await.unwrap();
    let said: Value =
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&said["version"], &said["authority"]), (&json!("HTTP/2.0"), &json!("shop")));
    assert_eq!(said["trailers"], json!([["x-end", "here"]]));
    assert_eq!(said["body"]["crc32"], "cbf43926");

    let request = Request::get("http://shop/trailers").body(Full::new(Bytes::new()).boxed()).unwrap();
    let collected = send.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-finished"], "yes");
}

#[tokio::test]
async fn http1_clients_that_ask_for_trailers_get_them() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    let request = b"GET /trailers HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("0\r\nx-crc32: e06b2e9a\r\nx-finished: yes\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn generated_bytes_have_the_length_and_pattern_asked_for() {
    let mut send = http2::<Empty<Bytes>>(start().await).await;
    for (path, length, sized) in
        [("/bytes/0", 0, true), ("/bytes/200000", 200_000, true), ("/bytes/200000?chunked", 200_000, false)]
    {
        let request = Request::get(format!("http://x{path}")).body(Empty::new()).unwrap();
        let answer = send.send_request(request).await.unwrap();
        let told =
            answer.headers().get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(told, sized.then(|| length.to_string()), "{path}");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let pattern: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
        assert!(bytes == pattern, "{path}: {} bytes", bytes.len());
    }
}

#[tokio::test]
async fn an_upload_is_counted_and_summed() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    let request = "POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n5\r\n56789\r\n0\r\n\r\n";
    let said = ask(&mut stream, request).await;
    assert_eq!(said, json!({"instance": "one", "body": {"length": 9, "crc32": "cbf43926"}}));
}

#[tokio::test]
async fn a_websocket_opens_echoes_and_closes() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    let handshake = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, b\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let (head, _) = read_answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(head.contains("sec-websocket-protocol: a\r\n"), "{head}");
    // "Hello" with a mask of zeros, then a close with code 1000.
    stream.write_all(&[0x81, 0x85, 0, 0, 0, 0, b'H', b'e', b'l', b'l', b'o']).await.unwrap();
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0x81, 0x05, b'H', b'e', b'l', b'l', b'o', 0x88, 0x02, 0x03, 0xe8]);
}

#[tokio::test]
async fn a_websocket_handshake_without_its_parts_is_refused() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    let fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
    for (fields, want) in [
        (&[fields[0], fields[1], fields[2]][..], "426" /* no version */),
        (&[fields[0], fields[1], "Sec-WebSocket-Version: 13"], "400" /* no key */),
        (
            &[fields[0], fields[1], "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: c2hvcnQ="],
            "400", /* short key */
        ),
        (&[fields[0], fields[2], "Sec-WebSocket-Version: 13"], "400" /* no Upgrade */),
    ] {
        let request = format!("GET /ws HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", fields.join("\r\n"));
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, _) = read_answer(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {want} ")), "{fields:?}: {head}");
        assert_eq!(head.contains("sec-websocket-version: 13"), want == "426", "{head}");
    }
}

#[tokio::test]
async fn a_websocket_opens_over_http2() {
    let mut send = http2::<Empty<Bytes>>(start().await).await;
    let mut request = Request::connect("http://x/ws").body(Empty::new()).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let answer = send.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    stream.write_all(&[0x82, 0x81, 0, 0, 0, 0, 7]).await.unwrap();
    let mut echoed = [0; 3];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(echoed, [0x82, 0x01, 7]);
}

#[tokio::test]
async fn any_other_upgrade_echoes_bytes() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    stream
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: any\r\n\r\n")
        .await
        .unwrap();
    let (head, _) = read_answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: any\r\n"), "{head}");
    stream.write_all(b"raw").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).await.unwrap();
    assert_eq!(echoed, b"raw");
}
