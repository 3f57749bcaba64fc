//! What may resolve differently in one registry than in an earlier one.
//!
//! Names too much rather than too little: whatever is not named resolves to an equal version for every subscriber. Changes of endpoints alone
//! are kept apart, since they are frequent, urgent and concern few.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::manifest::endpoint_slice::SERVICE_NAME_LABEL;
use crate::manifest::{EndpointSlice, Manifest, Object, ObjectKey};
use crate::model::{ClusterName, DestinationName, Gateway, Listener, ResourceKind, ServiceRef};
use crate::resolve::Subscriber;

use super::{
    Id, ParentTarget, PolicyTarget, Registry, Route, RouteKind, TrafficPolicy, Workload, full_service_name,
    service_name,
};

#[derive(Clone, Debug, Default)]
pub struct Changes {
    cluster_domain: Arc<str>,
    everything: bool,
    /// All that is resolved for these Services.
    services: HashSet<ServiceRef>,
    /// All that is resolved for these addresses.
    addresses: HashSet<IpAddr>,
    /// Endpoints of these Services, and no more.
    endpoints: HashSet<ServiceRef>,
    /// Endpoints of these addresses, and no more.
    endpoint_addresses: HashSet<IpAddr>,
    /// The inbound listeners of these workloads.
    workloads: HashSet<Id>,
    gateways: HashSet<Id>,
    all_gateways: bool,
    secrets: HashSet<Id>,
    /// Workloads that are in another zone: what they prefer may differ.
    moved: HashSet<Id>,
    /// Clusters whose endpoints may differ while the rest of their Service does not.
    clusters: BTreeSet<ClusterName>,
}

impl Registry {
    /// What has to be resolved again by whoever has resources of `old`. Cheap: objects are compared by their hashes.
    pub fn changes_since(&self, old: &Registry) -> Changes {
        let mut changes = Changes { cluster_domain: self.mesh.cluster_domain.clone(), ..Changes::default() };
        if old.mesh != self.mesh {
            changes.everything = true;
            return changes;
        }
        let mut collector = Collector { old: View::of(old), new: View::of(self), changes };
        for (key, object) in &self.objects {
            let before = old.objects.get(key);
            if before.is_none_or(|before| before.hash != object.hash) {
                collector.changed(key, before, Some(object));
            }
        }
        for (key, before) in &old.objects {
            if !self.objects.contains_key(key) {
                collector.changed(key, Some(before), None);
            }
        }
        collector.finish()
    }
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        !self.everything
            && self.is_endpoints_only()
            && self.workloads.is_empty()
            && self.endpoints.is_empty()
            && self.addresses.is_empty()
            && self.endpoint_addresses.is_empty()
    }

    /// Whether only endpoints differ, and instances that come and go: what is pushed without waiting for more.
    pub fn is_endpoints_only(&self) -> bool {
        !self.everything
            && self.services.is_empty()
            && self.moved.is_empty()
            && self.gateways.is_empty()
            && !self.all_gateways
            && self.secrets.is_empty()
    }

    /// Clusters of Services whose endpoints may differ and nothing else does. For whoever knows who subscribes to which cluster; everything is
    /// also answered by [`Self::may_affect`].
    pub fn clusters(&self) -> impl Iterator<Item = &ClusterName> {
        self.clusters.iter()
    }

    /// Whether this resource may differ for this subscriber.
    pub fn may_affect(&self, who: &Subscriber, kind: ResourceKind, name: &str) -> bool {
        if self.everything {
            return true;
        }
        match kind {
            ResourceKind::Listener => self.may_affect_listener(who, name),
            ResourceKind::RouteTable if name.starts_with("gateway|") => self.gateway(who),
            ResourceKind::RouteTable => name.rsplit('|').next().is_some_and(|host| self.host(host)),
            ResourceKind::Cluster => {
                self.has_moved(who) || name.rsplit('|').next().is_some_and(|host| self.host(host))
            }
            ResourceKind::Endpoints => {
                name.rsplit('|').next().is_some_and(|host| self.host(host) || self.endpoints_of(host))
            }
            ResourceKind::Secret => {
                let secret = name.split_once('/').map(|(namespace, name)| (namespace.into(), name.into()));
                self.gateway(who) || secret.is_some_and(|secret| self.secrets.contains(&secret))
            }
        }
    }

    fn may_affect_listener(&self, who: &Subscriber, name: &str) -> bool {
        match who {
            Subscriber::Sidecar { namespace, name: workload } if name == Listener::INBOUND => {
                return self.workloads.contains(&(namespace.clone(), workload.clone()));
            }
            Subscriber::Gateway { namespace, name: gateway }
                if name == Gateway::resource_name(namespace, gateway) =>
            {
                return self.gateway(who);
            }
            Subscriber::Sidecar { .. } | Subscriber::Gateway { .. } => {}
        }
        let Some(destination) = DestinationName::from_resource_name(name) else { return false };
        if let Some(address) = destination.as_ip() {
            return self.addresses.contains(&address);
        }
        service_name(destination.host(), &self.cluster_domain).is_some_and(|(name, namespace)| {
            self.services.contains(&ServiceRef::new(namespace.unwrap_or(who.namespace()), name))
        })
    }

    fn has_moved(&self, who: &Subscriber) -> bool {
        match who {
            Subscriber::Sidecar { namespace, name } => {
                !self.moved.is_empty() && self.moved.contains(&(namespace.clone(), name.clone()))
            }
            Subscriber::Gateway { .. } => false,
        }
    }

    fn gateway(&self, who: &Subscriber) -> bool {
        match who {
            Subscriber::Gateway { namespace, name } => {
                self.all_gateways || self.gateways.contains(&(namespace.clone(), name.clone()))
            }
            Subscriber::Sidecar { .. } => false,
        }
    }

    /// Whether all that is named after this full service name or address may differ.
    fn host(&self, host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => self.addresses.contains(&address),
            Err(_) => self.service(host).is_some_and(|service| self.services.contains(&service)),
        }
    }

    fn endpoints_of(&self, host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => self.endpoint_addresses.contains(&address),
            Err(_) => self.service(host).is_some_and(|service| self.endpoints.contains(&service)),
        }
    }

    fn service(&self, host: &str) -> Option<ServiceRef> {
        let (name, namespace) = full_service_name(host, &self.cluster_domain)?;
        Some(ServiceRef::new(namespace, name))
    }
}

/// A registry with the index that only comparing needs.
struct View<'r> {
    registry: &'r Registry,
    /// Routes by the Services they send to, whether those exist or not; made when first asked for.
    by_backend: Option<HashMap<&'r ServiceRef, Vec<&'r Arc<Route>>>>,
}

impl<'r> View<'r> {
    fn of(registry: &'r Registry) -> Self {
        Self { registry, by_backend: None }
    }

    fn routes_to(&mut self, service: &ServiceRef) -> &[&'r Arc<Route>] {
        let registry = self.registry;
        let index = self.by_backend.get_or_insert_with(|| {
            let mut index: HashMap<_, Vec<_>> = HashMap::new();
            for route in registry.routes.values() {
                for service in route.backends().filter_map(|backend| backend.service()) {
                    index.entry(service).or_default().push(route);
                }
            }
            index
        });
        index.get(service).map(Vec::as_slice).unwrap_or_default()
    }
}

struct Collector<'r> {
    old: View<'r>,
    new: View<'r>,
    changes: Changes,
}

impl Collector<'_> {
    fn changed(&mut self, key: &ObjectKey, before: Option<&Arc<Object>>, now: Option<&Arc<Object>>) {
        let id = (key.namespace.clone(), key.name.clone());
        let manifests = [before, now].map(|object| object.map(|object| &object.manifest));
        // Both versions are of the key's kind, so either tells it.
        match manifests.iter().flatten().next() {
            None => {}
            Some(Manifest::Service(_)) => self.service(&ServiceRef { namespace: id.0, name: id.1 }),
            Some(Manifest::EndpointSlice(_)) => self.slice(&key.namespace, manifests),
            Some(Manifest::Workload(_)) => self.workload(&id),
            Some(
                Manifest::HttpRoute(_)
                | Manifest::GrpcRoute(_)
                | Manifest::TcpRoute(_)
                | Manifest::TlsRoute(_),
            ) => {
                let Some(kind) = RouteKind::from_name(key.kind.as_str()) else { return };
                let route = (kind, id.0, id.1);
                for registry in [self.old.registry, self.new.registry] {
                    if let Some(route) = registry.routes.get(&route) {
                        touch_parents(&mut self.changes, route);
                    }
                }
            }
            Some(Manifest::Gateway(_)) => {
                self.changes.gateways.insert(id);
            }
            Some(Manifest::Secret(_)) => self.secret(id),
            Some(Manifest::ReferenceGrant(_)) => self.changes.all_gateways = true,
            Some(Manifest::TrafficPolicy(_)) => {
                // Which Service a Gateway's rule leads to, and so which policy holds there, is not worth an index.
                self.changes.all_gateways = true;
                for registry in [self.old.registry, self.new.registry] {
                    if let Some(policy) = registry.policy_named(&id) {
                        self.policy(registry, &policy);
                    }
                }
            }
            Some(Manifest::AccessPolicy(_)) => {
                for registry in [self.old.registry, self.new.registry] {
                    let Some(policy) = registry.access.all.get(&id) else { continue };
                    for workload in registry.workloads_under(policy) {
                        let id = (workload.namespace.clone(), workload.name.clone());
                        // Whether callers use mTLS follows from the mode.
                        self.endpoints_of(&id);
                        self.changes.workloads.insert(id);
                    }
                }
            }
            Some(Manifest::Mesh(_)) => self.changes.everything = true,
        }
    }

    /// The inbound side of the workloads behind a Service, in the old registry or the new one.
    fn workloads_of(&mut self, service: &ServiceRef) {
        for registry in [self.old.registry, self.new.registry] {
            for member in registry.members.get(service).into_iter().flatten() {
                let workload = member.instance().workload.as_ref();
                self.changes
                    .workloads
                    .extend(workload.map(|workload| (workload.namespace.clone(), workload.name.clone())));
            }
        }
    }

    fn service(&mut self, service: &ServiceRef) {
        self.changes.services.insert(service.clone());
        self.workloads_of(service);
        for view in [&mut self.old, &mut self.new] {
            let registry = view.registry;
            for service in std::iter::once(service).chain(registry.aliases_of(service)) {
                for route in view.routes_to(service) {
                    touch_parents(&mut self.changes, route);
                }
            }
        }
    }

    fn slice(&mut self, namespace: &str, manifests: [Option<&Manifest>; 2]) {
        let slices = manifests.map(|manifest| match manifest {
            Some(Manifest::EndpointSlice(slice)) => Some(slice),
            _ => None,
        });
        let addresses = |slice: &EndpointSlice| -> HashSet<IpAddr> {
            slice.endpoints.iter().filter_map(|endpoint| Some(endpoint.address()?.to_canonical())).collect()
        };
        for slice in slices.into_iter().flatten() {
            let service = slice.metadata.label(SERVICE_NAME_LABEL);
            self.changes.endpoints.extend(service.map(|name| ServiceRef::new(namespace, name)));
            self.changes.endpoint_addresses.extend(addresses(slice));
        }
        let [before, now] = slices.map(|slice| slice.map(addresses).unwrap_or_default());
        match slices {
            // The same ports: an address that stays means what it meant.
            [Some(a), Some(b)] if a.ports == b.ports => {
                self.changes.addresses.extend(before.symmetric_difference(&now));
            }
            _ => self.changes.addresses.extend(before.union(&now)),
        }
    }

    fn workload(&mut self, id: &Id) {
        let [before, now] = [self.old.registry, self.new.registry].map(|registry| {
            (registry.workloads.get(id), registry.selecting.get(id).map(Vec::as_slice).unwrap_or_default())
        });
        let zone = |workload: Option<&Arc<Workload>>| workload.and_then(|workload| workload.zone.clone());
        if zone(before.0) != zone(now.0) {
            self.changes.moved.insert(id.clone());
        }
        // Labels are compared by who selects them.
        let only_state =
            before == now && self.old.registry.access.selecting(id) == self.new.registry.access.selecting(id);
        if !only_state {
            self.changes.workloads.insert(id.clone());
        }
        if !only_state {
            let addresses = [before, now].map(|(workload, _)| workload.and_then(|workload| workload.address));
            self.changes.addresses.extend(addresses.into_iter().flatten());
        }
        self.endpoints_of(id);
    }

    /// Wherever the workload is an endpoint, in the old registry or the new one.
    fn endpoints_of(&mut self, id: &Id) {
        for registry in [self.old.registry, self.new.registry] {
            let selecting = registry.selecting.get(id).into_iter().flatten();
            self.changes.endpoints.extend(selecting.cloned());
            let workload = registry.workloads.get(id);
            let Some(address) = workload.and_then(|workload| workload.address) else { continue };
            self.changes.endpoint_addresses.insert(address);
            // EndpointSlices that list its address say who is there by asking the Workload.
            for registry in [self.old.registry, self.new.registry] {
                let instances = registry.instances_by_ip.get(&address).into_iter().flatten();
                let listed = instances.filter_map(|instance| instance.listed_for.clone());
                self.changes.endpoints.extend(listed);
            }
        }
    }

    fn secret(&mut self, id: Id) {
        for registry in [self.old.registry, self.new.registry] {
            for (gateway_id, gateway) in &registry.gateways {
                let refers = gateway.listeners.iter().flat_map(|listener| listener.certificates());
                if refers.into_iter().any(|r| r.namespace == id.0 && r.name == id.1) {
                    self.changes.gateways.insert(gateway_id.clone());
                }
            }
        }
        self.changes.secrets.insert(id);
    }

    fn policy(&mut self, registry: &Registry, policy: &TrafficPolicy) {
        let limits = policy.rate_limit.is_some() || policy.concurrency.is_some() || policy.fault.is_some();
        for target in &policy.targets {
            match &target.to {
                PolicyTarget::Service { service, .. } => {
                    self.changes.services.insert(service.clone());
                    if limits {
                        self.workloads_of(service);
                    }
                    self.routes_to(service);
                }
                PolicyTarget::Route { kind, name, .. } => {
                    let key = (*kind, policy.namespace.clone(), name.clone());
                    if let Some(route) = registry.routes.get(&key) {
                        touch_parents(&mut self.changes, route);
                    }
                }
                PolicyTarget::Namespace(namespace) => {
                    let inside = registry.services.keys().filter(|service| service.namespace == *namespace);
                    for service in inside {
                        self.changes.services.insert(service.clone());
                        if limits {
                            self.workloads_of(service);
                        }
                        self.routes_to(service);
                    }
                }
                PolicyTarget::Mesh(_) => self.changes.everything = true,
            }
        }
    }

    /// Routes that lead to a Service from elsewhere: they say what its requests are hashed by.
    fn routes_to(&mut self, service: &ServiceRef) {
        for view in [&mut self.old, &mut self.new] {
            let registry = view.registry;
            for service in std::iter::once(service).chain(registry.aliases_of(service)) {
                for route in view.routes_to(service) {
                    touch_parents(&mut self.changes, route);
                }
            }
        }
    }

    /// Services are also known by their cluster IPs, and endpoints by their clusters.
    fn finish(self) -> Changes {
        let mut changes = self.changes;
        for registry in [self.old.registry, self.new.registry] {
            let aliases: Vec<_> =
                changes.services.iter().flat_map(|service| registry.aliases_of(service)).cloned().collect();
            changes.services.extend(aliases);
            for service in changes.services.iter().filter_map(|id| registry.services.get(id)) {
                changes.addresses.extend(&service.cluster_ips);
            }
            for service in changes.endpoints.iter().filter_map(|id| registry.services.get(id)) {
                let clusters =
                    service.ports.iter().map(|port| ClusterName::outbound(port.number, "", &service.host));
                changes.clusters.extend(clusters);
            }
        }
        changes
    }
}

fn touch_parents(changes: &mut Changes, route: &Route) {
    for parent in &route.parents {
        match &parent.target {
            ParentTarget::Service(service) => {
                changes.services.insert(service.clone());
            }
            ParentTarget::Gateway(namespace, name) => {
                changes.gateways.insert((namespace.clone(), name.clone()));
            }
            ParentTarget::Other => {}
        }
    }
}
