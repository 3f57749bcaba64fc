//! What the control plane's `/v1/status` says, as far as a listing needs it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use outrigger_config::diagnostic::Severity;
use serde::Deserialize;

/// The control plane answers from memory: one that needs longer is as good as away.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plane {
    /// Unix seconds.
    pub started: f64,
    pub diagnostics: Vec<Finding>,
    pub objects: Vec<Object>,
    pub proxies: Vec<Proxy>,
    pub gone: Vec<Gone>,
}

#[derive(Debug, Deserialize)]
pub struct Finding {
    pub severity: Level,
    pub file: String,
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub object: Option<String>,
    #[serde(default)]
    pub field: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warning,
    Note,
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warning => Self::Warning,
            Level::Note => Self::Note,
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct Object {
    pub kind: String,
    #[serde(default)]
    pub namespace: String,
    pub name: String,
    pub file: String,
    pub line: Option<u32>,
    pub accepted: Condition,
    #[serde(default)]
    pub lost: Vec<Lost>,
}

/// What clients that are not our proxy are told nothing of.
#[derive(Debug, Deserialize)]
pub struct Lost {
    pub client: String,
    pub fields: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Condition {
    pub status: String,
    pub reason: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    pub id: String,
    pub role: String,
    pub namespace: String,
    pub name: String,
    /// Responses it has yet to answer.
    pub unanswered: usize,
    pub resources: BTreeMap<String, BTreeMap<String, Resource>>,
}

#[derive(Debug, Deserialize)]
pub struct Resource {
    pub refused: Option<Blame>,
}

/// A refused resource, and the object it was made of.
#[derive(Debug, Deserialize)]
pub struct Blame {
    pub object: Option<String>,
    #[serde(default)]
    pub field: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub reason: String,
}

#[derive(Debug, Deserialize)]
pub struct Gone {
    pub id: String,
    /// Unix seconds.
    pub disconnected: f64,
    pub reason: String,
}

/// Asks the control plane whose API is at `api` (`http://IP:PORT`); also returns its answer as it was.
pub async fn ask(api: &str) -> anyhow::Result<(Plane, serde_json::Value)> {
    let address: SocketAddr =
        api.trim_start_matches("http://").parse().with_context(|| format!("{api} is not http://IP:PORT"))?;
    let (status, body) = crate::http::get(address, "/v1/status", &[], PATIENCE).await?;
    ensure!(status.is_success(), "it answers {status}");
    Ok((serde_json::from_slice(&body)?, serde_json::from_slice(&body)?))
}
