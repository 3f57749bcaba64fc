//! A gateway's listeners and the route tables behind them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    Gateway, GatewayListener, GatewayPort, GatewayProtocol, HostPattern, RouteTable, RouteTableName,
    SecretName, TcpForward, TlsRoute, VirtualHost,
};
use crate::registry::{self, Listener, ListenerProtocol, Registry, Route, RouteKind};

use super::Subscriber;
use super::policy::{Call, Callee};

impl Registry {
    pub(super) fn gateway_listener(&self, namespace: &str, name: &str) -> Option<Gateway> {
        let gateway = self.gateway(namespace, name).filter(|gateway| gateway.is_ours())?;
        let mut ports: BTreeMap<u16, Vec<GatewayListener>> = BTreeMap::new();
        for (i, listener) in gateway.listeners.iter().enumerate() {
            if gateway.conflict(i).is_some() {
                continue;
            }
            let Some(protocol) = self.gateway_protocol(gateway, listener) else { continue };
            ports.entry(listener.port).or_default().push(GatewayListener {
                name: listener.name.clone(),
                hostname: listener.hostname.clone(),
                protocol,
                origin: gateway.origin.at(&listener.field),
            });
        }
        let ports = ports
            .into_iter()
            .map(|(port, mut listeners)| {
                // Stable: of equals the first in the object stays first.
                listeners.sort_by_key(|listener| Reverse(listener.hostname.specificity()));
                GatewayPort { port, listeners }
            })
            .collect();
        Some(Gateway {
            namespace: gateway.namespace.clone(),
            name: gateway.name.clone(),
            ports,
            settings: self.settings().clone(),
        })
    }

    /// `None` for a listener that would have to terminate TLS and has nothing to do it with.
    fn gateway_protocol(&self, gateway: &registry::Gateway, listener: &Listener) -> Option<GatewayProtocol> {
        let certificates = || {
            let found: Vec<_> = listener
                .certificates()
                .iter()
                .filter(|reference| self.certificate(gateway, reference).is_ok())
                .map(|reference| SecretName::new(format!("{}/{}", reference.namespace, reference.name)))
                .collect();
            (!found.is_empty()).then_some(found)
        };
        let routes = || table_name(gateway, listener);
        Some(match listener.protocol {
            ListenerProtocol::Http => GatewayProtocol::Http { routes: routes() },
            ListenerProtocol::Https(_) => {
                GatewayProtocol::Https { certificates: certificates()?, routes: routes() }
            }
            ListenerProtocol::Tcp => GatewayProtocol::Tcp { forward: self.tcp_forward(gateway, listener) },
            ListenerProtocol::TlsTerminate(_) => GatewayProtocol::TlsTerminate {
                certificates: certificates()?,
                forward: self.tcp_forward(gateway, listener),
            },
            ListenerProtocol::TlsPassthrough => {
                GatewayProtocol::TlsPassthrough { routes: self.tls_routes(gateway, listener) }
            }
        })
    }

    /// Nothing in the bytes could choose between two routes: the most senior has the listener.
    fn tcp_forward(&self, gateway: &registry::Gateway, listener: &Listener) -> TcpForward {
        match self.attached(gateway, listener).first() {
            Some(first) => self.forward_from(gateway, first.route),
            None => TcpForward::default(),
        }
    }

    /// Such routes have one rule that takes everything; the policies of the Service behind it hold.
    fn forward_from(&self, gateway: &registry::Gateway, route: &Route) -> TcpForward {
        let by = route.rules.first().map(|rule| (route, rule));
        let call = Call { caller: &gateway.namespace, to: Callee::Gateway, by };
        TcpForward {
            backends: self.weighted(route, false),
            idle: self.timeouts(&call).section().and_then(|section| section.exchange.stream_idle),
            faults: self.callers_faults(&call),
        }
    }

    fn tls_routes(&self, gateway: &registry::Gateway, listener: &Listener) -> Vec<TlsRoute> {
        let mut found: Vec<TlsRoute> = Vec::new();
        for attached in self.attached(gateway, listener) {
            for sni in attached.hosts {
                if found.iter().any(|earlier| earlier.sni == sni) {
                    continue;
                }
                found.push(TlsRoute {
                    sni,
                    forward: self.forward_from(gateway, attached.route),
                    origin: attached.route.origin.clone(),
                });
            }
        }
        found.sort_by_key(|route| Reverse(route.sni.specificity()));
        found
    }

    pub(super) fn gateway_route_table(&self, who: &Subscriber, name: &str) -> Option<RouteTable> {
        let Subscriber::Gateway { namespace, name: gateway } = who else { return None };
        let gateway = self.gateway(namespace, gateway).filter(|gateway| gateway.is_ours())?;
        let listener =
            gateway.listeners.iter().find(|listener| table_name(gateway, listener).as_str() == name)?;
        let http = matches!(listener.protocol, ListenerProtocol::Http | ListenerProtocol::Https(_));
        http.then(|| RouteTable {
            name: RouteTableName::new(name),
            hosts: self.virtual_hosts(who, &self.attached(gateway, listener)),
        })
    }

    /// For each host the rules of the routes that name it, then those of routes with less specific names that cover it: the
    /// API ranks rules by the name that matched and lets a request fall through to the next (`HTTPRouteSpec.hostnames`).
    fn virtual_hosts(&self, who: &Subscriber, attached: &[Attachment<'_>]) -> Vec<VirtualHost> {
        let mut by_host: BTreeMap<&HostPattern, Vec<&Arc<Route>>> = BTreeMap::new();
        for attachment in attached {
            for host in &attachment.hosts {
                by_host.entry(host).or_default().push(attachment.route);
            }
        }
        let mut groups: Vec<_> = by_host
            .into_iter()
            .map(|(host, routes)| {
                let mut ranked: Vec<_> =
                    routes.iter().flat_map(|route| self.ranked(who, route, Callee::Gateway)).collect();
                ranked.sort_by(|a, b| a.0.cmp(b.0));
                (host, ranked.into_iter().map(|(_, route)| route).collect::<Vec<_>>())
            })
            .collect();
        groups.sort_by_key(|(host, _)| Reverse(host.specificity()));
        groups
            .iter()
            .enumerate()
            .map(|(i, (host, _))| VirtualHost {
                domains: vec![(*host).clone()],
                routes: groups[i..]
                    .iter()
                    .filter(|(wider, _)| wider.intersection(host).as_ref() == Some(*host))
                    .flat_map(|(_, routes)| routes.iter().cloned())
                    .collect(),
            })
            .collect()
    }

    /// The routes a listener has taken in, the most senior first.
    pub(crate) fn attached<'r>(
        &'r self,
        gateway: &registry::Gateway,
        listener: &Listener,
    ) -> Vec<Attachment<'r>> {
        let id = (gateway.namespace.clone(), gateway.name.clone());
        let mut candidates: Vec<Attachment<'r>> = Vec::new();
        for (route, parent) in self.routes_to_gateway(&id) {
            if let Ok(hosts) = admit(gateway, listener, route, *parent) {
                candidates.push(Attachment { route, hosts });
            }
        }
        candidates
            .sort_by(|a, b| (&a.route.seniority, a.route.kind).cmp(&(&b.route.seniority, b.route.kind)));
        // Two parentRefs may mean the same listener.
        candidates.dedup_by(|a, b| Arc::ptr_eq(a.route, b.route));
        if !candidates.iter().any(|one| are_rivals(one.route.kind, candidates[0].route.kind)) {
            // Thousands of routes need not be compared with each other.
            return candidates;
        }
        let mut taken: Vec<Attachment<'r>> = Vec::new();
        for candidate in candidates {
            if rival(&taken, &candidate).is_none() {
                taken.push(candidate);
            }
        }
        taken
    }

    /// Whether a route of the other HTTP kind names this gateway, so that the two may be rivals.
    pub(crate) fn has_rivals(&self, gateway: &registry::Gateway, route: &Route) -> bool {
        let id = (gateway.namespace.clone(), gateway.name.clone());
        self.routes_to_gateway(&id).iter().any(|(other, _)| are_rivals(other.kind, route.kind))
    }
}

/// Whether routes of these kinds cannot share a host at a listener.
fn are_rivals(one: RouteKind, other: RouteKind) -> bool {
    let http = |kind| matches!(kind, RouteKind::Http | RouteKind::Grpc);
    http(one) && http(other) && one != other
}

/// A route as one listener sees it.
#[derive(Clone, Debug)]
pub(crate) struct Attachment<'r> {
    pub route: &'r Arc<Route>,
    /// The hosts it serves there: its own as far as they are the listener's.
    pub hosts: Vec<HostPattern>,
}

/// Why a listener does not take a route in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NotAdmitted {
    /// The parentRef means another listener.
    Elsewhere,
    Kind,
    Namespace,
    Hostname,
}

/// The hosts a route serves at a listener, or why none.
pub(crate) fn admit(
    gateway: &registry::Gateway,
    listener: &Listener,
    route: &Route,
    parent: usize,
) -> Result<Vec<HostPattern>, NotAdmitted> {
    let parent = &route.parents[parent];
    if parent.section.as_ref().is_some_and(|section| *section != listener.name)
        || parent.port.is_some_and(|port| port != listener.port)
    {
        return Err(NotAdmitted::Elsewhere);
    }
    if !listener.takes(route.kind) {
        return Err(NotAdmitted::Kind);
    }
    let admitted = match listener.namespaces {
        registry::From::All => true,
        registry::From::Same => route.namespace == gateway.namespace,
        registry::From::None => false,
    };
    if !admitted {
        return Err(NotAdmitted::Namespace);
    }
    if route.hostnames.is_empty() {
        return Ok(vec![listener.hostname.clone()]);
    }
    let mut hosts: Vec<_> =
        route.hostnames.iter().filter_map(|host| host.intersection(&listener.hostname)).collect();
    hosts.sort();
    hosts.dedup();
    if hosts.is_empty() { Err(NotAdmitted::Hostname) } else { Ok(hosts) }
}

/// An earlier route of the other HTTP kind that shares a host: only one of the two is taken (Gateway API `GRPCRoute`).
pub(crate) fn rival<'a, 'r>(
    taken: &'a [Attachment<'r>],
    candidate: &Attachment<'_>,
) -> Option<&'a Attachment<'r>> {
    taken.iter().find(|earlier| {
        are_rivals(earlier.route.kind, candidate.route.kind)
            && earlier.hosts.iter().any(|a| candidate.hosts.iter().any(|b| a.intersection(b).is_some()))
    })
}

fn table_name(gateway: &registry::Gateway, listener: &Listener) -> RouteTableName {
    RouteTableName::new(format!(
        "gateway|{}/{}|{}|{}",
        gateway.namespace, gateway.name, listener.port, listener.name
    ))
}
