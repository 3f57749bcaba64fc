//! Real counterparts: what a test does where one is missing, and where the fetched ones lie.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Whether the counterparts of `test` are all here. A missing one fails the test, unless the user asked to go on without
/// (`OUTRIGGER_SKIP_PEERS=1`); then it is said past the capture of output, and noted where `cargo xtask test` counts it.
#[track_caller]
pub fn present(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let problem = format!("{} not found; `cargo xtask peers` fetches it", missing.join(", "));
    let asked = std::env::var_os("OUTRIGGER_SKIP_PEERS").is_some_and(|value| value == "1");
    assert!(asked, "{test}: {problem} (OUTRIGGER_SKIP_PEERS=1 skips such tests)");
    // Each in one write, since other tests say things at the same time.
    std::io::stderr().write_all(format!("SKIPPED {test}: {problem}\n").as_bytes()).expect("stderr is open");
    if let Some(log) = std::env::var_os("OUTRIGGER_SKIP_LOG") {
        let mut log = OpenOptions::new().append(true).open(log).expect("xtask made the file");
        log.write_all(format!("{test}: {problem}\n").as_bytes()).expect("the file takes a line");
    }
    false
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|program| program.is_file())
}
