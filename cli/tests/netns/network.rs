//! Networks for tests: pods in network namespaces of their own, joined by a bridge, gone when the test ends.
//!
//! Owns namespaces, their links and the processes started in them; dropping a value removes what it stands for, also when
//! a test panics. Nothing has a name outside this process, so tests run side by side and a killed one leaves nothing:
//! a namespace lives as long as the `cat` that holds it, and that ends with the pipe it reads.
//! Needs root; where that (or a tool) is missing the test fails, or says loudly that `OUTRIGGER_SKIP_PEERS=1`
//! skipped it.

use std::{
    cell::Cell,
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// A bridge with pods on it. Pod N has the addresses 10.77.0.N and fd77::N.
#[derive(Debug)]
pub struct Network {
    node: Namespace,
    pods: Cell<u8>,
}

impl Network {
    /// `None` if this machine cannot have one and the user asked to skip then; `test` names what is skipped.
    pub fn new(test: &str) -> Option<Self> {
        if let Some(problem) = problem() {
            skip(test, &problem);
            return None;
        }
        let node = Namespace::new();
        node.ip("link add br0 type bridge");
        node.ip("link set br0 up");
        node.ip("address add 10.77.0.254/24 dev br0");
        node.ip("address add fd77::fe/64 dev br0 nodad");
        Some(Self { node, pods: Cell::new(0) })
    }

    /// A new pod on the bridge: a namespace with `lo` and `eth0`, and a default route to the bridge, where a
    /// connection that nothing redirects ends.
    pub fn pod(&self) -> Pod {
        let number = self.pods.get() + 1;
        assert!(number < 250, "addresses are used up");
        self.pods.set(number);
        let v4 = Ipv4Addr::new(10, 77, 0, number);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into());
        let namespace = Namespace::new();
        self.node
            .ip(&format!("link add pod{number} type veth peer name eth0 netns {}", namespace.holder.id()));
        self.node.ip(&format!("link set pod{number} master br0 up"));
        namespace.ip("link set eth0 up");
        namespace.ip(&format!("address add {v4}/24 dev eth0"));
        namespace.ip(&format!("address add {v6}/64 dev eth0 nodad"));
        namespace.ip("route add default via 10.77.0.254");
        namespace.ip("-6 route add default via fd77::fe");
        Pod { namespace, v4, v6 }
    }
}

/// A namespace with the addresses it has on the bridge.
#[derive(Debug)]
pub struct Pod {
    pub namespace: Namespace,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// A network namespace with its loopback up.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    path: PathBuf,
}

impl Namespace {
    fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        // The holder answers only once it is inside.
        let stdin = holder.stdin.as_mut().expect("stdin is a pipe");
        stdin.write_all(b"inside\n").expect("the holder reads");
        let mut answer = String::new();
        let stdout = holder.stdout.as_mut().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut answer).expect("the holder writes");
        assert_eq!(answer, "inside\n", "no network namespace could be made");
        let path = format!("/proc/{}/ns/net", holder.id()).into();
        let namespace = Self { holder, path };
        namespace.ip("link set lo up");
        namespace
    }

    /// A command that will run inside, as root.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// A command that will run inside under the given user id, without any capability.
    pub fn command_as(&self, uid: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
        command.args(["--clear-groups", "--"]).arg(program);
        command
    }

    /// Runs a command inside as root and returns what it prints.
    #[track_caller]
    pub fn run(&self, program: impl AsRef<OsStr>, args: &[&str]) -> String {
        let output = self.command(program.as_ref()).args(args).output().expect("nsenter starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {args:?}: {said}", program.as_ref().to_string_lossy());
        String::from_utf8(output.stdout).expect("the output is text")
    }

    /// Calls a function on a thread that is inside: sockets made there stay there wherever they are used.
    pub fn enter<T: Send>(&self, call: impl FnOnce() -> T + Send) -> T {
        let inside = File::open(&self.path).expect("the holder lives");
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(inside, CloneFlags::CLONE_NEWNET).expect("root may enter its own namespace");
                call()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    #[track_caller]
    fn ip(&self, args: &str) {
        self.run("ip", &args.split(' ').collect::<Vec<_>>());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Why no network can be made here.
fn problem() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !on_path(tool)).collect();
    if missing.is_empty() {
        None
    } else {
        Some(format!("{} missing: `cargo xtask peers`", missing.join(", ")))
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Fails the test, unless the user asked to go on without what it needs; then says so past the capture of output,
/// and notes it where `cargo xtask test` counts it.
#[track_caller]
pub fn skip(test: &str, problem: &str) {
    let asked = std::env::var_os("OUTRIGGER_SKIP_PEERS").is_some_and(|value| value == "1");
    assert!(asked, "{test}: {problem} (OUTRIGGER_SKIP_PEERS=1 skips such tests)");
    // Each in one write, since other tests say things at the same time.
    io::stderr().write_all(format!("SKIPPED {test}: {problem}\n").as_bytes()).expect("stderr is open");
    if let Some(log) = std::env::var_os("OUTRIGGER_SKIP_LOG") {
        let mut log = OpenOptions::new().append(true).open(log).expect("xtask made the file");
        log.write_all(format!("{test}: {problem}\n").as_bytes()).expect("the file takes a line");
    }
}

const TOOLS: [&str; 8] =
    ["ip", "unshare", "nsenter", "setpriv", "nft", "iptables-restore", "ip6tables-restore", "curl"];
