//! `outrigger schema`: the JSON Schema of each kind of manifest, for editors and for people.

use std::process::ExitCode;

use outrigger_config::manifest::{self, Kind};

/// Print the JSON Schema of a kind, or list the kinds
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As in a manifest, in any case: HTTPRoute, service ...
    #[arg(value_name = "KIND")]
    kind: Option<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(name) = args.kind else {
        for kind in Kind::ALL {
            println!("{:<16}{}", kind.as_str(), kind.api_version());
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(&name)) else {
        let hint = match manifest::nearest(&name, Kind::ALL.map(Kind::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("the kinds are {}", Kind::ALL.map(Kind::as_str).join(", ")),
        };
        eprintln!("outrigger: {name:?} is not a kind of manifest; {hint}");
        return Ok(2.into());
    };
    println!("{:#}", manifest::schema(kind));
    Ok(ExitCode::SUCCESS)
}
