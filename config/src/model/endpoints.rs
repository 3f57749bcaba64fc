//! The endpoints of one cluster: where its instances are and who they are.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::{ClusterName, SpiffeId};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    pub cluster: ClusterName,
    /// Sorted by address, each address once.
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub health: Health,
    /// Relative share, 1 to 1,000,000; default 1.
    pub weight: u32,
    /// `NAMESPACE/NAME` of the instance, where it is known.
    pub workload: Option<Arc<str>>,
    /// `topology.kubernetes.io/zone`
    pub zone: Option<Arc<str>>,
    /// Zones whose requests are meant for it (`EndpointSlice` hints), sorted; empty where nobody decided that.
    pub for_zones: Vec<Arc<str>>,
    /// SPIFFE id the instance proves itself with; always present where `meshed`.
    pub identity: Option<SpiffeId>,
    /// Whether a sidecar stands before it. A meshed endpoint is dialled with mTLS for exactly `identity`, another one in plaintext.
    pub meshed: bool,
}

/// Whether new requests may go to an endpoint (Envoy `HealthStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Health {
    Healthy,
    /// Nobody watches it: taken to be healthy unless a check of the proxy's own says otherwise.
    Unknown,
    /// Finishing what it has; gets nothing new while any other endpoint is healthy.
    Draining,
    Unhealthy,
}
