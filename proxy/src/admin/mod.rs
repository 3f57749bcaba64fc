//! The proxy's own ports: admin (15000), metrics and health (15020).
//!
//! Owns what they answer, one file an endpoint, and the list of them: [`ADMIN`] and [`METRICS`]. Runs on the background runtime, so that
//! nobody who asks can hold up traffic; answers are made when asked for. Never changes what the proxy routes: that is configuration.

mod answer;
mod clusters;
mod config_dump;
mod drain;
mod faults;
mod health;
mod identity;
mod listen;
mod logging;
mod metrics;
mod probes;
mod server_info;

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

pub use health::{Condition, Readiness};
pub use listen::{bind, serve};
pub use logging::Log;
pub use probes::AppProbes;

use crate::worker::Shared;
use answer::{Answer, Asked};

/// What an answer may need.
#[derive(Debug)]
pub struct State {
    pub shared: Arc<Shared>,
    pub log: Log,
    /// When this proxy began to answer.
    pub started: Instant,
    /// What the kubelet asks of the app by way of the metrics port.
    pub probes: AppProbes,
    /// Where the app is found as the kubelet would find it.
    pub pod: IpAddr,
}

/// One thing that can be asked.
#[derive(Debug)]
struct Endpoint {
    method: Method,
    path: &'static str,
    /// For people who asked for something else.
    does: &'static str,
    answer: fn(&Asked, &State) -> Answer,
}

/// For whoever looks after this one proxy; only from its own host.
const ADMIN: &[Endpoint] = &[
    get(
        "/config_dump",
        "the configuration as it was received, with versions and where it came from",
        config_dump::answer,
    ),
    get(
        "/clusters",
        "endpoints: their health, requests in flight, how fast they are taken to be",
        clusters::answer,
    ),
    get(
        "/faults",
        "what goes wrong on purpose: what each experiment did, and whether it is over",
        faults::answer,
    ),
    get("/identity", "its certificate, and who it spoke with, protected or not", identity::answer),
    get("/server_info", "what this proxy is and how it is doing", server_info::answer),
    get("/logging", "what is logged", logging::show),
    post("/logging", "log from now on what ?level= says: a level, or MODULE=LEVEL,...", logging::set),
    post("/drain", "leave the load balancers and go on running", drain::leave),
    post("/shutdown", "drain, then end", drain::shut_down),
];

/// For those who watch many.
const METRICS: &[Endpoint] = &[
    get("/metrics", "metrics in Prometheus' text format", metrics::answer),
    get("/stats/prometheus", "the same, by Istio's name for it", metrics::answer),
    get("/healthz/ready", "200 if traffic may come, else 503 and why not", health::ready),
    get("/healthz/live", "200", health::live),
];

const fn get(path: &'static str, does: &'static str, answer: fn(&Asked, &State) -> Answer) -> Endpoint {
    Endpoint { method: Method::GET, path, does, answer }
}

const fn post(path: &'static str, does: &'static str, answer: fn(&Asked, &State) -> Answer) -> Endpoint {
    Endpoint { method: Method::POST, path, does, answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_everything_that_can_be_asked() {
        let text = include_str!("../../../docs/admin.md");
        for Endpoint { method, path, .. } in ADMIN {
            assert!(text.contains(&format!("| `{method} {path}")), "{method} {path}");
        }
        for Endpoint { path, .. } in METRICS {
            assert!(text.contains(&format!("`{path}`")), "{path}");
        }
    }
}
