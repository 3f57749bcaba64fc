//! Identity between proxies: mTLS on both sides, who is refused and why, and certificates that change while traffic flows.

mod authority;
pub mod pki;
mod protocols;
mod rotation;
pub mod strict;

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_config::model::{Listener, Mtls, MtlsMode, Protocol, ProxySettings, Resource, SpiffeId};
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use outrigger_proxy::identity::edges::{Edge, Seen, Why};

use super::harness::*;
use pki::{Authority, Files};

pub const CALLER: &str = "spiffe://cluster.local/ns/default/sa/caller";
pub const CALLEE: &str = "spiffe://cluster.local/ns/default/sa/callee";

/// The service's endpoints as those of instances with an identity.
pub fn meshed(service: &Service, id: &str) -> Vec<Resource> {
    let id: SpiffeId = id.parse().expect("a SPIFFE id");
    let mut resources = service.resources();
    for resource in &mut resources {
        if let Resource::Endpoints(endpoints) = resource {
            for endpoint in &mut endpoints.endpoints {
                (endpoint.identity, endpoint.meshed) = (Some(id.clone()), true);
            }
        }
    }
    resources
}

/// A sidecar before nothing, which proves itself with `files`.
pub async fn caller_as(files: &Files, resources: Vec<Resource>, change: impl FnOnce(&mut Setup)) -> Running {
    let mut all = vec![inbound(&[], ProxySettings::default())];
    all.extend(resources);
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(1);
    setup.outbound = vec![(LOOPBACK, 0).into()];
    setup.identity = Some(files.provision());
    change(&mut setup);
    let running = app::start(setup, |_| Ok((Source::fixed(all), None))).expect("it starts");
    has_identity(&running).await;
    running
}

/// A sidecar before an app, and the address callers reach it at.
pub async fn callee_as(
    files: &Files,
    mode: MtlsMode,
    protocol: Protocol,
    app: SocketAddr,
) -> (Running, SocketAddr) {
    callee_with(files, mode, protocol, app, |_| {}).await
}

pub async fn callee_with(
    files: &Files,
    mode: MtlsMode,
    protocol: Protocol,
    app: SocketAddr,
    change: impl FnOnce(&mut Setup),
) -> (Running, SocketAddr) {
    let port = ports::free();
    let mut resource = inbound(&[(port, protocol, app)], ProxySettings::default());
    if let Resource::Listener(Listener::Inbound(inbound)) = &mut resource {
        inbound.ports[0].mtls = Mtls { mode, origin: None };
    }
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(1);
    setup.inbound_listen = Some(LOOPBACK);
    setup.identity = Some(files.provision());
    change(&mut setup);
    let running = app::start(setup, |_| Ok((Source::fixed(vec![resource]), None))).expect("it starts");
    let at = offered(&running, port).await;
    has_identity(&running).await;
    (running, at)
}

pub async fn has_identity(running: &Running) {
    until("a certificate", || running.shared.identity.unusable().is_none()).await;
}

/// Looks again until it is so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    within(what, async {
        while !so() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// The one edge a proxy has seen.
pub fn only_edge(running: &Running) -> (Edge, Seen) {
    let mut edges = running.shared.identity.edges.all();
    assert_eq!(edges.len(), 1, "{edges:?}");
    edges.remove(0)
}

/// The value of a series on the metrics port, 0 where it is not there.
pub async fn metric(running: &Running, series: &str) -> u64 {
    let answer = Http1::connect(running.metrics).await.get("/metrics", "metrics").await;
    let value = answer.body.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or_default()
}

/// Until a series has risen to `value`.
pub async fn rises_to(running: &Running, series: &str, value: u64) {
    within(series, async {
        while metric(running, series).await < value {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(metric(running, series).await, value, "{series}");
}

/// An app that counts who reached it.
pub async fn counting() -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    let at = bytes_app(move |mut stream| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                .await;
        }
    })
    .await;
    (at, count)
}

pub fn mesh() -> (Authority, Files, Files) {
    let authority = Authority::new("root");
    let (caller, callee) = (Files::new(), Files::new());
    caller.write(&authority.leaf(CALLER), &[&authority]);
    callee.write(&authority.leaf(CALLEE), &[&authority]);
    (authority, caller, callee)
}
