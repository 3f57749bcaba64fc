//! `/v1/synced?object=KIND/NAMESPACE/NAME&generation=N&timeout=1s`: waits until what was written has arrived.
//!
//! That is: an object of that key with at least that `metadata.generation` was read, and every connected proxy that this
//! concerns has answered all it made of it. 200 with how many did; 504 with who did not, after the timeout.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use outrigger_config::manifest::{Kind, ObjectKey};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Api;

const LONGEST: Duration = Duration::from_secs(60);
/// Answers of several proxies within this time are looked at together.
const LOOK: Duration = Duration::from_millis(2);
/// Names of proxies in an answer.
const NAMED: usize = 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// `Workload/default/reviews-v1`; `Mesh/default`
    object: String,
    /// Default: whatever is there.
    generation: Option<i64>,
    /// `1s`, `250ms`; default 1 s, at most 60 s.
    timeout: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// Proxies that were told something of the change, and answered.
    acked: usize,
    /// Proxies that have yet to.
    pending: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting_for: Vec<String>,
    /// Of the object, as it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Answer {
    fn because(reason: String) -> Json<Self> {
        Json(Self { reason: Some(reason), ..Self::default() })
    }
}

pub(super) async fn synced(State(api): State<Api>, Query(asked): Query<Asked>) -> Response {
    let Some(key) = object_key(&asked.object) else {
        let reason = format!("object={:?} is not KIND/NAMESPACE/NAME of a kind that is read", asked.object);
        return (StatusCode::BAD_REQUEST, Answer::because(reason)).into_response();
    };
    let timeout = asked.timeout.as_deref().unwrap_or("1s");
    let Some(timeout) = duration(timeout) else {
        let reason = format!("timeout={timeout:?} is not like 1s or 250ms");
        return (StatusCode::BAD_REQUEST, Answer::because(reason)).into_response();
    };
    let deadline = Instant::now() + timeout.min(LONGEST);
    let Ok(read) = tokio::time::timeout_at(deadline, read(&api, &key, asked.generation)).await else {
        let reason = match api.views.borrow().registry().object(&key) {
            None => format!("{key} is not there"),
            Some(object) => match object.metadata().generation {
                None => format!("{key} has no generation"),
                Some(found) => format!("{key} is at generation {found}"),
            },
        };
        return (StatusCode::GATEWAY_TIMEOUT, Answer::because(reason)).into_response();
    };
    let mut progress = api.proxies.progress();
    loop {
        progress.borrow_and_update();
        let mut answer = look(&api, read.view);
        answer.generation = read.object;
        if answer.pending == 0 {
            return Json(answer).into_response();
        }
        let more = async {
            // Its sender lives in `api.proxies`.
            let _ = progress.changed().await;
            tokio::time::sleep(LOOK).await;
        };
        if tokio::time::timeout_at(deadline, more).await.is_err() {
            answer.reason = Some("proxies have not answered".into());
            return (StatusCode::GATEWAY_TIMEOUT, Json(answer)).into_response();
        }
    }
}

struct Read {
    /// Generation of the view that has it.
    view: u64,
    /// Of the object.
    object: Option<i64>,
}

async fn read(api: &Api, key: &ObjectKey, want: Option<i64>) -> Read {
    let mut views = api.views.clone();
    loop {
        let view = views.borrow_and_update().clone();
        if let Some(object) = view.registry().object(key) {
            let generation = object.metadata().generation;
            if want.is_none_or(|want| generation.is_some_and(|generation| generation >= want)) {
                return Read { view: view.generation(), object: generation };
            }
        }
        if views.changed().await.is_err() {
            // The source is gone with the server; the deadline ends the wait.
            std::future::pending::<()>().await;
        }
    }
}

fn look(api: &Api, view: u64) -> Answer {
    let mut answer = Answer::default();
    for proxy in api.proxies.connected() {
        let session = proxy.session();
        if session.settled() < view {
            answer.pending += 1;
            if answer.waiting_for.len() < NAMED {
                answer.waiting_for.push(proxy.node().id());
            }
        } else if session.spoken() >= view {
            answer.acked += 1;
        }
    }
    answer
}

fn object_key(text: &str) -> Option<ObjectKey> {
    let (kind, rest) = text.split_once('/')?;
    let kind = Kind::from_name(kind)?;
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    (kind.is_namespaced() != namespace.is_empty() && !name.is_empty())
        .then(|| ObjectKey::new(kind, namespace, name))
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_strictly() {
        for (text, want) in [
            ("Workload/default/a", Some("Workload default/a")),
            ("Mesh/default", Some("Mesh default")),
            ("Workload/a", None),
            ("Mesh/default/a", None),
            ("Pod/default/a", None),
            ("Workload/default/", None),
        ] {
            assert_eq!(object_key(text).map(|key| key.to_string()).as_deref(), want, "{text}");
        }
        for (text, want) in
            [("1s", Some(1_000)), ("250ms", Some(250)), ("1", None), ("s", None), ("1h", None)]
        {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        }
    }
}
