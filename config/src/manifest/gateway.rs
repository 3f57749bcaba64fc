//! Gateway API `Gateway`: the ports through which traffic enters the mesh.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::decode::member_error;
use super::field::{Ignored, NOT_YET, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::route::GATEWAY_GROUP;
use super::value::{AnnotationKey, Hostname, Label, Name, Port};

/// The class of the gateways this mesh runs; those of other classes belong to somebody else.
pub const GATEWAY_CLASS: &str = "outrigger";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    pub metadata: Metadata,
    pub spec: GatewaySpec,
    /// Written by whoever implements the gateway, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySpec {
    /// `outrigger`; gateways of other classes belong to somebody else.
    pub gateway_class_name: Name,
    pub listeners: Vec<GatewayListener>,
    /// Asks for fixed addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<Infrastructure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_listeners: Option<NotYet>,
    #[serde(rename = "backendTLS", default, skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_scope: Option<NotYet>,
}

/// For what runs the gateway on Kubernetes: labels and annotations to put on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Infrastructure {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<NotYet>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayListener {
    /// Unique in the gateway; routes name it by `sectionName`.
    pub name: Name,
    /// Which hosts it serves; absent means all. Not for TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    pub port: Port,
    pub protocol: ListenerProtocol,
    /// For HTTPS and TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum ListenerProtocol {
    Http,
    Https,
    Tls,
    Tcp,
    /// Known, and refused: a mesh carries TCP only.
    Udp,
}

impl ListenerProtocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            ListenerProtocol::Http => "HTTP",
            ListenerProtocol::Https => "HTTPS",
            ListenerProtocol::Tls => "TLS",
            ListenerProtocol::Tcp => "TCP",
            ListenerProtocol::Udp => "UDP",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// Default Terminate.
    #[serde(default)]
    pub mode: TlsMode,
    /// Secrets of type `kubernetes.io/tls`; the first that fits the server name is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_refs: Vec<SecretRef>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<AnnotationKey, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontend_validation: Option<NotYet>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TlsMode {
    #[default]
    Terminate,
    Passthrough,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawSecretRef", into = "RawSecretRef")]
pub struct SecretRef {
    /// Default: the gateway's own; another one needs a ReferenceGrant there.
    pub namespace: Option<Label>,
    pub name: Name,
    /// Anything but a Secret cannot be resolved, which the gateway's status has to say.
    pub other_kind: Option<OtherKind>,
}

/// A kind that is not the one expected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtherKind {
    pub group: String,
    pub kind: String,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowedRoutes {
    #[serde(default)]
    pub namespaces: RouteNamespaces,
    /// Empty: those that fit the protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<RouteKind>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteNamespaces {
    /// Default Same.
    #[serde(default)]
    pub from: NamespacesFrom,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NotYet>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NamespacesFrom {
    All,
    /// Not available yet.
    Selector,
    #[default]
    Same,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteKind {
    #[serde(default = "gateway_group")]
    pub group: String,
    pub kind: String,
}

fn gateway_group() -> String {
    GATEWAY_GROUP.to_owned()
}

impl Check for Gateway {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let listeners = at.key("spec").key("listeners");
        findings.not_empty(&listeners, self.spec.listeners.len());
        findings.at_most(&listeners, self.spec.listeners.len(), 64);
        findings.unique(&listeners, &self.spec.listeners, "name", |listener| Some(listener.name.clone()));
        findings.unique(&listeners, &self.spec.listeners, "", |listener| {
            let host = listener.hostname.as_deref().unwrap_or("any host");
            Some(format!("{} on port {} for {host}", listener.protocol.as_str(), listener.port))
        });
        findings.each(&listeners, &self.spec.listeners);
    }
}

impl Check for GatewayListener {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let tls = at.key("tls");
        match (self.protocol, &self.tls) {
            (ListenerProtocol::Udp, _) => {
                findings.error(
                    at.key("protocol"),
                    format!("UDP {NOT_YET}; accepted are HTTP, HTTPS, TLS and TCP"),
                );
            }
            (ListenerProtocol::Http | ListenerProtocol::Tcp, Some(_)) => {
                findings.error(tls, "goes with protocol HTTPS or TLS only");
            }
            (ListenerProtocol::Https | ListenerProtocol::Tls, None) => {
                findings.error(tls, "is required with protocols HTTPS and TLS, and missing");
            }
            (ListenerProtocol::Https | ListenerProtocol::Tls, Some(settings)) => {
                self.check_tls(settings, &tls, findings);
            }
            (ListenerProtocol::Http | ListenerProtocol::Tcp, None) => {}
        }
        if self.protocol == ListenerProtocol::Tcp && self.hostname.is_some() {
            findings.error(at.key("hostname"), "a TCP connection names no host");
        }
        if self.allowed_routes.namespaces.from == NamespacesFrom::Selector {
            findings
                .error(at.key("allowedRoutes").key("namespaces").key("from"), format!("Selector {NOT_YET}"));
        }
        let kinds = at.key("allowedRoutes").key("kinds");
        findings.at_most(&kinds, self.allowed_routes.kinds.len(), 8);
    }
}

impl GatewayListener {
    fn check_tls(&self, tls: &ListenerTls, at: &FieldPath, findings: &mut Findings) {
        let certificates = at.key("certificateRefs");
        findings.at_most(&certificates, tls.certificate_refs.len(), 64);
        match tls.mode {
            TlsMode::Terminate if tls.certificate_refs.is_empty() => {
                findings.error(certificates, "at least one Secret is required with mode Terminate");
            }
            TlsMode::Passthrough if self.protocol == ListenerProtocol::Https => {
                findings.error(at.key("mode"), "HTTPS is terminated; use protocol TLS to pass it through");
            }
            TlsMode::Passthrough if !tls.certificate_refs.is_empty() => {
                findings.error(certificates, "has no meaning with mode Passthrough");
            }
            _ => {}
        }
        if let Some(option) = tls.options.keys().next() {
            findings.error(at.key("options").key(option.as_str()), "unknown option; none is known");
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SecretRef")]
struct RawSecretRef {
    #[serde(default)]
    group: String,
    #[serde(default = "secret_kind")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Label>,
    name: Name,
}

fn secret_kind() -> String {
    "Secret".to_owned()
}

impl TryFrom<RawSecretRef> for SecretRef {
    type Error = String;

    fn try_from(raw: RawSecretRef) -> Result<SecretRef, String> {
        let other_kind = match (raw.group.as_str(), raw.kind.as_str()) {
            ("", "Secret") => None,
            (_, "") => return Err(member_error("kind", "is empty")),
            _ => Some(OtherKind { group: raw.group, kind: raw.kind }),
        };
        Ok(SecretRef { namespace: raw.namespace, name: raw.name, other_kind })
    }
}

impl From<SecretRef> for RawSecretRef {
    fn from(typed: SecretRef) -> RawSecretRef {
        let (group, kind) = match typed.other_kind {
            None => (String::new(), secret_kind()),
            Some(other) => (other.group, other.kind),
        };
        RawSecretRef { group, kind, namespace: typed.namespace, name: typed.name }
    }
}
