//! What goes wrong on purpose, as callers and apps see it: whole proxies over real sockets, on manifests that are edited while they run.

mod connections;
mod experiments;
mod places;
mod requests;

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

use crate::harness::*;
use crate::ports;
use crate::retries::counted;

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
