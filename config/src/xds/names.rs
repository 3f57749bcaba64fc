//! What things are called on the wire: resource types, and how a proxy says who it is.
//!
//! `node.id` has Istio's form, so that a proxy bootstrapped for the one can ask the other:
//!
//! ```text
//! sidecar~10.1.2.3~reviews-v1.default~default.svc.cluster.local      workload reviews-v1 in namespace default
//! router~10.1.2.4~ingress.edge~edge.svc.cluster.local                gateway ingress in namespace edge
//! ```
//!
//! The second part is the proxy's address (`0.0.0.0` where it has none of its own), for status only. `node.cluster` repeats
//! `NAME.NAMESPACE`, `node.user_agent_name` and `user_agent_version` say what program it is, `node.locality.zone` where it
//! runs, and the metadata key [`INSTANCE`] tells two runs of one proxy apart. Nothing else of the node is read.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{Client, pb};
use crate::model::ResourceKind;

/// `type.googleapis.com/envoy.config.listener.v3.Listener` and so on.
pub fn type_url(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
        ResourceKind::RouteTable => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        ResourceKind::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        ResourceKind::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        ResourceKind::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    }
}

/// The reverse of [`type_url`].
pub fn kind(type_url: &str) -> Option<ResourceKind> {
    ResourceKind::ALL.into_iter().find(|kind| self::type_url(*kind) == type_url)
}

/// `node.user_agent_name` of our proxy. Nodes that say another get no `outrigger.dev` metadata.
pub const USER_AGENT: &str = "outrigger-proxy";

/// Key in `node.metadata`: any text that a restart changes.
pub const INSTANCE: &str = "OUTRIGGER_INSTANCE";

/// Who a proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub role: Role,
    pub ip: Option<IpAddr>,
    /// `outrigger-proxy`, `envoy`, `gRPC C-core` ...
    pub user_agent: Arc<str>,
    pub version: Arc<str>,
    pub zone: Option<Arc<str>>,
    pub instance: Option<Arc<str>>,
}

/// Whose proxy it is, and so what it may be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Sidecar { namespace: Arc<str>, workload: Arc<str> },
    Gateway { namespace: Arc<str>, name: Arc<str> },
}

impl Role {
    pub fn namespace(&self) -> &Arc<str> {
        match self {
            Self::Sidecar { namespace, .. } | Self::Gateway { namespace, .. } => namespace,
        }
    }

    /// Of the workload or the gateway.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Sidecar { workload: name, .. } | Self::Gateway { name, .. } => name,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node.id {0:?} is not sidecar~IP~WORKLOAD.NAMESPACE~DOMAIN or router~IP~GATEWAY.NAMESPACE~DOMAIN")]
pub struct UnknownNode(String);

impl Node {
    /// A node of this program and release.
    pub fn new(role: Role, ip: Option<IpAddr>) -> Self {
        Self {
            role,
            ip,
            user_agent: USER_AGENT.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            zone: None,
            instance: None,
        }
    }

    pub fn id(&self) -> String {
        let kind = match self.role {
            Role::Sidecar { .. } => "sidecar",
            Role::Gateway { .. } => "router",
        };
        let (name, namespace) = (self.role.name(), self.role.namespace());
        let ip = self.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local")
    }

    pub fn to_message(&self) -> pb::core::Node {
        let text = |text: &str| pb::core_value::string(text);
        let metadata = self
            .instance
            .as_deref()
            .map(|instance| pb::Struct { fields: [(INSTANCE.to_owned(), text(instance))].into() });
        pb::core::Node {
            id: self.id(),
            cluster: format!("{}.{}", self.role.name(), self.role.namespace()),
            metadata,
            locality: self
                .zone
                .as_deref()
                .map(|zone| pb::core::Locality { zone: zone.to_owned(), ..Default::default() }),
            user_agent_name: self.user_agent.to_string(),
            user_agent_version_type: Some(pb::core::node::UserAgentVersionType::UserAgentVersion(
                self.version.to_string(),
            )),
            ..Default::default()
        }
    }

    pub fn from_message(node: &pb::core::Node) -> Result<Self, UnknownNode> {
        let (role, ip) = parse_id(&node.id).ok_or_else(|| UnknownNode(node.id.clone()))?;
        let version = match &node.user_agent_version_type {
            Some(pb::core::node::UserAgentVersionType::UserAgentVersion(version)) => version.as_str().into(),
            Some(pb::core::node::UserAgentVersionType::UserAgentBuildVersion(build)) => build
                .version
                .as_ref()
                .map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch))
                .unwrap_or_default()
                .into(),
            None => "".into(),
        };
        let zone =
            node.locality.as_ref().map(|locality| locality.zone.as_str()).filter(|zone| !zone.is_empty());
        let instance = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(INSTANCE));
        Ok(Self {
            role,
            ip,
            user_agent: node.user_agent_name.as_str().into(),
            version,
            zone: zone.map(Into::into),
            instance: instance.and_then(pb::core_value::text).map(Into::into),
        })
    }

    /// What it understands, by the program it says it is.
    pub fn client(&self) -> Client {
        match &*self.user_agent {
            USER_AGENT => Client::Outrigger,
            // "gRPC C-core", "gRPC Java", "gRPC Go" ...
            agent if agent.starts_with("gRPC") => Client::Grpc,
            _ => Client::Envoy,
        }
    }
}

fn parse_id(id: &str) -> Option<(Role, Option<IpAddr>)> {
    let mut parts = id.split('~');
    let (kind, ip, name, _domain) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let ip: IpAddr = ip.parse().ok()?;
    // A namespace is one DNS label; names of pods may have dots.
    let (name, namespace) = name.rsplit_once('.')?;
    if name.is_empty() || namespace.is_empty() || name.len() + namespace.len() > 512 {
        return None;
    }
    let (namespace, name) = (namespace.into(), name.into());
    let role = match kind {
        "sidecar" => Role::Sidecar { namespace, workload: name },
        "router" => Role::Gateway { namespace, name },
        _ => return None,
    };
    Some((role, (!ip.is_unspecified()).then_some(ip)))
}

#[cfg(test)]
mod tests {
    use prost::Name;

    use super::*;

    #[test]
    fn type_urls_are_those_of_the_messages() {
        let of_message = |kind| match kind {
            ResourceKind::Listener => pb::listener::Listener::type_url(),
            ResourceKind::RouteTable => pb::route::RouteConfiguration::type_url(),
            ResourceKind::Cluster => pb::cluster::Cluster::type_url(),
            ResourceKind::Endpoints => pb::endpoint::ClusterLoadAssignment::type_url(),
            ResourceKind::Secret => pb::tls::Secret::type_url(),
        };
        for kind in ResourceKind::ALL {
            assert_eq!(type_url(kind), of_message(kind));
            assert_eq!(self::kind(type_url(kind)), Some(kind));
        }
        assert_eq!(kind("type.googleapis.com/envoy.config.listener.v3.ListenerX"), None);
    }

    #[test]
    fn a_node_survives_the_wire() {
        let workload = Role::Sidecar { namespace: "default".into(), workload: "reviews-v1.0".into() };
        let gateway = Role::Gateway { namespace: "edge".into(), name: "ingress".into() };
        for (role, ip) in [(workload, Some("10.1.2.3".parse().expect("an address"))), (gateway, None)] {
            let node = Node { zone: Some("a".into()), instance: Some("7".into()), ..Node::new(role, ip) };
            assert_eq!(Node::from_message(&node.to_message()), Ok(node));
        }
    }

    #[test]
    fn other_ids_are_refused() {
        for id in [
            "",
            "sidecar",
            "sidecar~10.0.0.1~reviews~d",     // no namespace
            "sidecar~10.0.0.1~.default~d",    // no name
            "sidecar~here~reviews.default~d", // no address
            "ztunnel~10.0.0.1~reviews.default~d",
            "sidecar~10.0.0.1~a.b~d~e",
        ] {
            let node = pb::core::Node { id: id.into(), ..Default::default() };
            assert!(Node::from_message(&node).is_err(), "{id}");
        }
    }
}
