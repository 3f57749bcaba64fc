//! The proxy's own ports: admin (15000), metrics and health (15020).
//!
//! Runs on the background runtime, so that nobody who asks can hold up traffic. Answers are made when asked for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::drain::Phase;
use crate::mesh::Known;
use crate::telemetry::{CONTENT_TYPE, Gauge, Text};
use crate::worker::Shared;

/// Connections served at once; more wait.
const CONNECTIONS: usize = 64;

/// Whether the sockets that follow the configuration are open; `None` until they were tried.
#[derive(Clone, Debug, Default)]
pub struct Listening(Arc<ArcSwapOption<Vec<String>>>);

impl Listening {
    /// `failed`: what could not be opened, in words.
    pub fn set(&self, failed: Vec<String>) {
        self.0.store(Some(Arc::new(failed)));
    }
}

pub fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let socket =
        std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Serves both ports as long as the process lives.
pub async fn serve(
    admin: std::net::TcpListener,
    metrics: std::net::TcpListener,
    shared: Arc<Shared>,
    listening: Listening,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::join!(
        accept(admin, shared.clone(), listening.clone(), connections.clone(), true),
        accept(metrics, shared, listening, connections, false),
    );
}

async fn accept(
    socket: std::net::TcpListener,
    shared: Arc<Shared>,
    listening: Listening,
    connections: Arc<Semaphore>,
    is_admin: bool,
) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "the admin port cannot be watched"),
    };
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin port cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (shared, listening) = (shared.clone(), listening.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request: Request<Incoming>| {
                let answer = if is_admin {
                    admin_answer(&request, &shared)
                } else {
                    metrics_answer(&request, &shared, &listening)
                };
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .max_buf_size(64 * 1024);
            // Whoever holds a place without asking anything loses it.
            let serving = http.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(Duration::from_secs(120), serving).await;
        });
    }
}

fn metrics_answer(
    request: &Request<Incoming>,
    shared: &Shared,
    listening: &Listening,
) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics" | "/stats/prometheus") => {
            text(StatusCode::OK, CONTENT_TYPE, metrics(shared))
        }
        (&Method::GET, "/healthz/live") => plain(StatusCode::OK, "live\n"),
        (&Method::GET, "/healthz/ready") => match not_ready(shared, listening) {
            None => plain(StatusCode::OK, "ready\n"),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => plain(StatusCode::NOT_FOUND, "/metrics /stats/prometheus /healthz/ready /healthz/live\n"),
    }
}

fn admin_answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/config_dump") => as_json(&config_dump(shared)),
        (&Method::GET, "/clusters") => as_json(&clusters(shared)),
        (&Method::GET, "/server_info") => as_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "phase": format!("{:?}", shared.drain.phase()),
            "configured": shared.mesh.is_configured(),
            "active": shared.drain.active(),
        })),
        (&Method::POST, "/drain") => {
            shared.drain.leave();
            as_json(&json!({"phase": format!("{:?}", shared.drain.phase()), "active": shared.drain.active()}))
        }
        (&Method::POST, "/shutdown") => {
            shared.drain.shut_down();
            plain(StatusCode::OK, "draining, then ending\n")
        }
        (_, "/drain" | "/shutdown") => plain(StatusCode::METHOD_NOT_ALLOWED, "this is done by POST\n"),
        _ => plain(
            StatusCode::NOT_FOUND,
            "GET /config_dump, /clusters, /server_info; POST /drain, /shutdown\n",
        ),
    }
}

fn not_ready(shared: &Shared, listening: &Listening) -> Option<String> {
    if shared.drain.phase() != Phase::Running {
        return Some("draining".into());
    }
    if !shared.mesh.is_configured() {
        return Some("no configuration yet: the manifests do not name this workload or gateway".into());
    }
    match &*listening.0.load() {
        None => Some("the ports are not open yet".into()),
        Some(failed) if !failed.is_empty() => Some(failed.join("; ")),
        Some(_) => None,
    }
}

fn metrics(shared: &Shared) -> String {
    let mut out = Text::default();
    out.metrics(&shared.telemetry.metrics);
    let mut endpoints: Vec<Gauge> = Vec::new();
    {
        let content = shared.mesh.inventory().lock();
        for cluster in content.clusters.values() {
            let Some(service) = cluster.settings().service.clone() else { continue };
            let mut states =
                std::collections::BTreeMap::from([("Healthy", 0), ("Draining", 0), ("Unhealthy", 0)]);
            for endpoint in cluster.endpoints().iter() {
                let state = match endpoint.health() {
                    outrigger_config::model::Health::Healthy => "Healthy",
                    outrigger_config::model::Health::Draining => "Draining",
                    outrigger_config::model::Health::Unhealthy => "Unhealthy",
                };
                *states.entry(state).or_default() += 1;
            }
            for (state, count) in states {
                let labels = vec![("service", service.to_string()), ("state", state.to_ascii_lowercase())];
                // Several ports of a service are one series.
                match endpoints.iter_mut().find(|gauge| gauge.labels == labels) {
                    Some(gauge) => gauge.value += f64::from(count),
                    None => endpoints.push(Gauge { labels, value: f64::from(count) }),
                }
            }
        }
    }
    out.gauges("outrigger_endpoints", "Endpoints known, by what the source says of them.", &endpoints);
    if let Some(age) = shared.mesh.inventory().lock().link.age() {
        out.gauge(
            "outrigger_config_age_seconds",
            "Since the source of the configuration was last there; 0 while it is.",
            age.as_secs_f64(),
        );
    }
    out.into_string()
}

/// Everything as it was received, with versions; never a private key.
fn config_dump(shared: &Shared) -> Value {
    let content = shared.mesh.inventory().lock();
    let resources = content.resources.iter().map(|((kind, name), known)| match known {
        Known::There { resource, version, stale } => {
            json!({"kind": kind, "name": name, "version": version.to_string(), "stale": stale, "resource": &**resource})
        }
        Known::Absent => json!({"kind": kind, "name": name, "absent": true}),
    });
    json!({"resources": resources.collect::<Vec<_>>()})
}

fn clusters(shared: &Shared) -> Value {
    let content = shared.mesh.inventory().lock();
    let clusters = content.clusters.iter().map(|(name, cluster)| {
        let endpoints = cluster.endpoints();
        let endpoints = endpoints.iter().map(|endpoint| {
            json!({
                "address": endpoint.address.to_string(),
                "health": format!("{:?}", endpoint.health()),
                "workload": endpoint.workload.as_deref(),
                "in_flight": endpoint.in_flight(),
            })
        });
        json!({"name": name, "endpoints": endpoints.collect::<Vec<_>>()})
    });
    json!({"clusters": clusters.collect::<Vec<_>>()})
}

fn as_json(value: &Value) -> Response<Full<Bytes>> {
    text(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn plain(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    text(status, "text/plain; charset=utf-8", body.into())
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
