//! Rules: who may do what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::decode::{member_error, quoted};
use crate::manifest::path::FieldPath;
use crate::manifest::route::{ValueMatch, ValueMatchType, value_match};
use crate::manifest::value::{
    AccountName, Cidr, GrpcMethodName, GrpcServiceName, HeaderName, HeaderValue, HttpMethod, IdentityGlob,
    Label, Name, Port, RequestPath, RuleHost, TrustDomain, is_field_value,
};
use crate::model::{AccessPath, PathTemplate};

/// Matches where one of `from` and one of `to` does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessRule {
    /// Stands in logs and metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Allow or Deny. Default Allow. What one rule denies no other allows.
    #[serde(default)]
    pub action: Action,
    /// Who calls; 1 to 64. Absent: everybody, also those that did not prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<FromMatch>>,
    /// What is called; 1 to 64. Absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ToMatch>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Action {
    #[default]
    Allow,
    Deny,
}

/// The peer of the connection. All fields must hold; of a list one item, of a `not` list none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FromMatch {
    /// NAME of the policy's namespace, or NAMESPACE/NAME.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<AccountName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<AccountName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Label>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<Label>,
    /// Service accounts and namespaces are those of these trust domains; where none is given, of the mesh's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust_domains: Vec<TrustDomain>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_trust_domains: Vec<TrustDomain>,
    /// SPIFFE ids; `*` stands for anything within a segment, `**` at the end for all further segments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<IdentityGlob>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_identities: Vec<IdentityGlob>,
    /// Where the connection comes from, as an address or a network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Cidr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_addresses: Vec<Cidr>,
}

/// What is called. All fields must hold; of a list one item, of a `not` list none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToMatch {
    /// Of the workload, as callers see them. The one field that is not about HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<Port>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<HttpMethod>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<HttpMethod>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<PathRule>,
    /// Of the request, without port; `*.example.com` for all below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<RuleHost>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<RuleHost>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc: Vec<GrpcCall>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_grpc: Vec<GrpcCall>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_headers: Vec<HeaderRule>,
}

/// Compared in canonical form: escapes decoded, dot segments resolved, slashes in a row made one, `;` parameters dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawPathRule", into = "RawPathRule")]
pub struct PathRule {
    kind: PathRuleType,
    value: String,
    compiled: AccessPath,
}

impl PathRule {
    pub fn compiled(&self) -> &AccessPath {
        &self.compiled
    }
}

/// `service`, `method` or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcCall {
    /// With its package: `chat.v1.Chat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<GrpcServiceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcMethodName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawHeaderRule", into = "RawHeaderRule")]
pub struct HeaderRule {
    pub name: HeaderName,
    /// `None`: it is there.
    pub value: Option<ValueMatch>,
}

impl Check for AccessRule {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(from) = &self.from {
            let at = at.key("from");
            findings.not_empty(&at, from.len());
            findings.at_most(&at, from.len(), 64);
            findings.each(&at, from);
        }
        if let Some(to) = &self.to {
            let at = at.key("to");
            findings.not_empty(&at, to.len());
            findings.at_most(&at, to.len(), 64);
            findings.each(&at, to);
        }
    }
}

/// Items a list of conditions may have.
const MOST: usize = 256;

impl Check for FromMatch {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        lists(
            at,
            findings,
            "caller",
            &[
                ("serviceAccounts", self.service_accounts.len()),
                ("notServiceAccounts", self.not_service_accounts.len()),
                ("namespaces", self.namespaces.len()),
                ("notNamespaces", self.not_namespaces.len()),
                ("trustDomains", self.trust_domains.len()),
                ("notTrustDomains", self.not_trust_domains.len()),
                ("identities", self.identities.len()),
                ("notIdentities", self.not_identities.len()),
                ("addresses", self.addresses.len()),
                ("notAddresses", self.not_addresses.len()),
            ],
        );
    }
}

impl ToMatch {
    /// Whether it asks for nothing but ports.
    pub fn is_ports_only(&self) -> bool {
        let ports = Self { ports: self.ports.clone(), not_ports: self.not_ports.clone(), ..Self::default() };
        *self == ports
    }
}

impl Check for ToMatch {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        lists(
            at,
            findings,
            "call",
            &[
                ("ports", self.ports.len()),
                ("notPorts", self.not_ports.len()),
                ("methods", self.methods.len()),
                ("notMethods", self.not_methods.len()),
                ("paths", self.paths.len()),
                ("notPaths", self.not_paths.len()),
                ("hosts", self.hosts.len()),
                ("notHosts", self.not_hosts.len()),
                ("grpc", self.grpc.len()),
                ("notGrpc", self.not_grpc.len()),
                ("headers", self.headers.len()),
                ("notHeaders", self.not_headers.len()),
            ],
        );
        for (name, calls) in [("grpc", &self.grpc), ("notGrpc", &self.not_grpc)] {
            for (i, _) in calls.iter().enumerate().filter(|(_, c)| c.service.is_none() && c.method.is_none())
            {
                findings.error(at.key(name).index(i), "one of these is required: service, method");
            }
        }
    }
}

/// An item without conditions would match everything, which is said by leaving the whole list out.
fn lists(at: &FieldPath, findings: &mut Findings, what: &str, lists: &[(&str, usize)]) {
    for (name, len) in lists {
        findings.at_most(&at.key(*name), *len, MOST);
    }
    if lists.iter().all(|(_, len)| *len == 0) {
        let text = format!("it has no condition; leave the list out to mean every {what}");
        findings.error(at.clone(), text);
    }
}

/// Exact: the whole path. PathPrefix: by whole segments. Template: `{name}` and `{*}` stand for one segment, `{**}` at the end for the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
enum PathRuleType {
    Exact,
    #[default]
    PathPrefix,
    Template,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AccessPath")]
struct RawPathRule {
    /// PathPrefix: by whole segments. Template: `{name}` and `{*}` stand for one segment, `{**}` at the end for the rest.
    #[serde(rename = "type", default)]
    kind: PathRuleType,
    #[schemars(length(max = 1024), regex(pattern = "^/"))]
    value: String,
}

impl TryFrom<RawPathRule> for PathRule {
    type Error = String;

    fn try_from(raw: RawPathRule) -> Result<PathRule, String> {
        let path = || RequestPath::try_from(&*raw.value).map_err(|error| error.to_string());
        let compiled = match raw.kind {
            PathRuleType::Exact => path().and_then(|path| AccessPath::exact(&path)),
            PathRuleType::PathPrefix => path().and_then(|path| AccessPath::prefix(&path)),
            PathRuleType::Template if raw.value.len() > 1024 => {
                Err("a template has at most 1024 characters".to_owned())
            }
            PathRuleType::Template => PathTemplate::new(&raw.value)
                .map(AccessPath::Template)
                .map_err(|why| format!("{} is not a path template: {why}", quoted(&raw.value))),
        };
        let compiled = compiled.map_err(|error| member_error("value", error))?;
        Ok(PathRule { kind: raw.kind, value: raw.value, compiled })
    }
}

impl From<PathRule> for RawPathRule {
    fn from(typed: PathRule) -> RawPathRule {
        RawPathRule { kind: typed.kind, value: typed.value }
    }
}

/// Exact: byte by byte. RegularExpression: as a whole. Present: whatever its value.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
enum HeaderRuleType {
    #[default]
    Exact,
    RegularExpression,
    Present,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AccessHeader")]
struct RawHeaderRule {
    /// RegularExpression: the whole value. Present: any value, and `value` is left out.
    #[serde(rename = "type", default)]
    kind: HeaderRuleType,
    name: HeaderName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    value: Option<String>,
}

impl TryFrom<RawHeaderRule> for HeaderRule {
    type Error = String;

    fn try_from(raw: RawHeaderRule) -> Result<HeaderRule, String> {
        let kind = match (raw.kind, &raw.value) {
            (HeaderRuleType::Present, None) => return Ok(HeaderRule { name: raw.name, value: None }),
            (HeaderRuleType::Present, Some(_)) => {
                return Err(member_error("value", "does not go with type Present"));
            }
            (HeaderRuleType::Exact, _) => ValueMatchType::Exact,
            (HeaderRuleType::RegularExpression, _) => ValueMatchType::RegularExpression,
        };
        let value = raw.value.ok_or_else(|| member_error("value", "is required, and missing"))?;
        if value.is_empty() || value.len() > 4096 || !is_field_value(&value) {
            let text = format!("{} is not {}", quoted(&value), HeaderValue::ACCEPTED);
            return Err(member_error("value", text));
        }
        Ok(HeaderRule { name: raw.name, value: Some(value_match(kind, value)?) })
    }
}

impl From<HeaderRule> for RawHeaderRule {
    fn from(typed: HeaderRule) -> RawHeaderRule {
        let (kind, value) = match typed.value.map(ValueMatch::into_raw) {
            None => (HeaderRuleType::Present, None),
            Some((ValueMatchType::Exact, value)) => (HeaderRuleType::Exact, Some(value)),
            Some((ValueMatchType::RegularExpression, value)) => {
                (HeaderRuleType::RegularExpression, Some(value))
            }
        };
        RawHeaderRule { kind, name: typed.name, value }
    }
}
