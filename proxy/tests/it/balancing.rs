//! How requests are spread over apps, through whole proxies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use outrigger_config::resolve::Subscriber;
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use tempfile::TempDir;

use super::harness::*;

/// An app that says who it is, how often it was asked, and, at `/ready`, whether it is well.
#[derive(Clone)]
struct App {
    at: SocketAddr,
    asked: Arc<AtomicUsize>,
    well: Arc<AtomicBool>,
}

impl App {
    async fn start() -> Self {
        let (asked, well) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let (count, is_well) = (asked.clone(), well.clone());
        let name = Arc::new(std::sync::OnceLock::<String>::new());
        let called = name.clone();
        let at = app(move |request: Request<Incoming>| {
            let (count, is_well, called) = (count.clone(), is_well.clone(), called.clone());
            async move {
                let mut response = Response::new(text(called.get().cloned().unwrap_or_default()));
                if request.uri().path() != "/ready" {
                    count.fetch_add(1, Ordering::Relaxed);
                } else if !is_well.load(Ordering::Relaxed) {
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                response
            }
        })
        .await;
        name.set(at.to_string()).expect("it has one name");
        Self { at, asked, well }
    }

    async fn several(count: usize) -> Vec<Self> {
        let mut apps = Vec::new();
        for _ in 0..count {
            apps.push(Self::start().await);
        }
        apps
    }

    fn forget(&self) {
        self.take();
    }

    /// How often it was asked since it was last asked this.
    fn take(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

/// A caller of one Service, `web`, whose manifests are files.
struct Caller {
    running: Running,
    manifests: TempDir,
}

impl Caller {
    fn start(workers: usize, balancing: &str, state: &str, apps: &[App]) -> Self {
        let manifests = tempfile::tempdir().expect("a directory");
        let policy = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n\
             spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: http}}]}}\n---\n\
             apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: caller}}\nspec: {{address: 127.9.9.9, zone: here}}\n---\n\
             apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: web}}\n\
             spec: {{targetRefs: [{{kind: Service, name: web}}], loadBalancing: {balancing}}}\n"
        );
        std::fs::write(manifests.path().join("web.yaml"), policy).expect("it can be written");
        let mut setup = Setup::new(Own::Sidecar);
        setup.workers = Some(workers);
        setup.outbound = vec![(LOOPBACK, 0).into()];
        let paths = vec![manifests.path().to_owned()];
        put(&manifests, state, apps);
        let running = app::start(setup, move |_| {
            Ok((Source::files(paths, Subscriber::sidecar("default", "caller"))?, None))
        });
        Self { running: running.expect("it starts"), manifests }
    }

    async fn clusters(&self) -> serde_json::Value {
        let answer = Http1::connect(self.running.admin).await.get("/clusters", "proxy").await;
        let all: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let all = all["clusters"].as_array().expect("a list");
        let web =
            all.iter().find(|one| one["name"].as_str().is_some_and(|name| name.contains("web.default")));
        web.expect("it is in use").clone()
    }

    /// Until the endpoints in use are these many.
    async fn knows(&self, count: usize) {
        let known = async {
            while self.clusters().await["endpoints"].as_array().is_none_or(|all| all.len() != count) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("the endpoints are known", known).await;
    }

    /// Requests over one HTTP/2 connection, `streams` at a time.
    async fn load(&self, requests: usize, streams: usize) {
        let connection = Http2::connect(self.running.outbound[0]).await;
        let left = Arc::new(AtomicUsize::new(requests));
        let one = || {
            let (mut connection, left) = (connection.clone(), left.clone());
            tokio::spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    let answer = connection.get("http://web/").await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            })
        };
        let tasks: Vec<_> = (0..streams).map(|_| one()).collect();
        for task in tasks {
            task.await.expect("no request failed");
        }
    }
}

/// `state` is a Workload's `status`, or nothing.
fn put(manifests: &TempDir, state: &str, apps: &[App]) {
    let one = |(n, app): (usize, &App)| {
        format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w{n}, labels: {{app: web}}}}\n\
             spec: {{address: {}, ports: [{{name: http, port: {}, appProtocol: http}}]}}\n{state}\n---\n",
            app.at.ip(),
            app.at.port()
        )
    };
    let all: String = apps.iter().enumerate().map(one).collect();
    let (path, new) = (manifests.path().join("workloads.yaml"), manifests.path().join(".new"));
    std::fs::write(&new, all).expect("it can be written");
    std::fs::rename(new, path).expect("it can be replaced");
}

const READY: &str = "status: {state: Ready}";

/// Over real sockets on a busy machine: nobody is left out, and those that go by counts are even.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_endpoints_get_their_share_of_http2_requests() {
    // As many requests as make chance small: drawn at random, a share of 400 varies by 20.
    for (algorithm, requests, slack) in
        [("PeakEWMA", 1_000, 10.0), ("LeastRequest", 4_000, 0.2), ("RoundRobin", 1_000, 0.2)]
    {
        for before in [1, 9] {
            let apps = App::several(10).await;
            let caller = Caller::start(2, &format!("{{algorithm: {algorithm}}}"), READY, &apps[..before]);
            caller.load(200, 20).await;
            put(&caller.manifests, READY, &apps);
            caller.knows(10).await;
            apps.iter().for_each(App::forget);
            caller.load(requests, 20).await;
            let shares: Vec<usize> = apps.iter().map(App::take).collect();
            assert_eq!(shares.iter().sum::<usize>(), requests);
            for share in &shares {
                let fair = requests as f64 / 10.0;
                let bounds = (fair * (1.0 - slack)).max(fair / 2.0)..=fair * (1.0 + slack);
                assert!(bounds.contains(&(*share as f64)), "{algorithm}, {before} → 10: {shares:?}");
            }
        }
    }
}

/// A client that says who it is comes to one app, whichever worker and connection it is on, and stays there when another app leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_keys_go_to_one_endpoint() {
    let apps = App::several(4).await;
    for algorithm in ["RingHash", "Maglev"] {
        let caller = Caller::start(
            2,
            &format!("{{algorithm: {algorithm}, hash: [{{header: x-user}}]}}"),
            READY,
            &apps,
        );
        let ask = async |user: usize| {
            let mut connection = Http1::connect(caller.running.outbound[0]).await;
            let request = Request::get("http://web/").header("host", "web").header("x-user", user);
            let answer = Answer::read(connection.send(request.body(text("")).expect("valid")).await).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.body
        };
        let mut homes = Vec::new();
        for user in 0..40 {
            let home = ask(user).await;
            assert_eq!(ask(user).await, home, "{algorithm}, user {user}");
            homes.push(home);
        }
        let used: std::collections::BTreeSet<_> = homes.iter().collect();
        assert_eq!(used.len(), 4, "{algorithm}: {homes:?}");
        put(&caller.manifests, READY, &apps[..3]);
        caller.knows(3).await;
        let gone = apps[3].at.to_string();
        let mut moved = 0;
        for (user, home) in homes.iter().enumerate() {
            let now = ask(user).await;
            moved += usize::from(now != *home && *home != gone);
            assert_ne!(now, gone);
        }
        // A table may move some of the others, a ring none.
        assert!(moved <= if algorithm == "Maglev" { 6 } else { 0 }, "{algorithm}: {moved} moved");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_at_its_endpoint() {
    let apps = App::several(5).await;
    let caller = Caller::start(2, "{algorithm: RoundRobin, session: {name: stay, path: /}}", READY, &apps);
    let ask = async |cookie: Option<&str>| {
        let mut connection = Http1::connect(caller.running.outbound[0]).await;
        let mut request = Request::get("http://web/").header("host", "web");
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        Answer::read(connection.send(request.body(text("")).expect("valid")).await).await
    };
    let first = ask(None).await;
    let cookie = first.header("set-cookie").split(';').next().expect("a pair").to_owned();
    assert!(cookie.starts_with("stay="), "{first:?}");
    for _ in 0..10 {
        let again = ask(Some(&cookie)).await;
        assert_eq!((again.body.as_str(), again.header("set-cookie")), (first.body.as_str(), ""));
    }
    let left: Vec<App> = apps.iter().filter(|app| app.at.to_string() != first.body).cloned().collect();
    put(&caller.manifests, READY, &left);
    caller.knows(4).await;
    let moved = ask(Some(&cookie)).await;
    assert_ne!(moved.body, first.body);
    assert!(moved.header("set-cookie").starts_with("stay="), "{moved:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_nobody_watches_is_asked_how_it_is() {
    let apps = App::several(2).await;
    let check = "{healthCheck: {http: {path: /ready}, interval: 20ms, unhealthyThreshold: 2}}";
    let caller = Caller::start(2, check, "", &apps);
    caller.load(20, 4).await;
    let becomes = async |app: &App, usable: &str| {
        let address = app.at.to_string();
        let seen = async {
            loop {
                let web = caller.clusters().await;
                let all = web["endpoints"].as_array().expect("a list");
                let one = all.iter().find(|one| one["address"] == address.as_str()).expect("it is known");
                if one["usable"] == usable {
                    return one.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(usable, seen).await
    };
    becomes(&apps[0], "yes").await;
    apps[0].well.store(false, Ordering::Relaxed);
    let seen = becomes(&apps[0], "fails its health checks").await;
    assert_eq!((&seen["health"], &seen["check_failure"]), (&"Unknown".into(), &"it answered 503".into()));
    apps.iter().for_each(App::forget);
    caller.load(50, 4).await;
    assert_eq!((apps[0].take(), apps[1].take()), (0, 50));
    let metrics = Http1::connect(caller.running.metrics).await.get("/metrics", "proxy").await.body;
    for line in [
        "outrigger_health_checks_total{service=\"web.default\",result=\"failed\"}",
        "outrigger_endpoints{service=\"web.default\",state=\"unhealthy\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }

    apps[0].well.store(true, Ordering::Relaxed);
    becomes(&apps[0], "yes").await;
    caller.load(50, 4).await;
    assert!(apps[0].take() > 0);

    // An app with a state of its own is not asked.
    apps.iter().for_each(|app| app.well.store(false, Ordering::Relaxed));
    becomes(&apps[0], "fails its health checks").await;
    put(&caller.manifests, READY, &apps);
    becomes(&apps[0], "yes").await;
    caller.load(10, 2).await;
}
