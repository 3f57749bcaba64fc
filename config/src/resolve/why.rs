//! Why a resolved resource says what it says: the decisions behind it, asked for afterwards.
//!
//! Makes no decision of its own: it repeats those of resolving and returns them with the candidates that lost.

use crate::model::Origin;
use crate::registry::{Registry, Route, Rule, TimeoutSection};

use super::Subscriber;
use super::destination::Found;
use super::policy::{Call, Callee, Decision};
use super::precedence::Reason;

impl Registry {
    /// What decides the timeouts of a route in a route table, by the route's origin; `None` where there is no such table or route.
    pub fn why_timeouts(
        &self,
        who: &Subscriber,
        table: &str,
        route: &Origin,
    ) -> Option<Decision<TimeoutSection>> {
        let by = self.rule_at(route);
        let caller = who.namespace();
        if table.starts_with("gateway|") {
            return Some(self.timeouts(&Call { caller, to: Callee::Gateway, by: Some(by?) }));
        }
        let (port, host) = table.strip_prefix("outbound|")?.split_once('|')?;
        match self.find_host(host, port.parse().ok()?)? {
            Found::Service { service, port, .. } => {
                let to = Callee::Service { service: &service.id, port };
                Some(self.timeouts(&Call { caller, to, by }))
            }
            // Policies are about calls to Services.
            Found::Instance { .. } => Some(Decision::default()),
        }
    }

    /// Why one match is looked at before another of the same table; `None` where one of them does not exist.
    pub fn why_before(&self, first: &Origin, second: &Origin) -> Option<Reason> {
        let rank = |origin: &Origin| {
            let (_, rule) = self.rule_at(origin)?;
            rule.matches.iter().find(|matched| matched.field == origin.field).map(|matched| &matched.rank)
        };
        Some(rank(first)?.reason(rank(second)?))
    }

    /// The rule that a field path is in.
    fn rule_at(&self, origin: &Origin) -> Option<(&Route, &Rule)> {
        let route = self.route(&origin.kind, &origin.namespace, &origin.name)?;
        let rule = route.rules.iter().find(|rule| {
            origin
                .field
                .strip_prefix(&*rule.field)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })?;
        Some((route, rule))
    }
}
