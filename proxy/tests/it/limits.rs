//! How much a workload takes on: what callers see of its limits, over real sockets and with two workers. The callee reads manifests, as in its file mode.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::Request;
use outrigger_config::resolve::Subscriber;
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::harness::*;

mod uploads;

struct Callee {
    running: Running,
    manifests: TempDir,
    http: SocketAddr,
    tcp: SocketAddr,
}

impl Callee {
    /// Behind a Service with a port for each of two apps. `spec` is what the policy says.
    async fn start(http_app: SocketAddr, tcp_app: SocketAddr, spec: &str) -> Self {
        let (http, tcp) = (ports::free(), ports::free());
        let manifests = tempfile::tempdir().expect("a directory");
        let base = format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w, labels: {{app: w}}}}\nspec:\n  address: 127.0.0.1\n  ports:\n  \
             - {{name: http, port: {http}, appPort: {}, appProtocol: http}}\n  \
             - {{name: tcp, port: {tcp}, appPort: {}, appProtocol: tcp}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec:\n  selector: {{app: w}}\n  ports:\n  \
             - {{name: http, port: 80, targetPort: {http}, appProtocol: http}}\n  - {{name: tcp, port: 90, targetPort: {tcp}, appProtocol: tcp}}\n",
            http_app.port(),
            tcp_app.port()
        );
        std::fs::write(manifests.path().join("base.yaml"), base).expect("it can be written");
        write(&manifests, spec);
        let mut setup = Setup::new(Own::Sidecar);
        setup.workers = Some(2);
        setup.inbound_listen = Some(LOOPBACK);
        let paths = vec![manifests.path().to_owned()];
        let running = app::start(setup, move |_| {
            Ok((Source::files(paths, Subscriber::sidecar("default", "w"))?, None))
        });
        let running = running.expect("it starts");
        let (http, tcp) = (offered(&running, http).await, offered(&running, tcp).await);
        Self { running, manifests, http, tcp }
    }

    async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = Http1::connect(self.running.metrics).await.get("/metrics", "proxy").await.body;
        let of = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        text.lines().filter(of).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// Replaces the policy, as an editor or a deployment does.
fn write(manifests: &TempDir, spec: &str) {
    let policy = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p}}\n\
         spec: {{targetRefs: [{{kind: Service, name: s}}], {spec}}}\n"
    );
    let (path, new) = (manifests.path().join("policy.yaml"), manifests.path().join(".new"));
    std::fs::write(&new, policy).expect("it can be written");
    std::fs::rename(new, path).expect("it can be replaced");
}

async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    try_connect(from, to).await.expect("it listens")
}

/// A connection that is refused may be reset before anybody hears that it stood.
async fn try_connect(from: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0).into()).expect("a loopback address");
    socket.connect(to).await
}

async fn client(from: u8, to: SocketAddr) -> Http1 {
    Http1::over(connect(from, to).await).await
}

/// A hundred requests a second for 30 s, against 50 a second and 10 at once; from `connections`.
async fn a_hundred_a_second(connections: u32) {
    let spec = "rateLimit: {limits: [{name: all, requests: 50, burst: 10}]}";
    let callee = Callee::start(echo().await, echo().await, spec).await;
    let sent = Arc::new(AtomicU32::new(0));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for nth in 0..connections {
        let (mut client, sent) = (client(1, callee.http).await, sent.clone());
        tasks.push(tokio::spawn(async move {
            // In turn: sixty at once would find ten tokens, however long ago the last ones were.
            let first = begun + Duration::from_millis(10) * nth;
            let mut ticks = interval_at(first, Duration::from_millis(10) * connections);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut answers = Vec::new();
            while sent.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                ticks.tick().await;
                let asked = begun.elapsed();
                let answer = client.get("/", "s").await;
                assert!(matches!(answer.status, 200 | 429), "{answer:?}");
                answers.push((asked, begun.elapsed(), answer.status));
            }
            answers
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.expect("no panic"));
    }
    assert_eq!(answers.len(), REQUESTS as usize);
    let admitted = answers.iter().filter(|(.., status)| *status == 200).count();
    // A machine that stands still for a while lets the bucket run over: what theory allows depends on when each was decided on, which was between
    // these two.
    let asked = allowed(answers.iter().map(|(asked, ..)| *asked).collect());
    let answered = allowed(answers.iter().map(|(_, answered, _)| *answered).collect());
    println!(
        "{connections} connections: {admitted} in {:?}, {asked} to {answered} in theory",
        begun.elapsed()
    );
    let (least, most) = (asked.min(answered) as f64, asked.max(answered) as f64);
    assert!((least * 0.85..=most * 1.15).contains(&(admitted as f64)), "{admitted}, not {least} to {most}");
    let refused = u64::from(REQUESTS) - admitted as u64;
    assert_eq!(callee.metric("outrigger_limited_total", &["limit=\"all\""]).await, refused);
}

/// How many of the requests at these moments find a token in a bucket of ten that gets 50 a second.
fn allowed(mut moments: Vec<Duration>) -> usize {
    moments.sort();
    let (mut tokens, mut last) = (10.0_f64, Duration::ZERO);
    let mut finds = |moment: &Duration| {
        tokens = (tokens + (*moment - last).as_secs_f64() * 50.0).min(10.0);
        last = *moment;
        let found = tokens >= 1.0;
        tokens -= f64::from(u8::from(found));
        found
    };
    moments.iter().filter(|moment| finds(moment)).count()
}

/// Thirty seconds' worth.
const REQUESTS: u32 = 3_000;

/// Takes the half minute that the promise is about, from one connection and from many at the same time; each callee has two workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_a_second_for_half_a_minute() {
    tokio::join!(a_hundred_a_second(1), a_hundred_a_second(64));
}

#[tokio::test]
async fn a_noisy_caller_leaves_the_others_theirs() {
    let spec = "rateLimit: {limits: [{name: each, requests: 3, per: 1h, key: [{by: Address}]}]}";
    let callee = Callee::start(echo().await, echo().await, spec).await;
    let mut noisy = client(1, callee.http).await;
    for _ in 0..3 {
        assert_eq!(noisy.get("/", "s").await.status, 200);
    }
    for _ in 0..20 {
        let refused = noisy.get("/", "s").await;
        assert_eq!((refused.status, refused.reason()), (429, "rate_limited"), "on a connection that is kept");
        assert_eq!(refused.header("ratelimit-policy"), "\"each\";q=3;w=3600");
        assert!(refused.header("ratelimit").starts_with("\"each\";r=0;t="), "{refused:?}");
        let wait: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!((1_000..=1_200).contains(&wait), "one of three an hour, after {wait} s");
        assert!(!refused.body.contains("TrafficPolicy"), "who proves nothing is told the word alone");
    }
    let mut other = client(2, callee.http).await;
    assert_eq!(other.get("/", "s").await.status, 200);
    assert_eq!(
        callee.metric("outrigger_requests_total", &["reason=\"rate_limited\"", "code=\"429\""]).await,
        20
    );
}

#[tokio::test]
async fn a_grpc_caller_is_pushed_back() {
    let spec = "rateLimit: {limits: [{requests: 1, per: 1h, match: [{grpc: [{service: a.B, method: C}]}]}]}";
    let callee = Callee::start(echo().await, echo().await, spec).await;
    let mut client = Http2::connect(callee.http).await;
    let call = |method: &str| {
        let uri = format!("http://s/a.B/{method}");
        Request::post(uri).header("content-type", "application/grpc").body(text("")).expect("valid")
    };
    assert_eq!(client.send(call("C")).await.status(), 200);
    let refused = Answer::read(client.send(call("C")).await).await;
    assert_eq!((refused.status, refused.header("grpc-status")), (200, "8"), "trailers-only");
    let wait: u64 = refused.header("grpc-retry-pushback-ms").parse().expect("milliseconds");
    assert!((3_000_000..=3_600_000).contains(&wait), "{wait}");
    assert_eq!(refused.header("retry-after"), "");
    let other = Answer::read(client.send(call("D")).await).await;
    assert_eq!((other.status, other.header("grpc-status")), (200, ""), "another method is not counted");
}

#[tokio::test]
async fn connections_that_carry_bytes_are_limited_too() {
    let tcp = bytes_app(|mut stream| async move {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    })
    .await;
    let spec = "rateLimit: {limits: [{connections: 2, per: 1h, key: [{by: Address}]}]}";
    let callee = Callee::start(echo().await, tcp, spec).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(1, callee.tcp).await;
        stream.write_all(b"hello").await.expect("it reads");
        let mut back = [0; 5];
        within("the echo", stream.read_exact(&mut back)).await.expect("it is carried");
        open.push(stream);
    }
    let third = async {
        let mut stream = try_connect(1, callee.tcp).await?;
        stream.write_all(b"hello").await?;
        stream.read(&mut [0; 5]).await
    };
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let error = within("an answer", third).await.expect_err("it is reset");
    // What was written after the reset says so in its own way.
    assert!(matches!(error.kind(), ConnectionReset | BrokenPipe), "{error}");
    let mut other = connect(2, callee.tcp).await;
    other.write_all(b"hello").await.expect("it reads");
    within("the echo", other.read_exact(&mut [0; 5])).await.expect("another caller's is carried");
    let mut http = client(1, callee.http).await;
    for _ in 0..5 {
        assert_eq!(http.get("/", "s").await.status, 200, "requests are no connections");
    }
    assert_eq!(callee.metric("outrigger_limited_total", &["limit=\"limit-0\""]).await, 1);
}

#[tokio::test]
async fn as_many_requests_at_the_same_time_as_may_be_and_a_change_takes_effect() {
    let (send, release) = tokio::sync::watch::channel(false);
    let slow = app(move |_| {
        let mut release = release.clone();
        async move {
            let (sender, body) = frames();
            tokio::spawn(async move {
                let _ = sender.send(http_body::Frame::data("begun ".into())).await;
                let _ = release.wait_for(|released| *released).await;
            });
            http::Response::new(body)
        }
    })
    .await;
    let spec = "concurrency: {limits: [{requests: 2}]}";
    let callee = Callee::start(slow, echo().await, spec).await;
    let mut client = Http2::connect(callee.http).await;
    let get = || Request::get("http://s/").body(text("")).expect("valid");
    let first = [client.send(get()).await, client.send(get()).await];
    let refused = Answer::read(client.send(get()).await).await;
    assert_eq!((refused.status, refused.reason()), (429, "concurrency_limited"));

    write(&callee.manifests, "concurrency: {limits: [{requests: 3}]}");
    let third = within("the new number", async {
        loop {
            let response = client.send(get()).await;
            if response.status() == 200 {
                return response;
            }
            drop(response);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let third = third.await;
    send.send_replace(true);
    for response in first.into_iter().chain([third]) {
        assert_eq!(Answer::read(response).await.body, "begun ");
    }
    for _ in 0..10 {
        assert_eq!(client.get("http://s/").await.status, 200, "what ended does not count any more");
    }
}

/// The cap that finds itself, before the app: one request at a time by its bounds, the next is refused with the policy's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adaptive_cap_sheds_before_the_app() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let doors = gate.clone();
    let held = app(move |_| {
        let doors = doors.clone();
        async move {
            doors.acquire().await.expect("it is open").forget();
            http::Response::new(text("ok"))
        }
    })
    .await;
    let callee = Callee::start(held, held, "concurrency: {adaptive: {minRequests: 1, maxRequests: 1}}").await;
    let to = callee.http;
    let first = tokio::spawn(async move { Http1::connect(to).await.get("/", "s").await.status });
    within("it is under way", async {
        while callee.metric("outrigger_cap_in_use", &["cap=\"adaptive\""]).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let refused = Http1::connect(to).await.get("/", "s").await;
    assert_eq!((refused.status, refused.reason()), (503, "overloaded"));
    gate.add_permits(1);
    assert_eq!(first.await.expect("it ends"), 200);
    assert_eq!(callee.metric("outrigger_cap_overflow_total", &["cap=\"adaptive\""]).await, 1);
}
