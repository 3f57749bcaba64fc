//! Route match, endpoint choice, header edits: pure functions of the request's path.

use std::fmt::Write;
use std::hint::black_box;

use anyhow::{Context, bail};
use http::{HeaderMap, HeaderValue, Method};
use outrigger_config::model::{
    ClusterName, Gateway, GatewayProtocol, Listener, RequestHead, Resource, ResourceKind,
};
use outrigger_config::registry::{Registry, Store};
use outrigger_config::resolve::Subscriber;
use outrigger_config::source::{Content, Files};
use outrigger_proxy::route::{Action, Table, Upstream, apply_header_edits};
use outrigger_proxy::telemetry::{Direction, Metrics};
use outrigger_proxy::upstream::Cluster;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::report;

pub fn run() -> anyhow::Result<()> {
    for routes in [1, 100, 10_000] {
        let table = compiled(&mesh(routes, 1))?;
        let headers = HeaderMap::new();
        // The last one of the list.
        let path = format!("/route-{}/item", routes - 1);
        let head = RequestHead {
            method: &Method::GET,
            host: "example.com",
            path: &path,
            query: None,
            headers: &headers,
        };
        let found = table.find(&head).context("no route")?;
        anyhow::ensure!(matches!(found.action, Action::Forward(_)), "not the route that was meant");
        report(&format!("match: one of {routes} routes by prefix"), 0.0, || {
            black_box(table.find(black_box(&head)));
        });
    }
    for endpoints in [1, 100] {
        let cluster = cluster(&mesh(1, endpoints))?;
        let mut rng = SmallRng::seed_from_u64(7);
        let now = Instant::now();
        cluster.pick(now, &mut rng, &[]).context("no endpoint")?;
        report(&format!("pick: one of {endpoints} endpoints"), 0.0, || {
            black_box(cluster.pick(black_box(now), &mut rng, &[])).expect("there was one before");
        });
    }
    let table = compiled(&mesh(1, 1))?;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "example.com"),
        ("user-agent", "bench"),
        ("accept", "*/*"),
        ("x-old", "1"),
        ("x-stage", "dev"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let head = RequestHead {
        method: &Method::GET,
        host: "example.com",
        path: "/route-0/",
        query: None,
        headers: &HeaderMap::new(),
    };
    let edits = table.find(&head).context("no route")?.request_headers.clone();
    let mut copy = headers.clone();
    // Of these, the two allocations of the copy are the bench's.
    report("rewrite: a header set, one added, one removed", 2.0, || {
        copy.clone_from(&headers);
        apply_header_edits(&edits, black_box(&mut copy));
    });
    Ok(())
}

/// A gateway with so many routes, each of which edits headers, to one service with so many endpoints.
fn mesh(routes: usize, endpoints: usize) -> String {
    let addresses: Vec<_> =
        (0..endpoints).map(|n| format!("{{addresses: [\"10.0.{}.{}\"]}}", n / 250, n % 250 + 1)).collect();
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: Gateway\n\
         metadata: {{name: front}}\n\
         spec: {{gatewayClassName: outrigger, listeners: [{{name: web, port: 8080, protocol: HTTP}}]}}\n\
         ---\n\
         apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: app}}\n\
         spec: {{ports: [{{name: http, port: 80}}]}}\n\
         ---\n\
         apiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\n\
         metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}\n\
         addressType: IPv4\n\
         endpoints: [{}]\n\
         ports: [{{name: http, port: 8080}}]\n\
         ---\n",
        addresses.join(", ")
    );
    for n in 0..routes {
        let _ = write!(
            text,
            "apiVersion: gateway.networking.k8s.io/v1\n\
             kind: HTTPRoute\n\
             metadata: {{name: route-{n}}}\n\
             spec:\n  parentRefs: [{{name: front}}]\n  rules:\n  - matches: [{{path: {{value: /route-{n}}}}}]\n    \
             filters:\n    - type: RequestHeaderModifier\n      requestHeaderModifier:\n        \
             set: [{{name: x-stage, value: prod}}]\n        add: [{{name: x-new, value: \"1\"}}]\n        remove: [x-old]\n    \
             backendRefs: [{{name: app, port: 80}}]\n\
             ---\n"
        );
    }
    text
}

fn registry(mesh: &str) -> std::sync::Arc<Registry> {
    let mut files = Files::default();
    files.insert("mesh.yaml", Content::Text(mesh.into()));
    Store::new().update(&files)
}

fn gateway() -> Subscriber {
    Subscriber::gateway("default", "front")
}

fn compiled(mesh: &str) -> anyhow::Result<Table> {
    let registry = registry(mesh);
    let listener = Gateway::resource_name("default", "front");
    let Some(Resource::Listener(Listener::Gateway(listener))) =
        registry.resolve(&gateway(), ResourceKind::Listener, &listener)
    else {
        bail!("no gateway")
    };
    let GatewayProtocol::Http { routes } = &listener.ports[0].listeners[0].protocol else {
        bail!("not HTTP")
    };
    let Some(Resource::RouteTable(table)) =
        registry.resolve(&gateway(), ResourceKind::RouteTable, routes.as_str())
    else {
        bail!("no route table")
    };
    let metrics = Metrics::new(1);
    let service = metrics.service(Direction::Outbound, None);
    let cluster = cluster(mesh)?;
    let upstream = |_: &ClusterName| Upstream { cluster: cluster.clone(), attempts: metrics.attempts(None) };
    Ok(Table::compile(&table, upstream, |route| service.route(&route.name), |_| None))
}

fn cluster(mesh: &str) -> anyhow::Result<std::sync::Arc<Cluster>> {
    let registry = registry(mesh);
    let name = ClusterName::outbound(80, "", "app.default.svc.cluster.local");
    let both = (
        registry.resolve(&gateway(), ResourceKind::Cluster, name.as_str()),
        registry.resolve(&gateway(), ResourceKind::Endpoints, name.as_str()),
    );
    let (Some(Resource::Cluster(settings)), Some(Resource::Endpoints(endpoints))) = both else {
        bail!("no cluster")
    };
    let cluster = Cluster::new(settings);
    cluster.set_endpoints(endpoints);
    Ok(cluster)
}
