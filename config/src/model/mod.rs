//! The typed data-plane configuration: what one proxy runs on.
//!
//! Owns the meaning of listener, route table, route, cluster, endpoints and secret. Every value is valid by construction:
//! whoever holds one need not check it again. Pure data: no handle, counter or connection lives here; the proxy compiles
//! these into its live counterparts. Collections are ordered (`Vec`, `BTreeMap`), so that serialising a value twice, in
//! two processes, gives the same bytes and so the same [`Version`].

pub mod access;
pub mod balance;
pub mod circuit_breaker;
pub mod cluster;
pub mod endpoints;
pub mod fault;
mod find;
pub mod identity;
pub mod limit;
pub mod listener;
pub mod name;
pub mod origin;
pub mod pattern;
pub mod retry;
pub mod route;
pub mod secret;
pub mod trust_bundle;
mod version;

pub use access::{
    Access, AccessAction, AccessDefault, AccessMode, AccessPath, AccessPolicy, AccessRule, AccountRef, Among,
    CallMatch, HeaderTest, IdentityPattern, PathTemplate, PeerMatch,
};
pub use balance::{
    Algorithm, Balance, HashCookie, HashInput, HashOn, HealthCheck, HealthProbe, SessionCookie, SlowStart,
};
pub use circuit_breaker::{
    Adaptive, BreakerMode, Caps, CircuitBreaker, Ejection, EjectionErrors, RouteCaps, SlowCalls, SuccessRate,
};
pub use cluster::{Cluster, Discovery, Multiplex, UpstreamHttp};
pub use endpoints::{Endpoint, Endpoints, Health};
pub use fault::{
    Fault, FaultAt, FaultCeiling, FaultDelay, FaultEffect, FaultEnd, Faults, GivenFault, StopIf,
};
pub use find::RequestHead;
pub use identity::{Mtls, MtlsMode, NotASpiffeId, SpiffeId};
pub use limit::{
    Cost, KeyPart, Limit, LimitHeaders, LimitMode, LimitOverride, LimitPer, LimitServer, LimitUnit, Limits,
    Rate, RateLimit, SharedLimit,
};
pub use listener::{
    AccessLog, AccessLogMode, Destination, Egress, Gateway, GatewayListener, GatewayPort, GatewayProtocol,
    Inbound, InboundPort, Listener, Protocol, ProxySettings, TcpForward, TlsRoute, WeightedCluster,
};
pub use name::{ClusterName, DestinationName, RouteTableName, SecretName, ServiceRef, WorkloadRef};
pub use origin::Origin;
pub use pattern::{HostPattern, PathMatch, Pattern, StringMatch};
pub use retry::{Backoff, Hedge, Retry, RetryBudget, RetryMethods, RetryOn};
pub use route::{
    Action, Backend, BackendTarget, Cors, Forward, Fraction, HeaderEdits, HeaderMatch, Mirror, PathRewrite,
    QueryMatch, Redirect, Rewrite, Route, RouteMatch, RouteTable, Timeouts, VirtualHost,
};
pub use secret::Secret;
pub use trust_bundle::{Root, TrustBundle};
pub use version::Version;

use serde::Serialize;

/// One named piece of configuration, the unit that is subscribed to, versioned, pushed, applied and kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Resource {
    Listener(Listener),
    RouteTable(RouteTable),
    Cluster(Cluster),
    Endpoints(Endpoints),
    Secret(Secret),
    /// A secret to xDS, though it holds no key.
    TrustBundle(TrustBundle),
}

/// The kinds of [`Resource`], one xDS type each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum ResourceKind {
    Listener,
    RouteTable,
    Cluster,
    Endpoints,
    Secret,
}

impl ResourceKind {
    pub const ALL: [Self; 5] =
        [Self::Listener, Self::RouteTable, Self::Cluster, Self::Endpoints, Self::Secret];
}

impl Resource {
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Listener(_) => ResourceKind::Listener,
            Self::RouteTable(_) => ResourceKind::RouteTable,
            Self::Cluster(_) => ResourceKind::Cluster,
            Self::Endpoints(_) => ResourceKind::Endpoints,
            Self::Secret(_) | Self::TrustBundle(_) => ResourceKind::Secret,
        }
    }

    /// The name it is subscribed to by, unique within its kind for one proxy.
    pub fn name(&self) -> String {
        match self {
            Self::Listener(listener) => listener.resource_name(),
            Self::RouteTable(table) => table.name.to_string(),
            Self::Cluster(cluster) => cluster.name.to_string(),
            Self::Endpoints(endpoints) => endpoints.cluster.to_string(),
            Self::Secret(secret) => secret.name.to_string(),
            Self::TrustBundle(_) => TrustBundle::NAME.to_owned(),
        }
    }

    /// Hash of the canonical model, equal in every process for equal content; never of encoded protobuf.
    pub fn version(&self) -> Version {
        Version::of(self)
    }
}
