//! `outrigger capture` in real pods: who meets the proxy, who does not, under each tool that can load the rules.
//!
//! The proxy is a witness here: a listener that answers every request with the port it listens on and the destination
//! that its client dialled.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    network::{Namespace, Network, Pod},
    witness::{self, Witness},
};

const PROXY: u32 = 1337;
const APP: u32 = 1000;

/// Runs a test body once under each way to load the rules.
macro_rules! under_each_tool {
    ($($test:ident)*) => {
        mod nft { $(#[test] fn $test() { super::$test(super::Tool::Nft, concat!("nft::", stringify!($test))) })* }
        mod iptables { $(#[test] fn $test() { super::$test(super::Tool::Iptables, concat!("iptables::", stringify!($test))) })* }
        mod iptables_legacy { $(#[test] fn $test() { super::$test(super::Tool::Legacy, concat!("iptables_legacy::", stringify!($test))) })* }
    };
}

under_each_tool! {
    every_connection_meets_whom_it_should
    exclusions_go_past_the_proxy
    a_second_load_replaces_the_first_and_remove_leaves_nothing
    a_reload_lets_no_connection_slip_by
    ipv6_off_takes_ipv6_rules_away
    a_flushed_chain_shows_and_silences_the_canary
}

fn every_connection_meets_whom_it_should(tool: Tool, test: &str) {
    let Some(scene) = Scene::new(test, tool) else { return };
    scene.capture(&["apply"]);
    let Scene { web, peer, .. } = &scene;
    let (v4, v6, other4, other6) = (web.v4, web.v6, peer.v4, peer.v6);
    for (from, uid, to, want) in [
        // What the app sends, known address or not, meets the proxy.
        (web, APP, "203.0.113.7:80".into(), "15001 for 203.0.113.7:80"),
        (web, APP, "[2001:db8::7]:443".into(), "15001 for [2001:db8::7]:443"),
        (web, APP, format!("{other4}:8080"), "15001 for 10.77.0.2:8080"),
        (web, APP, format!("[{other6}]:8080"), "15001 for [fd77::2]:8080"),
        // Root's traffic is the app's, too.
        (web, 0, format!("{other4}:8080"), "15001 for 10.77.0.2:8080"),
        // What the proxy sends leaves as it is.
        (web, PROXY, format!("{other4}:8080"), "8080 direct"),
        (web, PROXY, format!("[{other6}]:8080"), "8080 direct"),
        // What the pod receives meets the proxy, except where the proxy itself is meant.
        (peer, APP, format!("{v4}:8080"), "15006 for 10.77.0.1:8080"),
        (peer, APP, format!("[{v6}]:8080"), "15006 for [fd77::1]:8080"),
        (peer, APP, format!("{v4}:15020"), "15020 direct"),
        (peer, APP, format!("[{v6}]:15020"), "15020 direct"),
        // The app talks to itself undisturbed.
        (web, APP, "127.0.0.1:8080".into(), "8080 direct"),
        (web, APP, "[::1]:8080".into(), "8080 direct"),
        (web, APP, format!("{v4}:8080"), "8080 direct"),
        (web, APP, format!("[{v6}]:8080"), "8080 direct"),
        // A proxy that picked its own pod is treated like any caller...
        (web, PROXY, format!("{v4}:8080"), "15006 for 10.77.0.1:8080"),
        (web, PROXY, format!("[{v6}]:8080"), "15006 for [fd77::1]:8080"),
        (web, PROXY, format!("{v4}:15020"), "15020 direct"),
        // ... but reaches its app on loopback.
        (web, PROXY, "127.0.0.1:8080".into(), "8080 direct"),
        (web, PROXY, "[::1]:8080".into(), "8080 direct"),
        // The canary holds for everyone, first of all for the proxy.
        (web, PROXY, "127.0.0.1:15019".into(), "15001 for 127.0.0.1:15019"),
        (web, PROXY, "[::1]:15019".into(), "15001 for [::1]:15019"),
        (web, APP, "127.0.0.1:15019".into(), "15001 for 127.0.0.1:15019"),
        // Through the inbound chain the proxy can look at the other half.
        (web, PROXY, format!("{v4}:15019"), "15006 for 10.77.0.1:15019"),
    ] {
        assert_eq!(ask(&from.namespace, uid, &to, &[]), want, "user {uid} to {to}");
    }
    // From a loopback address the proxy reaches an app that listens on the pod's address alone.
    assert_eq!(
        ask(&web.namespace, PROXY, &format!("{v4}:8080"), &["--interface", "127.0.0.1"]),
        "8080 direct"
    );
    assert_eq!(ask(&web.namespace, PROXY, &format!("[{v6}]:8080"), &["--interface", "::1"]), "8080 direct");
    // The admin port is bound to loopback: from outside it is refused, not handed to the proxy.
    assert_eq!(ask(&peer.namespace, APP, &format!("{v4}:15000"), &[]), REFUSED);
}

fn exclusions_go_past_the_proxy(tool: Tool, test: &str) {
    let Some(scene) = Scene::new(test, tool) else { return };
    scene.capture(&[
        "apply",
        "--proxy-uid=4321",
        "--exclude-inbound-ports=9090,8443",
        "--exclude-outbound-ports=9090",
        "--exclude-outbound-cidrs=10.77.0.3/32,fd77::3",
    ]);
    let excluded = scene.network.pod();
    let _excluded = Witness::new(&excluded.namespace, 8080);
    let Scene { web, peer, .. } = &scene;
    for (from, uid, to, want) in [
        (web, APP, format!("{}:8080", excluded.v4), "8080 direct"),
        (web, APP, format!("[{}]:8080", excluded.v6), "8080 direct"),
        (web, APP, format!("{}:8080", peer.v4), "15001 for 10.77.0.2:8080"),
        (web, APP, format!("[{}]:8080", peer.v6), "15001 for [fd77::2]:8080"),
        (web, APP, format!("{}:9090", peer.v4), "9090 direct"),
        (web, APP, format!("[{}]:9090", peer.v6), "9090 direct"),
        (peer, APP, format!("{}:9090", web.v4), "9090 direct"),
        (peer, APP, format!("[{}]:9090", web.v6), "9090 direct"),
        (peer, APP, format!("{}:8080", web.v4), "15006 for 10.77.0.1:8080"),
        (web, 4321, format!("{}:8080", peer.v4), "8080 direct"),
        // A port that is direct for others is direct for the proxy of the pod.
        (web, 4321, format!("{}:9090", web.v4), "9090 direct"),
        // Nobody but the given user is the proxy.
        (web, PROXY, format!("{}:8080", peer.v4), "15001 for 10.77.0.2:8080"),
    ] {
        assert_eq!(ask(&from.namespace, uid, &to, &[]), want, "user {uid} to {to}");
    }
}

fn a_second_load_replaces_the_first_and_remove_leaves_nothing(tool: Tool, test: &str) {
    let Some(scene) = Scene::new(test, tool) else { return };
    let pod = &scene.web.namespace;
    // Somebody else's rules stay.
    tool.load_foreign_rules(pod);
    let before = tool.ruleset(pod);
    scene.capture(&["apply"]);
    let once = tool.ruleset(pod);
    assert_ne!(once, before);

    scene.capture(&["apply", "--exclude-outbound-ports=1,2,3", "--exclude-outbound-cidrs=192.0.2.0/24"]);
    assert_ne!(tool.ruleset(pod), once);
    scene.capture(&["apply"]);
    assert_eq!(tool.ruleset(pod), once);
    assert!(scene.outrigger(&["show"]).status.success());

    scene.capture(&["remove"]);
    assert_eq!(tool.ruleset(pod), before);
    assert_eq!(ask(pod, PROXY, "127.0.0.1:15019", &[]), REFUSED);
    assert_eq!(ask(pod, APP, &format!("{}:8080", scene.peer.v4), &[]), "8080 direct");
    scene.capture(&["remove"]);
    assert_eq!(tool.ruleset(pod), before);
}

fn a_reload_lets_no_connection_slip_by(tool: Tool, test: &str) {
    let Some(scene) = Scene::new(test, tool) else { return };
    scene.capture(&["apply"]);
    let to = SocketAddr::from((scene.peer.v4, 8080));
    let done = AtomicBool::new(false);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            scene.web.namespace.enter(|| {
                let mut answers = vec![];
                while !done.load(Ordering::Relaxed) && answers.len() < 20_000 {
                    let stream = TcpStream::connect(to).expect("somebody accepts");
                    answers.push(witness::read_answer(stream));
                }
                answers
            })
        });
        for round in 1..=10 {
            scene.capture(&["apply", &format!("--exclude-outbound-ports={round}")]);
        }
        done.store(true, Ordering::Relaxed);
        asking.join().expect("the asking thread ends well")
    });
    assert!(answers.len() > 10, "only {} connections during ten loads", answers.len());
    for answer in answers {
        assert_eq!(answer, "15001 for 10.77.0.2:8080");
    }
}

fn ipv6_off_takes_ipv6_rules_away(tool: Tool, test: &str) {
    let Some(scene) = Scene::new(test, tool) else { return };
    scene.capture(&["apply"]);
    scene.capture(&["apply", "--ipv6=off"]);
    let (pod, peer) = (&scene.web.namespace, &scene.peer);
    assert_eq!(ask(pod, APP, &format!("[{}]:8080", peer.v6), &[]), "8080 direct");
    assert_eq!(ask(pod, PROXY, "[::1]:15019", &[]), REFUSED);
    assert_eq!(ask(pod, APP, &format!("{}:8080", peer.v4), &[]), "15001 for 10.77.0.2:8080");
    let shown = scene.shown();
    assert_eq!(shown["IPv4"], serde_json::json!([true, true, true, true]));
    assert_eq!(shown["IPv6"], serde_json::json!([false, false, false, false]));
}

fn a_flushed_chain_shows_and_silences_the_canary(tool: Tool, test: &str) {
    let Some(scene) = Scene::new(test, tool) else { return };
    let pod = &scene.web.namespace;
    for (chain, [canary, outbound, inbound, self_calls]) in [
        ("output", [false, false, true, false]),
        ("outbound", [false, false, true, true]),
        ("prerouting", [true, true, false, true]),
        ("inbound", [true, true, false, false]),
    ] {
        scene.capture(&["apply"]);
        assert!(scene.outrigger(&["show"]).status.success());
        tool.flush_ipv6_chain(pod, chain);
        let shown = scene.shown();
        assert_eq!(shown["IPv6"], serde_json::json!([canary, outbound, inbound, self_calls]), "{chain}");
        assert_eq!(shown["IPv4"], serde_json::json!([true, true, true, true]), "{chain}");
        assert_eq!(scene.outrigger(&["show"]).status.code(), Some(1));
        let met = ask(pod, PROXY, "[::1]:15019", &[]) == "15001 for [::1]:15019";
        assert_eq!(met, canary, "{chain}");
    }
}

/// The chosen tool loads the rules, whatever loaded them before; there is never a second set beside them.
#[test]
fn changing_the_tool_leaves_no_rules_behind() {
    let test = "changing_the_tool_leaves_no_rules_behind";
    for (first, then) in [
        (Tool::Nft, Tool::Iptables),
        (Tool::Iptables, Tool::Nft),
        (Tool::Iptables, Tool::Legacy),
        (Tool::Legacy, Tool::Nft),
    ] {
        let Some(mut scene) = Scene::new(test, first) else { return };
        scene.capture(&["apply"]);
        scene.tool = then;
        scene.capture(&["apply"]);
        assert!(scene.outrigger(&["show"]).status.success(), "{first:?}, {then:?}");
        for tool in [Tool::Nft, Tool::Iptables, Tool::Legacy] {
            let ours = if tool == Tool::Nft { "table ip outrigger " } else { ":OUTRIGGER_OUTPUT " };
            let holds = tool.ruleset(&scene.web.namespace).contains(ours);
            assert_eq!(holds, tool == then, "{tool:?} after {first:?}, {then:?}");
        }
    }
}

/// Without a word from the user nftables is taken, and iptables where there is no `nft`.
#[test]
fn the_tool_is_found_without_being_named() {
    let Some(network) = Network::new("the_tool_is_found_without_being_named") else { return };
    let pod = network.pod();
    let everything = "/usr/sbin:/usr/bin:/sbin:/bin";
    let iptables = legacy_tools().to_str().expect("a path in UTF-8");
    let nothing = "/nowhere";
    for (path, want) in [
        (everything, Ok("captured IPv4 and IPv6 with nft\n")),
        (iptables, Ok("captured IPv4 and IPv6 with iptables\n")),
        (nothing, Err("no tool to load rules with works here")),
    ] {
        let mut apply = pod.namespace.command("/usr/bin/env");
        let output = apply.args([&format!("PATH={path}"), OUTRIGGER, "capture", "apply"]).output().unwrap();
        match want {
            Ok(said) => assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{path}"),
            Err(problem) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.code() == Some(1) && said.contains(problem), "{path}: {said}");
            }
        }
    }
}

#[test]
fn a_process_without_the_capability_is_told_so() {
    let Some(network) = Network::new("a_process_without_the_capability_is_told_so") else { return };
    let pod = network.pod();
    for action in ["apply", "remove", "show"] {
        let output = pod.namespace.command_as(APP, OUTRIGGER).args(["capture", action]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{action}");
        assert!(said.contains("needs CAP_NET_ADMIN"), "{action}: {said}");
    }
}

/// A pod to capture with its witnesses, and one beside it that nothing captures.
struct Scene {
    _witnesses: Vec<Witness>,
    tool: Tool,
    web: Pod,
    peer: Pod,
    network: Network,
}

impl Scene {
    fn new(test: &str, tool: Tool) -> Option<Self> {
        let network = Network::new(test)?;
        let (web, peer) = (network.pod(), network.pod());
        let ports = [(&web, [15001, 15006, 15020, 8080, 9090].as_slice()), (&peer, &[8080, 9090])];
        let witnesses = ports
            .iter()
            .flat_map(|(pod, ports)| ports.iter().map(|port| Witness::new(&pod.namespace, *port)));
        Some(Self { _witnesses: witnesses.collect(), tool, web, peer, network })
    }

    /// Runs `outrigger capture` in the pod with this scene's tool.
    fn outrigger(&self, args: &[&str]) -> Output {
        let mut command = self.web.namespace.command("env");
        command.args(self.tool.environment()).arg(OUTRIGGER).arg("capture").args(args);
        if args[0] == "apply" {
            command.arg(format!("--backend={}", self.tool.flag()));
        }
        command.output().expect("nsenter starts")
    }

    #[track_caller]
    fn capture(&self, args: &[&str]) {
        let output = self.outrigger(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What `show -o json` says of each family: canary, outbound, inbound, self-calls.
    fn shown(&self) -> serde_json::Map<String, serde_json::Value> {
        let output = self.outrigger(&["show", "-o", "json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("show prints JSON");
        let parts = |row: &serde_json::Value| {
            serde_json::json!([row["canary"], row["outbound"], row["inbound"], row["selfCalls"]])
        };
        rows.iter().map(|row| (row["family"].as_str().unwrap().to_owned(), parts(row))).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Nft,
    Iptables,
    Legacy,
}

impl Tool {
    fn flag(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables | Self::Legacy => "iptables",
        }
    }

    /// Puts the legacy kind in place of the system's iptables.
    fn environment(self) -> Vec<String> {
        match self {
            Self::Nft | Self::Iptables => vec![],
            Self::Legacy => vec![format!("PATH={}:/usr/sbin:/usr/bin", legacy_tools().display())],
        }
    }

    /// All rules of the pod as this tool lists them, without counters and dates.
    fn ruleset(self, pod: &Namespace) -> String {
        let programs: &[&[&str]] = match self {
            Self::Nft => &[&["nft", "list", "ruleset"]],
            Self::Iptables => &[&["iptables-nft-save"], &["ip6tables-nft-save"]],
            Self::Legacy => &[&["iptables-legacy-save"], &["ip6tables-legacy-save"]],
        };
        let all: String = programs.iter().map(|program| pod.run(program[0], &program[1..])).collect();
        let lines = all.lines().filter(|line| !line.starts_with('#'));
        lines.flat_map(|line| [line.split_once(" [").map_or(line, |(chain, _)| chain), "\n"]).collect()
    }

    fn load_foreign_rules(self, pod: &Namespace) {
        match self {
            Self::Nft => {
                pod.run("nft", &["add table ip others { chain output { type nat hook output priority -100; tcp dport 7 accept; }; }"]);
            }
            Self::Iptables | Self::Legacy => {
                let kind = if self == Self::Legacy { "legacy" } else { "nft" };
                for program in [format!("iptables-{kind}"), format!("ip6tables-{kind}")] {
                    pod.run(
                        &program,
                        &["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "7", "-j", "ACCEPT"],
                    );
                    pod.run(&program, &["-t", "filter", "-A", "INPUT", "-p", "udp", "-j", "ACCEPT"]);
                }
            }
        }
    }

    fn flush_ipv6_chain(self, pod: &Namespace, chain: &str) {
        match self {
            Self::Nft => pod.run("nft", &["flush", "chain", "ip6", "outrigger", chain]),
            Self::Iptables | Self::Legacy => {
                let program = if self == Self::Legacy { "ip6tables-legacy" } else { "ip6tables-nft" };
                pod.run(program, &["-t", "nat", "-F", &format!("OUTRIGGER_{}", chain.to_uppercase())])
            }
        };
    }
}

/// A folder in which the plain names of iptables are the legacy kind's.
fn legacy_tools() -> &'static std::path::Path {
    static TOOLS: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let dir = TOOLS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for name in ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"] {
            let legacy = which(&name.replacen("tables", "tables-legacy", 1));
            std::os::unix::fs::symlink(legacy, dir.path().join(name)).expect("a link");
        }
        dir
    });
    dir.path()
}

fn which(program: &str) -> String {
    let output = Command::new("which").arg(program).output().expect("which starts");
    assert!(output.status.success(), "{program} is not installed");
    String::from_utf8(output.stdout).expect("a path").trim().to_owned()
}

/// What the witness answers that curl reaches, or [`REFUSED`].
#[track_caller]
fn ask(from: &Namespace, uid: u32, to: &str, args: &[&str]) -> String {
    let mut curl = from.command_as(uid, "curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "*"]).args(args);
    let output = curl.arg(format!("http://{to}/")).output().expect("nsenter starts");
    match output.status.code() {
        Some(0) => String::from_utf8(output.stdout).expect("the answer is text"),
        Some(7) => REFUSED.into(),
        _ => panic!("curl {to}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

const OUTRIGGER: &str = env!("CARGO_BIN_EXE_outrigger");
const REFUSED: &str = "refused";
