//! What this proxy is and how it is doing.

use serde_json::json;

use super::State;
use super::answer::{self, Answer, Asked};

pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    let shared = &state.shared;
    answer::json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": format!("{:?}", shared.drain.phase()),
        "configured": shared.mesh.is_configured(),
        "active": shared.drain.active(),
    }))
}
