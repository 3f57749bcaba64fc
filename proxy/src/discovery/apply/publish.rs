//! Route tables and destinations: when what was received takes effect.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::model::{
    self, ClusterName, DestinationName, Discovery, Listener, Resource, RouteTable, RouteTableName,
    TcpForward, Version,
};
use tokio::time::Instant;

use super::super::names::Name;
use super::{AWAY_AFTER, Apply, Key, handle, insert, needs};
use crate::mesh::{Backends, Content, Destination, Known, Slot, Standing, TlsRoute};
use crate::policy::fault::Faults;
use crate::route::{Table, Upstream};
use crate::telemetry::{Direction, Metrics, ServiceMetrics};

/// How long something waits for the endpoints of its clusters while there is something before it to go on with (design.md 2.3).
pub(super) const WARMING: Duration = Duration::from_secs(5);
/// The same where there is nothing before it: a caller waits, for [`crate::mesh::FIRST_ANSWER`] at most, and its request can
/// still wait for endpoints when it is routed.
pub(super) const FIRST_WARMING: Duration = Duration::from_millis(800);

#[derive(Debug)]
pub(super) struct LiveDestination {
    version: Version,
    destination: Arc<Destination>,
    pub table: RouteTableName,
    uses: Vec<ClusterName>,
}

#[derive(Debug)]
pub(super) struct LiveTable {
    /// `None`: the source says there is no such table.
    version: Option<Version>,
    pub table: Arc<Table>,
    uses: Vec<ClusterName>,
}

impl Apply {
    /// Clusters that something published may send to.
    pub(super) fn in_force(&self) -> impl Iterator<Item = &ClusterName> {
        let direct = self.live.values().flat_map(|live| &live.uses);
        let of_gateway = self.gateway.iter().flat_map(|gateway| &gateway.uses);
        let used = self.tables_in_force();
        let routed = self
            .tables
            .iter()
            .filter(move |(name, _)| used.contains(name))
            .flat_map(|(_, table)| &table.uses);
        direct.chain(of_gateway).chain(routed)
    }

    fn tables_in_force(&self) -> BTreeSet<&RouteTableName> {
        let of_gateway = self.gateway.iter().flat_map(|gateway| &gateway.tables);
        self.live.values().map(|live| &live.table).chain(of_gateway).collect()
    }

    pub(super) fn publish(&mut self, content: &mut Content, now: Instant) {
        for name in std::mem::take(&mut self.unsettled) {
            let Some(Name { slot, key }) = self.names.get(&name) else { continue };
            let (slot, key) = (slot.clone(), key.clone());
            if !self.publish_destination(content, &name, &slot, &key, now) {
                self.unsettled.insert(name);
            }
        }
        self.publish_own(content, now);
    }

    /// Tables that nothing leads to any more.
    pub(super) fn drop_tables(&mut self) {
        let used: BTreeSet<_> = self.tables_in_force().into_iter().cloned().collect();
        let wanted = &self.wanted;
        self.tables.retain(|name, _| used.contains(name) || wanted.contains(&needs::table(name)));
    }

    /// Whether the place of `name` now says what was said of it.
    fn publish_destination(
        &mut self,
        content: &mut Content,
        name: &DestinationName,
        slot: &Slot,
        key: &Key,
        now: Instant,
    ) -> bool {
        let (model, version, stale) = match content.resources.get(key) {
            None => {
                self.unanswered(content, name, slot, now);
                return false;
            }
            Some(Known::Absent) => {
                self.restructured |= self.live.remove(name).is_some();
                slot.set(Standing::Unknown);
                return true;
            }
            Some(Known::There { resource, version, stale }) => (resource.clone(), *version, *stale),
        };
        let Resource::Listener(Listener::Destination(model)) = &*model else {
            tracing::warn!(%name, "the listener of this name is not a destination's");
            return true;
        };
        let metrics = self.service(Direction::Outbound, model.service.as_ref());
        let uses: Vec<_> = needs::clusters_of(model).cloned().collect();
        let (replaces, same_version) =
            self.live.get(name).map_or((false, false), |live| (true, live.version == version));
        // Both are looked at before either ends this, so that they wait at the same time.
        let warm = same_version || self.is_warm(content, key, &uses, replaces, now);
        let Some(routes) = self.table(content, &model.routes, &metrics, now).filter(|_| warm) else {
            return false;
        };
        let settled = self.is_current(content, &model.routes);
        let same = |live: &LiveDestination| {
            let live = &live.destination;
            same_version && Arc::ptr_eq(&live.routes, &routes) && live.stale == stale
        };
        if self.live.get(name).is_some_and(same) {
            return settled;
        }
        let destination = Arc::new(Destination {
            service: model.service.clone(),
            protocol: model.protocol,
            routes,
            tls: model.tls.iter().map(|route| self.tls_route(content, route)).collect(),
            tcp: self.backends(content, &model.tcp),
            metrics,
            limits: None,
            origin: model.origin.clone(),
            stale,
        });
        tracing::debug!(%name, %version, stale, "destination in force");
        slot.set(Standing::Known(destination.clone()));
        let table = model.routes.clone();
        self.live.insert(name.clone(), LiveDestination { version, destination, table, uses });
        self.restructured |= replaces;
        settled
    }

    /// Whether the table in force is the one received last.
    fn is_current(&self, content: &Content, name: &RouteTableName) -> bool {
        let received = match content.resources.get(&needs::table(name)) {
            None => return true,
            Some(Known::Absent) => None,
            Some(Known::There { version, .. }) => Some(*version),
        };
        self.tables.get(name).is_some_and(|live| live.version == received)
    }

    /// Nothing was said about `name`. While the source is away, an old answer is better than none.
    fn unanswered(&mut self, content: &mut Content, name: &DestinationName, slot: &Slot, now: Instant) {
        let Some(down_since) = self.down_since.filter(|_| slot.is_pending()) else { return };
        if now < down_since + AWAY_AFTER {
            return self.wake_at(down_since + AWAY_AFTER);
        }
        let Some(shelved) = content.shelf.remove(name) else { return slot.set(Standing::Unavailable) };
        tracing::warn!(%name, "the source of configuration is away; going by what it said before this destination expired");
        for (resource, version) in shelved.resources {
            let key = (resource.kind(), Arc::from(resource.name()));
            if !matches!(content.resources.get(&key), Some(Known::There { .. })) {
                insert(content, resource, version, true);
            }
        }
        content.changed();
        self.restructured = true;
    }

    /// The table in force under a name: the one received last, if it is warm. `None`: there is none yet.
    pub(super) fn table(
        &mut self,
        content: &mut Content,
        name: &RouteTableName,
        metrics: &Arc<ServiceMetrics>,
        now: Instant,
    ) -> Option<Arc<Table>> {
        let key = needs::table(name);
        let live = self.tables.get(name);
        let in_force = live.map(|live| live.table.clone());
        let (version, resource) = match content.resources.get(&key) {
            None => return in_force,
            Some(Known::Absent) => (None, None),
            Some(Known::There { resource, version, .. }) => (Some(*version), Some(resource.clone())),
        };
        if live.is_some_and(|live| live.version == version) {
            return in_force;
        }
        let none = RouteTable { name: name.clone(), hosts: Vec::new() };
        let model = match resource.as_deref() {
            Some(Resource::RouteTable(table)) => table,
            _ => &none,
        };
        let uses: Vec<_> = needs::clusters_in(model).cloned().collect::<BTreeSet<_>>().into_iter().collect();
        if !self.is_warm(content, &key, &uses, in_force.is_some(), now) {
            return in_force;
        }
        let table = Arc::new(self.compile(content, model, metrics));
        self.tables.insert(name.clone(), LiveTable { version, table: table.clone(), uses });
        self.restructured |= in_force.is_some();
        Some(table)
    }

    fn compile(&mut self, content: &mut Content, model: &RouteTable, metrics: &Arc<ServiceMetrics>) -> Table {
        // Nobody asks a gateway for a service: what a route leads to stands for it.
        let mut services = HashMap::new();
        if metrics.direction == Direction::Gateway {
            for route in model.hosts.iter().flat_map(|host| &host.routes) {
                let first = needs::clusters_of_route(route).next();
                let service = first.and_then(|name| handle(content, name).settings().service.clone());
                services.insert(route.origin.clone(), self.service(Direction::Gateway, service.as_ref()));
            }
        }
        let all = self.telemetry.metrics.clone();
        Table::compile(
            model,
            |name| upstream(content, name, &all),
            |route| services.get(&route.origin).unwrap_or(metrics).route(&route.name),
            |route| self.experiments(&route.faults),
        )
    }

    /// Whether each cluster has endpoints, or has had its time to get them.
    pub(super) fn is_warm(
        &mut self,
        content: &Content,
        key: &Key,
        clusters: &[ClusterName],
        replaces: bool,
        now: Instant,
    ) -> bool {
        let cold = clusters.iter().find(|cluster| !is_known(content, cluster));
        let limit = if replaces { WARMING } else { FIRST_WARMING };
        let since = *self.waiting.entry(key.clone()).or_insert(now);
        if let Some(cluster) = cold {
            if now < since + limit {
                self.wake_at(since + limit);
                return false;
            }
            tracing::warn!(resource = %key.1, %cluster, "in force, although nothing is known of the endpoints of a cluster");
        }
        self.waiting.remove(key);
        true
    }
}

/// Whether it was said where the cluster's endpoints are, or that there are none.
fn is_known(content: &Content, cluster: &ClusterName) -> bool {
    match content.resources.get(&needs::cluster(cluster)) {
        None => false,
        Some(Known::Absent) => true,
        Some(Known::There { resource, .. }) => match &**resource {
            Resource::Cluster(model::Cluster { discovery: Discovery::Dns { .. }, .. }) => true,
            _ => content.resources.contains_key(&needs::endpoints(cluster)),
        },
    }
}

/// The live handles of a cluster that something published names.
pub(super) fn upstream(content: &mut Content, name: &ClusterName, metrics: &Arc<Metrics>) -> Upstream {
    let cluster = handle(content, name);
    let service = cluster.settings().service.clone();
    let attempts = metrics.attempts(service.as_ref());
    // Until its settings are known nobody knows whose it is.
    if service.is_some() {
        cluster.circuit().counted_by(|| metrics.circuit(service.as_ref()));
    }
    Upstream { cluster, attempts }
}

impl Apply {
    pub(super) fn backends(&self, content: &mut Content, model: &TcpForward) -> Backends {
        let metrics = &self.telemetry.metrics;
        let weighted = model
            .backends
            .iter()
            .map(|backend| (upstream(content, &backend.cluster, metrics), backend.weight));
        Backends::new(weighted.collect(), model.idle).with_faults(self.experiments(&model.faults))
    }

    pub(super) fn tls_route(&self, content: &mut Content, model: &model::TlsRoute) -> TlsRoute {
        let backends = self.backends(content, &model.forward);
        TlsRoute { sni: model.sni.clone(), backends, origin: model.origin.clone() }
    }

    /// The live handles of these experiments.
    pub(super) fn experiments<'m>(
        &self,
        models: impl IntoIterator<Item = &'m Arc<model::Faults>>,
    ) -> Option<Arc<Faults>> {
        let known = self.mesh.experiments();
        Faults::new(models.into_iter().map(|model| known.of(model, &self.telemetry.metrics)))
    }
}
