//! Gateway API `ReferenceGrant`: which objects of other namespaces may refer to objects of this one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::value::{Label, Name};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceGrant {
    pub metadata: Metadata,
    pub spec: ReferenceGrantSpec,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceGrantSpec {
    /// Who may refer: any of them.
    pub from: Vec<GrantFrom>,
    /// To what: any of them.
    pub to: Vec<GrantTo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantFrom {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    pub namespace: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantTo {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    /// Absent: all of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

impl Check for ReferenceGrant {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        for (list, len) in [("from", self.spec.from.len()), ("to", self.spec.to.len())] {
            findings.not_empty(&spec.key(list), len);
            findings.at_most(&spec.key(list), len, 16);
        }
    }
}
