//! `/v1/status`: what became of every object, and how far every proxy is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_config::diagnostic::Diagnostic;
use outrigger_config::manifest::{Manifest, Object, ObjectKey};
use outrigger_config::registry::{State as Standing, Status as Verdict};
use outrigger_config::xds::{self, Client, Role};
use serde::Serialize;

use super::Api;
use super::faults::{self, Experiment};
use crate::ads::session::State;
use crate::metrics;
use crate::proxies::Proxy;
use crate::view::View;
use crate::view::blame::{self, Blame};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: &'static str,
    /// Rises with each change of the manifests; of this process only.
    generation: u64,
    /// Unix seconds.
    started: f64,
    manifests: Arc<[String]>,
    /// What is wrong or worth knowing, by file and line.
    diagnostics: Vec<Diagnostic>,
    objects: Vec<ObjectStatus>,
    proxies: Vec<ProxyStatus>,
    /// Proxies that were connected before, the latest last.
    gone: Vec<GoneStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectStatus {
    kind: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: Arc<str>,
    name: Arc<str>,
    file: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    accepted: Condition,
    programmed: Condition,
    /// Of a TrafficPolicy with faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    experiment: Option<Experiment>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Diagnostic>,
    /// Proxies that have, or are to have, something made of this object.
    proxies: Counts,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<RefusedBy>,
    /// What of it connected clients that are not our proxy are told nothing of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Lost>,
}

#[derive(Debug, Serialize)]
struct Lost {
    /// `Envoy` or `Grpc`
    client: String,
    fields: Vec<&'static str>,
}

/// As Kubernetes writes conditions.
#[derive(Debug, Serialize)]
struct Condition {
    /// `True`, `False` or `Unknown`
    status: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Counts {
    applied: usize,
    pending: usize,
    refused: usize,
}

#[derive(Debug, Serialize)]
struct RefusedBy {
    proxy: String,
    #[serde(flatten)]
    blame: Blame,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProxyStatus {
    /// `node.id`
    id: String,
    role: &'static str,
    namespace: Arc<str>,
    name: Arc<str>,
    agent: Arc<str>,
    version: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Unix seconds.
    connected_since: f64,
    /// The newest generation it has answered everything of.
    settled: u64,
    /// Responses it has yet to answer.
    unanswered: usize,
    /// By kind and name.
    resources: BTreeMap<&'static str, BTreeMap<Arc<str>, ResourceStatus>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceStatus {
    state: &'static str,
    /// The version the proxy works with.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Blame>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GoneStatus {
    id: String,
    agent: Arc<str>,
    /// Unix seconds.
    disconnected: f64,
    reason: String,
}

pub(super) fn status(api: &Api) -> Status {
    let view = api.views.borrow().clone();
    let connected = api.proxies.connected();
    let gone = api.proxies.gone().into_iter().map(|gone| GoneStatus {
        id: gone.node.id(),
        agent: gone.node.user_agent.clone(),
        disconnected: seconds(gone.until),
        reason: gone.why,
    });
    Status {
        version: env!("CARGO_PKG_VERSION"),
        generation: view.generation(),
        started: seconds(api.started),
        manifests: api.manifests.clone(),
        diagnostics: view.registry().diagnostics().to_vec(),
        objects: object_statuses(&view, &connected),
        proxies: connected.iter().map(|proxy| proxy_status(proxy)).collect(),
        gone: gone.collect(),
    }
}

pub(super) fn objects(api: &Api) -> Vec<ObjectStatus> {
    let view = api.views.borrow().clone();
    object_statuses(&view, &api.proxies.connected())
}

pub(super) fn proxies(api: &Api) -> Vec<ProxyStatus> {
    api.proxies.connected().iter().map(|proxy| proxy_status(proxy)).collect()
}

fn object_statuses(view: &View, connected: &[Arc<Proxy>]) -> Vec<ObjectStatus> {
    let registry = view.registry();
    let mut reports = reports(view, connected);
    let mut foreign: Vec<_> = connected.iter().map(|proxy| proxy.session().client()).collect();
    foreign.sort_unstable_by_key(|client| *client as u8);
    foreign.dedup();
    let mut experiments = faults::by_object(view);
    registry
        .objects()
        .map(|(key, object)| {
            let report = reports.remove(key).unwrap_or_default();
            let mut status = object_status(key, object, registry.status(key), report);
            status.lost = foreign.iter().filter_map(|client| lost(object, *client)).collect();
            status.experiment = experiments.remove(key);
            status
        })
        .collect()
}

/// What proxies make of one object.
#[derive(Debug, Default)]
struct Report {
    counts: Counts,
    refused: Vec<RefusedBy>,
}

/// How a proxy stands with an object: as with the worst of the resources made of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Applied,
    Pending,
    Refused,
}

fn reports(view: &View, connected: &[Arc<Proxy>]) -> BTreeMap<ObjectKey, Report> {
    let mut reports: BTreeMap<ObjectKey, Report> = BTreeMap::new();
    // Of what objects a resource is made is worked out once, however many proxies have it.
    let mut made_of: BTreeMap<Arc<str>, Arc<BTreeSet<ObjectKey>>> = BTreeMap::new();
    for proxy in connected {
        let session = proxy.session();
        let mut worst: BTreeMap<ObjectKey, Progress> = BTreeMap::new();
        for (kind, names) in session.names() {
            for (name, known) in names.iter() {
                let Some(entry) = view.entry(session.who(), kind, name) else { continue };
                // Equal versions are equal content, origins included.
                let objects = made_of
                    .entry(entry.version().clone())
                    .or_insert_with(|| Arc::new(blame::objects(entry.resource())))
                    .clone();
                let progress = match known.state() {
                    State::Applied if known.applied() == Some(entry.version()) => Progress::Applied,
                    // It has what held before.
                    State::Applied | State::Absent | State::Pending => Progress::Pending,
                    State::Refused => Progress::Refused,
                };
                if let Some(refusal) = known.refusal() {
                    let blame = blame::blame(refusal, entry.resource(), view.registry());
                    let blamed = objects.iter().find(|key| blame.object == Some(key.to_string()));
                    if let Some(key) = blamed {
                        let refused = RefusedBy { proxy: proxy.node().id(), blame };
                        reports.entry(key.clone()).or_default().refused.push(refused);
                    }
                }
                for key in &*objects {
                    let worst = worst.entry(key.clone()).or_insert(progress);
                    *worst = (*worst).max(progress);
                }
            }
        }
        for (key, progress) in worst {
            let counts = &mut reports.entry(key).or_default().counts;
            match progress {
                Progress::Applied => counts.applied += 1,
                Progress::Pending => counts.pending += 1,
                Progress::Refused => counts.refused += 1,
            }
        }
    }
    reports
}

fn lost(object: &Object, client: Client) -> Option<Lost> {
    let Manifest::TrafficPolicy(policy) = &object.manifest else { return None };
    let fields = xds::lost(policy, client);
    (!fields.is_empty()).then(|| Lost { client: format!("{client:?}"), fields })
}

fn object_status(
    key: &ObjectKey,
    object: &Object,
    verdict: Option<&Verdict>,
    report: Report,
) -> ObjectStatus {
    let accepted = match verdict.map(|verdict| &verdict.state) {
        Some(Standing::Ignored(why)) => {
            Condition { status: "False", reason: "Ignored", message: why.clone() }
        }
        Some(Standing::Overridden { by, why }) => {
            Condition { status: "False", reason: "Overridden", message: format!("by {by}: {why}") }
        }
        Some(Standing::Accepted) | None => {
            Condition { status: "True", reason: "Accepted", message: String::new() }
        }
    };
    let Counts { applied, pending, refused } = report.counts;
    let (status, reason, message) = match (applied, pending, refused) {
        (0, 0, 0) => ("Unknown", "NotAskedFor", String::new()),
        (_, _, 1..) => ("False", "Refused", format!("{refused} proxies refuse what was made of it")),
        (_, 1.., 0) => ("False", "Pending", format!("{pending} proxies have yet to answer")),
        (1.., 0, 0) => ("True", "Programmed", String::new()),
    };
    ObjectStatus {
        kind: key.kind.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        file: object.source.file.clone(),
        line: object.source.locate("").map(|at| at.line),
        generation: object.metadata().generation,
        accepted,
        programmed: Condition { status, reason, message },
        experiment: None,
        findings: verdict.map(|verdict| verdict.findings.clone()).unwrap_or_default(),
        proxies: report.counts,
        refused: report.refused,
        lost: Vec::new(),
    }
}

fn proxy_status(proxy: &Proxy) -> ProxyStatus {
    let node = proxy.node();
    let session = proxy.session();
    let mut resources: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (kind, names) in session.names().filter(|(_, names)| !names.is_empty()) {
        let of_kind = resources.entry(metrics::word(kind)).or_default();
        for (name, known) in names.iter() {
            let refused =
                known.refusal().map(|refusal| match session.view().entry(session.who(), kind, name) {
                    Some(entry) => blame::blame(refusal, entry.resource(), session.view().registry()),
                    None => Blame::unknown(refusal),
                });
            let state = match known.state() {
                State::Applied => "applied",
                State::Absent => "absent",
                State::Refused => "refused",
                State::Pending => "pending",
            };
            of_kind
                .insert(name.clone(), ResourceStatus { state, applied: known.applied().cloned(), refused });
        }
    }
    ProxyStatus {
        id: node.id(),
        role: match node.role {
            Role::Sidecar { .. } => "sidecar",
            Role::Gateway { .. } => "gateway",
        },
        namespace: node.role.namespace().clone(),
        name: node.role.name().clone(),
        agent: node.user_agent.clone(),
        version: node.version.clone(),
        zone: node.zone.clone(),
        address: proxy.peer().map(|peer| peer.to_string()),
        connected_since: seconds(proxy.since()),
        settled: session.settled(),
        unanswered: session.unanswered(),
        resources,
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| (since.as_secs_f64() * 1000.0).round() / 1000.0)
}
