//! A limit that the instances of a Service share, counted by the control plane of `outrigger up`.

use std::collections::BTreeMap;

use crate::THREE;
use crate::support::{Mesh, curl, metric_at};

const POLICY: &str = r#"
---
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: echo}
spec:
  targetRefs: [{kind: Service, name: echo}]
  loadBalancing: {algorithm: RoundRobin}
  rateLimit:
    limits:
      # For a day, so that nothing comes back while the test runs. No answer is no excuse.
      - {name: together, requests: 60, per: 24h, scope: Service, shared: {failureMode: Closed, timeout: 5s}}
"#;

#[test]
fn three_instances_count_together_at_the_control_plane() {
    let mesh = Mesh::of_manifests(&(THREE.to_owned() + POLICY));
    let url = format!("http://{}/", mesh.gateway());
    let mut answers = BTreeMap::<u16, u32>::new();
    for _ in 0..90 {
        *answers.entry(curl(&[&url]).0).or_default() += 1;
    }
    println!("{answers:?}");
    assert_eq!(answers.values().sum::<u32>(), answers[&200] + answers[&429], "{answers:?}");
    // One token each may be leased, and not used yet.
    assert!((57..=60).contains(&answers[&200]), "{answers:?}");
    mesh.await_that("what was leased and not used is given back", || {
        let status = curl(&[&url]).0;
        *answers.entry(status).or_default() += 1;
        answers[&200] == 60
    });
    let (status, told) = curl(&["--include", &url]);
    assert_eq!(status, 429, "{told}");
    let told = told.to_ascii_lowercase();
    assert!(told.contains("ratelimit-policy: \"together\";q=60;w=86400"), "{told}");
    let wait = told.lines().find_map(|line| line.strip_prefix("retry-after: ")).expect("it says when");
    assert!(wait.trim().parse::<u64>().expect("seconds") > 60, "a day, less what has passed: {told}");

    let each: Vec<_> = ["echo-0", "echo-1", "echo-2"]
        .iter()
        .map(|instance| {
            mesh.metric(instance, "outrigger_requests_total", &["direction=\"inbound\"", "code=\"200\""])
        })
        .collect();
    assert!(each.iter().all(|passed| *passed > 0.0) && each.iter().sum::<f64>() == 60.0, "{each:?}");
    let page = mesh.control()["metrics"].as_str().expect("a URL").to_owned();
    let calls = |result| metric_at(&page, "outrigger_limit_server_calls_total", &[result]);
    assert!(calls("result=\"ok\"") > 0.0 && calls("result=\"over_limit\"") > 0.0);
    assert_eq!(calls("result=\"refused\"") + calls("result=\"unavailable\""), 0.0);
}

/// The server of a policy may be a Service of the mesh, and then is called as one: by name, with mTLS, which this mesh insists on.
#[test]
fn a_server_in_the_mesh_is_called_with_mtls() {
    const MESH: &str = r#"
---
apiVersion: outrigger.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {mtls: {mode: Strict}}
---
apiVersion: v1
kind: Service
metadata: {name: counter}
spec:
  selector: {app: counter}
  ports: [{name: grpc, port: 8081, targetPort: 8081}]
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: counter, labels: {app: counter}}
spec:
  ports: [{name: grpc, port: 8081}]
  command: [outrigger, ratelimit, --listen, "$(HOST):$(PORT)"]
---
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: echo}
spec:
  targetRefs: [{kind: Service, name: echo}]
  rateLimit:
    server: {address: "counter.default.svc.cluster.local:8081"}
    limits:
      - {name: together, requests: 30, per: 24h, scope: Service, shared: {failureMode: Closed, timeout: 5s}}
"#;
    let mesh = Mesh::of_manifests(&(THREE.to_owned() + MESH));
    let url = format!("http://{}/", mesh.gateway());
    let mut passed = 0;
    mesh.await_that("thirty requests pass", || {
        let (status, told) = curl(&["--include", &url]);
        assert!(matches!(status, 200 | 429), "{status}: {told}");
        passed += u32::from(status == 200);
        passed == 30
    });
    for _ in 0..10 {
        assert_eq!(curl(&[&url]).0, 429, "thirty were all");
    }
    let opened = |tls: &str| {
        mesh.metric("counter-0", "outrigger_connections_opened_total", &["direction=\"inbound\"", tls])
    };
    assert!(opened("tls=\"mutual\"") >= 1.0, "the callers' sidecars asked");
    assert_eq!(opened("tls=\"none\""), 0.0, "and none without a certificate");
}
