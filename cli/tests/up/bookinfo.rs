//! Bookinfo from the examples: what a page is made of, and what an edit changes.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::support::load::{Load, Shape};
use crate::support::{Mesh, curl, send_signal};

/// Which version of reviews answered, as the page names it.
pub fn version(page: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(page);
    ["reviews-v1", "reviews-v2", "reviews-v3"].into_iter().find(|version| text.contains(*version))
}

/// Takes all traffic from `reviews` to one version.
pub fn send_reviews_to(mesh: &Mesh, wanted: &str) {
    let weight = |version: &str| u8::from(version == wanted);
    let text = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/examples/bookinfo/reviews-route.yaml"
    ))
    .expect("the route");
    let changed = text
        .replace(
            "name: reviews-v1, port: 9080, weight: 0",
            &format!("name: reviews-v1, port: 9080, weight: {}", weight("reviews-v1")),
        )
        .replace(
            "name: reviews-v2, port: 9080, weight: 50",
            &format!("name: reviews-v2, port: 9080, weight: {}", weight("reviews-v2")),
        )
        .replace(
            "name: reviews-v3, port: 9080, weight: 50",
            &format!("name: reviews-v3, port: 9080, weight: {}", weight("reviews-v3")),
        );
    assert_ne!(text, changed);
    fs::write(mesh.manifests.join("reviews-route.yaml"), changed).expect("written");
}

pub fn only_answers(load: &Load, wanted: &str) -> bool {
    load.forget_bodies();
    std::thread::sleep(Duration::from_millis(200));
    let bodies = load.so_far().bodies;
    !bodies.is_empty() && bodies.iter().all(|page| version(page) == Some(wanted))
}

#[test]
fn bookinfo_answers_and_each_call_went_through_two_sidecars() {
    let mesh = Mesh::of_example("bookinfo");
    let url = format!("http://{}/productpage", mesh.gateway());
    for _ in 0..10 {
        let (status, page) = curl(&[&url]);
        assert_eq!(status, 200, "{page}");
        assert!(page.contains("Paperback") || page.contains("paperback"), "details are on the page: {page}");
        assert!(page.contains("Reviewer1"), "reviews are on the page: {page}");
        assert!(version(page.as_bytes()).is_some(), "the page names who answered: {page}");
    }
    let outbound = |instance: &str, service: &str| {
        let label = format!("service=\"{service}.default\"");
        mesh.metric(instance, "outrigger_requests_total", &["direction=\"outbound\"", &label, "code=\"200\""])
    };
    let inbound = |instance: &str| {
        mesh.metric(instance, "outrigger_requests_total", &["direction=\"inbound\"", "code=\"200\""])
    };
    assert_eq!(inbound("productpage-v1-0"), 10.0);
    assert_eq!(outbound("productpage-v1-0", "details"), 10.0);
    assert_eq!(inbound("details-v1-0"), 10.0);
    assert_eq!(outbound("productpage-v1-0", "reviews"), 10.0);
    assert_eq!(inbound("reviews-v2-0") + inbound("reviews-v3-0"), 10.0);
    assert_eq!(outbound("reviews-v2-0", "ratings") + outbound("reviews-v3-0", "ratings"), 10.0);
    assert_eq!(inbound("ratings-v1-0"), 10.0);
    for instance in ["productpage-v1-0", "details-v1-0", "ratings-v1-0"] {
        let opened = |tls: &str| {
            let labels = ["direction=\"inbound\"", &format!("tls=\"{tls}\"")];
            mesh.metric(instance, "outrigger_connections_opened_total", &labels)
        };
        assert!(opened("mutual") > 0.0, "{instance} is called with mTLS");
        assert_eq!(opened("none"), 0.0, "{instance} is called with nothing else");
    }

    // A path no route names: the mesh answers itself, and says why.
    let (status, _) = curl(&[&format!("http://{}/nowhere", mesh.gateway())]);
    assert_eq!(status, 404);
    let headers = curl(&["--head", &format!("http://{}/nowhere", mesh.gateway())]).1;
    assert!(
        headers.to_lowercase().contains("proxy-status: outrigger") && headers.contains("no_route"),
        "{headers}"
    );
}

#[test]
fn two_meshes_side_by_side_do_not_meet() {
    let (first, second) = (Mesh::of_example("bookinfo"), Mesh::of_example("bookinfo"));
    assert_ne!(first.gateway(), second.gateway());
    let before = second.metric("details-v1-0", "outrigger_requests_total", &["direction=\"inbound\""]);
    let (status, _) = curl(&[&format!("http://{}/productpage", first.gateway())]);
    assert_eq!(status, 200);
    assert_eq!(second.metric("details-v1-0", "outrigger_requests_total", &["direction=\"inbound\""]), before);
    drop(first);
    let (status, _) = curl(&[&format!("http://{}/productpage", second.gateway())]);
    assert_eq!(status, 200);
}

#[test]
fn a_weight_changes_under_load_and_no_request_fails() {
    let mesh = Mesh::of_example("bookinfo");
    let load = Load::start(Shape::get(mesh.gateway(), "/productpage", 50));
    mesh.await_that("both versions answer", || {
        let seen: BTreeSet<_> = load.so_far().bodies.iter().filter_map(|page| version(page)).collect();
        seen == BTreeSet::from(["reviews-v2", "reviews-v3"])
    });
    let begun = Instant::now();
    send_reviews_to(&mesh, "reviews-v1");
    mesh.await_that("only the new version answers", || only_answers(&load, "reviews-v1"));
    eprintln!("the split moved within {:?} (promised: 1 s, measured with steps of 0.2 s)", begun.elapsed());
    load.finish().assert_no_failure();
}

#[test]
fn a_broken_file_is_reported_with_its_line_and_traffic_goes_on() {
    let mesh = Mesh::of_example("bookinfo");
    let load = Load::start(Shape::get(mesh.gateway(), "/productpage", 4));
    let route = mesh.manifests.join("reviews-route.yaml");
    let text = fs::read_to_string(&route).expect("the route");
    let broken = text.replace("weight: 0}", "wieght: 0}");
    let line = 1 + broken.lines().position(|line| line.contains("wieght")).expect("broken");
    fs::write(&route, &broken).expect("written");
    mesh.await_that("status names file, line and the nearest field", || {
        let output = mesh.outrigger(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains(&format!("reviews-route.yaml:{line}:"))
            && text.contains("wieght")
            && text.contains("weight")
    });
    let output = mesh.outrigger(&["status"]);
    assert_eq!(output.status.code(), Some(1), "a problem was found: {output:?}");
    let status = mesh.status().expect("a status");
    let problem = &status["problems"][0];
    assert_eq!((&problem["severity"], &problem["kind"]), (&"error".into(), &"manifest".into()), "{problem}");
    let check = mesh.outrigger(&["check", mesh.manifests.to_str().expect("a path")]);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    let before = load.so_far().ok;
    mesh.await_that("traffic goes on", || load.so_far().ok > before + 50);
    load.finish().assert_no_failure();
    // Proxies that ask for the first time get the last good version, too: it is the mesh's, not a proxy's.
    let control = mesh.status().expect("a status");
    let route = control["configuration"]["objects"].as_array().expect("objects").iter();
    let route = route.filter(|object| object["kind"] == "HTTPRoute" && object["name"] == "reviews").count();
    assert_eq!(route, 1, "{control}");
    fs::write(mesh.manifests.join("reviews-route.yaml"), &text).expect("written");
    mesh.await_that("nothing is wrong any more", || mesh.outrigger(&["status"]).status.success());
}

#[test]
fn a_killed_sidecar_or_app_comes_back() {
    let mesh = Mesh::of_example("bookinfo");
    for key in ["sidecar_pid", "pid"] {
        let pid = mesh.instance("details-v1-0")[key].as_i64().expect("a pid");
        send_signal(pid as i32, Signal::SIGKILL);
        mesh.await_that("another process took its place", || {
            let report = mesh.instance("details-v1-0");
            report["state"] == "Ready" && report[key].as_i64().is_some_and(|now| now != pid)
        });
        mesh.await_that("details answer again", || {
            let (status, page) = curl(&[&format!("http://{}/productpage", mesh.gateway())]);
            status == 200 && page.to_lowercase().contains("paperback")
        });
    }
}
