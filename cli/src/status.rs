//! `outrigger status`: what runs in a mesh, and what became of each manifest.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

use crate::output::{self, Format};
use crate::up::socket::{self, Answer, Request};
use crate::up::{MeshReport, table};

/// Show what runs in a mesh, and what became of each manifest.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory the mesh was started with; not needed when only one mesh runs.
    manifests: Option<PathBuf>,
    /// Second byte of its loopback network.
    #[arg(long)]
    network: Option<u8>,
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    mesh: Box<MeshReport>,
    /// As the control plane answers `/v1/status`; absent while it is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<Value>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let run_dir = socket::choose(args.network, args.manifests.as_deref()).await?;
        let Answer::Status(mesh) = socket::ask(&run_dir, &Request::Status, |_| {}).await? else {
            bail!("the mesh did not answer with its status");
        };
        let manifests = match control_status(&mesh).await {
            Ok(status) => Some(status),
            Err(error) => {
                eprintln!("outrigger: the control plane does not answer: {error:#}");
                None
            }
        };
        let problems = manifests.as_ref().is_some_and(has_errors);
        output::print(args.output, &Status { mesh, manifests }, |status| {
            let mut text = table(&status.mesh);
            for line in status.manifests.iter().flat_map(lines) {
                text.push('\n');
                text.push_str(&line);
            }
            text
        })?;
        Ok(if problems { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

async fn control_status(mesh: &MeshReport) -> anyhow::Result<Value> {
    let address =
        mesh.control.trim_start_matches("http://").parse().context("the control plane's address")?;
    let (status, body) = crate::http::get(address, "/v1/status", Duration::from_secs(2)).await?;
    if !status.is_success() {
        bail!("{status}");
    }
    Ok(serde_json::from_slice(&body)?)
}

/// The control plane's findings: `outrigger_config::diagnostic::Diagnostic`s as JSON.
fn findings(status: &Value) -> impl Iterator<Item = &Value> {
    status["diagnostics"].as_array().into_iter().flatten()
}

fn has_errors(status: &Value) -> bool {
    findings(status).any(|finding| finding["severity"] == "error")
}

/// `file:line:column: error: field: message`, like `outrigger check`.
fn lines(status: &Value) -> impl Iterator<Item = String> {
    findings(status).map(|finding| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        let mut line = text("file").to_owned();
        for key in ["line", "column"] {
            if let Some(number) = finding[key].as_u64() {
                line.push_str(&format!(":{number}"));
            }
        }
        line.push_str(&format!(": {}: ", text("severity")));
        if !text("field").is_empty() {
            line.push_str(&format!("{}: ", text("field")));
        }
        line + text("message")
    })
}
