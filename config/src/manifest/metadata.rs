//! What every object carries beside its specification.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::Ignored;
use super::value::{AnnotationKey, Label, LabelKey, LabelValue, Name, Timestamp};

/// Kubernetes' ObjectMeta.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub name: Name,
    /// Default `default`; absent for kinds that belong to no namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Label>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelKey, LabelValue>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<AnnotationKey, String>,
    /// Decides between policies of the same standing: the older one wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// Set by the Kubernetes API; status written back names the generation it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,

    // Book-keeping of the Kubernetes API that says nothing about traffic.
    #[serde(default, skip_serializing)]
    pub deletion_grace_period_seconds: Ignored,
    #[serde(default, skip_serializing)]
    pub deletion_timestamp: Ignored,
    #[serde(default, skip_serializing)]
    pub finalizers: Ignored,
    #[serde(default, skip_serializing)]
    pub generate_name: Ignored,
    #[serde(default, skip_serializing)]
    pub managed_fields: Ignored,
    #[serde(default, skip_serializing)]
    pub owner_references: Ignored,
    #[serde(default, skip_serializing)]
    pub self_link: Ignored,
}

impl Metadata {
    /// The value of a label, if it is set.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(LabelValue::as_str)
    }
}
