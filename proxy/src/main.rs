//! `outrigger-proxy`: the data plane alone, as the sidecar image holds it.

use clap::Parser;
use outrigger_proxy::ask::Ask;
use outrigger_proxy::options::Options;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(
    name = "outrigger-proxy",
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    ask: Option<Ask>,
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.ask {
        Some(ask) => ask.run(),
        None => outrigger_proxy::start(cli.options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_needs_no_options_and_a_proxy_no_question() {
        let ask = |args: &[&str]| Cli::try_parse_from(args).map(|cli| cli.ask);
        assert!(matches!(ask(&["outrigger-proxy", "drain"]), Ok(Some(Ask::Drain(_)))));
        let admin = ask(&["outrigger-proxy", "shutdown", "--admin", "127.0.0.1:1"]).unwrap();
        let Some(Ask::Shutdown(at)) = admin else { panic!("{admin:?}") };
        assert_eq!(at.admin.port(), 1);
        assert!(ask(&["outrigger-proxy"]).is_err());
        assert!(matches!(ask(&["outrigger-proxy", "--control", "a:1", "--workload", "w"]), Ok(None)));
    }
}
