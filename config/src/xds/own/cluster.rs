//! Of a cluster and of an endpoint: circuit breaking and balancing in our words.

use prost::Message;

use super::{BreakerMode, EjectionErrors, Multiplex, Origin, ServiceRef, UpstreamHttp};
use crate::xds::pb;

/// On a cluster.
#[derive(Clone, PartialEq, Message)]
pub struct Cluster {
    #[prost(message, optional, tag = "1")]
    pub service: Option<ServiceRef>,
    #[prost(message, optional, tag = "2")]
    pub origin: Option<Origin>,
    #[prost(enumeration = "UpstreamHttp", tag = "3")]
    pub http: i32,
    #[prost(message, optional, tag = "4")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Absent: as by default, but for health checks, which are Envoy's words.
    #[prost(message, optional, tag = "5")]
    pub balance: Option<Balance>,
    /// Of HTTP/1.1 between proxies of ours.
    #[prost(enumeration = "Multiplex", tag = "6")]
    pub multiplex: i32,
}

/// All of it, in our words: beside it, Envoy's thresholds and outlier detection say only a part.
#[derive(Clone, PartialEq, Message)]
pub struct CircuitBreaker {
    #[prost(message, optional, tag = "1")]
    pub caps: Option<Caps>,
    #[prost(message, optional, tag = "2")]
    pub ejection: Option<Ejection>,
    #[prost(message, optional, tag = "3")]
    pub origin: Option<Origin>,
    #[prost(message, optional, tag = "4")]
    pub adaptive: Option<Adaptive>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Adaptive {
    #[prost(enumeration = "BreakerMode", tag = "1")]
    pub mode: i32,
    #[prost(uint32, tag = "2")]
    pub least: u32,
    #[prost(uint32, tag = "3")]
    pub most: u32,
    #[prost(message, optional, tag = "4")]
    pub origin: Option<Origin>,
}

/// Of a cluster, or of a route: that has no connections of its own, and its origin stands here.
#[derive(Clone, PartialEq, Message)]
pub struct Caps {
    #[prost(enumeration = "BreakerMode", tag = "1")]
    pub mode: i32,
    #[prost(uint32, optional, tag = "2")]
    pub connections: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    pub pending: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    pub requests: Option<u32>,
    #[prost(uint32, optional, tag = "5")]
    pub retries: Option<u32>,
    #[prost(uint32, optional, tag = "6")]
    pub requests_per_connection: Option<u32>,
    #[prost(message, optional, tag = "7")]
    pub origin: Option<Origin>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ejection {
    #[prost(enumeration = "BreakerMode", tag = "1")]
    pub mode: i32,
    #[prost(enumeration = "EjectionErrors", tag = "2")]
    pub errors: i32,
    #[prost(uint32, optional, tag = "3")]
    pub consecutive_errors: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    pub connect_failures: Option<u32>,
    /// `share` is the part that has to succeed.
    #[prost(message, optional, tag = "5")]
    pub success_rate: Option<Within>,
    #[prost(message, optional, tag = "6")]
    pub slow_calls: Option<Within>,
    #[prost(message, optional, tag = "7")]
    pub slower_than: Option<pb::Duration>,
    #[prost(message, optional, tag = "8")]
    pub base: Option<pb::Duration>,
    #[prost(message, optional, tag = "9")]
    pub max: Option<pb::Duration>,
    /// Millionths, as the next one.
    #[prost(uint32, tag = "10")]
    pub jitter: u32,
    #[prost(uint32, tag = "11")]
    pub max_ejected: u32,
    #[prost(message, optional, tag = "12")]
    pub ramp: Option<pb::Duration>,
}

/// A share of the calls of some time.
#[derive(Clone, PartialEq, Message)]
pub struct Within {
    /// Millionths.
    #[prost(uint32, tag = "1")]
    pub share: u32,
    #[prost(message, optional, tag = "2")]
    pub interval: Option<pb::Duration>,
    #[prost(uint32, tag = "3")]
    pub min_requests: u32,
}

/// What Envoy's `lb_policy` leaves open.
#[derive(Clone, PartialEq, Message)]
pub struct Balance {
    /// Instead of `lb_policy`.
    #[prost(bool, tag = "1")]
    pub peak_ewma: bool,
    #[prost(message, repeated, tag = "2")]
    pub hash: Vec<pb::route::route_action::HashPolicy>,
    #[prost(message, optional, tag = "3")]
    pub slow_start_window: Option<pb::Duration>,
    #[prost(uint32, tag = "4")]
    pub slow_start_percent: u32,
    #[prost(string, optional, tag = "5")]
    pub zone: Option<String>,
    #[prost(message, optional, tag = "6")]
    pub session: Option<SessionCookie>,
    #[prost(message, optional, tag = "7")]
    pub origin: Option<Origin>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SessionCookie {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub ttl: Option<pb::Duration>,
    #[prost(string, tag = "3")]
    pub path: String,
}

/// On an endpoint.
#[derive(Clone, PartialEq, Message)]
pub struct Endpoint {
    #[prost(string, optional, tag = "1")]
    pub workload: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub identity: Option<String>,
    #[prost(bool, tag = "3")]
    pub meshed: bool,
    #[prost(string, repeated, tag = "4")]
    pub for_zones: Vec<String>,
}
