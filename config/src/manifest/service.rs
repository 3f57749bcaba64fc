//! Kubernetes `Service` (v1).
//!
//! The mesh uses ports, selector, cluster IPs and the type. What kube-proxy and cloud load balancers do with the rest
//! stays theirs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::{Ignored, IntOrString};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::value::{AppProtocol, Ip, Label, LabelKey, LabelValue, Port, PreciseHostname};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub metadata: Metadata,
    pub spec: ServiceSpec,
    /// About load balancers outside the mesh.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Which workloads stand behind it: all of these labels. Empty: its EndpointSlices say it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<LabelKey, LabelValue>,
    #[serde(rename = "type", default)]
    pub kind: ServiceType,
    /// Apps may address the service by these.
    #[serde(rename = "clusterIP", default, skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<ClusterIp>,
    #[serde(rename = "clusterIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<ClusterIp>,
    /// The name a service of type ExternalName stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<PreciseHostname>,
    /// Whether endpoints that are not ready are used as well. Default false.
    #[serde(default)]
    pub publish_not_ready_addresses: bool,
    /// ClientIP is not honoured yet: a warning says so.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// Local is not honoured yet: a warning says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<TrafficScope>,
    /// PreferClose and PreferSameZone: endpoints in the caller's zone are preferred, where no policy says otherwise. PreferSameNode
    /// is not honoured yet: a warning says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,

    // How traffic from outside the cluster reaches it: kube-proxy's and the cloud provider's concern.
    #[serde(default, skip_serializing)]
    pub allocate_load_balancer_node_ports: Ignored,
    #[serde(rename = "externalIPs", default, skip_serializing)]
    pub external_ips: Ignored,
    #[serde(default, skip_serializing)]
    pub external_traffic_policy: Ignored,
    #[serde(default, skip_serializing)]
    pub health_check_node_port: Ignored,
    #[serde(default, skip_serializing)]
    pub load_balancer_class: Ignored,
    #[serde(rename = "loadBalancerIP", default, skip_serializing)]
    pub load_balancer_ip: Ignored,
    #[serde(default, skip_serializing)]
    pub load_balancer_source_ranges: Ignored,
    // Follow from the cluster IPs.
    #[serde(default, skip_serializing)]
    pub ip_families: Ignored,
    #[serde(default, skip_serializing)]
    pub ip_family_policy: Ignored,
    // Goes with `sessionAffinity: ClientIP`, about which a warning is given.
    #[serde(default, skip_serializing)]
    pub session_affinity_config: Ignored,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Required where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Label>,
    pub port: Port,
    /// A port of the workload, by number or name. Default: `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// What the port speaks; else the port's name says it (`http-web`, `grpc`), else the bytes do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<AppProtocol>,
    /// Default TCP; others pass the mesh by.
    #[serde(default)]
    pub protocol: TransportProtocol,
    /// Kube-proxy's concern.
    #[serde(default, skip_serializing)]
    pub node_port: Ignored,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum SessionAffinity {
    #[default]
    None,
    ClientIP,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TrafficScope {
    Cluster,
    Local,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum TransportProtocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl TransportProtocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            TransportProtocol::Tcp => "TCP",
            TransportProtocol::Udp => "UDP",
            TransportProtocol::Sctp => "SCTP",
        }
    }
}

/// A virtual address, or `None` for a headless service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterIp {
    Headless,
    Address(Ip),
}

impl Service {
    /// The addresses apps may use for it; none where it is headless.
    pub fn addresses(&self) -> impl Iterator<Item = std::net::IpAddr> + '_ {
        let first = self.spec.cluster_ip.iter().filter(|ip| !self.spec.cluster_ips.contains(ip));
        first.chain(&self.spec.cluster_ips).filter_map(|ip| match ip {
            ClusterIp::Headless => None,
            ClusterIp::Address(ip) => Some(ip.get()),
        })
    }

    /// Whether requests are meant to stay in the caller's zone. PreferClose is the older word for it.
    pub fn prefers_near(&self) -> bool {
        matches!(self.spec.traffic_distribution.as_deref(), Some("PreferClose" | "PreferSameZone"))
    }

    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == Some(ClusterIp::Headless)
            || self.spec.cluster_ips.contains(&ClusterIp::Headless)
    }
}

impl Check for Service {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Err(error) = Label::try_from(self.metadata.name.as_str()) {
            findings.error(at.key("metadata").key("name"), error.to_string());
        }
        let spec = at.key("spec");
        let ports = spec.key("ports");
        if self.spec.kind == ServiceType::ExternalName {
            if self.spec.external_name.is_none() {
                findings.error(spec.key("externalName"), "is required with type ExternalName, and missing");
            }
        } else if self.spec.ports.is_empty() && !self.is_headless() {
            findings.error(ports.clone(), "at least one port is required");
        }
        if self.spec.ports.len() > 1 {
            for (i, port) in self.spec.ports.iter().enumerate().filter(|(_, port)| port.name.is_none()) {
                let text = format!("port {} needs a name, since there are several", port.port);
                findings.error(ports.index(i).key("name"), text);
            }
        }
        findings.unique(&ports, &self.spec.ports, "name", |port| port.name.clone());
        findings.unique(&ports, &self.spec.ports, "port", |port| {
            Some(format!("{}/{}", port.port, port.protocol.as_str()))
        });
        for (i, port) in self.spec.ports.iter().enumerate() {
            port.check(&ports.index(i), findings);
        }
        if self.spec.session_affinity == SessionAffinity::ClientIP {
            let text = "a mesh balances by itself and does not keep a client at one endpoint yet";
            findings.warning(spec.key("sessionAffinity"), text);
        }
        if self.spec.internal_traffic_policy == Some(TrafficScope::Local) {
            let text = "a mesh balances by itself and does not keep to the caller's node yet";
            findings.warning(spec.key("internalTrafficPolicy"), text);
        }
        if self.spec.traffic_distribution.is_some() && !self.prefers_near() {
            let text = "only PreferSameZone and PreferClose, which is the same, are honoured yet";
            findings.warning(spec.key("trafficDistribution"), text);
        }
    }
}

impl Check for ServicePort {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        match &self.target_port {
            Some(IntOrString::Int(n)) if !(1..=65535).contains(n) => {
                findings.error(at.key("targetPort"), format!("{n} is not {}", Port::ACCEPTED));
            }
            Some(IntOrString::String(name)) => {
                if let Err(error) = Label::try_from(name.as_str()) {
                    findings.error(at.key("targetPort"), error.to_string());
                }
            }
            _ => {}
        }
        if self.protocol != TransportProtocol::Tcp {
            findings.warning(at.key("protocol"), "a mesh carries TCP only; this port passes it by");
        }
    }
}

impl TryFrom<&str> for ClusterIp {
    type Error = super::value::Rejected;

    fn try_from(text: &str) -> Result<ClusterIp, Self::Error> {
        match text {
            "None" => Ok(ClusterIp::Headless),
            text => Ip::try_from(text).map(ClusterIp::Address),
        }
    }
}

impl std::fmt::Display for ClusterIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClusterIp::Headless => f.write_str("None"),
            ClusterIp::Address(ip) => ip.fmt(f),
        }
    }
}

super::value::text_serde!(ClusterIp, "an IP address, or None", {
    "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }, { "const": "None" }]
});
