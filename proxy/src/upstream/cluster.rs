//! A cluster, live: its settings, its endpoints, and who waits for one.
//!
//! Owns both as snapshots that are replaced, never changed; shared by all workers. Never opens a connection (`pool`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_config::model::{self, Discovery};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::balance::{Asked, EndpointSet, NoEndpoint, Turn};
use super::circuit::Circuit;
use super::endpoint::{Address, Checks, Usable};
use super::picked::Picked;
use super::{Endpoint, Latencies, Sent};

#[derive(Debug)]
pub struct Cluster {
    settings: ArcSwap<model::Cluster>,
    endpoints: ArcSwap<EndpointSet>,
    /// Whether an endpoints resource was received, maybe an empty one.
    known: AtomicBool,
    /// Told of every new set of endpoints.
    changed: Notify,
    /// Held by whoever replaces the endpoints. Never taken by a request.
    writing: Mutex<()>,
    /// For balancing in rounds.
    turn: Turn,
    /// Requests and repetitions of late, for retry budgets.
    pub sent: Sent,
    /// Made when a policy asks for a percentile.
    latencies: OnceLock<Box<Latencies>>,
    circuit: Arc<Circuit>,
}

impl Cluster {
    /// How long a request waits for a usable endpoint (design.md section 5).
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(3);

    pub fn new(settings: model::Cluster) -> Arc<Self> {
        let cluster = Arc::new_cyclic(|me| Self {
            circuit: Circuit::new(Arc::clone(&settings.circuit_breaker), me.clone()),
            settings: ArcSwap::from_pointee(settings),
            endpoints: ArcSwap::default(),
            known: AtomicBool::new(false),
            changed: Notify::new(),
            writing: Mutex::new(()),
            turn: Turn::default(),
            sent: Sent::default(),
            latencies: OnceLock::new(),
        });
        cluster.follow_name();
        cluster
    }

    /// New settings hold from the next request and the next connection.
    pub fn update(&self, settings: model::Cluster) {
        let rules = Arc::clone(&settings.circuit_breaker);
        let rebalanced = self.settings.load().balance != settings.balance;
        self.settings.store(Arc::new(settings));
        self.follow_name();
        if self.circuit.update(rules) {
            self.keep_within(&self.endpoints.load());
            self.regroup();
        }
        if rebalanced && self.has_endpoints() {
            let _writing = self.writing.lock();
            self.publish(self.endpoints.load().iter().cloned().collect());
        }
    }

    pub fn circuit(&self) -> &Arc<Circuit> {
        &self.circuit
    }

    /// How long first attempts took to be answered, as those count them who need it.
    pub fn latencies(&self) -> &Latencies {
        self.latencies.get_or_init(|| Box::new(Latencies::new(Instant::now())))
    }

    /// The same, if anybody needed it yet.
    pub fn known_latencies(&self) -> Option<&Latencies> {
        self.latencies.get().map(|latencies| &**latencies)
    }

    pub fn settings(&self) -> Arc<model::Cluster> {
        self.settings.load_full()
    }

    /// Replaces the endpoints. One that stays the same instance keeps its statistics and connections; a new one
    /// is taken to be as fast as the median of the others, so that it is neither flooded nor starved.
    pub fn set_endpoints(&self, model: model::Endpoints) {
        let _writing = self.writing.lock();
        let now = Instant::now();
        // Of the first ones nobody knows how new they are.
        let others = self.has_endpoints();
        let old = self.endpoints.load_full();
        let mut known: std::collections::HashMap<_, _> =
            old.iter().map(|endpoint| (&endpoint.address, endpoint)).collect();
        let estimate = median_estimate(old.iter()).unwrap_or(FIRST_ESTIMATE);
        let endpoints =
            model.endpoints.into_iter().map(|model| match known.remove(&Address::Socket(model.address)) {
                Some(endpoint) if endpoint.is(&model) => {
                    let before = endpoint.usable();
                    endpoint.update(&model);
                    if before != Usable::Yes && endpoint.usable() == Usable::Yes {
                        endpoint.rise(now);
                    }
                    Arc::clone(endpoint)
                }
                _ => {
                    let endpoint = Endpoint::new(model, estimate, &self.circuit);
                    if others {
                        endpoint.rise(now);
                    }
                    Arc::new(endpoint)
                }
            });
        self.publish(endpoints.collect());
    }

    /// What a check of the proxy's own found out about an endpoint; `failure` for people.
    pub fn checked(&self, endpoint: &Endpoint, checks: Checks, failure: Option<String>) {
        let _writing = self.writing.lock();
        let before = endpoint.usable();
        endpoint.checked(checks, failure);
        if before != endpoint.usable() {
            if endpoint.usable() == Usable::Yes {
                endpoint.rise(Instant::now());
            }
            self.publish(self.endpoints.load().iter().cloned().collect());
        }
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

    /// Chooses an endpoint, by preference one that fits what is asked. Never waits.
    pub fn pick<'a>(
        &self,
        now: Instant,
        rng: &mut SmallRng,
        asked: impl Into<Asked<'a>>,
    ) -> Result<Picked, NoEndpoint> {
        let (set, asked) = (self.endpoints.load(), asked.into());
        if asked.avoid.is_empty() && self.circuit.ejects() {
            let mut probes = set.out().filter_map(|endpoint| Some((endpoint, endpoint.probe(now)?)));
            if let Some((endpoint, probe)) = probes.next() {
                return Ok(Picked::new(Arc::clone(endpoint), Some(probe), now));
            }
        }
        let Some(endpoint) = set.pick(&asked, &self.turn, now, rng) else { return Err(self.no_endpoint()) };
        // Where nobody is ejected in earnest, whoever gets a request anyway is as good as probed.
        let probe = if set.has_out() { endpoint.probe(now) } else { None };
        Ok(Picked::new(Arc::clone(endpoint), probe, now))
    }

    /// Who may get a request is decided anew, after an endpoint was ejected or came back.
    pub(super) fn regroup(&self) {
        let enforced = self.circuit.ejects();
        self.endpoints.rcu(|set| set.regrouped(enforced));
        self.changed.notify_waiters();
    }

    /// What it was like before it was ejected would keep an endpoint from getting anything for a minute: it is taken to be as the others are.
    pub(super) fn forget(&self, endpoint: &Endpoint) {
        let set = self.endpoints.load();
        let others = set.iter().filter(|other| other.id != endpoint.id);
        endpoint.restart(median_estimate(others).unwrap_or(FIRST_ESTIMATE));
    }

    /// Takes back in those that would come back first, while more are out than the rules allow.
    fn keep_within(&self, set: &EndpointSet) {
        let now = self.circuit.millis(Instant::now());
        let rules = self.circuit.rules();
        let places = &self.circuit.places;
        let mut out: Vec<_> = set.iter().filter(|endpoint| endpoint.breaker.is_out()).collect();
        out.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.breaker.next_probe()));
        while let Some(endpoint) = out.pop() {
            if rules.ejection.as_ref().is_some_and(|rules| !places.are_too_many(rules.max_ejected)) {
                return;
            }
            endpoint.breaker.pardon(now, places);
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
        let _writing = self.writing.lock();
        self.publish(vec![Arc::new(Endpoint::at(address, FIRST_ESTIMATE, &self.circuit))]);
    }

    fn publish(&self, endpoints: Vec<Arc<Endpoint>>) {
        let places = &self.circuit.places;
        let (ready, other): (Vec<_>, Vec<_>) =
            endpoints.iter().partition(|endpoint| endpoint.usable() == Usable::Yes);
        other.iter().for_each(|endpoint| endpoint.breaker.leave(places));
        ready.iter().for_each(|endpoint| endpoint.breaker.join());
        places.set_ready(ready.len());
        let set = EndpointSet::new(endpoints, &self.settings.load().balance, self.circuit.ejects());
        let old = self.endpoints.swap(Arc::new(set));
        let new = self.endpoints.load();
        let left = old.iter().filter(|old| !new.iter().any(|new| new.id == old.id));
        left.for_each(|endpoint| endpoint.breaker.leave(places));
        self.keep_within(&new);
        self.known.store(true, Ordering::Release);
        // Also whoever was ejected between the look at it and the swap.
        self.regroup();
    }
}

/// What an endpoint is taken to need where nothing is known to compare it with (design.md section 5).
const FIRST_ESTIMATE: Duration = Duration::from_millis(30);

fn median_estimate<'a>(of: impl Iterator<Item = &'a Arc<Endpoint>>) -> Option<Duration> {
    let mut estimates: Vec<_> = of.map(|endpoint| endpoint.raw_estimate()).collect();
    estimates.sort_unstable();
    estimates.get(estimates.len() / 2).copied()
}
