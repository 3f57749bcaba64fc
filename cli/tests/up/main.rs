//! `outrigger up` as a newcomer meets it: whole meshes, real processes, real sockets.

mod access;
mod bookinfo;
mod breaking;
mod control_plane;
mod discovery;
mod faults;
mod foreign;
mod identity;
mod lifecycle;
mod limits;
#[path = "../../../proxy/tests/it/ports.rs"]
mod ports;
mod prometheus;
mod restart;
mod rotation;
mod scale;
mod shared_limits;
#[path = "../support/mod.rs"]
mod support;
mod troubles;

/// Three instances of one workload behind a gateway.
pub const THREE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: echo, labels: {app: echo}}
spec:
  replicas: 3
  ports: [{name: http, port: 8080}]
  command: [outrigger, sample, echo]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: outrigger
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: echo}
spec:
  parentRefs: [{name: front}]
  rules:
    - backendRefs: [{name: echo, port: 80}]
"#;
