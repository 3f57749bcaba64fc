//! `Mesh`: settings of the whole mesh. There is one, and its name is `default`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access_policy::{Action, MtlsMode};
use super::check::{Check, Findings};
use super::field::{Ignored, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::traffic_policy::LimitServerSection;
use super::value::{Duration, Sampling, TrustDomain};

/// The name of the one Mesh.
pub const MESH_NAME: &str = "default";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: MeshSpec,
    /// Written by the control plane, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshSpec {
    /// Of all identities: `spiffe://TRUST_DOMAIN/ns/NS/sa/SA`. Default `cluster.local`.
    #[serde(default)]
    pub trust_domain: TrustDomain,
    /// Calls that leave the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressSettings>,
    /// What every proxy writes, as JSON lines on its standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogSettings>,
    /// The certificates of workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<NotYet>,
    /// Whether callers have to prove who they are, where no AccessPolicy says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsSettings>,
    /// What applies to calls that no AccessPolicy is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSettings>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitSettings {
    /// Who counts limits of `scope: Service` whose policy does not say it. Default: the control plane.
    #[serde(default)]
    pub server: LimitServerSection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSettings {
    /// How long a certificate is good for; proxies replace it at half of that. Default 24h; 10s to 2160h (90 days).
    #[serde(default = "day")]
    pub lifetime: Duration,
}

impl CertificateSettings {
    /// Less leaves no time to renew, more is no short life any longer.
    pub const LIFETIMES: std::ops::RangeInclusive<Duration> =
        Duration::from_secs(10)..=Duration::from_secs(2_160 * 3_600);
}

impl Default for CertificateSettings {
    fn default() -> CertificateSettings {
        CertificateSettings { lifetime: day() }
    }
}

const fn day() -> Duration {
    Duration::from_secs(24 * 3_600)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressSettings {
    #[serde(default)]
    pub mode: EgressMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MtlsSettings {
    /// Default Permissive.
    #[serde(default)]
    pub mode: MtlsMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessSettings {
    /// Allow or Deny. Default Allow.
    #[serde(default)]
    pub default: Action,
}

/// What becomes of calls to destinations the mesh does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EgressMode {
    /// They pass through untouched. The default.
    #[default]
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSettings {
    /// Default Off.
    #[serde(default)]
    pub mode: AccessLogMode,
    /// With mode Errors: the percentage of the other exchanges that is logged as well. Default 0.
    #[serde(default = "none")]
    pub sampling: Sampling,
}

fn none() -> Sampling {
    Sampling::NONE
}

impl Default for AccessLogSettings {
    fn default() -> AccessLogSettings {
        AccessLogSettings { mode: AccessLogMode::Off, sampling: Sampling::NONE }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AccessLogMode {
    #[default]
    Off,
    /// Failures, and `sampling` of the rest.
    Errors,
    All,
}

impl Check for Mesh {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let metadata = at.key("metadata");
        if self.metadata.name.as_str() != MESH_NAME {
            let text =
                format!("{:?} is not the name of the one Mesh, which is {MESH_NAME}", self.metadata.name);
            findings.error(metadata.key("name"), text);
        }
        if self.metadata.namespace.is_some() {
            findings.error(metadata.key("namespace"), "a Mesh belongs to no namespace");
        }
        if let Some(certificate) = &self.spec.certificate
            && !CertificateSettings::LIFETIMES.contains(&certificate.lifetime)
        {
            let (least, most) =
                (CertificateSettings::LIFETIMES.start(), CertificateSettings::LIFETIMES.end());
            let text =
                format!("{} is not a lifetime of certificates ({least} to {most})", certificate.lifetime);
            findings.error(at.key("spec").key("certificate").key("lifetime"), text);
        }
        if let Some(log) = &self.spec.access_log
            && log.sampling != Sampling::NONE
            && log.mode != AccessLogMode::Errors
        {
            let text = "goes with mode Errors: Off logs nothing, All logs everything";
            findings.error(at.key("spec").key("accessLog").key("sampling"), text);
        }
    }
}
