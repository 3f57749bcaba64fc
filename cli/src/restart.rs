//! `outrigger restart WORKLOAD`: restarts the instances of a workload one at a time, losing nothing.

use std::process::ExitCode;

use anyhow::bail;

use crate::up::socket::{self, Answer, Request};

/// Restart the instances of a workload of a running mesh, one at a time.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Workload, or one of its instances.
    workload: String,
    /// Second byte of the mesh's loopback network; not needed when only one mesh runs.
    #[arg(long)]
    network: Option<u8>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let run_dir = socket::choose(args.network, None).await?;
        let request = Request::Restart { workload: args.workload };
        match socket::ask(&run_dir, &request, |text| println!("{text}")).await? {
            Answer::Done(text) => println!("{text}"),
            Answer::Failed(text) => bail!("{text}"),
            other => bail!("{other:?}"),
        }
        Ok(ExitCode::SUCCESS)
    })
}
