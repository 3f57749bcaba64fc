//! How much a workload's port takes on: the limits of all Services that select it there.

use std::sync::Arc;

use crate::model::{CallMatch, Faults, Limit, Limits, RateLimit, ServiceRef};
use crate::registry::Registry;

use super::policy::{Call, Callee};

impl Registry {
    /// For each Service the policy that decides there, as its owner wishes: a caller's policy limits nobody. What comes through two Services from one
    /// policy is one limit.
    pub(super) fn limits<'s>(
        &self,
        services: impl Iterator<Item = (&'s ServiceRef, u16)>,
        own_port: u16,
    ) -> Limits {
        let mut limits = Limits::default();
        for (service, port) in services {
            let call = Call { caller: NOBODY, to: Callee::Service { service, port }, by: None };
            let rates = self.rate_limits(&call);
            for rate in rates.section().into_iter().flat_map(|rates| rates.iter()) {
                let rate = rate.of(service, self.limit_server());
                let known = |other: &RateLimit| other.limit.origin == rate.limit.origin;
                if let Some(limit) = at(&rate.limit, own_port)
                    && !limits.rates.iter().any(known)
                {
                    limits.rates.push(RateLimit { limit, ..rate });
                }
            }
            // One cap for all that reaches the app: the first Service's that has one.
            limits.adaptive = limits.adaptive.or_else(|| self.adaptive(&call));
            let caps = self.concurrency(&call);
            for cap in caps.section().into_iter().flat_map(|caps| caps.iter()) {
                if let Some(limit) = at(cap, own_port)
                    && !limits.concurrency.iter().any(|other| other.origin == cap.origin)
                {
                    limits.concurrency.push(limit);
                }
            }
        }
        limits
    }

    /// The experiments made at a workload's port: for each Service the one that decides there, as its owner wishes.
    pub(super) fn inbound_faults<'s>(
        &self,
        services: impl Iterator<Item = (&'s ServiceRef, u16)>,
        own_port: u16,
    ) -> Vec<Arc<Faults>> {
        let mut found: Vec<Arc<Faults>> = Vec::new();
        for (service, port) in services {
            let call = Call { caller: NOBODY, to: Callee::Service { service, port }, by: None };
            if let Some(faults) = self.callees_faults(&call)
                && !found.iter().any(|other| other.origin == faults.origin)
                && let Some(faults) = faults.at_port(own_port)
            {
                found.push(Arc::new(faults));
            }
        }
        found
    }
}

/// No namespace has this name, so that no policy is a consumer's.
const NOBODY: &str = "";

/// What of a limit concerns one port; `None` where nothing does.
fn at<A: Clone>(limit: &Limit<A>, port: u16) -> Option<Limit<A>> {
    let matches: Vec<CallMatch> = limit.matches.iter().filter_map(|call| call.at(port)).collect();
    let concerns = limit.matches.is_empty() || !matches.is_empty();
    concerns.then(|| Limit { matches, ..limit.clone() })
}
