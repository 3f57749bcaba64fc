//! The rules of the workload's ports, compiled, and what is counted and logged of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request};
use outrigger_config::model::access::{Call, Caller, Refusal};
use outrigger_config::model::{self, AccessMode, AccessPolicy, Mtls, MtlsMode};
use tokio::time::Instant;

use crate::body::Body;
use crate::exchange::Authority;
use crate::failure::{Failure, Reason};
use crate::identity::Peer;
use crate::telemetry::{Denials, Metrics, Worker};

/// All of the workload's, made when its configuration is published and shared by the workers.
#[derive(Debug)]
pub struct Ports {
    declared: BTreeMap<u16, Arc<Rules>>,
    model: Arc<model::Access>,
    mtls: Mtls,
    metrics: Arc<Metrics>,
}

impl Ports {
    pub fn new(inbound: &model::Inbound, metrics: &Arc<Metrics>) -> Self {
        let rules = |port: &model::InboundPort| {
            (port.port, Arc::new(Rules::new(inbound.access.at(port.port), port.mtls.clone(), metrics)))
        };
        Self {
            declared: inbound.ports.iter().map(rules).collect(),
            model: inbound.access.clone(),
            mtls: inbound.mtls.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Whether they say what this configuration says: then nothing has to be judged again.
    pub fn say(&self, inbound: &model::Inbound) -> bool {
        let same = |port: &model::InboundPort| {
            self.declared.get(&port.port).is_some_and(|rules| rules.mtls == port.mtls)
        };
        self.model == inbound.access
            && self.mtls == inbound.mtls
            && self.declared.len() == inbound.ports.len()
            && inbound.ports.iter().all(same)
    }

    pub fn at(&self, port: u16) -> Arc<Rules> {
        let undeclared = || Arc::new(Rules::new(self.model.at(port), self.mtls.clone(), &self.metrics));
        self.declared.get(&port).cloned().unwrap_or_else(undeclared)
    }
}

/// Those of one port.
#[derive(Debug)]
pub struct Rules {
    mtls: Mtls,
    access: model::Access,
    /// One of them asks for the host.
    hosts: bool,
    /// In the order of the policies.
    policies: Vec<Handles>,
    by_default: Handle,
}

/// Handles of one policy.
#[derive(Debug)]
struct Handles {
    /// In the order of its rules.
    rules: Vec<Handle>,
    none: Handle,
    ambiguous: Handle,
}

/// One reason to refuse.
#[derive(Debug)]
struct Handle {
    denials: Arc<Denials>,
    said: Said,
}

/// When something was last logged, so that nobody fills a log by being refused.
#[derive(Debug)]
struct Said {
    born: Instant,
    /// Milliseconds since `born` from which on it may be said again.
    next: AtomicU64,
    unsaid: AtomicU64,
}

/// Between two lines about the same rule.
const QUIET: Duration = Duration::from_secs(10);

impl Rules {
    /// `access` is that of the port.
    pub fn new(access: model::Access, mtls: Mtls, metrics: &Arc<Metrics>) -> Self {
        let handle = |policy: &str, rule: &str, mode: AccessMode| Handle {
            denials: metrics.denials(policy, rule, mode == AccessMode::Audit),
            said: Said { born: Instant::now(), next: AtomicU64::new(0), unsaid: AtomicU64::new(0) },
        };
        let handles = |policy: &AccessPolicy| {
            let name = name(policy);
            Handles {
                rules: policy.rules.iter().map(|rule| handle(&name, &rule.name, policy.mode)).collect(),
                none: handle(&name, "none", policy.mode),
                ambiguous: handle(&name, "ambiguous-path", policy.mode),
            }
        };
        Self {
            policies: access.policies.iter().map(handles).collect(),
            by_default: handle("Mesh", "default", AccessMode::Enforce),
            hosts: access
                .policies
                .iter()
                .flat_map(|policy| &policy.rules)
                .flat_map(|rule| &rule.to)
                .any(|call| !call.hosts.is_empty()),
            access,
            mtls,
        }
    }

    /// Judges a request. Lets it pass with the policy and rule that would refuse it if they were enforced.
    pub fn request(
        &self,
        worker: Worker,
        peer: &Peer,
        request: &Request<Body>,
    ) -> Result<Option<Arc<str>>, Failure> {
        let call = Call {
            method: request.method(),
            path: request.uri().path(),
            // Not looked for where nobody asks for it.
            host: if self.hosts { Authority::of(request).host() } else { "" },
            headers: Some(request.headers()),
        };
        self.judge(worker, peer, Some(call))
    }

    /// Judges a connection that carries bytes.
    pub fn bytes(&self, worker: Worker, peer: &Peer) -> Result<Option<Arc<str>>, Failure> {
        self.judge(worker, peer, None)
    }

    /// Judges a request that was let in by other rules.
    pub fn again(
        &self,
        worker: Worker,
        peer: &Peer,
        method: &Method,
        path: &str,
        host: &str,
    ) -> Result<(), Failure> {
        self.proven(peer)?;
        let decision = self.access.judge(caller(peer), Some(Call { method, path, host, headers: None }));
        match decision.refused {
            Some(refusal) => Err(self.refused(worker, peer, &refusal)),
            None => Ok(()),
        }
    }

    /// Whether a connection may stay open for requests.
    pub fn connection(&self, peer: &Peer) -> Result<(), Failure> {
        self.proven(peer)?;
        if self.access.admits(caller(peer)) {
            return Ok(());
        }
        Err(Failure::new(Reason::AccessDenied, format!("{} may do nothing here any more", Named(peer))))
    }

    pub fn may_carry(&self, peer: &Peer) -> bool {
        self.proven(peer).is_ok() && self.access.judge(caller(peer), None).refused.is_none()
    }

    fn judge(
        &self,
        worker: Worker,
        peer: &Peer,
        call: Option<Call<'_>>,
    ) -> Result<Option<Arc<str>>, Failure> {
        self.proven(peer)?;
        let decision = self.access.judge(caller(peer), call);
        if let Some(refusal) = &decision.refused {
            return Err(self.refused(worker, peer, refusal));
        }
        let Some(refusal) = &decision.audited else { return Ok(None) };
        let handle = self.handle(refusal);
        let why = described(peer, refusal);
        handle.denials.count(worker);
        handle.said.say(|more| tracing::info!(more, "audited, not refused: {why}"));
        Ok(Some(why.into()))
    }

    /// Where mTLS is a must nothing else is let in, however it came here.
    fn proven(&self, peer: &Peer) -> Result<(), Failure> {
        if self.mtls.mode != MtlsMode::Strict || peer.identity.is_some() {
            return Ok(());
        }
        let by = self.mtls.origin.as_ref().map(|origin| format!(" ({origin})")).unwrap_or_default();
        Err(Failure::new(Reason::MtlsRequired, format!("the port takes mTLS of the mesh only{by}")))
    }

    fn refused(&self, worker: Worker, peer: &Peer, refusal: &Refusal<'_>) -> Failure {
        let handle = self.handle(refusal);
        let why = described(peer, refusal);
        handle.denials.count(worker);
        handle.said.say(|more| tracing::info!(more, "refused: {why}"));
        let reason = match refusal {
            Refusal::Ambiguous { .. } => Reason::AmbiguousPath,
            Refusal::Denied { .. } | Refusal::NotAllowed { .. } | Refusal::ByDefault { .. } => {
                Reason::AccessDenied
            }
        };
        Failure::new(reason, why)
    }

    fn handle(&self, refusal: &Refusal<'_>) -> &Handle {
        // A refusal borrows from these very policies, so that it is found by where it is.
        let of = |policy: &AccessPolicy| {
            self.access.policies.iter().zip(&self.policies).find(|(own, _)| std::ptr::eq(*own, policy))
        };
        let found = match refusal {
            Refusal::ByDefault { .. } => None,
            Refusal::NotAllowed { policy } => of(policy).map(|(_, handles)| &handles.none),
            Refusal::Ambiguous { policy, .. } => of(policy).map(|(_, handles)| &handles.ambiguous),
            Refusal::Denied { policy, rule } => of(policy).and_then(|(own, handles)| {
                own.rules
                    .iter()
                    .zip(&handles.rules)
                    .find(|(own, _)| std::ptr::eq(*own, *rule))
                    .map(|(_, h)| h)
            }),
        };
        found.unwrap_or(&self.by_default)
    }
}

impl Said {
    /// `line` is told how many went by in silence since the last one.
    fn say(&self, line: impl FnOnce(u64)) {
        let now = self.born.elapsed().as_millis() as u64;
        let next = self.next.load(Ordering::Relaxed);
        let due = now >= next
            && self
                .next
                .compare_exchange(next, now + QUIET.as_millis() as u64, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if due {
            line(self.unsaid.swap(0, Ordering::Relaxed));
        } else {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn caller(peer: &Peer) -> Caller<'_> {
    Caller { identity: peer.identity.as_ref(), address: peer.address.ip().to_canonical() }
}

/// `NAMESPACE/NAME`
fn name(policy: &AccessPolicy) -> String {
    format!("{}/{}", policy.origin.namespace, policy.origin.name)
}

/// For operators: never sent to a caller.
fn described(peer: &Peer, refusal: &Refusal<'_>) -> String {
    let mut text = Named(peer).to_string();
    let _ = match refusal {
        Refusal::Denied { rule, .. } if rule.origin.field == rule.name => {
            write!(text, " is denied by {}", rule.origin)
        }
        Refusal::Denied { rule, .. } => write!(text, " is denied by {} ({})", rule.origin, rule.name),
        Refusal::NotAllowed { policy } => write!(text, " is allowed by no rule of {}", policy.origin),
        Refusal::ByDefault { origin: Some(origin) } => {
            write!(text, " is allowed by no rule, and the default is Deny ({origin})")
        }
        Refusal::ByDefault { origin: None } => write!(text, " is allowed by no rule"),
        Refusal::Ambiguous { policy, why } => {
            write!(text, " asks for a path that {} cannot compare: {why}", policy.origin)
        }
    };
    text
}

/// A peer as operators read it.
struct Named<'a>(&'a Peer);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.identity {
            Some(identity) => write!(f, "{identity} ({})", self.0.address),
            None => write!(f, "{}, of no proven identity,", self.0.address),
        }
    }
}
