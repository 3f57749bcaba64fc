//! `AccessPolicy`: who may call the selected workloads, and whether they must use mTLS.
//!
//! Its rules are known and refused: this version enforces none of them, and a policy that looks enforced and is not
//! would be worse than none.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::{Ignored, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::value::{LabelKey, LabelValue};

mod mtls;

pub use mtls::{MtlsMode, MtlsSection, PortMtls};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessPolicy {
    pub metadata: Metadata,
    pub spec: AccessPolicySpec,
    /// Written by the control plane, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessPolicySpec {
    /// Which workloads of the namespace it is about; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Enforce or Audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NotYet>,
    /// Who may do what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<NotYet>,
    /// Whether callers have to prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsSection>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSelector {
    /// All of these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<LabelKey, LabelValue>,
}

impl Check for AccessPolicy {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        match &self.spec.mtls {
            Some(mtls) => mtls.check(&spec.key("mtls"), findings),
            None => findings.error(spec, "one of these is required: mtls"),
        }
    }
}
