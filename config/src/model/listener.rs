//! What a proxy listens for: destinations of its app, its own inbound ports, a gateway's ports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{
    Access, ClusterName, DestinationName, Faults, Fraction, HostPattern, Limits, Mtls, Origin,
    RouteTableName, SecretName, ServiceRef, WorkloadRef,
};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Listener {
    /// `outbound|HOST:PORT`
    Destination(Destination),
    /// `inbound`
    Inbound(Inbound),
    /// `gateway|NAMESPACE/NAME`
    Gateway(Gateway),
}

impl Listener {
    pub const INBOUND: &'static str = "inbound";

    pub fn resource_name(&self) -> String {
        match self {
            Self::Destination(destination) => destination.name.resource_name(),
            Self::Inbound(_) => Self::INBOUND.into(),
            Self::Gateway(gateway) => Gateway::resource_name(&gateway.namespace, &gateway.name),
        }
    }
}

/// What one (host, port) that an app may ask for means. Several names may share route table and clusters (aliases).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Destination {
    /// As asked.
    pub name: DestinationName,
    /// `None` where an instance is addressed directly (pod IP): Service routes do not apply to it.
    pub service: Option<ServiceRef>,
    pub protocol: Protocol,
    /// Used when the connection carries HTTP.
    pub routes: RouteTableName,
    /// Used when it carries TLS with a matching SNI, most specific first; then `tcp`.
    pub tls: Vec<TlsRoute>,
    /// Used for anything else. Never empty for a known destination; weights may all be 0, which refuses.
    pub tcp: TcpForward,
    pub origin: Option<Origin>,
}

/// What a port was declared to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Protocol {
    /// Nothing declared: the bytes decide.
    Detect,
    /// HTTP of any version: the preface tells HTTP/2 from HTTP/1, whatever was declared.
    Http,
    /// The app speaks HTTP/2 with prior knowledge; callers may use either.
    Http2,
    /// Opaque from the first byte; also every known server-first protocol.
    Tcp,
    /// TLS of the app's own: routed by SNI, never opened.
    Tls,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightedCluster {
    pub cluster: ClusterName,
    /// 0 to 1,000,000
    pub weight: u32,
}

/// Where the bytes of a connection go that nobody looks into.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TcpForward {
    /// One is drawn for each connection.
    pub backends: Vec<WeightedCluster>,
    /// How long it may carry nothing, in either direction; then both sides are closed. `None`: as long as it likes.
    pub idle: Option<Duration>,
    /// Put in by the caller.
    pub faults: Option<Arc<Faults>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TlsRoute {
    pub sni: HostPattern,
    pub forward: TcpForward,
    pub origin: Origin,
}

/// The inbound side of one workload and its mesh-wide settings. Always subscribed by a sidecar.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inbound {
    pub workload: WorkloadRef,
    pub ports: Vec<InboundPort>,
    /// Of ports the workload does not declare.
    pub mtls: Mtls,
    /// Of all ports.
    pub access: Arc<Access>,
    pub settings: ProxySettings,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InboundPort {
    /// As callers see it.
    pub port: u16,
    pub protocol: Protocol,
    /// Where the app listens, as its sidecar sees it.
    pub app: SocketAddr,
    /// The first Service that selects this port, for metrics.
    pub service: Option<ServiceRef>,
    pub mtls: Mtls,
    pub limits: Limits,
    /// Put in before the app.
    pub faults: Vec<Arc<Faults>>,
    pub origin: Option<Origin>,
}

/// Mesh-wide settings that concern a single proxy; they arrive with its `inbound` or `gateway` listener.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProxySettings {
    pub egress: Egress,
    pub access_log: AccessLog,
    /// Default `cluster.local`.
    pub trust_domain: Arc<str>,
    /// App-side idle pool (default 4 s, below Node's 5 s).
    pub app_idle_timeout: Duration,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            egress: Egress::AllowAny,
            access_log: AccessLog::default(),
            trust_domain: "cluster.local".into(),
            app_idle_timeout: Duration::from_secs(4),
        }
    }
}

/// What becomes of destinations the mesh does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Egress {
    AllowAny,
    RegistryOnly,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccessLog {
    pub mode: AccessLogMode,
    /// Share of the successful exchanges that is logged where the mode is `Errors`. Failures are always logged then.
    pub sampling: Fraction,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { mode: AccessLogMode::Off, sampling: Fraction::ZERO }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum AccessLogMode {
    Off,
    /// Failures, and `sampling` of the rest.
    Errors,
    All,
}

/// A gateway: all its ports in one resource, so that a change of listeners takes effect at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gateway {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub ports: Vec<GatewayPort>,
    pub settings: ProxySettings,
}

impl Gateway {
    /// `gateway|NAMESPACE/NAME`
    pub fn resource_name(namespace: &str, name: &str) -> String {
        format!("gateway|{namespace}/{name}")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GatewayPort {
    pub port: u16,
    /// Most specific hostname first; the first whose hostname matches the request's host (or SNI) takes it.
    pub listeners: Vec<GatewayListener>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GatewayListener {
    /// `sectionName`
    pub name: Arc<str>,
    pub hostname: HostPattern,
    pub protocol: GatewayProtocol,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum GatewayProtocol {
    Http {
        routes: RouteTableName,
    },
    /// TLS is terminated with the first of these certificates that fits the SNI; the request inside is routed.
    Https {
        certificates: Vec<SecretName>,
        routes: RouteTableName,
    },
    Tcp {
        forward: TcpForward,
    },
    /// TLS goes on unopened to the route its SNI names.
    TlsPassthrough {
        routes: Vec<TlsRoute>,
    },
    /// TLS is terminated and the bytes inside go on.
    TlsTerminate {
        certificates: Vec<SecretName>,
        forward: TcpForward,
    },
}
