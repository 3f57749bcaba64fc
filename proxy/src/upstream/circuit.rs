//! The circuit breaker of one cluster: the rules, what its caps count, the places among the ejected endpoints, and who is told.
//!
//! Never changes an endpoint's state by itself (`ejection`) and opens or closes no connection (`pool`); it says what follows from a change.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use outrigger_config::model::{BreakerMode, CircuitBreaker, Ejection, Origin};
use tokio::sync::watch;
use tokio::time::Instant;

use super::adaptive::{Adaptive, Admission};
use super::caps::{self, Cap, InUse, Place, Use};
use super::ejection::{Change, Millis, Places, is_enforced};
use super::{Cluster, Endpoint};
use crate::failure::Failure;
use crate::telemetry::CircuitMetrics;

#[derive(Debug)]
pub struct Circuit {
    rules: ArcSwap<CircuitBreaker>,
    /// What of the rules each request asks: a load each, where the rules themselves cost several writes that others wait for.
    most: AtomicU32,
    ejects: AtomicBool,
    adapts: AtomicBool,
    adaptive: ArcSwapOption<Adaptive>,
    pub(super) places: Places,
    pub(super) in_use: InUse,
    /// Told when a connection is wanted that a cap does not allow: workers close one of theirs that carries nothing.
    reclaim: watch::Sender<()>,
    /// Zero of the endpoints' clocks.
    pub(super) born: Instant,
    cluster: Weak<Cluster>,
    metrics: OnceLock<Arc<CircuitMetrics>>,
}

impl Circuit {
    pub(super) fn new(rules: Arc<CircuitBreaker>, cluster: Weak<Cluster>) -> Arc<Self> {
        Arc::new(Self {
            most: AtomicU32::new(most_connections(&rules)),
            ejects: AtomicBool::new(rules.ejection.as_ref().is_some_and(is_enforced)),
            adapts: AtomicBool::new(rules.adaptive.is_some()),
            adaptive: ArcSwapOption::new(adaptive(&rules)),
            rules: ArcSwap::new(rules),
            places: Places::default(),
            in_use: InUse::default(),
            reclaim: watch::Sender::new(()),
            born: Instant::now(),
            cluster,
            metrics: OnceLock::new(),
        })
    }

    /// Returns whether they are other ones than before.
    pub(super) fn update(&self, rules: Arc<CircuitBreaker>) -> bool {
        let before = self.rules.swap(Arc::clone(&rules));
        // What it found out holds while it is asked for the same.
        if before.adaptive != rules.adaptive {
            self.adaptive.store(adaptive(&rules));
            self.adapts.store(rules.adaptive.is_some(), Ordering::Relaxed);
        }
        self.most.store(most_connections(&rules), Ordering::Relaxed);
        self.ejects.store(rules.ejection.as_ref().is_some_and(is_enforced), Ordering::Relaxed);
        let most = self.most_connections();
        self.in_use.exchanges.admit(most);
        self.in_use.sockets.admit(most);
        before != rules
    }

    /// The caps that are set, and what counts towards each.
    pub fn in_use(&self) -> Vec<Use> {
        let adaptive = self.adaptive.load();
        let adaptive = adaptive.iter().map(|adaptive| Use {
            cap: Cap::Adaptive,
            limit: adaptive.cap(),
            now: adaptive.under_way(),
        });
        self.in_use.all(&self.rules().caps).chain(adaptive).collect()
    }

    /// Lets a request in, if as many may be under way by the latencies of late; `None` where no policy asks for that.
    pub fn admit(&self) -> Result<Option<Admission>, Failure> {
        if !self.adapts.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let adaptive = self.adaptive.load();
        let Some(adaptive) = &*adaptive else { return Ok(None) };
        match adaptive.enter() {
            Ok(admission) => Ok(Some(admission)),
            Err(cap) => {
                let rules = adaptive.rules();
                self.overflowed(Cap::Adaptive, rules.mode, cap, rules.origin.as_ref())?;
                Ok(Some(adaptive.force()))
            }
        }
    }

    /// How many connections there may be: more than there can be where no cap holds.
    pub(super) fn most_connections(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// A place for an exchange that has a connection to itself, at once; `None` where nothing is counted. The error is how many there may be.
    pub(super) fn exchange(self: &Arc<Self>) -> Result<Option<Place>, u32> {
        match self.most_connections() {
            u32::MAX => Ok(None),
            most if self.in_use.exchanges.enter(most) => Ok(Some(Place::of_exchange(self))),
            most => Err(most),
        }
    }

    /// The same, for one that had such a place and lost it by no fault of its own.
    pub(super) fn exchange_again(self: &Arc<Self>) -> Option<Place> {
        (self.most_connections() != u32::MAX).then(|| {
            self.in_use.exchanges.force();
            Place::of_exchange(self)
        })
    }

    /// A place for a connection, at once.
    pub(super) fn socket(self: &Arc<Self>) -> Option<Place> {
        let rules = self.rules();
        let sockets = &self.in_use.sockets;
        if let Some(most) = rules.caps.connections
            && !sockets.enter(most)
        {
            // Refused are requests, not connections: these wait.
            self.overflowed(Cap::Connections, rules.caps.mode, most, rules.origin.as_ref()).ok()?;
            sockets.force();
        } else if rules.caps.connections.is_none() {
            sockets.force();
        }
        Some(Place::of_socket(self))
    }

    /// Asks all workers to close what they do not need, as many as are waited for.
    pub(super) fn reclaim(&self) {
        self.reclaim.send_replace(());
    }

    pub(super) fn reclaims(&self) -> watch::Receiver<()> {
        self.reclaim.subscribe()
    }

    /// A cap is reached. The error is what a request is told where the cap is in force.
    #[cold]
    pub(super) fn overflowed(
        &self,
        cap: Cap,
        mode: BreakerMode,
        limit: u32,
        origin: Option<&Origin>,
    ) -> Result<(), Failure> {
        if let Some(metrics) = self.metrics.get() {
            metrics.overflowed(cap, mode);
        }
        if caps::refuses(mode) { Err(caps::refusal(cap, limit, origin)) } else { Ok(()) }
    }

    pub(super) fn rules(&self) -> arc_swap::Guard<Arc<CircuitBreaker>> {
        self.rules.load()
    }

    /// Whether an endpoint that is out gets nothing.
    pub(super) fn ejects(&self) -> bool {
        self.ejects.load(Ordering::Relaxed)
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
        let Some(cluster) = self.cluster.upgrade() else { return };
        match change {
            Change::Ejected(_) => cluster.regroup(),
            Change::Back => {
                cluster.forget(endpoint);
                cluster.regroup();
            }
            Change::Spared(_) | Change::StillOut => {}
        }
    }
}

fn most_connections(rules: &CircuitBreaker) -> u32 {
    let caps = &rules.caps;
    caps.connections.filter(|_| caps::refuses(caps.mode)).unwrap_or(u32::MAX)
}

fn adaptive(rules: &CircuitBreaker) -> Option<Arc<Adaptive>> {
    rules.adaptive.clone().map(|rules| Arc::new(Adaptive::new(rules, Instant::now())))
}
