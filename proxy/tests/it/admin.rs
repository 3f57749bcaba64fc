//! The proxy's own ports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use outrigger_config::model::ProxySettings;
use outrigger_proxy::ask::{Ask, Where};
use outrigger_proxy::drain::Phase;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::*;

async fn ask(at: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
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

pub async fn json(at: SocketAddr, path: &str) -> Value {
    let answer = ask(at, Method::GET, path, &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{path}");
    serde_json::from_str(&answer.body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_and_how_it_is_doing_can_be_read() {
    let held = Arc::new(tokio::sync::Notify::new());
    let release = held.clone();
    let at = app(move |_| {
        let held = held.clone();
        async move {
            held.notified().await;
            http::Response::new(text("at last"))
        }
    })
    .await;
    let proxy = caller(&[Service::new("reviews:9080", &[at])]);
    let outbound = proxy.outbound[0];
    let asking =
        tokio::spawn(async move { Http1::connect(outbound).await.get("http://reviews:9080/", "").await });
    let endpoint = within("the request is in flight", async {
        loop {
            let clusters = json(proxy.admin, "/clusters").await;
            let endpoint = &clusters["clusters"][0]["endpoints"][0];
            if endpoint["in_flight"] == 1 {
                assert_eq!(clusters["clusters"][0]["name"], "outbound|9080||reviews");
                assert_eq!(clusters["clusters"][0]["service"], "reviews.default");
                break endpoint.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(endpoint["address"], at.to_string());
    assert_eq!((&endpoint["health"], &endpoint["weight"]), (&"Healthy".into(), &1.into()));
    assert!(endpoint["estimate_ms"].as_f64().is_some_and(|estimate| estimate > 0.0), "{endpoint}");
    release.notify_one();
    assert_eq!(asking.await.expect("no panic").status, 200);

    let dump = json(proxy.admin, "/config_dump").await;
    assert_eq!((&dump["source"]["connected"], &dump["source"]["age_seconds"]), (&true.into(), &0.into()));
    let resources = dump["resources"].as_array().expect("a list");
    let listener =
        resources.iter().find(|one| one["name"] == "outbound|reviews:9080").expect("it was asked for");
    assert_eq!(listener["stale"], false);
    assert!(listener["version"].as_str().is_some_and(|version| version.len() >= 16), "{listener}");
    assert!(listener["resource"].to_string().contains("reviews"), "{listener}");

    let info = json(proxy.admin, "/server_info").await;
    assert_eq!(
        (&info["ready"], &info["phase"], &info["captured"]),
        (&true.into(), &"Running".into(), &false.into())
    );
}

#[tokio::test]
async fn the_log_level_is_changed_while_the_proxy_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let workload = "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: alone}\n\
                    spec: {address: 127.0.0.1, ports: [{port: 9999}]}\n";
    std::fs::write(folder.path().join("mesh.yaml"), workload).expect("written");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"));
    let mut at = Vec::new();
    for flag in ["--admin", "--metrics", "--outbound", "--inbound"] {
        at.push(SocketAddr::new(LOOPBACK, ports::free()));
        command.arg(flag).arg(at[at.len() - 1].to_string());
    }
    let (admin, metrics) = (at[0], at[1]);
    command.arg("--manifests").arg(folder.path()).args(["--workload", "alone"]);
    let mut proxy = command
        .env("OUTRIGGER_LOG", "warn")
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let listens = async {
        while tokio::net::TcpStream::connect(admin).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the admin port is open", listens).await;

    assert_eq!(json(admin, "/logging").await["level"], "warn");
    for wrong in ["/logging", "/logging?level=verbose", "/logging?level=%FF", "/logging?debug"] {
        assert_eq!(ask(admin, Method::POST, wrong, &[]).await.status, 400, "{wrong}");
    }
    assert_eq!(json(admin, "/logging").await["level"], "warn");
    // Nothing of this is logged, then all of it is.
    assert_eq!(
        ask(admin, Method::POST, "/logging?level=error,outrigger_proxy%3A%3Adrain%3Dinfo", &[]).await.status,
        200
    );
    assert_eq!(json(admin, "/logging").await["level"], "outrigger_proxy::drain=info,error");
    assert_eq!(ask(admin, Method::POST, "/drain", &[]).await.status, 200);
    let mut log = BufReader::new(proxy.stderr.take().expect("it is a pipe")).lines();
    let line = within("a line of the log", log.next_line()).await.expect("readable").expect("it runs");
    assert!(line.contains("INFO") && line.contains("outrigger_proxy::drain"), "{line}");

    // The line was about a drain, which readiness shows as well.
    let info = json(admin, "/server_info").await;
    assert_eq!(
        (&info["ready"], &info["missing"]),
        (&false.into(), &serde_json::json!(["draining"])),
        "{info}"
    );
    let answer = ask(metrics, Method::GET, "/healthz/ready", &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "draining\n"));
}

#[tokio::test]
async fn probes_of_the_app_are_made_by_the_proxy_and_only_at_the_metrics_port() {
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = app.local_addr().expect("bound").port();
    let handed = format!(r#"{{"/app-health/app/livez": {{"tcpSocket": {{"port": {port}}}}}}}"#);
    let probes = handed.parse().expect("valid");
    let proxy = caller_with(&[], ProxySettings::default(), |setup| setup.app_probes = probes);
    assert_eq!(ask(proxy.metrics, Method::GET, "/app-health/app/livez", &[]).await.status, 200);
    assert_eq!(ask(proxy.metrics, Method::GET, "/app-health/app/readyz", &[]).await.status, 404);
    assert_eq!(ask(proxy.admin, Method::GET, "/app-health/app/livez", &[]).await.status, 404);
    drop(app);
    assert_eq!(ask(proxy.metrics, Method::GET, "/app-health/app/livez", &[]).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_can_ask_it_to_leave() {
    let proxy = caller(&[]);
    let drain = proxy.shared.drain.clone();
    let mut watch = drain.watch();
    tokio::spawn(async move { drain.run().await });
    let at = Where { admin: proxy.admin };
    tokio::task::spawn_blocking(move || Ask::Drain(at).run()).await.expect("no panic").expect("it answers");
    watch.reached(Phase::Announcing).await;
    // A port at which somebody else is, and one at which nobody is.
    let elsewhere = Where { admin: proxy.metrics };
    assert!(Ask::Shutdown(elsewhere).run().is_err());
    drop(proxy);
    assert!(Ask::Drain(at).run().is_err());
}
