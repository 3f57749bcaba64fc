//! What the sources say becomes the live mesh: the only writer of [`Mesh`].
//!
//! Owns the order in which things take effect. Endpoints and clusters do at once, in their handles. A route table, and a listener that
//! names clusters directly, waits until each of those clusters has endpoints, or 5 s (`publish`); until then what was before stays in
//! force, with everything it needs still subscribed. Nothing is ever taken away because a source is not there.

mod own;
mod publish;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::model::{
    Cluster as Settings, ClusterName, DestinationName, Discovery, Endpoints, Listener, Multiplex, Resource,
    ResourceKind, RouteTableName, ServiceRef, UpstreamHttp, Version,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::names::{Full, Names};
use super::{Around, Change, Event, Key, Own, needs, shelf};
use crate::identity::{Bundle, Identity};
use crate::mesh::{Ask, Content, Known, Link, Mesh, Shelved};
use crate::policy::rate_limit::Servers;
use crate::telemetry::{Direction, ServiceMetrics, Telemetry};
use crate::upstream::Cluster;
use publish::{LiveDestination, LiveTable};

#[derive(Debug)]
pub struct Apply {
    own: Key,
    mesh: Arc<Mesh>,
    telemetry: Arc<Telemetry>,
    /// Is told the trust bundle.
    identity: Arc<Identity>,
    /// Count shared limits.
    servers: Servers,
    names: Names,
    /// Every name subscribed to: what is in force, what is to come, and what both refer to.
    wanted: Arc<BTreeSet<Key>>,
    /// Names whose place does not say yet what was said of them, or of which nothing was said.
    unsettled: BTreeSet<DestinationName>,
    live: HashMap<DestinationName, LiveDestination>,
    tables: HashMap<RouteTableName, LiveTable>,
    inbound: Option<own::LiveInbound>,
    gateway: Option<own::LiveGateway>,
    /// Listeners and tables that are not warm, and since when.
    waiting: HashMap<Key, Instant>,
    /// Clusters the source says are gone, and when it said so.
    fading: BTreeMap<ClusterName, Instant>,
    services: HashMap<(Direction, Option<ServiceRef>), Arc<ServiceMetrics>>,
    /// `None` while the source is there.
    down_since: Option<Instant>,
    /// Something may not be needed any more.
    restructured: bool,
    /// Something may have to be published.
    dirty: bool,
    /// When something may have to be published although nothing happened.
    deadline: Option<Instant>,
    /// Updates whose source waits until they are settled.
    applied: Vec<oneshot::Sender<()>>,
}

/// Everything known at one time, as it is put on disk and taken from there.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    pub written: Option<SystemTime>,
    pub resources: Vec<Arc<Resource>>,
    pub shelf: Vec<(DestinationName, Shelved)>,
}

impl Apply {
    pub fn new(own: &Own, mesh: Arc<Mesh>, around: Around, servers: Servers, source: Arc<str>) -> Self {
        let Around { telemetry, identity, .. } = around;
        mesh.inventory().lock().link.source = source;
        Self {
            own: own.key(),
            mesh,
            telemetry,
            identity,
            servers,
            names: Names::default(),
            wanted: Arc::default(),
            unsettled: BTreeSet::new(),
            live: HashMap::new(),
            tables: HashMap::new(),
            inbound: None,
            gateway: None,
            waiting: HashMap::new(),
            fading: BTreeMap::new(),
            services: HashMap::new(),
            down_since: Some(Instant::now()),
            restructured: true,
            dirty: true,
            deadline: None,
            applied: Vec::new(),
        }
    }

    /// Begins with what an earlier process knew. What the source says later replaces it piece by piece.
    pub fn restore(&mut self, remembered: Remembered) {
        let mesh = self.mesh.clone();
        let mut content = mesh.inventory().lock();
        content.link.copy_written = remembered.written;
        content.shelf.extend(remembered.shelf);
        let now = mesh.seconds();
        for resource in remembered.resources {
            if let Resource::Listener(Listener::Destination(destination)) = &*resource
                && self.names.get(&destination.name).is_none()
                && self.names.add(destination.name.clone(), now).is_err()
            {
                continue;
            }
            let version = resource.version();
            self.believe(&resource);
            insert(&mut content, resource, version, false);
        }
        mesh.set_destinations(self.names.published());
        self.unsettled.extend(self.names.iter().map(|(name, _)| name.clone()));
        self.restructured = true;
    }

    /// Takes up what workers ask for. The slots are published before anyone is answered, so that whoever asks next finds them.
    pub(crate) fn asked(&mut self, asks: impl IntoIterator<Item = Ask>) {
        let now = self.mesh.seconds();
        let mut replies = Vec::new();
        let mesh = self.mesh.clone();
        let mut content = mesh.inventory().lock();
        for Ask { name, reply } in asks {
            if self.names.get(&name).is_none() {
                match self.names.add(name.clone(), now) {
                    Ok(left) => {
                        left.iter().for_each(|left| self.shelve(&mut content, left));
                        self.need(&content, shelf::listener(&name));
                        self.unsettled.insert(name.clone());
                        self.dirty = true;
                    }
                    Err(Full) => {
                        tracing::warn!(%name, "not looked up: connections hold as many destinations as there may be");
                    }
                }
            }
            replies.push((self.names.get(&name).map(|name| name.slot.clone()), reply));
        }
        self.mesh.set_destinations(self.names.published());
        for (slot, reply) in replies {
            // Whoever did not wait for the answer has dropped the other end.
            let _ = reply.send(slot);
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Connected => {
                self.down_since = None;
                self.link(|link| {
                    link.connected = true;
                    link.error = None;
                });
                // Whoever asks from now on may get an answer.
                self.names.iter().for_each(|(_, name)| name.slot.retry());
            }
            Event::Disconnected { error } => {
                self.down_since.get_or_insert(now);
                self.link(|link| {
                    // Up to now it was there.
                    if std::mem::take(&mut link.connected) {
                        link.confirmed = Some(now);
                    }
                    link.error = Some(error.into());
                });
                self.dirty = true;
                return;
            }
            Event::Update { changes, applied } => {
                changes.into_iter().for_each(|change| self.change(change, now));
                self.applied.push(applied);
            }
        }
        self.link(|link| link.confirmed = Some(now));
    }

    fn link(&self, change: impl FnOnce(&mut Link)) {
        change(&mut self.mesh.inventory().lock().link);
    }

    fn change(&mut self, change: Change, now: Instant) {
        let key = match &change {
            Change::There(resource) => (resource.kind(), Arc::from(resource.name())),
            Change::Absent(key) => key.clone(),
        };
        // The answer to a question that was taken back meanwhile.
        if !self.wanted.contains(&key) {
            return;
        }
        match change {
            Change::There(resource) => self.there(&key, resource),
            Change::Absent(_) => self.absent(&key, now),
        }
    }

    fn there(&mut self, key: &Key, resource: Resource) {
        let version = resource.version();
        let mesh = self.mesh.clone();
        let mut content = mesh.inventory().lock();
        if matches!(key.0, ResourceKind::Cluster | ResourceKind::Endpoints) {
            self.fading.remove(&ClusterName::new(key.1.clone()));
        }
        if let Some(Known::There { version: known, stale, .. }) = content.resources.get_mut(key)
            && *known == version
        {
            if std::mem::take(stale) {
                self.touch(key);
            }
            return;
        }
        self.believe(&resource);
        let (before, after) = (content.resources.get(key).map(needs_of), needs_in(&resource));
        insert(&mut content, Arc::new(resource), version, false);
        content.changed();
        match before.filter(|before| !before.is_empty()) {
            Some(before) => self.restructured |= before != after,
            None => after.into_iter().for_each(|needed| self.need(&content, needed)),
        }
        self.touch(key);
    }

    /// A trust bundle takes effect at once. That one is gone is no reason to believe nobody: the last one stays.
    fn believe(&self, resource: &Resource) {
        if let Resource::TrustBundle(bundle) = resource
            && self.identity.asks_for_bundle()
        {
            let roots = bundle.roots().iter().map(|root| CertificateDer::from(root.der()).into_owned());
            self.identity.set_bundle(Bundle::new(roots.collect()));
        }
    }

    fn absent(&mut self, key: &Key, now: Instant) {
        let mesh = self.mesh.clone();
        let mut content = mesh.inventory().lock();
        match content.resources.insert(key.clone(), Known::Absent) {
            Some(Known::Absent) => return,
            Some(Known::There { .. }) => self.restructured = true,
            None => {}
        }
        content.changed();
        self.touch(key);
        if matches!(key.0, ResourceKind::Cluster | ResourceKind::Endpoints) {
            // Routes may still name it: that they do not may be told a message later.
            self.fading.entry(ClusterName::new(key.1.clone())).or_insert(now);
        } else if *key == self.own {
            tracing::warn!(listener = %key.1, "the source of configuration does not know this proxy");
        }
    }

    /// Something was said of `key`: whatever goes by it is looked at again. What waits for clusters is looked at in any case.
    fn touch(&mut self, key: &Key) {
        match key.0 {
            ResourceKind::Listener => self.unsettled.extend(DestinationName::from_resource_name(&key.1)),
            ResourceKind::RouteTable => {
                let by_it = self.live.iter().filter(|(_, live)| *live.table.as_str() == *key.1);
                self.unsettled.extend(by_it.map(|(name, _)| name.clone()));
            }
            ResourceKind::Cluster | ResourceKind::Endpoints if self.waiting.is_empty() => return,
            ResourceKind::Cluster | ResourceKind::Endpoints | ResourceKind::Secret => {}
        }
        self.dirty = true;
    }

    /// Gives up names nobody uses; not while nobody could give them back.
    pub fn expire(&mut self) {
        shelf::expire(&mut self.mesh.inventory().lock(), SystemTime::now());
        self.services.retain(|_, service| Arc::strong_count(service) > 1);
        if self.down_since.is_some() {
            return;
        }
        let expired = self.names.expire(self.mesh.seconds());
        if !expired.is_empty() {
            let mesh = self.mesh.clone();
            let mut content = mesh.inventory().lock();
            expired.iter().for_each(|name| self.shelve(&mut content, name));
            self.mesh.set_destinations(self.names.published());
            self.restructured = true;
        }
    }

    /// A name left.
    fn shelve(&mut self, content: &mut Content, name: &DestinationName) {
        self.unsettled.remove(name);
        self.live.remove(name);
        shelf::put(content, name, SystemTime::now());
        self.restructured = true;
    }

    /// When [`Self::settle`] has something to do although nothing happened.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Brings the live mesh in step with what is known, and returns the names it needs.
    pub fn settle(&mut self) -> Arc<BTreeSet<Key>> {
        self.bring_in_step();
        self.applied.clear();
        self.wanted.clone()
    }

    fn bring_in_step(&mut self) {
        let now = Instant::now();
        let due = self.deadline.is_some_and(|deadline| deadline <= now);
        if !(self.restructured || self.dirty || due) {
            return;
        }
        let mesh = self.mesh.clone();
        let mut content = mesh.inventory().lock();
        self.dirty = false;
        self.deadline = None;
        self.fade(&content, now);
        loop {
            if std::mem::take(&mut self.restructured) {
                self.restructure(&mut content);
            }
            self.publish(&mut content, now);
            // What replaced something may have let go of what only that needed.
            if !self.restructured {
                return;
            }
        }
    }

    /// Subscribes to a name, and to what is already known to be needed for it.
    fn need(&mut self, content: &Content, key: Key) {
        let mut open = VecDeque::from([key]);
        while let Some(key) = open.pop_front() {
            if !self.wanted.contains(&key) {
                open.extend(content.resources.get(&key).into_iter().flat_map(needs_of));
                Arc::make_mut(&mut self.wanted).insert(key);
            }
        }
    }

    /// Follows the references from the roots to everything that is needed, and forgets the rest.
    fn restructure(&mut self, content: &mut Content) {
        let mut open = VecDeque::from([self.own.clone()]);
        open.extend(self.identity.asks_for_bundle().then(needs::trust_bundle));
        open.extend(self.names.iter().map(|(_, name)| name.key.clone()));
        // What is in force stays subscribed until it is replaced.
        open.extend(self.in_force().map(needs::cluster));
        let mut wanted = BTreeSet::new();
        while let Some(key) = open.pop_front() {
            if !wanted.contains(&key) {
                open.extend(content.resources.get(&key).into_iter().flat_map(needs_of));
                wanted.insert(key);
            }
        }
        content.resources.retain(|key, _| wanted.contains(key));
        content.clusters.retain(|name, _| wanted.contains(&needs::cluster(name)));
        self.fading.retain(|name, _| content.clusters.contains_key(name));
        self.waiting.retain(|key, _| wanted.contains(key));
        if *self.wanted != wanted {
            self.wanted = Arc::new(wanted);
        }
        self.drop_tables();
    }

    /// A cluster that is gone for certain has no endpoints any more.
    fn fade(&mut self, content: &Content, now: Instant) {
        let (gone, fading) = std::mem::take(&mut self.fading)
            .into_iter()
            .partition(|(_, since)| now >= *since + publish::WARMING);
        self.fading = fading;
        for (name, _) in BTreeMap::into_iter(gone) {
            if let Some(cluster) = content.clusters.get(&name) {
                cluster.set_endpoints(Endpoints { cluster: name, endpoints: Vec::new() });
            }
        }
        if let Some(first) = self.fading.values().min() {
            let first = *first + publish::WARMING;
            self.wake_at(first);
        }
    }

    fn wake_at(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }

    fn service(&mut self, direction: Direction, service: Option<&ServiceRef>) -> Arc<ServiceMetrics> {
        let metrics = &self.telemetry.metrics;
        let entry = self.services.entry((direction, service.cloned()));
        entry.or_insert_with(|| metrics.service(direction, service)).clone()
    }
}

/// Whether a resource that is valid in itself can be used by this proxy; why not.
pub(super) fn check(resource: &Resource) -> Result<(), String> {
    match resource {
        Resource::Secret(secret) => own::certified_key(secret).map(|_| ()),
        Resource::TrustBundle(bundle) => own::roots(bundle).map(|_| ()),
        Resource::Listener(_) | Resource::RouteTable(_) | Resource::Cluster(_) | Resource::Endpoints(_) => {
            Ok(())
        }
    }
}

fn needs_of(known: &Known) -> BTreeSet<Key> {
    match known {
        Known::There { resource, .. } => needs_in(resource),
        Known::Absent => BTreeSet::new(),
    }
}

fn needs_in(resource: &Resource) -> BTreeSet<Key> {
    let mut needed = BTreeSet::new();
    needs::each(resource, &mut |key| {
        needed.insert(key);
    });
    needed
}

/// Makes a resource known; clusters and endpoints take effect with that.
fn insert(content: &mut Content, resource: Arc<Resource>, version: Version, stale: bool) {
    match &*resource {
        Resource::Cluster(cluster) => handle(content, &cluster.name).update(cluster.clone()),
        Resource::Endpoints(endpoints) => {
            handle(content, &endpoints.cluster).set_endpoints(endpoints.clone())
        }
        Resource::Listener(_) | Resource::RouteTable(_) | Resource::Secret(_) | Resource::TrustBundle(_) => {}
    }
    let key = (resource.kind(), Arc::from(resource.name()));
    content.resources.insert(key, Known::There { resource, version, stale });
}

/// The live cluster of a name. One whose settings are not known yet gets the defaults until they are.
fn handle(content: &mut Content, name: &ClusterName) -> Arc<Cluster> {
    let new = || {
        Cluster::new(Settings {
            name: name.clone(),
            service: None,
            discovery: Discovery::Endpoints,
            http: UpstreamHttp::AsReceived,
            connect_timeout: Settings::DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: Settings::DEFAULT_IDLE_TIMEOUT,
            multiplex: Multiplex::Never,
            circuit_breaker: Default::default(),
            balance: Default::default(),
            origin: None,
        })
    };
    content.clusters.entry(name.clone()).or_insert_with(new).clone()
}

/// How long a source may be gone before it counts as away: less than a lookup waits, more than a reconnect takes.
const AWAY_AFTER: Duration = Duration::from_millis(500);
