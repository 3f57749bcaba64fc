//! `outrigger down`: drains and ends a mesh that `outrigger up` started.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::up::socket::{self, Answer, Request};

/// End a running mesh.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory it was started with; not needed when only one mesh runs.
    manifests: Option<PathBuf>,
    /// Second byte of its loopback network.
    #[arg(long)]
    network: Option<u8>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let run_dir = socket::choose(args.network, args.manifests.as_deref()).await?;
        match socket::ask(&run_dir, &Request::Down, |text| println!("{text}")).await? {
            Answer::Done(text) => {
                socket::ended(&run_dir).await;
                println!("{text}");
            }
            other => anyhow::bail!("{other:?}"),
        }
        Ok(ExitCode::SUCCESS)
    })
}
