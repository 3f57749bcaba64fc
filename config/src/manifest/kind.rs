//! Which kinds are read, in which versions, and what is said about the others.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{nearest, within};
use super::route::GATEWAY_GROUP;
use super::traffic_policy::OUTRIGGER_GROUP;

/// The kinds the mesh reads. Ordered and compared as in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    Service,
    Secret,
    EndpointSlice,
    Gateway,
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    ReferenceGrant,
    TrafficPolicy,
    AccessPolicy,
    Mesh,
    Workload,
}

impl Kind {
    pub const ALL: [Kind; 13] = [
        Kind::Service,
        Kind::Secret,
        Kind::EndpointSlice,
        Kind::Gateway,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TcpRoute,
        Kind::TlsRoute,
        Kind::ReferenceGrant,
        Kind::TrafficPolicy,
        Kind::AccessPolicy,
        Kind::Mesh,
        Kind::Workload,
    ];

    /// As manifests write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Service => "Service",
            Kind::Secret => "Secret",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Gateway => "Gateway",
            Kind::HttpRoute => "HTTPRoute",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::TcpRoute => "TCPRoute",
            Kind::TlsRoute => "TLSRoute",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::TrafficPolicy => "TrafficPolicy",
            Kind::AccessPolicy => "AccessPolicy",
            Kind::Mesh => "Mesh",
            Kind::Workload => "Workload",
        }
    }

    /// Empty for Kubernetes' core group.
    pub const fn group(self) -> &'static str {
        match self {
            Kind::Service | Kind::Secret => "",
            Kind::EndpointSlice => "discovery.k8s.io",
            Kind::Gateway
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TcpRoute
            | Kind::TlsRoute
            | Kind::ReferenceGrant => GATEWAY_GROUP,
            Kind::TrafficPolicy | Kind::AccessPolicy | Kind::Mesh | Kind::Workload => OUTRIGGER_GROUP,
        }
    }

    /// The versions that are read; the first is the one to write. Fields are the same in all of them.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Kind::Service | Kind::Secret | Kind::EndpointSlice => &["v1"],
            Kind::Gateway | Kind::HttpRoute => &["v1", "v1beta1"],
            Kind::GrpcRoute => &["v1", "v1alpha2"],
            Kind::TcpRoute => &["v1alpha2", "v1"],
            Kind::TlsRoute => &["v1alpha2", "v1alpha3", "v1"],
            Kind::ReferenceGrant => &["v1beta1", "v1", "v1alpha2"],
            Kind::TrafficPolicy | Kind::AccessPolicy | Kind::Mesh | Kind::Workload => &["v1alpha1"],
        }
    }

    /// `outrigger.dev/v1alpha1`, with the version to write.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.versions()[0].to_owned(),
            group => format!("{group}/{}", self.versions()[0]),
        }
    }

    /// Whether objects of this kind belong to a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Kind::Mesh)
    }

    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `apiVersion` and `kind` of an object mean to the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognized {
    Kind(Kind),
    /// Known to be nothing the mesh reads: workloads, configuration, permissions.
    NotRead,
    /// Something that means to change traffic and is not read: the operator must know.
    Unsupported(String),
    /// `apiVersion` cannot be right.
    BadApiVersion(String),
    /// `kind` cannot be right.
    BadKind(String),
}

/// Where the Gateway API tries out new kinds.
const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";

/// Kubernetes' own groups without a dot in their name; the others end in `.k8s.io`. What they hold besides the kinds
/// above runs apps and is no business of the mesh.
const KUBERNETES_GROUPS: [&str; 6] = ["", "apps", "batch", "autoscaling", "policy", "discovery.k8s.io"];

pub fn recognize(api_version: &str, kind: &str) -> Recognized {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(known) = Kind::ALL.into_iter().find(|known| known.as_str() == kind && known.group() == group)
    {
        if known.versions().contains(&version) {
            return Recognized::Kind(known);
        }
        let versions: Vec<String> = known
            .versions()
            .iter()
            .map(|v| if group.is_empty() { v.to_string() } else { format!("{group}/{v}") })
            .collect();
        return Recognized::BadApiVersion(format!(
            "{api_version:?} is not a version of {kind} that is read: {}",
            versions.join(", ")
        ));
    }
    // A kind of ours or of the Gateway API in a group that cannot be its own, such as `v1` for an HTTPRoute.
    if let Some(known) = Kind::from_name(kind)
        && (group.is_empty() || group != EXPERIMENTAL_GROUP && within(group, known.group(), 2))
    {
        let expected = known.api_version();
        return Recognized::BadApiVersion(format!(
            "{api_version:?} does not go with kind {kind}; write {expected}"
        ));
    }
    match group {
        OUTRIGGER_GROUP => Recognized::BadKind(unknown_kind(kind, OUTRIGGER_GROUP)),
        GATEWAY_GROUP if kind == "GatewayClass" => Recognized::NotRead,
        GATEWAY_GROUP => match misspelt(kind, GATEWAY_GROUP) {
            Some(_) => Recognized::BadKind(unknown_kind(kind, GATEWAY_GROUP)),
            None => Recognized::Unsupported(format!(
                "{kind} of the Gateway API is not available yet; it has no effect"
            )),
        },
        "networking.k8s.io" if kind == "Ingress" => Recognized::Unsupported(
            "Ingress is not read, so it has no effect; write a Gateway and an HTTPRoute".to_owned(),
        ),
        group if KUBERNETES_GROUPS.contains(&group) => match misspelt(kind, group) {
            Some(_) => Recognized::BadKind(unknown_kind(kind, group)),
            None => Recognized::NotRead,
        },
        EXPERIMENTAL_GROUP => Recognized::Unsupported(format!(
            "{kind} of the Gateway API is not available yet; it has no effect"
        )),
        group if group.ends_with(".istio.io") => {
            Recognized::Unsupported(format!("{kind} of {group} is not available yet; it has no effect"))
        }
        group => match [OUTRIGGER_GROUP, GATEWAY_GROUP].into_iter().find(|known| within(group, known, 2)) {
            Some(meant) => Recognized::BadApiVersion(format!(
                "{group} is not a group that is read; did you mean {meant}?"
            )),
            None if group.ends_with(".k8s.io") => Recognized::NotRead,
            None => Recognized::Unsupported(format!(
                "{kind} of {group} is not read; the kinds that are: {}",
                Kind::ALL.map(Kind::as_str).join(", ")
            )),
        },
    }
}

fn misspelt(kind: &str, group: &str) -> Option<&'static str> {
    // Kinds that exist beside ours and differ from them by a letter or two.
    const OTHERS: [&str; 2] = ["UDPRoute", "Endpoints"];
    if OTHERS.contains(&kind) {
        return None;
    }
    nearest(kind, Kind::ALL.into_iter().filter(|known| known.group() == group).map(Kind::as_str))
}

fn unknown_kind(kind: &str, group: &str) -> String {
    let names: Vec<&str> =
        Kind::ALL.into_iter().filter(|known| known.group() == group).map(Kind::as_str).collect();
    match misspelt(kind, group) {
        Some(meant) => format!("{kind:?} is not a kind; did you mean {meant}?"),
        None => format!("{kind:?} is not a kind of {group}: {}", names.join(", ")),
    }
}
