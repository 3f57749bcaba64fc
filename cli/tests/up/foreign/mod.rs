//! Real Envoy and real gRPC as clients of our control plane: they route by our manifests, without a proxy of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{OUTRIGGER, peers};

/// Envoy is the gateway of these manifests; in network namespaces of their own, because it listens on all addresses.
#[test]
fn envoy_as_a_gateway_routes_by_our_manifests() {
    for api in ["DELTA_GRPC", "GRPC"] {
        let envoy = fetched("envoy");
        let programs = [envoy.to_str().expect("a path"), "unshare", "ip", "curl", "bash"];
        if !peers::present("envoy_as_a_gateway_routes_by_our_manifests", &programs) {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let manifests = folder.path().join("manifests");
        fs::create_dir(&manifests).expect("a folder");
        fs::write(manifests.join("mesh.yaml"), GATEWAY).expect("written");
        fs::write(folder.path().join("envoy.json"), bootstrap(api).to_string()).expect("written");
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "bash"])
            .arg(here().join("envoy.sh"))
            .args([OUTRIGGER.as_ref(), envoy.as_os_str(), folder.path().as_os_str()])
            .stdin(Stdio::null())
            .output()
            .expect("unshare runs");
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let said = String::from_utf8_lossy(&output.stdout);
        let told = format!("{api}\n{said}\n{}\n--- log\n{log}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{told}");
        let answers: Vec<String> = said.lines().map(told_apart).collect();
        // In the order of envoy.sh: status, who answered, the path it was asked for and what the route added.
        assert_eq!(
            answers,
            [
                "first: 200 one /first/page route=one",
                "header: 200 two /first/page route=",
                "rewritten: 200 two /new/page route=",
                "nowhere: 404",
                "edited: 200 two /first/page route=",
            ],
            "{told}"
        );
        assert!(!log.contains("rejected"), "Envoy refuses nothing: {told}");
    }
}

/// gRPC finds its servers and its routes by an `xds:` target, without any proxy.
#[test]
fn a_grpc_library_routes_by_our_manifests() {
    let python = fetched("python");
    if !peers::present("a_grpc_library_routes_by_our_manifests", &[python.to_str().expect("a path")]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(python)
        .arg(here().join("xds_target.py"))
        .args([OUTRIGGER.as_ref(), folder.path().as_os_str()])
        .stdin(Stdio::null())
        .output()
        .expect("python runs");
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stdout);
    let told = format!("{said}\n{}\n--- log\n{log}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    let answers: Vec<&str> = said.lines().collect();
    assert_eq!(answers, ["plain: one", "header: two", "edited: two"], "{told}");
    assert!(!log.contains("refused by the proxy"), "gRPC refuses nothing: {told}");
}

/// `CASE: STATUS BODY` with what matters of the body, which is the request as the sample app saw it.
fn told_apart(line: &str) -> String {
    let (case, body) =
        line.split_once(" {").map_or((line, None), |(case, body)| (case, Some(format!("{{{body}"))));
    let Some(request) = body.and_then(|body| serde_json::from_str::<serde_json::Value>(&body).ok()) else {
        return case.trim_end().to_owned();
    };
    let headers = request["headers"].as_array().cloned().unwrap_or_default();
    let route = headers.iter().find(|pair| pair[0] == "x-route").and_then(|pair| pair[1].as_str());
    let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
    format!("{case} {} {} route={}", text("instance"), text("path"), route.unwrap_or_default())
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/up/foreign")
}

/// Where `cargo xtask peers` puts what it fetches.
fn fetched(program: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/venv/bin").join(program)
}

/// An Envoy that knows nothing but where the control plane is, and whose gateway it is.
fn bootstrap(api: &str) -> serde_json::Value {
    let http2 = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    let address = serde_json::json!({"socket_address": {"address": "127.0.0.1", "port_value": 15010}});
    let ads = serde_json::json!({"resource_api_version": "V3", "ads": {}});
    serde_json::json!({
        "node": {"id": "router~127.0.0.1~front.default~default.svc.cluster.local", "cluster": "front.default"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {"clusters": [{
            "name": "control",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
            },
            "load_assignment": {
                "cluster_name": "control",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }]},
    })
}

const GATEWAY: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: one-1, labels: {kubernetes.io/service-name: one}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{name: http, port: 8081}]
---
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: two-1, labels: {kubernetes.io/service-name: two}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{name: http, port: 8082}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: outrigger
  listeners: [{name: http, port: 9080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: front}
spec:
  parentRefs: [{name: front}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /first}, headers: [{name: version, value: two}]}]
      backendRefs: [{name: two, port: 80}]
    - matches: [{path: {type: PathPrefix, value: /first}}]
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {set: [{name: x-route, value: one}]}
      backendRefs: [{name: one, port: 80, weight: 1}, {name: two, port: 80, weight: 0}]
    - matches: [{path: {type: PathPrefix, value: /old}}]
      filters:
        - type: URLRewrite
          urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
      backendRefs: [{name: two, port: 80}]
"#;
