//! `/v1/faults`: the experiments of the mesh, as far as the control plane knows; and the end of them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outrigger_config::manifest::{Kind, ObjectKey};
use serde::{Deserialize, Serialize};

use super::Api;
use crate::experiments::{now, until};
use crate::view::View;

/// Times are milliseconds since 1970.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Experiment {
    /// `NAMESPACE/NAME`
    policy: String,
    at: &'static str,
    /// `active`, `over` (its activeFor has passed) or `stopped`; proxies may have ended it for themselves (stopIf).
    state: &'static str,
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<u64>,
}

pub(super) fn faults(view: &View) -> Vec<Experiment> {
    let now = now();
    let mut found: Vec<_> = view
        .registry()
        .experiments()
        .filter_map(|faults| {
            let policy = faults.policy();
            let known = view.standing().of(&policy)?;
            let until = until(faults, known);
            let state = match (known.stopped, until) {
                (Some(_), _) => "stopped",
                (None, Some(until)) if until <= now => "over",
                (None, _) => "active",
            };
            let at = faults.at.word();
            Some(Experiment { policy, at, state, since: known.since, until, stopped: known.stopped })
        })
        .collect();
    found.sort_by(|a, b| a.policy.cmp(&b.policy));
    found
}

pub(super) fn by_object(view: &View) -> BTreeMap<ObjectKey, Experiment> {
    let keyed = |experiment: Experiment| {
        let (namespace, name) = experiment.policy.split_once('/')?;
        Some((ObjectKey::new(Kind::TrafficPolicy, namespace, name), experiment))
    };
    faults(view).into_iter().filter_map(keyed).collect()
}

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    /// `NAMESPACE/NAME`; absent: all.
    policy: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stopped {
    /// Those that ran, and do not any more.
    stopped: Vec<String>,
    /// Whether they stay stopped when the control plane is started again.
    kept: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not_kept: Option<String>,
}

/// Ends them for good, as far as what they say goes: changed, or gone and back, they begin anew.
pub(super) async fn stop(State(api): State<Api>, Query(which): Query<Which>, headers: HeaderMap) -> Response {
    // A browser names the page that sends a POST, whichever site it is from; tools do not (Fetch, "Origin header").
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not from a page in a browser\n").into_response();
    }
    if let Some(policy) = &which.policy
        && api.views.borrow().standing().of(policy).is_none()
    {
        return (StatusCode::NOT_FOUND, format!("no TrafficPolicy {policy} has faults\n")).into_response();
    }
    // It may write a file.
    let stopper = api.stopper.clone();
    let stopped = tokio::task::spawn_blocking(move || stopper.stop(which.policy.as_deref())).await;
    match stopped {
        Ok(stopped) => Json(Stopped {
            kept: stopped.kept.is_ok(),
            why_not_kept: stopped.kept.err(),
            stopped: stopped.policies,
        })
        .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
