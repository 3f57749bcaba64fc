//! `outrigger up` as a newcomer meets it: Bookinfo from the examples, real processes, real sockets.

mod prometheus;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use nix::sys::signal::Signal;
use support::load::{Load, Shape, Version};
use support::{Mesh, curl, lives, send_signal};
use tokio::time::Instant;

/// Which version of reviews answered, as the page names it.
fn version(page: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(page);
    ["reviews-v1", "reviews-v2", "reviews-v3"].into_iter().find(|version| text.contains(*version))
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

/// Ends the control plane without a goodbye and waits until `up` has put another one in its place.
fn kill_control(mesh: &Mesh) {
    let pid = mesh.control_pid();
    send_signal(pid, Signal::SIGKILL);
    mesh.await_that("another control plane took its place", || {
        let control = mesh.control();
        control["pid"].as_i64() != Some(pid.into()) && control["restarts"].as_i64() > Some(0)
    });
}

/// Takes all traffic from `reviews` to one version.
fn send_reviews_to(mesh: &Mesh, wanted: &str) {
    let weight = |version: &str| u8::from(version == wanted);
    let text = fs::read_to_string("../docs/examples/bookinfo/reviews-route.yaml").expect("the route");
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

fn only_answers(load: &Load, wanted: &str) -> bool {
    load.forget_bodies();
    std::thread::sleep(Duration::from_millis(200));
    let bodies = load.so_far().bodies;
    !bodies.is_empty() && bodies.iter().all(|page| version(page) == Some(wanted))
}

#[test]
fn a_control_plane_killed_under_load_fails_no_request_and_its_successor_is_followed() {
    let mesh = Mesh::of_example("bookinfo");
    let load = Load::start(Shape::get(mesh.gateway(), "/productpage", 16));
    for wanted in ["reviews-v1", "reviews-v2", "reviews-v3"] {
        let before = load.so_far().ok;
        mesh.await_that("load flows", || load.so_far().ok > before + 100);
        kill_control(&mesh);
        send_reviews_to(&mesh, wanted);
        mesh.await_that("an edit made after its return takes effect", || only_answers(&load, wanted));
    }
    load.finish().assert_no_failure();
}

#[test]
fn a_sidecar_that_starts_while_the_control_plane_is_away_serves_from_its_copy() {
    let mesh = Mesh::of_example("bookinfo");
    let page = format!("http://{}/productpage", mesh.gateway());
    assert_eq!(curl(&[&page]).0, 200);
    let productpage = mesh.instance("productpage-v1-0");
    let address = productpage["address"].as_str().expect("an address").to_owned();
    mesh.await_that("what its sidecar uses is in its copy", || {
        let copy = mesh.copy_of(&address);
        ["outbound|9080||reviews", "outbound|9080||details"]
            .iter()
            .all(|name| copy.windows(name.len()).any(|bytes| bytes == name.as_bytes()))
    });
    // Held, so that `up` does not put another one in its place.
    let control = mesh.control_pid();
    send_signal(control, Signal::SIGSTOP);
    let sidecar = productpage["sidecar_pid"].as_i64().expect("a pid");
    send_signal(sidecar as i32, Signal::SIGKILL);
    mesh.await_that("another sidecar is ready", || {
        let report = mesh.instance("productpage-v1-0");
        report["state"] == "Ready" && report["sidecar_pid"].as_i64().is_some_and(|now| now != sidecar)
    });
    let load = Load::start(Shape::get(mesh.gateway(), "/productpage", 8));
    mesh.await_that("pages with reviews and details come", || {
        let bodies = load.so_far().bodies;
        bodies.len() > 100
            && bodies.iter().all(|page| {
                version(page).is_some() && String::from_utf8_lossy(page).to_lowercase().contains("paperback")
            })
    });
    let text = String::from_utf8_lossy(&mesh.outrigger(&["status"]).stdout).into_owned();
    assert!(text.contains("control plane: does not answer"), "{text}");
    send_reviews_to(&mesh, "reviews-v1");
    send_signal(control, Signal::SIGCONT);
    mesh.await_that("what was edited meanwhile takes effect", || only_answers(&load, "reviews-v1"));
    load.finish().assert_no_failure();
}

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

const THREE: &str = r#"
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
fn detached_it_waits_until_all_is_ready_and_returns() {
    let run_root = tempfile::tempdir().expect("a folder");
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
