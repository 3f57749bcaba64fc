//! Each kind of probe against an app on loopback.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const POD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Answers every connection with these bytes once it has sent a request, and gives back the last request.
async fn app(answer: &'static str) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let (listener, port) = listener().await;
    let (heads, received) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
            stream.write_all(answer.as_bytes()).await.unwrap();
            heads.send(String::from_utf8(head).unwrap()).await.unwrap();
        }
    });
    (port, received)
}

/// Status and body of the answer to one probe.
async fn probe(call: serde_json::Value) -> (u16, String) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let json = serde_json::json!({"/app-health/app/readyz": call});
    let probes: AppProbes = json.to_string().parse().unwrap();
    let asked =
        Request::get("/app-health/app/readyz").header("user-agent", "kube-probe/1.34").body(()).unwrap();
    let answer = probes.answer(&asked.into_parts().0, POD).await.expect("it is known");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn an_http_answer_from_200_to_399_is_a_good_one() {
    for (answer, want) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", (200, "ok\n")),
        ("HTTP/1.1 204 No Content\r\n\r\n", (200, "ok\n")),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", (200, "ok\n")),
        ("HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n", (200, "ok\n")),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", (503, "the app answered 404 Not Found\n")),
        (
            "HTTP/1.1 500 Oops\r\ncontent-length: 10\r\n\r\nno storage",
            (503, "the app answered 500 Internal Server Error: no storage\n"),
        ),
    ] {
        let (port, _received) = app(answer).await;
        let got = probe(serde_json::json!({"httpGet": {"port": port}})).await;
        assert_eq!((got.0, &*got.1), want, "{answer}");
    }
}

#[tokio::test]
async fn the_app_is_asked_as_the_kubelet_would_have() {
    let (port, mut received) = app("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    probe(serde_json::json!({"httpGet": {"port": port}})).await;
    let head = received.recv().await.unwrap();
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{head}");
    assert!(head.contains("user-agent: kube-probe/1.34\r\n"), "{head}");

    let headers = serde_json::json!([
        {"name": "Host", "value": "store.example"}, {"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"},
    ]);
    probe(serde_json::json!({"httpGet": {"port": port, "path": "ready?deep=1", "httpHeaders": headers}}))
        .await;
    let head = received.recv().await.unwrap();
    assert!(head.starts_with("GET /ready?deep=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: store.example\r\n") && !head.contains("127.0.0.1"), "{head}");
    assert!(head.contains("x-a: 1\r\nx-a: 2\r\n"), "{head}");
}

#[tokio::test]
async fn https_takes_any_certificate() {
    let made = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    assert_eq!(probe(serde_json::json!({"httpGet": {"port": port, "scheme": "HTTPS"}})).await.0, 200);
    let (status, said) = probe(serde_json::json!({"httpGet": {"port": port}})).await;
    assert!(status == 503 && said.contains("no answer"), "plaintext to a TLS port: {said}");
}

#[tokio::test]
async fn a_port_is_open_or_not() {
    let (listener, port) = listener().await;
    let call = serde_json::json!({"tcpSocket": {"port": port}});
    assert_eq!(probe(call.clone()).await, (200, "ok\n".to_owned()));
    drop(listener);
    let (status, said) = probe(call).await;
    assert!(status == 503 && said.starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{said}");
}

/// A health service: `ready` serves, `busy` does not, and of others it knows nothing.
async fn health() -> io::Result<u16> {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["te"], "trailers");
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                let ended =
                    |code| HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), code)]);
                let response = Response::builder().header("content-type", "application/grpc");
                let serving = match &asked[5..] {
                    // Field 1, a text.
                    b"\x0a\x05ready" => 1,
                    b"" => 1,
                    b"\x0a\x04busy" => 2,
                    _ => {
                        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
                        let mut response = response.body(body).unwrap();
                        response.headers_mut().extend(ended(http::HeaderValue::from_static("5")));
                        return Ok::<_, Infallible>(response);
                    }
                };
                let frames = [
                    Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving])),
                    Frame::trailers(ended(http::HeaderValue::from_static("0"))),
                ];
                let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
                Ok(response.body(StreamBody::new(frames).boxed()).unwrap())
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(port)
}

#[tokio::test]
async fn a_grpc_service_has_to_say_that_it_serves() {
    let port = health().await.unwrap();
    for (service, want) in [
        ("", "ok"),
        ("ready", "ok"),
        ("busy", "the app says \"NOT_SERVING\" of itself"),
        (
            "other",
            "the app answers its health check with grpc-status 5 (NOT_FOUND): it knows no such service",
        ),
    ] {
        let (status, said) = probe(serde_json::json!({"grpc": {"port": port, "service": service}})).await;
        assert_eq!((status == 200, said.trim_end()), (want == "ok", want), "{service}");
    }
    let (port, _received) = app("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(probe(serde_json::json!({"grpc": {"port": port}})).await.0, 503, "no HTTP/2 there");
}

#[tokio::test]
async fn an_app_that_is_silent_fails_at_the_timeout() {
    let (listener, port) = listener().await;
    let (status, said) = probe(serde_json::json!({"httpGet": {"port": port}, "timeoutSeconds": 1})).await;
    assert_eq!((status, &*said), (503, "the app did not answer within 1s\n"));
    drop(listener);
}

#[tokio::test]
async fn nothing_else_can_be_asked_for() {
    let probes: AppProbes = r#"{"/app-health/a/livez": {"tcpSocket": {"port": 1}}}"#.parse().unwrap();
    let answer = async |method: Method, path: &str| {
        let asked = Request::builder().method(method).uri(path).body(()).unwrap();
        probes.answer(&asked.into_parts().0, POD).await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(answer(Method::GET, "/app-health/a/readyz").await, None);
    assert_eq!(answer(Method::GET, "/app-health/a/livez/").await, None);
    assert_eq!(answer(Method::POST, "/app-health/a/livez").await, Some(405));
    assert_eq!(answer(Method::GET, "/app-health/a/livez").await, Some(503));
}

#[test]
fn what_is_handed_over_is_understood_or_refused() {
    for (probe, part) in [
        (r#"{"exec": {"command": []}}"#, "unknown field `exec`"),
        ("{}", "there must be one of"),
        (r#"{"tcpSocket": {"port": 1}, "grpc": {"port": 1}}"#, "there must be one of"),
        (r#"{"tcpSocket": {"port": "web"}}"#, "invalid type"),
        (r#"{"tcpSocket": {"port": 70000}}"#, "invalid value"),
        (r#"{"tcpSocket": {"port": 1, "host": "example.org"}}"#, "is not this pod"),
        (r#"{"httpGet": {"port": 1, "host": "example.org"}}"#, "is not this pod"),
        (r#"{"httpGet": {"port": 1, "path": "/a b"}}"#, "path: "),
        (r#"{"httpGet": {"port": 1, "scheme": "FTP"}}"#, "unknown variant `FTP`"),
        (r#"{"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}}"#, "no valid name"),
        (r#"{"httpGet": {"port": 1}, "timeoutSeconds": 0}"#, "is not 1 to 3600"),
    ] {
        let error = format!(r#"{{"/app-health/a/livez": {probe}}}"#).parse::<AppProbes>().unwrap_err();
        assert!(error.contains(part), "{probe}: {error}");
    }
    assert!(r#"{"/metrics": {"tcpSocket": {"port": 1}}}"#.parse::<AppProbes>().is_err());
    assert_eq!("{}".parse(), Ok(AppProbes::default()));
}
