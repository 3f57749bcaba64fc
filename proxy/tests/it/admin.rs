//! The proxy's own ports.

use http::{Method, Request};

use crate::harness::*;

async fn ask(at: std::net::SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", at.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(text("")).expect("valid");
    Answer::read(Http1::connect(at).await.send(request).await).await
}

#[tokio::test]
async fn methods_are_those_of_the_endpoint() {
    let proxy = caller(&[]);
    for (at, method, path, want, allow) in [
        (proxy.admin, Method::GET, "/server_info", 200, ""),
        (proxy.admin, Method::HEAD, "/server_info", 200, ""),
        (proxy.admin, Method::POST, "/server_info", 405, "GET, HEAD"),
        (proxy.admin, Method::GET, "/drain", 405, "POST"),
        (proxy.admin, Method::HEAD, "/drain", 405, "POST"),
        (proxy.admin, Method::GET, "/metrics", 404, ""),
        (proxy.metrics, Method::GET, "/metrics", 200, ""),
        (proxy.metrics, Method::HEAD, "/stats/prometheus", 200, ""),
        (proxy.metrics, Method::DELETE, "/metrics", 405, "GET, HEAD"),
        (proxy.metrics, Method::POST, "/drain", 404, ""),
    ] {
        let answer = ask(at, method.clone(), path, &[]).await;
        assert_eq!((answer.status, answer.header("allow")), (want, allow), "{method} {path}");
        assert_eq!(answer.body.is_empty(), method == Method::HEAD, "{method} {path}");
        assert!(method != Method::HEAD || want != 200 || answer.header("content-length") != "0", "{path}");
    }
    assert!(ask(proxy.admin, Method::GET, "/", &[]).await.body.contains("POST /drain: "));
}

#[tokio::test]
async fn a_page_in_a_browser_changes_nothing() {
    let proxy = caller(&[]);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:15000"] {
        let answer = ask(proxy.admin, Method::POST, "/drain", &[("origin", origin)]).await;
        assert_eq!(answer.status, 403, "{origin}");
    }
    assert!(ask(proxy.admin, Method::GET, "/server_info", &[]).await.body.contains("\"Running\""));
    // Whoever sends no origin is a tool.
    assert_eq!(ask(proxy.admin, Method::POST, "/drain", &[]).await.status, 200);
}
