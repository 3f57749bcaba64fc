//! Identities of a mesh as `outrigger up` runs it: who is who, and what is on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{Mesh, curl, send_signal};

fn identity(mesh: &Mesh) -> Vec<Value> {
    let output = mesh.outrigger(&["identity", "-o", "json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{errors}");
    serde_json::from_str(&text).expect("JSON")
}

fn edges(proxies: &[Value], direction: &str) -> Vec<Value> {
    let all = proxies.iter().flat_map(|proxy| proxy["edges"].as_array().cloned().unwrap_or_default());
    all.filter(|edge| edge["direction"] == direction).collect()
}

#[test]
fn every_edge_of_bookinfo_is_mtls_and_nothing_else_is_on_the_wire() {
    let mesh = Mesh::of_example("bookinfo");
    let status = mesh.status().expect("a status");
    let pods: BTreeSet<Ipv4Addr> =
        status["workloads"].as_array().expect("workloads").iter().map(pod).collect();
    let wire = Wire::listen(pods);
    let page = format!("http://{}/productpage", mesh.gateway());
    for _ in 0..20 {
        assert_eq!(curl(&[&page]).0, 200);
    }
    let seen = wire.map(Wire::end);

    let proxies = identity(&mesh);
    for proxy in &proxies {
        let id = proxy["svid"]["id"].as_str().unwrap_or_default();
        assert!(id.starts_with("spiffe://cluster.local/ns/default/sa/"), "{proxy}");
    }
    let calls = edges(&proxies, "outbound");
    assert!(calls.len() >= 4, "{calls:?}");
    for call in &calls {
        assert_eq!(call["mtls"], true, "{call}");
        assert_eq!(call["key_exchange"], "X25519MLKEM768", "{call}");
    }
    for call in edges(&proxies, "inbound") {
        assert_eq!(call["mtls"], true, "{call}");
    }
    let report = mesh.outrigger(&["identity", "--strict-report"]);
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stdout));

    let Some(seen) = seen else { return };
    assert!(seen.connections.len() >= 4, "{} connections were seen", seen.connections.len());
    for (ends, first) in &seen.connections {
        assert!(first.starts_with(&[22, 3]), "{ends:?} begins with {:?}", first.escape_ascii().to_string());
    }
    assert!(seen.hellos > 0, "no ServerHello was seen");
    assert_eq!(seen.strong, seen.hellos, "all of them TLS 1.3 with X25519MLKEM768");
}

/// Somebody outside the mesh still gets in, and the report says whom Strict would turn away.
#[test]
fn a_caller_without_an_identity_is_in_the_report() {
    let mesh = Mesh::of_manifests(crate::THREE);
    let report = mesh.outrigger(&["identity", "--strict-report"]);
    let said = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.status.success() && said.contains("No caller was seen yet"), "{said}");
    let instance = mesh.instance("echo-1");
    let at = format!("http://{}:8080/", instance["address"].as_str().expect("an address"));
    assert_eq!(curl(&[&at]).0, 200);
    let report = mesh.outrigger(&["identity", "--strict-report", "-o", "json"]);
    assert_eq!(report.status.code(), Some(1));
    let refused: Vec<Value> = serde_json::from_slice(&report.stdout).expect("JSON");
    let [one] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((&one["workload"], &one["port"]), (&"default/echo-1".into(), &8080.into()), "{one}");
    assert_eq!(one["why"], "the caller spoke plaintext");

    // A sidecar that says nothing may have had anybody.
    let silent = mesh.instance("echo-0")["sidecar_pid"].as_i64().expect("a pid") as i32;
    send_signal(silent, Signal::SIGSTOP);
    let report = mesh.outrigger(&["identity", "--strict-report"]);
    send_signal(silent, Signal::SIGCONT);
    assert_eq!(report.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&report.stderr).into_owned();
    assert!(errors.contains("default/echo-0 could not be asked who calls it"), "{errors}");
}

fn pod(workload: &Value) -> Ipv4Addr {
    workload["address"].as_str().and_then(|address| address.parse().ok()).expect("an address")
}

/// What passes over loopback to and from the apps' declared port at their pod addresses.
struct Wire {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// First bytes of each caller's side.
    connections: BTreeMap<(Ipv4Addr, u16, Ipv4Addr), Vec<u8>>,
    hellos: usize,
    strong: usize,
}

const PORT: u16 = 9080;

impl Wire {
    /// `None` where packets may not be looked at.
    fn listen(pods: BTreeSet<Ipv4Addr>) -> Option<Self> {
        const IPV4: u16 = 0x0800;
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(IPV4.to_be()))));
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                let skip = std::env::var_os("OUTRIGGER_SKIP_PEERS").is_some_and(|value| value == "1");
                assert!(skip, "capturing needs CAP_NET_RAW: {error}; OUTRIGGER_SKIP_PEERS=1 goes on without");
                eprintln!("SKIPPED: nothing can be said about the wire: {error}");
                return None;
            }
        };
        socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("an option");
        socket.set_recv_buffer_size(8 << 20).expect("an option");
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (stopped, noted) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; 128 * 1024];
            while !stopped.load(Ordering::SeqCst) {
                if let Ok(count) = (&socket).read(&mut frame) {
                    noted.lock().expect("nobody panics").note(&frame[..count], &pods);
                }
            }
        });
        Some(Self { stop, seen, thread })
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("it ends");
        std::mem::take(&mut self.seen.lock().expect("nobody panics"))
    }
}

impl Seen {
    /// One frame: Ethernet's 14 bytes, IPv4, TCP.
    fn note(&mut self, frame: &[u8], pods: &BTreeSet<Ipv4Addr>) -> Option<()> {
        let ip = frame.get(14..)?;
        let tcp = ip.get(usize::from(ip.first()? & 15) * 4..)?;
        if *ip.get(9)? != 6 {
            return None;
        }
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
        let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
        let (from, to) = ((address(12)?, port(0)?), (address(16)?, port(2)?));
        let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..).filter(|payload| !payload.is_empty())?;
        if to.1 == PORT && pods.contains(&to.0) {
            self.connections
                .entry((from.0, from.1, to.0))
                .or_insert_with(|| payload[..payload.len().min(16)].to_vec());
        }
        // A ServerHello, by its record and message type; what it chose stands in its extensions.
        if from.1 == PORT
            && pods.contains(&from.0)
            && payload.starts_with(&[22, 3])
            && payload.get(5) == Some(&2)
        {
            self.hellos += 1;
            let has = |bytes: &[u8]| payload.windows(bytes.len()).any(|window| window == bytes);
            let key_share = payload.windows(6).any(|w| w[..2] == [0, 51] && w[4..] == [0x11, 0xec]);
            self.strong += usize::from(has(&[0, 43, 0, 2, 3, 4]) && key_share);
        }
        Some(())
    }
}
