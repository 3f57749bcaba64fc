//! `TrafficPolicy`: how calls to its targets behave.
//!
//! Each top-level section is taken as a whole from the policy that wins it: `section: {}` overrides with defaults, an
//! absent section inherits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::decode::{member_error, nearest};
use super::field::{Ignored, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::route::GATEWAY_GROUP;
use super::value::{Duration, Label, Name, Port};

/// Our own API group.
pub const OUTRIGGER_GROUP: &str = "outrigger.dev";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficPolicy {
    pub metadata: Metadata,
    pub spec: TrafficPolicySpec,
    /// Written by the control plane, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicySpec {
    /// What it is about; 1 to 16.
    pub target_refs: Vec<TargetRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimeoutSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<NotYet>,
    /// Enforced at the callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<NotYet>,
    /// Enforced at the callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NotYet>,
}

/// `0s` means no limit, but for `connect`, which always has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeoutSection {
    /// The whole exchange, all attempts included; ends at the response's headers for streams and upgrades. Default: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try: Option<NotYet>,
    /// Until a connection to an endpoint stands, TLS included. Default 1s; 1ms to 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// How long a stream, tunnel or TCP connection may carry nothing. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<NotYet>,
}

/// What a policy is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawTargetRef", into = "RawTargetRef")]
pub enum TargetRef {
    /// `namespace` default: the policy's own. `port` absent: all of them.
    Service {
        namespace: Option<Label>,
        name: Label,
        port: Option<Port>,
    },
    /// In the policy's own namespace. `rule` is a rule's name; absent: all of them.
    HttpRoute {
        name: Name,
        rule: Option<Name>,
    },
    /// In the policy's own namespace. `rule` is a rule's name; absent: all of them.
    GrpcRoute {
        name: Name,
        rule: Option<Name>,
    },
    Namespace {
        name: Label,
    },
    Mesh {
        name: Name,
    },
}

impl TargetRef {
    /// The kind, as manifests write it.
    pub const fn kind(&self) -> &'static str {
        match self {
            TargetRef::Service { .. } => "Service",
            TargetRef::HttpRoute { .. } => "HTTPRoute",
            TargetRef::GrpcRoute { .. } => "GRPCRoute",
            TargetRef::Namespace { .. } => "Namespace",
            TargetRef::Mesh { .. } => "Mesh",
        }
    }
}

impl Check for TrafficPolicy {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        let targets = spec.key("targetRefs");
        findings.not_empty(&targets, self.spec.target_refs.len());
        findings.at_most(&targets, self.spec.target_refs.len(), 16);
        findings.unique(&targets, &self.spec.target_refs, "", |target| Some(described(target)));
        match &self.spec.timeout {
            Some(timeout) => timeout.check(&spec.key("timeout"), findings),
            None => findings.error(spec, "one of these is required: timeout"),
        }
    }
}

impl Check for TimeoutSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(connect) = self.connect
            && !(1..=60_000).contains(&connect.get().as_millis())
        {
            findings.error(at.key("connect"), format!("{connect} is not a connect timeout (1ms to 60s)"));
        }
    }
}

fn described(target: &TargetRef) -> String {
    match target {
        TargetRef::Service { namespace, name, port } => {
            let namespace = namespace.as_deref().map(|n| format!("{n}/")).unwrap_or_default();
            let port = port.map(|p| format!(", port {p}")).unwrap_or_default();
            format!("Service {namespace}{name}{port}")
        }
        TargetRef::HttpRoute { name, rule } | TargetRef::GrpcRoute { name, rule } => {
            let rule = rule.as_deref().map(|r| format!(", rule {r}")).unwrap_or_default();
            format!("{} {name}{rule}", target.kind())
        }
        TargetRef::Namespace { name } => format!("Namespace {name}"),
        TargetRef::Mesh { name } => format!("Mesh {name}"),
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "PolicyTargetRef")]
struct RawTargetRef {
    /// Follows from the kind; checked where it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Service, HTTPRoute, GRPCRoute, Namespace or Mesh.
    kind: String,
    name: Name,
    /// Of a Service. Default: the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Label>,
    /// Of a Service. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<Port>,
    /// The name of a route's rule. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    section_name: Option<Name>,
}

const TARGET_KINDS: [(&str, &str); 5] = [
    ("Service", ""),
    ("HTTPRoute", GATEWAY_GROUP),
    ("GRPCRoute", GATEWAY_GROUP),
    ("Namespace", ""),
    ("Mesh", OUTRIGGER_GROUP),
];

impl TryFrom<RawTargetRef> for TargetRef {
    type Error = String;

    fn try_from(raw: RawTargetRef) -> Result<TargetRef, String> {
        let Some((kind, group)) = TARGET_KINDS.iter().find(|(kind, _)| *kind == raw.kind) else {
            let meant = nearest(&raw.kind, TARGET_KINDS.iter().map(|(kind, _)| *kind))
                .map(|kind| format!("; did you mean {kind}?"))
                .unwrap_or_default();
            let text =
                format!("{:?} is not Service, HTTPRoute, GRPCRoute, Namespace or Mesh{meant}", raw.kind);
            return Err(member_error("kind", text));
        };
        if let Some(given) = raw.group.as_deref().filter(|given| given != group) {
            return Err(member_error("group", format!("{given:?} is not the group of {kind}, {group:?}")));
        }
        if *kind != "Service" && raw.namespace.is_some() {
            let text = "is for a Service; other targets are in the policy's own namespace";
            return Err(member_error("namespace", text));
        }
        if *kind != "Service" && raw.port.is_some() {
            return Err(member_error("port", "is for a Service"));
        }
        if !kind.ends_with("Route") && raw.section_name.is_some() {
            let hint = if *kind == "Service" { "; a Service's port is named by `port`" } else { "" };
            return Err(member_error("sectionName", format!("is for a rule of a route{hint}")));
        }
        let label = |name: &Name| Label::try_from(name.as_str()).map_err(|error| member_error("name", error));
        Ok(match *kind {
            "Service" => {
                TargetRef::Service { namespace: raw.namespace, name: label(&raw.name)?, port: raw.port }
            }
            "HTTPRoute" => TargetRef::HttpRoute { name: raw.name, rule: raw.section_name },
            "GRPCRoute" => TargetRef::GrpcRoute { name: raw.name, rule: raw.section_name },
            "Namespace" => TargetRef::Namespace { name: label(&raw.name)? },
            _ => TargetRef::Mesh { name: raw.name },
        })
    }
}

impl From<TargetRef> for RawTargetRef {
    fn from(typed: TargetRef) -> RawTargetRef {
        let kind = typed.kind();
        let group = TARGET_KINDS.iter().find(|(known, _)| *known == kind).map(|(_, group)| group.to_string());
        let as_name = |label: &Label| Name::try_from(label.as_str()).expect("a label is a name");
        let (name, namespace, port, section_name) = match typed {
            TargetRef::Service { namespace, name, port } => (as_name(&name), namespace, port, None),
            TargetRef::HttpRoute { name, rule } | TargetRef::GrpcRoute { name, rule } => {
                (name, None, None, rule)
            }
            TargetRef::Namespace { name } => (as_name(&name), None, None, None),
            TargetRef::Mesh { name } => (name, None, None, None),
        };
        RawTargetRef { group, kind: kind.to_owned(), name, namespace, port, section_name }
    }
}
