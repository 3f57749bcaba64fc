//! Routes: what they attach to, what they send to, and which of them hide others.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::ServiceRef;
use crate::registry::{BackendRef, Gateway, ParentTarget, Problem, Route, RouteKind, Service};
use crate::resolve::{Attachment, NotAdmitted, admit, rival};

use super::{Report, State, key_of};

pub(super) fn check(report: &mut Report<'_>) {
    let mut routes: Vec<_> = report.registry.routes.values().collect();
    routes.sort_by(|a, b| (a.kind, &a.namespace, &a.name).cmp(&(b.kind, &b.namespace, &b.name)));
    for route in &routes {
        let state = parents(report, route);
        report.state(&route.origin, state);
        backends(report, route);
    }
    unreachable_matches(report, &routes);
}

/// What became of one parentRef.
enum Attached {
    Yes,
    No(String),
    Behind { by: Arc<Route>, why: String },
}

fn parents(report: &mut Report<'_>, route: &Arc<Route>) -> State {
    if route.parents.is_empty() {
        let text = "has no parentRefs, so it is attached to nothing";
        report.warning(&route.origin, "spec", text);
        return State::Ignored(text.into());
    }
    let mut reasons = Vec::new();
    let mut behind = None;
    let mut attached = false;
    for (i, parent) in route.parents.iter().enumerate() {
        let became = match &parent.target {
            ParentTarget::Service(service) => to_service(report, route, i, service),
            ParentTarget::Gateway(namespace, name) => to_gateway(report, route, i, namespace, name),
            ParentTarget::Other => Attached::No("its parent belongs to another implementation".into()),
        };
        match became {
            Attached::Yes => attached = true,
            Attached::No(why) => reasons.push(why),
            Attached::Behind { by, why } => {
                report.warning(&route.origin, &parent.field, format!("{} goes before it: {why}", named(&by)));
                behind.get_or_insert((by, why));
            }
        }
    }
    match (attached, behind.and_then(|(by, why)| Some((key_of(&by.origin)?, why)))) {
        (true, _) => State::Accepted,
        (false, Some((by, why))) => State::Overridden { by, why },
        (false, None) => State::Ignored(reasons.join("; ")),
    }
}

fn to_service(report: &mut Report<'_>, route: &Arc<Route>, index: usize, id: &ServiceRef) -> Attached {
    let parent = &route.parents[index];
    let (origin, field) = (&route.origin, &parent.field);
    let wrong = |report: &mut Report<'_>, member: &str, text: String| {
        report.error(origin, &format!("{field}.{member}"), text.clone());
        Attached::No(text)
    };
    let Some(service) = report.registry.services.get(id).cloned() else {
        return wrong(report, "name", Problem::NoSuchService(id.clone()).to_string());
    };
    let meant = report.registry.meant_by(&service);
    if !Arc::ptr_eq(meant, &service) {
        let text = format!(
            "Service {}/{} is another name for {}/{} (ExternalName); routes belong to that one",
            id.namespace, id.name, meant.id.namespace, meant.id.name
        );
        return wrong(report, "name", text);
    }
    if let Some(port) = parent.port
        && service.port(port).is_none()
        && service.external().is_none()
    {
        return wrong(report, "port", Problem::no_such_port(&service, port).to_string());
    }
    if let Some(section) = &parent.section
        && !service.ports.iter().any(|port| port.name.as_ref() == Some(section))
    {
        return wrong(
            report,
            "sectionName",
            format!("Service {}/{} has no port named {section}", id.namespace, id.name),
        );
    }
    if !route.hostnames.is_empty() {
        report.warning(
            origin,
            "spec.hostnames",
            "have no effect on calls to a Service, whatever host they name",
        );
    }
    let ports: Vec<u16> = match service.external() {
        Some(_) => parent.port.into_iter().chain(service.ports.iter().map(|port| port.number)).collect(),
        None => service.ports.iter().map(|port| port.number).collect(),
    };
    let fitting: Vec<u16> = ports.into_iter().filter(|port| route.attaches(index, &service, *port)).collect();
    if fitting.is_empty() {
        let text = match parent.port {
            Some(port) => format!(
                "port {port} is declared to carry something else than a {} is for",
                route.kind.as_str()
            ),
            None => format!("no port of it is declared to carry what a {} is for", route.kind.as_str()),
        };
        report.warning(origin, field, text.clone());
        return Attached::No(text);
    }
    let mut hidden = None;
    for port in fitting {
        match before_on_port(report, route, &service, port) {
            None => return Attached::Yes,
            Some(behind) => {
                hidden.get_or_insert(behind);
            }
        }
    }
    hidden.unwrap_or(Attached::Yes)
}

/// The route that hides this one on a port of a Service for everyone it could be for.
fn before_on_port(report: &Report<'_>, route: &Arc<Route>, service: &Service, port: u16) -> Option<Attached> {
    // Callers of the route's own namespace see it if anyone does.
    let effective = report.registry.effective_routes(service, port, &route.namespace)?;
    let first = effective.routes.first()?;
    if effective.kind != route.kind {
        let why = format!("on one port {}s go before {}s", effective.kind.as_str(), route.kind.as_str());
        return Some(Attached::Behind { by: (*first).clone(), why });
    }
    let alone = matches!(route.kind, RouteKind::Tcp | RouteKind::Tls);
    if alone && !Arc::ptr_eq(first, route) {
        let why = format!("nothing could choose between two; {}", first.seniority.reason(&route.seniority));
        return Some(Attached::Behind { by: (*first).clone(), why });
    }
    None
}

fn to_gateway(
    report: &mut Report<'_>,
    route: &Arc<Route>,
    index: usize,
    namespace: &Arc<str>,
    name: &Arc<str>,
) -> Attached {
    let parent = &route.parents[index];
    let Some(gateway) = report.registry.gateways.get(&(namespace.clone(), name.clone())).cloned() else {
        let text = format!("Gateway {namespace}/{name} does not exist");
        report.error(&route.origin, &format!("{}.name", parent.field), text.clone());
        return Attached::No(text);
    };
    if !gateway.is_ours() {
        return Attached::No(format!(
            "Gateway {namespace}/{name} belongs to gateway class {}",
            gateway.class
        ));
    }
    let mut nearest: Option<(NotAdmitted, usize)> = None;
    let mut behind = None;
    for (i, listener) in gateway.listeners.iter().enumerate() {
        match admit(&gateway, listener, route, index) {
            Err(why) => nearest = nearest.max(Some((why, i))),
            Ok(hosts) => match before_at_listener(report, &gateway, i, Attachment { route, hosts }) {
                None => return Attached::Yes,
                Some(first) => behind = behind.or(Some(first)),
            },
        }
    }
    if let Some(behind) = behind {
        return behind;
    }
    let (why, listener) = nearest.unwrap_or((NotAdmitted::Elsewhere, 0));
    let listener = gateway.listeners.get(listener).map_or("", |listener| &*listener.name);
    let (member, text) = match why {
        NotAdmitted::Elsewhere => match (&parent.section, parent.port) {
            (Some(section), None) => {
                (".sectionName", format!("Gateway {namespace}/{name} has no listener named {section}"))
            }
            (None, Some(port)) => {
                (".port", format!("Gateway {namespace}/{name} has no listener on port {port}"))
            }
            _ => ("", format!("Gateway {namespace}/{name} has no such listener on such a port")),
        },
        NotAdmitted::Kind => (
            "",
            format!("listener {listener} of Gateway {namespace}/{name} takes no {}", route.kind.as_str()),
        ),
        NotAdmitted::Namespace => (
            "",
            format!(
                "listener {listener} of Gateway {namespace}/{name} takes no routes of namespace {} (its allowedRoutes)",
                route.namespace
            ),
        ),
        NotAdmitted::Hostname => (
            "",
            format!(
                "its hostnames have nothing in common with listener {listener} of Gateway {namespace}/{name}"
            ),
        ),
    };
    report.error(&route.origin, &format!("{}{member}", parent.field), text.clone());
    Attached::No(text)
}

/// The route that has a listener, or a host at it, instead of this one.
fn before_at_listener(
    report: &Report<'_>,
    gateway: &Gateway,
    listener: usize,
    candidate: Attachment<'_>,
) -> Option<Attached> {
    let listener = &gateway.listeners[listener];
    let route = candidate.route;
    if !listener.is_for_one_route() && !report.registry.has_rivals(gateway, route) {
        return None;
    }
    let attached = report.registry.attached(gateway, listener);
    if !attached.iter().any(|taken| Arc::ptr_eq(taken.route, route)) {
        let first = rival(&attached, &candidate)?;
        let why = format!(
            "HTTPRoutes and GRPCRoutes cannot share a host at a listener; {}",
            first.route.seniority.reason(&route.seniority)
        );
        return Some(Attached::Behind { by: first.route.clone(), why });
    }
    let first = attached.first()?;
    if listener.is_for_one_route() && !Arc::ptr_eq(first.route, route) {
        let why =
            format!("nothing could choose between two; {}", first.route.seniority.reason(&route.seniority));
        return Some(Attached::Behind { by: first.route.clone(), why });
    }
    None
}

fn backends(report: &mut Report<'_>, route: &Arc<Route>) {
    let gateway = route.parents.iter().any(|parent| matches!(parent.target, ParentTarget::Gateway(..)));
    let mesh =
        route.parents.iter().any(|parent| matches!(parent.target, ParentTarget::Service(_))) || !gateway;
    for rule in &route.rules {
        for backend in &rule.backends {
            reference(report, route, &backend.to, mesh, gateway);
        }
        for mirror in &rule.mirrors {
            reference(report, route, &mirror.to, mesh, gateway);
        }
        let nobody = rule.backends.iter().all(|backend| backend.weight == 0);
        if nobody && rule.redirect.is_none() {
            let text = match rule.backends.is_empty() {
                true => "has no backends: what it matches is refused",
                false => "all its backends have weight 0: what it matches is refused",
            };
            report.warning(&route.origin, &rule.field, text);
        }
    }
}

fn reference(report: &mut Report<'_>, route: &Route, to: &BackendRef, mesh: bool, gateway: bool) {
    for in_mesh in [true, false] {
        if (in_mesh && !mesh) || (!in_mesh && !gateway) {
            continue;
        }
        let Err(problem) = report.registry.backend(route, to, in_mesh) else { continue };
        let member = match problem {
            Problem::NoSuchPort { .. } => "port",
            Problem::NotGranted { .. } => "namespace",
            // The manifest is warned about already.
            Problem::UnknownKind { .. } => continue,
            _ => "name",
        };
        report.error(&route.origin, &format!("{}.{member}", to.field), problem.to_string());
    }
}

/// Matches that are equal to one that is looked at before them, on every port they are for.
fn unreachable_matches(report: &mut Report<'_>, routes: &[&Arc<Route>]) {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for route in routes.iter().filter(|route| matches!(route.kind, RouteKind::Http | RouteKind::Grpc)) {
        for parent in &route.parents {
            let ParentTarget::Service(service) = &parent.target else { continue };
            // Routes of one namespace, kind and scope are looked through together.
            let scope = (service, &route.namespace, route.kind, parent.port, &parent.section);
            for rule in &route.rules {
                for matched in &rule.matches {
                    let group = (scope, format!("{:?}", matched.matches));
                    groups.entry(group).or_default().push((route, matched));
                }
            }
        }
    }
    for equal in groups.values_mut().filter(|equal| equal.len() > 1) {
        equal.sort_by(|a, b| a.1.rank.cmp(&b.1.rank));
        let (first_route, first) = equal[0];
        for (route, matched) in &equal[1..] {
            let text = format!(
                "is never reached: {} {} matches the same; {}",
                named(first_route),
                first.field,
                first.rank.reason(&matched.rank)
            );
            report.warning(&route.origin, &matched.field, text);
        }
    }
}

fn named(route: &Route) -> String {
    format!("{} {}/{}", route.kind.as_str(), route.namespace, route.name)
}
