//! Gateway API `TCPRoute` and `TLSRoute`: connections that are passed on without being understood.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::{Ignored, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::route::{BackendRef, ParentRef, check_backends, check_parents};
use super::value::{Hostname, Name};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpRoute {
    pub metadata: Metadata,
    pub spec: TcpRouteSpec,
    /// Written by whoever implements the route, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRouteSpec {
    /// Where it applies: Services for calls inside the mesh, Gateways for those from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentRef>,
    /// Exactly one: nothing in a TCP connection could choose between two.
    pub rules: Vec<StreamRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<NotYet>,
}

/// Routes by the server name of the ClientHello; TLS is not opened unless the listener terminates it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsRoute {
    pub metadata: Metadata,
    pub spec: TlsRouteSpec,
    /// Written by whoever implements the route, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRouteSpec {
    /// Where it applies: Services for calls inside the mesh, Gateways for those from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentRef>,
    /// Server names; empty matches all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<Hostname>,
    /// Exactly one: `hostnames` is all there is to choose by.
    pub rules: Vec<StreamRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<NotYet>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamRule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// One is drawn by weight for each connection.
    pub backend_refs: Vec<BackendRef>,
}

impl Check for TcpRoute {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        check_parents(&spec.key("parentRefs"), &self.spec.parent_refs, findings);
        check_rules(&spec.key("rules"), &self.spec.rules, findings);
    }
}

impl Check for TlsRoute {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        check_parents(&spec.key("parentRefs"), &self.spec.parent_refs, findings);
        findings.at_most(&spec.key("hostnames"), self.spec.hostnames.len(), 1024);
        findings.unique(&spec.key("hostnames"), &self.spec.hostnames, "", |host| Some(host.clone()));
        check_rules(&spec.key("rules"), &self.spec.rules, findings);
    }
}

fn check_rules(at: &FieldPath, rules: &[StreamRule], findings: &mut Findings) {
    findings.not_empty(at, rules.len());
    findings.at_most(at, rules.len(), 1);
    for (i, rule) in rules.iter().enumerate() {
        let backends = at.index(i).key("backendRefs");
        findings.not_empty(&backends, rule.backend_refs.len());
        check_backends(&backends, rule.backend_refs.iter(), findings);
    }
}
