//! What a route attaches to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::Findings;
use crate::manifest::decode::member_error;
use crate::manifest::path::FieldPath;
use crate::manifest::value::{Label, Name, Port};

use super::GATEWAY_GROUP;

/// What a route attaches to (Gateway API `ParentReference`): a Gateway, or a Service for traffic inside the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawParentRef", into = "RawParentRef")]
pub struct ParentRef {
    pub kind: ParentKind,
    /// Default: the route's own.
    pub namespace: Option<Label>,
    pub name: Name,
    /// A listener of the Gateway, or a port name of the Service.
    pub section_name: Option<Name>,
    /// A listener's or Service's port; absent means all of them.
    pub port: Option<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParentKind {
    Gateway,
    Service,
    /// Belongs to another implementation, as the API foresees; means nothing here.
    Other {
        group: String,
        kind: String,
    },
}

/// The parents of a route: at most 32. Where one is named more than once, each time by another listener or port.
pub fn check_parents(at: &FieldPath, parents: &[ParentRef], findings: &mut Findings) {
    findings.at_most(at, parents.len(), 32);
    let same =
        |a: &ParentRef, b: &ParentRef| (&a.kind, &a.namespace, &a.name) == (&b.kind, &b.namespace, &b.name);
    for (i, parent) in parents.iter().enumerate() {
        let Some(first) = parents[..i].iter().position(|earlier| same(earlier, parent)) else { continue };
        let part = |p: &ParentRef| (p.section_name.clone(), p.port);
        let whole = |p: &ParentRef| p.section_name.is_none() && p.port.is_none();
        let repeated =
            parents[..i].iter().any(|earlier| same(earlier, parent) && part(earlier) == part(parent));
        if repeated || whole(parent) || whole(&parents[first]) {
            let text = format!(
                "{} {} is already the parent in item {first}; give each a sectionName or port of its own",
                parent.kind, parent.name
            );
            findings.error(at.index(i), text);
        }
    }
    for (i, parent) in parents.iter().enumerate() {
        if let ParentKind::Other { .. } = parent.kind {
            let text =
                format!("{} is not a kind this mesh attaches routes to: Gateway or Service", parent.kind);
            findings.warning(at.index(i), text);
        }
    }
}

impl std::fmt::Display for ParentKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParentKind::Gateway => f.write_str("Gateway"),
            ParentKind::Service => f.write_str("Service"),
            ParentKind::Other { group, kind } if group.is_empty() => f.write_str(kind),
            ParentKind::Other { group, kind } => write!(f, "{kind}.{group}"),
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ParentRef")]
struct RawParentRef {
    /// Default `gateway.networking.k8s.io`; the empty text for a Service.
    #[serde(default = "gateway_group")]
    group: String,
    /// Gateway (the default) or Service.
    #[serde(default = "gateway_kind")]
    kind: String,
    /// Default: the route's own. With a Service of another namespace the route binds callers in its own namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Label>,
    name: Name,
    /// A listener of the Gateway, or a port name of the Service. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    section_name: Option<Name>,
    /// A port of the Gateway's listeners, or of the Service. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<Port>,
}

fn gateway_group() -> String {
    GATEWAY_GROUP.to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

impl TryFrom<RawParentRef> for ParentRef {
    type Error = String;

    fn try_from(raw: RawParentRef) -> Result<ParentRef, String> {
        let RawParentRef { group, kind, namespace, name, section_name, port } = raw;
        let kind = match (group.as_str(), kind.as_str()) {
            (GATEWAY_GROUP, "Gateway") => ParentKind::Gateway,
            ("", "Service") => ParentKind::Service,
            (GATEWAY_GROUP, "Service") => {
                return Err(member_error("group", "a Service is of the core group; write `group: \"\"`"));
            }
            _ => ParentKind::Other { group, kind },
        };
        Ok(ParentRef { kind, namespace, name, section_name, port })
    }
}

impl From<ParentRef> for RawParentRef {
    fn from(typed: ParentRef) -> RawParentRef {
        let (group, kind) = match typed.kind {
            ParentKind::Gateway => (gateway_group(), gateway_kind()),
            ParentKind::Service => (String::new(), "Service".to_owned()),
            ParentKind::Other { group, kind } => (group, kind),
        };
        RawParentRef {
            group,
            kind,
            namespace: typed.namespace,
            name: typed.name,
            section_name: typed.section_name,
            port: typed.port,
        }
    }
}
