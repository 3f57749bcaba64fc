//! `AccessPolicy`: who may call the selected workloads, and whether they must use mTLS.
//!
//! Its fields are known and refused: this version enforces none of them, and a policy that looks enforced and is not
//! would be worse than none.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::{Ignored, NOT_YET, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::value::{LabelKey, LabelValue};

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
    /// Strict, Permissive or Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<NotYet>,
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
        findings.error(at.key("spec"), format!("AccessPolicy {NOT_YET}"));
    }
}
