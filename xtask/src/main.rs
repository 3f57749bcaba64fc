//! The project's own chores, run as `cargo xtask CHORE`.
//!
//! Owns what a fresh machine needs before the tests can run, and the order in which the checks run.
//! Never reads configuration of the mesh.

mod bench;
mod debian;
mod exec;
mod instructions;
mod layout;
mod peers;
mod shipped;
mod test;
mod training;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own chores")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run every check and every test; installs what is missing first
    ///
    /// Format, lints, licences and sources of the dependencies, then the tests of the whole workspace. Ends with
    /// a line `N passed, N failed, N skipped`.
    Test,
    /// Fetch the real counterparts the tests talk to: Debian packages, and Envoy and gRPC under target/peers
    Peers,
    /// Measure what the project promises in figures, on programs built like a release; see benches/README.md
    ///
    /// `cargo xtask bench memory`; `cargo xtask bench help` lists all.
    #[command(disable_help_flag = true)]
    Bench {
        /// Of the harness: what to measure, and its options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build both programs as they ship: trained on the benches' load and linked statically; prints where they are
    Shipped,
    /// Find out which functions a sidecar runs, for the linker to put side by side: writes proxy/layout.ld
    Layout,
}

fn main() -> ExitCode {
    let done = match Args::parse().chore {
        Chore::Test => test::run(),
        Chore::Peers => peers::ensure(),
        Chore::Bench { arguments } => bench::run(&arguments),
        Chore::Shipped => shipped::run(),
        Chore::Layout => layout::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem:#}");
            ExitCode::FAILURE
        }
    }
}
