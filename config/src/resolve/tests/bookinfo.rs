//! The Bookinfo example as its README tells people to run it, with the instances that `outrigger up` would write.

use super::*;
use crate::diagnostic::{Diagnostic, Severity};
use crate::model::{Discovery, GatewayProtocol, Health, PathMatch, Protocol, UpstreamHttp};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/bookinfo");

const INSTANCES: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata:
  name: reviews-v2-1
  labels: {app: reviews, version: v2}
  annotations: {outrigger.dev/meshed: "true"}
spec:
  serviceAccount: bookinfo-reviews
  address: 127.64.1.2
  appAddress: 127.64.2.2
  ports: [{name: http, port: 9080, appPort: 19080}]
status: {state: Ready}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: reviews-v3-1, labels: {app: reviews, version: v3}}
spec:
  address: 127.64.1.3
  ports: [{name: http, port: 9080}]
status: {state: Draining}
"#;

fn bookinfo() -> Arc<Registry> {
    let mut files = crate::source::Directory::new([DIRECTORY]).read();
    files.insert("instances.yaml", crate::source::Content::Text(INSTANCES.into()));
    let registry = Store::new().update(&files);
    let complaints = registry.diagnostics().iter().filter(|found| found.severity != Severity::Note);
    assert_eq!(
        complaints.collect::<Vec<_>>(),
        [] as [&Diagnostic; 0],
        "the example has nothing to complain about"
    );
    registry
}

#[test]
fn every_spelling_of_a_service_is_the_same_destination() {
    let registry = bookinfo();
    let productpage = sidecar("default");
    for name in [
        "reviews:9080",
        "reviews.default:9080",
        "reviews.default.svc:9080",
        "reviews.default.svc.cluster.local:9080",
    ] {
        let destination = registry.destination_of(&productpage, name).expect(name);
        assert_eq!(destination.name.to_string(), name, "as asked");
        assert_eq!(destination.routes.as_str(), "outbound|9080|reviews.default.svc.cluster.local");
        assert_eq!(destination.protocol, Protocol::Http);
        assert_eq!(destination.service.unwrap().to_string(), "reviews.default");
    }
    for (name, why) in [
        ("reviews:80", "no such port"),
        ("revue:9080", "no such service"),
        ("reviews.other:9080", "no such namespace"),
        ("reviews.default.svc.example.com:9080", "another domain"),
        ("10.0.0.1:9080", "an address nobody has"),
    ] {
        assert_eq!(registry.destination_of(&productpage, name), None, "{name}: {why}");
    }
    assert_eq!(
        registry.destination_of(&sidecar("other"), "reviews:9080"),
        None,
        "short names are the caller's"
    );
    assert!(registry.destination_of(&sidecar("other"), "reviews.default:9080").is_some());
}

#[test]
fn a_split_route_has_its_weights_and_a_service_without_routes_one_route() {
    let registry = bookinfo();
    let table = registry.table_of(&sidecar("default"), "outbound|9080|reviews.default.svc.cluster.local");
    let [route] = &table.hosts[0].routes[..] else { panic!("{table:?}") };
    assert_eq!(&*route.name, "reviews");
    assert_eq!(route.origin.to_string(), "HTTPRoute/default/reviews spec.rules[0]");
    assert_eq!(backends(route), "reviews-v1:0 reviews-v2:50 reviews-v3:50");

    let table = registry.table_of(&sidecar("default"), "outbound|9080|ratings.default.svc.cluster.local");
    let [route] = &table.hosts[0].routes[..] else { panic!("{table:?}") };
    assert_eq!((&*route.name, &*backends(route)), ("default", "ratings:1"));
}

#[test]
fn instances_are_endpoints_and_templates_are_not() {
    let registry = bookinfo();
    let endpoints = registry.endpoints_of("outbound|9080||reviews.default.svc.cluster.local").endpoints;
    let [v2, v3] = &endpoints[..] else { panic!("{endpoints:?}") };
    assert_eq!(v2.address.to_string(), "127.64.1.2:9080");
    assert_eq!(v2.health, Health::Healthy);
    assert_eq!(v2.workload.as_deref(), Some("default/reviews-v2-1"));
    assert_eq!(
        v2.identity.as_ref().map(|id| id.as_str()),
        Some("spiffe://cluster.local/ns/default/sa/bookinfo-reviews")
    );
    assert!(v2.meshed && !v3.meshed);
    assert_eq!(v3.health, Health::Draining);
    assert_eq!(
        v3.identity.as_ref().map(|id| id.as_str()),
        Some("spiffe://cluster.local/ns/default/sa/default")
    );

    let none = registry.endpoints_of("outbound|9080||details.default.svc.cluster.local");
    assert_eq!(none.endpoints, [], "a service whose instances are not up");
}

#[test]
fn an_instance_can_be_addressed_itself() {
    let registry = bookinfo();
    let who = sidecar("default");
    let destination = registry.destination_of(&who, "127.64.1.2:9080").expect("an instance");
    assert_eq!((destination.service, destination.protocol), (None, Protocol::Http));
    let table = registry.table_of(&who, destination.routes.as_str());
    assert_eq!(table.hosts[0].routes[0].action, {
        let Action::Forward(mut forward) = table.hosts[0].routes[0].action.clone() else { panic!() };
        forward.backends[0].target = BackendTarget::Cluster("outbound|9080||127.64.1.2".into());
        Action::Forward(forward)
    });
    let cluster = registry.cluster_of(&who, "outbound|9080||127.64.1.2");
    assert_eq!((cluster.service, cluster.discovery), (None, Discovery::Endpoints));
    let endpoints = registry.endpoints_of("outbound|9080||127.64.1.2").endpoints;
    assert_eq!(endpoints[0].address.to_string(), "127.64.1.2:9080");
}

#[test]
fn a_sidecar_learns_its_own_ports() {
    let registry = bookinfo();
    let inbound = registry.inbound_of(&Subscriber::sidecar("default", "reviews-v2-1")).expect("an instance");
    assert_eq!(&*inbound.workload.service_account, "bookinfo-reviews");
    let [port] = &inbound.ports[..] else { panic!("{inbound:?}") };
    assert_eq!((port.port, port.protocol), (9080, Protocol::Http));
    assert_eq!(port.app.to_string(), "127.64.2.2:19080");
    assert_eq!(port.service.as_ref().unwrap().to_string(), "reviews.default");
    let template = Subscriber::sidecar("default", "reviews-v2");
    assert_eq!(registry.inbound_of(&template), None, "a template is no instance");
}

#[test]
fn the_gateway_leads_to_the_page() {
    let registry = bookinfo();
    let who = Subscriber::gateway("default", "bookinfo-gateway");
    let name = "gateway|default/bookinfo-gateway";
    let Some(Resource::Listener(Listener::Gateway(gateway))) =
        registry.resolve(&who, ResourceKind::Listener, name)
    else {
        panic!("no gateway")
    };
    let [port] = &gateway.ports[..] else { panic!("{gateway:?}") };
    assert_eq!(port.port, 8080);
    let GatewayProtocol::Http { routes } = &port.listeners[0].protocol else { panic!("{port:?}") };
    assert_eq!(routes.as_str(), "gateway|default/bookinfo-gateway|8080|http");
    let table = registry.table_of(&who, routes.as_str());
    let paths: Vec<_> = table.hosts[0].routes.iter().map(|route| &route.matches.path).collect();
    let exact = |path: &str| PathMatch::Exact(path.into());
    // Exact paths first, in the order of the rule; then prefixes, the longest first.
    let want = [
        exact("/productpage"),
        exact("/login"),
        exact("/logout"),
        PathMatch::prefix("/api/v1/products"),
        PathMatch::prefix("/static"),
    ];
    assert_eq!(paths, want.iter().collect::<Vec<_>>());
    let cluster = registry.cluster_of(&who, "outbound|9080||productpage.default.svc.cluster.local");
    assert_eq!(cluster.http, UpstreamHttp::Http1);
    assert_eq!(registry.resolve(&sidecar("default"), ResourceKind::Listener, name), None, "not for others");
}
