//! What goes wrong on purpose, as callers and apps see it: whole proxies over real sockets, on manifests that are edited while they run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use outrigger_config::resolve::Subscriber;
use outrigger_proxy::app::{self as proxy, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::harness::*;
use super::ports;
use super::retries::counted;

/// A sidecar, before the app of Service `s` or before one that calls it.
struct Mesh {
    running: Running,
    manifests: TempDir,
    http: SocketAddr,
    tcp: SocketAddr,
}

impl Mesh {
    /// `spec` is what the policy for Service `s` says. As the caller `web` sees it.
    async fn caller(http_app: SocketAddr, tcp_app: SocketAddr, spec: &str) -> Self {
        // One app for both is one nobody calls by bytes.
        let tcp = if tcp_app == http_app { ports::free() } else { tcp_app.port() };
        let manifests = manifests((http_app.port(), tcp), (http_app, tcp_app), spec);
        let mut setup = Setup::new(Own::Sidecar);
        setup.workers = Some(2);
        setup.outbound = vec![(LOOPBACK, 0).into()];
        setup.service_addresses = vec![((LOOPBACK, 0).into(), "s:90".parse().expect("a name"))];
        let running = start(setup, &manifests, "web");
        let (http, tcp) = (running.outbound[0], running.service_addresses[0]);
        Self { running, manifests, http, tcp }
    }

    async fn callee(http_app: SocketAddr, tcp_app: SocketAddr, spec: &str) -> Self {
        let offered_at = (ports::free(), ports::free());
        let manifests = manifests(offered_at, (http_app, tcp_app), spec);
        let mut setup = Setup::new(Own::Sidecar);
        setup.workers = Some(2);
        setup.inbound_listen = Some(LOOPBACK);
        let running = start(setup, &manifests, "w");
        let (http, tcp) = (offered(&running, offered_at.0).await, offered(&running, offered_at.1).await);
        Self { running, manifests, http, tcp }
    }

    async fn client(&self) -> Http1 {
        Http1::connect(self.http).await
    }

    async fn done(&self, label: &str) -> u64 {
        counted(&self.running, "outrigger_faults_total", label).await
    }
}

fn start(setup: Setup, manifests: &TempDir, workload: &'static str) -> Running {
    let paths = vec![manifests.path().to_owned()];
    let started = proxy::start(setup, move |_| {
        Ok((Source::files(paths, Subscriber::sidecar("default", workload))?, None))
    });
    started.expect("it starts")
}

fn manifests(ports: (u16, u16), apps: (SocketAddr, SocketAddr), spec: &str) -> TempDir {
    let manifests = tempfile::tempdir().expect("a directory");
    let (http, tcp) = ports;
    let base = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w, labels: {{app: w}}}}\nspec:\n  address: 127.0.0.1\n  ports:\n  \
         - {{name: http, port: {http}, appPort: {}, appProtocol: http}}\n  \
         - {{name: tcp, port: {tcp}, appPort: {}, appProtocol: tcp}}\n---\n\
         apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: web}}\n\
         spec: {{address: 127.0.0.9, serviceAccount: web, ports: []}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec:\n  selector: {{app: w}}\n  ports:\n  \
         - {{name: http, port: 80, targetPort: {http}, appProtocol: http}}\n  - {{name: tcp, port: 90, targetPort: {tcp}, appProtocol: tcp}}\n",
        apps.0.port(),
        apps.1.port()
    );
    std::fs::write(manifests.path().join("base.yaml"), base).expect("it can be written");
    write(&manifests, spec);
    manifests
}

fn write(manifests: &TempDir, spec: &str) {
    let policy = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p}}\n\
         spec: {{targetRefs: [{{kind: Service, name: s}}], {spec}}}\n"
    );
    let (path, new) = (manifests.path().join("policy.yaml"), manifests.path().join(".new"));
    std::fs::write(&new, policy).expect("it can be written");
    std::fs::rename(new, path).expect("it can be replaced");
}

/// An app that counts what it was asked.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let at = app(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Response::new(text("well")) }
    })
    .await;
    (at, count)
}

/// An app that says so many bytes to everybody, and ends.
async fn talking(bytes: usize) -> SocketAddr {
    bytes_app(move |mut stream: TcpStream| async move {
        let _ = stream.write_all(&vec![b'x'; bytes]).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

fn of_user(user: &str) -> Request<ClientBody> {
    Request::get("http://s/").header("host", "s").header("end-user", user).body(text("")).expect("valid")
}

/// The statuses of so many requests in a row.
async fn statuses(mesh: &Mesh, requests: usize) -> Vec<u16> {
    let mut client = mesh.client().await;
    let mut found = Vec::new();
    for _ in 0..requests {
        found.push(client.get("http://s/", "s").await.status);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_hits_the_user_it_is_meant_for_until_the_file_is_gone() {
    for status in [500, 555] {
        let (at, asked) = counting().await;
        let fault = format!(
            "fault: {{faults: [{{name: jason, match: [{{headers: [{{name: end-user, value: jason}}]}}], abort: {{httpStatus: {status}}}}}]}}"
        );
        let mesh = Mesh::caller(at, at, &fault).await;
        let mut client = mesh.client().await;
        let hit = Answer::read(client.send(of_user("jason")).await).await;
        assert_eq!((hit.status, hit.reason()), (status, "fault_abort"));
        assert!(hit.body.contains("fault default/p jason of TrafficPolicy/default/p"), "{}", hit.body);
        assert_eq!(asked.load(Ordering::Relaxed), 0, "the app hears nothing of it");
        assert_eq!(Answer::read(client.send(of_user("mary")).await).await.status, 200);
        assert_eq!(mesh.done("kind=\"abort\"").await, 1);
        let labels = format!("code=\"{status}\"");
        assert_eq!(counted(&mesh.running, "outrigger_requests_total", &labels).await, 1);
        std::fs::remove_file(mesh.manifests.path().join("policy.yaml")).expect("it is there");
        within("the file's end", async {
            while Answer::read(client.send(of_user("jason")).await).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_holds_up_and_is_bounded_by_the_request_s_own_time() {
    let (at, asked) = counting().await;
    let slow = "fault: {faults: [{match: [{methods: [GET]}], delay: {fixed: 300ms}}]}";
    let mesh = Mesh::caller(at, at, slow).await;
    let begun = Instant::now();
    assert_eq!(statuses(&mesh, 1).await, [200]);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    let slower = "fault: {faults: [{delay: {fixed: 1h}}]}, timeout: {request: 100ms}";
    let mesh = Mesh::caller(at, at, slower).await;
    let answer = mesh.client().await.get("http://s/", "s").await;
    assert_eq!((answer.status, answer.reason()), (504, "request_timeout"));
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it was never sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_seed_hits_the_same_requests() {
    let (at, _) = counting().await;
    let seeded =
        |seed: u64| format!("fault: {{seed: {seed}, faults: [{{percent: 30, abort: {{httpStatus: 503}}}}]}}");
    let first = statuses(&Mesh::caller(at, at, &seeded(7)).await, 200).await;
    let again = statuses(&Mesh::caller(at, at, &seeded(7)).await, 200).await;
    let other = statuses(&Mesh::caller(at, at, &seeded(8)).await, 200).await;
    assert_eq!(first, again);
    assert_ne!(first, other);
    let hit = first.iter().filter(|status| **status == 503).count();
    assert!((30..=90).contains(&hit), "{hit} of 200 at 30 %");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_heal_what_is_behind_them_and_nothing_before() {
    let faults = |at: &str| {
        format!(
            "retry: {{attempts: 10, backoff: {{base: 1ms, max: 1ms}}}}, circuitBreaker: {{ejection: {{consecutiveErrors: 2}}}}, \
             fault: {{at: {at}, seed: 1, faults: [{{percent: 50, abort: {{httpStatus: 503}}}}]}}"
        )
    };
    let (app, asked) = counting().await;
    let mesh = Mesh::caller(app, app, &faults("CallerBehindRetries")).await;
    assert_eq!(statuses(&mesh, 60).await, [200; 60]);
    assert_eq!(asked.load(Ordering::Relaxed), 60, "an attempt that is hit is not sent");
    let hit = mesh.done("kind=\"abort\"").await;
    assert!(hit >= 30, "{hit} of about 120 attempts");
    let counted_apart = counted(&mesh.running, "outrigger_attempts_total", "reason=\"fault_abort\"").await;
    assert_eq!(counted_apart, hit);
    assert_eq!(counted(&mesh.running, "outrigger_ejections_total", "").await, 0, "nobody is blamed for it");

    let (app, asked) = counting().await;
    let mesh = Mesh::caller(app, app, &faults("Caller")).await;
    let failed = statuses(&mesh, 60).await.iter().filter(|status| **status == 503).count();
    assert!((10..=50).contains(&failed), "{failed} of 60 at 50 %");
    assert_eq!(asked.load(Ordering::Relaxed), 60 - failed);
    assert_eq!(
        counted(&mesh.running, "outrigger_attempts_total", "reason=\"fault_").await,
        0,
        "no attempt was hit"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_and_reset_attempts_are_what_their_conditions_name() {
    for (fault, on) in [("refuse: {}", "connect-failure"), ("abort: {reset: {}}", "reset")] {
        let (app, asked) = counting().await;
        let spec = |on: &str| {
            format!(
                "retry: {{attempts: 10, on: [{on}], backoff: {{base: 1ms, max: 1ms}}}}, \
                 fault: {{at: CallerBehindRetries, seed: 3, faults: [{{percent: 50, {fault}}}]}}"
            )
        };
        let mesh = Mesh::caller(app, app, &spec(on)).await;
        assert_eq!(statuses(&mesh, 30).await, [200; 30], "{fault}");
        assert_eq!(asked.load(Ordering::Relaxed), 30);
        assert!(mesh.done("").await > 5, "{fault}");
    }
    // Where no condition names it the caller is told.
    let (app, _) = counting().await;
    let spec = "retry: {on: [cancelled]}, fault: {at: CallerBehindRetries, faults: [{abort: {reset: {}}}]}";
    let answer = Mesh::caller(app, app, spec).await.client().await.get("http://s/", "s").await;
    assert_eq!((answer.status, answer.reason()), (503, "fault_reset"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_one_over_either_version() {
    let (app, asked) = counting().await;
    let reset = "fault: {faults: [{match: [{paths: [{value: /bad}]}], abort: {reset: {}}}]}";
    let mesh = Mesh::caller(app, app, reset).await;
    let mut stream = TcpStream::connect(mesh.http).await.expect("it listens");
    stream.write_all(b"GET http://s/bad HTTP/1.1\r\nhost: s\r\n\r\n").await.expect("it reads");
    let mut said = Vec::new();
    let ended = within("the end", stream.read_to_end(&mut said)).await;
    assert!(said.is_empty(), "{ended:?}: {}", String::from_utf8_lossy(&said));

    let mut client = Http2::connect(mesh.http).await;
    let request = || Request::get("http://s/bad").body(text("")).expect("valid");
    assert!(client.try_send(request()).await.is_err(), "its stream is reset");
    assert_eq!(client.get("http://s/good").await.status, 200, "and no other");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(mesh.done("kind=\"reset\"").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_call_is_told_by_a_status_and_nothing_else() {
    let (app, asked) = counting().await;
    let fault = "fault: {faults: [{match: [{paths: [{value: /http}]}], abort: {httpStatus: 403}}, {abort: {grpcStatus: DATA_LOSS}}]}";
    let mesh = Mesh::caller(app, app, fault).await;
    let mut client = Http2::connect(mesh.http).await;
    let call = |path: &str| {
        let request = Request::post(format!("http://s{path}")).header("content-type", "application/grpc");
        request.header("te", "trailers").body(text("")).expect("valid")
    };
    // What HTTP has a status for is said in gRPC's words, too.
    for (path, status) in [("/pkg.Service/Method", "15"), ("/http/Method", "7")] {
        let answer = Answer::read(client.send(call(path)).await).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, status), "{path}");
        assert_eq!(answer.header("content-type"), "application/grpc");
        assert!(
            answer.header("grpc-message").starts_with("fault_abort"),
            "{}",
            answer.header("grpc-message")
        );
        assert_eq!((answer.body.as_str(), answer.trailers), ("", None), "trailers-only");
    }
    assert_eq!(client.get("http://s/").await.status, 200, "it is no call");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_slowly_or_break_off() {
    let app = app(|_| async { Response::new(text(vec![b'x'; 3_000])) }).await;
    let fault = "fault: {faults: [{match: [{paths: [{value: /slow}]}], throttle: {bytesPerSecond: 5000}}, \
                 {match: [{paths: [{value: /cut}]}], cut: {afterBytes: 1000}}, {match: [{paths: [{value: /long}]}], cut: {afterBytes: 3000}}]}";
    let mesh = Mesh::caller(app, app, fault).await;
    let begun = Instant::now();
    assert_eq!(mesh.client().await.get("http://s/slow", "s").await.body.len(), 3_000);
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    assert_eq!(mesh.client().await.get("http://s/long", "s").await.body.len(), 3_000, "it came whole");

    for http2 in [false, true] {
        let request = Request::get("http://s/cut").header("host", "s").body(text("")).expect("valid");
        let response = match http2 {
            false => mesh.client().await.send(request).await,
            true => Http2::connect(mesh.http).await.send(request).await,
        };
        assert_eq!(response.status(), 200);
        let (mut body, mut read) = (response.into_body(), 0);
        let broken = within("the end", async {
            loop {
                match body.frame().await {
                    Some(Ok(frame)) => read += frame.data_ref().map_or(0, bytes::Bytes::len),
                    Some(Err(_)) => return true,
                    None => return false,
                }
            }
        });
        assert!(broken.await, "it has no proper end");
        assert_eq!(read, 1_000, "HTTP/2: {http2}");
    }
    let told = counted(&mesh.running, "outrigger_requests_total", "reason=\"fault_cut\"").await;
    assert_eq!(told, 2, "not the endpoint's doing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callee_s_proxy_does_it_before_its_app() {
    let (app, asked) = counting().await;
    let spec = "fault: {at: Callee, faults: [{match: [{paths: [{value: /bad}]}], abort: {httpStatus: 503}}]}";
    let callee = Mesh::callee(app, app, spec).await;
    let mut client = callee.client().await;
    let answer = client.get("/bad", "s").await;
    assert_eq!((answer.status, answer.reason(), answer.body.as_str()), (503, "fault_abort", "fault_abort\n"));
    assert_eq!(client.get("/good", "s").await.status, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    // Callers do not blame the endpoint for it.
    let spec = "circuitBreaker: {ejection: {consecutiveErrors: 2}}, retry: {attempts: 0}";
    let caller = Mesh::caller(callee.http, callee.tcp, spec).await;
    for _ in 0..10 {
        assert_eq!(caller.client().await.get("http://s/bad", "s").await.status, 503);
    }
    assert_eq!(counted(&caller.running, "outrigger_ejections_total", "").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_known_by_its_own_identity() {
    let (app, _) = counting().await;
    for (account, status) in [("web", 418), ("other", 200)] {
        let spec = format!(
            "fault: {{faults: [{{from: [{{serviceAccounts: [{account}]}}], abort: {{httpStatus: 418}}}}]}}"
        );
        let mesh = Mesh::caller(app, app, &spec).await;
        assert_eq!(statuses(&mesh, 1).await, [status], "{account}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_ask_for_what_the_policy_allows() {
    let (app, _) = counting().await;
    let mesh = Mesh::caller(app, app, "fault: {faults: [{byHeaders: {maxDelay: 200ms, abort: true}}]}").await;
    let asking = |name: &str, value: &str| {
        Request::get("http://s/").header("host", "s").header(name, value).body(text("")).expect("valid")
    };
    let mut client = mesh.client().await;
    assert_eq!(client.get("http://s/", "s").await.status, 200, "nothing is asked for");
    let answer = Answer::read(client.send(asking("x-envoy-fault-abort-request", "555")).await).await;
    assert_eq!((answer.status, answer.reason()), (555, "fault_abort"));
    let begun = Instant::now();
    let answer = Answer::read(client.send(asking("x-envoy-fault-delay-request", "3600000")).await).await;
    assert_eq!(answer.status, 200, "an hour would have been too long");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let slow = Answer::read(client.send(asking("x-envoy-fault-throughput-response", "1")).await).await;
    assert_eq!(slow.status, 200);
    assert_eq!(mesh.done("kind=\"throttle\"").await, 0, "the policy says nothing of it");
}

/// A client that reads until its connection ends, in whatever way.
async fn received(at: SocketAddr) -> usize {
    // Reset so early that it never stood is reset, too.
    let Ok(mut stream) = TcpStream::connect(at).await else { return 0 };
    let (mut read, mut buffer) = (0, [0; 4096]);
    within("the end", async {
        while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
            read += bytes;
        }
    })
    .await;
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_refused_reset_slowed_down_and_cut() {
    let (http, tcp) = (echo().await, talking(3_000).await);
    let fault = |fault: &str| format!("fault: {{faults: [{{{fault}}}]}}");
    for (spec, kind) in [("refuse: {}", "refuse"), ("abort: {reset: {}}", "reset")] {
        let mesh = Mesh::caller(http, tcp, &fault(spec)).await;
        assert_eq!(received(mesh.tcp).await, 0, "{spec}");
        assert_eq!(mesh.done(&format!("kind=\"{kind}\"")).await, 1, "{spec}");
    }
    let mesh = Mesh::caller(http, tcp, &fault("throttle: {bytesPerSecond: 5000}")).await;
    let begun = Instant::now();
    assert_eq!(received(mesh.tcp).await, 3_000);
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());

    let mesh = Mesh::caller(http, tcp, &fault("cut: {afterBytes: 1000}")).await;
    let read = received(mesh.tcp).await;
    assert!(read <= 1_000, "{read} of 1000");

    let mesh = Mesh::callee(http, tcp, "fault: {at: Callee, faults: [{refuse: {}}]}").await;
    assert_eq!(received(mesh.tcp).await, 0);

    let about_http = "fault: {faults: [{match: [{methods: [GET]}], refuse: {}}, {abort: {httpStatus: 500}}]}";
    let mesh = Mesh::caller(http, tcp, about_http).await;
    assert_eq!(received(mesh.tcp).await, 3_000, "faults of requests are none of a connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_again_heals_what_is_refused_behind_it() {
    let (http, tcp) = (echo().await, talking(100).await);
    // With this seed no three attempts in a row are hit among these.
    let spec = "fault: {at: CallerBehindRetries, seed: 5, faults: [{percent: 30, refuse: {}}]}";
    let mesh = Mesh::caller(http, tcp, spec).await;
    let mut whole = 0;
    for _ in 0..20 {
        whole += usize::from(received(mesh.tcp).await == 100);
    }
    let hit = mesh.done("kind=\"refuse\"").await;
    assert!(hit >= 2, "{hit} attempts refused");
    assert!(whole >= 17, "{whole} of 20 healed, {hit} attempts refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_experiment_that_does_harm_ends_by_itself() {
    let (app, _) = counting().await;
    // What is held up does not come in time: its failures are real ones.
    let spec = "timeout: {request: 100ms}, \
                fault: {stopIf: {successRateBelow: 80, minRequests: 10}, faults: [{percent: 60, delay: {fixed: 10s}}]}";
    let mesh = Mesh::caller(app, app, spec).await;
    let begun = Instant::now();
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = mesh.client().await;
        load.spawn(async move {
            let (mut good, mut failed) = (0, 0);
            // A row of successes that would be no accident while six of ten fail.
            while good < 30 {
                match client.get("http://s/", "s").await.status {
                    200 => good += 1,
                    _ => (good, failed) = (0, failed + 1),
                }
            }
            failed
        });
    }
    let mut failed = 0;
    while let Some(one) = within("the experiment's end", load.join_next()).await {
        failed += one.expect("an answer");
    }
    println!("over after {:?} and {failed} failures", begun.elapsed());
    assert!(failed >= 3, "{failed} failed before it ended");

    // An abort is no harm: it is made up.
    let spec = "fault: {stopIf: {successRateBelow: 80, minRequests: 10}, faults: [{percent: 90, abort: {httpStatus: 503}}]}";
    let mesh = Mesh::caller(app, app, spec).await;
    let failed = statuses(&mesh, 100).await.iter().filter(|status| **status == 503).count();
    assert!(failed >= 70, "{failed} of 100 at 90 %");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_experiment_ends_when_its_time_is_over() {
    let (app, _) = counting().await;
    let mesh = Mesh::caller(app, app, "fault: {activeFor: 1s, faults: [{abort: {httpStatus: 503}}]}").await;
    let mut client = mesh.client().await;
    assert_eq!(client.get("http://s/", "s").await.status, 503);
    within("its end", async {
        while client.get("http://s/", "s").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(statuses(&mesh, 20).await, [200; 20]);
}

/// What a request may carry that asks for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_headers_ask_in_vain() {
    let (app, _) = counting().await;
    let mesh = Mesh::caller(app, app, "timeout: {request: 20s}").await;
    let request = Request::get("http://s/").header("host", "s").header("x-envoy-fault-abort-request", "500");
    let answer = Answer::read(mesh.client().await.send(request.body(text("")).expect("valid")).await).await;
    assert_eq!(answer.status, 200);
}

/// An app that answers gRPC calls with an OK in their trailers, or without body, and everything else with text.
async fn calling() -> SocketAddr {
    app(|request: Request<hyper::body::Incoming>| async move {
        let path = request.uri().path().to_owned();
        if !path.starts_with("/call") {
            return Response::new(text("well"));
        }
        let response = Response::builder().header("content-type", "application/grpc");
        if path.ends_with("only") {
            let response = response.header("grpc-status", "5").header("grpc-message", "none");
            return response.body(text("")).expect("valid");
        }
        let (sender, body) = frames();
        tokio::spawn(async move {
            let trailers = [("grpc-status", "0"), ("x-sum-bin", "AAEC")].map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            let _ = sender.send(http_body::Frame::data("answer".into())).await;
            let _ = sender.send(http_body::Frame::trailers(trailers.into_iter().collect())).await;
        });
        response.body(body).expect("valid")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_arrive_and_say_nothing_anybody_understands() {
    let app = calling().await;
    let call = |path: &str| {
        let request = Request::post(format!("http://s{path}")).header("content-type", "application/grpc");
        request.header("te", "trailers").body(text("")).expect("valid")
    };
    for at in ["Caller", "CallerBehindRetries"] {
        let spec = format!(
            "circuitBreaker: {{ejection: {{consecutiveErrors: 2}}}}, fault: {{at: {at}, faults: [{{corruptTrailers: {{}}}}]}}"
        );
        let mesh = Mesh::caller(app, app, &spec).await;
        let mut client = Http2::connect(mesh.http).await;
        for _ in 0..5 {
            let answer = Answer::read(client.send(call("/call")).await).await;
            let trailers = answer.trailers.as_ref().expect("they are still there");
            assert_eq!((answer.status, answer.body.as_str()), (200, "answer"), "{at}");
            assert!(
                trailers["grpc-status"].to_str().expect("a text").parse::<u16>().is_err(),
                "{trailers:?}"
            );
            assert_ne!(trailers["x-sum-bin"], "AAEC");
        }
        let only = Answer::read(client.send(call("/call/only")).await).await;
        assert!(only.header("grpc-status").parse::<u16>().is_err(), "{only:?}");
        assert_ne!(only.header("grpc-message"), "none");
        assert_eq!(client.get("http://s/").await.body, "well", "without trailers there is nothing to break");
        // Those without trailers of a kind are hit, too, and nothing comes of it.
        assert_eq!(mesh.done("kind=\"trailers\"").await, 7, "{at}");
        let told = counted(&mesh.running, "outrigger_requests_total", "reason=\"fault_trailers\"").await;
        assert!(told >= 5, "{at}: {told}");
        assert_eq!(
            counted(&mesh.running, "outrigger_ejections_total", "").await,
            0,
            "nobody is blamed for it"
        );
    }

    // Callers do not blame the endpoint for what its proxy broke.
    let callee = Mesh::callee(app, app, "fault: {at: Callee, faults: [{corruptTrailers: {}}]}").await;
    let spec = "circuitBreaker: {ejection: {consecutiveErrors: 2, errors: Server}}, retry: {attempts: 0}";
    let caller = Mesh::caller(callee.http, callee.tcp, spec).await;
    let mut client = Http2::connect(caller.http).await;
    for _ in 0..10 {
        let answer = Answer::read(client.send(call("/call")).await).await;
        let trailers = answer.trailers.as_ref().expect("they are still there");
        assert!(trailers["grpc-status"].to_str().expect("a text").parse::<u16>().is_err(), "{trailers:?}");
    }
    assert_eq!(counted(&caller.running, "outrigger_ejections_total", "").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_wait_at_the_door() {
    let (http, tcp) = (echo().await, talking(100).await);
    let spec = "fault: {at: Callee, faults: [{slowAccept: {fixed: 300ms}}]}";
    let mesh = Mesh::callee(http, tcp, spec).await;
    let begun = Instant::now();
    assert_eq!(received(mesh.tcp).await, 100);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let mut client = mesh.client().await;
    assert_eq!(client.get("/", "s").await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    for _ in 0..20 {
        assert_eq!(client.get("/", "s").await.status, 200, "what was let in goes on");
    }
    assert_eq!(mesh.done("kind=\"accept\"").await, 2, "one for each connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_has_its_hand_in_so_many_calls_at_a_time() {
    let (app, _) = counting().await;
    let mesh = Mesh::caller(app, app, "fault: {faults: [{atMost: 2, delay: {fixed: 1h}}]}").await;
    let mut held = Vec::new();
    for n in 1..=2 {
        let mut client = Http2::connect(mesh.http).await;
        held.push(tokio::spawn(async move { client.get("http://s/").await.status }));
        within("it is held up", async {
            while mesh.done("kind=\"delay\"").await < n {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    assert_eq!(statuses(&mesh, 10).await, [200; 10], "two are enough");
    assert_eq!(mesh.done("kind=\"delay\"").await, 2);
    // Whoever goes away makes room for another.
    held.pop().expect("two").abort();
    let mut client = Http2::connect(mesh.http).await;
    let mut another = tokio::spawn(async move {
        loop {
            client.get("http://s/").await;
        }
    });
    within("another is held up", async {
        while mesh.done("kind=\"delay\"").await < 3 {
            assert!(!another.is_finished(), "{:?}", (&mut another).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    another.abort();
}
