//! What a callee's own proxy refuses is no failure of the instance behind it; what its app says is, whatever words it uses. Over mTLS, where each knows whom it asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Response, StatusCode};
use outrigger_config::model::{
    Adaptive, Algorithm, Balance, BreakerMode, Listener, Mtls, MtlsMode, Protocol, ProxySettings, Resource,
};
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use tokio::sync::Semaphore;

use super::admin::json;
use super::harness::*;
use super::identity::pki::Files;
use super::identity::{CALLEE, caller_as, has_identity, mesh, meshed, rises_to};

/// A sidecar that lets one request at a time through to its app.
async fn of_one_request(files: &Files, at: SocketAddr) -> (Running, SocketAddr) {
    let port = ports::free();
    let mut resource = inbound(&[(port, Protocol::Http, at)], ProxySettings::default());
    if let Resource::Listener(Listener::Inbound(inbound)) = &mut resource {
        inbound.ports[0].mtls = Mtls { mode: MtlsMode::Strict, origin: None };
        inbound.ports[0].limits.adaptive =
            Some(Adaptive { mode: BreakerMode::Enforce, least: 1, most: 1, origin: None });
    }
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(1);
    setup.inbound_listen = Some(LOOPBACK);
    setup.identity = Some(files.provision());
    let running = app::start(setup, |_| Ok((Source::fixed(vec![resource]), None))).expect("it starts");
    let at = offered(&running, port).await;
    has_identity(&running).await;
    (running, at)
}

/// By turns; ejection as it is without a policy.
async fn caller_of(files: &Files, endpoints: &[SocketAddr]) -> Running {
    let service = Service::new("two:80", endpoints);
    let mut resources = meshed(&service, CALLEE);
    for resource in &mut resources {
        if let Resource::Cluster(cluster) = resource {
            cluster.balance = Arc::new(Balance { algorithm: Algorithm::RoundRobin, ..Balance::default() });
        }
    }
    caller_as(files, resources, |_| {}).await
}

async fn ejected(proxy: &Running) -> usize {
    let clusters = json(proxy.admin, "/clusters").await;
    let endpoints = clusters["clusters"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.iter().filter(|one| one["ejection"]["state"] == "ejected").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_callees_proxy_sheds_ejects_nobody() {
    let (_authority, caller_files, callee_files) = mesh();
    let gate = Arc::new(Semaphore::new(0));
    let (doors, held) = (gate.clone(), Arc::new(AtomicBool::new(true)));
    let holds = held.clone();
    let busy = app(move |_| {
        let (doors, holds) = (doors.clone(), holds.clone());
        async move {
            if holds.load(Ordering::SeqCst) {
                doors.acquire().await.expect("it is open").forget();
            }
            Response::new(text("ok"))
        }
    })
    .await;
    let (busy_proxy, busy_at) = of_one_request(&callee_files, busy).await;
    let well = app(|_| async { Response::new(text("ok")) }).await;
    let (_well_proxy, well_at) = of_one_request(&callee_files, well).await;
    let caller = caller_of(&caller_files, &[busy_at, well_at]).await;

    // Its one place is taken by a client of its own.
    let other = caller_of(&caller_files, &[busy_at]).await;
    let at = other.outbound[0];
    let first = tokio::spawn(async move { Http1::connect(at).await.get("http://two/", "two").await.status });
    rises_to(&busy_proxy, "outrigger_cap_in_use{service=\"callee.default\",cap=\"adaptive\"}", 1).await;

    let mut client = Http1::connect(caller.outbound[0]).await;
    let mut shed = 0;
    for _ in 0..40 {
        let answer = client.get("http://two/", "two").await;
        if answer.status == 503 {
            assert_eq!(answer.reason(), "overloaded");
            shed += 1;
        }
    }
    assert!(shed >= 15, "half of them meet the one that is full: {shed}");
    assert_eq!(ejected(&caller).await, 0);
    gate.add_permits(1);
    assert_eq!(first.await.expect("it ends"), 200);
    held.store(false, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(client.get("http://two/", "two").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_says_it_was_shed_is_ejected_all_the_same() {
    let (_authority, caller_files, callee_files) = mesh();
    let liar = app(|_| async {
        let said = "outrigger; error=connection_limit_reached; reason=\"overloaded\"";
        let mut response = Response::new(text("no"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert("proxy-status", said.parse().expect("a value"));
        // Nor can it make its proxy take the mark away.
        response.headers_mut().insert("connection", "proxy-status".parse().expect("a value"));
        response.headers_mut().append("proxy-status", said.parse().expect("a value"));
        response
    })
    .await;
    let (_liars_proxy, liar_at) = of_one_request(&callee_files, liar).await;
    let well = app(|_| async { Response::new(text("ok")) }).await;
    let (_well_proxy, well_at) = of_one_request(&callee_files, well).await;
    let caller = caller_of(&caller_files, &[liar_at, well_at]).await;
    let mut client = Http1::connect(caller.outbound[0]).await;
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(client.get("http://two/", "two").await.status == 503);
    }
    assert_eq!((failed, ejected(&caller).await), (5, 1));
}
