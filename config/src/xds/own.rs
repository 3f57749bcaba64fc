//! What Envoy's messages can't say: our own messages, `type.outrigger.dev/v1.*`.
//!
//! They travel packed under `metadata.typed_filter_metadata["outrigger.dev"]` of a listener, route, cluster or endpoint, and
//! hold only what the message around them leaves open. Tags are never reused; a field is only ever added, so that
//! a proxy and a control plane of different releases understand each other.

use std::time::Duration;

use prost::{Enumeration, Message, Name};

use super::at::{At, Unsupported};
use super::{fields, pb};
use crate::model;

/// The key in `typed_filter_metadata`.
pub const METADATA_KEY: &str = "outrigger.dev";

/// On a listener `outbound|HOST:PORT`.
#[derive(Clone, PartialEq, Message)]
pub struct Destination {
    #[prost(message, optional, tag = "1")]
    pub service: Option<ServiceRef>,
    #[prost(enumeration = "Protocol", tag = "2")]
    pub protocol: i32,
    /// Only where no filter chain carries it.
    #[prost(string, optional, tag = "3")]
    pub routes: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub origin: Option<Origin>,
    /// One for each TLS filter chain, in their order.
    #[prost(message, repeated, tag = "5")]
    pub tls: Vec<TlsRoute>,
    /// Only where a TCP proxy can't say it.
    #[prost(message, optional, tag = "6")]
    pub tcp: Option<TcpForward>,
}

/// On the listener `inbound`.
#[derive(Clone, PartialEq, Message)]
pub struct Inbound {
    #[prost(message, optional, tag = "1")]
    pub workload: Option<WorkloadRef>,
    #[prost(message, repeated, tag = "2")]
    pub ports: Vec<InboundPort>,
    #[prost(message, optional, tag = "3")]
    pub settings: Option<ProxySettings>,
    #[prost(message, optional, tag = "4")]
    pub mtls: Option<Mtls>,
    #[prost(message, optional, tag = "5")]
    pub access: Option<super::access::Access>,
}

#[derive(Clone, PartialEq, Message)]
pub struct InboundPort {
    #[prost(uint32, tag = "1")]
    pub port: u32,
    #[prost(enumeration = "Protocol", tag = "2")]
    pub protocol: i32,
    /// `IP:PORT`
    #[prost(string, tag = "3")]
    pub app: String,
    #[prost(message, optional, tag = "4")]
    pub service: Option<ServiceRef>,
    #[prost(message, optional, tag = "5")]
    pub origin: Option<Origin>,
    #[prost(message, optional, tag = "6")]
    pub mtls: Option<Mtls>,
    #[prost(message, optional, tag = "7")]
    pub limits: Option<super::limits::Limits>,
    #[prost(message, repeated, tag = "8")]
    pub faults: Vec<super::faults::Faults>,
}

/// Absent: the default.
#[derive(Clone, PartialEq, Message)]
pub struct Mtls {
    #[prost(enumeration = "MtlsMode", tag = "1")]
    pub mode: i32,
    #[prost(message, optional, tag = "2")]
    pub origin: Option<Origin>,
}

/// On a listener `gateway|NAMESPACE/NAME`.
#[derive(Clone, PartialEq, Message)]
pub struct Gateway {
    #[prost(message, optional, tag = "1")]
    pub settings: Option<ProxySettings>,
    /// Their filter chains stand in the same order.
    #[prost(message, repeated, tag = "2")]
    pub ports: Vec<GatewayPort>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GatewayPort {
    #[prost(uint32, tag = "1")]
    pub port: u32,
    #[prost(message, repeated, tag = "2")]
    pub listeners: Vec<GatewayListener>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GatewayListener {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub hostname: String,
    #[prost(enumeration = "GatewayProtocol", tag = "3")]
    pub protocol: i32,
    #[prost(message, optional, tag = "4")]
    pub origin: Option<Origin>,
    /// Plain HTTP only: Envoy can't tell listeners of one port apart by host, so that they have no filter chain each.
    #[prost(string, tag = "5")]
    pub routes: String,
    /// Only where a TCP proxy can't say it.
    #[prost(message, optional, tag = "6")]
    pub forward: Option<TcpForward>,
    /// One for each filter chain of a listener that passes TLS through.
    #[prost(message, repeated, tag = "7")]
    pub tls: Vec<TlsRoute>,
}

/// On a route.
#[derive(Clone, PartialEq, Message)]
pub struct Route {
    #[prost(message, optional, tag = "1")]
    pub origin: Option<Origin>,
    /// What the route forwards to where no request can get there (no backend, no weight), which Envoy has no words for; on a
    /// redirect its mirrors and timeouts.
    #[prost(message, optional, tag = "2")]
    pub action: Option<pb::route::RouteAction>,
    /// Rewrites of path or host that Envoy does in another way.
    #[prost(message, optional, tag = "3")]
    pub rewrite: Option<Rewrite>,
    #[prost(message, repeated, tag = "4")]
    pub backends: Vec<Backend>,
    #[prost(message, optional, tag = "5")]
    pub retry: Option<Retry>,
    #[prost(message, optional, tag = "6")]
    pub caps: Option<Caps>,
    /// All of it: Envoy's filter says only a part.
    #[prost(message, optional, tag = "7")]
    pub faults: Option<super::faults::Faults>,
}

/// All of it, in our words: beside it, Envoy's policy says only a part.
#[derive(Clone, PartialEq, Message)]
pub struct Retry {
    #[prost(uint32, tag = "1")]
    pub attempts: u32,
    /// `model::RetryOn::word`
    #[prost(string, repeated, tag = "2")]
    pub on: Vec<String>,
    #[prost(uint32, repeated, tag = "3")]
    pub statuses: Vec<u32>,
    #[prost(message, repeated, tag = "4")]
    pub headers: Vec<pb::route::HeaderMatcher>,
    #[prost(enumeration = "RetryMethods", tag = "5")]
    pub methods: i32,
    #[prost(string, repeated, tag = "6")]
    pub listed_methods: Vec<String>,
    #[prost(message, optional, tag = "7")]
    pub backoff_base: Option<pb::Duration>,
    #[prost(message, optional, tag = "8")]
    pub backoff_max: Option<pb::Duration>,
    /// Millionths.
    #[prost(uint32, tag = "9")]
    pub budget_share: u32,
    #[prost(uint32, tag = "10")]
    pub budget_per_second: u32,
    #[prost(message, optional, tag = "11")]
    pub budget_interval: Option<pb::Duration>,
    #[prost(message, optional, tag = "12")]
    pub max_retry_after: Option<pb::Duration>,
    #[prost(bool, tag = "13")]
    pub of_retries: bool,
    #[prost(message, optional, tag = "14")]
    pub hedge_after: Option<pb::Duration>,
    /// Millionths; 0 for none.
    #[prost(uint32, tag = "15")]
    pub hedge_percentile: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum RetryMethods {
    Idempotent = 0,
    Any = 1,
    Listed = 2,
}

/// What a weighted cluster leaves open.
#[derive(Clone, PartialEq, Message)]
pub struct Backend {
    /// Which of the weighted clusters.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// Why its reference could not be resolved.
    #[prost(string, optional, tag = "2")]
    pub invalid: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub rewrite: Option<Rewrite>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Rewrite {
    #[prost(string, optional, tag = "1")]
    pub host: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub full_path: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub prefix: Option<PrefixRewrite>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PrefixRewrite {
    #[prost(string, tag = "1")]
    pub matched: String,
    #[prost(string, tag = "2")]
    pub replacement: String,
}

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

#[derive(Clone, PartialEq, Message)]
pub struct TlsRoute {
    #[prost(message, optional, tag = "1")]
    pub origin: Option<Origin>,
    /// Only where a TCP proxy can't say it.
    #[prost(message, optional, tag = "2")]
    pub forward: Option<TcpForward>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TcpForward {
    #[prost(message, repeated, tag = "1")]
    pub clusters: Vec<WeightedCluster>,
    #[prost(message, optional, tag = "2")]
    pub idle: Option<pb::Duration>,
    #[prost(message, optional, tag = "3")]
    pub faults: Option<super::faults::Faults>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WeightedCluster {
    #[prost(string, tag = "1")]
    pub cluster: String,
    #[prost(uint32, tag = "2")]
    pub weight: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ProxySettings {
    #[prost(enumeration = "Egress", tag = "1")]
    pub egress: i32,
    #[prost(enumeration = "AccessLogMode", tag = "2")]
    pub access_log: i32,
    /// Millionths.
    #[prost(uint32, tag = "3")]
    pub access_log_sampling: u32,
    #[prost(string, tag = "4")]
    pub trust_domain: String,
    #[prost(message, optional, tag = "5")]
    pub app_idle_timeout: Option<pb::Duration>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Origin {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub field: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ServiceRef {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct WorkloadRef {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub service_account: String,
}

macro_rules! packed {
    ($($message:ident)*) => {$(
        impl Name for $message {
            const NAME: &'static str = stringify!($message);
            const PACKAGE: &'static str = "v1";

            fn type_url() -> String {
                concat!("type.outrigger.dev/v1.", stringify!($message)).into()
            }
        }
    )*};
}
packed!(Destination Inbound Gateway Route Cluster Endpoint);

/// Enumerations that mirror one of the model's, variant by variant.
macro_rules! mirrored {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal),* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
        #[repr(i32)]
        pub enum $name { $($variant = $number),* }

        impl From<model::$name> for $name {
            fn from(value: model::$name) -> Self {
                match value { $(model::$name::$variant => Self::$variant),* }
            }
        }

        impl From<$name> for model::$name {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),* }
            }
        }
    )*};
}
mirrored! {
    Protocol { Detect = 0, Http = 1, Http2 = 2, Tcp = 3, Tls = 4 }
    Egress { AllowAny = 0, RegistryOnly = 1 }
    AccessLogMode { Off = 0, Errors = 1, All = 2 }
    UpstreamHttp { AsReceived = 0, Http1 = 1, Http2 = 2 }
    BreakerMode { Enforce = 0, Observe = 1 }
    EjectionErrors { Gateway = 0, Server = 1 }
    MtlsMode { Permissive = 0, Strict = 1, Disabled = 2 }
    FaultAt { Caller = 0, CallerBehindRetries = 1, Callee = 2 }
    LimitHeaders { Always = 0, Refused = 1, Never = 2 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum GatewayProtocol {
    Http = 0,
    Https = 1,
    Tcp = 2,
    TlsPassthrough = 3,
    TlsTerminate = 4,
}

/// Metadata that holds `message`, and nothing else.
pub(super) fn metadata<T: Name>(message: &T) -> Option<pb::core::Metadata> {
    Some(pb::core::Metadata {
        typed_filter_metadata: [(METADATA_KEY.to_owned(), fields::pack(message))].into(),
        ..Default::default()
    })
}

/// Where our message stands in the resource, for refusals.
pub(super) fn at<'a>(metadata: &'a At<'a>) -> At<'a> {
    metadata.key("typed_filter_metadata", METADATA_KEY)
}

/// Our message out of `metadata`; `None` where another control plane made the resource. Other keys are the business of
/// whoever put them there.
pub(super) fn unpack<T: Name + Default>(
    metadata: Option<pb::core::Metadata>,
    at: &At<'_>,
) -> Result<Option<T>, Unsupported> {
    let Some(any) = metadata.and_then(|mut metadata| metadata.typed_filter_metadata.remove(METADATA_KEY))
    else {
        return Ok(None);
    };
    fields::unpack(&any, &self::at(&at.field("metadata"))).map(Some)
}

pub(super) fn enumeration<T: TryFrom<i32>, U: From<T>>(value: i32, at: &At<'_>) -> Result<U, Unsupported> {
    T::try_from(value).map(U::from).map_err(|_| at.refuse(format!("{value} is not known")))
}

impl From<&model::Origin> for Origin {
    fn from(origin: &model::Origin) -> Self {
        Self {
            kind: origin.kind.to_string(),
            namespace: origin.namespace.to_string(),
            name: origin.name.to_string(),
            field: origin.field.to_string(),
        }
    }
}

impl From<Origin> for model::Origin {
    fn from(origin: Origin) -> Self {
        Self {
            kind: origin.kind.into(),
            namespace: origin.namespace.into(),
            name: origin.name.into(),
            field: origin.field.into(),
        }
    }
}

impl From<&model::ServiceRef> for ServiceRef {
    fn from(service: &model::ServiceRef) -> Self {
        Self { namespace: service.namespace.to_string(), name: service.name.to_string() }
    }
}

impl From<ServiceRef> for model::ServiceRef {
    fn from(service: ServiceRef) -> Self {
        Self { namespace: service.namespace.into(), name: service.name.into() }
    }
}

impl From<&model::WorkloadRef> for WorkloadRef {
    fn from(workload: &model::WorkloadRef) -> Self {
        Self {
            namespace: workload.namespace.to_string(),
            name: workload.name.to_string(),
            service_account: workload.service_account.to_string(),
        }
    }
}

impl From<WorkloadRef> for model::WorkloadRef {
    fn from(workload: WorkloadRef) -> Self {
        Self {
            namespace: workload.namespace.into(),
            name: workload.name.into(),
            service_account: workload.service_account.into(),
        }
    }
}

impl From<&model::Mtls> for Mtls {
    fn from(mtls: &model::Mtls) -> Self {
        Self { mode: MtlsMode::from(mtls.mode) as i32, origin: mtls.origin.as_ref().map(Into::into) }
    }
}

impl Mtls {
    pub(super) fn into_model(own: Option<Self>, at: &At<'_>) -> Result<model::Mtls, Unsupported> {
        let Some(own) = own else { return Ok(model::Mtls::default()) };
        Ok(model::Mtls {
            mode: enumeration::<MtlsMode, _>(own.mode, &at.field("mode"))?,
            origin: own.origin.map(Into::into),
        })
    }
}

impl From<&model::Rewrite> for Rewrite {
    fn from(rewrite: &model::Rewrite) -> Self {
        let (full_path, prefix) = match &rewrite.path {
            None => (None, None),
            Some(model::PathRewrite::Full(path)) => (Some(path.to_string()), None),
            Some(model::PathRewrite::Prefix { matched, replacement }) => {
                let prefix =
                    PrefixRewrite { matched: matched.to_string(), replacement: replacement.to_string() };
                (None, Some(prefix))
            }
        };
        Self { host: rewrite.host.as_deref().map(Into::into), full_path, prefix }
    }
}

impl From<Rewrite> for model::Rewrite {
    fn from(rewrite: Rewrite) -> Self {
        let prefix = rewrite.prefix.map(|prefix| model::PathRewrite::Prefix {
            matched: prefix.matched.into(),
            replacement: prefix.replacement.into(),
        });
        let path = rewrite.full_path.map(|path| model::PathRewrite::Full(path.into())).or(prefix);
        Self { host: rewrite.host.map(Into::into), path }
    }
}

impl From<&model::ProxySettings> for ProxySettings {
    fn from(settings: &model::ProxySettings) -> Self {
        Self {
            egress: Egress::from(settings.egress) as i32,
            access_log: AccessLogMode::from(settings.access_log.mode) as i32,
            access_log_sampling: settings.access_log.sampling.millionths(),
            trust_domain: settings.trust_domain.to_string(),
            app_idle_timeout: Some(fields::duration(settings.app_idle_timeout)),
        }
    }
}

impl ProxySettings {
    pub(super) fn into_model(self, at: &At<'_>) -> Result<model::ProxySettings, Unsupported> {
        let default = model::ProxySettings::default();
        let idle = fields::optional_duration(self.app_idle_timeout, &at.field("app_idle_timeout"))?;
        Ok(model::ProxySettings {
            egress: enumeration::<Egress, _>(self.egress, &at.field("egress"))?,
            access_log: model::AccessLog {
                mode: enumeration::<AccessLogMode, _>(self.access_log, &at.field("access_log"))?,
                sampling: model::Fraction::new(self.access_log_sampling, 1_000_000)
                    .ok_or_else(|| at.field("access_log_sampling").refuse("more than 1000000 millionths"))?,
            },
            trust_domain: if self.trust_domain.is_empty() {
                default.trust_domain
            } else {
                self.trust_domain.into()
            },
            app_idle_timeout: idle.unwrap_or(default.app_idle_timeout),
        })
    }
}

/// Largest duration a message may carry. Far beyond any use, and far from any overflow when it is added to a time.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
