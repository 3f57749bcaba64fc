//! Whole registries from manifests, and what each subscriber is told.

mod access;
mod balance;
mod bookinfo;
mod gateway;
mod instances;
mod mesh;
mod order;
mod policy;

use crate::model::{
    Action, BackendTarget, Cluster, Destination, Endpoints, Inbound, Listener, Resource, ResourceKind, Route,
    RouteTable,
};
use crate::registry::{Registry, Store};

use super::Subscriber;
use std::sync::Arc;

pub(crate) fn sidecar(namespace: &str) -> Subscriber {
    Subscriber::sidecar(namespace, "caller")
}

impl Registry {
    fn destination_of(&self, who: &Subscriber, name: &str) -> Option<Destination> {
        match self.resolve(who, ResourceKind::Listener, &format!("outbound|{name}"))? {
            Resource::Listener(Listener::Destination(destination)) => Some(destination),
            other => panic!("{other:?}"),
        }
    }

    fn inbound_of(&self, who: &Subscriber) -> Option<Inbound> {
        match self.resolve(who, ResourceKind::Listener, "inbound")? {
            Resource::Listener(Listener::Inbound(inbound)) => Some(inbound),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn table_of(&self, who: &Subscriber, name: &str) -> RouteTable {
        match self.resolve(who, ResourceKind::RouteTable, name) {
            Some(Resource::RouteTable(table)) => table,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn cluster_of(&self, who: &Subscriber, name: &str) -> Cluster {
        match self.resolve(who, ResourceKind::Cluster, name) {
            Some(Resource::Cluster(cluster)) => cluster,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn endpoints_of(&self, name: &str) -> Endpoints {
        match self.resolve(&sidecar("any"), ResourceKind::Endpoints, name) {
            Some(Resource::Endpoints(endpoints)) => endpoints,
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// `reviews-v1:90 reviews-v2:10`, `invalid:1`
pub(crate) fn backends(route: &Route) -> String {
    let Action::Forward(forward) = &route.action else { return "redirect".into() };
    let backend = |backend: &crate::model::Backend| {
        let name = match &backend.target {
            BackendTarget::Cluster(cluster) => {
                let host = cluster.as_str().rsplit('|').next().unwrap();
                host.split('.').next().unwrap().to_owned()
            }
            BackendTarget::Invalid(_) => "invalid".to_owned(),
        };
        format!("{name}:{}", backend.weight)
    };
    forward.backends.iter().map(backend).collect::<Vec<_>>().join(" ")
}
