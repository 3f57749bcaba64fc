//! Who may do what at one workload.
//!
//! Owns the rules and the one evaluation of them ([`judge`](Access::judge)), which the proxy enforces with. Every condition is compiled. What
//! cannot be verified never makes a rule that allows match: a caller without a proven identity meets no condition on identities, positive
//! or negative. A rule that denies errs on the other side: "not from namespace a" holds for a caller that proved nothing.

mod identity;
mod judge;
mod path;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{HeaderMatch, HostPattern, Origin};

pub use identity::IdentityPattern;
pub use judge::{Call, Caller, Decision, Refusal};
pub use path::{AccessPath, Ambiguity, PathTemplate, canonical};

/// The rules of one workload, all its ports together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Access {
    pub default: AccessDefault,
    /// Sorted by namespace and name.
    pub policies: Vec<AccessPolicy>,
}

/// What becomes of a call that no policy decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AccessDefault {
    /// Default Allow.
    pub action: AccessAction,
    /// The Mesh that says so; `None` for the default.
    pub origin: Option<Origin>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum AccessAction {
    #[default]
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum AccessMode {
    #[default]
    Enforce,
    /// What it would refuse is counted and logged, and goes on.
    Audit,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccessPolicy {
    pub mode: AccessMode,
    pub rules: Vec<AccessRule>,
    pub origin: Origin,
}

/// Matches where one of `from` and one of `to` do; an empty list is no condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccessRule {
    /// As it is named, or `spec.rules[0]`.
    pub name: Arc<str>,
    pub action: AccessAction,
    pub from: Vec<PeerMatch>,
    pub to: Vec<CallMatch>,
    pub origin: Origin,
}

/// Values of which one has to be met, where there are any, and values of which none may be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Among<T> {
    pub is: Vec<T>,
    pub is_not: Vec<T>,
}

/// Conditions on the peer of the connection; all of them must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PeerMatch {
    /// Those whose namespaces and service accounts are meant: the same name elsewhere is somebody else.
    pub home: Vec<Arc<str>>,
    pub trust_domains: Among<Arc<str>>,
    pub namespaces: Among<Arc<str>>,
    pub accounts: Among<AccountRef>,
    pub identities: Among<IdentityPattern>,
    pub addresses: Among<IpNet>,
}

/// A service account of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AccountRef {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// Conditions on what is called; all of them must hold. But for `ports` they are about HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CallMatch {
    /// Of the workload, as callers see it.
    pub ports: Among<u16>,
    pub methods: Among<Arc<str>>,
    pub paths: Among<AccessPath>,
    /// gRPC calls, by the paths they have.
    pub calls: Among<AccessPath>,
    pub hosts: Among<HostPattern>,
    pub headers: Among<HeaderTest>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum HeaderTest {
    /// It is there, whatever its value. In lower case.
    Present(Arc<str>),
    Value(HeaderMatch),
}

impl<T> Default for Among<T> {
    fn default() -> Self {
        Self { is: Vec::new(), is_not: Vec::new() }
    }
}

impl<T> Among<T> {
    pub fn is_empty(&self) -> bool {
        self.is.is_empty() && self.is_not.is_empty()
    }

    /// Of something that is known.
    fn holds(&self, meets: impl Fn(&T) -> bool) -> bool {
        (self.is.is_empty() || self.is.iter().any(&meets)) && !self.is_not.iter().any(&meets)
    }
}

impl CallMatch {
    /// What of it concerns one port; `None` where nothing does.
    pub fn at(&self, port: u16) -> Option<Self> {
        let there = self.ports.holds(|named| *named == port);
        there.then(|| Self { ports: Among::default(), ..self.clone() })
    }

    /// Whether it asks for anything that only HTTP has.
    pub fn is_http(&self) -> bool {
        let Self { ports: _, methods, paths, calls, hosts, headers } = self;
        !(methods.is_empty()
            && paths.is_empty()
            && calls.is_empty()
            && hosts.is_empty()
            && headers.is_empty())
    }

    pub(in crate::model) fn compares_paths(&self) -> bool {
        !(self.paths.is_empty() && self.calls.is_empty())
    }
}

impl AccessRule {
    pub fn is_http(&self) -> bool {
        self.to.iter().any(CallMatch::is_http)
    }

    fn compares_paths(&self) -> bool {
        self.to.iter().any(CallMatch::compares_paths)
    }
}

impl AccessPolicy {
    pub fn allows(&self) -> impl Iterator<Item = &AccessRule> {
        self.rules.iter().filter(|rule| rule.action == AccessAction::Allow)
    }

    pub fn denies(&self) -> impl Iterator<Item = &AccessRule> {
        self.rules.iter().filter(|rule| rule.action == AccessAction::Deny)
    }
}

impl Access {
    /// What of it concerns one port. Rules that name other ports are gone, policies without a rule for the port, too: those do not select it.
    pub fn at(&self, port: u16) -> Self {
        let rule = |rule: &AccessRule| {
            let to: Vec<_> = rule.to.iter().filter_map(|call| call.at(port)).collect();
            (!to.is_empty() || rule.to.is_empty()).then(|| AccessRule { to, ..rule.clone() })
        };
        let policy = |policy: &AccessPolicy| {
            let rules: Vec<_> = policy.rules.iter().filter_map(rule).collect();
            (!rules.is_empty()).then(|| AccessPolicy { rules, ..policy.clone() })
        };
        Self { default: self.default.clone(), policies: self.policies.iter().filter_map(policy).collect() }
    }
}
