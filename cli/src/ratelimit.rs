//! `outrigger ratelimit`: a server of Envoy's rate limit call.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use outrigger_control::rate_limit::{Store, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Count limits that several proxies share: a server of Envoy's envoy.service.ratelimit.v3.RateLimitService.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on, in plaintext.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Where Prometheus finds /metrics. Default: nowhere.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Count in Redis, together with every other server that does: redis://[USER:PASSWORD@]HOST:PORT[/DB]. Default: in this process.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// error, warn, info, debug, trace; also by module, `info,outrigger_control=debug`.
    #[arg(long, env = "OUTRIGGER_LOG", default_value = "info")]
    log_level: String,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::log::begin(&args.log_level)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let store = match &args.redis {
            Some(url) => Store::redis(url).context("--redis")?,
            None => Store::memory(),
        };
        let listener = TcpListener::bind(args.listen).await.with_context(|| format!("{}", args.listen))?;
        let metrics = match args.metrics {
            Some(at) => Some(TcpListener::bind(at).await.with_context(|| format!("--metrics {at}"))?),
            None => None,
        };
        let shared = if args.redis.is_some() { "in Redis" } else { "in this process" };
        tracing::info!(address = %listener.local_addr()?, counted = shared, "listening");
        let end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("ending");
        };
        serve(listener, metrics, store, end).await?;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
