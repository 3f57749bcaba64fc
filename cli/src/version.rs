//! `outrigger version`: which build this is.

use std::process::ExitCode;

/// Print the version
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    println!("outrigger {}", env!("CARGO_PKG_VERSION"));
    Ok(ExitCode::SUCCESS)
}
