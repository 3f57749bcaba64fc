//! What goes wrong on purpose: every experiment this proxy has, what it did, and whether it is over.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::State;
use super::answer::{self, Answer, Asked};
use crate::policy::fault::{Done, Experiment, Kind};

pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    let now = Instant::now();
    let experiments: Vec<_> =
        state.shared.mesh.experiments().all().iter().map(|one| experiment(one, now)).collect();
    answer::json(&json!({ "experiments": experiments }))
}

/// Times are seconds since 1970.
fn experiment(experiment: &Experiment, now: Instant) -> Value {
    let active = experiment.is_active();
    let ended = experiment
        .ended()
        .map(|ending| json!({ "by": ending.why.word(), "at": seconds(ending.at), "detail": ending.detail }));
    json!({
        "policy": experiment.model.policy(),
        "at": experiment.model.at.word(),
        "active": active,
        "began": seconds(experiment.began()),
        // Null where nothing limits it.
        "left_ms": experiment.left(now).filter(|_| active).map(|left| left.as_millis() as u64),
        "ended": ended,
        "faults": experiment.done().iter().map(fault).collect::<Vec<_>>(),
    })
}

fn fault(done: &Done) -> Value {
    let kinds: serde_json::Map<_, _> = Kind::ALL
        .into_iter()
        .filter(|kind| done.done[*kind as usize] > 0)
        .map(|kind| (kind.word().to_owned(), json!(done.done[kind as usize])))
        .collect();
    // `met`: requests, attempts and connections that it might have hit.
    json!({ "name": done.name, "met": done.met, "done": kinds })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
