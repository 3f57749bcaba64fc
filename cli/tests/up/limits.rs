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
