//! The log of the roles that are servers of their own: standard error, coloured where that is a terminal.

use std::io::IsTerminal;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// `level`: error, warn, info, debug, trace; also by module, `info,outrigger_control=debug`. Fails if it is none of that.
pub fn begin(level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level).context("--log-level")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
