//! `outrigger status`: what runs in a mesh, and what is wrong with it.
//!
//! `up` knows the processes, the control plane what became of the manifests and how far every proxy is. Exit code 1 if there is an
//! error among the problems.

mod circuits;
mod experiments;
mod plane;
mod problem;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use comfy_table::{ContentArrangement, Table, presets};
use outrigger_config::diagnostic::Severity;
use serde::Serialize;

use crate::output::{self, Format};
use crate::up::socket;
use crate::up::{MeshReport, table};
use plane::Plane;
use problem::{Problem, problems};

/// Show what runs in a mesh, and what is wrong with it.
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

/// Notes shown in a table; there may be one for each of hundreds of objects.
const NOTES: usize = 5;

#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    mesh: Box<MeshReport>,
    problems: Vec<Problem>,
    /// All the control plane says of objects and proxies; null while it is away.
    configuration: Option<serde_json::Value>,
    #[serde(skip)]
    plane: Option<Plane>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let run_dir = socket::choose(args.network, args.manifests.as_deref()).await?;
        show(&run_dir, args.output).await
    })
}

/// Prints the status of the mesh of `run_dir`.
pub async fn show(run_dir: &Path, format: Format) -> anyhow::Result<ExitCode> {
    let mesh = Box::new(socket::status(run_dir).await?);
    let asked = match &mesh.control {
        Some(control) => plane::ask(&control.api).await,
        None => Err(anyhow!("it has ended")),
    };
    let mut problems = problems(&mesh, asked.as_ref().map(|(plane, _)| plane));
    problems.extend(circuits::problems(&mesh).await);
    problems.extend(experiments::problems(&crate::fault::ask_all(&mesh).await));
    problems.sort_by_key(|problem| problem.severity);
    let (plane, configuration) = asked.ok().unzip();
    let status = Status { mesh, problems, configuration, plane };
    output::print(format, &status, text)?;
    let failed = status.problems.iter().any(|problem| problem.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(status: &Status) -> String {
    let mut text = table(&status.mesh);
    if let Some(plane) = &status.plane {
        text.push_str(&format!(
            "\n\n {} objects in force, {} proxies connected",
            plane.objects.len(),
            plane.proxies.len()
        ));
    }
    if status.problems.is_empty() {
        return text;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let is_note = |problem: &&Problem| problem.severity == Severity::Note;
    let notes = status.problems.iter().filter(is_note).count();
    let shown = status.problems.len() - notes.saturating_sub(NOTES);
    for problem in &status.problems[..shown] {
        table.add_row([problem.severity.to_string(), problem.to_string()]);
    }
    if notes > NOTES {
        table.add_row(["note".to_owned(), format!("and {} more notes; -o json has all", notes - NOTES)]);
    }
    text.push_str("\n\n");
    text.push_str(&crate::up::trimmed(&table));
    text
}
