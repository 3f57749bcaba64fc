//! Whether this proxy lives, and whether traffic may come to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use parking_lot::Mutex;

use super::State;
use super::answer::{Answer, Asked, plain};
use crate::drain::Phase;

/// What must hold before traffic may come; whoever sees to a part of it requires it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Conditions>);

#[derive(Debug, Default)]
struct Conditions {
    next: AtomicUsize,
    /// Those that do not hold, in the order in which they were required, with the reason.
    failing: Mutex<BTreeMap<usize, String>>,
}

/// One condition, in the hands of whoever knows whether it holds.
#[derive(Debug)]
pub struct Condition {
    conditions: Arc<Conditions>,
    id: usize,
}

impl Readiness {
    /// A condition that does not hold until it is said to; `yet` says for people what is missing.
    pub fn require(&self, yet: impl Into<String>) -> Condition {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let condition = Condition { conditions: self.0.clone(), id };
        condition.fails(yet);
        condition
    }

    /// What is missing, in words; empty where nothing is.
    pub fn missing(&self) -> Vec<String> {
        self.0.failing.lock().values().cloned().collect()
    }
}

impl Condition {
    pub fn holds(&self) {
        self.conditions.failing.lock().remove(&self.id);
    }

    pub fn fails(&self, why: impl Into<String>) {
        self.conditions.failing.lock().insert(self.id, why.into());
    }
}

pub(super) fn live(_: &Asked, _: &State) -> Answer {
    plain(StatusCode::OK, "live\n")
}

pub(super) fn ready(_: &Asked, state: &State) -> Answer {
    let missing = not_ready(state);
    if missing.is_empty() {
        let warned = warnings(state).into_iter().map(|why| format!("but {why}\n"));
        return plain(
            StatusCode::OK,
            std::iter::once("ready\n".to_owned()).chain(warned).collect::<String>(),
        );
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, missing.iter().map(|why| format!("{why}\n")).collect::<String>())
}

/// What is not as it should be, and no reason to keep traffic away.
pub(super) fn warnings(state: &State) -> Vec<String> {
    let why = state.shared.identity.why_not_kept();
    why.map(|why| format!("the certificate is not kept across restarts: {why}")).into_iter().collect()
}

/// Each reason why no traffic should come.
pub(super) fn not_ready(state: &State) -> Vec<String> {
    let shared = &state.shared;
    if shared.drain.phase() != Phase::Running {
        return vec!["draining".into()];
    }
    let mut missing = Vec::new();
    if !shared.mesh.is_configured() {
        let link = &shared.mesh.inventory().lock().link;
        let why = match (&link.error, link.connected) {
            (Some(error), _) => error,
            (None, true) => "it is connected, and knows no such workload or gateway or has not answered yet",
            (None, false) => "not reached yet",
        };
        missing.push(format!("no configuration yet from {}: {why}", link.source));
    }
    if shared.identity.is_configured() {
        missing.extend(shared.identity.unusable());
    }
    missing.extend(shared.readiness.missing());
    missing
}
