//! The control plane of the mesh: a child like the others, and what `up` asks it.
//!
//! Nothing that runs depends on its being there. It only makes sure that callers have heard of a change before the next step.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use super::children::Children;
use super::kept::Kept;
use super::network::Network;
use super::output::Log;
use super::plan::{Probe, ReadinessSpec};
use super::readiness::{Check, Standing};

/// Discovery for those who prove who they are, and their certificates.
pub const SECURE_PORT: u16 = 15012;
pub const METRICS_PORT: u16 = 15014;
pub const API_PORT: u16 = 15080;
/// All it listens on, at `.0.1` of the network.
pub const PORTS: [u16; 3] = [SECURE_PORT, METRICS_PORT, API_PORT];

/// Longest time a change waits to be heard of: a slow proxy or an absent control plane holds nothing up.
const HEARD: Duration = Duration::from_secs(1);
/// Between two tries while nobody listens.
const AGAIN: Duration = Duration::from_millis(50);
/// What it gets to end.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Control {
    address: Ipv4Addr,
    ca_dir: PathBuf,
    kept: Kept,
}

/// What `outrigger status` shows of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControlReport {
    pub state: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    pub pid: Option<i32>,
    pub restarts: u32,
    /// `HOST:PORT` that proxies ask, over TLS.
    pub discovery: String,
    pub api: String,
    pub metrics: String,
    /// As `outrigger ca --ca-dir` takes it.
    pub ca_dir: PathBuf,
}

impl Control {
    pub fn start(network: &Network, children: &Children, log: Log) -> Self {
        let address = network.control();
        let settings = ReadinessSpec {
            probe: Probe::Http { path: "/healthz/ready".into(), headers: Vec::new(), port: API_PORT },
            period: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            failure_threshold: 3,
            success_threshold: 1,
        };
        let standing = Standing::new(Check::of(address, settings));
        Self { address, ca_dir: network.ca_dir(), kept: Kept::start(children.control(), standing, log) }
    }

    pub fn is_ready(&self) -> bool {
        self.kept.condition().ready
    }

    pub fn report(&self) -> ControlReport {
        let (condition, address) = (self.kept.condition(), self.address);
        ControlReport {
            state: condition.word().into(),
            reason: condition.why.map(|why| why.to_string()),
            pid: condition.pid,
            restarts: condition.restarts,
            discovery: format!("{address}:{SECURE_PORT}"),
            api: format!("http://{address}:{API_PORT}"),
            metrics: format!("http://{address}:{METRICS_PORT}/metrics"),
            ca_dir: self.ca_dir.clone(),
        }
    }

    pub async fn stop(self) {
        self.kept.stop(GRACE).await;
    }
}

/// Who is asked whether callers have heard.
#[derive(Clone, Copy, Debug)]
pub struct Ear(SocketAddr);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Synced {
    #[serde(default)]
    waiting_for: Vec<String>,
    #[serde(default)]
    reason: String,
}

impl Ear {
    pub fn of(control: Ipv4Addr) -> Self {
        Self((control, API_PORT).into())
    }

    /// Whether anybody is there to hear, and to tell.
    pub async fn is_there(&self) -> bool {
        crate::http::get(self.0, "/healthz/ready", &[], HEARD)
            .await
            .is_ok_and(|(status, _)| status.is_success())
    }

    /// Waits until every connected proxy that the object concerns has acknowledged this generation of it; for at most a second, and
    /// whether or not the control plane is there. The error says who has not heard, which ends nothing.
    pub async fn heard(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        generation: u64,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + HEARD;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let path = format!(
                "/v1/synced?object={kind}/{namespace}/{name}&generation={generation}&timeout={}ms",
                left.as_millis()
            );
            match timeout_at(deadline, crate::http::get(self.0, &path, &[], HEARD)).await {
                Ok(Ok((StatusCode::OK, _))) => return Ok(()),
                Ok(Ok((_, body))) => {
                    let Synced { waiting_for, reason } =
                        serde_json::from_slice(&body).context("reading the control plane's answer")?;
                    bail!("{reason}: {}", waiting_for.join(", "));
                }
                Ok(Err(error)) if deadline.saturating_duration_since(Instant::now()) < AGAIN => {
                    return Err(error.context("the control plane is away"));
                }
                // It may be on its way back.
                Ok(Err(_)) => sleep(AGAIN).await,
                Err(_) => bail!("the control plane did not answer within {HEARD:?}"),
            }
        }
    }
}
