//! `loadBalancing.healthCheck`: asking endpoints that nobody else watches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::{Duration, PreciseHostname, number_value};

use super::load_balancing::Nothing;

/// At most one of `http`, `grpc` and `tcp`; without any, `tcp`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheckSection {
    /// Well where a GET is answered with 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHealthCheck>,
    /// Well where `grpc.health.v1.Health/Check` answers SERVING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcHealthCheck>,
    /// Well where a connection can be opened, with TLS where requests have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Nothing>,
    /// Between two questions to one endpoint, ± 10 %. Default 10s; 10ms to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// For the answer. Default 1s; 1ms to 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Failures in a row after which an endpoint gets nothing more. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<Threshold>,
    /// Successes in a row after which it gets requests again. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<Threshold>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHealthCheck {
    /// With its query. Default /.
    #[serde(default = "root")]
    pub path: String,
    /// Default: the host the endpoints are reached by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<PreciseHostname>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcHealthCheck {
    /// Default: the server as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
}

number_value! {
    /// Answers in a row.
    Threshold(u8), "a threshold (1 to 100)", 1..=100
}

fn root() -> String {
    "/".to_owned()
}

impl Check for HealthCheckSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let given =
            [("http", self.http.is_some()), ("grpc", self.grpc.is_some()), ("tcp", self.tcp.is_some())];
        let mut given = given.into_iter().filter(|(_, given)| *given);
        if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
            findings.error(at.key(second), format!("cannot stand beside {first}"));
        }
        for (name, given, (least, most), bounds) in [
            ("interval", self.interval, (10, 3_600_000), "10ms to 1h"),
            ("timeout", self.timeout, (1, 60_000), "1ms to 60s"),
        ] {
            if let Some(given) = given
                && !(least..=most).contains(&given.get().as_millis())
            {
                findings.error(at.key(name), format!("{given} is not accepted ({bounds})"));
            }
        }
        if let Some(http) = &self.http
            && !(http.path.starts_with('/') && http.path.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let text = format!("{:?} is not a path (beginning with /, printable ASCII)", http.path);
            findings.error(at.key("http").key("path"), text);
        }
        if let Some(grpc) = &self.grpc
            && (grpc.service.len() > 1_024 || grpc.service.bytes().any(|byte| byte.is_ascii_control()))
        {
            findings.error(
                at.key("grpc").key("service"),
                "is not the name of a service (at most 1024 characters)",
            );
        }
    }
}
