//! Certificates and roots that are replaced while the mesh carries load.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::THREE;
use crate::support::load::{Load, Shape, Version};
use crate::support::{Mesh, curl};

/// Leaves of 10 s, the shortest there are.
const SHORT: &str = "---\napiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec:\n  \
                     certificate: {lifetime: 10s}\n  mtls: {mode: Strict}\n";

/// Takes 20 s: the old root is believed for the life of a leaf, and that cannot be shorter.
#[test]
fn leaves_and_the_root_are_replaced_under_load_and_nobody_notices() {
    let mesh = Mesh::of_manifests(&format!("{THREE}{SHORT}"));
    let target = mesh.gateway();
    let loads: Vec<_> = [Version::Http1, Version::Http2]
        .into_iter()
        .map(|version| Load::start(Shape { version, ..Shape::get(target, "/", 8) }))
        .collect();
    mesh.await_that("load flows", || loads.iter().all(|load| load.so_far().ok > 50));
    let before = processes(&mesh);
    let issuer = issuer_of(&mesh, "echo-0");

    let ca = |arguments: &[&str]| {
        let output = mesh.outrigger(&[&["ca"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let old = ca(&["export-root"]);
    ca(&["rotate-root", "--settle", "2s"]);
    assert_eq!(ca(&["export-root"]).matches("BEGIN").count(), 2);
    mesh.await_that("the old root is gone", || {
        let now = ca(&["export-root"]);
        now.matches("BEGIN").count() == 1 && now != old
    });
    mesh.await_that("a leaf of the new root is in use", || issuer_of(&mesh, "echo-0") != issuer);
    let ok: Vec<_> = loads.iter().map(|load| load.so_far().ok).collect();
    mesh.await_that("load flows after it", || {
        loads.iter().zip(&ok).all(|(load, before)| load.so_far().ok > before + 50)
    });
    for load in loads {
        load.finish().assert_no_failure();
    }
    assert_eq!(processes(&mesh), before, "nothing was restarted");
}

/// Of every instance and sidecar, and the control plane.
fn processes(mesh: &Mesh) -> BTreeSet<i64> {
    let status = mesh.status().expect("a status");
    let workloads = status["workloads"].as_array().expect("a list").clone();
    workloads
        .iter()
        .flat_map(|workload| [&workload["pid"], &workload["sidecar_pid"]])
        .chain([&status["control"]["pid"]])
        .map(|pid| pid.as_i64().expect("a pid"))
        .collect()
}

/// Of the certificate that an instance's sidecar proves itself with: the intermediate, which is named after its root.
fn issuer_of(mesh: &Mesh, instance: &str) -> Value {
    let address = mesh.instance(instance)["address"].as_str().expect("an address").to_owned();
    let (status, text) = curl(&[&format!("http://{address}:15000/identity")]);
    assert_eq!(status, 200, "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert!(report["svid"]["issuer"].is_string(), "{report}");
    report["svid"]["issuer"].clone()
}
