//! `outrigger control`: the control plane as a process of its own.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use outrigger_control::{Config, Control};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Run the control plane: read manifests and tell every proxy that asks what concerns it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories or files of manifests; together they are the mesh. Watched.
    #[arg(long, required = true, num_args = 1..)]
    manifests: Vec<PathBuf>,
    /// Address to listen on. Discovery is in plaintext: anything but loopback lets whoever reaches it read the configuration.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Discovery (xDS v3, delta ADS over gRPC). 0 takes a free port, here and below.
    #[arg(long, default_value_t = 15010)]
    ads_port: u16,
    /// Prometheus metrics.
    #[arg(long, default_value_t = 15014)]
    metrics_port: u16,
    /// Status as JSON, readiness.
    #[arg(long, default_value_t = 15080)]
    api_port: u16,
    /// error, warn, info, debug, trace; also by module, `info,outrigger_control=debug`.
    #[arg(long, env = "OUTRIGGER_LOG", default_value = "info")]
    log_level: String,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_new(&args.log_level).context("--log-level")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let config = Config {
        manifests: args.manifests,
        address: args.address,
        ads_port: args.ads_port,
        metrics_port: args.metrics_port,
        api_port: args.api_port,
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        // Before anything is opened: a signal that comes early must not end us without a goodbye.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let control = Control::open(&config).await?;
        tracing::info!(
            ads = %control.ads_address()?,
            metrics = %control.metrics_address()?,
            api = %control.api_address()?,
            "listening"
        );
        let end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("ending");
        };
        control.run(end).await?;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
