//! What a TrafficPolicy is about.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OUTRIGGER_GROUP;
use crate::manifest::decode::{member_error, nearest};
use crate::manifest::route::GATEWAY_GROUP;
use crate::manifest::value::{Label, Name, Port};

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

pub(super) fn described(target: &TargetRef) -> String {
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
