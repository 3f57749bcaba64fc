//! Access rules as our own messages. Envoy's RBAC filter can say most of a rule and neither what an ambiguous path is nor what holds for a caller that
//! proved nothing, so none of it is given to it.

use prost::{Enumeration, Message};

use super::at::{At, Unsupported};
use super::own::Origin;
use crate::model::{
    self, AccessPath, AccountRef, Among, HeaderTest, HostPattern, IdentityPattern, PathTemplate, Pattern,
    StringMatch,
};

#[derive(Clone, PartialEq, Message)]
pub struct Access {
    #[prost(enumeration = "Action", tag = "1")]
    pub default: i32,
    #[prost(message, optional, tag = "2")]
    pub default_origin: Option<Origin>,
    #[prost(message, repeated, tag = "3")]
    pub policies: Vec<Policy>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Policy {
    #[prost(enumeration = "Mode", tag = "1")]
    pub mode: i32,
    #[prost(message, repeated, tag = "2")]
    pub rules: Vec<Rule>,
    #[prost(message, optional, tag = "3")]
    pub origin: Option<Origin>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Rule {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(enumeration = "Action", tag = "2")]
    pub action: i32,
    #[prost(message, repeated, tag = "3")]
    pub from: Vec<PeerMatch>,
    #[prost(message, repeated, tag = "4")]
    pub to: Vec<CallMatch>,
    #[prost(message, optional, tag = "5")]
    pub origin: Option<Origin>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PeerMatch {
    #[prost(string, repeated, tag = "1")]
    pub home: Vec<String>,
    #[prost(message, optional, tag = "2")]
    pub trust_domains: Option<Texts>,
    #[prost(message, optional, tag = "3")]
    pub namespaces: Option<Texts>,
    /// `NAMESPACE/NAME`
    #[prost(message, optional, tag = "4")]
    pub accounts: Option<Texts>,
    #[prost(message, optional, tag = "5")]
    pub identities: Option<Texts>,
    /// `ADDRESS/BITS`
    #[prost(message, optional, tag = "6")]
    pub addresses: Option<Texts>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CallMatch {
    /// Decimal.
    #[prost(message, optional, tag = "1")]
    pub ports: Option<Texts>,
    #[prost(message, optional, tag = "2")]
    pub methods: Option<Texts>,
    #[prost(message, optional, tag = "3")]
    pub paths: Option<Paths>,
    #[prost(message, optional, tag = "4")]
    pub calls: Option<Paths>,
    #[prost(message, optional, tag = "5")]
    pub hosts: Option<Texts>,
    #[prost(message, optional, tag = "6")]
    pub headers: Option<Headers>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub is: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub is_not: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Paths {
    #[prost(message, repeated, tag = "1")]
    pub is: Vec<Path>,
    #[prost(message, repeated, tag = "2")]
    pub is_not: Vec<Path>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Path {
    #[prost(enumeration = "PathKind", tag = "1")]
    pub kind: i32,
    /// In canonical form, or a template's source.
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Headers {
    #[prost(message, repeated, tag = "1")]
    pub is: Vec<Header>,
    #[prost(message, repeated, tag = "2")]
    pub is_not: Vec<Header>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(enumeration = "HeaderKind", tag = "2")]
    pub kind: i32,
    #[prost(string, tag = "3")]
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Action {
    Allow = 0,
    Deny = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Mode {
    Enforce = 0,
    Audit = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum PathKind {
    Exact = 0,
    Prefix = 1,
    Template = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum HeaderKind {
    Exact = 0,
    Regex = 1,
    Present = 2,
}

pub(super) fn encode(access: &model::Access) -> Access {
    Access {
        default: action(access.default.action),
        default_origin: access.default.origin.as_ref().map(Into::into),
        policies: access.policies.iter().map(policy).collect(),
    }
}

fn action(action: model::AccessAction) -> i32 {
    match action {
        model::AccessAction::Allow => Action::Allow as i32,
        model::AccessAction::Deny => Action::Deny as i32,
    }
}

fn policy(policy: &model::AccessPolicy) -> Policy {
    let rule = |rule: &model::AccessRule| Rule {
        name: rule.name.to_string(),
        action: action(rule.action),
        from: rule.from.iter().map(peer).collect(),
        to: rule.to.iter().map(call).collect(),
        origin: Some((&rule.origin).into()),
    };
    Policy {
        mode: match policy.mode {
            model::AccessMode::Enforce => Mode::Enforce as i32,
            model::AccessMode::Audit => Mode::Audit as i32,
        },
        rules: policy.rules.iter().map(rule).collect(),
        origin: Some((&policy.origin).into()),
    }
}

pub(super) fn peer(peer: &model::PeerMatch) -> PeerMatch {
    PeerMatch {
        home: peer.home.iter().map(ToString::to_string).collect(),
        trust_domains: texts(&peer.trust_domains, ToString::to_string),
        namespaces: texts(&peer.namespaces, ToString::to_string),
        accounts: texts(&peer.accounts, |account| format!("{}/{}", account.namespace, account.name)),
        identities: texts(&peer.identities, ToString::to_string),
        addresses: texts(&peer.addresses, ToString::to_string),
    }
}

pub(super) fn call(call: &model::CallMatch) -> CallMatch {
    CallMatch {
        ports: texts(&call.ports, ToString::to_string),
        methods: texts(&call.methods, ToString::to_string),
        paths: paths(&call.paths),
        calls: paths(&call.calls),
        hosts: texts(&call.hosts, ToString::to_string),
        headers: (!call.headers.is_empty()).then(|| Headers {
            is: call.headers.is.iter().map(header).collect(),
            is_not: call.headers.is_not.iter().map(header).collect(),
        }),
    }
}

fn texts<T>(among: &Among<T>, text: impl Fn(&T) -> String) -> Option<Texts> {
    (!among.is_empty()).then(|| Texts {
        is: among.is.iter().map(&text).collect(),
        is_not: among.is_not.iter().map(&text).collect(),
    })
}

fn paths(among: &Among<AccessPath>) -> Option<Paths> {
    let path = |path: &AccessPath| {
        let (kind, value) = match path {
            AccessPath::Exact(path) => (PathKind::Exact, &**path),
            AccessPath::Prefix(path) => (PathKind::Prefix, &**path),
            AccessPath::Template(template) => (PathKind::Template, template.as_str()),
        };
        Path { kind: kind as i32, value: value.to_owned() }
    };
    (!among.is_empty()).then(|| Paths {
        is: among.is.iter().map(path).collect(),
        is_not: among.is_not.iter().map(path).collect(),
    })
}

fn header(test: &HeaderTest) -> Header {
    let (name, kind, value) = match test {
        HeaderTest::Present(name) => (&**name, HeaderKind::Present, ""),
        HeaderTest::Value(test) => match &test.value {
            StringMatch::Exact(value) => (test.name.as_str(), HeaderKind::Exact, &**value),
            StringMatch::Regex(pattern) => (test.name.as_str(), HeaderKind::Regex, pattern.as_str()),
        },
    };
    Header { name: name.to_owned(), kind: kind as i32, value: value.to_owned() }
}

/// Absent: everything is allowed, as before there were rules.
pub(super) fn decode(own: Option<Access>, at: &At<'_>) -> Result<model::Access, Unsupported> {
    let Some(own) = own else { return Ok(model::Access::default()) };
    let policies = own.policies.into_iter().enumerate();
    Ok(model::Access {
        default: model::AccessDefault {
            action: decode_action(own.default, &at.field("default"))?,
            origin: own.default_origin.map(Into::into),
        },
        policies: policies
            .map(|(i, policy)| decode_policy(policy, &at.index("policies", i)))
            .collect::<Result<_, _>>()?,
    })
}

fn decode_action(value: i32, at: &At<'_>) -> Result<model::AccessAction, Unsupported> {
    match Action::try_from(value) {
        Ok(Action::Allow) => Ok(model::AccessAction::Allow),
        Ok(Action::Deny) => Ok(model::AccessAction::Deny),
        Err(_) => Err(at.unsupported()),
    }
}

fn decode_policy(policy: Policy, at: &At<'_>) -> Result<model::AccessPolicy, Unsupported> {
    let rules = policy.rules.into_iter().enumerate();
    Ok(model::AccessPolicy {
        mode: match Mode::try_from(policy.mode) {
            Ok(Mode::Enforce) => model::AccessMode::Enforce,
            Ok(Mode::Audit) => model::AccessMode::Audit,
            Err(_) => return Err(at.field("mode").unsupported()),
        },
        rules: rules.map(|(i, rule)| decode_rule(rule, &at.index("rules", i))).collect::<Result<_, _>>()?,
        origin: policy.origin.ok_or_else(|| at.field("origin").missing())?.into(),
    })
}

fn decode_rule(rule: Rule, at: &At<'_>) -> Result<model::AccessRule, Unsupported> {
    let (from, to) = (rule.from.into_iter().enumerate(), rule.to.into_iter().enumerate());
    Ok(model::AccessRule {
        name: rule.name.into(),
        action: decode_action(rule.action, &at.field("action"))?,
        from: from.map(|(i, peer)| decode_peer(peer, &at.index("from", i))).collect::<Result<_, _>>()?,
        to: to.map(|(i, call)| decode_call(call, &at.index("to", i))).collect::<Result<_, _>>()?,
        origin: rule.origin.ok_or_else(|| at.field("origin").missing())?.into(),
    })
}

pub(super) fn decode_peer(peer: PeerMatch, at: &At<'_>) -> Result<model::PeerMatch, Unsupported> {
    let shared = |text: &str| Ok(text.into());
    let account = |text: &str| {
        let (namespace, name) = text.split_once('/').ok_or("it is not NAMESPACE/NAME")?;
        Ok(AccountRef { namespace: namespace.into(), name: name.into() })
    };
    Ok(model::PeerMatch {
        home: peer.home.into_iter().map(Into::into).collect(),
        trust_domains: among(peer.trust_domains, &at.field("trust_domains"), shared)?,
        namespaces: among(peer.namespaces, &at.field("namespaces"), shared)?,
        accounts: among(peer.accounts, &at.field("accounts"), account)?,
        identities: among(peer.identities, &at.field("identities"), |text| text.parse::<IdentityPattern>())?,
        addresses: among(peer.addresses, &at.field("addresses"), |text| {
            text.parse().map_err(|_| "it is not ADDRESS/BITS".to_owned())
        })?,
    })
}

pub(super) fn decode_call(call: CallMatch, at: &At<'_>) -> Result<model::CallMatch, Unsupported> {
    Ok(model::CallMatch {
        ports: among(call.ports, &at.field("ports"), |text| {
            text.parse().map_err(|_| "it is not a port".to_owned())
        })?,
        methods: among(call.methods, &at.field("methods"), |text| Ok(text.into()))?,
        paths: decode_paths(call.paths, &at.field("paths"))?,
        calls: decode_paths(call.calls, &at.field("calls"))?,
        hosts: among(call.hosts, &at.field("hosts"), |text| {
            HostPattern::parse(text).ok_or_else(|| "it is not a host pattern".to_owned())
        })?,
        headers: decode_headers(call.headers, &at.field("headers"))?,
    })
}

fn among<T>(
    own: Option<Texts>,
    at: &At<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Among<T>, Unsupported> {
    let own = own.unwrap_or_default();
    let list = |field, texts: Vec<String>| {
        let read = |(i, text): (usize, String)| {
            read(&text).map_err(|why| at.index(field, i).refuse(format!("{text:?}: {why}")))
        };
        texts.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()
    };
    Ok(Among { is: list("is", own.is)?, is_not: list("is_not", own.is_not)? })
}

fn decode_paths(own: Option<Paths>, at: &At<'_>) -> Result<Among<AccessPath>, Unsupported> {
    let own = own.unwrap_or_default();
    let path = |path: Path, at: &At<'_>| {
        match PathKind::try_from(path.kind) {
            Ok(PathKind::Exact) => canonical(&path.value).map(|path| AccessPath::Exact(path.into())),
            Ok(PathKind::Prefix) => canonical(&path.value).map(|path| AccessPath::Prefix(path.into())),
            Ok(PathKind::Template) => PathTemplate::new(&path.value).map(AccessPath::Template),
            Err(_) => return Err(at.field("kind").unsupported()),
        }
        .map_err(|why| at.field("value").refuse(why))
    };
    let list = |field, paths: Vec<Path>| {
        let paths = paths.into_iter().enumerate();
        paths.map(|(i, own)| path(own, &at.index(field, i))).collect::<Result<Vec<_>, _>>()
    };
    Ok(Among { is: list("is", own.is)?, is_not: list("is_not", own.is_not)? })
}

/// Already canonical: decoded again it would be another.
fn canonical(path: &str) -> Result<&str, String> {
    if path.starts_with('/') { Ok(path) } else { Err(format!("{path:?} does not begin with a slash")) }
}

fn decode_headers(own: Option<Headers>, at: &At<'_>) -> Result<Among<HeaderTest>, Unsupported> {
    let own = own.unwrap_or_default();
    let header = |header: Header, at: &At<'_>| {
        let name = http::HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| at.field("name").refuse(format!("{:?} is not a header name", header.name)))?;
        let value = match HeaderKind::try_from(header.kind) {
            Ok(HeaderKind::Present) => return Ok(HeaderTest::Present(name.as_str().into())),
            Ok(HeaderKind::Exact) => StringMatch::Exact(header.value.into()),
            Ok(HeaderKind::Regex) => {
                StringMatch::Regex(Pattern::new(&header.value).map_err(|why| at.field("value").refuse(why))?)
            }
            Err(_) => return Err(at.field("kind").unsupported()),
        };
        Ok(HeaderTest::Value(model::HeaderMatch { name, value }))
    };
    let list = |field, headers: Vec<Header>| {
        let headers = headers.into_iter().enumerate();
        headers.map(|(i, own)| header(own, &at.index(field, i))).collect::<Result<Vec<_>, _>>()
    };
    Ok(Among { is: list("is", own.is)?, is_not: list("is_not", own.is_not)? })
}
