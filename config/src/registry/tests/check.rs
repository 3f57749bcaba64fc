use super::*;

/// One manifest text and what is to be found in it, word by word.
fn finds(text: &str, want: &[&str]) {
    assert_eq!(registry(text).findings(), want, "{text}");
}

fn with_services(text: &str) -> String {
    services(&["default/a", "default/b", "other/c"]) + text
}

/// `test.yaml:LINE:COLUMN` of the first place where these words stand.
fn place(text: &str, words: &str) -> String {
    let before = &text[..text.find(words).unwrap_or_else(|| panic!("{words:?} is not in it"))];
    let line = before.matches('\n').count() + 1;
    format!("test.yaml:{line}:{}", before.len() - before.rfind('\n').map_or(0, |i| i + 1) + 1)
}

fn route(parent: &str, rules: &str) -> String {
    with_services(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: HTTPRoute\n\
         metadata: {{name: r}}\n\
         spec:\n\
         \x20 parentRefs: [{parent}]\n\
         \x20 rules: {rules}\n"
    ))
}

const TO_A: &str = "{group: '', kind: Service, name: a}";

#[test]
fn references_of_routes_that_lead_nowhere_are_found_where_they_stand() {
    let to_a = "[{backendRefs: [{name: a, port: 80}]}]";
    for (parent, rules, words, want) in [
        (
            "{group: '', kind: Service, name: gone}",
            to_a,
            "gone",
            "spec.parentRefs[0].name: Service default/gone does not exist",
        ),
        (
            "{group: '', kind: Service, name: a, port: 81}",
            to_a,
            "81",
            "spec.parentRefs[0].port: Service default/a has no port 81; it has 80",
        ),
        (
            "{group: '', kind: Service, name: a, sectionName: web}",
            to_a,
            "web",
            "spec.parentRefs[0].sectionName: Service default/a has no port named web",
        ),
        ("{name: gone}", to_a, "gone", "spec.parentRefs[0].name: Gateway default/gone does not exist"),
        (
            TO_A,
            "[{backendRefs: [{name: gone, port: 80}]}]",
            "gone",
            "spec.rules[0].backendRefs[0].name: Service default/gone does not exist",
        ),
        (
            TO_A,
            "[{backendRefs: [{name: b, port: 8080}]}]",
            "8080",
            "spec.rules[0].backendRefs[0].port: Service default/b has no port 8080; it has 80",
        ),
        (
            TO_A,
            "[{backendRefs: [{name: a, port: 80, weight: 0}]}]",
            "{backendRefs",
            "warning: spec.rules[0]: all its backends have weight 0: what it matches is refused",
        ),
    ] {
        let text = route(parent, rules);
        finds(&text, &[&format!("{}: {want}", place(&text, words))]);
    }
    finds(&route(TO_A, "[{backendRefs: [{name: c, namespace: other, port: 80}]}]"), &[]);
}

#[test]
fn a_gateway_needs_a_grant_where_the_mesh_needs_none() {
    let text = route("{name: gate}", "[{backendRefs: [{name: c, namespace: other, port: 80}]}]")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gate}\n\
           spec: {gatewayClassName: outrigger, listeners: [{name: http, port: 80, protocol: HTTP}]}\n";
    finds(
        &text,
        &[&format!(
            "{}: spec.rules[0].backendRefs[0].namespace: Service other/c is in another namespace, \
             and no ReferenceGrant there allows HTTPRoute of default to refer to it",
            place(&text, "other, port")
        )],
    );
    let grant = |from: &str, to: &str| {
        format!(
            "{text}---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: g, namespace: other}}\nspec:\n  from: [{from}]\n  to: [{to}]\n"
        )
    };
    let ours = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}";
    for (from, to, granted) in [
        (ours, "{group: '', kind: Service}", true),
        (ours, "{group: '', kind: Service, name: c}", true),
        (ours, "{group: '', kind: Service, name: d}", false),
        (ours, "{group: '', kind: Secret}", false),
        (
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: third}",
            "{group: '', kind: Service}",
            false,
        ),
        (
            "{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: default}",
            "{group: '', kind: Service}",
            false,
        ),
        ("{group: example.com, kind: HTTPRoute, namespace: default}", "{group: '', kind: Service}", false),
    ] {
        assert_eq!(registry(&grant(from, to)).findings().is_empty(), granted, "{from} to {to}");
    }
}

#[test]
fn hostnames_say_nothing_to_callers_of_a_service() {
    let text = route(TO_A, "[{backendRefs: [{name: a, port: 80}]}]\n  hostnames: [a.example.com]");
    finds(
        &text,
        &[&format!(
            "{}: warning: spec.hostnames: have no effect on calls to a Service, whatever host they name",
            place(&text, "[a.example.com")
        )],
    );
    assert_eq!(registry(&text).state_of(Kind::HttpRoute, "default", "r"), &State::Accepted);
}

#[test]
fn of_two_kinds_of_route_on_a_port_one_is_used() {
    let text = route(TO_A, "[{backendRefs: [{name: a, port: 80}]}]")
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: calls}\n\
           spec: {parentRefs: [{group: '', kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}\n";
    let registry = registry(&text);
    let State::Overridden { by, why } = registry.state_of(Kind::HttpRoute, "default", "r") else { panic!() };
    assert_eq!(by.to_string(), "GRPCRoute default/calls");
    assert_eq!(why, "on one port GRPCRoutes go before HTTPRoutes");
    assert_eq!(registry.state_of(Kind::GrpcRoute, "default", "calls"), &State::Accepted);
    assert_eq!(
        registry.findings(),
        [format!(
            "{}: warning: spec.parentRefs[0]: GRPCRoute default/calls goes before it: \
             on one port GRPCRoutes go before HTTPRoutes",
            place(&text, "{group: ''")
        )]
    );
}

#[test]
fn a_match_that_another_hides_is_found() {
    let text = route(
        TO_A,
        "[{matches: [{path: {value: /x}}], backendRefs: [{name: a, port: 80}]}, \
          {matches: [{path: {value: /x/}}], backendRefs: [{name: b, port: 80}]}]",
    );
    let found = registry(&text).findings();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].ends_with(
            "warning: spec.rules[1].matches[0]: is never reached: \
             HTTPRoute default/r spec.rules[0].matches[0] matches the same; the earlier rule goes first"
        ),
        "{found:#?}"
    );
}

fn policy(name: &str, target: &str, timeout: &str) -> String {
    format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{targetRefs: [{target}], timeout: {timeout}}}\n"
    )
}

#[test]
fn targets_that_are_not_there() {
    for (target, want) in [
        ("{kind: Service, name: gone}", "spec.targetRefs[0].name: Service default/gone does not exist"),
        (
            "{kind: Service, name: a, port: 81}",
            "spec.targetRefs[0].port: Service default/a has no port 81; it has 80",
        ),
        ("{kind: HTTPRoute, name: gone}", "spec.targetRefs[0].name: HTTPRoute default/gone does not exist"),
        (
            "{kind: HTTPRoute, name: r, sectionName: gone}",
            "spec.targetRefs[0].sectionName: HTTPRoute default/r has no rule named gone",
        ),
        (
            "{kind: Mesh, name: mine}",
            "spec.targetRefs[0].name: Mesh mine does not exist; the one Mesh is called default",
        ),
    ] {
        let text =
            route(TO_A, "[{backendRefs: [{name: a, port: 80}]}]") + &policy("p", target, "{request: 1s}");
        let registry = registry(&text);
        let found = registry.findings();
        assert!(found.len() == 1 && found[0].ends_with(want), "{target}: {found:#?}");
        let State::Ignored(why) = registry.state_of(Kind::TrafficPolicy, "default", "p") else { panic!() };
        assert_eq!(why, "none of its targets exists");
    }
}

#[test]
fn a_policy_that_another_decides_says_which() {
    let to_a = "{kind: Service, name: a}";
    let text = with_services("")
        + &policy("second", to_a, "{request: 2s}")
        + &policy("first", to_a, "{request: 1s}")
        + &policy("half", &format!("{to_a}, {{kind: Service, name: b}}"), "{request: 3s}");
    let registry = registry(&text);
    let State::Overridden { by, why } = registry.state_of(Kind::TrafficPolicy, "default", "second") else {
        panic!()
    };
    assert_eq!(
        (by.to_string().as_str(), why.as_str()),
        ("TrafficPolicy default/first", "the first name in alphabetical order goes first")
    );
    assert_eq!(registry.state_of(Kind::TrafficPolicy, "default", "first"), &State::Accepted);
    assert_eq!(
        registry.state_of(Kind::TrafficPolicy, "default", "half"),
        &State::Accepted,
        "it still decides for b"
    );
    let found = registry.findings();
    assert!(
        found.len() == 2
            && found.iter().all(|f| f.contains("`timeout` is decided by TrafficPolicy default/first here")),
        "{found:#?}"
    );
}

#[test]
fn a_connect_timeout_is_the_services() {
    let text = route(TO_A, "[{backendRefs: [{name: a, port: 80}]}]")
        + &policy("p", "{kind: HTTPRoute, name: r}", "{connect: 2s}");
    let found = registry(&text).findings();
    assert!(
        found.len() == 1 && found[0].contains("spec.timeout.connect: has no effect on a route"),
        "{found:#?}"
    );
}

#[test]
fn what_connections_share_is_the_services() {
    let text = route(TO_A, "[{backendRefs: [{name: a, port: 80}]}]")
        + &policy("p", "{kind: HTTPRoute, name: r}", "{}")
            .replace("timeout: {}", "connection: {multiplexHttp1: Always}");
    let found = registry(&text).findings();
    assert!(found.len() == 1 && found[0].contains("spec.connection: has no effect on a route"), "{found:#?}");
}

fn gateway(listeners: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gate}}\n\
         spec:\n  gatewayClassName: outrigger\n  listeners:\n{listeners}"
    )
}

#[test]
fn listeners_that_cannot_share_a_port() {
    let listeners = "  - {name: a, port: 80, protocol: HTTP}\n  \
                     - {name: b, port: 80, protocol: TCP}\n  \
                     - {name: c, port: 81, protocol: HTTP}\n";
    let registry = registry(&gateway(listeners));
    let found = registry.findings();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with(
        "test.yaml:8:5: spec.listeners[0]: cannot share port 80 with listener b; neither is used"
    ));
    assert!(found[1].starts_with(
        "test.yaml:9:5: spec.listeners[1]: cannot share port 80 with listener a; neither is used"
    ));
    assert_eq!(registry.state_of(Kind::Gateway, "default", "gate"), &State::Accepted, "c is fine");
}

#[test]
fn certificates_that_are_not_there() {
    let certificate = |reference: &str| {
        gateway(&format!(
            "  - {{name: a, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{reference}]}}}}\n"
        ))
    };
    for (reference, want) in [
        (
            "{name: gone}",
            "certificateRefs[0].name: Secret default/gone of type kubernetes.io/tls does not exist",
        ),
        (
            "{name: c, namespace: other}",
            "certificateRefs[0].namespace: Secret other/c is in another namespace, \
             and no ReferenceGrant there allows Gateway of default to refer to it",
        ),
        (
            "{kind: Vault, group: example.com, name: c}",
            "certificateRefs[0].kind: example.com/Vault holds no certificate; a Secret does",
        ),
    ] {
        let registry = registry(&certificate(reference));
        let found = registry.findings();
        assert!(found.len() == 1 && found[0].ends_with(want), "{found:#?}");
        assert!(matches!(registry.state_of(Kind::Gateway, "default", "gate"), State::Ignored(_)));
    }
}

#[test]
fn why_a_gateway_does_not_take_a_route_in() {
    for (parent, listener, want) in [
        (
            "{name: gate, sectionName: gone}",
            "{name: a, port: 80, protocol: HTTP}",
            "spec.parentRefs[0].sectionName: Gateway default/gate has no listener named gone",
        ),
        (
            "{name: gate, port: 81}",
            "{name: a, port: 80, protocol: HTTP}",
            "spec.parentRefs[0].port: Gateway default/gate has no listener on port 81",
        ),
        (
            "{name: gate}",
            "{name: a, port: 80, protocol: TCP}",
            "spec.parentRefs[0]: listener a of Gateway default/gate takes no HTTPRoute",
        ),
        (
            "{name: gate}",
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: None}}}",
            "spec.parentRefs[0]: listener a of Gateway default/gate takes no routes of namespace default (its allowedRoutes)",
        ),
        (
            "{name: gate}",
            "{name: a, port: 80, protocol: HTTP, hostname: '*.example.org'}",
            "spec.parentRefs[0]: its hostnames have nothing in common with listener a of Gateway default/gate",
        ),
    ] {
        let rules = "[{backendRefs: [{name: a, port: 80}]}]\n  hostnames: [a.example.com]";
        let registry = registry(&(route(parent, rules) + &gateway(&format!("  - {listener}\n"))));
        let found = registry.findings();
        assert!(found.len() == 1 && found[0].ends_with(want), "{want}: {found:#?}");
        assert!(matches!(registry.state_of(Kind::HttpRoute, "default", "r"), State::Ignored(_)));
    }
}

#[test]
fn a_gateway_of_another_class_is_left_to_its_owner() {
    let text = route("{name: gate}", "[{backendRefs: [{name: a, port: 80}]}]")
        + &gateway("  - {name: a, port: 80, protocol: HTTP}\n").replace("outrigger", "istio");
    let registry = registry(&text);
    assert_eq!(registry.findings(), [""; 0]);
    assert!(matches!(registry.state_of(Kind::Gateway, "default", "gate"), State::Ignored(_)));
    assert!(matches!(registry.state_of(Kind::HttpRoute, "default", "r"), State::Ignored(_)));
    let who = crate::resolve::Subscriber::gateway("default", "gate");
    let listener = registry.resolve(&who, crate::model::ResourceKind::Listener, "gateway|default/gate");
    assert_eq!(listener, None);
}

#[test]
fn what_is_odd_about_services_and_instances() {
    let workload = |name: &str| {
        format!(
            "---\napiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, labels: {{app: a}}}}\n\
             spec: {{address: 127.64.1.1, ports: [{{name: web, port: 8080}}]}}\n"
        )
    };
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n\
                spec: {selector: {app: a}, clusterIP: 10.0.0.1, ports: [{port: 80, targetPort: http}]}\n\
                ---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\n\
                spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n\
                ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                metadata: {name: s, labels: {kubernetes.io/service-name: gone}}\naddressType: IPv4\n"
        .to_owned()
        + &workload("one")
        + &workload("two");
    finds(
        &text,
        &[
            "test.yaml:4:80: spec.ports[0].targetPort: none of the Workloads it selects has a port named http; they have 8080",
            "test.yaml:9:19: warning: spec.clusterIP: 10.0.0.1 is Service default/a's already; calls to it go there",
            "test.yaml:13:58: warning: metadata.labels[\"kubernetes.io/service-name\"]: Service default/gone does not exist",
            "test.yaml:24:17: warning: spec.address: Workload default/one has 127.64.1.1 and port 8080 as well; \
             calls may reach either",
        ],
    );
}

#[test]
fn a_service_nobody_could_answer_for() {
    let service =
        |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{spec}}}\n");
    let template = "---\napiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: t, labels: {app: a}}\n\
                    spec: {command: [x], ports: [{name: web, port: 9080}]}\n";
    for (spec, want) in [
        ("selector: {app: a}, ports: [{port: 80, targetPort: 9080}]", ""),
        ("selector: {app: a}, ports: [{port: 80, targetPort: web}]", ""),
        (
            "selector: {app: a}, ports: [{port: 80}]",
            "test.yaml:4:36: warning: spec.ports[0].targetPort: none of the Workloads it selects has port 80; they have 9080",
        ),
        (
            "selector: {app: b}, ports: [{port: 80}]",
            "test.yaml:4:18: warning: spec.selector: no Workload in namespace default has these labels",
        ),
        ("ports: [{port: 80}]", ""), // what its EndpointSlices list
    ] {
        let want: Vec<_> = Some(want).filter(|want| !want.is_empty()).into_iter().collect();
        finds(&(service(spec) + template), &want);
        finds(&service(spec), &[]); // perhaps Pods
    }
}

#[test]
fn one_bad_object_disables_no_other() {
    let good = route(TO_A, "[{backendRefs: [{name: b, port: 80}]}]");
    let bad = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: bad}\n\
               spec: {parentRefs: [{group: '', kind: Service, name: a}], \
               rules: [{matches: [{path: {value: /bad}}], backendRefs: [{name: gone, port: 80}]}]}\n";
    let registry = registry(&(good + bad));
    let who = crate::resolve::Subscriber::sidecar("default", "x");
    let table = registry.table_of(&who, "outbound|80|a.default.svc.cluster.local");
    let routes: Vec<_> = table.hosts[0]
        .routes
        .iter()
        .map(|route| (&*route.name, crate::resolve::tests::backends(route)))
        .collect();
    // The rule still exists and answers 500 for its share.
    assert_eq!(routes, [("bad", "invalid:1".to_owned()), ("r", "b:1".to_owned())]);
}

#[test]
fn access_policies_that_do_less_than_they_seem_to_are_warned_of() {
    let workloads = "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: w, labels: {app: w}}\n\
        spec: {address: 10.0.0.1, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}\n---\n";
    let policy = |namespace: &str, spec: &str| {
        format!(
            "{workloads}apiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{{spec}}}\n"
        )
    };
    for (namespace, spec, at, want) in [
        ("default", "rules: [{from: [{namespaces: [a]}], to: [{ports: [80], methods: [GET]}]}]", "", ""),
        ("default", "rules: [{to: [{methods: [GET]}]}]", "", ""),
        (
            "default",
            "selector: {matchLabels: {app: x}}, mtls: {mode: Strict}",
            "{matchLabels",
            "warning: spec.selector: it selects no Workload of namespace default",
        ),
        (
            "other",
            "mtls: {mode: Strict}",
            "apiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy",
            "warning: there is no Workload in namespace other",
        ),
        (
            "default",
            "rules: [{to: [{ports: [80, 81]}]}]",
            "81]",
            "warning: spec.rules[0].to[0].ports[1]: no workload this policy is about has a port 81",
        ),
        (
            "default",
            "rules: [{to: [{notPorts: [81]}]}]",
            "81]",
            "warning: spec.rules[0].to[0].notPorts[0]: no workload this policy is about has a port 81",
        ),
        (
            "default",
            "mtls: {ports: [{port: 81, mode: Strict}]}",
            "81, mode",
            "warning: spec.mtls.ports[0].port: no workload this policy is about has a port 81",
        ),
        (
            "default",
            "rules: [{to: [{ports: [90], methods: [GET]}]}]",
            "{ports: [90]",
            "warning: spec.rules[0].to[0]: port 90 carries TCP, where there are no requests: a rule with conditions on them allows nothing there",
        ),
        (
            "default",
            "rules: [{action: Deny, to: [{ports: [90], paths: [{value: /x}]}]}]",
            "{ports: [90]",
            "warning: spec.rules[0].to[0]: port 90 carries TCP, where there are no requests: of this rule only `from` and `ports` count there",
        ),
    ] {
        let text = policy(namespace, spec);
        let want: Vec<_> =
            (!want.is_empty()).then(|| format!("{}: {want}", place(&text, at))).into_iter().collect();
        let want: Vec<_> = want.iter().map(String::as_str).collect();
        finds(&text, &want);
    }

    let both = policy("default", "mtls: {mode: Strict}")
        + "---\napiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: q}\n\
           spec: {selector: {matchLabels: {app: w}}, mtls: {mode: Permissive}}\n";
    let registry = registry(&both);
    let place = place(&both, "Strict}");
    assert_eq!(
        registry.findings(),
        [format!(
            "{place}: warning: spec.mtls.mode: it is decided by AccessPolicy default/q for all workloads here: it selects them"
        )]
    );
    let state = registry.state_of(Kind::AccessPolicy, "default", "p");
    assert!(matches!(state, State::Overridden { .. }), "{state:?}");
}
