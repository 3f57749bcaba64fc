//! `outrigger-proxy`: the data plane alone, as the sidecar image holds it.

use clap::Parser;
use outrigger_proxy::options::Options;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "outrigger-proxy", version)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    outrigger_proxy::start(Cli::parse().options)
}
