//! An instance whose packets are lost from one moment to the next: nobody says goodbye, and nothing is refused.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
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

/// Requirements 2.9. The kernel gives up what is not acknowledged, after at most 30 s: so long takes this test.
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
        // Else the first requests fail there, and it gets none for a while.
        await_that("the app listens", || pod.namespace.enter(|| TcpStream::connect((pod.v4, 8080)).is_ok()));
    }
    let manifests = folder.path().display().to_string();
    let service = "127.0.0.9:8080=echo:80";
    started.start(
        &client,
        PROXY,
        &["proxy", "--manifests", &manifests, "--workload", "client", "--service-address", service],
    );

    let target: SocketAddr = "127.0.0.9:8080".parse().expect("an address");
    await_that("the proxy listens", || client.namespace.enter(|| TcpStream::connect(target).is_ok()));
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
    await_within(ENDED, lost, "the connections to the lost one end", || !connected());
    eprintln!("its connections ended after {:?}; promised 30 s", lost.elapsed());
}

/// The same for connections that carry nothing at that time: what is kept for the next HTTP/1 request, an HTTP/2 connection without streams, a tunnel nobody
/// writes to. Keepalive finds each, at the caller's side and at the callee's.
#[test]
fn idle_connections_to_an_instance_whose_packets_are_lost_end() {
    lost_at_rest("at-rest", None);
}

/// And for those that are used again just before keepalive would find them: from then on there is something to acknowledge, for which the time begins anew.
#[test]
fn connections_used_shortly_before_their_end_end_no_later_than_promised() {
    lost_at_rest("used-again", Some(Duration::from_secs(12)));
}

/// Loses the packets of an instance to which connections of each kind are at rest, and uses each once more after `again`.
fn lost_at_rest(name: &str, again: Option<Duration>) {
    let Some(network) = Network::new(name) else { return };
    let (client, one) = (network.pod(), network.pod());
    let folder = tempfile::Builder::new().prefix("outrigger-netns").tempdir().expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(PROXY), Some(PROXY)).expect("root may");
    fs::write(folder.path().join("mesh.yaml"), three_ports(&client, &one)).expect("written");

    let mut started = Started(Vec::new());
    started.start(&one, APP, &["sample", "echo", "--host", "127.0.0.1", "--port", "8080"]);
    await_that("the app listens", || {
        one.namespace.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).is_ok())
    });
    let manifests = folder.path().display().to_string();
    let address = one.v4.to_string();
    let callee = [
        "proxy",
        "--manifests",
        &manifests,
        "--workload",
        "one",
        "--pod-address",
        &address,
        "--inbound-listen",
    ];
    started.start(&one, PROXY, &callee);
    let services = PORTS.map(|(_, port, _)| format!("127.0.0.9:{port}=one:{port}"));
    // One worker, so that whoever asks again does it over the same connection.
    let mut args = vec!["proxy", "--manifests", &manifests, "--workload", "client", "--workers", "1"];
    for service in &services {
        args.extend(["--service-address", service]);
    }
    started.start(&client, PROXY, &args);

    // One connection each; it answered, and stays open on the client's side.
    let entrance = |port| SocketAddr::from(([127, 0, 0, 9], port));
    let http2 = entrance(PORTS[1].1);
    await_that("the proxies listen", || {
        client
            .namespace
            .enter(|| TcpStream::connect(http2).is_ok() && TcpStream::connect((one.v4, PORTS[0].1)).is_ok())
    });
    let kept = [PORTS[0].1, PORTS[2].1].map(|port| client.namespace.enter(|| ask(entrance(port))));
    let shape = || Shape { version: Version::Http2, pause: 4 * PATIENCE, ..Shape::get(http2, "/", 1) };
    let load = client.namespace.enter(|| Load::start(shape()));
    await_that("HTTP/2 is answered", || load.so_far().ok == 1);
    let (to, from) = (one.v4.to_string(), client.v4.to_string());
    let left = |port: u16| {
        let port = port.to_string();
        let open = |pod: &Pod, filter: [&str; 4]| {
            let args = [&["-Htn", "state", "established"][..], &filter].concat();
            !pod.namespace.run("ss", &args).trim().is_empty()
        };
        [open(&client, ["dst", &to, "dport", &port]), open(&one, ["dst", &from, "sport", &port])]
    };
    for (_, port, what) in PORTS {
        assert_eq!(left(port), [true, true], "{what}: a connection at rest, at both sides");
    }

    for rule in [
        "add table inet lost",
        "add chain inet lost heard { type filter hook input priority 0; policy drop; }",
        "add chain inet lost said { type filter hook output priority 0; policy drop; }",
    ] {
        one.namespace.run("nft", &[rule]);
    }
    let lost = Instant::now();
    let mut again = again;
    let mut loads = vec![load];
    let mut ended = [[None; 2]; 3];
    await_within(ENDED, lost, "all of them end at both sides", || {
        if again.take_if(|again| lost.elapsed() >= *again).is_some() {
            // A machine that stands still here may have lost them by now: then this is the test before it.
            for mut stream in &kept {
                let _ = stream.write_all(REQUEST);
            }
            // Another client of the proxy, whose request goes over the same connection to the instance.
            loads.push(client.namespace.enter(|| Load::start(shape())));
        }
        for ((_, port, _), ended) in PORTS.iter().zip(&mut ended) {
            for (open, ended) in left(*port).into_iter().zip(ended) {
                if !open {
                    ended.get_or_insert(lost.elapsed());
                }
            }
        }
        ended.iter().flatten().all(Option::is_some)
    });
    for ((_, _, what), [caller, callee]) in PORTS.iter().zip(ended) {
        eprintln!(
            "{what}: ended after {caller:?} at the caller's side, {callee:?} at the callee's; promised 30 s"
        );
    }
}

/// What is spoken, the port of it, and what rests there.
const PORTS: [(&str, u16, &str); 3] =
    [("http", 8081, "kept HTTP/1"), ("kubernetes.io/h2c", 8082, "HTTP/2"), ("tcp", 8083, "a tunnel")];

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: one\r\n\r\n";

/// Asks the app once, over a connection that stays open.
fn ask(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("the proxy listens");
    stream.write_all(REQUEST).expect("it reads");
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).expect("it answers");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
    stream
}

fn three_ports(client: &Pod, one: &Pod) -> String {
    let port = |(protocol, port, _): &(&str, u16, &str)| {
        (
            format!("{{name: p{port}, port: {port}, targetPort: {port}, appProtocol: {protocol}}}"),
            format!("{{name: p{port}, port: {port}, appPort: 8080, appProtocol: {protocol}}}"),
        )
    };
    let (service, workload): (Vec<_>, Vec<_>) = PORTS.iter().map(port).unzip();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: one}}\nspec:\n  selector: {{app: one}}\n  ports: [{}]\n---\n\
         apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: one, labels: {{app: one}}}}\n\
         spec:\n  address: {}\n  ports: [{}]\n---\n\
         apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: client}}\n\
         spec:\n  address: {}\n  ports: [{{port: 9999}}]\n",
        service.join(", "),
        one.v4,
        workload.join(", "),
        client.v4
    )
}

/// Until a connection to an instance that is gone has ended: the 30 s that are promised, and 10 s in which a busy machine gets round to it. Where nothing but
/// TCP_USER_TIMEOUT is set to 30 s it takes up to 60 s.
const ENDED: Duration = Duration::from_secs(40);

/// Ten times what is promised at most.
#[track_caller]
fn await_that(what: &str, condition: impl FnMut() -> bool) {
    await_within(2 * PATIENCE, Instant::now(), what, condition);
}

#[track_caller]
fn await_within(limit: Duration, begun: Instant, what: &str, mut condition: impl FnMut() -> bool) {
    while !condition() {
        assert!(begun.elapsed() < limit, "not seen within {limit:?}: {what}");
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
