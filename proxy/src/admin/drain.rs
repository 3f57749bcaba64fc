//! Leaving, on request.

use http::StatusCode;
use serde_json::json;

use super::State;
use super::answer::{self, Answer, Asked};

pub(super) fn leave(_: &Asked, state: &State) -> Answer {
    let drain = &state.shared.drain;
    drain.leave();
    answer::json(&json!({"phase": format!("{:?}", drain.phase()), "active": drain.active()}))
}

pub(super) fn shut_down(_: &Asked, state: &State) -> Answer {
    state.shared.drain.shut_down();
    answer::plain(StatusCode::OK, "draining, then ending\n")
}
