//! Everything that is not as it should be, in one list, each with the place to look at.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_config::diagnostic::Severity;
use serde::Serialize;

use super::plane::{Finding, Object, Plane};
use crate::up::MeshReport;

#[derive(Debug, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub kind: Kind,
    /// `FILE:LINE:COLUMN` as far as known; a workload, a gateway or the control plane where it is about a process.
    pub place: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A process does not run, or is not ready.
    Process,
    /// The control plane does not answer.
    ControlPlane,
    /// Something in a manifest; if it is an error, the last good version of the object is in force, or nothing of it.
    Manifest,
    /// An object that was read has no effect.
    NotAccepted,
    /// Connected clients that are not our proxy are told nothing of a part of it.
    Lost,
    /// A proxy refused what was made of an object and goes on by what it had.
    Refused,
    /// Proxies have no place to keep their certificates.
    NotKept,
    /// A proxy is not connected to the control plane, or behind.
    Stale,
    /// A caller has ejected an endpoint, or reached a cap.
    Circuit,
    /// Calls go wrong on purpose, or would if that were not over.
    Experiment,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The worst first.
pub fn problems(mesh: &MeshReport, plane: Result<&Plane, &anyhow::Error>) -> Vec<Problem> {
    let mut problems = processes(mesh);
    match plane {
        Ok(plane) => {
            problems.extend(plane.diagnostics.iter().map(manifest));
            problems.extend(refusals(plane));
            problems.extend(not_accepted(plane));
            problems.extend(plane.objects.iter().flat_map(lost));
            problems.extend(stale(mesh, plane));
        }
        Err(error) => problems.push(Problem {
            severity: Severity::Error,
            kind: Kind::ControlPlane,
            place: "control plane".into(),
            message: format!(
                "does not answer ({error:#}); all proxies go on by what they have, and changes of manifests wait"
            ),
        }),
    }
    if !mesh.in_memory {
        problems.push(Problem {
            severity: Severity::Warning,
            kind: Kind::NotKept,
            place: mesh.run_dir.display().to_string(),
            message: "is not in memory, so that proxies keep no certificate there: one that is started again while the control \
                      plane is away has none. Set XDG_RUNTIME_DIR to a folder on tmpfs"
                .into(),
        });
    }
    problems.sort_by_key(|problem| problem.severity);
    problems
}

fn processes(mesh: &MeshReport) -> Vec<Problem> {
    let workloads = mesh.workloads.iter().map(|one| (&one.name, &one.state, &one.reason));
    let gateways = mesh.gateways.iter().map(|one| (&one.name, &one.state, &one.reason));
    let mut problems: Vec<Problem> = workloads
        .chain(gateways)
        .filter_map(|(name, state, reason)| process(name, state, reason.as_deref()))
        .collect();
    if let Some(control) = &mesh.control {
        problems.extend(process("control plane", &control.state, control.reason.as_deref()));
    }
    problems
}

fn process(name: &str, state: &str, reason: Option<&str>) -> Option<Problem> {
    let severity = match state {
        "Ready" => return None,
        // On their way, as far as anybody knows.
        "Starting" | "Draining" | "Stopped" => Severity::Note,
        _ => Severity::Error,
    };
    let message = match reason {
        Some(reason) => format!("{state}: {reason}"),
        None => state.into(),
    };
    Some(Problem { severity, kind: Kind::Process, place: name.into(), message })
}

fn manifest(finding: &Finding) -> Problem {
    let mut place = finding.file.clone();
    match (finding.line, finding.column, &finding.object) {
        (Some(line), Some(column), _) => place.push_str(&format!(":{line}:{column}")),
        (_, _, Some(object)) => place.push_str(&format!(": {object}")),
        _ => {}
    }
    let message = if finding.field.is_empty() {
        finding.message.clone()
    } else {
        format!("{}: {}", finding.field, finding.message)
    };
    Problem { severity: finding.severity.into(), kind: Kind::Manifest, place, message }
}

fn refusals(plane: &Plane) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for proxy in &plane.proxies {
        for (kind, resources) in &proxy.resources {
            for (name, resource) in resources {
                let Some(blame) = &resource.refused else { continue };
                let resource = format!("{kind} {name}");
                let place = match (&blame.file, blame.line) {
                    (Some(file), Some(line)) => format!("{file}:{line}"),
                    (Some(file), None) => file.clone(),
                    _ => resource.clone(),
                };
                let object = blame.object.as_deref().unwrap_or("it");
                let mut message = [object, &blame.field].join(" ").trim_end().to_owned();
                message.push_str(&format!(" is refused by {}: {}", proxy.id, blame.reason));
                problems.push(Problem { severity: Severity::Error, kind: Kind::Refused, place, message });
            }
        }
    }
    problems
}

fn not_accepted(plane: &Plane) -> impl Iterator<Item = Problem> {
    plane.objects.iter().filter(|object| object.accepted.status == "False").map(|object| {
        let name = match object.namespace.as_str() {
            "" => object.name.clone(),
            namespace => format!("{namespace}/{}", object.name),
        };
        Problem {
            severity: Severity::Note,
            kind: Kind::NotAccepted,
            place: object.line.map_or_else(|| object.file.clone(), |line| format!("{}:{line}", object.file)),
            message: format!(
                "{} {name}: {} {}",
                object.kind,
                object.accepted.reason.to_lowercase(),
                object.accepted.message
            )
            .trim_end()
            .to_owned(),
        }
    })
}

fn lost(object: &Object) -> impl Iterator<Item = Problem> {
    object.lost.iter().map(|lost| Problem {
        severity: Severity::Note,
        kind: Kind::Lost,
        place: object.line.map_or_else(|| object.file.clone(), |line| format!("{}:{line}", object.file)),
        message: format!(
            "{} {}/{}: {} clients are connected, which are told nothing of {}",
            object.kind,
            object.namespace,
            object.name,
            lost.client,
            lost.fields.join(", ")
        ),
    })
}

/// Proxies that run and work by what they heard some time ago.
fn stale(mesh: &MeshReport, plane: &Plane) -> Vec<Problem> {
    let workloads = mesh.workloads.iter().filter(|one| one.sidecar_pid.is_some());
    let workloads = workloads.map(|one| ("sidecar", &one.namespace, &one.name));
    let gateways = mesh.gateways.iter().filter(|one| one.pid.is_some());
    let gateways = gateways.map(|one| ("gateway", &one.namespace, &one.name));
    let problem =
        |severity, name: &str, message| Problem { severity, kind: Kind::Stale, place: name.into(), message };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    workloads
        .chain(gateways)
        .filter_map(|(role, namespace, name)| {
            let found = plane
                .proxies
                .iter()
                .find(|proxy| proxy.role == role && proxy.namespace == *namespace && proxy.name == *name);
            let waits = |count| format!("its {role} has yet to answer {count} responses of the control plane");
            match found {
                Some(proxy) if proxy.unanswered > 0 => {
                    Some(problem(Severity::Note, name, waits(proxy.unanswered)))
                }
                Some(_) => None,
                None => {
                    // `KIND~IP~NAME.NAMESPACE~…`
                    let id = format!("~{name}.{namespace}~");
                    let (since, why) = plane.gone.iter().rev().find(|gone| gone.id.contains(&id)).map_or_else(
                        || (plane.started, String::new()),
                        |gone| (gone.disconnected, format!(" ({})", gone.reason)),
                    );
                    let message = format!(
                        "its {role} is not connected to the control plane for {:.0} s{why}; it goes on by what it has",
                        (now - since).max(0.0)
                    );
                    Some(problem(Severity::Warning, name, message))
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mesh(control: &str, workload: &str) -> MeshReport {
        serde_json::from_value(json!({
            "network": "127.64.0.0/16", "run_dir": "/run/m", "in_memory": true, "directories": ["/m"], "pid": 1,
            "control": {"state": control, "reason": null, "pid": 2, "restarts": 0, "discovery": "", "api": "", "metrics": "", "ca_dir": ""},
            "workloads": [{
                "namespace": "default", "workload": "echo", "name": "echo-0", "state": workload,
                "reason": "ended: exit status: 1", "address": "127.64.1.1", "ports": [8080], "pid": 3,
                "sidecar_pid": 4, "restarts": 3, "sidecar_restarts": 0, "admin": "", "metrics": "",
            }],
            "gateways": [],
        }))
        .expect("a report")
    }

    fn plane(value: serde_json::Value) -> Plane {
        serde_json::from_value(value).expect("a status")
    }

    fn connected(resources: serde_json::Value) -> serde_json::Value {
        json!({
            "id": "sidecar~127.64.1.1~echo-0.default~default.svc.cluster.local", "role": "sidecar",
            "namespace": "default", "name": "echo-0", "unanswered": 0, "resources": resources,
        })
    }

    fn lines(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(|problem| format!("{}: {problem}", problem.severity)).collect()
    }

    #[test]
    fn a_mesh_without_problems_lists_none() {
        let plane = plane(json!({
            "started": 0.0, "diagnostics": [], "objects": [], "proxies": [connected(json!({}))], "gone": [],
        }));
        assert_eq!(lines(&problems(&mesh("Ready", "Ready"), Ok(&plane))), [""; 0]);
    }

    #[test]
    fn each_problem_names_its_place_and_the_worst_comes_first() {
        let refused = json!({"route_table": {"80": {"refused": {
            "object": "HTTPRoute default/echo", "field": "spec.rules[0]", "file": "/m/route.yaml", "line": 7, "reason": "too long",
        }}}});
        let plane = plane(json!({
            "started": 0.0,
            "diagnostics": [
                {"severity": "note", "file": "/m/a.yaml", "line": 1, "column": 2, "message": "as you like"},
                {"severity": "error", "file": "/m/b.yaml", "line": 3, "column": 4, "field": "spec.x", "message": "unknown"},
            ],
            "objects": [{
                "kind": "HTTPRoute", "namespace": "default", "name": "late", "file": "/m/c.yaml", "line": 9,
                "accepted": {"status": "False", "reason": "Overridden", "message": "by HTTPRoute default/early"},
                "lost": [{"client": "Envoy", "fields": ["retry.hedge", "retry.budget"]}],
            }],
            "proxies": [connected(refused)],
            "gone": [],
        }));
        assert_eq!(
            lines(&problems(&mesh("Ready", "Restarting"), Ok(&plane))),
            [
                "error: echo-0: Restarting: ended: exit status: 1",
                "error: /m/b.yaml:3:4: spec.x: unknown",
                "error: /m/route.yaml:7: HTTPRoute default/echo spec.rules[0] is refused by \
                 sidecar~127.64.1.1~echo-0.default~default.svc.cluster.local: too long",
                "note: /m/a.yaml:1:2: as you like",
                "note: /m/c.yaml:9: HTTPRoute default/late: overridden by HTTPRoute default/early",
                "note: /m/c.yaml:9: HTTPRoute default/late: Envoy clients are connected, which are told nothing of retry.hedge, \
                 retry.budget",
            ]
        );
    }

    #[test]
    fn a_proxy_that_is_not_connected_and_a_control_plane_that_is_away_are_said_so() {
        let alone = plane(json!({
            "started": 0.0, "diagnostics": [], "objects": [], "proxies": [],
            "gone": [{"id": "sidecar~127.64.1.1~echo-0.default~x", "disconnected": 5.0, "reason": "reset"}],
        }));
        let [problem] = &problems(&mesh("Ready", "Ready"), Ok(&alone))[..] else { panic!("one problem") };
        assert_eq!((problem.severity, problem.kind), (Severity::Warning, Kind::Stale));
        assert!(
            problem.message.contains("not connected") && problem.message.contains("(reset)"),
            "{problem}"
        );

        let on_disk = MeshReport { in_memory: false, ..mesh("Ready", "Ready") };
        let [_, problem] = &problems(&on_disk, Ok(&alone))[..] else { panic!("two problems") };
        assert_eq!((problem.kind, problem.place.as_str()), (Kind::NotKept, "/run/m"));

        let away = anyhow::anyhow!("connection refused");
        let found = problems(&mesh("Restarting", "Ready"), Err(&away));
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|problem| problem.severity == Severity::Error), "{:?}", lines(&found));
    }
}
