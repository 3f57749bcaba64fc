//! Circuit breakers: what their tests have in common.

mod adaptive;
mod caps;
mod ejection;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use outrigger_config::model::{
    Adaptive, Algorithm, Balance, BreakerMode, Caps, CircuitBreaker, Ejection, Fraction, ProxySettings,
    Resource, Retry, RetryOn, RouteCaps, SlowCalls, Timeouts,
};
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::admin::json;
use crate::harness::*;

/// A sidecar whose calls to `service` are under `breaker`.
fn caller_under(service: &Service, breaker: CircuitBreaker, workers: usize) -> Running {
    let mut resources = vec![inbound(&[], ProxySettings::default())];
    resources.extend(service.resources().into_iter().map(|resource| match resource {
        Resource::Cluster(mut cluster) => {
            cluster.circuit_breaker = Arc::new(breaker.clone());
            // Each endpoint gets its part whatever it is like: the default leaves those alone that were slow once.
            cluster.balance = Arc::new(Balance { algorithm: Algorithm::RoundRobin, ..Balance::default() });
            Resource::Cluster(cluster)
        }
        other => other,
    }));
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(workers);
    setup.outbound = vec![(LOOPBACK, 0).into()];
    app::start(setup, |_| Ok((Source::fixed(resources), None))).expect("it starts")
}

fn capped(caps: Caps) -> CircuitBreaker {
    CircuitBreaker { caps, ..CircuitBreaker::default() }
}

/// The sum of the series of a family that have all these labels.
async fn metric(proxy: &Running, name: &str, labels: &[&str]) -> u64 {
    let page =
        exchange_bytes(proxy.metrics, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let of_family =
        page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    let fitting = of_family.filter(|line| labels.iter().all(|label| line.contains(label)));
    fitting.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// `ejection` of the endpoint at `at`, as `/clusters` has it.
async fn ejection(proxy: &Running, at: SocketAddr) -> Value {
    let clusters = json(proxy.admin, "/clusters").await;
    // Before the first request nothing is known of the cluster.
    let endpoints = clusters["clusters"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let endpoint = endpoints.into_iter().find(|one| one["address"] == at.to_string());
    endpoint.map_or(Value::Null, |endpoint| endpoint["ejection"].clone())
}

async fn until(what: &str, proxy: &Running, at: SocketAddr, fits: impl Fn(&Value) -> bool) -> Value {
    within(what, async {
        loop {
            let now = ejection(proxy, at).await;
            if fits(&now) {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// An app that answers when it is told to.
async fn held() -> (SocketAddr, Arc<tokio::sync::Semaphore>) {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let doors = gate.clone();
    let at = app(move |_| {
        let doors = doors.clone();
        async move {
            doors.acquire().await.expect("it is open").forget();
            Response::new(text("ok"))
        }
    })
    .await;
    (at, gate)
}

async fn in_use(proxy: &Running, cap: &str, want: u64) {
    let label = format!("cap=\"{cap}\"");
    within("the cap is in use", async {
        while metric(proxy, "outrigger_cap_in_use", &[&label]).await != want {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
