//! A sidecar in a mesh of five thousand services is told of those it uses, and of nothing else. What it keeps in memory for them
//! is measured by `cargo xtask bench memory`; here the pieces are counted.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::RngExt;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{OUTRIGGER, PATIENCE, curl, metric_at};

const SERVICES: usize = 5_000;
const USED: usize = 10;

#[test]
fn a_sidecar_in_a_large_mesh_is_told_only_of_what_it_uses() {
    let network: [u8; 2] = [rand::rng().random_range(128..=254), rand::rng().random_range(0..=255)];
    let ip = |host| Ipv4Addr::new(127, network[0], network[1], host);
    let app = answers_everything();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("mesh.yaml"), mesh(app)).expect("written");
    let _control = Ended(
        Command::new(OUTRIGGER)
            .arg("control")
            .arg("--manifests")
            .arg(folder.path())
            .args(["--address", &ip(1).to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("the control plane starts"),
    );
    let _sidecar = Ended(
        Command::new(OUTRIGGER)
            .args(["proxy", "--control", &format!("{}:15010", ip(1)), "--workload", "caller"])
            .args(["--pod-address", &ip(2).to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("the sidecar starts"),
    );
    await_that("the sidecar is ready", || curl(&[&format!("http://{}:15020/healthz/ready", ip(2))]).0 == 200);
    for n in 0..USED {
        // To the sidecar as to an HTTP proxy.
        let target = format!("http://service-{n}.default.svc.cluster.local/");
        let (status, body) = curl(&["--request-target", &target, &format!("http://{}:15001/", ip(2))]);
        assert_eq!((status, body.as_str()), (200, "here"), "{target}");
    }

    let (status, dump) = curl(&[&format!("http://{}:15000/config_dump", ip(2))]);
    assert_eq!(status, 200);
    let dump: Value = serde_json::from_str(&dump).expect("JSON");
    let resources = dump["resources"].as_array().expect("a list");
    let names: BTreeSet<&str> = resources.iter().map(|one| one["name"].as_str().expect("a name")).collect();
    let used: BTreeSet<String> = (0..USED).map(|n| format!("service-{n}.default")).collect();
    for name in &names {
        let known = *name == "inbound" || used.iter().any(|service| name.contains(&format!("{service}.")));
        assert!(known, "{name} was never asked for");
    }
    // A listener, a route table, a cluster and its endpoints for each, and the sidecar's own listener.
    assert_eq!(resources.len(), 4 * USED + 1, "{names:?}");
    let metrics = format!("http://{}:15014/metrics", ip(1));
    assert_eq!(metric_at(&metrics, "outrigger_control_resources_sent_total", &[]), (4 * USED + 1) as f64);
}

fn mesh(app: u16) -> String {
    let mut mesh = String::from(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: caller}\n\
         spec: {address: 127.0.0.1, ports: [{name: http, port: 8080}]}\n",
    );
    for n in 0..SERVICES {
        write!(
            mesh,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: service-{n}}}\n\
             spec: {{ports: [{{name: http, port: 80}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: service-{n}-1, labels: {{kubernetes.io/service-name: service-{n}}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [127.0.0.1]}}]\nports: [{{name: http, port: {app}}}]\n"
        )
        .expect("a String can be written to");
    }
    mesh
}

/// The port of an app that says `here` to everyone, as long as the tests run.
fn answers_everything() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let answer = |mut stream: TcpStream| {
        // A head of this test comes in one piece.
        while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere").is_err() {
                return;
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not seen within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
