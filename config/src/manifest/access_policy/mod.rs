//! `AccessPolicy`: who may call the selected workloads, and whether they must use mTLS.
//!
//! All AccessPolicies about a workload hold together: what one rule denies no other allows, and as soon as an enforced one allows
//! something on a port, whatever no rule allows is refused there.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::Ignored;
use super::metadata::Metadata;
use super::path::FieldPath;
use super::value::{LabelKey, LabelValue};

mod mtls;
mod rule;

pub use mtls::{MtlsMode, MtlsSection, PortMtls};
pub use rule::{AccessRule, Action, FromMatch, GrpcCall, HeaderRule, PathRule, ToMatch};

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
    /// Of the rules: Enforce, or Audit to count and log what they would refuse. Default Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// Who may do what; 1 to 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<AccessRule>>,
    /// Whether callers have to prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsSection>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mode {
    #[default]
    Enforce,
    /// What the rules would refuse is counted and logged, and goes on.
    Audit,
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
        if let Some(mtls) = &self.spec.mtls {
            mtls.check(&spec.key("mtls"), findings);
        }
        match &self.spec.rules {
            Some(rules) => {
                let at = spec.key("rules");
                findings.not_empty(&at, rules.len());
                findings.at_most(&at, rules.len(), 256);
                findings.unique(&at, rules, "name", |rule| rule.name.clone());
                findings.each(&at, rules);
            }
            None if self.spec.mtls.is_none() => {
                findings.error(spec, "one of these is required: mtls, rules");
            }
            None if self.spec.mode == Mode::Audit => {
                findings.error(spec.key("mode"), "it is the mode of rules, and there are none");
            }
            None => {}
        }
    }
}
