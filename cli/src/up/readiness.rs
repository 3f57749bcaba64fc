//! Whether an app is ready: `Workload.readiness`, or its first port accepts.
//!
//! Probes go to the app itself, not through its sidecar.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::plan::{InstanceSpec, Probe, ReadinessSpec};

/// The probe of one started app, with its ports filled in.
#[derive(Clone, Debug)]
pub struct Check {
    target: Option<SocketAddr>,
    settings: ReadinessSpec,
}

impl Check {
    /// `app_ports` in the order of the instance's ports.
    pub fn new(spec: &InstanceSpec, app: Ipv4Addr, app_ports: &[u16]) -> Self {
        let app_port = |port: u16| {
            spec.ports
                .iter()
                .zip(app_ports)
                .find(|(known, _)| known.port == port)
                .map_or(port, |(_, app)| *app)
        };
        let settings = spec.readiness.clone().unwrap_or_else(|| ReadinessSpec {
            probe: Probe::Tcp { port: spec.ports.first().map_or(0, |port| port.port) },
            period: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            failure_threshold: 3,
            success_threshold: 1,
        });
        let target = match &settings.probe {
            // A workload without ports (a worker, a client) has nothing to ask: it is ready while it runs.
            Probe::Tcp { port: 0 } => None,
            Probe::Tcp { port } => Some(SocketAddr::from((app, app_port(*port)))),
            Probe::Http { port, .. } => Some(SocketAddr::from((app, app_port(*port)))),
        };
        Self { target, settings }
    }

    /// A probe of `address` itself: the ports of `settings` are its own.
    pub fn of(address: Ipv4Addr, settings: ReadinessSpec) -> Self {
        let target = match &settings.probe {
            Probe::Tcp { port } | Probe::Http { port, .. } => SocketAddr::from((address, *port)),
        };
        Self { target: Some(target), settings }
    }

    /// What is asked; `None` where there is nothing to ask.
    pub fn target(&self) -> Option<SocketAddr> {
        self.target
    }

    /// An error says what was seen instead.
    pub async fn probe(&self) -> Result<(), String> {
        let Some(address) = self.target else { return Ok(()) };
        let timeout = self.settings.timeout;
        match &self.settings.probe {
            Probe::Tcp { .. } => {
                match tokio::time::timeout(timeout, tokio::net::TcpStream::connect(address)).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(format!("nothing accepts at {address}: {error}")),
                    Err(_) => Err(format!("nothing accepts at {address} within {timeout:?}")),
                }
            }
            Probe::Http { path, headers, .. } => {
                let (status, body) = crate::http::get(address, path, headers, timeout)
                    .await
                    .map_err(|error| format!("GET {address}{path}: {error:#}"))?;
                // 200 to 399 is success, as for the kubelet.
                if (200..400).contains(&status.as_u16()) {
                    return Ok(());
                }
                let line = String::from_utf8_lossy(&body).lines().next().unwrap_or_default().to_owned();
                let line: String = line.chars().take(200).collect();
                Err(format!("GET {address}{path}: {} {line}", status.as_u16()).trim_end().to_owned())
            }
        }
    }
}

/// Whether an app counts as ready, from one probe result to the next.
#[derive(Clone, Debug)]
pub struct Standing {
    check: Check,
    ready: bool,
    /// Results in a row that speak against `ready`.
    against: u32,
}

impl Standing {
    pub fn new(check: Check) -> Self {
        Self { check, ready: false, against: 0 }
    }

    pub fn check(&self) -> Check {
        self.check.clone()
    }

    pub fn ready(&self) -> bool {
        self.ready
    }

    pub fn record(&mut self, success: bool) {
        if success == self.ready {
            self.against = 0;
            return;
        }
        self.against += 1;
        let settings = &self.check.settings;
        let enough = if self.ready { settings.failure_threshold } else { settings.success_threshold };
        if self.against >= enough {
            self.ready = success;
            self.against = 0;
        }
    }

    /// Until the next probe. An app that is starting is asked often, unless it takes too long: the mesh waits for it.
    pub fn pause(&self, overdue: bool) -> Duration {
        if self.ready || overdue {
            self.check.settings.period
        } else {
            self.check.settings.period.min(Duration::from_millis(50))
        }
    }

    pub fn initial_delay(&self) -> Duration {
        self.check.settings.initial_delay
    }
}
