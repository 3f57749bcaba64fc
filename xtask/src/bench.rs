//! `cargo xtask bench WHAT`: builds the programs like a release, but faster, and measures them (benches/README.md).

use anyhow::Result;

use crate::exec::{self, cargo, command, target};

/// Everything after `bench` is the harness's own command line.
pub fn run(arguments: &[String]) -> Result<()> {
    let packages = ["outrigger", "outrigger-proxy", "outrigger-benches"];
    let mut build = cargo(&["build", "--locked", "--profile", "quick"]);
    build.args(packages.iter().flat_map(|package| ["--package", package]));
    exec::run(&mut build)?;
    let programs = target("quick");
    exec::run(command(programs.join("outrigger-bench"), &["--programs"]).arg(&programs).args(arguments))
}
