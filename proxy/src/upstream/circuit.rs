//! What the endpoints of one cluster share of its circuit breaker: the rules, the places among those that are out, and who counts.
//!
//! Never changes an endpoint's state by itself (`ejection`); it says what follows from a change.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_config::model::{CircuitBreaker, Ejection};
use tokio::time::Instant;

use super::ejection::{Change, Millis, Places, is_enforced};
use super::{Cluster, Endpoint};
use crate::telemetry::CircuitMetrics;

#[derive(Debug)]
pub struct Circuit {
    rules: ArcSwap<CircuitBreaker>,
    pub(super) places: Places,
    /// Zero of the endpoints' clocks.
    pub(super) born: Instant,
    cluster: Weak<Cluster>,
    metrics: OnceLock<Arc<CircuitMetrics>>,
}

impl Circuit {
    pub(super) fn new(rules: Arc<CircuitBreaker>, cluster: Weak<Cluster>) -> Arc<Self> {
        Arc::new(Self {
            rules: ArcSwap::new(rules),
            places: Places::default(),
            born: Instant::now(),
            cluster,
            metrics: OnceLock::new(),
        })
    }

    /// Returns whether they are other ones than before.
    pub(super) fn update(&self, rules: Arc<CircuitBreaker>) -> bool {
        let before = self.rules.swap(Arc::clone(&rules));
        before != rules
    }

    pub(super) fn rules(&self) -> arc_swap::Guard<Arc<CircuitBreaker>> {
        self.rules.load()
    }

    /// Whether an endpoint that is out gets nothing.
    pub(super) fn ejects(&self) -> bool {
        self.rules().ejection.as_ref().is_some_and(is_enforced)
    }

    pub(super) fn millis(&self, now: Instant) -> Millis {
        now.saturating_duration_since(self.born).as_millis() as Millis
    }

    /// How long until `at`.
    pub(super) fn until(&self, at: Millis, now: Instant) -> Duration {
        Duration::from_millis(at.saturating_sub(self.millis(now)))
    }

    /// By whom it is counted from now on, unless there is somebody already.
    pub fn counted_by(&self, metrics: impl FnOnce() -> Arc<CircuitMetrics>) {
        self.metrics.get_or_init(metrics);
    }

    #[cold]
    pub(super) fn changed(&self, change: Change, endpoint: &Endpoint, rules: &Ejection) {
        let mode = rules.mode.label();
        let address = &endpoint.address;
        match change {
            Change::Ejected(reason) => tracing::warn!(endpoint = %address, %reason, mode, "ejected"),
            Change::Spared(reason) => {
                tracing::debug!(endpoint = %address, %reason, mode, "not ejected: too few would be left");
            }
            Change::StillOut => tracing::info!(endpoint = %address, mode, "its probe failed"),
            Change::Back => tracing::info!(endpoint = %address, mode, "back: its probe succeeded"),
        }
        if let Some(metrics) = self.metrics.get() {
            match change {
                Change::Ejected(reason) => metrics.ejected(reason, mode),
                Change::Spared(reason) => metrics.ejected(reason, "spared"),
                Change::StillOut => metrics.probed(false),
                Change::Back => metrics.probed(true),
            }
        }
        if matches!(change, Change::Ejected(_) | Change::Back)
            && let Some(cluster) = self.cluster.upgrade()
        {
            cluster.regroup();
        }
    }
}
