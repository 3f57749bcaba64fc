//! Who stands behind a Service: Workloads, EndpointSlices, both, or a name outside.

use super::*;
use crate::model::{Discovery, Health, Protocol};
use crate::registry::tests::registry;

const HEALTHS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, ports: [{name: sql, port: 5432, targetPort: 15432}, {name: admin, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 15432}]
endpoints:
- {addresses: [10.1.0.9], zone: z1, targetRef: {kind: Pod, name: db-9, namespace: default}}
- {addresses: [10.1.0.1], conditions: {ready: true}}
- {addresses: [10.1.0.2], conditions: {ready: false}}
- {addresses: [10.1.0.3], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.1.0.4], conditions: {ready: false, serving: false, terminating: true}}
- {addresses: [10.1.0.5], conditions: {ready: false, serving: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-2, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
ports: [{name: sql, port: 15432}, {name: admin, port: 8080}]
endpoints: [{addresses: ["fd00::1"]}, {addresses: ["::ffff:10.1.0.1"]}]
"#;

fn healths(registry: &Registry, name: &str) -> Vec<(String, Health)> {
    let endpoints = registry.endpoints_of(name).endpoints;
    endpoints.into_iter().map(|endpoint| (endpoint.address.to_string(), endpoint.health)).collect()
}

#[test]
fn a_headless_service_without_selector_has_what_its_slices_list() {
    use Health::{Draining, Healthy, Unhealthy};
    let registry = registry(HEALTHS);
    let want = [
        ("10.1.0.1:15432", Healthy), // also listed as an IPv4-mapped address: once
        ("10.1.0.2:15432", Unhealthy),
        ("10.1.0.3:15432", Draining),
        ("10.1.0.4:15432", Unhealthy),
        ("10.1.0.5:15432", Unhealthy), // serving without ready counts only while terminating
        ("10.1.0.9:15432", Healthy),
        ("[fd00::1]:15432", Healthy),
    ];
    let got = healths(&registry, "outbound|5432||db.default.svc.cluster.local");
    assert_eq!(got, want.map(|(address, health)| (address.to_owned(), health)));
    let got = healths(&registry, "outbound|80||db.default.svc.cluster.local");
    let want = [("10.1.0.1:8080".to_owned(), Healthy), ("[fd00::1]:8080".to_owned(), Healthy)];
    assert_eq!(got, want, "ports go by name");

    let nine = registry.endpoints_of("outbound|5432||db.default.svc.cluster.local").endpoints.remove(5);
    assert_eq!((nine.workload.as_deref(), nine.zone.as_deref()), (Some("default/db-9"), Some("z1")));
    assert_eq!((nine.identity, nine.meshed), (None, false));

    let destination = registry.destination_of(&sidecar("default"), "db:5432").unwrap();
    assert_eq!(destination.protocol, Protocol::Tcp, "its server speaks first");
    // A pod by its own address; also one that is not ready, which is how databases find their peers.
    let destination = registry.destination_of(&sidecar("default"), "10.1.0.2:15432").unwrap();
    assert_eq!(destination.service, None);
    assert_eq!(healths(&registry, "outbound|15432||10.1.0.2"), [("10.1.0.2:15432".to_owned(), Healthy)]);
    assert!(registry.destination_of(&sidecar("default"), "[fd00::1]:8080").is_some());
    assert_eq!(registry.destination_of(&sidecar("default"), "10.1.0.77:15432"), None);
}

#[test]
fn endpoints_that_are_not_ready_are_published_where_the_service_says_so() {
    let text = HEALTHS.replace("clusterIP: None", "clusterIP: None, publishNotReadyAddresses: true");
    let unready = healths(&registry(&text), "outbound|5432||db.default.svc.cluster.local")
        .into_iter()
        .filter(|(_, health)| *health == Health::Unhealthy)
        .count();
    assert_eq!(unready, 0);
}

const SELECTED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web, tier: front}, ports: [{name: http, port: 80, targetPort: web}, {name: metrics, port: 90, targetPort: 9090}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: one, labels: {app: web, tier: front, extra: "1"}}
spec: {address: 127.64.1.1, zone: z2, ports: [{name: web, port: 8080}, {name: metrics, port: 9090, appProtocol: tcp}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: two, labels: {app: web, tier: front}}
spec: {address: 127.64.1.2, ports: [{name: web, port: 8081}]}
status: {state: NotReady}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: half, labels: {app: web}}
spec: {address: 127.64.1.3, ports: [{name: web, port: 8080}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: elsewhere, namespace: other, labels: {app: web, tier: front}}
spec: {address: 127.64.1.4, ports: [{name: web, port: 8080}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: template, labels: {app: web, tier: front}}
spec: {command: [x], ports: [{name: web, port: 8080}]}
"#;

#[test]
fn a_selector_takes_workloads_of_its_namespace_with_all_its_labels() {
    let registry = registry(SELECTED);
    let http = healths(&registry, "outbound|80||web.default.svc.cluster.local");
    // Nobody says how the first one is.
    let want = [("127.64.1.1:8080", Health::Unknown), ("127.64.1.2:8081", Health::Unhealthy)];
    assert_eq!(
        http,
        want.map(|(address, health)| (address.to_owned(), health)),
        "each by its own port of that name"
    );
    let inbound = registry.inbound_of(&Subscriber::sidecar("default", "one")).unwrap();
    let ports: Vec<_> = inbound
        .ports
        .iter()
        .map(|port| (port.port, port.protocol, port.service.as_ref().map(ToString::to_string)))
        .collect();
    assert_eq!(
        ports,
        [
            (8080, Protocol::Http, Some("web.default".to_owned())), // the Service's port name says http
            (9090, Protocol::Tcp, Some("web.default".to_owned())),
        ]
    );
    let alone = registry.inbound_of(&Subscriber::sidecar("default", "half")).unwrap();
    assert_eq!((alone.ports[0].protocol, &alone.ports[0].service), (Protocol::Detect, &None));
    assert_eq!(alone.ports[0].app.to_string(), "127.0.0.1:8080", "where apps listen unless it is said");
}

#[test]
fn a_slice_that_lists_a_workloads_address_means_that_workload() {
    let text = SELECTED.to_owned()
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: listed}\nspec: {ports: [{port: 80}]}\n\
           ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
           metadata: {name: s, labels: {kubernetes.io/service-name: listed}}\naddressType: IPv4\n\
           ports: [{port: 8080}]\nendpoints: [{addresses: [127.64.1.1]}]\n";
    let endpoint =
        registry(&text).endpoints_of("outbound|80||listed.default.svc.cluster.local").endpoints.remove(0);
    assert_eq!(endpoint.workload.as_deref(), Some("default/one"));
    assert_eq!(
        endpoint.identity.as_ref().map(|id| id.as_str()),
        Some("spiffe://cluster.local/ns/default/sa/default")
    );
}

#[test]
fn an_external_name_is_resolved_by_the_proxy() {
    let registry = registry(
        "apiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: {type: ExternalName, externalName: api.example.com}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
         spec: {type: ExternalName, externalName: www.example.com, ports: [{name: http, port: 80, targetPort: 8080}]}\n",
    );
    let who = sidecar("default");
    for (name, cluster, host, port, protocol) in [
        ("api:443", "outbound|443||api.default.svc.cluster.local", "api.example.com", 443, Protocol::Detect),
        ("web:80", "outbound|80||web.default.svc.cluster.local", "www.example.com", 8080, Protocol::Http),
        ("web:81", "outbound|81||web.default.svc.cluster.local", "www.example.com", 81, Protocol::Detect),
    ] {
        let destination = registry.destination_of(&who, name).expect(name);
        assert_eq!(destination.protocol, protocol, "{name}");
        assert_eq!(destination.tcp.backends[0].cluster.as_str(), cluster);
        let discovery = registry.cluster_of(&who, cluster).discovery;
        assert_eq!(discovery, Discovery::Dns { host: host.into(), port });
        assert_eq!(
            registry.resolve(&who, ResourceKind::Endpoints, cluster),
            None,
            "there is nothing to list"
        );
        registry.table_of(&who, destination.routes.as_str());
    }
}

#[test]
fn an_external_name_of_a_service_inside_is_that_service() {
    let alias = |name: &str, of: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{type: ExternalName, externalName: {of}}}\n"
        )
    };
    let text = SELECTED.to_owned()
        + &alias("www", "web.default.svc.cluster.local")
        + &alias("twice", "www.default.svc.cluster.local")
        + &alias("gone", "nobody.default.svc.cluster.local");
    let registry = registry(&text);
    let who = sidecar("default");
    let destination = registry.destination_of(&who, "www:80").unwrap();
    assert_eq!(destination.service.unwrap().to_string(), "web.default");
    assert_eq!(destination.routes.as_str(), "outbound|80|web.default.svc.cluster.local");
    assert_eq!(registry.destination_of(&who, "www:81"), None, "its ports are the other's");
    let aliased = "outbound|80||www.default.svc.cluster.local";
    assert_eq!(registry.resolve(&who, ResourceKind::Cluster, aliased), None, "one name as a resource");
    // What leads nowhere inside is left to whoever resolves names.
    for name in ["twice", "gone"] {
        let destination = registry.destination_of(&who, &format!("{name}:80")).expect(name);
        let cluster = registry.cluster_of(&who, destination.tcp.backends[0].cluster.as_str());
        assert!(matches!(cluster.discovery, Discovery::Dns { .. }), "{name}");
    }
}

#[test]
fn names_have_one_spelling_as_resources() {
    let registry = registry(SELECTED);
    let who = sidecar("default");
    for (kind, name) in [
        (ResourceKind::Cluster, "outbound|80||web.default"),
        (ResourceKind::Cluster, "outbound|080||web.default.svc.cluster.local"),
        (ResourceKind::Cluster, "outbound|80|v1|web.default.svc.cluster.local"),
        (ResourceKind::Cluster, "outbound|80||web.default.svc.cluster.local|x"),
        (ResourceKind::Cluster, "inbound|80||"),
        (ResourceKind::Cluster, ""),
        (ResourceKind::RouteTable, "outbound|+80|web.default.svc.cluster.local"),
        (ResourceKind::RouteTable, "outbound|80|web"),
        (ResourceKind::Endpoints, "outbound|80||WEB.default.svc.cluster.local"),
        (ResourceKind::Listener, "outbound|web"),
        (ResourceKind::Secret, "default/web"),
    ] {
        assert_eq!(registry.resolve(&who, kind, name), None, "{kind:?} {name}");
    }
}
