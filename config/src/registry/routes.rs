//! Which routes decide for a port of a Service, as one caller sees it.

use std::sync::Arc;

use crate::model::Protocol;
use crate::resolve::attachment::Side;

use super::{Registry, Route, RouteKind, Service};

/// The routes in force: all of one kind and one side, the most senior first, never empty.
#[derive(Clone, Debug)]
pub struct Effective<'r> {
    pub kind: RouteKind,
    pub side: Side,
    pub routes: Vec<&'r Arc<Route>>,
}

impl Registry {
    /// Consumer routes of the caller's namespace hide the producer's as a whole, and of the kinds attached the first of [`RouteKind`]
    /// hides the others (GEP-1426, "Multiple routes for a Service" and "Route types").
    pub(crate) fn effective_routes<'r>(
        &'r self,
        service: &Service,
        port: u16,
        caller: &str,
    ) -> Option<Effective<'r>> {
        let attached = self.routes_by_service.get(&service.id)?;
        let on_port = || {
            attached
                .iter()
                .filter(|(route, parent)| route.attaches(*parent, service, port))
                .map(|(route, _)| route)
        };
        let own = |route: &&'r Arc<Route>| route.namespace == service.id.namespace;
        let of_caller = |route: &&'r Arc<Route>| !own(route) && *route.namespace == *caller;
        let (side, mut routes): (_, Vec<&Arc<Route>>) = match on_port().filter(of_caller).collect::<Vec<_>>()
        {
            consumer if consumer.is_empty() => (Side::Producer, on_port().filter(own).collect()),
            consumer => (Side::Consumer, consumer),
        };
        let kind = routes.iter().map(|route| route.kind).min()?;
        routes.retain(|route| route.kind == kind);
        routes.sort_by(|a, b| a.seniority.cmp(&b.seniority));
        // A route may name the Service and its port in two parentRefs.
        routes.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Some(Effective { kind, side, routes })
    }
}

impl Route {
    /// Whether one of its parentRefs, which names this Service, means this port and can do anything there.
    pub(super) fn attaches(&self, parent: usize, service: &Service, port: u16) -> bool {
        let parent = &self.parents[parent];
        let declared = service.port(port);
        let protocol = declared.map_or(Protocol::Detect, |declared| declared.protocol);
        parent.port.is_none_or(|wanted| wanted == port)
            && parent
                .section
                .as_ref()
                .is_none_or(|wanted| declared.is_some_and(|declared| declared.name.as_ref() == Some(wanted)))
            && self.kind.fits(protocol)
    }
}

impl RouteKind {
    /// Whether routes of this kind mean anything on a port that was declared to speak this.
    pub(super) fn fits(self, protocol: Protocol) -> bool {
        match self {
            Self::Grpc | Self::Http => {
                matches!(protocol, Protocol::Detect | Protocol::Http | Protocol::Http2)
            }
            Self::Tls => matches!(protocol, Protocol::Detect | Protocol::Tls),
            Self::Tcp => true,
        }
    }
}
