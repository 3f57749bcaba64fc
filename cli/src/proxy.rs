//! `outrigger proxy` and `outrigger gateway`: the data plane, as this program.

use std::process::ExitCode;

use anyhow::ensure;
use outrigger_proxy::options::Options;

/// Run the sidecar of one workload.
#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    options: Options,
}

/// Run a gateway.
#[derive(Debug, clap::Args)]
pub struct GatewayArgs {
    #[command(flatten)]
    options: Options,
}

pub fn run_proxy(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.options.gateway.is_none(), "a sidecar has a --workload; `outrigger gateway` runs a gateway");
    outrigger_proxy::start(args.options)?;
    Ok(ExitCode::SUCCESS)
}

pub fn run_gateway(args: GatewayArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.options.gateway.is_some(), "--gateway names the Gateway to run");
    outrigger_proxy::start(args.options)?;
    Ok(ExitCode::SUCCESS)
}
