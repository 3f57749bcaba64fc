//! A cluster: a set of interchangeable endpoints and how to talk to them.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Balance, CircuitBreaker, ClusterName, Origin, ServiceRef};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    pub name: ClusterName,
    /// Stands in metrics; `None` where no Service is behind it (one instance addressed directly).
    pub service: Option<ServiceRef>,
    pub discovery: Discovery,
    pub http: UpstreamHttp,
    /// Until a TCP (and TLS) connection stands. Default 1 s; 1 ms to 60 s.
    pub connect_timeout: Duration,
    /// How long a connection without a request is kept. Default 60 s towards endpoints; 0 keeps none.
    pub idle_timeout: Duration,
    pub multiplex: Multiplex,
    pub circuit_breaker: Arc<CircuitBreaker>,
    pub balance: Arc<Balance>,
    pub origin: Option<Origin>,
}

impl Cluster {
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
}

/// How the endpoints of a cluster become known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Discovery {
    /// An [`super::Endpoints`] resource of the cluster's name is subscribed to.
    Endpoints,
    /// A name outside the mesh, resolved by the proxy with its TTL.
    Dns { host: Arc<str>, port: u16 },
}

/// Whether HTTP/1.1 between sidecars shares connections of HTTP/2, each exchange in a stream of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Multiplex {
    #[default]
    Never,
    /// While so many requests are under way to an endpoint that it costs less.
    WhenBusy,
    Always,
}

/// Which HTTP goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum UpstreamHttp {
    /// What the caller spoke: the app sees what it would see without the mesh. The default between sidecars.
    AsReceived,
    /// HTTP/1.1, but HTTP/2 for gRPC, which HTTP/1.1 cannot carry. The default behind a gateway, whose clients choose their protocol without knowing the app's.
    Http1,
    /// HTTP/2 with prior knowledge, declared by the port (`appProtocol: kubernetes.io/h2c`, `grpc`, `http2`).
    Http2,
}
