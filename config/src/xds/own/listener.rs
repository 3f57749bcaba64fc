//! Of a listener: what it stands for, and the settings of a proxy.

use prost::Message;

use super::{
    AccessLogMode, Egress, GatewayProtocol, MtlsMode, Origin, Protocol, ServiceRef, WorkloadRef, enumeration,
};
use crate::model;
use crate::xds::at::{At, Unsupported};
use crate::xds::{access, faults, fields, limits, pb};

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
    pub access: Option<access::Access>,
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
    pub limits: Option<limits::Limits>,
    #[prost(message, repeated, tag = "8")]
    pub faults: Vec<faults::Faults>,
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
    pub faults: Option<faults::Faults>,
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

impl From<&model::Mtls> for Mtls {
    fn from(mtls: &model::Mtls) -> Self {
        Self { mode: MtlsMode::from(mtls.mode) as i32, origin: mtls.origin.as_ref().map(Into::into) }
    }
}

impl Mtls {
    pub(in crate::xds) fn into_model(own: Option<Self>, at: &At<'_>) -> Result<model::Mtls, Unsupported> {
        let Some(own) = own else { return Ok(model::Mtls::default()) };
        Ok(model::Mtls {
            mode: enumeration::<MtlsMode, _>(own.mode, &at.field("mode"))?,
            origin: own.origin.map(Into::into),
        })
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
    pub(in crate::xds) fn into_model(self, at: &At<'_>) -> Result<model::ProxySettings, Unsupported> {
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
