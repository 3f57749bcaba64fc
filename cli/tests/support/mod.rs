//! A whole mesh under test: `outrigger up` as a user starts it, in a run folder of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::Instant;

pub mod load;
pub mod peers;

/// Ends the mesh, and whatever is left of it, when dropped.
pub struct Mesh {
    up: Child,
    run_root: tempfile::TempDir,
    log: PathBuf,
    pub manifests: PathBuf,
}

pub const OUTRIGGER: &str = env!("CARGO_BIN_EXE_outrigger");

/// A generous deadline for anything awaited: a test fails on it, and never because a machine was slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Mesh {
    /// Copies an example so that the test may change it, and waits until everything is ready.
    pub fn of_example(name: &str) -> Self {
        Self::of_example_changed(name, |_| {})
    }

    /// As [`Self::of_example`]; `change` may edit the copy before the start.
    pub fn of_example_changed(name: &str, change: impl FnOnce(&Path)) -> Self {
        let run_root = run_root();
        let manifests = run_root.path().join("manifests");
        fs::create_dir(&manifests).expect("a folder");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name);
        for file in fs::read_dir(&example).expect("the example") {
            let file = file.expect("an entry").path();
            if file.extension().is_some_and(|extension| extension == "yaml") {
                fs::copy(&file, manifests.join(file.file_name().expect("a name"))).expect("a copy");
            }
        }
        change(&manifests);
        let mesh = Self::start(run_root, manifests);
        mesh.wait_ready();
        mesh
    }

    /// A mesh of one manifest file.
    pub fn of_manifests(text: &str) -> Self {
        let mesh = Self::of_manifests_unready(text);
        mesh.wait_ready();
        mesh
    }

    /// As [`Self::of_manifests`], of which not everything may become ready.
    pub fn of_manifests_unready(text: &str) -> Self {
        let run_root = run_root();
        let manifests = run_root.path().join("manifests");
        fs::create_dir(&manifests).expect("a folder");
        fs::write(manifests.join("mesh.yaml"), text).expect("written");
        Self::start(run_root, manifests)
    }

    fn start(run_root: tempfile::TempDir, manifests: PathBuf) -> Self {
        let log = run_root.path().join("up.log");
        let out = File::create(&log).expect("a log");
        let up = Command::new(OUTRIGGER)
            .arg("up")
            .arg(&manifests)
            .env("XDG_RUNTIME_DIR", run_root.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a handle"))
            .stderr(out)
            .spawn()
            .expect("outrigger starts");
        Self { up, run_root, log, manifests }
    }

    pub fn wait_ready(&self) {
        self.await_that("everything is ready", || {
            let Some(status) = self.status() else { return false };
            let all = |list: &Value| {
                list.as_array().is_some_and(|list| list.iter().all(|one| one["state"] == "Ready"))
            };
            status["control"]["state"] == "Ready"
                && all(&status["workloads"])
                && all(&status["gateways"])
                && !status["workloads"].as_array().is_none_or(|list| list.is_empty())
        });
    }

    /// Waits for `condition`, which is asked again and again; panics with the mesh's log after [`PATIENCE`].
    pub fn await_that(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !condition() {
            if begun.elapsed() > PATIENCE {
                panic!("not seen within {PATIENCE:?}: {what}\n--- log\n{}", self.log_text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{what}: after {:?}", begun.elapsed());
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn up_pid(&self) -> i32 {
        self.up.id() as i32
    }

    /// `outrigger ARGUMENTS` against this mesh.
    pub fn outrigger(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(OUTRIGGER)
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.run_root.path())
            .stdin(Stdio::null())
            .output()
            .expect("outrigger runs")
    }

    /// `outrigger status -o json`, once the mesh answers.
    pub fn status(&self) -> Option<Value> {
        let output = self.outrigger(&["status", "-o", "json"]);
        serde_json::from_slice::<Value>(&output.stdout).ok()
    }

    /// The report of one instance.
    pub fn instance(&self, name: &str) -> Value {
        let status = self.status().expect("a status");
        let workloads = status["workloads"].as_array().cloned().unwrap_or_default();
        workloads
            .into_iter()
            .find(|workload| workload["name"] == name)
            .unwrap_or_else(|| panic!("no instance {name} in {status}"))
    }

    /// `control` of the status, once the control plane is ready.
    pub fn control(&self) -> Value {
        let mut control = Value::Null;
        self.await_that("the control plane is ready", || {
            control = self.status().map_or(Value::Null, |status| status["control"].clone());
            control["state"] == "Ready"
        });
        control
    }

    pub fn control_pid(&self) -> i32 {
        self.control()["pid"].as_i64().expect("a pid") as i32
    }

    /// The folder in which the proxy at `address` keeps what is its own.
    pub fn folder_of(&self, address: &str) -> PathBuf {
        let network: Vec<&str> = address.split('.').take(2).collect();
        self.run_root.path().join("outrigger").join(network.join(".")).join("state").join(address)
    }

    /// The first port of the first gateway.
    pub fn gateway(&self) -> SocketAddr {
        let status = self.status().expect("a status");
        let url = status["gateways"][0]["urls"][0].as_str().expect("a gateway URL").to_owned();
        url.trim_start_matches("http://").parse().expect("an address")
    }

    /// The sum of a metric's samples whose labels contain all of `labels`, at one instance's sidecar.
    pub fn metric(&self, instance: &str, name: &str, labels: &[&str]) -> f64 {
        let url = self.instance(instance)["metrics"].as_str().expect("a metrics URL").to_owned();
        metric_at(&url, name, labels)
    }
}

/// A new run folder; in memory, as a user's is, where that is possible.
pub fn run_root() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("outrigger-test");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).expect("a folder")
}

/// The sum of a metric's samples whose labels contain all of `labels`.
pub fn metric_at(url: &str, name: &str, labels: &[&str]) -> f64 {
    let (status, text) = curl(&[url]);
    assert_eq!(status, 200, "{url}");
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Status and body as real curl sees them.
pub fn curl(arguments: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--noproxy",
            "*",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(arguments)
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("curl writes a status");
    (status.parse().expect("a status"), body.to_owned())
}

/// Whether a process exists and is not merely waiting to be reaped.
pub fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

/// A process that is told to stop has stopped when this returns: on a busy machine its other threads go on for a while.
pub fn send_signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process is there");
    let begun = Instant::now();
    while signal == Signal::SIGSTOP && !stands_still(pid) {
        assert!(begun.elapsed() < Duration::from_secs(40), "process {pid} does not stop");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// By the state of each thread, the first word behind its name (proc_pid_stat(5)).
fn stands_still(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the mesh\n{}", self.log_text());
        }
        let _ = kill(Pid::from_raw(self.up_pid()), Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(40) {
            if matches!(self.up.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}
