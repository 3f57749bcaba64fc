//! Manifests read as people and clusters write them.

use super::*;
use crate::diagnostic::Severity;

fn read(text: &str) -> Parsed {
    parse(text.as_bytes(), "mesh.yaml")
}

fn lines(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn every_misfit_of_a_file_is_reported_in_one_run() {
    let parsed = read(
        r#"
apiVersion: v1
kind: Service
metadata: {name: reviews, labels: {app: reviews, version: 1}}
spec:
  ports:
  - {name: http, port: 9080, targetPort: 99999}
  - {prot: 9081}
  selctor: {app: reviews}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - matches:
    - path: {type: PathPrefix, value: api//x}
      method: get
    backendRefs: [{name: reviews-v1, port: 9080, weight: 90}, {name: reviews-v2, port: 0, weight: 10}]
"#,
    );
    assert!(parsed.objects.is_empty());
    assert_eq!(
        lines(&parsed),
        [
            "mesh.yaml:4:59: metadata.labels.version: 1 is not a text; put it in quotes to make it one",
            "mesh.yaml:8:6: spec.ports[1].prot: unknown field; did you mean `port`?",
            "mesh.yaml:9:3: spec.selctor: unknown field; did you mean `selector`?",
            "mesh.yaml:18:39: spec.rules[0].matches[0].path.value: \"api//x\" is not a path (beginning with /, at most \
         1024 characters)",
            "mesh.yaml:19:15: spec.rules[0].matches[0].method: \"get\" is not GET, HEAD, POST, PUT, DELETE, CONNECT, \
         OPTIONS, TRACE or PATCH; did you mean GET?",
            "mesh.yaml:20:88: spec.rules[0].backendRefs[1].port: 0 is not a port (1 to 65535)",
        ]
    );
}

#[test]
fn null_is_as_good_as_absent() {
    let parsed = read(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, labels: null}\nspec:\n  \
         hostnames: null\n  rules:\n  - {timeouts: null, matches: null, retry: null, backendRefs: [{name: b, port: 1, \
         weight: null}]}\n",
    );
    let [Object { manifest: Manifest::HttpRoute(route), .. }] = &parsed.objects[..] else {
        panic!("{parsed:?}")
    };
    assert_eq!(route.spec.rules[0].backend_refs[0].to.weight.get(), 1);
    // A name that is not known stays unknown, and what is required stays missing.
    let parsed = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: null}], prots: null}\n",
    );
    assert_eq!(
        lines(&parsed),
        [
            "mesh.yaml:4:17: spec.ports[0].port: is required, and missing",
            "mesh.yaml:4:31: spec.prots: unknown field; did you mean `ports`?",
        ]
    );
}

#[test]
fn what_surrounds_a_misfit_is_not_blamed_for_it() {
    let parsed = read(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: a}\nspec:\n  command: [a]\n  \
         ports: [{port: x}, {name: b}, {port: 80, nmae: c}]\n  readiness: {httpGet: {port: {}}, periodSeconds: 0}\n",
    );
    assert_eq!(
        lines(&parsed),
        [
            "mesh.yaml:6:18: spec.ports[0].port: \"x\" is not a port (1 to 65535)",
            "mesh.yaml:6:22: spec.ports[1].port: is required, and missing",
            "mesh.yaml:6:44: spec.ports[2].nmae: unknown field; did you mean `name`?",
            "mesh.yaml:7:31: spec.readiness.httpGet.port: a mapping is not a number or a name",
            "mesh.yaml:7:51: spec.readiness.periodSeconds: 0 is not a number of seconds (1 to 3600)",
        ]
    );
}

#[test]
fn a_long_list_of_misfits_ends() {
    let ports: String = (0..500).map(|_| "  - {port: 0}\n").collect();
    let parsed =
        read(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  ports:\n{ports}"));
    assert_eq!(parsed.diagnostics.len(), 20);
    assert_eq!(parsed.refused, [ObjectKey::new(Kind::Service, "default", "a")]);
}

#[test]
fn a_gateway_of_another_class_is_somebody_elses() {
    let gateway = |class: &str| {
        let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {gatewayClassName: \
                    CLASS, addresses: [{value: 10.0.0.1}], listeners: [{name: a, port: 1, protocol: HTTP}]}";
        read(&text.replace("CLASS", class))
    };
    assert_eq!(
        lines(&gateway("cloud")),
        ["mesh.yaml:4:26: note: a Gateway of class cloud, which is not this mesh's"]
    );
    assert!(gateway("outrigger").has_errors());
}

#[test]
fn secrets_are_not_shown() {
    let key = "-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n";
    let good = read(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: \
         \"-----BEGIN CERTIFICATE-----\", tls.key: \"{key}\"}}\ndata: {{x: c2VjcmV0}}\n"
    ));
    assert_eq!(lines(&good), Vec::<String>::new());
    let shown = format!("{good:?}");
    assert!(!shown.contains("c2VjcmV0") && !shown.contains("secret"), "{shown}");
    for data in [
        "hunter2",
        "{a: hunter2!}",
        "{a: [hunter2]}",
        "{a: {hunter2: 1}}",
        "[hunter2]",
        "{hunter2}",
        "{a: 1}",
    ] {
        for list in ["data", "stringData"] {
            let parsed =
                read(&format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\n{list}: {data}\n"));
            let said: String = parsed.diagnostics.iter().map(|found| found.message.clone()).collect();
            assert!(!said.contains("hunter2") && !said.contains('1'), "{list}: {data}: {said}");
        }
    }
}

#[test]
fn later_findings_find_their_place() {
    let parsed = read(
        "# first\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 80\n---\napiVersion: \
         v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 81}]}\n",
    );
    let [a, b] = &parsed.objects[..] else { panic!("{parsed:?}") };
    let found = a.diagnostic(Severity::Warning, "spec.ports[0].port", "is odd");
    assert_eq!(found.to_string(), "mesh.yaml:7:11: warning: spec.ports[0].port: is odd");
    let found = b.diagnostic(Severity::Error, "spec.ports[0].targetPort", "is missing");
    assert_eq!(found.to_string(), "mesh.yaml:12:16: spec.ports[0].targetPort: is missing");
    assert_eq!(found.object.as_deref(), Some("Service default/b"));
}

#[test]
fn the_hash_is_that_of_the_content() {
    let service = |metadata: &str, port: u16| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, {metadata}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        );
        read(&text).objects.remove(0).hash
    };
    let plain = service("labels: {a: b}", 80);
    assert_eq!(
        service("labels: {a: b}, resourceVersion: \"7\", generation: 2, managedFields: []", 80),
        plain
    );
    assert_ne!(service("labels: {a: c}", 80), plain);
    assert_ne!(service("labels: {a: b}", 81), plain);
}

#[test]
fn an_object_of_the_api_has_no_place_and_says_which_it_is() {
    let parsed = from_json(
        serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop"}, "spec": {
            "ports": [{"port": 0}]}}),
        "kubernetes",
    );
    assert_eq!(
        lines(&parsed),
        ["kubernetes: Service shop/a: spec.ports[0].port: 0 is not a port (1 to 65535)"]
    );
}

#[test]
fn names_that_are_near_are_offered() {
    let known = ["matches", "filters", "backendRefs", "timeouts"];
    for (found, want) in [
        ("matchs", Some("matches")),
        ("Matches", Some("matches")),
        ("backendrefs", Some("backendRefs")),
        ("backends", None), // three letters of eight
        ("fliters", Some("filters")),
        ("timeout", Some("timeouts")),
        ("x", None),
        ("", None),
    ] {
        assert_eq!(nearest(found, known), want, "{found}");
    }
}
