//! TrafficPolicies through whole registries: which one decides for whom.

use std::time::Duration;

use super::*;
use crate::registry::tests::{registry, services};

fn policy(id: &str, target: &str, timeout: &str) -> String {
    let (namespace, name) = id.split_once('/').unwrap();
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{targetRefs: [{target}], timeout: {timeout}}}\n---\n"
    )
}

/// Seconds a request to `SERVICE.default:80/PATH` may take for a caller of a namespace; 0 for no limit.
fn limit(registry: &Registry, caller: &str, service: &str, path: &str) -> u64 {
    let table =
        registry.table_of(&sidecar(caller), &format!("outbound|80|{service}.default.svc.cluster.local"));
    let route = table.hosts[0].routes.iter().find(|route| route.matches.path.matches(path)).expect("a route");
    route.timeouts.request.map_or(0, |limit| limit.as_secs())
}

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: routed}\n\
    spec:\n  parentRefs: [{group: '', kind: Service, name: routed}]\n  rules:\n  \
    - {name: named, matches: [{path: {value: /named}}], backendRefs: [{name: plain, port: 80}]}\n  \
    - {name: own, matches: [{path: {value: /own}}], timeouts: {request: 9s}, backendRefs: [{name: plain, port: 80}]}\n  \
    - {name: never, matches: [{path: {value: /never}}], timeouts: {request: 0s}, backendRefs: [{name: plain, port: 80}]}\n  \
    - {backendRefs: [{name: plain, port: 80}]}\n---\n";

#[test]
fn the_most_specific_target_decides_and_a_consumer_before_all_producers() {
    let all = services(&["default/plain", "default/routed", "default/third", "far/away"])
        + ROUTE
        + &policy("ops/mesh", "{kind: Mesh, name: default}", "{request: 1s}")
        + &policy("default/namespace", "{kind: Namespace, name: default}", "{request: 2s}")
        + &policy(
            "default/service",
            "{kind: Service, name: routed}, {kind: Service, name: plain}",
            "{request: 3s}",
        )
        + &policy("default/port", "{kind: Service, name: plain, port: 80}", "{request: 4s}")
        + &policy("default/route", "{kind: HTTPRoute, name: routed}", "{request: 5s}")
        + &policy("default/rule", "{kind: HTTPRoute, name: routed, sectionName: named}", "{request: 6s}")
        + &policy("eager/mine", "{kind: Service, name: routed, namespace: default}", "{request: 7s}");
    let registry = registry(&all);
    for (caller, service, path, want, why) in [
        ("default", "third", "/", 2, "the namespace before the mesh"),
        ("default", "plain", "/", 4, "the port before the service"),
        ("default", "routed", "/", 5, "the route before the service"),
        ("default", "routed", "/named", 6, "the rule before the route"),
        ("default", "routed", "/own", 9, "what the rule says itself before every policy"),
        ("default", "routed", "/never", 0, "also where it says: no limit"),
        ("eager", "routed", "/named", 7, "the caller's own namespace before all of it"),
        ("eager", "routed", "/own", 7, "also before what a producer's rule says itself"),
        ("eager", "plain", "/", 4, "a consumer's policy is about its target alone"),
        ("other", "routed", "/named", 6, "and about its own namespace's callers alone"),
    ] {
        assert_eq!(limit(&registry, caller, service, path), want, "{caller} {service}{path}: {why}");
    }
    let away = registry.table_of(&sidecar("default"), "outbound|80|away.far.svc.cluster.local");
    assert_eq!(
        away.hosts[0].routes[0].timeouts.request,
        Some(Duration::from_secs(1)),
        "the mesh's, everywhere"
    );
}

#[test]
fn a_section_is_taken_as_a_whole_and_an_empty_one_takes_the_defaults() {
    let base = services(&["default/routed", "default/plain"])
        + ROUTE
        + &policy(
            "default/namespace",
            "{kind: Namespace, name: default}",
            "{request: 2s, idle: 30s, connect: 3s}",
        );
    let timeouts = |text: &str, path: &str| {
        let table =
            registry(text).table_of(&sidecar("default"), "outbound|80|routed.default.svc.cluster.local");
        let route = table.hosts[0].routes.iter().find(|route| route.matches.path.matches(path)).unwrap();
        let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs());
        (seconds(route.timeouts.request), seconds(route.timeouts.stream_idle))
    };
    assert_eq!(timeouts(&base, "/x"), (Some(2), Some(30)));
    // The rule's own fields override one by one: they are no section of a policy.
    assert_eq!(timeouts(&base, "/own"), (Some(9), Some(30)));
    let partial = base.clone() + &policy("default/service", "{kind: Service, name: routed}", "{idle: 5s}");
    assert_eq!(timeouts(&partial, "/x"), (None, Some(5)), "no request timeout is inherited into a section");
    let empty = base.clone() + &policy("default/service", "{kind: Service, name: routed}", "{}");
    assert_eq!(timeouts(&empty, "/x"), (None, None));

    // A connection that is carried as bytes knows no request; how long it may rest is the same field.
    let rest =
        |text: &str, name: &str| registry(text).destination_of(&sidecar("default"), name).unwrap().tcp.idle;
    assert_eq!(rest(&base, "routed:80"), Some(Duration::from_secs(30)));
    assert_eq!(rest(&partial, "routed:80"), Some(Duration::from_secs(5)));
    assert_eq!(rest(&empty, "routed:80"), None);

    let connect = |text: &str, caller: &str, service: &str| {
        let name = format!("outbound|80||{service}.default.svc.cluster.local");
        registry(text).cluster_of(&sidecar(caller), &name).connect_timeout.as_secs()
    };
    assert_eq!(connect(&base, "default", "plain"), 3);
    assert_eq!(connect(&empty, "default", "routed"), 1, "the default");
    let consumer =
        base + &policy("eager/mine", "{kind: Service, name: plain, namespace: default}", "{connect: 8s}");
    assert_eq!((connect(&consumer, "eager", "plain"), connect(&consumer, "other", "plain")), (8, 3));
}

#[test]
fn through_a_gateway_the_route_decides_then_the_service_behind_it() {
    let base = services(&["default/a", "default/b"])
        + "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gate}\n\
           spec: {gatewayClassName: outrigger, listeners: [{name: http, port: 80, protocol: HTTP}]}\n---\n\
           apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
           spec:\n  parentRefs: [{name: gate}]\n  rules:\n  \
           - {matches: [{path: {value: /one}}], backendRefs: [{name: a, port: 80}]}\n  \
           - {matches: [{path: {value: /two}}], backendRefs: [{name: a, port: 80}, {name: b, port: 80}]}\n  \
           - {matches: [{path: {value: /gone}}], backendRefs: [{name: a, port: 80}, {name: b, port: 80, weight: 0}]}\n---\n"
        + &policy("ops/mesh", "{kind: Mesh, name: default}", "{request: 1s}")
        + &policy("default/a", "{kind: Service, name: a}", "{request: 3s}");
    let limits = |text: &str| {
        let who = Subscriber::gateway("default", "gate");
        let table = registry(text).table_of(&who, "gateway|default/gate|80|http");
        ["/one", "/two", "/gone"].map(|path| {
            let route = table.hosts[0].routes.iter().find(|route| route.matches.path.matches(path)).unwrap();
            route.timeouts.request.map_or(0, |limit| limit.as_secs())
        })
    };
    // With two Services behind a rule neither one's policy can hold for the exchange.
    assert_eq!(limits(&base), [3, 1, 3]);
    let routed = base + &policy("default/r", "{kind: HTTPRoute, name: r}", "{request: 5s}");
    assert_eq!(limits(&routed), [5, 5, 5]);
}

#[test]
fn a_decision_can_be_asked_for_with_those_who_lost_and_why() {
    let registry = registry(
        &(services(&["default/plain", "default/routed"])
            + ROUTE
            + &policy("default/namespace", "{kind: Namespace, name: default}", "{request: 2s}")
            + &policy("default/b", "{kind: Service, name: routed}", "{request: 3s}")
            + &policy("default/a", "{kind: Service, name: routed}", "{request: 4s}")),
    );
    let who = sidecar("default");
    let name = "outbound|80|routed.default.svc.cluster.local";
    let table = registry.table_of(&who, name);
    let route = table.hosts[0].routes.iter().find(|route| route.matches.path.matches("/own")).unwrap();
    let decision = registry.why_timeouts(&who, name, &route.origin).expect("the route is in the table");
    assert_eq!(decision.section().expect("the rule says it").exchange, route.timeouts);
    let winner = decision.winner.expect("somebody says something");
    assert_eq!(winner.origin.to_string(), "HTTPRoute/default/routed spec.rules[1].timeouts");
    let losers: Vec<_> =
        decision.losers.iter().map(|(loser, why)| (loser.origin.to_string(), why.to_string())).collect();
    let lost = |name: &str, why: &str| (format!("TrafficPolicy/default/{name} spec.timeout"), why.to_owned());
    assert_eq!(
        losers,
        [
            lost("a", "the rule's own field goes before a policy for the service"),
            lost("b", "the rule's own field goes before a policy for the service"),
            lost("namespace", "the rule's own field goes before a policy for the namespace"),
        ]
    );
    let nobody = registry.why_timeouts(&who, "outbound|80|gone.default.svc.cluster.local", &route.origin);
    assert!(nobody.is_none());

    let [first, second] = ["spec.rules[0].matches[0]", "spec.rules[3]"].map(|field| route.origin.at(field));
    let why = registry.why_before(&first, &second).expect("both are there");
    assert_eq!(why.to_string(), "the longer path goes first");
}

const WORKLOAD: &str = "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: w, labels: {app: w}}\n\
    spec: {address: 10.0.0.1, ports: [{name: http, port: 8080, appProtocol: http}, {name: admin, port: 9090, appProtocol: http}]}\n---\n\
    apiVersion: v1\nkind: Service\nmetadata: {name: one}\n\
    spec: {selector: {app: w}, ports: [{name: http, port: 80, targetPort: 8080}, {name: admin, port: 90, targetPort: 9090}]}\n---\n\
    apiVersion: v1\nkind: Service\nmetadata: {name: two}\nspec: {selector: {app: w}, ports: [{port: 81, targetPort: 8080}]}\n---\n";

/// `NAME AMOUNT` of the limits in force on each port of the workload.
fn limits_of(registry: &Registry) -> Vec<String> {
    let inbound = registry.inbound_of(&Subscriber::sidecar("default", "w")).expect("it is known");
    let port = |port: &crate::model::InboundPort| {
        let rates = port.limits.rates.iter().map(|rate| {
            let limit = &rate.limit;
            format!(" {}/{} {}", limit.origin.name, limit.name, limit.allowed.tokens)
        });
        let caps = port
            .limits
            .concurrency
            .iter()
            .map(|cap| format!(" {}/{} {}", cap.origin.name, cap.name, cap.allowed));
        format!("{}:{}", port.port, rates.chain(caps).collect::<String>())
    };
    inbound.ports.iter().map(port).collect()
}

fn limiting(id: &str, target: &str, section: &str) -> String {
    let (namespace, name) = id.split_once('/').unwrap();
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{targetRefs: [{target}], {section}}}\n---\n"
    )
}

#[test]
fn limits_of_all_services_before_a_port_hold_there_together() {
    let wide = WORKLOAD.to_owned()
        + &limiting("ops/mesh", "{kind: Mesh, name: default}", "rateLimit: {limits: [{requests: 1}]}");
    assert_eq!(
        limits_of(&registry(&wide)),
        ["8080: mesh/limit-0 1", "9090: mesh/limit-0 1"],
        "once, through both"
    );
    let one = wide.clone()
        + &limiting(
            "default/one",
            "{kind: Service, name: one}",
            "rateLimit: {limits: [{requests: 2, match: [{ports: [9090]}]}, {name: x, requests: 3}]}, concurrency: {limits: [{requests: 4}]}",
        );
    assert_eq!(
        limits_of(&registry(&one)),
        [
            "8080: one/x 3 mesh/limit-0 1 one/concurrency-0 4",
            "9090: one/limit-0 2 one/x 3 one/concurrency-0 4"
        ],
        "a Service's own before the mesh's, and for the other Service the mesh's as before"
    );
    let port = one.clone()
        + &limiting(
            "default/port",
            "{kind: Service, name: one, port: 90}",
            "rateLimit: {limits: [{requests: 5}]}",
        )
        + &limiting("default/none", "{kind: Service, name: two}", "rateLimit: {}");
    assert_eq!(
        limits_of(&registry(&port)),
        ["8080: one/x 3 one/concurrency-0 4", "9090: port/limit-0 5 one/concurrency-0 4"],
        "the port before the Service, and an empty section takes the mesh's away"
    );
}

#[test]
fn a_new_limit_concerns_the_workloads_behind_its_service() {
    let before = registry(WORKLOAD);
    for target in
        ["{kind: Service, name: two}", "{kind: Namespace, name: default}", "{kind: Mesh, name: default}"]
    {
        let policy = limiting("default/p", target, "concurrency: {limits: [{requests: 4}]}");
        let after = registry(&(WORKLOAD.to_owned() + &policy));
        for (a, b) in [(&before, &after), (&after, &before)] {
            let who = Subscriber::sidecar("default", "w");
            let affected = |who| b.changes_since(a).may_affect(who, ResourceKind::Listener, "inbound");
            assert!(affected(&who), "{target}");
        }
    }
}

#[test]
fn a_breaker_belongs_to_the_cluster_and_on_a_route_its_caps_to_the_route() {
    use crate::model::{BreakerMode, Ejection};
    let breaker = |id: &str, target: &str, section: &str| {
        policy(id, target, "{}").replace("timeout: {}", &format!("circuitBreaker: {section}"))
    };
    let base = services(&["default/routed", "default/plain"])
        + ROUTE
        + &breaker("default/all", "{kind: Namespace, name: default}", "{maxConnections: 7, mode: Observe}")
        + &breaker(
            "default/named",
            "{kind: HTTPRoute, name: routed, sectionName: named}",
            "{maxRequests: 5, maxRetries: 2}",
        )
        + &breaker(
            "eager/off",
            "{kind: Service, name: plain, namespace: default}",
            "{maxRequests: 3, ejection: {mode: Disabled}}",
        );
    let registry = registry(&base);
    let cluster = |caller: &str, service: &str| {
        let name = format!("outbound|80||{service}.default.svc.cluster.local");
        registry.cluster_of(&sidecar(caller), &name).circuit_breaker
    };
    let producer = cluster("default", "plain");
    assert_eq!(
        (producer.caps.mode, producer.caps.connections, producer.caps.pending),
        (BreakerMode::Observe, Some(7), Some(1024)),
        "who caps connections bounds the queue for them"
    );
    assert_eq!(producer.ejection, Some(Ejection { mode: BreakerMode::Observe, ..Ejection::default() }));
    let origin = producer.origin.as_ref().expect("a policy says so");
    assert_eq!(origin.to_string(), "TrafficPolicy/default/all spec.circuitBreaker");
    let consumer = cluster("eager", "plain");
    assert_eq!((consumer.caps.requests, consumer.caps.connections, consumer.ejection), (Some(3), None, None));

    let table = registry.table_of(&sidecar("default"), "outbound|80|routed.default.svc.cluster.local");
    let caps = |path: &str| {
        let route = table.hosts[0].routes.iter().find(|route| route.matches.path.matches(path)).unwrap();
        route.caps.as_ref().map(|caps| (caps.requests, caps.retries, caps.pending))
    };
    assert_eq!(caps("/named"), Some((Some(5), Some(2), None)));
    assert_eq!(caps("/other"), None, "those of the Service are its clusters'");
}

#[test]
fn a_shared_limit_is_a_services_own_and_counted_where_its_policy_or_the_mesh_says() {
    let shared = |text: &str| -> Vec<String> {
        let registry = registry(text);
        let inbound = registry.inbound_of(&Subscriber::sidecar("default", "w")).expect("it is known");
        let rates = inbound.ports.iter().flat_map(|port| &port.limits.rates);
        let said = |rate: &crate::model::RateLimit| {
            let shared = rate.shared.as_ref()?;
            let server = shared.server.address.as_deref().unwrap_or("ours");
            Some(format!("{} {server} {} {:?}", shared.service, shared.server.domain, shared.timeout))
        };
        rates.filter_map(said).collect()
    };
    let all = WORKLOAD.to_owned()
        + &limiting(
            "ops/mesh",
            "{kind: Mesh, name: default}",
            "rateLimit: {limits: [{requests: 1, scope: Service}, {requests: 2}]}",
        );
    assert_eq!(shared(&all), ["one.default ours outrigger 100ms", "one.default ours outrigger 100ms"]);
    let elsewhere = all.clone()
        + "apiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\n\
           spec: {rateLimit: {server: {address: 'limits:8081', domain: d}}}\n---\n";
    assert_eq!(shared(&elsewhere), ["one.default limits:8081 d 100ms", "one.default limits:8081 d 100ms"]);
    let own = elsewhere
        + &limiting(
            "default/two",
            "{kind: Service, name: two}",
            "rateLimit: {server: {address: '[::1]:1'}, limits: [{requests: 1, scope: Service, shared: {timeout: 1s}}]}",
        );
    assert_eq!(
        shared(&own),
        [
            "one.default limits:8081 d 100ms",
            "two.default [::1]:1 outrigger 1s",
            "one.default limits:8081 d 100ms"
        ]
    );
}
