//! How many instructions one exchange through a whole proxy takes, beside what was recorded: information for who reads a run, never a failure.
//!
//! Counted by callgrind, because times depend on what else a machine does. Of a debug build, because the tests have just made its parts and a
//! release would take CI longer than all tests: it is several times as much as what ships needs, and moves with it.

use anyhow::{Context, Result};

use crate::exec::{self, cargo, command, target};

/// Prints the count, or why there is none.
pub fn tell() {
    match count() {
        Ok(each) => {
            let change = (each as f64 / RECORDED as f64 - 1.0) * 100.0;
            println!(
                "an exchange takes {each} instructions in a debug build, {change:+.1} % of {RECORDED} as recorded"
            );
        }
        Err(problem) => println!("the instructions of an exchange were not counted: {problem:#}"),
    }
}

fn count() -> Result<u64> {
    exec::run(&mut cargo(&[
        "build",
        "--quiet",
        "--locked",
        "--package",
        "outrigger-benches",
        "--bin",
        "outrigger-micro",
    ]))?;
    // Of two lengths the difference, so that starting and stopping count in neither.
    Ok((run(2 * EXCHANGES)?.saturating_sub(run(EXCHANGES)?)) / EXCHANGES)
}

fn run(exchanges: u64) -> Result<u64> {
    // Should it never end, the tests are to begin nevertheless.
    let line = ["120", "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let mut valgrind = command("timeout", &line);
    valgrind.arg(target("debug/outrigger-micro")).args(["--exchanges", &exchanges.to_string()]);
    let output = valgrind.output().context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line =
        said.lines().find_map(|line| line.split_once("Collected :")).context("callgrind says no count")?;
    Ok(line.1.trim().parse()?)
}

const EXCHANGES: u64 = 200;

/// November 2026.
const RECORDED: u64 = 295_000;
