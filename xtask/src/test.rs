//! `cargo xtask test`: every check of the project, the cheapest to learn of first.
//!
//! The first check that fails ends the run; of the tests all run. The last line sums what the test binaries
//! reported: `N passed, N failed, N skipped`.

mod tally;

use std::{
    fs,
    io::{self, Read, Write},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use tally::Tally;

use crate::{
    exec::{self, cargo, command, target},
    peers,
};

/// Installs what is missing, then checks and tests the whole workspace.
pub fn run() -> Result<()> {
    peers::ensure()?;
    exec::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    exec::run(&mut cargo(&clippy))?;
    dependencies()?;
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

/// Runs every test of the workspace with its output passed through, and prints the sum.
fn tests() -> Result<()> {
    let skips = target("skipped-tests");
    fs::write(&skips, "").with_context(|| format!("cannot write {}", skips.display()))?;
    let mut command = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    command.env("OUTRIGGER_SKIP_LOG", &skips).stdout(Stdio::piped());
    eprintln!("$ {}", exec::show(&command));
    let mut child = command.spawn().context("cannot start cargo test")?;

    let mut tally = Tally::default();
    let mut output = child.stdout.take().expect("its standard output is a pipe");
    let mut chunk = [0; 8192];
    loop {
        let read = output.read(&mut chunk).context("cannot read what cargo test says")?;
        if read == 0 {
            break;
        }
        io::stdout().write_all(&chunk[..read]).context("cannot pass on what cargo test says")?;
        io::stdout().flush().context("cannot pass on what cargo test says")?;
        tally.read(&chunk[..read]);
    }
    let status = child.wait().context("cargo test went astray")?;

    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    if !skipped.is_empty() {
        println!("\nOUTRIGGER_SKIP_PEERS=1, so these tests did NOT run:\n{skipped}");
    }
    tally.skip(skipped.lines().count());
    println!("\n{tally}");
    if !status.success() {
        bail!("the tests failed");
    }
    if tally.ran() == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// The version whose findings deny.toml was written against.
const CARGO_DENY: &str = "0.20.2";

/// One crypto provider serves the whole tree (aws-lc-rs); these would be a second.
const BANNED: [&str; 2] = ["ring", "openssl-sys"];
