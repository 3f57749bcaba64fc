//! An app that hangs as a whole, one of three behind real sidecars.

use nix::sys::signal::Signal;

use crate::THREE;
use crate::support::{Mesh, curl, send_signal};

const POLICY: &str = r#"
---
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: echo}
spec:
  targetRefs: [{kind: Service, name: echo}]
  timeout: {perTry: 1s}
  retry: {on: [5xx]}
  circuitBreaker:
    ejection: {consecutiveErrors: 1, baseTime: 500ms, maxTime: 2s, ramp: 1s}
"#;

#[test]
fn a_stopped_app_is_left_alone_is_shown_and_returns() {
    let mesh = Mesh::of_manifests(&(THREE.to_owned() + POLICY));
    let url = format!("http://{}/", mesh.gateway());
    let stopped = mesh.instance("echo-1")["pid"].as_i64().expect("a pid") as i32;
    let shown = || {
        let output = mesh.outrigger(&["status"]);
        assert!(output.status.success(), "nothing of this is an error: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!shown().contains("ejected"));

    send_signal(stopped, Signal::SIGSTOP);
    let mut failed = 0;
    mesh.await_that("status shows the ejection", || {
        failed += usize::from(curl(&[&url]).0 != 200);
        let text = shown();
        text.contains(
            "(default/echo-1) of echo.default nothing: ejected for consecutive_errors, next probe in",
        )
    });
    assert_eq!(failed, 0, "what was sent to the stopped one was sent again elsewhere");
    for _ in 0..50 {
        assert_eq!(curl(&[&url]).0, 200);
    }

    send_signal(stopped, Signal::SIGCONT);
    mesh.await_that("it is back", || curl(&[&url]).0 == 200 && !shown().contains("ejected for"));
    let metrics = mesh.status().expect("a status")["gateways"][0]["metrics"].as_str().map(str::to_owned);
    let metrics = metrics.expect("a URL");
    mesh.await_that("it gets its whole share", || {
        assert_eq!(curl(&[&url]).0, 200);
        let in_state = |state| {
            crate::support::metric_at(&metrics, "outrigger_endpoints", &["service=\"echo.default\"", state])
        };
        in_state("state=\"healthy\"") == 3.0
    });
}
