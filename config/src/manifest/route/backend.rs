//! What a rule's traffic goes to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::decode::member_error;
use crate::manifest::path::FieldPath;
use crate::manifest::value::{Label, Name, Port, Weight};

/// What a rule's traffic goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawBackendRef", into = "RawBackendRef")]
pub struct BackendRef {
    pub kind: BackendKind,
    /// Default: the route's own; another one needs a ReferenceGrant there.
    pub namespace: Option<Label>,
    pub name: Name,
    /// Default 1.
    pub weight: Weight,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    Service {
        port: Port,
    },
    /// A kind that cannot be resolved: its share of the requests is answered 500, as the API demands.
    Other {
        group: String,
        kind: String,
        port: Option<Port>,
    },
}

/// A backend of an HTTP or gRPC rule: filters apply to what goes to this backend alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    try_from = "RawFilteredBackend<F>",
    into = "RawFilteredBackend<F>",
    bound(serialize = "F: Clone + Serialize", deserialize = "F: Deserialize<'de>")
)]
pub struct FilteredBackend<F> {
    pub to: BackendRef,
    pub filters: Vec<F>,
}

/// The backends of a rule: at most 16.
pub fn check_backends<'b>(
    at: &FieldPath,
    backends: impl ExactSizeIterator<Item = &'b BackendRef>,
    findings: &mut Findings,
) {
    findings.at_most(at, backends.len(), 16);
    for (i, backend) in backends.enumerate() {
        backend.check(&at.index(i), findings);
    }
}

impl Check for BackendRef {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let BackendKind::Other { group, kind, .. } = &self.kind {
            let name = if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") };
            let text = format!("{name} is not a kind of backend, Service is: its requests are answered 500");
            findings.warning(at.key("kind"), text);
        }
    }
}

/// A reference to a backend without a weight (Gateway API `BackendObjectReference`).
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackendObjectRef")]
pub(super) struct RawReference {
    #[serde(default)]
    group: String,
    #[serde(default = "service_kind")]
    kind: String,
    /// Default: the route's own; another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Label>,
    name: Name,
    /// Required for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<Port>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackendRef")]
struct RawBackendRef {
    #[serde(default)]
    group: String,
    /// Service is the only kind traffic can be sent to.
    #[serde(default = "service_kind")]
    kind: String,
    /// Default: the route's own; another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Label>,
    name: Name,
    /// Required for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<Port>,
    /// Its share of the rule's traffic, relative to the other backends.
    #[serde(default)]
    weight: Weight,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackendRefWith{F}")]
struct RawFilteredBackend<F> {
    #[serde(default)]
    group: String,
    /// Service is the only kind traffic can be sent to.
    #[serde(default = "service_kind")]
    kind: String,
    /// Default: the route's own; another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Label>,
    name: Name,
    /// Required for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<Port>,
    /// Its share of the rule's traffic, relative to the other backends.
    #[serde(default)]
    weight: Weight,
    /// Applied to what goes to this backend alone, after those of the rule.
    #[serde(default = "Vec::<F>::new", skip_serializing_if = "Vec::is_empty")]
    filters: Vec<F>,
}

fn service_kind() -> String {
    "Service".to_owned()
}

impl RawReference {
    pub(super) fn typed(self, weight: Weight) -> Result<BackendRef, String> {
        let kind = match (self.group.as_str(), self.kind.as_str(), self.port) {
            ("", "Service", Some(port)) => BackendKind::Service { port },
            ("", "Service", None) => {
                return Err(member_error("port", "is required for a Service, and missing"));
            }
            (_, _, port) => BackendKind::Other { group: self.group, kind: self.kind, port },
        };
        Ok(BackendRef { kind, namespace: self.namespace, name: self.name, weight })
    }
}

impl From<BackendRef> for RawReference {
    fn from(typed: BackendRef) -> RawReference {
        let (group, kind, port) = match typed.kind {
            BackendKind::Service { port } => (String::new(), service_kind(), Some(port)),
            BackendKind::Other { group, kind, port } => (group, kind, port),
        };
        RawReference { group, kind, namespace: typed.namespace, name: typed.name, port }
    }
}

impl TryFrom<RawBackendRef> for BackendRef {
    type Error = String;

    fn try_from(raw: RawBackendRef) -> Result<BackendRef, String> {
        let RawBackendRef { group, kind, namespace, name, port, weight } = raw;
        RawReference { group, kind, namespace, name, port }.typed(weight)
    }
}

impl From<BackendRef> for RawBackendRef {
    fn from(typed: BackendRef) -> RawBackendRef {
        let weight = typed.weight;
        let RawReference { group, kind, namespace, name, port } = typed.into();
        RawBackendRef { group, kind, namespace, name, port, weight }
    }
}

impl<F> TryFrom<RawFilteredBackend<F>> for FilteredBackend<F> {
    type Error = String;

    fn try_from(raw: RawFilteredBackend<F>) -> Result<FilteredBackend<F>, String> {
        let RawFilteredBackend { group, kind, namespace, name, port, weight, filters } = raw;
        let to = RawReference { group, kind, namespace, name, port }.typed(weight)?;
        Ok(FilteredBackend { to, filters })
    }
}

impl<F> From<FilteredBackend<F>> for RawFilteredBackend<F> {
    fn from(typed: FilteredBackend<F>) -> RawFilteredBackend<F> {
        let RawBackendRef { group, kind, namespace, name, port, weight } = typed.to.into();
        RawFilteredBackend { group, kind, namespace, name, port, weight, filters: typed.filters }
    }
}
