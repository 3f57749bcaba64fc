//! How much this process logs, changed while it runs.
//!
//! Owns the filter of the log: directives as `tracing` has them, such as `info` or `warn,outrigger_proxy::upstream=debug`.

use std::fmt;
use std::io::Stderr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use http::StatusCode;
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Formatter;
use tracing_subscriber::fmt::format::{DefaultFields, Format};
use tracing_subscriber::reload;

use super::State;
use super::answer::{Answer, Asked, json, plain};

/// The log of this process. The default is one that somebody else set up, and that cannot be changed here.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Handle>>);

type Handle = reload::Handle<EnvFilter, Formatter<DefaultFields, Format, fn() -> Stderr>>;

impl Log {
    /// Begins to log to standard error, filtered by `OUTRIGGER_LOG`; where that is absent or makes no sense by `info`.
    pub fn install() -> anyhow::Result<Self> {
        let given = std::env::var(VARIABLE).ok().map(|given| filter(&given));
        let (filter, problem) = match given {
            Some(Ok(filter)) => (filter, None),
            Some(Err(problem)) => (EnvFilter::new("info"), Some(problem)),
            None => (EnvFilter::new("info"), None),
        };
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr as fn() -> Stderr)
            .with_filter_reloading();
        let handle = builder.reload_handle();
        builder.try_init().map_err(|error| anyhow!(error)).context("beginning to log")?;
        if let Some(problem) = problem {
            tracing::warn!("{}: {problem}", VARIABLE);
        }
        Ok(Self(Some(Arc::new(handle))))
    }

    /// What is logged now, as directives.
    fn current(&self) -> Result<String, String> {
        let handle = self.0.as_ref().ok_or(NOT_OURS)?;
        handle.with_current(ToString::to_string).map_err(|error| error.to_string())
    }

    fn set(&self, filter: EnvFilter) -> Result<(), String> {
        let handle = self.0.as_ref().ok_or(NOT_OURS)?;
        handle.reload(filter).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Log").field(&self.current()).finish()
    }
}

pub(super) fn show(_: &Asked, state: &State) -> Answer {
    match state.log.current() {
        Ok(level) => json(&json!({ "level": level })),
        Err(why) => plain(StatusCode::CONFLICT, why + "\n"),
    }
}

pub(super) fn set(asked: &Asked, state: &State) -> Answer {
    let given = match asked.parameter("level") {
        Some(Ok(given)) => given,
        Some(Err(_)) => return plain(StatusCode::BAD_REQUEST, "level: not UTF-8\n"),
        None => {
            return plain(StatusCode::BAD_REQUEST, "POST /logging?level=DIRECTIVES, such as level=debug\n");
        }
    };
    let filter = match filter(&given) {
        Ok(filter) => filter,
        Err(problem) => return plain(StatusCode::BAD_REQUEST, format!("level: {problem}\n")),
    };
    match state.log.set(filter) {
        Ok(()) => {
            tracing::info!(level = %given, "the log level was changed");
            show(asked, state)
        }
        Err(why) => plain(StatusCode::CONFLICT, why + "\n"),
    }
}

fn filter(directives: &str) -> Result<EnvFilter, String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    // A lone word that is no level would be taken for a module, all of which is then logged; a field's name may hold anything.
    let is_word = |directive: &&str| !directive.contains(['=', '[', ']', '{', '}', '"']);
    let is_level = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word));
    if let Some(word) = directives.split(',').filter(is_word).find(|word| !is_level(word)) {
        return Err(format!("{word:?} is none of {}; a module's is MODULE=LEVEL", levels.join(", ")));
    }
    EnvFilter::builder().with_regex(false).parse(directives).map_err(|error| error.to_string())
}

const VARIABLE: &str = "OUTRIGGER_LOG";

const NOT_OURS: &str = "the program that runs this proxy set up its log itself";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_or_refused_with_the_reason() {
        for (given, want) in [
            ("debug", "debug"),
            ("WARN", "warn"),
            ("info,outrigger_proxy::upstream=trace", "outrigger_proxy::upstream=trace,info"),
            ("off,outrigger_proxy=error", "outrigger_proxy=error,off"),
        ] {
            assert_eq!(filter(given).unwrap().to_string(), want, "{given}");
        }
        for (given, why) in [
            ("", "\"\" is none of off, error,"),
            (
                "verbose",
                "\"verbose\" is none of off, error, warn, info, debug, trace; a module's is MODULE=LEVEL",
            ),
            ("info,", "\"\" is none of"),
            ("h2=loud", "error parsing level filter: expected one of"),
        ] {
            let problem = filter(given).unwrap_err();
            assert!(problem.starts_with(why), "{given}: {problem}");
        }
    }
}
