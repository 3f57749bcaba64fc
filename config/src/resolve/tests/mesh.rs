//! The semantics that the Gateway API's conformance tests for meshes pin down, and GEP-1426 behind them.

use super::*;
use crate::model::{
    HostPattern, HostPattern as Host, PathRewrite, Protocol, RequestHead, RouteTable, WeightedCluster,
};
use crate::registry::tests::{registry, services};

/// The conformance suite's own shape: `echo` in front, versions behind, the same ports on each.
fn echo() -> String {
    [("echo", 4), ("echo-v1", 5), ("echo-v2", 6)]
        .map(|(name, last)| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mesh}}\n\
                 spec:\n  selector: {{app: {name}}}\n  clusterIP: 10.0.0.{last}\n  ports:\n\
                 \x20 - {{name: http, port: 80, appProtocol: http, targetPort: http-port}}\n\
                 \x20 - {{name: http-alt, port: 8080, appProtocol: http}}\n\
                 \x20 - {{name: https, port: 443}}\n\
                 \x20 - {{name: tcp, port: 9090}}\n\
                 \x20 - {{name: grpc, port: 7070, appProtocol: kubernetes.io/h2c}}\n---\n"
            )
        })
        .concat()
}

fn http_route(name: &str, namespace: &str, parents: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRefs: [{parents}]\n  rules: {rules}\n---\n"
    )
}

fn table(registry: &Registry, caller: &str, port: u16, service: &str) -> RouteTable {
    registry.table_of(&sidecar(caller), &format!("outbound|{port}|{service}.mesh.svc.cluster.local"))
}

/// The name of the route and the backends that take a GET of a path; `404` where none does.
fn takes(table: &RouteTable, path: &str) -> String {
    let headers = http::HeaderMap::new();
    let request =
        RequestHead { method: &http::Method::GET, host: "any.host", path, query: None, headers: &headers };
    table.find(&request).map_or("404".into(), |route| format!("{} {}", route.name, backends(route)))
}

#[test]
fn a_split_by_path_has_no_catch_all() {
    let registry = registry(
        &(echo()
            + &http_route(
                "split",
                "mesh",
                "{group: '', kind: Service, name: echo}",
                "\n  - {matches: [{path: {type: Exact, value: /v1}}], backendRefs: [{name: echo-v1, port: 80}]}\
                 \n  - {matches: [{path: {type: Exact, value: /v2}}], backendRefs: [{name: echo-v2, port: 80}]}",
            )),
    );
    let echo = table(&registry, "mesh", 80, "echo");
    assert_eq!(echo.hosts[0].domains, [Host::Any], "a mesh route is for every Host header");
    for (path, want) in
        [("/v1", "split echo-v1:1"), ("/v2", "split echo-v2:1"), ("/v1/x", "404"), ("/", "404")]
    {
        assert_eq!(takes(&echo, path), want, "{path}");
    }
    // Backends are backends: their own routes, had they any, do not apply on the way there.
    assert_eq!(takes(&table(&registry, "mesh", 80, "echo-v1"), "/"), "default echo-v1:1");
}

#[test]
fn a_parent_port_limits_a_route_and_its_absence_does_not() {
    let registry = registry(
        &(echo()
            + &http_route(
                "v1",
                "mesh",
                "{group: '', kind: Service, name: echo-v1, port: 80}",
                "[{backendRefs: [{name: echo-v1, port: 80}]}]",
            )
            + &http_route(
                "v2",
                "mesh",
                "{group: '', kind: Service, name: echo-v2}",
                "[{backendRefs: [{name: echo-v2, port: 80}]}]",
            )
            + &http_route(
                "by-name",
                "mesh",
                "{group: '', kind: Service, name: echo, sectionName: http-alt}",
                "[{backendRefs: [{name: echo, port: 80}]}]",
            )),
    );
    for (service, port, want) in [
        ("echo-v1", 80, "v1 echo-v1:1"),
        ("echo-v1", 8080, "default echo-v1:1"),
        ("echo-v2", 80, "v2 echo-v2:1"),
        ("echo-v2", 8080, "v2 echo-v2:1"),
        ("echo-v2", 7070, "v2 echo-v2:1"),
        ("echo-v2", 9090, "default echo-v2:1"), // declared tcp: an HTTPRoute means nothing there
        ("echo", 80, "default echo:1"),
        ("echo", 8080, "by-name echo:1"),
    ] {
        assert_eq!(takes(&table(&registry, "mesh", port, service), "/"), want, "{service}:{port}");
    }
}

#[test]
fn a_consumer_route_binds_callers_of_its_own_namespace_and_hides_the_producers() {
    let to_v1 = "{group: '', kind: Service, name: echo, namespace: mesh}";
    let registry = registry(
        &(echo()
            + &http_route("producer", "mesh", to_v1, "[{backendRefs: [{name: echo-v1, port: 80}]}]")
            + &http_route(
                "consumer",
                "consumer",
                to_v1,
                "[{matches: [{path: {value: /own}}], backendRefs: [{name: echo-v2, namespace: mesh, port: 80}]}]",
            )),
    );
    assert_eq!(registry.findings(), [""; 0], "no grant is needed inside the mesh");
    for (caller, path, want) in [
        ("mesh", "/own", "producer echo-v1:1"),
        ("third", "/own", "producer echo-v1:1"),
        ("consumer", "/own", "consumer echo-v2:1"),
        ("consumer", "/other", "404"), // the consumer's routes replace the producer's as a whole
    ] {
        assert_eq!(takes(&table(&registry, caller, 80, "echo"), path), want, "{caller} {path}");
    }
}

#[test]
fn routes_belong_to_the_service_and_not_to_the_instances_behind_it() {
    let registry = registry(
        &(echo()
            + &http_route(
                "split",
                "mesh",
                "{group: '', kind: Service, name: echo}",
                "[{backendRefs: [{name: echo-v1, port: 80}]}]",
            )
            + "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\n\
               metadata: {name: echo-1, namespace: mesh, labels: {app: echo}}\n\
               spec: {address: 127.64.1.1, ports: [{name: http-port, port: 8080, appProtocol: http}]}\n"),
    );
    let who = sidecar("mesh");
    for (name, routes) in [
        ("10.0.0.4:80", "outbound|80|echo.mesh.svc.cluster.local"), // by its cluster IP, whatever the Host header says
        ("127.64.1.1:8080", "outbound|8080|127.64.1.1"),
    ] {
        let destination = registry.destination_of(&who, name).expect(name);
        assert_eq!(destination.routes.as_str(), routes);
        let want = if name.starts_with("10.") { "split echo-v1:1" } else { "default 127:1" };
        assert_eq!(takes(&registry.table_of(&who, routes), "/"), want, "{name}");
    }
    assert_eq!(registry.destination_of(&who, "10.0.0.4:81"), None, "no such port on that address");
}

#[test]
fn a_grpc_route_goes_before_an_http_route_on_the_same_port() {
    let registry = registry(
        &(echo()
            + &http_route(
                "pages",
                "mesh",
                "{group: '', kind: Service, name: echo}",
                "[{backendRefs: [{name: echo-v1, port: 80}]}]",
            )
            + "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n\
               metadata: {name: calls, namespace: mesh}\n\
               spec:\n  parentRefs: [{group: '', kind: Service, name: echo, port: 7070}]\n  rules:\n  \
               - matches: [{method: {service: gateway_api.Echo, method: Say}}]\n    \
                 backendRefs: [{name: echo-v1, port: 7070, weight: 70}, {name: echo-v2, port: 7070, weight: 30}]\n"),
    );
    assert_eq!(takes(&table(&registry, "mesh", 80, "echo"), "/"), "pages echo-v1:1");
    let calls = table(&registry, "mesh", 7070, "echo");
    assert_eq!(takes(&calls, "/gateway_api.Echo/Say"), "calls echo-v1:70 echo-v2:30");
    assert_eq!(takes(&calls, "/gateway_api.Echo/Other"), "404");
    let cluster = registry.cluster_of(&sidecar("mesh"), "outbound|7070||echo-v1.mesh.svc.cluster.local");
    assert_eq!(cluster.http, crate::model::UpstreamHttp::Http2);
}

#[test]
fn filters_become_edits_redirects_and_rewrites_of_the_match_they_go_with() {
    let registry = registry(
        &(echo()
            + &http_route(
                "all",
                "mesh",
                "{group: '', kind: Service, name: echo, port: 80}",
                r#"
  - name: rewrite
    matches: [{path: {value: /one/}}]
    filters:
    - {type: URLRewrite, urlRewrite: {hostname: h.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: "1"}], remove: [X-B]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-C, value: "2"}]}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: echo-v2, port: 80}, percent: 42}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}
    timeouts: {request: 5s, backendRequest: 0s}
    backendRefs:
    - name: echo-v1
      port: 80
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-V, value: v1}]}}]
    - {name: gone, port: 80, weight: 2}
  - matches: [{path: {value: /moved}}]
    filters:
    - {type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, statusCode: 308, path: {type: ReplaceFullPath, replaceFullPath: /there}}}
"#,
            )),
    );
    let table = table(&registry, "mesh", 80, "echo");
    let [moved, one] = &table.hosts[0].routes[..] else { panic!("{table:#?}") };
    assert_eq!((&*one.name, &*one.origin.field), ("all/rewrite", "spec.rules[0].matches[0]"));
    let Action::Forward(forward) = &one.action else { panic!() };
    let path = PathRewrite::Prefix { matched: "/one".into(), replacement: "/new".into() };
    assert_eq!(forward.rewrite.path, Some(path));
    assert_eq!(forward.rewrite.host.as_deref(), Some("h.example.com"));
    assert_eq!(backends(one), "echo-v1:1 invalid:2");
    assert_eq!(forward.backends[0].request_headers.set[0].0, "x-v");
    assert_eq!(one.request_headers.remove, ["x-b"]);
    assert_eq!(one.response_headers.add[0].0, "x-c");
    let [mirror] = &one.mirrors[..] else { panic!("a mirror that leads nowhere is left out") };
    assert_eq!(mirror.fraction.millionths(), 420_000);
    assert_eq!(one.timeouts.request, Some(std::time::Duration::from_secs(5)));
    assert_eq!(one.timeouts.backend_request, None);
    let Action::Redirect(redirect) = &moved.action else { panic!() };
    assert_eq!((redirect.status.as_u16(), redirect.port), (308, Some(8443)));
    assert_eq!(redirect.path, Some(PathRewrite::Full("/there".into())));
}

fn stream_route(kind: &str, name: &str, parent: &str, backends: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: {kind}\nmetadata: {{name: {name}, namespace: mesh}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: {parent}}}]\n  \
         rules: [{{backendRefs: {backends}}}]\n---\n"
    )
}

#[test]
fn tcp_and_tls_routes_split_connections() {
    let both = "[{name: echo-v1, port: 9090, weight: 9}, {name: gone, port: 9090}]";
    let registry = registry(
        &(echo()
            + &stream_route("TCPRoute", "tcp", "echo, port: 9090", both)
            + &stream_route("TLSRoute", "tls", "echo, port: 443", "[{name: echo-v2, port: 443}]")),
    );
    let of = |port: u16| registry.destination_of(&sidecar("mesh"), &format!("echo:{port}")).unwrap();
    let cluster = |name: &str, weight| WeightedCluster { cluster: name.into(), weight };
    assert_eq!(of(9090).protocol, Protocol::Tcp);
    assert_eq!(
        of(9090).tcp.backends,
        [
            cluster("outbound|9090||echo-v1.mesh.svc.cluster.local", 9),
            // Its share is refused: a cluster of this name never resolves.
            cluster("outbound|0|invalid|gone.mesh", 1),
        ]
    );
    assert_eq!(
        registry.resolve(&sidecar("mesh"), ResourceKind::Cluster, "outbound|0|invalid|gone.mesh"),
        None
    );
    let tls = of(443);
    assert_eq!((tls.protocol, &tls.tls[0].sni), (Protocol::Tls, &HostPattern::Any));
    assert_eq!(tls.tls[0].forward.backends, [cluster("outbound|443||echo-v2.mesh.svc.cluster.local", 1)]);
    assert_eq!(of(80).tcp.backends, [cluster("outbound|80||echo.mesh.svc.cluster.local", 1)]);
}

#[test]
fn an_http_route_hides_a_tcp_route_on_the_same_port() {
    let registry = registry(
        &(echo()
            + &stream_route("TCPRoute", "tcp", "echo, port: 80", "[{name: echo-v2, port: 80}]")
            + &http_route(
                "http",
                "mesh",
                "{group: '', kind: Service, name: echo}",
                "[{backendRefs: [{name: echo-v1, port: 80}]}]",
            )),
    );
    assert_eq!(registry.destination_of(&sidecar("mesh"), "echo:80").unwrap().protocol, Protocol::Http);
    assert_eq!(takes(&table(&registry, "mesh", 80, "echo"), "/"), "http echo-v1:1");
}

#[test]
fn a_rule_without_backends_refuses_and_a_service_without_instances_is_still_a_service() {
    let registry = registry(
        &(services(&["mesh/a"]) + &http_route("none", "mesh", "{group: '', kind: Service, name: a}", "[{}]")),
    );
    assert_eq!(takes(&table(&registry, "mesh", 80, "a"), "/x"), "none ");
    let endpoints = registry.endpoints_of("outbound|80||a.mesh.svc.cluster.local");
    assert_eq!(endpoints.endpoints, []);
}
