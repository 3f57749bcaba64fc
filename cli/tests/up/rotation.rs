//! Certificates and roots that are replaced while the mesh carries load.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::THREE;
use crate::support::load::{Load, Shape, Version};
use crate::support::{Mesh, curl, peers, send_signal};

/// Leaves of 10 s, the shortest there are.
const SHORT: &str = "---\napiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec:\n  \
                     certificate: {lifetime: 10s}\n  mtls: {mode: Strict}\n";

/// Calls the others; nobody calls it.
const CALLER: &str = "---\napiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: caller}\nspec:\n  command: [sleep, infinity]\n";

/// Takes 40 s: the old root is believed for the life of a leaf, which cannot be shorter, and for a proxy that does not answer the control
/// plane waits before it lets the new root sign.
#[test]
fn leaves_and_the_root_are_replaced_under_load_and_nobody_notices() {
    let mesh = Mesh::of_manifests(&format!("{THREE}{SHORT}{CALLER}"));
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
    // One hears nothing of all this.
    let caller = mesh.instance("caller-0");
    let away = caller["sidecar_pid"].as_i64().expect("a pid") as i32;
    send_signal(away, Signal::SIGSTOP);
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
    // It wakes up with a certificate that has expired, and with roots that nobody is believed by any more.
    send_signal(away, Signal::SIGCONT);
    mesh.await_that("the one that was away has a leaf of the new root", || {
        issuer_of(&mesh, "caller-0") != issuer
    });
    let proxy = format!("http://{}:15001", caller["address"].as_str().expect("an address"));
    mesh.await_that("it calls the others", || {
        curl(&["--noproxy", "", "--proxy", &proxy, "http://echo.default/"]).0 == 200
    });
    assert_eq!(processes(&mesh), before, "nothing was restarted");
}

/// Until two renewals of each side may have been. The whole minute of the promise is a drill (`cargo xtask bench drills leaves`). Each call by bytes is a
/// connection, and so a handshake, of its own.
const LOAD: Duration = Duration::from_secs(12);

#[test]
fn h2load_and_wrk_meet_new_leaves_and_no_failure() {
    let test = "h2load_and_wrk_meet_new_leaves_and_no_failure";
    if !peers::present(test, &["h2load", "wrk", "openssl", "curl"]) {
        return;
    }
    const RAW: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: raw}\nspec:\n  selector: {app: raw}\n  ports: [{name: tcp, port: 9000}]\n\
                       ---\napiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: raw, labels: {app: raw}}\nspec:\n  \
                       ports: [{name: tcp, port: 9000, appProtocol: tcp}]\n  command: [outrigger, sample, echo]\n";
    let mesh = Mesh::of_manifests(&format!("{THREE}{SHORT}{CALLER}{RAW}"));
    let before = processes(&mesh);
    let caller = mesh.instance("caller-0");
    let variable = |name: &str| variable_of(caller["pid"].as_i64().expect("a pid"), name);
    let service = |name: &str| {
        format!("{}:{}", variable(&format!("{name}_SERVICE_HOST")), variable(&format!("{name}_SERVICE_PORT")))
    };
    // Answers take their time, so that connections and streams are open at once and the machine is left to other tests as well.
    let url = format!("http://{}/delay/50", service("ECHO"));
    let raw = format!("http://{}/status/200", service("RAW"));
    let begun = Instant::now();
    let seconds = LOAD.as_secs().to_string();
    let h2load = started("h2load", &["-D", &seconds, "-c", "4", "-m", "4", &url]);
    let wrk = started("wrk", &["-d", &format!("{seconds}s"), "-t", "1", "-c", "8", "--timeout", "20s", &url]);
    let echo = mesh.instance("echo-0")["address"].as_str().expect("an address").to_owned();
    let (mut callee, mut callers, mut calls) = (BTreeSet::new(), BTreeSet::new(), 0);
    while begun.elapsed() < LOAD {
        callee.insert(serial_on_the_wire(&format!("{echo}:8080")));
        callers.insert(svid_of(&mesh, "caller-0")["serial"].as_str().expect("a serial").to_owned());
        for _ in 0..5 {
            let (status, said) = curl(&["--noproxy", "*", &raw]);
            assert_eq!(status, 200, "call {calls} by bytes: {said}");
            calls += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    eprintln!(
        "{} serials of the callee on the wire, {} of the caller, {calls} calls by bytes",
        callee.len(),
        callers.len()
    );
    assert!(callee.len() >= 2 && callers.len() >= 2, "{callee:?} {callers:?}");
    let said = ended(h2load);
    eprintln!("{said}");
    assert!(said.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains(" 2xx, 0 3xx, 0 4xx, 0 5xx") && !said.contains("status codes: 0 2xx"), "{said}");
    let said = ended(wrk);
    eprintln!("{said}");
    assert!(said.contains("requests in") && !said.contains(" 0 requests in"), "{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    assert_eq!(processes(&mesh), before, "nothing was restarted");
}

fn started(program: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it was found")
}

fn ended(child: Child) -> String {
    let output = child.wait_with_output().expect("its output");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What an app was started with.
fn variable_of(pid: i64, name: &str) -> String {
    let block = fs::read_to_string(format!("/proc/{pid}/environ")).expect("text");
    let found = block.split('\0').find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {block:?}")).to_owned()
}

/// Of the certificate that a callee shows whoever calls, before it asks for the caller's.
fn serial_on_the_wire(address: &str) -> String {
    let said = Command::new("openssl")
        .args(["s_client", "-connect", address, "-tls1_3", "-showcerts"])
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    let mut reader = Command::new("openssl")
        .args(["x509", "-noout", "-serial"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    // An error says that it has ended before it read everything.
    let _ = reader.stdin.take().expect("piped").write_all(&said.stdout);
    let output = reader.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(text.starts_with("serial="), "{text} of {}", String::from_utf8_lossy(&said.stdout));
    text
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

/// The intermediate, which is named after its root.
fn issuer_of(mesh: &Mesh, instance: &str) -> Value {
    svid_of(mesh, instance)["issuer"].clone()
}

/// The certificate that an instance's sidecar proves itself with.
fn svid_of(mesh: &Mesh, instance: &str) -> Value {
    let address = mesh.instance(instance)["address"].as_str().expect("an address").to_owned();
    let (status, text) = curl(&[&format!("http://{address}:15000/identity")]);
    assert_eq!(status, 200, "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert!(report["svid"]["issuer"].is_string(), "{report}");
    report["svid"].clone()
}
