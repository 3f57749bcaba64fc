//! How a mesh begins and ends.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::THREE;
use crate::support::{self, Mesh, lives, send_signal};

#[test]
fn killing_up_leaves_no_process_behind() {
    let mesh = Mesh::of_example("bookinfo");
    let status = mesh.status().expect("a status");
    let mut pids: Vec<i32> = vec![mesh.control_pid()];
    for workload in status["workloads"].as_array().expect("workloads") {
        for key in ["pid", "sidecar_pid"] {
            pids.push(workload[key].as_i64().expect("a pid") as i32);
        }
    }
    for gateway in status["gateways"].as_array().expect("gateways") {
        pids.push(gateway["pid"].as_i64().expect("a pid") as i32);
    }
    assert!(pids.len() >= 14 && pids.iter().all(|pid| lives(*pid)), "{pids:?}");
    send_signal(mesh.up_pid(), Signal::SIGKILL);
    mesh.await_that("all processes are gone", || pids.iter().all(|pid| !lives(*pid)));
}

#[test]
fn down_drains_and_ends_everything() {
    let mesh = Mesh::of_example("bookinfo");
    let status = mesh.status().expect("a status");
    let gateway = status["gateways"][0]["pid"].as_i64().expect("a pid") as i32;
    let control = mesh.control_pid();
    let output = mesh.outrigger(&["down"]);
    assert!(output.status.success(), "{output:?}");
    mesh.await_that("gateway and control plane are gone", || !lives(gateway) && !lives(control));
    assert!(!mesh.outrigger(&["status"]).status.success(), "nothing runs any more");
}

#[test]
fn detached_it_waits_until_all_is_ready_and_returns() {
    let run_root = support::run_root();
    let manifests = run_root.path().join("mesh.yaml");
    fs::write(&manifests, THREE).expect("written");
    let outrigger = |arguments: &[&str]| {
        Command::new(support::OUTRIGGER)
            .args(arguments)
            .env("XDG_RUNTIME_DIR", run_root.path())
            .output()
            .expect("outrigger runs")
    };
    let output = outrigger(&["up", "--detach", manifests.to_str().expect("a path")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let down = outrigger(&["down"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text.matches("Ready").count(), 5, "three instances, gateway, control plane: {text}");
    assert!(down.status.success(), "{down:?}");
}
