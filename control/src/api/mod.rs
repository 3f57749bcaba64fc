//! What people and commands ask the control plane: JSON over HTTP.
//!
//! `/v1/status` all there is to know · `/v1/objects`, `/v1/proxies` its parts · `/v1/synced` waits until proxies have a change ·
//! `/v1/faults` the experiments, and POST `/v1/faults/stop` ends them · `/healthz/ready`, `/healthz/live`. But for that only reads; never part of what
//! proxies need.

mod faults;
mod status;
mod synced;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Json;
use axum::routing::{get, post};
use tokio::sync::watch;

use crate::ca::Ca;
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::source::Stopper;
use crate::view::View;

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Api {
    pub views: watch::Receiver<Arc<View>>,
    pub proxies: Arc<Proxies>,
    /// Directories and files the manifests come from.
    pub manifests: Arc<[String]>,
    pub started: SystemTime,
    pub ca: Option<Arc<Ca>>,
    pub closing: watch::Receiver<bool>,
    pub stopper: Stopper,
}

pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(api): State<Api>| Json(status::status(&api))))
        .route("/v1/objects", get(async |State(api): State<Api>| Json(status::objects(&api))))
        .route("/v1/proxies", get(async |State(api): State<Api>| Json(status::proxies(&api))))
        .route("/v1/synced", get(synced::synced))
        .route("/v1/faults", get(async |State(api): State<Api>| Json(faults::faults(&api.views.borrow()))))
        .route("/v1/faults/stop", post(faults::stop))
        .route("/healthz/ready", get(ready))
        .route("/healthz/live", get(async || "live\n"))
        .fallback(async || (StatusCode::NOT_FOUND, "see /v1/status\n"))
        .with_state(api)
}

/// The manifests were read before the port was opened: what is left to say no to is the end, and a CA that cannot sign.
async fn ready(State(api): State<Api>) -> (StatusCode, &'static str) {
    if *api.closing.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "ending\n")
    } else if api.ca.is_some_and(|ca| ca.present().until() <= SystemTime::now()) {
        (StatusCode::SERVICE_UNAVAILABLE, "the CA has expired\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// The page for Prometheus, for its own port.
pub fn metrics(metrics: Arc<Metrics>) -> Router {
    let page = async |State(metrics): State<Arc<Metrics>>| {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.page())
    };
    Router::new().route("/metrics", get(page)).route("/stats/prometheus", get(page)).with_state(metrics)
}
