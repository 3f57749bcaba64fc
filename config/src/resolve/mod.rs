//! From the registry and who is asking to the model one proxy needs, piece by piece.
//!
//! [`Registry::resolve`] computes one resource and looks at nothing else: one destination costs the same in a mesh of 20 services and of 5,000.
//! Pure: the same registry, subscriber and name give the same resource, in every process.

mod access;
pub mod attachment;
mod cluster;
mod destination;
mod endpoints;
mod gateway;
mod inbound;
mod limits;
mod mtls;
mod policy;
pub mod precedence;
mod route_table;
mod secret;
mod why;

use std::sync::Arc;

use crate::model::{Gateway, Listener, Resource, ResourceKind};
use crate::registry::Registry;

pub(crate) use gateway::{Attachment, NotAdmitted, admit, rival};
pub use policy::{Candidate, Decision};

/// Which proxy a resource is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subscriber {
    /// Beside the Workload of this name.
    Sidecar { namespace: Arc<str>, name: Arc<str> },
    /// Running the Gateway of this name.
    Gateway { namespace: Arc<str>, name: Arc<str> },
}

impl Subscriber {
    pub fn sidecar(namespace: &str, name: &str) -> Self {
        Self::Sidecar { namespace: namespace.into(), name: name.into() }
    }

    pub fn gateway(namespace: &str, name: &str) -> Self {
        Self::Gateway { namespace: namespace.into(), name: name.into() }
    }

    /// Short service names are looked up here, and consumer routes and policies of this namespace apply.
    pub fn namespace(&self) -> &Arc<str> {
        match self {
            Self::Sidecar { namespace, .. } | Self::Gateway { namespace, .. } => namespace,
        }
    }
}

impl Registry {
    /// The resource of this name as this subscriber has to see it; `None` where there is none, or none for it.
    pub fn resolve(&self, who: &Subscriber, kind: ResourceKind, name: &str) -> Option<Resource> {
        match kind {
            ResourceKind::Listener => self.listener(who, name).map(Resource::Listener),
            ResourceKind::RouteTable => self.route_table(who, name).map(Resource::RouteTable),
            ResourceKind::Cluster => self.cluster(who, name).map(Resource::Cluster),
            ResourceKind::Endpoints => self.endpoints(name).map(Resource::Endpoints),
            ResourceKind::Secret => self.secret(who, name).map(Resource::Secret),
        }
    }

    fn listener(&self, who: &Subscriber, name: &str) -> Option<Listener> {
        match who {
            Subscriber::Sidecar { namespace, name: workload } if name == Listener::INBOUND => {
                self.inbound(namespace, workload).map(Listener::Inbound)
            }
            Subscriber::Gateway { namespace, name: gateway }
                if name == Gateway::resource_name(namespace, gateway) =>
            {
                self.gateway_listener(namespace, gateway).map(Listener::Gateway)
            }
            Subscriber::Sidecar { .. } | Subscriber::Gateway { .. } => {
                self.destination(who, name).map(Listener::Destination)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
