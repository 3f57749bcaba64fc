//! Who this proxy is, and who it was seen to speak with, protected or not: for `outrigger identity`.

use super::State;
use super::answer::{self, Answer, Asked};

pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    answer::json(&state.shared.identity.report())
}
