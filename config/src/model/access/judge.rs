//! The judgement: what a caller may do, by all policies of a port together.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, Method};

use super::path::{Ambiguity, canonical};
use super::{
    Access, AccessAction, AccessMode, AccessPolicy, AccessRule, Among, CallMatch, HeaderTest, PeerMatch,
};
use crate::model::{Origin, SpiffeId, StringMatch};

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Proven, or `None`.
    pub identity: Option<&'a SpiffeId>,
    pub address: IpAddr,
}

/// What of a request decides.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub method: &'a Method,
    /// As received, without query.
    pub path: &'a str,
    /// Without port.
    pub host: &'a str,
    /// `None` for a request that is judged again, whose headers are gone: conditions on them are taken to be as they were when it was let in.
    pub headers: Option<&'a HeaderMap>,
}

/// What becomes of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision<'a> {
    /// Why it is refused.
    pub refused: Option<Refusal<'a>>,
    /// Why it would be refused if every policy were enforced; only where it is not.
    pub audited: Option<Refusal<'a>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Refusal<'a> {
    /// By a rule that denies.
    Denied { policy: &'a AccessPolicy, rule: &'a AccessRule },
    /// There are rules that allow, and none of them does; `policy` is the first that has one.
    NotAllowed { policy: &'a AccessPolicy },
    /// No rule decides, and the default is to deny.
    ByDefault { origin: Option<&'a Origin> },
    /// The policy compares paths, and this one cannot be compared.
    Ambiguous { policy: &'a AccessPolicy, why: Ambiguity },
}

impl Access {
    /// Judges a request, or a connection that carries no HTTP (`None`). `self` is what concerns the port ([`Access::at`]).
    pub fn judge(&self, caller: Caller<'_>, call: Option<Call<'_>>) -> Decision<'_> {
        if self.policies.is_empty() {
            return Decision { refused: self.by_default(), audited: None };
        }
        let seen = match call {
            None => Seen::Bytes,
            Some(call) => Seen::Http(call, canonical(call.path)),
        };
        let refused = self.verdict(caller, &seen, |policy| policy.mode == AccessMode::Enforce);
        let audits = || self.policies.iter().any(|policy| policy.mode == AccessMode::Audit);
        let audited =
            if refused.is_none() && audits() { self.verdict(caller, &seen, |_| true) } else { None };
        Decision { refused, audited }
    }

    /// Whether there is any call that this caller may make.
    pub fn admits(&self, caller: Caller<'_>) -> bool {
        self.verdict(caller, &Seen::Nothing, |policy| policy.mode == AccessMode::Enforce).is_none()
    }

    fn by_default(&self) -> Option<Refusal<'_>> {
        let origin = self.default.origin.as_ref();
        (self.default.action == AccessAction::Deny).then_some(Refusal::ByDefault { origin })
    }

    fn verdict(
        &self,
        caller: Caller<'_>,
        seen: &Seen<'_>,
        counts: impl Fn(&AccessPolicy) -> bool,
    ) -> Option<Refusal<'_>> {
        let policies = || self.policies.iter().filter(|policy| counts(policy));
        if let Seen::Http(_, Err(why)) = seen
            && let Some(policy) =
                policies().find(|policy| policy.rules.iter().any(AccessRule::compares_paths))
        {
            return Some(Refusal::Ambiguous { policy, why: *why });
        }
        for policy in policies() {
            if let Some(rule) = policy.denies().find(|rule| rule.matches(caller, seen)) {
                return Some(Refusal::Denied { policy, rule });
            }
        }
        let mut first = None;
        for policy in policies() {
            for rule in policy.allows() {
                if rule.matches(caller, seen) {
                    return None;
                }
                first.get_or_insert(policy);
            }
        }
        first.map(|policy| Refusal::NotAllowed { policy }).or_else(|| self.by_default())
    }
}

/// What is known of a call.
enum Seen<'a> {
    /// Not yet anything: a connection that may still carry whatever it likes.
    Nothing,
    /// It carries no HTTP.
    Bytes,
    Http(Call<'a>, Result<Cow<'a, str>, Ambiguity>),
}

impl AccessRule {
    fn matches(&self, caller: Caller<'_>, seen: &Seen<'_>) -> bool {
        let from = || self.from.iter().any(|peer| peer.matches(caller, self.action));
        (self.from.is_empty() || from()) && self.concerns(seen)
    }

    fn concerns(&self, seen: &Seen<'_>) -> bool {
        match (seen, self.action) {
            // Some call may match it; and a rule that denies some calls leaves others.
            (Seen::Nothing, AccessAction::Allow) => true,
            (Seen::Nothing, AccessAction::Deny) => {
                self.to.is_empty() || self.to.iter().any(|call| !call.is_http())
            }
            // Where there is no request nothing of it can be verified; what is to be denied is, by what remains.
            (Seen::Bytes, AccessAction::Allow) => !self.is_http(),
            (Seen::Bytes, AccessAction::Deny) => true,
            (Seen::Http(call, path), action) => {
                let path = path.as_deref().ok();
                self.to.is_empty() || self.to.iter().any(|to| to.matches(call, path, action))
            }
        }
    }
}

impl PeerMatch {
    /// Whether it is certain that this caller is meant.
    pub(in crate::model) fn surely(&self, caller: Caller<'_>) -> bool {
        self.matches(caller, AccessAction::Allow)
    }

    fn matches(&self, caller: Caller<'_>, action: AccessAction) -> bool {
        let id = caller.identity;
        let domain = id.map(SpiffeId::trust_domain);
        let at_home = domain.is_some_and(|domain| self.home.iter().any(|home| **home == *domain));
        let account = id.filter(|_| at_home).and_then(SpiffeId::account);
        proven(&self.trust_domains, domain, action, |want, domain| **want == **domain)
            && proven(&self.namespaces, account, action, |want, (namespace, _)| **want == **namespace)
            && proven(&self.accounts, account, action, |want, (namespace, name)| {
                *want.namespace == **namespace && *want.name == **name
            })
            && proven(&self.identities, id, action, |want, id| want.matches(id))
            && self.addresses.holds(|net| net.contains(&caller.address))
    }
}

/// A condition on what may not be proven. Then no value is met; that it is none of those named is nothing to allow by, and enough to deny by.
fn proven<T, V>(
    among: &Among<T>,
    value: Option<V>,
    action: AccessAction,
    meets: impl Fn(&T, &V) -> bool,
) -> bool {
    match value {
        Some(value) => among.holds(|wanted| meets(wanted, &value)),
        None => among.is.is_empty() && (among.is_not.is_empty() || action == AccessAction::Deny),
    }
}

impl CallMatch {
    /// Whether it may be meant, by whoever reads it.
    pub(in crate::model) fn possibly(&self, call: &Call<'_>, path: &str) -> bool {
        self.matches(call, Some(path), AccessAction::Deny)
    }

    /// Whether it is certain that this is meant; `path` in canonical form, `None` where there is none.
    pub(in crate::model) fn surely(&self, call: &Call<'_>, path: Option<&str>) -> bool {
        (path.is_some() || !self.compares_paths()) && self.matches(call, path, AccessAction::Allow)
    }

    /// `path` in canonical form; an ambiguous one is refused before, wherever one is compared.
    fn matches(&self, call: &Call<'_>, path: Option<&str>, action: AccessAction) -> bool {
        let host = call.host.strip_suffix('.').unwrap_or(call.host);
        self.methods.holds(|method| **method == *call.method.as_str())
            && self.paths.holds(|wanted| path.is_some_and(|path| wanted.matches(path)))
            && self.calls.holds(|wanted| path.is_some_and(|path| wanted.matches(path)))
            && self.hosts.holds(|pattern| pattern.matches(host))
            && self.headers_hold(call.headers, action)
    }

    /// Of several lines of one name an app may take any, or all of them joined: a rule that allows wants to be sure, one that denies needs no more than
    /// a possibility.
    fn headers_hold(&self, headers: Option<&HeaderMap>, action: AccessAction) -> bool {
        if self.headers.is_empty() {
            return true;
        }
        let Some(headers) = headers else { return action == AccessAction::Allow };
        let Among { is, is_not } = &self.headers;
        let surely = |test: &HeaderTest| test.surely(headers);
        let possibly = |test: &HeaderTest| test.possibly(headers);
        match action {
            AccessAction::Allow => (is.is_empty() || is.iter().any(surely)) && !is_not.iter().any(possibly),
            AccessAction::Deny => (is.is_empty() || is.iter().any(possibly)) && !is_not.iter().any(surely),
        }
    }
}

impl HeaderTest {
    fn surely(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Present(name) => headers.contains_key(&**name),
            Self::Value(test) => test.matches(headers),
        }
    }

    fn possibly(&self, headers: &HeaderMap) -> bool {
        let Self::Value(test) = self else { return self.surely(headers) };
        let line = |value: &http::HeaderValue| match (value.to_str(), &test.value) {
            (Ok(text), wanted) => wanted.matches(text),
            (Err(_), StringMatch::Exact(wanted)) => value.as_bytes() == wanted.as_bytes(),
            // Not a text an expression could be compared with.
            (Err(_), StringMatch::Regex(_)) => true,
        };
        test.matches(headers) || headers.get_all(&test.name).iter().any(line)
    }
}
