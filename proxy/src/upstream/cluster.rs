//! A cluster, live: its settings, its endpoints, and who waits for one.
//!
//! Owns both as snapshots that are replaced, never changed; shared by all workers. Never opens a connection (`pool`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_config::model::{self, Discovery};
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::balance::{Algorithm, EndpointSet, NoEndpoint, Picked};
use super::endpoint::Address;
use super::{Endpoint, EndpointId, Sent};

#[derive(Debug)]
pub struct Cluster {
    settings: ArcSwap<model::Cluster>,
    endpoints: ArcSwap<EndpointSet>,
    /// Whether an endpoints resource was received, maybe an empty one.
    known: AtomicBool,
    /// Told of every new set of endpoints.
    changed: Notify,
    /// Requests and repetitions of late, for retry budgets.
    pub sent: Sent,
    /// Zero of the endpoints' clocks.
    born: Instant,
}

impl Cluster {
    /// How long a request waits for a usable endpoint (design.md section 5).
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(3);

    pub fn new(settings: model::Cluster) -> Arc<Self> {
        let cluster = Self {
            settings: ArcSwap::from_pointee(settings),
            endpoints: ArcSwap::default(),
            known: AtomicBool::new(false),
            changed: Notify::new(),
            sent: Sent::default(),
            born: Instant::now(),
        };
        cluster.follow_name();
        Arc::new(cluster)
    }

    /// New settings hold from the next request and the next connection.
    pub fn update(&self, settings: model::Cluster) {
        self.settings.store(Arc::new(settings));
        self.follow_name();
    }

    pub fn settings(&self) -> Arc<model::Cluster> {
        self.settings.load_full()
    }

    /// Replaces the endpoints. One that stays the same instance keeps its statistics and connections; a new one
    /// is taken to be as fast as the median of the others, so that it is neither flooded nor starved.
    ///
    /// One writer at a time: whoever applies configuration.
    pub fn set_endpoints(&self, model: model::Endpoints) {
        let old = self.endpoints.load_full();
        let mut known: std::collections::HashMap<_, _> =
            old.iter().map(|endpoint| (&endpoint.address, endpoint)).collect();
        let estimate = median_estimate(&old).unwrap_or(FIRST_ESTIMATE);
        let endpoints =
            model.endpoints.into_iter().map(|model| match known.remove(&Address::Socket(model.address)) {
                Some(endpoint) if endpoint.is(&model) => {
                    endpoint.update(&model);
                    Arc::clone(endpoint)
                }
                _ => Arc::new(Endpoint::new(model, estimate, self.born)),
            });
        self.publish(EndpointSet::new(endpoints.collect()));
    }

    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.load_full()
    }

    /// Whether its endpoints were received, even if there are none.
    pub fn has_endpoints(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Waits until an endpoint is usable, and returns the moment one is.
    pub async fn ready(&self, deadline: Instant) -> Result<(), NoEndpoint> {
        loop {
            // Registered before looking, so that a change in between is not missed.
            let changed = self.changed.notified();
            if self.endpoints.load().is_usable() {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return if self.endpoints.load().is_usable() { Ok(()) } else { Err(self.no_endpoint()) };
            }
        }
    }

    /// Chooses an endpoint, by preference none of `avoid` (where earlier attempts failed). Never waits.
    pub fn pick(&self, now: Instant, rng: &mut SmallRng, avoid: &[EndpointId]) -> Result<Picked, NoEndpoint> {
        match self.endpoints.load().pick(Algorithm::PowerOfTwoChoices, now, rng, avoid) {
            Some(endpoint) => Ok(Picked::new(Arc::clone(endpoint))),
            None => Err(self.no_endpoint()),
        }
    }

    fn no_endpoint(&self) -> NoEndpoint {
        NoEndpoint::of(&self.endpoints.load(), self.has_endpoints())
    }

    /// A name outside the mesh is one endpoint; its addresses are looked up when a connection is opened.
    fn follow_name(&self) {
        let settings = self.settings.load();
        let Discovery::Dns { host, port } = &settings.discovery else { return };
        let address = Address::Name { host: Arc::clone(host), port: *port };
        if self.endpoints.load().iter().any(|endpoint| endpoint.address == address) {
            return;
        }
        self.publish(EndpointSet::new(vec![Arc::new(Endpoint::at(address, FIRST_ESTIMATE, self.born))]));
    }

    fn publish(&self, set: EndpointSet) {
        self.endpoints.store(Arc::new(set));
        self.known.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }
}

/// What an endpoint is taken to need where nothing is known to compare it with (design.md section 5).
const FIRST_ESTIMATE: Duration = Duration::from_millis(30);

fn median_estimate(set: &EndpointSet) -> Option<Duration> {
    let mut estimates: Vec<_> = set.iter().map(|endpoint| endpoint.raw_estimate()).collect();
    estimates.sort_unstable();
    estimates.get(estimates.len() / 2).copied()
}
