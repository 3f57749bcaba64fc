//! `outrigger check`: what is wrong with manifests, before anything runs on them.
//!
//! Reads what the control plane would read, with the same code, and needs nothing running.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use outrigger_config::diagnostic::{Diagnostic, Severity};
use outrigger_config::manifest;
use outrigger_config::registry::Store;
use outrigger_config::source::{Content, Directory};
use serde::Serialize;

use crate::output::{self, Format};

/// Check manifests: shape, values and references
///
/// References are looked for among the given paths: give all that belong together.
///
/// Exits with 0 if there is no error, 1 if there is one, 2 if there is nothing to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files and directories of YAML or JSON; - reads standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// List notes as well, such as objects that the mesh does not read
    #[arg(long)]
    notes: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (standard_input, paths): (Vec<_>, Vec<_>) =
        args.paths.into_iter().partition(|path| path.as_os_str() == "-");
    for path in &paths {
        if let Err(error) = path.metadata() {
            eprintln!("outrigger: {}: {error}", path.display());
            return Ok(MISUSE.into());
        }
    }
    let mut files = Directory::new(paths).read();
    if !standard_input.is_empty() {
        files.insert("(stdin)", from_stdin()?);
    }
    if files.is_empty() {
        eprintln!("outrigger: no file that ends in .yaml, .yml or .json");
        return Ok(MISUSE.into());
    }
    let registry = Store::new().update(&files);
    let report = Report::new(files.len(), registry.objects().count(), registry.diagnostics());
    output::print(args.output, &report, |report| report.table(args.notes))?;
    Ok(if report.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn from_stdin() -> anyhow::Result<Content> {
    let mut bytes = Vec::new();
    // One byte more than is accepted, so that a text which is too long is seen to be.
    std::io::stdin().lock().take(manifest::MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Content::Text(text.into()),
        Err(error) => {
            let text = format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to());
            Content::Unreadable(text.into())
        }
    })
}

/// Nothing could be checked: a path that is not there, a directory without manifests.
const MISUSE: u8 = 2;

/// The outcome, as `-o json` and `-o yaml` print it.
#[derive(Debug, Serialize)]
struct Report {
    files: usize,
    /// Those that can be used.
    objects: usize,
    errors: usize,
    warnings: usize,
    notes: usize,
    /// In the order of files and lines.
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    fn new(files: usize, objects: usize, diagnostics: &[Diagnostic]) -> Report {
        let mut diagnostics = diagnostics.to_vec();
        diagnostics.sort_by(|a, b| a.listing_order().cmp(&b.listing_order()));
        let of = |severity| diagnostics.iter().filter(|found| found.severity == severity).count();
        let (errors, warnings, notes) = (of(Severity::Error), of(Severity::Warning), of(Severity::Note));
        Report { files, objects, errors, warnings, notes, diagnostics }
    }

    fn table(&self, with_notes: bool) -> String {
        let mut out = String::new();
        for found in self.diagnostics.iter().filter(|found| with_notes || found.severity != Severity::Note) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{found}");
        }
        let _ = write!(out, "{} in {}: ", count(self.objects, "object"), count(self.files, "file"));
        match (self.errors, self.warnings) {
            (0, 0) => out.push_str("no problems"),
            (errors, 0) => out.push_str(&count(errors, "error")),
            (0, warnings) => out.push_str(&count(warnings, "warning")),
            (errors, warnings) => {
                let _ = write!(out, "{}, {}", count(errors, "error"), count(warnings, "warning"));
            }
        }
        if self.notes > 0 && !with_notes {
            let _ = write!(out, " ({}; --notes lists them)", count(self.notes, "note"));
        }
        out
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
