//! h2load: more streams than the app takes on one connection.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::scene::{Scene, has};

#[test]
fn h2load_fails_nothing_at_an_app_that_takes_a_hundred_streams_a_connection() {
    if !has(&["h2load"]) {
        return;
    }
    let scene = Scene::shared();
    let url = format!("http://{}/delay/50", scene.address("narrow"));
    let app = scene.app("narrow-0");
    let before = scene.arrived("narrow-0");
    // 1,000 requests in flight, none of which ends before all could have begun.
    let mut load = scene.command("h2load");
    load.args(["-c", "10", "-m", "100", "-n", "5000", &url]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut load = load.spawn().expect("h2load starts");
    let mut most = 0;
    while load.try_wait().expect("it is ours").is_none() {
        most = most.max(established_to(&app));
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = load.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("status codes: 5000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    assert_eq!(scene.arrived("narrow-0"), before + 5000.0, "each was sent once");
    println!("most connections to the app at once: {most}");
    assert!((2..=20).contains(&most), "{most} connections for at most 1,000 streams of 100 a connection");
}

/// How many connections stand to an address, as the kernel lists them (proc(5), `/proc/net/tcp`).
fn established_to(address: &str) -> usize {
    let address: std::net::SocketAddrV4 = address.parse().expect("an address");
    let ip = u32::from_ne_bytes(address.ip().octets());
    let wanted = format!("{ip:08X}:{:04X}", address.port());
    let list = fs::read_to_string("/proc/net/tcp").expect("the kernel's list");
    let established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next() == Some(&wanted) && fields.next() == Some("01")
    };
    list.lines().filter(established).count()
}
