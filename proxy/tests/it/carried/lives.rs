//! The lives of carried connections: how they begin, end and fail, and what has a connection of its own all the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use outrigger_config::model::{Caps, CircuitBreaker, Multiplex, Resource, Retry, RetryMethods, RetryOn};
use outrigger_proxy::app::Running;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::super::harness::*;
use super::super::http1::read_message;
use super::super::identity::pki::{self, Files};
use super::super::identity::{CALLEE, caller_as, mesh, meshed, metric};
use super::super::tunnels::{ASK, upgrading};
use super::scene::{Mesh, OPENED, files, multiplexed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_http_has_a_connection_of_its_own() {
    let files = files();
    let mesh = Mesh::start(&files, Multiplex::Always, upgrading().await).await;
    assert_eq!(Http1::connect(mesh.at()).await.get("/", "app:80").await.body, "no upgrade asked for");
    assert_eq!(metric(&mesh.callee, OPENED).await, 1);
    for n in 2..4 {
        let mut stream = TcpStream::connect(mesh.at()).await.expect("it listens");
        stream.write_all(ASK.replace("chat:80", "app:80").as_bytes()).await.expect("it reads");
        let (head, _) = read_message(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.write_all(b"ping").await.expect("it reads");
        let mut echo = [0; 4];
        within("an echo", stream.read_exact(&mut echo)).await.expect("an echo");
        assert_eq!(&echo, b"ping");
        assert_eq!(metric(&mesh.callee, OPENED).await, n, "it is not carried");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_and_carried_http1_do_not_share_a_connection() {
    let files = files();
    let mesh = Mesh::start(&files, Multiplex::Always, echo().await).await;
    let one = Http1::connect(mesh.at()).await.get("/a", "app:80").await;
    assert!(one.body.starts_with("GET /a HTTP/1.1\n"), "{one:?}");
    let two = Http2::connect(mesh.at()).await.get("http://app:80/b").await;
    assert!(two.body.starts_with("GET http://app:80/b HTTP/2.0\n"), "{two:?}");
    assert_eq!(metric(&mesh.callee, OPENED).await, 2);
    // What is counted is counted as what the app speaks, once each.
    let requests = "outrigger_requests_total{direction=\"inbound\"";
    let all = Http1::connect(mesh.callee.metrics).await.get("/metrics", "metrics").await.body;
    let counted: u64 = all
        .lines()
        .filter(|line| line.starts_with(requests))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(counted, 2, "{all}");
}

/// A callee's sidecar that knows Istio's tokens alone: whatever comes with mTLS is HTTP/1.1. Returns what it was offered, by connection.
async fn stranger(
    authority: &pki::Authority,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Vec<Vec<u8>>>) {
    let mut config = (*pki::server(&authority.leaf(CALLEE))).clone();
    config.alpn_protocols = vec![b"istio-http/1.1".to_vec(), b"istio".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    let (offers, offered) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (config, offers) = (config.clone(), offers.clone());
            tokio::spawn(async move {
                let hello =
                    tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
                let Ok(hello) = hello.await else { return };
                let names = hello.client_hello().alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                offers.send(names).ok();
                let mut stream = hello.into_stream(config).await.expect("a handshake");
                let mut head = Vec::new();
                loop {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        assert!(head.starts_with(b"GET "), "it is HTTP/1.1");
                        head.clear();
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (at, offered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_does_not_know_of_it_gets_http1() {
    let (authority, caller_files, _) = mesh();
    let (at, mut offered) = stranger(&authority).await;
    let resources = multiplexed(meshed(&Service::new("app:80", &[at]), CALLEE), Multiplex::Always);
    let caller = caller_as(&caller_files, resources, |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let at = caller.outbound[0];
        clients.push(tokio::spawn(async move {
            let mut client = Http1::connect(at).await;
            for _ in 0..10 {
                assert_eq!(client.get("/", "app:80").await.status, 200);
            }
        }));
    }
    for client in clients {
        client.await.expect("all are answered");
    }
    let first = within("an offer", offered.recv()).await.expect("one came");
    assert_eq!(first, [b"outrigger-http/1.1-h2".to_vec(), b"istio-http/1.1".to_vec()], "best first");
    offered.close();
    while let Some(later) = offered.recv().await {
        assert_eq!(later.last().map(Vec::as_slice), Some(&b"istio-http/1.1"[..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_takes_nobody_along() {
    let (arrived, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_arrived, tell_left) = (arrived.clone(), left.clone());
    let app = bytes_app(move |mut stream| {
        let (arrived, left) = (tell_arrived.clone(), tell_left.clone());
        async move {
            let mut head = Vec::new();
            loop {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) if head.starts_with(b"GET /never ") => return left.notify_one(),
                    Err(_) => return,
                }
                if head.ends_with(b"\r\n\r\n") {
                    if head.starts_with(b"GET /never ") {
                        arrived.notify_one();
                        continue;
                    }
                    head.clear();
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        }
    })
    .await;
    let files = files();
    let mesh = Mesh::start(&files, Multiplex::Always, app).await;
    let mut stays = Http1::connect(mesh.at()).await;
    assert_eq!(stays.get("/", "app:80").await.body, "ok");
    let mut leaves = TcpStream::connect(mesh.at()).await.expect("it listens");
    leaves.write_all(b"GET /never HTTP/1.1\r\nHost: app:80\r\n\r\n").await.expect("it reads");
    within("its request", arrived.notified()).await;
    leaves.set_zero_linger().expect("an option");
    drop(leaves);
    within("the app hears that nobody waits", left.notified()).await;
    assert_eq!(stays.get("/", "app:80").await.body, "ok");
    assert_eq!(metric(&mesh.callee, OPENED).await, 1, "the connection below is the same");
}

/// Answers, but for `/reset`, which breaks the connection off.
async fn ending() -> SocketAddr {
    bytes_app(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        if head.starts_with(b"GET /reset ") || head.starts_with(b"POST /reset ") {
            stream.set_zero_linger().expect("an option");
            return;
        }
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_have_the_same_names_and_are_tried_again_alike() {
    let files = files();
    let mut before = None;
    for multiplex in [Multiplex::Never, Multiplex::Always] {
        let app = ending().await;
        let mesh = Mesh::start(&files, multiplex, app).await;
        let mut answers = Vec::new();
        for (method, path) in [("GET", "/"), ("POST", "/reset"), ("GET", "/reset"), ("GET", "/")] {
            let mut client = Http1::connect(mesh.at()).await;
            let request = Request::builder().method(method).uri(path).header("host", "app:80");
            let answer = Answer::read(client.send(request.body(text("")).expect("a request")).await).await;
            let status = answer.header("proxy-status").split("details").next().unwrap_or_default().to_owned();
            answers.push((answer.status, status));
        }
        assert_eq!(answers[1].0, 502, "{answers:?}");
        match &before {
            None => before = Some(answers),
            Some(before) => assert_eq!(*before, answers),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_tries_again_what_one_endpoint_failed() {
    let (_authority, caller_files, callee_files) = mesh();
    let start = |app| callee(&callee_files, app);
    let ((_one, bad), (_two, good)) = (start(ending().await).await, start(echo().await).await);
    let service = Service::new("app:80", &[bad, good]);
    let mut rule = route("/", &service.cluster());
    let methods = RetryMethods::Listed(vec![Method::POST]);
    rule.retry = Some(Arc::new(Retry { methods, on: vec![RetryOn::GatewayError], ..Retry::default() }));
    let service = service.routes(vec![rule]);
    let caller =
        caller_as(&caller_files, multiplexed(meshed(&service, CALLEE), Multiplex::Always), |_| {}).await;
    let mut client = Http1::connect(caller.outbound[0]).await;
    for n in 0..10 {
        let request = Request::post("/reset").header("host", "app:80");
        let answer = Answer::read(client.send(request.body(text("body")).expect("a request")).await).await;
        assert!(answer.status == 200 && answer.body.ends_with("body"), "{n}: {answer:?}");
    }
}

async fn callee(files: &Files, app: SocketAddr) -> (Running, SocketAddr) {
    use outrigger_config::model::{MtlsMode, Protocol};
    super::super::identity::callee_as(files, MtlsMode::Strict, Protocol::Http, app).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_drains_loses_nothing_and_the_next_one_takes_over() {
    let held = Arc::new(Notify::new());
    let release = held.clone();
    let slow = app(move |request: Request<Incoming>| {
        let held = held.clone();
        async move {
            if request.uri().path() == "/slow" {
                held.notified().await;
            }
            Response::new(text("first"))
        }
    })
    .await;
    let (_authority, caller_files, callee_files) = mesh();
    let ((first, one), (_second, two)) =
        (callee(&callee_files, slow).await, callee(&callee_files, echo().await).await);
    let service = Service::new("app:80", &[one, two]);
    let caller =
        caller_as(&caller_files, multiplexed(meshed(&service, CALLEE), Multiplex::Always), |_| {}).await;
    let at = caller.outbound[0];
    // Until one of them is under way at the first.
    let slow = |n: usize| {
        tokio::spawn(async move {
            let mut client = Http1::connect(at).await;
            let answer = client.get(if n == 0 { "/" } else { "/slow" }, "app:80").await;
            (answer.status, answer.body == "first")
        })
    };
    let mut under_way: Vec<_> = (0..16).map(slow).collect();
    rises_to_at_least(&first, OPENED, 1).await;
    assert_eq!(ask_drain(&first).await, 200);
    let mut client = Http1::connect(at).await;
    for _ in 0..50 {
        assert_eq!(client.get("/", "app:80").await.status, 200);
    }
    for _ in 0..16 {
        release.notify_one();
        tokio::task::yield_now().await;
    }
    while let Some(one) = under_way.pop() {
        release.notify_waiters();
        release.notify_one();
        let (status, _) = within("an answer", async {
            let mut one = one;
            loop {
                tokio::select! {
                    done = &mut one => break done.expect("it ends"),
                    () = tokio::time::sleep(Duration::from_millis(20)) => release.notify_waiters(),
                }
            }
        })
        .await;
        assert_eq!(status, 200, "what was under way is answered");
    }
}

async fn rises_to_at_least(running: &Running, series: &str, value: u64) {
    within(series, async {
        while metric(running, series).await < value {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn ask_drain(running: &Running) -> u16 {
    let request = Request::post("/drain").header("host", "admin").body(text("")).expect("a request");
    Http1::connect(running.admin).await.send(request).await.status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_on_connections_counts_what_carries_and_an_idle_one_makes_room() {
    let (_authority, caller_files, callee_files) = mesh();
    let ((_one, first), (_two, second)) =
        (callee(&callee_files, echo().await).await, callee(&callee_files, echo().await).await);
    let mut resources =
        multiplexed(meshed(&Service::new("app:80", &[first, second]), CALLEE), Multiplex::Always);
    for resource in &mut resources {
        if let Resource::Cluster(cluster) = resource {
            let caps = Caps { connections: Some(1), ..Caps::default() };
            cluster.circuit_breaker = Arc::new(CircuitBreaker { caps, ..CircuitBreaker::default() });
        }
    }
    let caller = caller_as(&caller_files, resources, |_| {}).await;
    let mut client = Http1::connect(caller.outbound[0]).await;
    for n in 0..20 {
        let answer = client.get("/", "app:80").await;
        assert_eq!(answer.status, 200, "{n}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_few_are_under_way_each_has_a_connection_of_its_own_and_busy_ones_share() {
    let files = files();
    let mesh = Mesh::start(&files, Multiplex::WhenBusy, echo().await).await;
    let mut client = Http1::connect(mesh.at()).await;
    for _ in 0..200 {
        assert_eq!(client.get("/", "app:80").await.status, 200);
    }
    assert_eq!(metric(&mesh.callee, OPENED).await, 1, "one after the other");
    drop(client);
    // What the unit tests say of many at a time holds in one worker; here only that nothing is lost whatever is chosen.
    let mut clients = Vec::new();
    for _ in 0..64 {
        let at = mesh.at();
        clients.push(tokio::spawn(async move {
            let mut client = Http1::connect(at).await;
            for _ in 0..50 {
                assert_eq!(client.get("/", "app:80").await.status, 200);
            }
        }));
    }
    for client in clients {
        client.await.expect("all are answered");
    }
    rises_to_at_least(&mesh.callee, OPENED, 2).await;
}
