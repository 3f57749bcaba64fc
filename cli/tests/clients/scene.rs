//! What the tests share: the mesh, the variables of its app `caller`, and the programs that are run with them.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::support::{Mesh, PATIENCE};

/// A mesh with an app `caller`, whose variables every program gets.
pub struct Scene {
    pub mesh: Mesh,
    variables: Variables,
}

/// What a process was started with.
struct Variables(Vec<(OsString, OsString)>);

impl Variables {
    fn of(mesh: &Mesh, instance: &str) -> Self {
        let pid = mesh.instance(instance)["pid"].as_i64().expect("it runs");
        let block = fs::read(format!("/proc/{pid}/environ")).expect("its variables");
        let variable = |line: &[u8]| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            Some((OsString::from_vec(line[..at].to_vec()), OsString::from_vec(line[at + 1..].to_vec())))
        };
        Self(block.split(|byte| *byte == 0).filter_map(variable).collect())
    }

    fn value(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no variable {name}")).1.to_str().expect("text")
    }
}

impl Scene {
    /// The mesh of `mesh.yaml`, shared by the tests that run at the same time.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Scene>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(scene) = shared.upgrade() {
            return scene;
        }
        let mut manifests = include_str!("mesh.yaml").to_owned();
        if missing(&["python"]).is_empty() {
            manifests.push_str(include_str!("python.yaml"));
        }
        if missing(&["node"]).is_empty() {
            manifests.push_str(include_str!("node.yaml"));
        }
        let text = |path: PathBuf| path.into_os_string().into_string().expect("a path in UTF-8");
        let manifests = manifests.replace("@PYTHON@", &text(python())).replace("@SCRIPTS@", &text(scripts()));
        let scene = Arc::new(Self::of(Mesh::of_manifests(&manifests), "caller-0"));
        *shared = Arc::downgrade(&scene);
        scene
    }

    /// Takes the variables `caller` was started with.
    pub fn of(mesh: Mesh, caller: &str) -> Self {
        let variables = Variables::of(&mesh, caller);
        Self { mesh, variables }
    }

    pub fn variable(&self, name: &str) -> &str {
        self.variables.value(name)
    }

    /// Where an app itself listens, behind its sidecar.
    pub fn app(&self, instance: &str) -> String {
        let variables = Variables::of(&self.mesh, instance);
        format!("{}:{}", variables.value("HOST"), variables.value("PORT"))
    }

    /// `HOST:PORT` of a service's own address, as an app reads it from its variables.
    pub fn address(&self, service: &str) -> String {
        let name = service.to_ascii_uppercase();
        format!(
            "{}:{}",
            self.variable(&format!("{name}_SERVICE_HOST")),
            self.variable(&format!("{name}_SERVICE_PORT"))
        )
    }

    /// A program with the variables of `caller`; ended, and so failed, if it takes too long.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_within(PATIENCE, program)
    }

    /// As [`Self::command`], for what takes its time.
    pub fn command_within(&self, patience: Duration, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &patience.as_secs().to_string()]).arg(program.as_ref());
        command.env_clear().envs(self.variables.0.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Python with the packages that `cargo xtask peers` installs, running a script of `scripts/`.
    pub fn python(&self, script: &str) -> Command {
        let mut command = self.command(python());
        command.arg(scripts().join(script));
        command
    }

    pub fn node(&self, script: &str) -> Command {
        let mut command = self.command("node");
        command.arg(scripts().join(script));
        command
    }

    /// How often a request reached an app's sidecar.
    pub fn arrived(&self, instance: &str) -> f64 {
        self.mesh.metric(instance, "outrigger_requests_total", &["direction=\"inbound\""])
    }
}

/// Runs to the end; panics, with all that was said, unless it succeeds.
pub fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = finish(command);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Runs to the end.
pub fn finish(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/scripts")
}

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/venv/bin/python")
}

/// Whether a test can be made: `programs` are on the path, `python` is the one with packages. If not, the test fails, unless the user asked
/// to go on without; then says so past the capture of output, and notes it where `cargo xtask test` counts it.
#[track_caller]
pub fn has(programs: &[&str]) -> bool {
    let missing = missing(programs);
    if missing.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let problem = format!("{} missing: `cargo xtask peers`", missing.join(", "));
    let asked = std::env::var_os("OUTRIGGER_SKIP_PEERS").is_some_and(|value| value == "1");
    assert!(asked, "{problem} (OUTRIGGER_SKIP_PEERS=1 skips such tests)");
    io::stderr().write_all(format!("SKIPPED {test}: {problem}\n").as_bytes()).expect("stderr is open");
    if let Some(log) = std::env::var_os("OUTRIGGER_SKIP_LOG") {
        let mut log = OpenOptions::new().append(true).open(log).expect("xtask made the file");
        log.write_all(format!("{test}: {problem}\n").as_bytes()).expect("the file takes a line");
    }
    false
}

fn missing<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| match program {
        "python" => python().is_file(),
        _ => std::env::split_paths(&path).any(|folder| folder.join(program).is_file()),
    };
    programs.iter().copied().filter(|program| !found(program)).collect()
}
