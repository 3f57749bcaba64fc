//! AccessPolicies through whole registries: which one decides for which port.

use super::*;
use crate::registry::tests::registry;

const MESH: &str = "apiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec: {mtls: {mode: Disabled}}\n---\n";

fn workload(name: &str, labels: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n\
         spec: {{address: 10.0.0.1, ports: [{{name: a, port: 80}}, {{name: b, port: 90}}]}}\n---\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// Of port 80, port 90 and any other: the mode, and what decided it.
fn modes(registry: &Registry, workload: &str) -> [String; 3] {
    let inbound = registry.inbound_of(&Subscriber::sidecar("default", workload)).expect("known");
    let mtls = [&inbound.ports[0].mtls, &inbound.ports[1].mtls, &inbound.mtls];
    mtls.map(|mtls| match &mtls.origin {
        Some(origin) => format!("{} {} {}", mtls.mode, origin.name, origin.field),
        None => mtls.mode.to_string(),
    })
}

#[test]
fn the_nearest_word_decides_whether_callers_prove_who_they_are() {
    let whom = workload("w", "app: w");
    assert_eq!(modes(&registry(&whom), "w"), ["Permissive"; 3], "the default");
    let mesh = whom + MESH;
    assert_eq!(modes(&registry(&mesh), "w"), ["Disabled default spec.mtls.mode"; 3]);

    let namespace =
        mesh + &policy("namespace", "mtls: {mode: Permissive, ports: [{port: 90, mode: Strict}]}");
    assert_eq!(
        modes(&registry(&namespace), "w"),
        [
            "Permissive namespace spec.mtls.mode",
            "Strict namespace spec.mtls.ports[0]",
            "Permissive namespace spec.mtls.mode",
        ]
    );

    // A selector is nearer than a namespace, whatever that says of a port.
    let app = "selector: {matchLabels: {app: w}}, ";
    let chosen = namespace.clone() + &policy("chosen", &format!("{app}mtls: {{mode: Disabled}}"));
    assert_eq!(modes(&registry(&chosen), "w"), ["Disabled chosen spec.mtls.mode"; 3]);

    let port = namespace + &policy("port", &format!("{app}mtls: {{ports: [{{port: 80, mode: Strict}}]}}"));
    assert_eq!(
        modes(&registry(&port), "w"),
        [
            "Strict port spec.mtls.ports[0]",
            "Strict namespace spec.mtls.ports[0]",
            "Permissive namespace spec.mtls.mode",
        ]
    );
}

#[test]
fn of_two_alike_the_older_decides_and_others_are_left_alone() {
    let text = workload("w", "app: w, tier: x")
        + &workload("other", "app: w")
        + &policy("b", "selector: {matchLabels: {app: w, tier: x}}, mtls: {mode: Disabled}")
        + &policy("a", "selector: {matchLabels: {tier: x}}, mtls: {mode: Strict}")
        + &policy("c", "selector: {matchLabels: {tier: y}}, mtls: {mode: Strict}");
    let registry = registry(&text);
    assert_eq!(modes(&registry, "w"), ["Strict a spec.mtls.mode"; 3]);
    assert_eq!(modes(&registry, "other"), ["Permissive"; 3]);
}

#[test]
fn a_port_without_mtls_is_called_without() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: w}, ports: [{name: a, port: 80}, {name: b, port: 90}]}\n---\n";
    let whom = workload("w", "app: w")
        .replace("metadata: {", "metadata: {annotations: {outrigger.dev/meshed: 'true'}, ");
    let whom = service.to_owned() + &whom;
    let meshed = |text: &str| {
        let registry = registry(text);
        [80, 90].map(|port| {
            let name = format!("outbound|{port}||s.default.svc.cluster.local");
            registry.endpoints_of(&name).endpoints[0].meshed
        })
    };
    assert_eq!(meshed(&whom), [true, true]);
    let one = whom.clone() + &policy("p", "mtls: {ports: [{port: 90, mode: Disabled}]}");
    assert_eq!(meshed(&one), [true, false]);
    assert_eq!(meshed(&(whom + MESH)), [false, false]);
}
