//! `outrigger fault`: what goes wrong on purpose in a mesh, and its end.
//!
//! What each experiment did, every proxy says on its admin port; what the control plane knows of it, and that it was stopped, its API. Exit code 1 where something that
//! was to be stopped was not.

mod listing;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::output::{self, Format};
use crate::up::MeshReport;
use crate::up::socket;
#[cfg(test)]
pub use listing::Proxy;
pub use listing::{Listing, ask_all, table};

/// What goes wrong on purpose: faults of TrafficPolicies.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which faults are active where, and what they did.
    List {
        #[command(flatten)]
        mesh: Which,
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Stop experiments at once, in all proxies: all of them, or those of one policy. They stay stopped until their policy changes.
    Stop {
        /// NAMESPACE/NAME of a TrafficPolicy. Default: all.
        #[arg(long, value_name = "NAMESPACE/NAME")]
        policy: Option<String>,
        #[command(flatten)]
        mesh: Which,
    },
}

/// The mesh that is meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// The directory the mesh was started with; not needed when only one mesh runs.
    manifests: Option<PathBuf>,
    /// Second byte of its loopback network.
    #[arg(long)]
    network: Option<u8>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        match args.command {
            Command::List { mesh, output } => {
                let listing = ask_all(&report(&mesh).await?).await;
                output::print(output, &listing, table)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Stop { policy, mesh } => stop(&report(&mesh).await?, policy.as_deref()).await,
        }
    })
}

async fn report(which: &Which) -> anyhow::Result<MeshReport> {
    let run_dir = socket::choose(which.network, which.manifests.as_deref()).await?;
    socket::status(&run_dir).await
}

/// As the control plane answers.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stopped {
    stopped: Vec<String>,
    kept: bool,
    why_not_kept: Option<String>,
}

/// It writes a file.
const PATIENCE: Duration = Duration::from_secs(10);

async fn stop(mesh: &MeshReport, policy: Option<&str>) -> anyhow::Result<ExitCode> {
    let control =
        mesh.control.as_ref().context("the control plane has ended; nobody can tell the proxies")?;
    let address: SocketAddr = control.api.trim_start_matches("http://").parse()?;
    let path = match policy {
        Some(policy) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-./".contains(c);
            ensure!(policy.chars().all(plain) && policy.contains('/'), "{policy:?} is not NAMESPACE/NAME");
            format!("/v1/faults/stop?policy={policy}")
        }
        None => "/v1/faults/stop".to_owned(),
    };
    let (status, body) = crate::http::post(address, &path, PATIENCE).await?;
    ensure!(status.is_success(), "{}", String::from_utf8_lossy(&body).trim());
    let stopped: Stopped = serde_json::from_slice(&body)?;
    if stopped.stopped.is_empty() {
        println!("nothing to stop");
    }
    for policy in &stopped.stopped {
        println!("stopped {policy}");
    }
    if !stopped.kept {
        let why = stopped.why_not_kept.as_deref().unwrap_or("nobody knows why");
        eprintln!("begins again if the control plane is started again: {why}; delete the policy as well");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
