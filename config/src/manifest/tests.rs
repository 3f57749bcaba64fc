//! Manifests read as people and clusters write them.

use super::*;

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
            "mesh.yaml:8:5: spec.ports[1].port: is required, and missing",
            "mesh.yaml:9:3: spec.selctor: unknown field; did you mean `selector`?",
            "mesh.yaml:18:39: spec.rules[0].matches[0].path.value: \"api//x\" is not a path (beginning with /, at most \
         1024 characters)",
            "mesh.yaml:19:15: spec.rules[0].matches[0].method: \"get\" is not GET, HEAD, POST, PUT, DELETE, CONNECT, \
         OPTIONS, TRACE or PATCH; did you mean GET?",
            "mesh.yaml:20:88: spec.rules[0].backendRefs[1].port: 0 is not a port (1 to 65535)",
        ]
    );
}
