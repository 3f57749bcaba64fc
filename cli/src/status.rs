//! `outrigger status`: what runs in a mesh, and what is wrong with its manifests.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use outrigger_config::diagnostic::Diagnostic;
use outrigger_config::registry::Store;
use outrigger_config::source::Directory;
use serde::Serialize;

use crate::output::{self, Format};
use crate::up::socket::{self, Answer, Request};
use crate::up::{MeshReport, table};

/// Show what runs in a mesh, and what is wrong with its manifests.
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
    diagnostics: Vec<Diagnostic>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mesh = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let run_dir = socket::choose(args.network, args.manifests.as_deref()).await?;
        match socket::ask(&run_dir, &Request::Status, |_| {}).await? {
            Answer::Status(mesh) => Ok(mesh),
            _ => bail!("the mesh did not answer with its status"),
        }
    })?;
    // As every proxy reads them now; what is broken keeps its last good version there.
    let files = Directory::new(&mesh.directories).read();
    let diagnostics = Store::new().update(&files).diagnostics().to_vec();
    let broken = diagnostics.iter().any(Diagnostic::is_error);
    output::print(args.output, &Status { mesh, diagnostics }, |status| {
        let mut text = table(&status.mesh);
        for diagnostic in &status.diagnostics {
            text.push_str(&format!("\n{diagnostic}"));
        }
        text
    })?;
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
