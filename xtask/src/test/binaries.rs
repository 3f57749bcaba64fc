//! The test binaries of the workspace: built once, then run beside each other.
//!
//! cargo runs one binary after the other, and most of the time of ours is waiting: for timers, drains, processes. Here two more run than
//! there are cores. What a binary says is passed on whole, when it has ended.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
// The chores have no runtime whose clock could be paused.
#[allow(clippy::disallowed_types)]
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::exec::{self, cargo};

/// What a run of one binary came to.
pub struct Run {
    pub name: String,
    pub output: Vec<u8>,
    pub passed: bool,
    pub took: Duration,
}

/// A test binary as cargo built it.
struct Binary {
    name: String,
    program: PathBuf,
    /// Tests run in the folder of their package.
    package: PathBuf,
}

/// Runs all tests; `ended` is called with each binary's run, one at a time, as they end.
pub fn run(environment: &[(&str, &std::path::Path)], ended: impl FnMut(Run) + Send) -> Result<()> {
    let waiting = Mutex::new(VecDeque::from(build()?));
    let ended = Mutex::new(ended);
    let lanes = std::thread::available_parallelism().map_or(1, usize::from) + 2;
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let next = waiting.lock().expect("no lane panics with it").pop_front();
                        let Some(binary) = next else { return Ok(()) };
                        let run = binary.run(environment)?;
                        (ended.lock().expect("no lane panics with it"))(run);
                    }
                })
            })
            .collect();
        lanes.into_iter().try_for_each(|lane| lane.join().expect("a lane does not panic"))
    })
}

/// Builds every test binary; those that bring up whole meshes first, because they take longest.
fn build() -> Result<Vec<Binary>> {
    let mut build = cargo(&["test", "--workspace", "--locked", "--no-run"]);
    build.args(["--message-format", "json-render-diagnostics"]);
    eprintln!("$ {}", exec::show(&build));
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo test")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let text = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    let mut binaries = Vec::new();
    for line in text.lines() {
        let message: Value = serde_json::from_str(line).context("cargo said what is not JSON")?;
        binaries.extend(Binary::of_message(&message));
    }
    binaries.sort_by_key(|binary| !binary.name.starts_with("cli/tests/"));
    Ok(binaries)
}

impl Binary {
    /// `None` for what is no test.
    fn of_message(message: &Value) -> Option<Self> {
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let package = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_owned();
        let source = PathBuf::from(message["target"]["src_path"].as_str()?);
        let name = source.strip_prefix(exec::root()).unwrap_or(&source).display().to_string();
        Some(Self { name, program: message["executable"].as_str()?.into(), package })
    }

    #[allow(clippy::disallowed_types)] // see its import
    fn run(self, environment: &[(&str, &std::path::Path)]) -> Result<Run> {
        let begun = Instant::now();
        let output = Command::new(&self.program)
            .current_dir(&self.package)
            // As cargo sets it; tests find their files by it.
            .env("CARGO_MANIFEST_DIR", &self.package)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut said = output.stdout;
        said.extend(output.stderr);
        Ok(Run { name: self.name, output: said, passed: output.status.success(), took: begun.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_told_from_all_else_that_cargo_builds() {
        let root = exec::root();
        let artifact = |test: bool, executable: Value| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": root.join("cli/Cargo.toml"),
                "target": {"src_path": root.join("cli/tests/up/main.rs")},
                "profile": {"test": test},
                "executable": executable,
            })
        };
        let binary = Binary::of_message(&artifact(true, "/tmp/up-1".into())).expect("a test");
        assert_eq!(binary.name, "cli/tests/up/main.rs");
        assert_eq!((binary.program, binary.package), ("/tmp/up-1".into(), root.join("cli")));
        assert!(Binary::of_message(&artifact(false, "/tmp/outrigger".into())).is_none());
        assert!(Binary::of_message(&artifact(true, Value::Null)).is_none());
        assert!(
            Binary::of_message(&serde_json::json!({"reason": "build-finished", "success": true})).is_none()
        );
    }
}
