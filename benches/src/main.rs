//! What the project promises in figures, measured on real processes over loopback: `cargo xtask bench …`.
//!
//! Owns the ground a measurement stands on (a control plane and proxies as a user starts them, apps inside this process, load) and the
//! tables it prints. Exit code 1 says that a promise was not met. Never part of the tests: these figures depend on the machine.

mod app;
mod client;
mod compare;
mod drills;
mod faults;
mod ground;
mod limits;
mod manifests;
mod memory;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::ground::Programs;

#[derive(Debug, Parser)]
#[command(name = "outrigger-bench", about = "Measures what Outrigger promises in figures")]
struct Cli {
    #[command(flatten)]
    programs: Programs,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Memory(memory::Args),
    Drills(drills::Args),
    Compare(compare::Args),
    Faults(faults::Args),
    Limits(limits::Args),
    #[command(hide = true)]
    Endpoint(faults::endpoint::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if matches!(cli.what, What::Compare(_)) {
        compare::machine::prepare()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let met = runtime.block_on(async {
        match cli.what {
            What::Memory(args) => memory::run(&cli.programs, args).await,
            What::Drills(args) => drills::run(&cli.programs, args).await,
            What::Compare(args) => compare::run(&cli.programs, args).await,
            What::Faults(args) => faults::run(&cli.programs, args).await,
            What::Limits(args) => limits::run(&cli.programs, args).await,
            What::Endpoint(args) => faults::endpoint::run(args).await,
        }
    })?;
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
