//! Which TrafficPolicy decides a section for one call, and why.

use std::sync::Arc;

use crate::model::{Origin, ServiceRef, Timeouts};
use crate::registry::{BackendTo, PolicyTarget, Registry, Route, Rule, TimeoutSection, TrafficPolicy};

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
pub struct Candidate {
    pub standing: Standing,
    pub section: TimeoutSection,
    /// The policy and the field that attaches it; for a rule's own timeouts the rule.
    pub origin: Origin,
}

/// What decides the timeouts of a call.
#[derive(Clone, Debug, Default)]
pub struct TimeoutDecision {
    pub section: TimeoutSection,
    /// `None`: nobody says anything, the defaults hold.
    pub winner: Option<Candidate>,
    /// In order of standing, with the reason for which the winner goes before each.
    pub losers: Vec<(Candidate, Why)>,
}

impl Registry {
    pub(super) fn timeouts(&self, call: &Call<'_>) -> TimeoutDecision {
        let mut candidates = self.timeout_candidates(call);
        candidates.sort_by(|a, b| a.standing.cmp(&b.standing));
        let mut candidates = candidates.into_iter();
        let Some(winner) = candidates.next() else { return TimeoutDecision::default() };
        let losers: Vec<_> = candidates
            .map(|loser| {
                let why = winner.standing.reason(&loser.standing);
                (loser, why)
            })
            .collect();
        // A rule's own fields are no section of a policy: they override one field each, and leave the others to whom they would
        // have been decided by.
        let section = match (call.by, losers.first()) {
            (Some((_, rule)), next) if winner.standing.reach == Reach::Inline => {
                let rest = next.map(|(next, _)| next.section).unwrap_or_default();
                TimeoutSection { exchange: inline(rule, rest.exchange), ..rest }
            }
            _ => winner.section,
        };
        TimeoutDecision { section, winner: Some(winner), losers }
    }

    fn timeout_candidates(&self, call: &Call<'_>) -> Vec<Candidate> {
        let mut found = Vec::new();
        if let Some((route, rule)) = call.by {
            if rule.timeouts.request.is_some() || rule.timeouts.backend_request.is_some() {
                found.push(Candidate {
                    standing: Standing {
                        side: call.side_of(&route.namespace),
                        reach: Reach::Inline,
                        seniority: route.seniority.clone(),
                    },
                    section: TimeoutSection {
                        exchange: inline(rule, Timeouts::default()),
                        ..TimeoutSection::default()
                    },
                    origin: route.origin.at(&format!("{}.timeouts", rule.field)),
                });
            }
            let attached = self.policies_for_route(route.kind, &route.namespace, &route.name);
            self.consider(call, attached, &mut found);
        }
        if let Some((service, _)) = call.service() {
            self.consider(call, self.policies_for_service(&service), &mut found);
            self.consider(call, self.policies_for_namespace(&service.namespace), &mut found);
        }
        self.consider(call, self.policies_for_mesh(), &mut found);
        found
    }

    fn consider(
        &self,
        call: &Call<'_>,
        attached: &[(Arc<TrafficPolicy>, usize)],
        found: &mut Vec<Candidate>,
    ) {
        for (policy, index) in attached {
            let Some(section) = policy.timeout else { continue };
            let target = &policy.targets[*index];
            let Some((side, reach)) = call.attachment(policy, &target.to) else { continue };
            found.push(Candidate {
                standing: Standing { side, reach, seniority: policy.seniority.clone() },
                section,
                origin: policy.origin.at("spec.timeout"),
            });
        }
    }
}

impl Call<'_> {
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
