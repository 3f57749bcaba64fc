//! Generated manifests, in the form Kubernetes has them: a Service and its EndpointSlice.

use std::net::{IpAddr, SocketAddr};

/// A Service of one port, and where it is answered.
pub fn service(name: &str, port_name: &str, port: u16, endpoints: &[SocketAddr]) -> String {
    let target = endpoints.first().map_or(port, SocketAddr::port);
    let addresses: Vec<_> =
        endpoints.iter().map(|endpoint| format!("{{addresses: [\"{}\"]}}", endpoint.ip())).collect();
    format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: {name}}}\n\
         spec: {{ports: [{{name: {port_name}, port: {port}}}]}}\n\
         ---\n\
         apiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\n\
         metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\n\
         endpoints: [{}]\n\
         ports: [{{name: {port_name}, port: {target}}}]\n\
         ---\n",
        addresses.join(", ")
    )
}

/// The workload a sidecar stands beside.
pub fn workload(name: &str, address: IpAddr) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\n\
         kind: Workload\n\
         metadata: {{name: {name}}}\n\
         spec: {{address: \"{address}\", ports: [{{name: http, port: 8080}}]}}\n\
         ---\n"
    )
}

/// A Service of port 80 whose instances are the workloads with the label `app: APP`.
pub fn selecting(name: &str, app: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: {name}}}\n\
         spec: {{selector: {{app: {app}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n\
         ---\n"
    )
}

/// An instance of `app` with a sidecar of its own at `address`, before an app at `behind`.
pub fn meshed(name: &str, app: &str, address: IpAddr, behind: IpAddr) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\n\
         kind: Workload\n\
         metadata: {{name: {name}, labels: {{app: {app}}}, annotations: {{outrigger.dev/meshed: \"true\"}}}}\n\
         spec: {{address: \"{address}\", appAddress: \"{behind}\", ports: [{{name: http, port: 8080}}]}}\n\
         status: {{state: Ready}}\n\
         ---\n"
    )
}

/// All calls to `service`, split by weight.
pub fn split(service: &str, backends: &[(&str, u32)]) -> String {
    let backends: Vec<_> = backends
        .iter()
        .map(|(name, weight)| format!("{{name: {name}, port: 80, weight: {weight}}}"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: HTTPRoute\n\
         metadata: {{name: {service}}}\n\
         spec:\n  \
           parentRefs: [{{group: \"\", kind: Service, name: {service}}}]\n  \
           rules: [{{backendRefs: [{}]}}]\n\
         ---\n",
        backends.join(", ")
    )
}
