//! The containers and volumes that are added to a pod.
//!
//! The proxy is a native sidecar: an init container that keeps running (`restartPolicy: Always`, Kubernetes 1.29 and later). So the
//! pod's own init containers have a network, a Job ends when its work does, and the proxy outlives its app. It needs no privilege and
//! writes nowhere but to memory. The redirection is loaded before it by a container that ends at once and alone holds NET_ADMIN.

use std::time::Duration;

use outrigger_config::xds::certificates::AUDIENCE;
use serde_json::{Map, Value, json};

use super::Settings;
use super::annotations::{Share, Tuning};
use super::probes::{self, PROBES_ENV, Rewritten};

pub const PROXY_CONTAINER: &str = "outrigger-proxy";
pub const CAPTURE_CONTAINER: &str = "outrigger-capture";
/// On every injected pod, `"true"`.
pub const MESHED_LABEL: &str = "outrigger.dev/meshed";

/// The proxy's port for metrics, readiness and the app's probes.
pub const METRICS_PORT: u16 = 15020;
const ADMIN_PORT: u16 = 15000;
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;
/// Where the redirection leads or the proxy listens; an app cannot have these.
pub const PORTS: [u16; 5] = [ADMIN_PORT, OUTBOUND_PORT, INBOUND_PORT, CANARY_PORT, METRICS_PORT];
const CANARY_PORT: u16 = 15019;
/// The user the proxy runs as; the redirection tells its connections from the app's by it.
pub const PROXY_UID: u32 = 1337;

/// What the proxy keeps across its restarts: its certificate with the key, and the last good configuration.
const STATE_VOLUME: &str = "outrigger-state";
const STATE_DIR: &str = "/var/run/outrigger";
/// What it proves itself with to the control plane, and what that proves itself with to it.
const IDENTITY_VOLUME: &str = "outrigger-identity";
const IDENTITY_DIR: &str = "/var/run/secrets/outrigger";
const TOKEN: &str = "token";
/// The key in the config map, too.
const ROOTS: &str = "roots.pem";
pub const VOLUMES: [&str; 2] = [STATE_VOLUME, IDENTITY_VOLUME];
/// The kubelet renews a token at four fifths of this; it is read anew for each connection.
const TOKEN_SECONDS: u32 = 3600;

/// Whatever the proxy says of itself; from the start of the process to its readiness it may take as long as images and certificates
/// need, ten minutes, and is then started anew.
const STARTUP_SECONDS: u32 = 600;

/// How the pod ends, for the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    pub window: Duration,
    pub deadline: Duration,
}

pub fn proxy(settings: &Settings, tuning: &Tuning, drain: Drain, probes: &[Rewritten]) -> Value {
    let mut args = vec!["--namespace=$(POD_NAMESPACE)".to_owned()];
    args.push("--workload=$(POD_NAME)".to_owned());
    args.push("--pod-address=$(POD_IP)".to_owned());
    args.extend(settings.control.iter().map(|address| format!("--control={address}")));
    args.push(format!("--control-root={IDENTITY_DIR}/{ROOTS}"));
    args.push(format!("--token={IDENTITY_DIR}/{TOKEN}"));
    args.push(format!("--identity-dir={STATE_DIR}/identity"));
    args.push(format!("--state-dir={STATE_DIR}/state"));
    // It listens where the redirection leads, and is not ready before it has met itself there.
    args.push("--captured".to_owned());
    args.extend(tuning.concurrency.map(|workers| format!("--workers={workers}")));
    args.push(format!("--drain-window={}s", drain.window.as_secs()));
    args.push(format!("--drain-deadline={}s", drain.deadline.as_secs()));

    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
    ];
    if let Some(level) = &tuning.log_level {
        env.push(json!({"name": "RUST_LOG", "value": level}));
    }
    if !probes.is_empty() {
        env.push(json!({"name": PROBES_ENV, "value": probes::handed(probes)}));
    }
    let ready = json!({"path": "/healthz/ready", "port": METRICS_PORT});
    json!({
        "name": PROXY_CONTAINER,
        "image": settings.proxy_image,
        "restartPolicy": "Always",
        "args": args,
        "env": env,
        "ports": [{"name": "mesh-metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "startupProbe": {
            "httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": STARTUP_SECONDS,
        },
        "readinessProbe": {
            "httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3,
        },
        // Called as soon as the pod is to end, while SIGTERM reaches a sidecar only after the app's containers are gone.
        "lifecycle": {"preStop": {"exec": {"command": ["/outrigger-proxy", "drain"]}}},
        "resources": resources(&tuning.cpu, &tuning.memory),
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": STATE_VOLUME, "mountPath": STATE_DIR},
            {"name": IDENTITY_VOLUME, "mountPath": IDENTITY_DIR, "readOnly": true},
        ],
    })
}

pub fn capture(settings: &Settings, tuning: &Tuning) -> Value {
    let mut args = vec!["capture".to_owned(), "apply".to_owned(), format!("--proxy-uid={PROXY_UID}")];
    let mut exclude = |what: &str, values: Vec<String>| {
        if !values.is_empty() {
            args.push(format!("--exclude-{what}={}", values.join(",")));
        }
    };
    let numbers = |ports: &[u16]| ports.iter().map(u16::to_string).collect();
    exclude("inbound-ports", numbers(&tuning.exclude_inbound_ports));
    exclude("outbound-ports", numbers(&tuning.exclude_outbound_ports));
    exclude("outbound-cidrs", tuning.exclude_outbound_cidrs.clone());
    json!({
        "name": CAPTURE_CONTAINER,
        "image": settings.capture_image,
        "args": args,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

pub fn volumes(settings: &Settings) -> Vec<Value> {
    let token = json!({"serviceAccountToken": {"path": TOKEN, "audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS}});
    let roots = json!({"configMap": {"name": settings.roots, "items": [{"key": ROOTS, "path": ROOTS}]}});
    vec![
        // In memory alone, because of the key.
        json!({"name": STATE_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}),
        json!({"name": IDENTITY_VOLUME, "projected": {"sources": [token, roots]}}),
    ]
}

/// What Prometheus' usual configuration for Kubernetes looks for.
pub fn scrape_annotations() -> [(&'static str, String); 3] {
    [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", METRICS_PORT.to_string()),
        ("prometheus.io/path", "/metrics".to_owned()),
    ]
}

fn resources(cpu: &Share, memory: &Share) -> Value {
    let mut limits = Map::new();
    for (name, share) in [("cpu", cpu), ("memory", memory)] {
        if let Some(limit) = &share.limit {
            limits.insert(name.to_owned(), limit.written.as_str().into());
        }
    }
    json!({"requests": {"cpu": cpu.request.written, "memory": memory.request.written}, "limits": limits})
}
