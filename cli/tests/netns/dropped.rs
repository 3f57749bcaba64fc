//! An instance whose packets are lost from one moment to the next: nobody says goodbye, and nothing is refused.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::load::{Load, Shape, Version};
use crate::network::{Network, Pod};
use crate::sidecar::{APP, OUTRIGGER, PATIENCE, PROXY};

/// Ends what it started.
struct Started(Vec<Child>);

impl Started {
    fn start(&mut self, pod: &Pod, uid: u32, args: &[&str]) {
        let mut command = pod.namespace.command_as(uid, OUTRIGGER);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.0.push(command.spawn().expect("nsenter starts"));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Requirements 2.9. The kernel gives up what is not acknowledged for 30 s (TCP_USER_TIMEOUT): so long takes this test, once.
#[test]
fn others_take_over_from_an_instance_whose_packets_are_lost_and_its_connections_end() {
    let Some(network) = Network::new("dropped") else { return };
    let (client, one, other) = (network.pod(), network.pod(), network.pod());
    let folder = tempfile::Builder::new().prefix("outrigger-netns").tempdir().expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(PROXY), Some(PROXY)).expect("root may");
    fs::write(folder.path().join("mesh.yaml"), manifests(&client, &one, &other)).expect("written");

    let mut started = Started(Vec::new());
    for pod in [&one, &other] {
        started.start(pod, APP, &["sample", "echo", "--host", &pod.v4.to_string(), "--port", "8080"]);
    }
    let manifests = folder.path().display().to_string();
    let service = "127.0.0.9:8080=echo:80";
    started.start(
        &client,
        PROXY,
        &["proxy", "--manifests", &manifests, "--workload", "client", "--service-address", service],
    );

    let target: SocketAddr = "127.0.0.9:8080".parse().expect("an address");
    await_that("the proxy listens", || {
        client.namespace.enter(|| std::net::TcpStream::connect(target).is_ok())
    });
    let shape = |version, connections| Shape { version, ..Shape::get(target, "/", connections) };
    let load = |shape| client.namespace.enter(|| Load::start(shape));
    let loads =
        [(Version::Http1, 6), (Version::Http2, 3)].map(|(version, count)| load(shape(version, count)));
    for load in &loads {
        await_that("load flows", || load.so_far().ok > 200);
    }
    let connected = || {
        let to = one.v4.to_string();
        !client.namespace.run("ss", &["-Htn", "state", "established", "dst", &to]).trim().is_empty()
    };
    assert!(connected(), "both instances are used");

    for rule in [
        "add table inet lost",
        "add chain inet lost packets { type filter hook input priority 0; policy drop; }",
    ] {
        one.namespace.run("nft", &[rule]);
    }
    let lost = Instant::now();
    // New callers of both versions, who wait a second at most: three rounds of them in a row are served.
    let mut rounds = Vec::new();
    await_that("the other instance serves all", || {
        rounds.push(lost.elapsed());
        let once = |version| load(Shape { pause: PATIENCE, ..shape(version, 5) });
        let probes = [Version::Http1, Version::Http2].map(once);
        std::thread::sleep(Duration::from_secs(1));
        if !probes.iter().all(|probe| probe.so_far().ok == 5) {
            rounds.clear();
        }
        rounds.len() == 3
    });
    eprintln!("the other instance serves all after {:?}; promised 10 s", rounds[0]);
    await_that("the connections to the lost one end", || !connected());
    eprintln!("its connections ended after {:?}; promised 30 s", lost.elapsed());
}

/// Ten times what is promised at most.
#[track_caller]
fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < 2 * PATIENCE, "not seen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn manifests(client: &Pod, one: &Pod, other: &Pod) -> String {
    let mut text = String::from(
        r#"
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{name: web, port: 80, targetPort: 8080}]
"#,
    );
    let workloads =
        [("client", "client", client, 9999), ("echo-1", "echo", one, 8080), ("echo-2", "echo", other, 8080)];
    for (name, app, pod, port) in workloads {
        text.push_str(&format!(
            r#"---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  address: {}
  ports: [{{name: web, port: {port}}}]
"#,
            pod.v4
        ));
    }
    text
}
