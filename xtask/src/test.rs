//! `cargo xtask test`: every check of the project, the cheapest to learn of first.
//!
//! The first check that fails ends the run; of the tests all run. The last line sums what the test binaries
//! reported: `N passed, N failed, N skipped`.

mod binaries;
mod tally;

use std::{
    fs,
    io::{self, Write},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use tally::Tally;

use crate::{
    exec::{self, cargo, command, target},
    instructions, peers,
};

/// Installs what is missing, then checks and tests the whole workspace.
pub fn run() -> Result<()> {
    peers::ensure()?;
    exec::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    exec::run(&mut cargo(&clippy))?;
    dependencies()?;
    instructions::tell();
    tests()
}

/// Licences, sources and banned crates of everything in the lockfile (deny.toml), and what is really compiled in.
fn dependencies() -> Result<()> {
    let tools = target("tools");
    let deny = tools.join("bin/cargo-deny");
    let current = |out: &[u8]| out.trim_ascii() == format!("cargo-deny {CARGO_DENY}").as_bytes();
    if !command(&deny, &["--version"]).output().is_ok_and(|out| current(&out.stdout)) {
        let args = ["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY, "--root"];
        exec::run(cargo(&args).arg(&tools))?;
    }
    exec::run(&mut command(
        &deny,
        &["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
    ))?;
    BANNED.iter().try_for_each(|name| nothing_uses(name))
}

/// Fails if any crate of the workspace compiles `name` in, on any platform. The lockfile may still name it: cargo locks optional
/// dependencies that no one switched on.
fn nothing_uses(name: &str) -> Result<()> {
    let tree = cargo(&["tree", "--quiet", "--workspace", "--locked", "--target", "all", "--invert", name])
        .output()
        .context("cannot start cargo tree")?;
    let users = String::from_utf8_lossy(&tree.stdout);
    let complaint = String::from_utf8_lossy(&tree.stderr);
    if !users.trim().is_empty() {
        bail!("{name} must not be compiled in, but is:\n{users}");
    }
    if !tree.status.success() && !complaint.contains("did not match any packages") {
        bail!("cargo tree could not look for {name}:\n{complaint}");
    }
    Ok(())
}

/// Runs every test of the workspace with its output passed on, and prints the sum.
fn tests() -> Result<()> {
    let skips = target("skipped-tests");
    fs::write(&skips, "").with_context(|| format!("cannot write {}", skips.display()))?;
    let mut tally = Tally::default();
    let mut failed = Vec::new();
    let mut said = Ok(());
    binaries::run(&[("OUTRIGGER_SKIP_LOG", &skips)], |run| {
        let mut out = io::stdout().lock();
        let written = writeln!(out, "\n     {} ({:.1} s)", run.name, run.took.as_secs_f64())
            .and_then(|()| out.write_all(&run.output))
            .and_then(|()| out.flush());
        if let Err(problem) = written {
            said = Err(problem);
        }
        tally.read(&run.output);
        if !run.passed {
            failed.push(run.name);
        }
    })?;
    said.context("cannot pass on what the tests say")?;
    let documented = documentation(&mut tally)?;

    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    if !skipped.is_empty() {
        println!("\nOUTRIGGER_SKIP_PEERS=1, so these tests did NOT run:\n{skipped}");
    }
    tally.skip(skipped.lines().count());
    println!("\n{tally}");
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if !documented {
        bail!("examples in the documentation failed");
    }
    if tally.ran() == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// The examples in doc comments; whether all passed.
fn documentation(tally: &mut Tally) -> Result<bool> {
    let mut command = cargo(&["test", "--workspace", "--locked", "--doc", "--quiet"]);
    eprintln!("$ {}", exec::show(&command));
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo test")?;
    io::stdout().write_all(&output.stdout).context("cannot pass on what cargo test says")?;
    tally.read(&output.stdout);
    Ok(output.status.success())
}

/// The version whose findings deny.toml was written against.
const CARGO_DENY: &str = "0.20.2";

/// One crypto provider serves the whole tree (aws-lc-rs); these would be a second.
const BANNED: [&str; 2] = ["ring", "openssl-sys"];
