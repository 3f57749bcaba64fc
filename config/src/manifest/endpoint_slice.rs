//! Kubernetes `EndpointSlice` (discovery.k8s.io/v1): the addresses behind a Service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::Ignored;
use super::metadata::Metadata;
use super::path::FieldPath;
use super::service::TransportProtocol;
use super::value::{AppProtocol, Ip, Label, Name, Port};

/// The label that names the Service a slice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSlice {
    pub metadata: Metadata,
    pub address_type: AddressType,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<SliceEndpoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SlicePort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AddressType {
    IPv4,
    IPv6,
    /// Deprecated by Kubernetes; no addresses for a mesh in it.
    FQDN,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceEndpoint {
    /// The first is used: the others are the same endpoint (Kubernetes defines no more).
    pub addresses: Vec<String>,
    #[serde(default)]
    pub conditions: EndpointConditions,
    /// The pod behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Names a single pod of a headless service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Label>,
    /// Where it should be used from, for callers that prefer near endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<EndpointHints>,
    // Replaced by `zone` and `nodeName`.
    #[serde(default, skip_serializing)]
    pub deprecated_topology: Ignored,
}

/// Made by Kubernetes from `trafficDistribution`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointHints {
    /// At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<ForZone>,
    // A proxy knows its zone, not its node.
    #[serde(default, skip_serializing)]
    pub for_nodes: Ignored,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForZone {
    pub name: String,
}

/// Absent conditions are taken as Kubernetes says: ready and serving, not terminating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointConditions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

impl EndpointConditions {
    pub fn is_ready(self) -> bool {
        self.ready.unwrap_or(true)
    }

    /// Follows `ready` where it is absent.
    pub fn is_serving(self) -> bool {
        self.serving.unwrap_or(self.is_ready())
    }

    pub fn is_terminating(self) -> bool {
        self.terminating.unwrap_or(false)
    }
}

/// Kubernetes' ObjectReference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetObject {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    // Identify one version of the pod; the mesh goes by its name.
    #[serde(default, skip_serializing)]
    pub api_version: Ignored,
    #[serde(default, skip_serializing)]
    pub field_path: Ignored,
    #[serde(default, skip_serializing)]
    pub resource_version: Ignored,
    #[serde(default, skip_serializing)]
    pub uid: Ignored,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlicePort {
    /// The Service port's name; absent or empty where that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Absent: all ports, which no mesh can dial; such a slice port is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    #[serde(default)]
    pub protocol: TransportProtocol,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<AppProtocol>,
}

impl SliceEndpoint {
    /// Its address; `None` in slices of host names.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        self.addresses.first()?.parse().ok()
    }
}

impl Check for EndpointSlice {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if self.metadata.label(SERVICE_NAME_LABEL).is_none() {
            let text = format!("without the label {SERVICE_NAME_LABEL} it belongs to no Service");
            findings.warning(at.key("metadata").key("labels"), text);
        }
        if self.address_type == AddressType::FQDN {
            findings.warning(at.key("addressType"), "host names in EndpointSlices are not used");
        }
        let endpoints = at.key("endpoints");
        findings.at_most(&endpoints, self.endpoints.len(), 1000);
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            let addresses = endpoints.index(i).key("addresses");
            findings.not_empty(&addresses, endpoint.addresses.len());
            findings.at_most(&addresses, endpoint.addresses.len(), 100);
            if let Some(hints) = &endpoint.hints {
                let zones = endpoints.index(i).key("hints").key("forZones");
                findings.at_most(&zones, hints.for_zones.len(), 8);
            }
            for (j, text) in endpoint.addresses.iter().enumerate() {
                let fits = match (self.address_type, Ip::try_from(text.as_str())) {
                    (AddressType::IPv4, Ok(ip)) => ip.get().is_ipv4(),
                    (AddressType::IPv6, Ok(ip)) => ip.get().is_ipv6(),
                    (AddressType::FQDN, _) => true,
                    (_, Err(_)) => false,
                };
                if !fits {
                    let text = format!("{text:?} is not an {:?} address", self.address_type);
                    findings.error(addresses.index(j), text);
                }
            }
        }
        findings.at_most(&at.key("ports"), self.ports.len(), 100);
        findings.unique(&at.key("ports"), &self.ports, "name", |port| {
            Some(format!("port {:?}", port.name.as_deref().unwrap_or_default()))
        });
    }
}
