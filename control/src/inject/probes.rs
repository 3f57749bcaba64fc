//! The kubelet's probes, led through the proxy.
//!
//! The kubelet has no identity in the mesh: under Strict an app cannot be probed from outside. So each probe that is a call is turned into
//! one of the proxy's own port, which the redirection leaves alone, and what it was is handed to the proxy, which makes the call from
//! within. Every container's probes, those of other sidecars too. `exec` needs no network and stays. So do the hooks that are calls:
//! whoever reaches the port can ask for what was handed over, and a hook, unlike a probe, does something.

use outrigger_config::manifest::path::FieldPath;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::shape::{self, Object};
use super::sidecar::METRICS_PORT;
use super::{Refused, Report};

/// Of the proxy: a JSON object from the path that is asked for to what to do, in the words of Kubernetes:
/// `{"/app-health/app/readyz": {"httpGet": {"path": "/ready", "port": 8080}, "timeoutSeconds": 1}}`.
pub const PROBES_ENV: &str = "OUTRIGGER_APP_PROBES";

/// A container's probes, and the last part of the path each becomes.
const SLOTS: [(&str, &str); 3] =
    [("startupProbe", "startupz"), ("readinessProbe", "readyz"), ("livenessProbe", "livez")];

/// What Kubernetes waits for an answer where a probe does not say.
const DEFAULT_TIMEOUT_SECONDS: u64 = 1;
/// What the proxy takes.
const MAX_TIMEOUT_SECONDS: u64 = 3600;

/// The kinds of call, by the key that holds each.
const CALLS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// A probe that was rewritten.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    /// Asked of the proxy instead.
    pub path: String,
    /// For the proxy, ports as numbers.
    pub call: Value,
    /// Where the user had named the port.
    pub port_name: Option<String>,
}

/// What is noted of a rewritten probe beside what the proxy is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortName {
    pub path: String,
    pub port: String,
}

/// Rewrites the probes of one container.
pub fn rewrite(
    container: &mut Object,
    name: &str,
    at: &FieldPath,
    report: &mut Report,
) -> Result<Vec<Rewritten>, Refused> {
    let mut all = Vec::new();
    for (key, word) in SLOTS {
        let Some(probe) = shape::object(container, at, key, report)? else { continue };
        let probe_at = at.key(key);
        let Some(kind) = CALLS.into_iter().find(|kind| probe.get(*kind).is_some_and(|call| !call.is_null()))
        else {
            continue;
        };
        let call = shape::object(probe, &probe_at, kind, report)?.expect("found just now");
        let call_at = probe_at.key(kind);
        if let Some(host) = shape::text(call, &call_at, "host", report)?.filter(|host| !host.is_empty()) {
            report.warn(&call_at.key("host"), format!("asks {host}, not this pod; it is left as it is"));
            continue;
        }
        let path = format!("/app-health/{name}/{word}");
        if kind == "httpGet" && is_ours(call, &path) {
            report.warn(&call_at, "leads to the proxy already, which does not know what it was");
            continue;
        }
        let (port, port_name) = port(container, call, &call_at, report)?;
        let mut call = call.clone();
        call.insert("port".to_owned(), port.into());
        let timeout = shape::number(probe, &probe_at, "timeoutSeconds", report)?;
        let timeout = timeout.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        if timeout > MAX_TIMEOUT_SECONDS {
            let message = format!("{timeout} is more than the {MAX_TIMEOUT_SECONDS} a probe may take");
            return Err(report.error(&probe_at.key("timeoutSeconds"), message));
        }
        let handed = Map::from_iter([
            (kind.to_owned(), Value::Object(call)),
            ("timeoutSeconds".to_owned(), timeout.into()),
        ]);
        let ours = json!({"path": path, "port": METRICS_PORT});
        if let Some(Value::Object(probe)) = container.get_mut(key) {
            rename(probe, kind, "httpGet", ours);
        }
        all.push(Rewritten { path, call: Value::Object(handed), port_name });
    }
    Ok(all)
}

/// What the proxy is told, as the value of a variable. Kubernetes expands `$(NAME)` in there and takes `$$` for `$`; in a probe it does not.
pub fn handed(probes: &[Rewritten]) -> String {
    let calls: Map<_, _> = probes.iter().map(|probe| (probe.path.clone(), probe.call.clone())).collect();
    Value::Object(calls).to_string().replace('$', "$$")
}

/// Reads what [`handed`] wrote.
pub fn read_handed(value: &str) -> Option<Object> {
    serde_json::from_str(&value.replace("$$", "$")).ok()
}

/// Puts back what [`rewrite`] took, wherever it still stands as it was left. `calls` is what the proxy was told.
pub fn restore(spec: &mut Object, calls: &Object, names: &[PortName]) {
    for (path, call) in calls {
        let mut parts = path.strip_prefix("/app-health/").unwrap_or_default().split('/');
        let (Some(name), Some(word)) = (parts.next(), parts.next()) else { continue };
        let Some((key, _)) = SLOTS.iter().find(|(_, known)| *known == word) else { continue };
        let Some(container) = shape::container_mut(spec, name) else { continue };
        let Some((kind, Value::Object(call))) =
            call.as_object().and_then(|handed| handed.iter().find(|(key, _)| CALLS.contains(&key.as_str())))
        else {
            continue;
        };
        let mut call = call.clone();
        if let Some(name) = names.iter().find(|name| name.path == *path) {
            call.insert("port".to_owned(), name.port.as_str().into());
        }
        let Some(Value::Object(probe)) = container.get_mut(*key) else { continue };
        let current = probe.get("httpGet").and_then(Value::as_object);
        if current.is_some_and(|current| is_ours(current, path)) {
            rename(probe, "httpGet", kind, Value::Object(call));
        }
    }
}

fn is_ours(http_get: &Object, path: &str) -> bool {
    let is = |key, value: Value| http_get.get(key) == Some(&value);
    is("path", path.into()) && is("port", METRICS_PORT.into())
}

/// Puts `value` under `to` where `from` stood.
fn rename(object: &mut Object, from: &str, to: &str, value: Value) {
    let mut value = Some(value);
    *object = std::mem::take(object)
        .into_iter()
        .filter_map(|(key, old)| match key == from {
            true => value.take().map(|value| (to.to_owned(), value)),
            false => Some((key, old)),
        })
        .collect();
}

/// The port of a call, by number; a name is looked up among the container's own, as the kubelet does.
fn port(
    container: &Object,
    call: &Object,
    at: &FieldPath,
    report: &mut Report,
) -> Result<(u16, Option<String>), Refused> {
    let port_at = at.key("port");
    let number =
        |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    match call.get("port") {
        Some(Value::String(name)) => {
            let ports = container.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let found = ports.iter().find(|port| port["name"] == name.as_str());
            match found.and_then(|port| number(&port["containerPort"])) {
                Some(port) => Ok((port, Some(name.clone()))),
                None => {
                    Err(report
                        .error(&port_at, format!("{name:?} is not the name of a port of this container")))
                }
            }
        }
        Some(value) => match number(value) {
            Some(port) => Ok((port, None)),
            None => Err(report.error(&port_at, "must be a port (1 to 65535), or the name of one")),
        },
        None => Err(report.error(&port_at, "is required, and missing")),
    }
}
