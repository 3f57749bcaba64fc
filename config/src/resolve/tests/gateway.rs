//! Gateways: which hosts a route serves at which listener, who terminates what, and whose key goes where.

use super::*;
use crate::model::{Gateway, GatewayListener, GatewayProtocol, RequestHead, SecretName, TcpForward};
use crate::registry::tests::{registry, services};

fn gateway(listeners: &str) -> String {
    services(&["default/a", "default/b", "other/c"])
        + &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gate}}\n\
             spec:\n  gatewayClassName: outrigger\n  listeners: {listeners}\n---\n"
        )
}

fn route(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "TCPRoute" | "TLSRoute" => "v1alpha2",
        _ => "v1",
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

fn http(name: &str, section: &str, hostnames: &str, path: &str, backend: &str) -> String {
    let section = if section.is_empty() { String::new() } else { format!(", sectionName: {section}") };
    let spec = format!(
        "{{parentRefs: [{{name: gate{section}}}], hostnames: [{hostnames}], \
         rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {backend}, port: 80}}]}}]}}"
    );
    route("HTTPRoute", name, &spec)
}

fn who() -> Subscriber {
    Subscriber::gateway("default", "gate")
}

fn listener(registry: &Registry) -> Gateway {
    match registry.resolve(&who(), ResourceKind::Listener, "gateway|default/gate") {
        Some(Resource::Listener(Listener::Gateway(gateway))) => gateway,
        other => panic!("{other:?}"),
    }
}

/// What a listener of a gateway does with a GET: the backends, `404`, or `no listener`.
fn get(registry: &Registry, port: u16, host: &str, path: &str) -> String {
    let gateway = listener(registry);
    let Some(port) = gateway.ports.iter().find(|p| p.port == port) else { return "no listener".into() };
    let Some(listener) = port.listeners.iter().find(|listener| listener.hostname.matches(host)) else {
        return "no listener".into();
    };
    let (GatewayProtocol::Http { routes } | GatewayProtocol::Https { routes, .. }) = &listener.protocol
    else {
        panic!("{listener:?}")
    };
    let table = registry.table_of(&who(), routes.as_str());
    let headers = http::HeaderMap::new();
    let request = RequestHead { method: &http::Method::GET, host, path, query: None, headers: &headers };
    table.find(&request).map_or("404".into(), |route| format!("{} {}", route.name, backends(route)))
}

#[test]
fn a_route_serves_the_hosts_it_shares_with_the_listener() {
    let registry = registry(
        &(gateway(
            "[{name: any, port: 80, protocol: HTTP}, \
              {name: wild, port: 80, protocol: HTTP, hostname: '*.example.com'}, \
              {name: one, port: 80, protocol: HTTP, hostname: a.example.com}]",
        ) + &http("wide", "wild", "", "/", "a")
            + &http("narrow", "wild", "'b.example.com', 'b.example.org'", "/", "b")
            + &http("exact", "one", "'*.example.com'", "/x", "b")
            + &http("rest", "any", "'*.org'", "/", "a")),
    );
    for (host, path, want) in [
        ("c.example.com", "/", "wide a:1"),
        ("b.example.com", "/", "narrow b:1"),
        // The most specific listener has the host, and what its routes do not take nobody takes.
        ("a.example.com", "/x", "exact b:1"),
        ("a.example.com", "/", "404"),
        ("b.example.org", "/", "rest a:1"), // `narrow` is attached to `wild` alone
        ("example.com", "/", "404"),        // no host of `rest`
    ] {
        assert_eq!(get(&registry, 80, host, path), want, "{host}{path}");
    }
    assert_eq!(registry.findings(), [""; 0]);
}

#[test]
fn rules_of_a_wider_host_take_what_those_of_the_narrower_leave() {
    let registry = registry(
        &(gateway("[{name: any, port: 80, protocol: HTTP}]")
            + &http("api", "", "app.example.com", "/api", "a")
            + &http("site", "", "'*.example.com'", "/", "b")
            + &http("also-api", "", "'*.example.com'", "/api/v1", "b")),
    );
    for (host, path, want) in [
        ("app.example.com", "/api/v1", "api a:1"), // the longer path belongs to the wider host
        ("app.example.com", "/", "site b:1"),
        ("web.example.com", "/api/v1", "also-api b:1"),
        ("example.org", "/", "404"),
    ] {
        assert_eq!(get(&registry, 80, host, path), want, "{host}{path}");
    }
}

#[test]
fn an_older_route_of_the_other_http_kind_keeps_its_host() {
    let grpc = route(
        "GRPCRoute",
        "calls",
        "{parentRefs: [{name: gate}], hostnames: [a.example.com], rules: [{backendRefs: [{name: b, port: 80}]}]}",
    );
    let http = http("pages", "", "'*.example.com'", "/", "a");
    let aged = |text: &str, name: &str, created: &str| {
        text.replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, creationTimestamp: '{created}T00:00:00Z'}}"),
        )
    };
    for (grpc_born, http_born, want) in [
        ("2026-01-01", "2026-02-01", "calls b:1"),
        ("2026-02-01", "2026-01-01", "pages a:1"),
        ("2026-01-01", "2026-01-01", "calls b:1"), // by name
    ] {
        let text = gateway("[{name: any, port: 80, protocol: HTTP}]")
            + &aged(&grpc, "calls", grpc_born)
            + &aged(&http, "pages", http_born);
        let registry = registry(&text);
        assert_eq!(get(&registry, 80, "a.example.com", "/x.Y/Z"), want, "{grpc_born} {http_born}");
        assert_eq!(registry.findings().len(), 1, "the other one is told");
    }
}

const SECRETS: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: cert}\ntype: kubernetes.io/tls\n\
    stringData: {tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: '-----BEGIN PRIVATE KEY-----'}\n---\n\
    apiVersion: v1\nkind: Secret\nmetadata: {name: unused}\ntype: kubernetes.io/tls\n\
    stringData: {tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: '-----BEGIN PRIVATE KEY-----'}\n---\n\
    apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: other}\ntype: kubernetes.io/tls\n\
    stringData: {tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: '-----BEGIN PRIVATE KEY-----'}\n---\n";

#[test]
fn a_key_goes_to_the_gateway_that_refers_to_it_and_to_nobody_else() {
    let text = gateway(
        "[{name: tls, port: 443, protocol: HTTPS, \
           tls: {certificateRefs: [{name: cert}, {name: cert, namespace: other}, {name: gone}]}}]",
    ) + SECRETS;
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
                 metadata: {name: g, namespace: other}\nspec:\n  \
                 from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}]\n  \
                 to: [{group: '', kind: Secret}]\n";
    for (text, granted) in [(text.clone(), false), (text + grant, true)] {
        let registry = registry(&text);
        let GatewayListener { protocol: GatewayProtocol::Https { certificates, .. }, .. } =
            &listener(&registry).ports[0].listeners[0]
        else {
            panic!()
        };
        let mut want = vec![SecretName::new("default/cert")];
        want.extend(granted.then(|| SecretName::new("other/cert")));
        assert_eq!(certificates, &want);
        for (who, name, may) in [
            (who(), "default/cert", true),
            (who(), "other/cert", granted),
            (who(), "default/unused", false), // no listener refers to it
            (who(), "default/gone", false),
            (Subscriber::gateway("default", "other-gate"), "default/cert", false),
            (Subscriber::gateway("other", "gate"), "default/cert", false),
            (sidecar("default"), "default/cert", false),
        ] {
            let secret = registry.resolve(&who, ResourceKind::Secret, name);
            assert_eq!(secret.is_some(), may, "{who:?} {name}");
        }
    }
}

#[test]
fn streams_go_by_server_name_or_to_the_first_route() {
    let stream = |kind: &str, name: &str, section: &str, hosts: &str, backend: &str| {
        route(
            kind,
            name,
            &format!(
                "{{parentRefs: [{{name: gate, sectionName: {section}}}]{hosts}, \
                  rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]}}"
            ),
        )
    };
    let registry = registry(
        &(gateway(
            "[{name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}, hostname: '*.example.com'}, \
              {name: plain, port: 9000, protocol: TCP}, \
              {name: ended, port: 444, protocol: TLS, tls: {certificateRefs: [{name: cert}]}}]",
        ) + SECRETS
            + &stream("TLSRoute", "wide", "pass", "", "a")
            + &stream("TLSRoute", "one", "pass", ", hostnames: [x.example.com, x.example.org]", "b")
            + &stream("TCPRoute", "second", "plain", "", "b")
            + &stream("TCPRoute", "first", "plain", "", "a")
            + &stream("TCPRoute", "inside", "ended", "", "b")
            + "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: rest}\n\
               spec: {targetRefs: [{kind: Service, name: b}], timeout: {idle: 7s}}\n---\n"),
    );
    let gateway = listener(&registry);
    let ports: Vec<u16> = gateway.ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [443, 444, 9000]);
    let GatewayProtocol::TlsPassthrough { routes } = &gateway.ports[0].listeners[0].protocol else {
        panic!()
    };
    let sni: Vec<_> = routes
        .iter()
        .map(|route| (route.sni.to_string(), route.forward.backends[0].cluster.to_string()))
        .collect();
    let cluster = |name: &str| format!("outbound|80||{name}.default.svc.cluster.local");
    assert_eq!(
        sni,
        [("x.example.com".to_owned(), cluster("b")), ("*.example.com".to_owned(), cluster("a"))],
        "the most specific first"
    );
    let GatewayProtocol::TlsTerminate { forward, .. } = &gateway.ports[1].listeners[0].protocol else {
        panic!()
    };
    assert_eq!(forward.backends[0].cluster.to_string(), cluster("b"));
    let GatewayProtocol::Tcp { forward } = &gateway.ports[2].listeners[0].protocol else { panic!() };
    assert_eq!(forward.backends[0].cluster.to_string(), cluster("a"));
    // As the policies of the Service behind it say.
    let idle = |forward: &TcpForward| forward.idle.map(|idle| idle.as_secs());
    assert_eq!((idle(forward), idle(&routes[0].forward), idle(&routes[1].forward)), (None, Some(7), None));
    let found = registry.findings();
    assert!(
        found.len() == 1 && found[0].contains("TCPRoute default/first goes before it: nothing could choose"),
        "{found:#?}"
    );
}

#[test]
fn routes_of_other_namespaces_come_in_where_the_listener_lets_them() {
    let foreign = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: other}\n\
                   spec: {parentRefs: [{name: gate, namespace: default}], rules: [{backendRefs: [{name: c, port: 80}]}]}\n";
    for (allowed, want) in [
        ("", "404"),
        (", allowedRoutes: {namespaces: {from: Same}}", "404"),
        (", allowedRoutes: {namespaces: {from: All}}", "r c:1"),
        (", allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}", "404"),
    ] {
        let text = gateway(&format!("[{{name: any, port: 80, protocol: HTTP{allowed}}}]")) + foreign;
        assert_eq!(get(&registry(&text), 80, "x", "/"), want, "{allowed}");
    }
}

#[test]
fn a_listener_without_its_certificate_costs_only_itself() {
    let registry = registry(
        &(gateway(
            "[{name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: gone}]}}, \
              {name: plain, port: 80, protocol: HTTP}]",
        ) + &http("r", "", "", "/", "a")),
    );
    assert_eq!(listener(&registry).ports.len(), 1);
    assert_eq!(get(&registry, 80, "x", "/"), "r a:1");
}
