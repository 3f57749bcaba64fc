//! `loadBalancing` through whole registries: who balances how, and what its routes hash by.

use super::*;
use crate::model::{Algorithm, Balance, HashInput, Health, Multiplex};
use crate::registry::tests::{registry, services};

fn policy(id: &str, target: &str, section: &str) -> String {
    let (namespace, name) = id.split_once('/').unwrap();
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{targetRefs: [{target}], loadBalancing: {section}}}\n---\n"
    )
}

fn balance(registry: &Registry, who: &Subscriber, service: &str) -> Balance {
    Balance::clone(
        &registry.cluster_of(who, &format!("outbound|80||{service}.default.svc.cluster.local")).balance,
    )
}

const CALLERS: &str = "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: caller}\n\
    spec: {address: 10.9.0.1, zone: z1}\n---\n\
    apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: caller, namespace: other}\n\
    spec: {address: 10.9.0.2}\n---\n";

#[test]
fn the_section_that_wins_holds_as_a_whole() {
    let all = services(&["default/plain", "default/port", "default/near"])
        + CALLERS
        + &policy("ops/mesh", "{kind: Mesh, name: default}", "{slowStart: {}, zones: PreferSameZone}")
        + &policy("default/port", "{kind: Service, name: port, port: 80}", "{algorithm: RoundRobin}")
        + &policy("other/mine", "{kind: Service, name: port, namespace: default}", "{algorithm: Random}");
    let registry = registry(&all);
    let (own, other) = (sidecar("default"), sidecar("other"));
    let plain = balance(&registry, &own, "plain");
    assert_eq!((plain.zone.as_deref(), plain.slow_start.is_some()), (Some("z1"), true));
    assert_eq!(balance(&registry, &other, "plain").zone, None, "who has no zone prefers none");
    assert_eq!(balance(&registry, &Subscriber::gateway("default", "g"), "plain").zone, None);
    let port = balance(&registry, &own, "port");
    let by = port.origin.as_ref().map(ToString::to_string);
    assert_eq!(by.as_deref(), Some("TrafficPolicy/default/port spec.loadBalancing"));
    assert_eq!(
        port,
        Balance { algorithm: Algorithm::RoundRobin, origin: port.origin.clone(), ..Balance::default() }
    );
    assert_eq!(balance(&registry, &other, "port").algorithm, Algorithm::Random, "the consumer decides");
}

#[test]
fn connections_are_shared_as_the_most_specific_policy_says() {
    let policy = |name: &str, target: &str, word: &str| {
        policy(name, target, "{}").replace("loadBalancing: {}", &format!("connection: {word}"))
    };
    let all = services(&["default/plain", "default/apart", "default/busy"])
        + CALLERS
        + &policy("ops/mesh", "{kind: Mesh, name: default}", "{multiplexHttp1: Always}")
        + &policy("default/apart", "{kind: Service, name: apart}", "{}")
        + &policy("default/busy", "{kind: Service, name: busy, port: 80}", "{multiplexHttp1: WhenBusy}");
    let registry = registry(&all);
    let multiplex = |service: &str| {
        let name = format!("outbound|80||{service}.default.svc.cluster.local");
        registry.cluster_of(&sidecar("default"), &name).multiplex
    };
    assert_eq!(multiplex("plain"), Multiplex::Always);
    assert_eq!(multiplex("apart"), Multiplex::Never, "an empty section has the defaults");
    assert_eq!(multiplex("busy"), Multiplex::WhenBusy);
}

#[test]
fn a_service_may_prefer_near_endpoints_itself() {
    let service = |name: &str, word: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{trafficDistribution: {word}, selector: {{app: {name}}}, ports: [{{port: 80}}]}}\n---\n"
        )
    };
    let all = service("close", "PreferClose")
        + &service("zone", "PreferSameZone")
        + &service("any", "PreferSameZone")
        + CALLERS
        + &policy("default/any", "{kind: Service, name: any}", "{zones: Any}")
        + &policy("default/zone", "{kind: Service, name: zone}", "{algorithm: Random}");
    let registry = registry(&all);
    let zone = |service: &str| balance(&registry, &sidecar("default"), service).zone;
    assert_eq!(zone("close").as_deref(), Some("z1"));
    assert_eq!(zone("zone").as_deref(), Some("z1"), "a policy that says nothing of zones");
    assert_eq!(zone("any"), None, "a policy that says otherwise");
}

#[test]
fn routes_know_what_their_backends_hash_by() {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: front}\n\
        spec:\n  parentRefs: [{group: '', kind: Service, name: front}]\n  rules:\n  \
        - {backendRefs: [{name: users, port: 80}, {name: plain, port: 80}, {name: off, port: 80, weight: 0}]}\n---\n";
    let hashed = |name: &str, header: &str| {
        let section = format!("{{algorithm: Maglev, hash: [{{header: {header}}}, {{sourceAddress: {{}}}}]}}");
        policy(&format!("default/{name}"), &format!("{{kind: Service, name: {name}}}"), &section)
    };
    let all = services(&["default/front", "default/users", "default/plain", "default/off"])
        + route
        + &hashed("users", "x-user")
        + &hashed("off", "x-off");
    let registry = registry(&all);
    let hash = |service: &str| {
        let table = registry
            .table_of(&sidecar("default"), &format!("outbound|80|{service}.default.svc.cluster.local"));
        table.hosts[0].routes[0].hash.iter().map(|on| on.input.clone()).collect::<Vec<_>>()
    };
    let users = [HashInput::Header(http::HeaderName::from_static("x-user")), HashInput::Source];
    assert_eq!(hash("front"), users, "of those that get requests");
    assert_eq!(hash("users"), users);
    assert_eq!(hash("plain"), []);
}

#[test]
fn weights_hints_and_unknown_readiness_reach_the_endpoints() {
    let all = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: p, port: 80}]}\n---\n\
        apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: one, labels: {app: web}}\n\
        spec: {address: 10.1.0.1, weight: 7, ports: [{name: p, port: 80}]}\n---\n\
        apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: web}}\n\
        addressType: IPv4\nports: [{name: p, port: 80}]\n\
        endpoints: [{addresses: [10.1.0.2], zone: z2, hints: {forZones: [{name: z2}, {name: z1}], forNodes: [{name: n}]}}]\n---\n";
    let endpoints = registry(all).endpoints_of("outbound|80||web.default.svc.cluster.local").endpoints;
    let zones: Vec<_> = endpoints[1].for_zones.iter().map(|zone| &**zone).collect();
    assert_eq!((endpoints[0].weight, endpoints[0].health), (7, Health::Unknown));
    assert_eq!((endpoints[1].weight, endpoints[1].health, zones), (1, Health::Healthy, vec!["z1", "z2"]));
}
