//! The log of the roles that are servers of their own: standard error, coloured where that is a terminal.

use std::io::IsTerminal;

use anyhow::anyhow;
use tracing_subscriber::EnvFilter;

/// `level`: error, warn, info, debug, trace; also by module, `info,outrigger_control=debug`. Fails if it is none of that.
pub fn begin(level: &str) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    // Its own text has what its source says: a chain of errors would say it twice.
    EnvFilter::try_new(level).map_err(|error| anyhow!("--log-level {level}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_is_named_once() {
        for level in ["outrigger_control=loud", "a=b=c", "info,x[=debug"] {
            let error = format!("{:#}", filter(level).expect_err(level));
            let rest =
                error.strip_prefix(&format!("--log-level {level}: ")).unwrap_or_else(|| panic!("{error}"));
            let first = rest.split(':').next().unwrap_or_default();
            assert!(!first.is_empty() && rest.matches(first).count() == 1, "{error}");
        }
        filter("info,outrigger_control=debug").expect("levels by module");
    }
}
