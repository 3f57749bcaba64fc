//! When an instance takes traffic.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::field::IntOrString;
use crate::manifest::union::exactly_one;
use crate::manifest::value::{HeaderName, HeaderValue, Label, Port, number_value};

/// When an instance takes traffic; the names and defaults are those of Kubernetes' probes, the period is shorter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawReadiness", into = "RawReadiness")]
pub struct Readiness {
    pub probe: Probe,
    /// Default 0.
    pub initial_delay_seconds: u32,
    /// Default 1.
    pub period_seconds: ProbeSeconds,
    /// Default 1.
    pub timeout_seconds: ProbeSeconds,
    /// Successes in a row before it is ready. Default 1.
    pub success_threshold: ProbeCount,
    /// Failures in a row before it is no longer ready. Default 3.
    pub failure_threshold: ProbeCount,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Any status from 200 to 399 is a success.
    HttpGet(HttpGet),
    /// A connection that is accepted is a success.
    TcpSocket(TcpSocket),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// With its query, if it has one. Default `/`.
    #[serde(default = "root")]
    #[schemars(regex(pattern = "^/"))]
    pub path: String,
    /// Of the app: a number, or the name of one of its ports.
    pub port: ProbePort,
    #[serde(default)]
    pub scheme: ProbeScheme,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<ProbeHeader>,
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpSocket {
    pub port: ProbePort,
}

/// One of the workload's ports, by number (as callers see it) or name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "IntOrString", into = "IntOrString")]
pub enum ProbePort {
    Number(Port),
    Name(Label),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum ProbeScheme {
    #[default]
    Http,
    /// The certificate is not verified, as in Kubernetes.
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeHeader {
    pub name: HeaderName,
    pub value: HeaderValue,
}

number_value! {
    /// Seconds.
    ProbeSeconds(u32), "a number of seconds (1 to 3600)", 1..=3_600
}

number_value! {
    /// Results in a row.
    ProbeCount(u8), "a count (1 to 100)", 1..=100
}

impl TryFrom<IntOrString> for ProbePort {
    type Error = String;

    fn try_from(raw: IntOrString) -> Result<ProbePort, String> {
        match raw {
            IntOrString::Int(n) => u64::try_from(n)
                .ok()
                .and_then(|n| Port::try_from(n).ok())
                .map(ProbePort::Number)
                .ok_or_else(|| format!("{n} is not {}", Port::ACCEPTED)),
            IntOrString::String(text) => {
                Label::try_from(&*text).map(ProbePort::Name).map_err(|error| error.to_string())
            }
        }
    }
}

impl From<ProbePort> for IntOrString {
    fn from(typed: ProbePort) -> IntOrString {
        match typed {
            ProbePort::Number(port) => IntOrString::Int(i32::from(port.get())),
            ProbePort::Name(name) => IntOrString::String(name.to_string()),
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Readiness")]
struct RawReadiness {
    /// Excludes `tcpSocket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_get: Option<HttpGet>,
    /// Excludes `httpGet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp_socket: Option<TcpSocket>,
    /// Default 0.
    #[serde(default)]
    initial_delay_seconds: u32,
    /// Default 1.
    #[serde(default = "one_second")]
    period_seconds: ProbeSeconds,
    /// Default 1.
    #[serde(default = "one_second")]
    timeout_seconds: ProbeSeconds,
    /// Default 1.
    #[serde(default = "one")]
    success_threshold: ProbeCount,
    /// Default 3.
    #[serde(default = "three")]
    failure_threshold: ProbeCount,
}

fn one_second() -> ProbeSeconds {
    ProbeSeconds(1)
}

fn one() -> ProbeCount {
    ProbeCount(1)
}

fn three() -> ProbeCount {
    ProbeCount(3)
}

impl TryFrom<RawReadiness> for Readiness {
    type Error = String;

    fn try_from(raw: RawReadiness) -> Result<Readiness, String> {
        exactly_one(&[("httpGet", raw.http_get.is_some()), ("tcpSocket", raw.tcp_socket.is_some())])?;
        let socket = raw.tcp_socket.map(Probe::TcpSocket);
        let probe = raw.http_get.map(Probe::HttpGet).or(socket).ok_or("httpGet or tcpSocket is required")?;
        Ok(Readiness {
            probe,
            initial_delay_seconds: raw.initial_delay_seconds,
            period_seconds: raw.period_seconds,
            timeout_seconds: raw.timeout_seconds,
            success_threshold: raw.success_threshold,
            failure_threshold: raw.failure_threshold,
        })
    }
}

impl From<Readiness> for RawReadiness {
    fn from(typed: Readiness) -> RawReadiness {
        let (http_get, tcp_socket) = match typed.probe {
            Probe::HttpGet(get) => (Some(get), None),
            Probe::TcpSocket(socket) => (None, Some(socket)),
        };
        RawReadiness {
            http_get,
            tcp_socket,
            initial_delay_seconds: typed.initial_delay_seconds,
            period_seconds: typed.period_seconds,
            timeout_seconds: typed.timeout_seconds,
            success_threshold: typed.success_threshold,
            failure_threshold: typed.failure_threshold,
        }
    }
}
