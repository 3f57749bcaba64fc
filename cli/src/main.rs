//! The `outrigger` command.
//!
//! Owns the list of subcommands and the exit codes; each subcommand lives in a file or folder of its own with
//! `pub struct Args` and `pub fn run(Args) -> anyhow::Result<ExitCode>`, and makes the runtime it needs itself.
//!
//! Exit codes: 0 fine, 1 found problems or failed, 2 misuse (an unknown flag, a missing argument; clap's own).
//! Results go to stdout, errors to stderr.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod ca;
mod capture;
mod check;
mod control;
mod down;
mod exec;
mod fault;
mod http;
mod identity;
mod inject;
mod log;
mod output;
mod proxy;
mod ratelimit;
mod restart;
mod sample;
mod schema;
mod status;
mod up;
mod version;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A service mesh: a small L7 sidecar beside every app instance, and the control plane that steers them.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, propagate_version = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
// One value in the life of the process; a box a subcommand would only be noise.
#[allow(clippy::large_enum_variant)]
enum Command {
    Up(up::Args),
    Down(down::Args),
    Restart(restart::Args),
    Status(status::Args),
    Identity(identity::Args),
    Proxy(proxy::ProxyArgs),
    Gateway(proxy::GatewayArgs),
    Ratelimit(ratelimit::Args),
    Ca(ca::Args),
    Capture(capture::Args),
    Check(check::Args),
    Inject(inject::Args),
    Control(control::Args),
    #[command(hide = true)]
    Exec(exec::Args),
    Fault(fault::Args),
    Sample(sample::Args),
    Schema(schema::Args),
    Version(version::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(args),
        Command::Restart(args) => restart::run(args),
        Command::Status(args) => status::run(args),
        Command::Identity(args) => identity::run(args),
        Command::Exec(args) => exec::run(args),
        Command::Fault(args) => fault::run(args),
        Command::Proxy(args) => proxy::run_proxy(args),
        Command::Gateway(args) => proxy::run_gateway(args),
        Command::Ratelimit(args) => ratelimit::run(args),
        Command::Ca(args) => ca::run(args),
        Command::Capture(args) => capture::run(args),
        Command::Check(args) => check::run(args),
        Command::Inject(args) => inject::run(args),
        Command::Control(args) => control::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Version(args) => version::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("outrigger: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// clap checks its own declarations (clashing flags, bad defaults) only when asked to.
    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
