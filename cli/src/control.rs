//! `outrigger control`: the control plane as a process of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use outrigger_config::xds::certificates;
use outrigger_control::{CaOrigin, Config, Control, Identity};
use tokio::signal::unix::{SignalKind, signal};

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
    /// Open no port for discovery in plaintext: proxies are told what they prove to be theirs, over TLS, and nobody else anything.
    #[arg(long, conflicts_with = "ads_port")]
    no_plaintext: bool,
    /// Be the mesh's certification authority, and keep what it needs (keys among it) in this directory; a root is made where there is none.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["ca_cert", "ca_key"])]
    ca_dir: Option<PathBuf>,
    /// Be the certification authority with a given certificate (PEM): what signs first, what signed that, and each root that is to be
    /// believed. Looked at again when it changes.
    #[arg(long, value_name = "FILE", requires_all = ["ca_key", "token_key"])]
    ca_cert: Option<PathBuf>,
    /// The key of the first certificate (PEM). Others than its owner and its group must not be able to read it.
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// Key that proxies' tokens are signed with (P-256, PKCS #8 in PEM); made where there is none. Default: token.key in --ca-dir.
    #[arg(long, value_name = "FILE")]
    token_key: Option<PathBuf>,
    /// Certificates, and discovery for proxies with a token, over TLS. Default: port 15012 of --address. Needs --ca-dir or --ca-cert.
    #[arg(long, value_name = "ADDR:PORT")]
    xds_tls: Option<SocketAddr>,
    /// DNS name in the control plane's own certificate, for clients that look for one; repeatable.
    #[arg(long, value_name = "NAME")]
    tls_name: Vec<String>,
    /// Count limits that instances share in Redis, together with every other control plane that does: redis://[USER:PASSWORD@]HOST:PORT[/DB]. Default: in this
    /// process, which is right for one control plane alone.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// Prometheus metrics.
    #[arg(long, default_value_t = 15014)]
    metrics_port: u16,
    /// Status as JSON, readiness.
    #[arg(long, default_value_t = 15080)]
    api_port: u16,
    /// Write down in this file since when experiments (`fault` of a TrafficPolicy) run and which were stopped; without it a restart forgets that.
    #[arg(long, value_name = "FILE")]
    experiments: Option<PathBuf>,
    /// error, warn, info, debug, trace; also by module, `info,outrigger_control=debug`.
    #[arg(long, env = "OUTRIGGER_LOG", default_value = "info")]
    log_level: String,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::log::begin(&args.log_level)?;
    let identity = identity(&args)?;
    ensure!(identity.is_some() || !args.no_plaintext, "--no-plaintext goes with --ca-dir or --ca-cert");
    let config = Config {
        manifests: args.manifests,
        address: args.address,
        ads_port: (!args.no_plaintext).then_some(args.ads_port),
        metrics_port: args.metrics_port,
        api_port: args.api_port,
        identity,
        limits: args.redis,
        experiments: args.experiments,
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        // Before anything is opened: a signal that comes early must not end us without a goodbye.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let control = Control::open(&config).await?;
        tracing::info!(
            ads = control.ads_address()?.map(tracing::field::display),
            metrics = %control.metrics_address()?,
            api = %control.api_address()?,
            secure = control.secure_address()?.map(tracing::field::display),
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

fn identity(args: &Args) -> anyhow::Result<Option<Identity>> {
    let ca = match (&args.ca_dir, &args.ca_cert, &args.ca_key) {
        (Some(dir), ..) => CaOrigin::Directory(dir.clone()),
        (None, Some(certificates), Some(key)) => {
            CaOrigin::Files { certificates: certificates.clone(), key: key.clone() }
        }
        _ => {
            let given = args.token_key.is_some() || args.xds_tls.is_some() || !args.tls_name.is_empty();
            ensure!(!given, "--token-key, --xds-tls and --tls-name go with --ca-dir or --ca-cert");
            return Ok(None);
        }
    };
    let beside = args.ca_dir.as_ref().map(|dir| dir.join("token.key"));
    let token_key = args.token_key.clone().or(beside).context("--token-key is needed with --ca-cert")?;
    let listen = args.xds_tls.unwrap_or((args.address, certificates::PORT).into());
    Ok(Some(Identity { ca, token_key, listen, names: args.tls_name.clone() }))
}
