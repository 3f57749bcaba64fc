//! What this proxy is and how it is doing.

use serde_json::json;

use super::State;
use super::answer::{self, Answer, Asked};
use super::config_dump::source;
use super::health::{not_ready, warnings};

pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    let shared = &state.shared;
    let missing = not_ready(state);
    let source = source(&shared.mesh.inventory().lock().link);
    answer::json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": state.started.elapsed().as_secs(),
        "phase": format!("{:?}", shared.drain.phase()),
        "ready": missing.is_empty(),
        "missing": missing,
        "warnings": warnings(state),
        "configured": shared.mesh.is_configured(),
        "source": source,
        "captured": shared.canary.is_some(),
        "active": shared.drain.active(),
    }))
}
