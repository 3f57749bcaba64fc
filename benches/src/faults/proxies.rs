//! The proxies that meet the faults, each with what its own documentation recommends against them, and the same limits of time.
//!
//! Both try a request three times, 1 s each and 5 s in all, and may eject one of three. Envoy's default of 10 % would never eject one of three, and it
//! retries nothing unless told to: these two are set, all else of its outlier detection and its retry budget is at its defaults. Ours ejects and has a
//! budget without being told; it is told when a call is slow, which Envoy cannot be.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::endpoint::Endpoint;
use crate::ground::{Ground, Process, Programs};
use crate::manifests;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    Ours,
    Envoy,
}

impl Proxy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "Outrigger",
            Self::Envoy => "Envoy",
        }
    }

    /// Starts it before these endpoints, and waits until it listens.
    pub async fn start(
        self,
        ground: &Ground,
        programs: &Programs,
        envoy: &Path,
        host: u8,
        endpoints: &[Endpoint],
    ) -> anyhow::Result<(Process, SocketAddr)> {
        let at: SocketAddr = (ground.ip(host), 8080).into();
        let behind: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        let mut command = match self {
            Self::Ours => ours(ground, programs, at, &behind)?,
            Self::Envoy => self::envoy(ground, envoy, at, &behind)?,
        };
        let process = ground.start(&mut command, &format!("proxy-{host}"))?;
        process.listens(at).await?;
        Ok((process, at))
    }
}

fn ours(
    ground: &Ground,
    programs: &Programs,
    at: SocketAddr,
    behind: &[SocketAddr],
) -> anyhow::Result<Command> {
    let text = manifests::service("app", "http", 80, behind)
        + &GATEWAY.replace("PORT", &at.port().to_string())
        + POLICY;
    let folder = ground.path(&format!("mesh-{}", at.ip()));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("mesh.yaml"), text)?;
    let mut command = Command::new(&programs.proxy);
    command.args(["--workers", "2", "--pod-address", &at.ip().to_string(), "--gateway", "front"]);
    command.arg("--manifests").arg(folder);
    Ok(command)
}

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec: {gatewayClassName: outrigger, listeners: [{name: web, port: PORT, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: app, port: 80}]}]}
---
";

/// Everything else is at its default.
const POLICY: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: app}
spec:
  targetRefs: [{kind: Service, name: app}]
  timeout: {request: 5s, perTry: 1s}
  retry: {}
  circuitBreaker: {ejection: {slowCalls: {longerThan: 250ms, percent: 50}}}
";

fn envoy(ground: &Ground, program: &Path, at: SocketAddr, behind: &[SocketAddr]) -> anyhow::Result<Command> {
    let file = ground.path(&format!("envoy-{}.json", at.ip()));
    fs::write(&file, serde_json::to_vec_pretty(&envoy_config(at, behind))?)?;
    let mut command = Command::new(program);
    command.args(["--concurrency", "2", "--disable-hot-restart", "--log-level", "error", "--config-path"]);
    command.arg(file);
    Ok(command)
}

fn envoy_config(at: SocketAddr, behind: &[SocketAddr]) -> Value {
    let ty = |path: &str| format!("type.googleapis.com/envoy.{path}");
    let address =
        |of: SocketAddr| json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}});
    let route = json!({"match": {"prefix": "/"}, "route": {
        "cluster": "app",
        "timeout": "5s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,gateway-error",
            "num_retries": 2,
            "per_try_timeout": "1s",
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": ty("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")},
            }],
            "host_selection_retry_max_attempts": 5,
        },
    }});
    let manager = json!({
        "@type": ty("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": ty("extensions.filters.http.router.v3.Router")},
        }],
    });
    let endpoints: Vec<_> =
        behind.iter().map(|endpoint| json!({"endpoint": {"address": address(*endpoint)}})).collect();
    let cluster = json!({
        "name": "app",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {"thresholds": [{"retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3}}]},
        "outlier_detection": {"max_ejection_percent": 50, "enforcing_consecutive_gateway_failure": 100},
    });
    let listener = json!({
        "name": "in", "address": address(at),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    });
    json!({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
}
