//! Which TrafficPolicy decides a section for one call, and why.

use std::sync::Arc;

use crate::model::{
    Adaptive, CircuitBreaker, FaultAt, Faults, Limit, Multiplex, Origin, Retry, RouteCaps, ServiceRef,
    Timeouts,
};
use crate::registry::{
    BackendTo, BalanceSection, PolicyLimit, PolicyTarget, Registry, Route, Rule, TimeoutSection,
    TrafficPolicy,
};

use super::attachment::{Reach, Side, Standing, Why};

/// The call a policy may concern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'c> {
    /// The namespace it is made from.
    pub caller: &'c str,
    pub to: Callee<'c>,
    /// The route and the rule that takes it; `None` where a Service has no routes.
    pub by: Option<(&'c Route, &'c Rule)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Callee<'c> {
    Service {
        service: &'c ServiceRef,
        port: u16,
    },
    /// Whatever the routes of a Gateway lead to.
    Gateway,
}

/// A policy that has something to say about a call.
#[derive(Clone, Debug)]
pub struct Candidate<S> {
    pub standing: Standing,
    pub section: S,
    /// The policy and the field that attaches it; for a rule's own fields the rule.
    pub origin: Origin,
}

/// What decides one section for a call.
#[derive(Clone, Debug)]
pub struct Decision<S> {
    /// `None`: nobody says anything, the defaults hold.
    pub winner: Option<Candidate<S>>,
    /// In order of standing, with the reason for which the winner goes before each.
    pub losers: Vec<(Candidate<S>, Why)>,
}

impl<S> Default for Decision<S> {
    fn default() -> Self {
        Self { winner: None, losers: Vec::new() }
    }
}

impl<S> Decision<S> {
    fn among(mut candidates: Vec<Candidate<S>>) -> Self {
        candidates.sort_by(|a, b| a.standing.cmp(&b.standing));
        let mut candidates = candidates.into_iter();
        let Some(winner) = candidates.next() else { return Self::default() };
        let losers = candidates.map(|loser| {
            let why = winner.standing.reason(&loser.standing);
            (loser, why)
        });
        Self { losers: losers.collect(), winner: Some(winner) }
    }

    /// The section that holds.
    pub fn section(&self) -> Option<&S> {
        self.winner.as_ref().map(|winner| &winner.section)
    }
}

impl Registry {
    pub(super) fn timeouts(&self, call: &Call<'_>) -> Decision<TimeoutSection> {
        let own = call
            .by
            .filter(|(_, rule)| rule.timeouts.request.is_some() || rule.timeouts.backend_request.is_some());
        let own = own.map(|(route, rule)| {
            let exchange = inline(rule, Timeouts::default());
            call.inline(route, rule, "timeouts", TimeoutSection { exchange, ..TimeoutSection::default() })
        });
        let attached = self.policies_about(call, "spec.timeout", |policy| policy.timeout);
        let mut decision = Decision::among(own.into_iter().chain(attached).collect());
        // A rule's own fields are no section of a policy: they override one field each, and leave the others to whom they would
        // have been decided by.
        if let (Some(winner), Some((_, rule))) = (&mut decision.winner, call.by)
            && winner.standing.reach == Reach::Inline
        {
            let rest = decision.losers.first().map(|(next, _)| next.section).unwrap_or_default();
            winner.section = TimeoutSection { exchange: inline(rule, rest.exchange), ..rest };
        }
        decision
    }

    pub(super) fn retries(&self, call: &Call<'_>) -> Decision<Arc<Retry>> {
        let own =
            call.by.and_then(|(route, rule)| Some(call.inline(route, rule, "retry", rule.retry.clone()?)));
        let attached = self.policies_about(call, "spec.retry", |policy| policy.retry.clone());
        Decision::among(own.into_iter().chain(attached).collect())
    }

    pub(super) fn circuit_breakers(&self, call: &Call<'_>) -> Decision<Arc<CircuitBreaker>> {
        let section = |policy: &TrafficPolicy| policy.circuit_breaker.clone();
        Decision::among(self.policies_about(call, "spec.circuitBreaker", section))
    }

    /// The caps of a route of its own; those that are decided for its Service are the cluster's.
    pub(super) fn route_caps(&self, call: &Call<'_>) -> Option<Arc<RouteCaps>> {
        let winner = self.circuit_breakers(call).winner?;
        if !matches!(winner.standing.reach, Reach::Rule | Reach::Route) {
            return None;
        }
        let CircuitBreaker { caps, origin, .. } = &*winner.section;
        let caps = RouteCaps {
            mode: caps.mode,
            pending: caps.pending,
            requests: caps.requests,
            retries: caps.retries,
            origin: origin.clone(),
        };
        let any = caps.pending.or(caps.requests).or(caps.retries);
        any.map(|_| Arc::new(caps))
    }

    /// Of the callee's own policies, whoever calls.
    pub(super) fn rate_limits(&self, call: &Call<'_>) -> Decision<Arc<[PolicyLimit]>> {
        Decision::among(self.policies_about(call, "spec.rateLimit", |policy| policy.rate_limit.clone()))
    }

    /// As [`Self::rate_limits`].
    pub(super) fn concurrency(&self, call: &Call<'_>) -> Decision<Arc<[Limit<u32>]>> {
        Decision::among(self.policies_about(call, "spec.concurrency", |policy| policy.concurrency.clone()))
    }

    /// As [`Self::rate_limits`].
    pub(super) fn adaptive(&self, call: &Call<'_>) -> Option<Adaptive> {
        let decided =
            Decision::among(self.policies_about(call, "spec.concurrency", |policy| policy.adaptive.clone()));
        decided.winner?.section
    }

    /// The experiment a caller's proxy makes; those of callees are none of its business. Where the section that decides is empty there is none.
    pub(super) fn callers_faults(&self, call: &Call<'_>) -> Option<Arc<Faults>> {
        self.faults(call, |at| at != FaultAt::Callee)
    }

    /// The one the callee's own proxy makes, whoever calls.
    pub(super) fn callees_faults(&self, call: &Call<'_>) -> Option<Arc<Faults>> {
        self.faults(call, |at| at == FaultAt::Callee)
    }

    fn faults(&self, call: &Call<'_>, there: impl Fn(FaultAt) -> bool) -> Option<Arc<Faults>> {
        // An empty section takes faults away wherever they are.
        let section = |policy: &TrafficPolicy| {
            policy.fault.clone().filter(|fault| there(fault.at) || fault.faults.is_empty())
        };
        let decision = Decision::among(self.policies_about(call, "spec.fault", section));
        decision.section().filter(|faults| !faults.faults.is_empty()).cloned()
    }

    /// Rules of routes have none of their own: they share the endpoints of the Services behind them.
    pub(super) fn balancing(&self, call: &Call<'_>) -> Decision<Arc<BalanceSection>> {
        let call = Call { by: None, ..*call };
        Decision::among(self.policies_about(&call, "spec.loadBalancing", |policy| policy.balance.clone()))
    }

    /// As [`Self::balancing`]: rules share the connections, too.
    pub(super) fn multiplexing(&self, call: &Call<'_>) -> Decision<Multiplex> {
        let call = Call { by: None, ..*call };
        Decision::among(self.policies_about(&call, "spec.connection", |policy| policy.multiplex))
    }

    /// The policies that have a `section` and are about this call.
    fn policies_about<S>(
        &self,
        call: &Call<'_>,
        field: &str,
        section: impl Fn(&TrafficPolicy) -> Option<S>,
    ) -> Vec<Candidate<S>> {
        let mut found = Vec::new();
        let mut consider = |attached: &[(Arc<TrafficPolicy>, usize)]| {
            for (policy, index) in attached {
                let Some(section) = section(policy) else { continue };
                let Some((side, reach)) = call.attachment(policy, &policy.targets[*index].to) else {
                    continue;
                };
                let standing = Standing { side, reach, seniority: policy.seniority.clone() };
                found.push(Candidate { standing, section, origin: policy.origin.at(field) });
            }
        };
        if let Some((route, _)) = call.by {
            consider(self.policies_for_route(route.kind, &route.namespace, &route.name));
        }
        if let Some((service, _)) = call.service() {
            consider(self.policies_for_service(&service));
            consider(self.policies_for_namespace(&service.namespace));
        }
        consider(self.policies_for_mesh());
        found
    }
}

impl Call<'_> {
    /// What the rule that takes the call says itself, in its field `field`.
    fn inline<S>(&self, route: &Route, rule: &Rule, field: &str, section: S) -> Candidate<S> {
        let side = self.side_of(&route.namespace);
        Candidate {
            standing: Standing { side, reach: Reach::Inline, seniority: route.seniority.clone() },
            section,
            origin: route.origin.at(&format!("{}.{field}", rule.field)),
        }
    }

    /// The Service that is called. Through a Gateway it is the one behind the rule, where there is only one: with several, no Service's
    /// policy could hold for the exchange as a whole.
    fn service(&self) -> Option<(ServiceRef, u16)> {
        match (self.to, self.by) {
            (Callee::Service { service, port }, _) => Some((service.clone(), port)),
            (Callee::Gateway, Some((_, rule))) => {
                let mut backends =
                    rule.backends.iter().filter(|backend| backend.weight > 0).map(|b| &b.to.to);
                let first = backends.next()?;
                match (first, backends.all(|other| other == first)) {
                    (BackendTo::Service { service, port }, true) => Some((service.clone(), *port)),
                    (BackendTo::Service { .. } | BackendTo::Unknown { .. }, _) => None,
                }
            }
            (Callee::Gateway, None) => None,
        }
    }

    /// Whose wish an object of this namespace is. A Gateway's routes are the caller's own.
    fn side_of(&self, namespace: &str) -> Side {
        match self.to {
            Callee::Service { service, .. } if *service.namespace == *namespace => Side::Producer,
            Callee::Service { .. } | Callee::Gateway => Side::Consumer,
        }
    }

    /// How a policy concerns this call through one of its targets; `None` where it does not.
    fn attachment(&self, policy: &TrafficPolicy, target: &PolicyTarget) -> Option<(Side, Reach)> {
        // A policy of another namespace than the Service's binds callers in its own alone.
        let towards = |service: &ServiceRef| {
            if service.namespace == policy.namespace {
                Some(Side::Producer)
            } else {
                (*policy.namespace == *self.caller).then_some(Side::Consumer)
            }
        };
        match target {
            PolicyTarget::Route { rule, .. } => {
                let (route, taken) = self.by?;
                let side = self.side_of(&route.namespace);
                match rule {
                    None => Some((side, Reach::Route)),
                    Some(rule) => (taken.name.as_ref() == Some(rule)).then_some((side, Reach::Rule)),
                }
            }
            PolicyTarget::Service { port, .. } => {
                let (service, called) = self.service()?;
                let side = towards(&service)?;
                match port {
                    None => Some((side, Reach::Service)),
                    Some(port) => (*port == called).then_some((side, Reach::ServicePort)),
                }
            }
            PolicyTarget::Namespace(_) => Some((towards(&self.service()?.0)?, Reach::Namespace)),
            // Whoever may speak for the whole mesh speaks to every caller.
            PolicyTarget::Mesh(_) => Some((Side::Producer, Reach::Mesh)),
        }
    }
}

/// A rule's own timeouts over those it would have without them.
fn inline(rule: &Rule, rest: Timeouts) -> Timeouts {
    let request = rule.timeouts.request.unwrap_or(rest.request);
    let backend_request = rule.timeouts.backend_request.unwrap_or(rest.backend_request);
    // One attempt is never given longer than the whole.
    let backend_request = match (backend_request, request) {
        (Some(attempt), Some(whole)) => Some(attempt.min(whole)),
        (attempt, _) => attempt,
    };
    Timeouts { request, backend_request, ..rest }
}
