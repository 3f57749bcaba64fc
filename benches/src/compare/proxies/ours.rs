//! Ours: bare, and in use, which is with the policies of `policies.yaml`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Place, Proxy};
use crate::compare::backend;
use crate::compare::scenario::{Hops, Http, Setting};
use crate::manifests;

pub fn command(proxy: Proxy, program: &Path, place: &Place<'_>, setting: Setting) -> anyhow::Result<Command> {
    let folder = place.folder()?.join("manifests");
    fs::create_dir_all(&folder)?;
    let mut mesh = mesh(place, setting)?;
    if matches!(proxy, Proxy::OursInUse | Proxy::OursOverH2InUse) {
        mesh.push_str(POLICIES);
    }
    if matches!(proxy, Proxy::OursOverH2 | Proxy::OursOverH2InUse) {
        mesh.push_str(OVER_H2);
    }
    fs::write(folder.join("mesh.yaml"), mesh)?;
    let mut command = place.pinned(program);
    command.args(["--workers", "1", "--pod-address", &place.listen.ip().to_string(), "--manifests"]);
    command.arg(folder);
    let certificates = place.certificates;
    let leaf = match setting.hops {
        Hops::One | Hops::OneTls => {
            command.args(["--gateway", "front"]);
            return Ok(command);
        }
        Hops::Two if place.next.is_some() => {
            command.args(["--workload", "caller", "--service-address"]);
            command.arg(format!("{}=app.default.svc.cluster.local:80", place.listen));
            &certificates.caller
        }
        Hops::Two | Hops::Callee => {
            command.args(["--workload", "callee", "--inbound-listen"]);
            &certificates.callee
        }
    };
    command.arg("--identity-cert").arg(&leaf.certificate).arg("--identity-key").arg(&leaf.key);
    command.arg("--trust-bundle").arg(&certificates.root);
    Ok(command)
}

fn mesh(place: &Place<'_>, setting: Setting) -> anyhow::Result<String> {
    let app = backend::address(place.ground, setting.http);
    let protocol = match setting.http {
        Http::One => "http",
        Http::Two => "kubernetes.io/h2c",
    };
    if matches!(setting.hops, Hops::Two | Hops::Callee) {
        // The callee stands where the caller sends to, or, asked for itself, where it listens.
        let callee = place.next.unwrap_or(place.listen);
        return Ok(format!(
            "apiVersion: outrigger.dev/v1alpha1\n\
             kind: Workload\n\
             metadata: {{name: callee, labels: {{app: app}}, annotations: {{outrigger.dev/meshed: \"true\"}}}}\n\
             spec:\n  serviceAccount: callee\n  address: \"{address}\"\n  appAddress: \"{behind}\"\n  \
             ports: [{{name: http, port: {port}, appPort: {app_port}, appProtocol: {protocol}}}]\n\
             status: {{state: Ready}}\n\
             ---\n\
             apiVersion: v1\n\
             kind: Service\n\
             metadata: {{name: app}}\n\
             spec: {{selector: {{app: app}}, ports: [{{name: http, port: 80, targetPort: {port}, appProtocol: {protocol}}}]}}\n\
             ---\n\
             apiVersion: outrigger.dev/v1alpha1\n\
             kind: Workload\n\
             metadata: {{name: caller}}\n\
             spec: {{serviceAccount: caller, address: \"{own}\", ports: [{{name: http, port: 9090}}]}}\n\
             ---\n",
            address = callee.ip(),
            port = callee.port(),
            behind = app.ip(),
            app_port = app.port(),
            own = place.listen.ip(),
        ));
    }
    let listener = match setting.hops {
        Hops::OneTls => "protocol: HTTPS, tls: {certificateRefs: [{name: front}]}",
        _ => "protocol: HTTP",
    };
    let service = |name: &str| {
        manifests::service(name, "http", 80, &[app]).replacen(
            "port: 80}",
            &format!("port: 80, appProtocol: {protocol}}}"),
            1,
        )
    };
    let mut text = service("app");
    let mut rules = String::new();
    for other in 0..setting.others {
        text.push_str(&service(&format!("other{other}")));
        rules.push_str(&format!(
            "  - matches: [{{path: {{value: /other{other}}}}}]\n    backendRefs: [{{name: other{other}, port: 80}}]\n"
        ));
    }
    text.push_str(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: Gateway\n\
         metadata: {{name: front}}\n\
         spec: {{gatewayClassName: outrigger, listeners: [{{name: web, port: {port}, {listener}}}]}}\n\
         ---\n\
         apiVersion: gateway.networking.k8s.io/v1\n\
         kind: HTTPRoute\n\
         metadata: {{name: front}}\n\
         spec:\n  parentRefs: [{{name: front}}]\n  rules:\n{rules}  - backendRefs: [{{name: app, port: 80}}]\n\
         ---\n",
        port = place.listen.port(),
    ));
    if setting.hops == Hops::OneTls {
        let callee = &place.certificates.callee;
        let block = |file: &Path| -> anyhow::Result<String> {
            Ok(fs::read_to_string(file)?.lines().map(|line| format!("    {line}\n")).collect())
        };
        text.push_str(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: front}}\ntype: kubernetes.io/tls\n\
             stringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
            block(&callee.certificate)?,
            block(&callee.key)?
        ));
    }
    Ok(text)
}

/// What [`Proxy::OursInUse`](super::Proxy::OursInUse) has beside its routes.
const POLICIES: &str = include_str!("policies.yaml");

/// What [`Proxy::OursOverH2`] has on top.
const OVER_H2: &str = "---\n\
    apiVersion: outrigger.dev/v1alpha1\n\
    kind: TrafficPolicy\n\
    metadata: {name: over-h2}\n\
    spec:\n  targetRefs: [{kind: Service, name: app}]\n  connection: {multiplexHttp1: WhenBusy}\n";

#[cfg(test)]
mod tests {
    use outrigger_config::diagnostic::Severity;
    use outrigger_config::registry::Store;
    use outrigger_config::source::{Content, Files};

    use super::*;

    /// A policy that is refused would be measured as one that costs nothing.
    #[test]
    fn every_policy_is_understood() {
        let address = "127.0.0.1:80".parse().unwrap();
        let mesh = manifests::service("app", "http", 80, &[address])
            + &manifests::workload("app", address.ip())
            + POLICIES
            + OVER_H2;
        let mut files = Files::default();
        files.insert("mesh.yaml", Content::Text(mesh.into()));
        let registry = Store::new().update(&files);
        let complaints: Vec<_> =
            registry.diagnostics().iter().filter(|found| found.severity != Severity::Note).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}
