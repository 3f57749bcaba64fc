//! What HTTPRoute, GRPCRoute, TCPRoute and TLSRoute have in common: parents, backends, header rules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Pattern;

use super::check::{Check, Findings};
use super::decode::{inside, member_error, quoted};
use super::path::FieldPath;
use super::value::{HeaderName, HeaderValue, Label, Name, Percent, Port, Weight, is_field_value, pattern};

/// The API group of Gateway, HTTPRoute and their kin.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// What a route attaches to (Gateway API `ParentReference`): a Gateway, or a Service for traffic inside the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawParentRef", into = "RawParentRef")]
pub struct ParentRef {
    pub kind: ParentKind,
    /// Default: the route's own.
    pub namespace: Option<Label>,
    pub name: Name,
    /// A listener of the Gateway, or a port name of the Service.
    pub section_name: Option<Name>,
    /// A listener's or Service's port; absent means all of them.
    pub port: Option<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParentKind {
    Gateway,
    Service,
    /// Belongs to another implementation, as the API foresees; means nothing here.
    Other {
        group: String,
        kind: String,
    },
}

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

/// How a header or query value is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Exact(String),
    Regex(Pattern),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawHeaderMatch", into = "RawHeaderMatch")]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
}

/// Changes to the header fields of a message (Gateway API `HTTPHeaderFilter`). No name stands in two of the lists,
/// since the API leaves their order open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// Replaces all fields of the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HeaderField>,
    /// Adds a field beside those that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HeaderField>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderField {
    pub name: HeaderName,
    pub value: HeaderValue,
}

/// A copy of the request whose answer is thrown away (Gateway API `HTTPRequestMirrorFilter`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawMirror", into = "RawMirror")]
pub struct Mirror {
    pub backend: BackendRef,
    pub share: MirrorShare,
}

/// Of how many requests a copy is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MirrorShare {
    All,
    Percent(Percent),
    /// At most one; the denominator is at least 1.
    Fraction {
        numerator: u32,
        denominator: u32,
    },
}

impl MirrorShare {
    /// As numerator and denominator; the denominator is never 0 and the numerator never larger.
    pub fn as_fraction(self) -> (u32, u32) {
        match self {
            MirrorShare::All => (1, 1),
            MirrorShare::Percent(percent) => (u32::from(percent.get()), 100),
            MirrorShare::Fraction { numerator, denominator } => (numerator, denominator),
        }
    }
}

impl Check for HeaderModifier {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        for (list, len) in [("set", self.set.len()), ("add", self.add.len()), ("remove", self.remove.len())] {
            findings.at_most(&at.key(list), len, 16);
        }
        let mut seen: Vec<(&HeaderName, &str)> = Vec::new();
        let set = self.set.iter().enumerate().map(|(i, field)| (&field.name, "set", i));
        let add = self.add.iter().enumerate().map(|(i, field)| (&field.name, "add", i));
        let remove = self.remove.iter().enumerate().map(|(i, name)| (name, "remove", i));
        for (name, list, i) in set.chain(add).chain(remove) {
            match seen.iter().find(|(earlier, _)| *earlier == name) {
                Some((_, earlier)) => findings.error(
                    at.key(list).index(i),
                    format!("{name} is already in `{earlier}`; give each header once"),
                ),
                None => seen.push((name, list)),
            }
        }
    }
}

/// The parents of a route: at most 32. Where one is named more than once, each time by another listener or port.
pub(super) fn check_parents(at: &FieldPath, parents: &[ParentRef], findings: &mut Findings) {
    findings.at_most(at, parents.len(), 32);
    let same =
        |a: &ParentRef, b: &ParentRef| (&a.kind, &a.namespace, &a.name) == (&b.kind, &b.namespace, &b.name);
    for (i, parent) in parents.iter().enumerate() {
        let Some(first) = parents[..i].iter().position(|earlier| same(earlier, parent)) else { continue };
        let part = |p: &ParentRef| (p.section_name.clone(), p.port);
        let whole = |p: &ParentRef| p.section_name.is_none() && p.port.is_none();
        let repeated =
            parents[..i].iter().any(|earlier| same(earlier, parent) && part(earlier) == part(parent));
        if repeated || whole(parent) || whole(&parents[first]) {
            let text = format!(
                "{} {} is already the parent in item {first}; give each a sectionName or port of its own",
                parent.kind, parent.name
            );
            findings.error(at.index(i), text);
        }
    }
    for (i, parent) in parents.iter().enumerate() {
        if let ParentKind::Other { .. } = parent.kind {
            let text =
                format!("{} is not a kind this mesh attaches routes to: Gateway or Service", parent.kind);
            findings.warning(at.index(i), text);
        }
    }
}

/// The backends of a rule: at most 16.
pub(super) fn check_backends<'b>(
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

impl std::fmt::Display for ParentKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParentKind::Gateway => f.write_str("Gateway"),
            ParentKind::Service => f.write_str("Service"),
            ParentKind::Other { group, kind } if group.is_empty() => f.write_str(kind),
            ParentKind::Other { group, kind } => write!(f, "{kind}.{group}"),
        }
    }
}

/// Exact: byte by byte. RegularExpression: as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(super) enum ValueMatchType {
    #[default]
    Exact,
    RegularExpression,
}

pub(super) fn value_match(kind: ValueMatchType, value: String) -> Result<ValueMatch, String> {
    match kind {
        ValueMatchType::Exact => Ok(ValueMatch::Exact(value)),
        ValueMatchType::RegularExpression => {
            pattern(&value).map(ValueMatch::Regex).map_err(|error| member_error("value", error))
        }
    }
}

impl ValueMatch {
    pub(super) fn into_raw(self) -> (ValueMatchType, String) {
        match self {
            ValueMatch::Exact(value) => (ValueMatchType::Exact, value),
            ValueMatch::Regex(pattern) => (ValueMatchType::RegularExpression, pattern.as_str().to_owned()),
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HeaderMatch")]
struct RawHeaderMatch {
    #[serde(rename = "type", default)]
    kind: ValueMatchType,
    name: HeaderName,
    #[schemars(length(min = 1, max = 4096))]
    value: String,
}

impl TryFrom<RawHeaderMatch> for HeaderMatch {
    type Error = String;

    fn try_from(raw: RawHeaderMatch) -> Result<HeaderMatch, String> {
        if raw.value.is_empty() || raw.value.len() > 4096 || !is_field_value(&raw.value) {
            let text = format!("{} is not {}", quoted(&raw.value), HeaderValue::ACCEPTED);
            return Err(member_error("value", text));
        }
        Ok(HeaderMatch { name: raw.name, value: value_match(raw.kind, raw.value)? })
    }
}

impl From<HeaderMatch> for RawHeaderMatch {
    fn from(typed: HeaderMatch) -> RawHeaderMatch {
        let (kind, value) = typed.value.into_raw();
        RawHeaderMatch { kind, name: typed.name, value }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ParentRef")]
struct RawParentRef {
    /// Default `gateway.networking.k8s.io`; the empty text for a Service.
    #[serde(default = "gateway_group")]
    group: String,
    /// Gateway (the default) or Service.
    #[serde(default = "gateway_kind")]
    kind: String,
    /// Default: the route's own. With a Service of another namespace the route binds callers in its own namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Label>,
    name: Name,
    /// A listener of the Gateway, or a port name of the Service. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    section_name: Option<Name>,
    /// A port of the Gateway's listeners, or of the Service. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<Port>,
}

fn gateway_group() -> String {
    GATEWAY_GROUP.to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

impl TryFrom<RawParentRef> for ParentRef {
    type Error = String;

    fn try_from(raw: RawParentRef) -> Result<ParentRef, String> {
        let RawParentRef { group, kind, namespace, name, section_name, port } = raw;
        let kind = match (group.as_str(), kind.as_str()) {
            (GATEWAY_GROUP, "Gateway") => ParentKind::Gateway,
            ("", "Service") => ParentKind::Service,
            (GATEWAY_GROUP, "Service") => {
                return Err(member_error("group", "a Service is of the core group; write `group: \"\"`"));
            }
            _ => ParentKind::Other { group, kind },
        };
        Ok(ParentRef { kind, namespace, name, section_name, port })
    }
}

impl From<ParentRef> for RawParentRef {
    fn from(typed: ParentRef) -> RawParentRef {
        let (group, kind) = match typed.kind {
            ParentKind::Gateway => (gateway_group(), gateway_kind()),
            ParentKind::Service => (String::new(), "Service".to_owned()),
            ParentKind::Other { group, kind } => (group, kind),
        };
        RawParentRef {
            group,
            kind,
            namespace: typed.namespace,
            name: typed.name,
            section_name: typed.section_name,
            port: typed.port,
        }
    }
}

/// A reference to a backend without a weight (Gateway API `BackendObjectReference`).
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackendObjectRef")]
struct RawReference {
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
    fn typed(self, weight: Weight) -> Result<BackendRef, String> {
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

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Mirror")]
struct RawMirror {
    backend_ref: RawReference,
    /// Of the requests; default 100. Excludes `fraction`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<Percent>,
    /// Excludes `percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fraction: Option<RawFraction>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Fraction")]
struct RawFraction {
    numerator: u32,
    /// Default 100.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1))]
    denominator: u32,
}

fn hundred() -> u32 {
    100
}

impl TryFrom<RawMirror> for Mirror {
    type Error = String;

    fn try_from(raw: RawMirror) -> Result<Mirror, String> {
        let share = match (raw.percent, raw.fraction) {
            (None, None) => MirrorShare::All,
            (Some(percent), None) => MirrorShare::Percent(percent),
            (None, Some(RawFraction { denominator: 0, .. })) => {
                return Err(member_error("fraction.denominator", "0 is not a denominator (1 or more)"));
            }
            (None, Some(RawFraction { numerator, denominator })) if numerator > denominator => {
                let text = format!("{numerator} is more than the denominator, {denominator}");
                return Err(member_error("fraction.numerator", text));
            }
            (None, Some(RawFraction { numerator, denominator })) => {
                MirrorShare::Fraction { numerator, denominator }
            }
            (Some(_), Some(_)) => {
                return Err(member_error("fraction", "cannot be set together with `percent`"));
            }
        };
        let backend =
            raw.backend_ref.typed(Weight::default()).map_err(|error| inside("backendRef", &error))?;
        Ok(Mirror { backend, share })
    }
}

impl From<Mirror> for RawMirror {
    fn from(typed: Mirror) -> RawMirror {
        let (percent, fraction) = match typed.share {
            MirrorShare::All => (None, None),
            MirrorShare::Percent(percent) => (Some(percent), None),
            MirrorShare::Fraction { numerator, denominator } => {
                (None, Some(RawFraction { numerator, denominator }))
            }
        };
        RawMirror { backend_ref: typed.backend.into(), percent, fraction }
    }
}
