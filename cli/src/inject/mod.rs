//! `outrigger inject`: sidecars for workloads, with no cluster at hand.
//!
//! Owns reading and writing manifests; what a pod with a sidecar looks like is `outrigger_control::inject`, which the cluster's webhook
//! shares. Documents that get no sidecar come out byte for byte, the others with their comments and their order.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use outrigger_config::diagnostic::{Diagnostic, Position, Severity};
use outrigger_config::manifest::path::Positions;
use outrigger_config::manifest::{MAX_DOCUMENTS, MAX_FILE_BYTES, split, tree};
use outrigger_config::source::{Content, Directory};
use outrigger_control::inject::{self, Outcome, Settings};
use serde_json::Value;

mod edit;
mod emit;
mod layout;
mod value;

/// Put sidecars into workloads: YAML in, YAML out, no cluster needed
///
/// Reads Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Lists of them; everything else is passed on as
/// it is. What was injected before is injected anew, so a second pass changes nothing.
///
/// Exits with 0 if there is no error, 1 if there is one (nothing is written then), 2 if there is nothing to read.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file or a directory of YAML or JSON; - reads standard input; repeatable
    #[arg(short, long = "filename", required = true, value_name = "PATH")]
    filenames: Vec<PathBuf>,
    /// Take sidecars out instead
    #[arg(long)]
    remove: bool,
    /// Image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value = concat!("outrigger-proxy:", env!("CARGO_PKG_VERSION")))]
    proxy_image: String,
    /// Image of the init container that loads the redirection
    #[arg(long, value_name = "IMAGE", default_value = concat!("outrigger:", env!("CARGO_PKG_VERSION")))]
    capture_image: String,
    /// Where sidecars find the control plane; repeatable, they are replicas
    #[arg(long, value_name = "HOST:PORT", default_value = "outrigger-control.outrigger-system.svc:15012")]
    control: Vec<String>,
    /// Config map in each namespace that holds, as roots.pem, what `outrigger ca export-root` writes
    #[arg(long, value_name = "NAME", default_value = "outrigger-roots")]
    roots: String,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = Settings {
        proxy_image: args.proxy_image,
        capture_image: args.capture_image,
        control: args.control,
        roots: args.roots,
    };
    let change = |object: &Value| match args.remove {
        false => inject::inject(object, &settings),
        true => inject::remove(object),
    };
    let mut out = String::new();
    let mut diagnostics = Vec::new();
    let mut files = 0;
    for path in &args.filenames {
        let contents = if path.as_os_str() == "-" {
            vec![("(stdin)".into(), from_stdin()?)]
        } else if let Err(error) = path.metadata() {
            eprintln!("outrigger: {}: {error}", path.display());
            return Ok(MISUSE.into());
        } else {
            Directory::new([path])
                .read()
                .iter()
                .map(|(name, content)| (name.clone(), content.clone()))
                .collect()
        };
        for (name, content) in contents {
            files += 1;
            match content {
                Content::Text(text) => file(&name, &text, &change, &mut out, &mut diagnostics),
                Content::Unreadable(why) => diagnostics.push(Diagnostic::new(Severity::Error, &name, &*why)),
            }
        }
    }
    if files == 0 {
        eprintln!("outrigger: no file that ends in .yaml, .yml or .json");
        return Ok(MISUSE.into());
    }
    for found in &diagnostics {
        eprintln!("{found}");
    }
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Ok(ExitCode::FAILURE);
    }
    std::io::stdout().lock().write_all(out.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// There is nothing to read.
const MISUSE: u8 = 2;

fn from_stdin() -> anyhow::Result<Content> {
    let mut bytes = Vec::new();
    // One byte more than is accepted, so that a text which is too long is seen to be.
    std::io::stdin().lock().take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Ok(Content::Unreadable(format!("larger than {} MiB", MAX_FILE_BYTES >> 20).into()));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Content::Text(text.into()),
        Err(error) => {
            Content::Unreadable(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()).into())
        }
    })
}

/// Adds a file to the output, changed or as it is. Files that follow each other are documents of one stream.
fn file(
    name: &Arc<str>,
    text: &str,
    change: &dyn Fn(&Value) -> Outcome,
    out: &mut String,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let bare = text.trim_start_matches('\u{feff}');
    if !out.is_empty() {
        if !out.ends_with('\n') {
            out.push('\n');
        }
        // Directives, too, need the end of what was before.
        if !bare.starts_with("---") {
            out.push_str("---\n");
        }
    } else {
        out.push_str(&text[..text.len() - bare.len()]);
    }
    let parts = split::documents(bare);
    if parts.len() > MAX_DOCUMENTS {
        let message = format!("{} documents are more than the {MAX_DOCUMENTS} accepted", parts.len());
        return diagnostics.push(Diagnostic::new(Severity::Error, name, message));
    }
    for part in parts {
        match document(name, part, change, diagnostics) {
            Some(changed) => out.push_str(&changed),
            None => out.push_str(part.text),
        }
    }
}

/// The text of a document that changes.
fn document(
    name: &Arc<str>,
    part: split::Part,
    change: &dyn Fn(&Value) -> Outcome,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<String> {
    let root = match tree::parse(part.text, part.first_line) {
        Ok(root) => root?,
        Err(error) => {
            diagnostics.push(Diagnostic::new(Severity::Error, name, error.message).at(error.at));
            return None;
        }
    };
    let before = value::of(&root);
    let outcome = change(&before);
    if !outcome.findings.is_empty() {
        let places = Positions::of(&root);
        diagnostics.extend(outcome.findings.iter().map(|found| {
            Diagnostic::new(found.severity, name, found.message.as_str())
                .at(places.locate(&found.field))
                .field(found.field.to_string())
        }));
    }
    if outcome.object == before {
        return None;
    }
    let written = edit::write(part.text, &before, &outcome.object);
    if written.is_none() {
        let message = "this document cannot be changed without changing what it means; write it without tags and anchors";
        let at = root.at.unwrap_or(Position::START);
        diagnostics.push(Diagnostic::new(Severity::Error, name, message).at(at));
    }
    written
}

#[cfg(test)]
mod tests;
