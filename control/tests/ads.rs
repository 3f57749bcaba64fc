//! Delta ADS over loopback, as a proxy sees it; `identity`: certificates, and the same over TLS.

mod identity;
mod plane;

use std::collections::BTreeMap;

use outrigger_config::model::{Action, Resource, ResourceKind, RouteTable};
use outrigger_config::xds::{Node, Role};
use plane::{Client, Plane, sidecar, soon};
use serde_json::json;
use tonic::transport::Endpoint;

const LISTENER: ResourceKind = ResourceKind::Listener;
const ROUTES: ResourceKind = ResourceKind::RouteTable;
const CLUSTER: ResourceKind = ResourceKind::Cluster;
const ENDPOINTS: ResourceKind = ResourceKind::Endpoints;

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";
const RATINGS: &str = "outbound|9080||ratings.default.svc.cluster.local";
const REVIEWS_TABLE: &str = "outbound|9080|reviews.default.svc.cluster.local";

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{app: {name}}}\n  \
         ports: [{{name: http, port: 9080, appProtocol: http}}]\n---\n"
    )
}

fn workload(app: &str, name: &str, address: &str, state: &str, generation: i64) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: {name}\n  labels: {{app: {app}}}\n  \
         generation: {generation}\nspec:\n  address: {address}\n  ports: [{{name: http, port: 9080}}]\n\
         status: {{state: {state}}}\n"
    )
}

fn route(weights: [u32; 2], generation: i64) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, generation: {generation}}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: reviews, port: 9080}}]\n  rules:\n    - backendRefs:\n        \
         - {{name: reviews, port: 9080, weight: {}}}\n        - {{name: ratings, port: 9080, weight: {}}}\n",
        weights[0], weights[1]
    )
}

/// reviews and ratings with an instance each, and a route between them.
async fn bookinfo() -> Plane {
    let services = service("reviews") + &service("ratings");
    Plane::start(&[
        ("services.yaml", &services),
        ("reviews.yaml", &workload("reviews", "reviews-1", "127.0.1.1", "Ready", 1)),
        ("ratings.yaml", &workload("ratings", "ratings-1", "127.0.1.2", "Ready", 1)),
        ("route.yaml", &route([1, 1], 1)),
    ])
    .await
}

fn weights(table: &Resource) -> Vec<u32> {
    let Resource::RouteTable(RouteTable { hosts, .. }) = table else { panic!("{table:?}") };
    let Action::Forward(forward) = &hosts[0].routes[0].action else { panic!("{table:?}") };
    forward.backends.iter().map(|backend| backend.weight).collect()
}

#[tokio::test]
async fn what_is_asked_for_is_answered_and_nothing_else() {
    let plane = bookinfo().await;
    let mut proxy = Client::connect(&plane, sidecar("reviews-1")).await;
    let inbound = proxy.ask(LISTENER, "inbound").await;
    assert!(matches!(inbound.only(), Resource::Listener(_)));
    let destination = proxy.ask(LISTENER, "outbound|reviews:9080").await;
    assert_eq!(destination.resources.keys().collect::<Vec<_>>(), ["outbound|reviews:9080"]);
    assert_eq!(weights(proxy.ask(ROUTES, REVIEWS_TABLE).await.only()), [1, 1]);
    proxy.ask(CLUSTER, REVIEWS).await;
    assert_eq!(proxy.ask(ENDPOINTS, REVIEWS).await.endpoints(), ["127.0.1.1:9080 Healthy"]);
    proxy.assert_heard_nothing().await;
    assert_eq!(proxy.heard, 6);
}

#[tokio::test]
async fn an_alias_is_answered_under_the_name_that_was_asked_for() {
    let plane = bookinfo().await;
    let mut proxy = Client::connect(&plane, sidecar("reviews-1")).await;
    let name = "outbound|reviews.default.svc:9080";
    let short = proxy.ask(LISTENER, "outbound|reviews:9080").await;
    let long = proxy.ask(LISTENER, name).await;
    let routes = |resource: &Resource| match resource {
        Resource::Listener(outrigger_config::model::Listener::Destination(destination)) => {
            destination.routes.to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(routes(short.only()), routes(long.only()), "one route table for both");
}

#[tokio::test]
async fn an_unknown_name_is_answered_at_once_and_pushed_when_it_appears() {
    let plane = bookinfo().await;
    let mut proxy = Client::connect(&plane, sidecar("reviews-1")).await;
    let name = "outbound|late:9080";
    let unknown = proxy.ask(LISTENER, name).await;
    assert_eq!((unknown.removed.as_slice(), unknown.resources.len()), ([name.to_owned()].as_slice(), 0));
    plane.write("late.yaml", &service("late"));
    assert!(proxy.take().await.resources.contains_key(name));
    plane.remove("late.yaml");
    assert_eq!(proxy.take().await.removed, [name]);
}

#[tokio::test]
async fn a_name_that_was_given_up_is_heard_of_no_more() {
    let plane = bookinfo().await;
    let mut proxy = Client::connect(&plane, sidecar("reviews-1")).await;
    proxy.ask(ENDPOINTS, REVIEWS).await;
    proxy.unsubscribe(ENDPOINTS, &[REVIEWS]).await;
    // Answered after the unsubscription was taken in: requests are handled in order.
    proxy.assert_heard_nothing().await;
    plane.write("reviews.yaml", &workload("reviews", "reviews-1", "127.0.1.9", "Ready", 2));
    plane.synced("Workload/default/reviews-1", 2).await;
    proxy.unsubscribe(LISTENER, &["outbound|fence.nowhere:1"]).await;
    proxy.assert_heard_nothing().await;
}

#[tokio::test]
async fn an_endpoint_that_moves_concerns_its_subscribers_only() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    let mut other = Client::connect(&plane, sidecar("details")).await;
    caller.ask(LISTENER, "outbound|reviews:9080").await;
    caller.ask(ROUTES, REVIEWS_TABLE).await;
    caller.ask(CLUSTER, REVIEWS).await;
    caller.ask(ENDPOINTS, REVIEWS).await;
    other.ask(LISTENER, "outbound|ratings:9080").await;
    other.ask(CLUSTER, RATINGS).await;
    other.ask(ENDPOINTS, RATINGS).await;

    plane.write("reviews.yaml", &workload("reviews", "reviews-1", "127.0.1.9", "Ready", 2));
    let moved = caller.take().await;
    assert_eq!(moved.endpoints(), ["127.0.1.9:9080 Healthy"]);
    let synced = plane.synced("Workload/default/reviews-1", 2).await;
    assert_eq!(synced["acked"], 1, "{synced}");
    caller.assert_heard_nothing().await;
    other.assert_heard_nothing().await;
}

#[tokio::test]
async fn draining_is_told_and_waited_for() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    caller.ask(ENDPOINTS, REVIEWS).await;
    plane.write("reviews.yaml", &workload("reviews", "reviews-1", "127.0.1.1", "Draining", 2));
    let draining = caller.hear().await;
    assert_eq!(draining.endpoints(), ["127.0.1.1:9080 Draining"]);

    let (status, answer) =
        plane.get("/v1/synced?object=Workload/default/reviews-1&generation=2&timeout=50ms").await;
    assert_eq!((status, &answer["pending"], &answer["acked"]), (504, &json!(1), &json!(0)), "{answer}");
    assert_eq!(answer["waitingFor"], json!([sidecar("productpage").id()]));
    let (status, answer) =
        plane.get("/v1/synced?object=Workload/default/reviews-1&generation=3&timeout=50ms").await;
    assert_eq!((status, &answer["reason"]), (504, &json!("Workload default/reviews-1 is at generation 2")));

    caller.ack(&draining).await;
    let answer = plane.synced("Workload/default/reviews-1", 2).await;
    assert_eq!((&answer["acked"], &answer["pending"]), (&json!(1), &json!(0)), "{answer}");
}

#[tokio::test]
async fn a_weight_changes_one_route_table() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    for (kind, name) in [
        (LISTENER, "outbound|reviews:9080"),
        (ROUTES, REVIEWS_TABLE),
        (CLUSTER, REVIEWS),
        (ENDPOINTS, REVIEWS),
    ] {
        caller.ask(kind, name).await;
    }
    plane.write("route.yaml", &route([90, 10], 2));
    assert_eq!(weights(caller.take().await.only()), [90, 10]);
    plane.synced("HTTPRoute/default/reviews", 2).await;
    caller.assert_heard_nothing().await;
}

#[tokio::test]
async fn a_moved_comment_is_pushed_to_nobody() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    caller.ask(LISTENER, "outbound|reviews:9080").await;
    caller.ask(ROUTES, REVIEWS_TABLE).await;
    plane.write("route.yaml", &format!("# why\n\n{}", route([1, 1], 2)));
    plane.synced("HTTPRoute/default/reviews", 2).await;
    caller.assert_heard_nothing().await;
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_version_and_is_in_the_status() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    caller.ask(ROUTES, REVIEWS_TABLE).await;
    plane.write("route.yaml", &route([1, 1], 2).replace("weight: 1", "wait: 1"));
    let status = plane.status(|status| status["diagnostics"].to_string().contains("wait")).await;
    let finding = status["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["severity"] == "error")
        .expect("an error");
    assert_eq!(finding["file"], json!(plane.path("route.yaml").to_str()));
    assert!(finding["line"].as_u64().is_some_and(|line| line > 1), "{finding}");
    assert!(plane.metric("outrigger_control_findings{severity=\"error\"}").await >= Some(1.0));
    // Another change goes through while the broken file stays.
    plane.write("reviews.yaml", &workload("reviews", "reviews-1", "127.0.1.9", "Ready", 2));
    plane.synced("Workload/default/reviews-1", 2).await;
    caller.assert_heard_nothing().await;

    plane.write("route.yaml", &route([3, 1], 3));
    assert_eq!(weights(caller.take().await.only()), [3, 1]);
    plane.status(|status| status["diagnostics"].as_array().is_some_and(Vec::is_empty)).await;
}

#[tokio::test]
async fn a_refusal_is_shown_with_file_and_line_and_ends_with_a_better_version() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    caller.subscribe(ROUTES, &[REVIEWS_TABLE]).await;
    let refused = caller.hear().await;
    caller.nack(&refused, REVIEWS_TABLE, "virtual_hosts[0].routes[0].route", "not today").await;
    let is_refused = |status: &serde_json::Value| {
        object(status, "HTTPRoute", "reviews")["programmed"]["reason"] == "Refused"
    };
    let status = plane.status(is_refused).await;
    let shown = object(&status, "HTTPRoute", "reviews");
    assert_eq!(shown["accepted"]["status"], "True");
    assert_eq!(shown["proxies"], json!({"applied": 0, "pending": 0, "refused": 1}));
    let shown = &shown["refused"][0];
    assert_eq!(shown["file"], json!(plane.path("route.yaml").to_str()));
    let line = std::fs::read_to_string(plane.path("route.yaml"))
        .unwrap()
        .lines()
        .position(|line| line.contains("- backendRefs"))
        .unwrap() as u64
        + 1;
    assert_eq!(shown["line"], line, "{shown}");
    assert_eq!(shown["reason"], "virtual_hosts[0].routes[0].route: not today");
    assert_eq!(shown["proxy"], sidecar("productpage").id());
    assert_eq!(status["proxies"][0]["resources"]["route_table"][REVIEWS_TABLE]["state"], "refused");
    assert_eq!(plane.metric("outrigger_control_nacks_total{kind=\"route_table\"}").await, Some(1.0));

    plane.write("route.yaml", &route([2, 1], 2));
    assert_eq!(weights(caller.take().await.only()), [2, 1]);
    plane
        .status(|status| object(status, "HTTPRoute", "reviews")["programmed"]["reason"] == "Programmed")
        .await;
}

fn object<'s>(status: &'s serde_json::Value, kind: &str, name: &str) -> &'s serde_json::Value {
    let objects = status["objects"].as_array().expect("objects");
    objects.iter().find(|object| object["kind"] == kind && object["name"] == name).expect("the object")
}

#[tokio::test]
async fn a_proxy_that_comes_back_with_its_versions_is_told_only_what_changed() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    let mut versions = BTreeMap::new();
    caller.subscribe(ENDPOINTS, &[REVIEWS, RATINGS]).await;
    versions.extend(caller.take().await.versions);
    assert_eq!(versions.len(), 2);
    drop(caller);

    let mut again = Client::connect(&plane, sidecar("productpage")).await;
    again.resume(ENDPOINTS, &versions).await;
    again.assert_heard_nothing().await;
    drop(again);

    plane.write("reviews.yaml", &workload("reviews", "reviews-1", "127.0.1.9", "Ready", 2));
    plane.synced("Workload/default/reviews-1", 2).await;
    versions.insert("outbound|1||gone.default.svc.cluster.local".into(), "x".into());
    let mut later = Client::connect(&plane, sidecar("productpage")).await;
    later.resume(ENDPOINTS, &versions).await;
    let changed = later.take().await;
    assert_eq!(changed.endpoints(), ["127.0.1.9:9080 Healthy"]);
    // What it had and is gone comes last.
    assert_eq!(later.take().await.removed, ["outbound|1||gone.default.svc.cluster.local"]);
    later.assert_heard_nothing().await;
}

#[tokio::test]
async fn a_name_asked_for_again_is_answered_again() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    caller.ask(ENDPOINTS, REVIEWS).await;
    // It may have dropped what it had (xDS, "delta").
    assert_eq!(caller.ask(ENDPOINTS, REVIEWS).await.endpoints().len(), 1);
}

#[tokio::test]
async fn what_is_new_comes_before_what_is_gone_and_clusters_before_their_users() {
    let plane = bookinfo().await;
    let mut caller = Client::connect(&plane, sidecar("productpage")).await;
    let (next, next_destination) = ("outbound|9080||next.default.svc.cluster.local", "outbound|next:9080");
    caller.ask(LISTENER, "outbound|ratings:9080").await;
    caller.ask(CLUSTER, RATINGS).await;
    for (kind, name) in [(LISTENER, next_destination), (CLUSTER, next), (ENDPOINTS, next)] {
        caller.ask(kind, name).await;
    }
    // One change takes ratings away and brings next.
    plane.write("services.yaml", &(service("reviews") + &service("next")));
    let mut heard = Vec::new();
    for _ in 0..5 {
        let response = caller.take().await;
        heard.push((response.kind, response.removed.is_empty()));
    }
    assert_eq!(
        heard,
        [(CLUSTER, true), (ENDPOINTS, true), (LISTENER, true), (LISTENER, false), (CLUSTER, false)]
    );
}

#[tokio::test]
async fn a_proxy_that_does_not_read_stalls_nobody_and_then_hears_the_newest_only() {
    let plane = bookinfo().await;
    // Some 400 KB of endpoints, more than fits on the way to a proxy that does not read.
    let slices = |generation: u16| {
        let port = 1_000 + generation;
        let slice = |part: u32| {
            let addresses: Vec<_> = (1..=1_000)
                .map(|i| format!("  - {{addresses: [\"10.{part}.{}.{}\"]}}\n", i / 250, i % 250))
                .collect();
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: big-{part}\n  \
                 generation: {generation}\n  labels: {{kubernetes.io/service-name: big}}\naddressType: IPv4\n\
                 ports: [{{name: http, port: {port}}}]\nendpoints:\n{}---\n",
                addresses.concat()
            )
        };
        (0..4).map(slice).collect::<String>()
    };
    let big = "outbound|9080||big.default.svc.cluster.local";
    plane.write("big-service.yaml", &service("big").replace("  selector: {app: big}\n", ""));
    plane.write("big.yaml", &slices(1));
    let object = "EndpointSlice/default/big-0";
    plane.synced(object, 1).await;

    let endpoint = Endpoint::from_shared(format!("http://{}", plane.ads)).unwrap();
    let narrow = endpoint.initial_stream_window_size(16 * 1024).initial_connection_window_size(16 * 1024);
    let mut slow = Client::over(narrow.connect().await.unwrap(), sidecar("slow")).await;
    slow.subscribe(ENDPOINTS, &[big]).await;
    let mut quick = Client::connect(&plane, sidecar("quick")).await;
    let mut newest = quick.ask(ENDPOINTS, big).await.endpoints();
    for generation in 2..12 {
        plane.write("big.yaml", &slices(generation));
        newest = quick.take().await.endpoints();
        assert_eq!(
            (newest.len(), &*newest[0]),
            (4_000, &*format!("10.0.0.1:{} Healthy", 1_000 + generation))
        );
    }
    let mut heard = 0;
    loop {
        let response = slow.take().await;
        heard += 1;
        if response.endpoints() == newest {
            break;
        }
    }
    assert!(heard <= 4, "{heard} responses for 11 states: what it had no time for is skipped");
    plane.synced(object, 11).await;
}

#[tokio::test]
async fn replicas_agree_on_versions() {
    let first = bookinfo().await;
    let second = bookinfo().await;
    let mut versions = Vec::new();
    for plane in [&first, &second] {
        let mut caller = Client::connect(plane, sidecar("productpage")).await;
        let mut seen = BTreeMap::new();
        for (kind, name) in [
            (LISTENER, "outbound|reviews:9080"),
            (ROUTES, REVIEWS_TABLE),
            (CLUSTER, REVIEWS),
            (ENDPOINTS, REVIEWS),
        ] {
            seen.extend(caller.ask(kind, name).await.versions.into_iter().map(|(n, v)| ((kind, n), v)));
        }
        versions.push(seen);
    }
    assert_eq!(versions[0].len(), 4);
    assert_eq!(versions[0], versions[1]);
}

#[tokio::test]
async fn who_asks_is_checked() {
    let plane = bookinfo().await;
    let mut nameless = sidecar("x").to_message();
    nameless.id = "x".into();
    let mut client = Client::connect(&plane, sidecar("x")).await;
    client.send_as(nameless, LISTENER, "inbound").await;
    let status = client.end().await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("sidecar~IP~WORKLOAD.NAMESPACE~DOMAIN"), "{status}");

    // A key is for the gateway that serves with it, whoever asks.
    let mut other = Client::connect(&plane, sidecar("reviews-1")).await;
    assert_eq!(other.ask(ResourceKind::Secret, "default/tls").await.removed, ["default/tls"]);
}

#[tokio::test]
async fn too_many_names_end_the_stream() {
    let plane = bookinfo().await;
    let mut client = Client::connect(&plane, sidecar("x")).await;
    let names: Vec<_> = (0..2_002).map(|i| format!("outbound|a{i}:80")).collect();
    client.subscribe(LISTENER, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let status = client.end().await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    // Nobody else notices.
    let mut other = Client::connect(&plane, sidecar("y")).await;
    assert_eq!(other.ask(LISTENER, "outbound|reviews:9080").await.resources.len(), 1);
}

#[tokio::test]
async fn a_newer_stream_of_the_same_process_ends_the_older() {
    let plane = bookinfo().await;
    let node = Node { instance: Some("7".into()), ..sidecar("x") };
    let mut older = Client::connect(&plane, node.clone()).await;
    older.ask(LISTENER, "inbound").await;
    let mut newer = Client::connect(&plane, node).await;
    newer.ask(LISTENER, "inbound").await;
    assert!(older.end().await.is_ok());
    let status = plane.status(|status| status["proxies"].as_array().is_some_and(|p| p.len() == 1)).await;
    assert_eq!(status["gone"], json!([]), "it is not gone");

    // A second process of that name, as in a rolling restart, is another proxy.
    let mut second = Client::connect(&plane, Node { instance: Some("8".into()), ..sidecar("x") }).await;
    second.ask(LISTENER, "inbound").await;
    newer.assert_heard_nothing().await;
}

#[tokio::test]
async fn a_gateway_gets_its_listener_and_what_is_behind_it() {
    let plane = bookinfo().await;
    plane.write(
        "gateway.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, generation: 1}\nspec:\n  \
         gatewayClassName: outrigger\n  listeners: [{name: http, port: 8080, protocol: HTTP}]\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec:\n  \
         parentRefs: [{name: web}]\n  rules: [{backendRefs: [{name: reviews, port: 9080}]}]\n",
    );
    plane.synced("Gateway/default/web", 1).await;
    let node = Node::new(Role::Gateway { namespace: "default".into(), name: "web".into() }, None);
    let mut gateway = Client::connect(&plane, node.clone()).await;
    assert!(gateway.ask(LISTENER, "gateway|default/web").await.resources.len() == 1);
    let table = gateway.ask(ROUTES, "gateway|default/web|8080|http").await;
    assert_eq!(weights(table.only()), [1]);

    // Envoy knows no names to ask for and asks for everything.
    let mut all = Client::connect(&plane, node).await;
    all.subscribe(CLUSTER, &[]).await;
    assert_eq!(all.take().await.resources.keys().collect::<Vec<_>>(), [REVIEWS]);
    all.subscribe(LISTENER, &[]).await;
    assert_eq!(all.take().await.resources.keys().collect::<Vec<_>>(), ["gateway|default/web"]);
    plane.write(
        "more.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: more}\nspec:\n  \
         parentRefs: [{name: web}]\n  rules: [{matches: [{path: {value: /r}}], backendRefs: [{name: ratings, port: 9080}]}]\n",
    );
    assert_eq!(all.take().await.resources.keys().collect::<Vec<_>>(), [RATINGS]);
    plane.remove("more.yaml");
    assert_eq!(all.take().await.removed, [RATINGS]);
}

#[tokio::test]
async fn the_end_closes_streams_and_ports() {
    let mut plane = bookinfo().await;
    let mut client = Client::connect(&plane, sidecar("x")).await;
    client.ask(LISTENER, "inbound").await;
    assert_eq!(plane.get("/healthz/ready").await.0, 200);
    plane.stop();
    assert!(client.end().await.is_ok(), "a plain end, so that the proxy connects again");
    soon("the end", &mut plane.server).await.unwrap().unwrap();
}
