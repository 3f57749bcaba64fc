//! Manifests lowered to what the registry works with: defaults filled in, namespaces made explicit, kinds that do the same made one.
//!
//! Each object on its own: whether what it refers to exists is for the checks that follow. Never fails, since manifests are valid by construction.

mod access;
mod adaptive;
mod balance;
mod circuit_breaker;
mod fault;
mod gateway;
mod grpc;
mod http;
mod limit;
mod policy;
mod retry;
mod route;
mod service;
mod stream;
mod workload;

pub(super) use access::{access_policy, action as access_action, mode as mtls_mode};
pub(crate) use fault::of_policy as faults_of_policy;
pub(super) use gateway::gateway;
pub(super) use grpc::grpc_route;
pub(super) use http::http_route;
pub(super) use policy::traffic_policy;
pub(super) use service::{Slice, SliceEndpoint, endpoint_slice, service};
pub(super) use stream::{tcp_route, tls_route};
pub(super) use workload::{Labels, Lowered as LoweredWorkload, workload};

use std::sync::Arc;

use crate::manifest::Metadata;
use crate::model::Origin;
use crate::resolve::precedence::Seniority;

/// The identity of the object that is lowered.
pub(super) struct Identity<'m> {
    pub kind: &'static str,
    pub namespace: Arc<str>,
    pub metadata: &'m Metadata,
}

impl Identity<'_> {
    fn name(&self) -> Arc<str> {
        self.metadata.name.shared()
    }

    pub fn origin(&self) -> Origin {
        Origin {
            kind: self.kind.into(),
            namespace: self.namespace.clone(),
            name: self.name(),
            field: "".into(),
        }
    }

    fn seniority(&self) -> Seniority {
        let created = self.metadata.creation_timestamp.map(|timestamp| timestamp.unix_seconds());
        Seniority::new(created, &self.namespace, &self.metadata.name)
    }

    /// The namespace of a reference: the object's own unless it names another.
    fn namespace_or(&self, given: Option<&crate::manifest::value::Label>) -> Arc<str> {
        given.map_or_else(|| self.namespace.clone(), |namespace| namespace.shared())
    }
}
