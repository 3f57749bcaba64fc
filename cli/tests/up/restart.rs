//! Instances that come and go under load.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use nix::sys::signal::Signal;

use crate::THREE;
use crate::support::load::{Load, Shape, Version};
use crate::support::{Mesh, lives, send_signal};

#[test]
fn a_rolling_restart_under_load_loses_nothing() {
    let mesh = Mesh::of_manifests(THREE);
    let target = mesh.gateway();
    let before: BTreeSet<i64> =
        (0..3).map(|n| mesh.instance(&format!("echo-{n}"))["pid"].as_i64().expect("a pid")).collect();
    let mut loads = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        for method in [Method::GET, Method::POST] {
            let body = if method == Method::POST { Bytes::from_static(b"paid once") } else { Bytes::new() };
            loads.push(Load::start(Shape { version, method, body, ..Shape::get(target, "/", 6) }));
        }
    }
    mesh.await_that("load flows", || loads.iter().all(|load| load.so_far().ok > 20));
    let output = mesh.outrigger(&["restart", "echo"]);
    assert!(output.status.success(), "{output:?}");
    mesh.await_that("load flows after it", || {
        loads.iter().all(|load| {
            load.forget_bodies();
            std::thread::sleep(Duration::from_millis(50));
            !load.so_far().bodies.is_empty()
        })
    });
    let after: BTreeSet<i64> =
        (0..3).map(|n| mesh.instance(&format!("echo-{n}"))["pid"].as_i64().expect("a pid")).collect();
    assert!(before.is_disjoint(&after), "every instance is a new process");
    for load in loads {
        load.finish().assert_no_failure();
    }
}

#[test]
fn an_endpoint_moves_under_load_and_no_request_fails() {
    let mesh = Mesh::of_manifests(THREE);
    let load = Load::start(Shape::get(mesh.gateway(), "/", 50));
    mesh.await_that("load flows", || load.so_far().ok > 200);
    let before = mesh.instance("echo-1")["address"].clone();
    assert!(mesh.outrigger(&["restart", "echo-1"]).status.success());
    let after = mesh.instance("echo-1")["address"].clone();
    assert_ne!(before, after, "it is at another address now");
    let seen = mesh.metric("echo-1", "outrigger_requests_total", &["direction=\"inbound\""]);
    mesh.await_that("requests arrive at the new address", || {
        mesh.metric("echo-1", "outrigger_requests_total", &["direction=\"inbound\""]) > seen + 10.0
    });
    load.finish().assert_no_failure();
}

#[test]
fn an_instance_leaves_under_load_also_while_the_control_plane_is_away() {
    let mesh = Mesh::of_manifests(THREE);
    let mut loads = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        loads.push(Load::start(Shape { version, ..Shape::get(mesh.gateway(), "/", 6) }));
    }
    mesh.await_that("load flows", || loads.iter().all(|load| load.so_far().ok > 100));
    let control = mesh.control_pid();
    send_signal(control, Signal::SIGSTOP);
    let refused = mesh.outrigger(&["restart", "echo-1"]);
    assert_eq!(refused.status.code(), Some(1), "nothing could take its place: {refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("control plane is away"), "{refused:?}");
    let leaving = mesh.instance("echo-2")["pid"].as_i64().expect("a pid") as i32;
    let fewer = THREE.replace("replicas: 3", "replicas: 2");
    fs::write(mesh.manifests.join("mesh.yaml"), fewer).expect("written");
    mesh.await_that("one instance is gone", || !lives(leaving));
    mesh.await_that("its sidecar, too", || {
        mesh.status().is_some_and(|status| status["workloads"].as_array().is_some_and(|all| all.len() == 2))
    });
    assert!(mesh.log_text().contains("echo-2: not all callers know that it drains"), "{}", mesh.log_text());
    // Those who could not be told learnt it from a closed port, and what they would have sent there went to another instance.
    for load in &loads {
        let before = load.so_far().ok;
        mesh.await_that("load goes on", || load.so_far().ok > before + 200);
    }
    send_signal(control, Signal::SIGCONT);
    for load in loads {
        load.finish().assert_no_failure();
    }
}
