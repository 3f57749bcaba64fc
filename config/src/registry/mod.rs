//! All manifests cross-checked as one whole, and indexed by what is asked of them.
//!
//! Owns what refers to what: every reference is resolved, or reported on the object that made it. One bad object never
//! disables another. A [`Registry`] never changes: [`Store`] makes a new one for every change of its sources, and resources are resolved from it
//! (`crate::resolve`).

mod access;
mod backends;
mod build;
mod changes;
mod check;
mod gateway;
mod instance;
mod lower;
mod policy;
pub mod protocol;
mod route;
mod routes;
mod select;
mod service;
mod status;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::manifest::mesh::CertificateSettings;
use crate::manifest::{Object, ObjectKey};
use crate::model::{AccessDefault, Faults, LimitServer, Mtls, Protocol, ProxySettings, Secret, ServiceRef};

pub use access::{AccessPolicy, MtlsSection, PortMtls};
pub use backends::Problem;
pub use changes::Changes;
pub use gateway::{CertificateRef, From, Gateway, Listener, ListenerProtocol};
pub use instance::{Instance, InstancePort, Workload, WorkloadPort};
pub(crate) use lower::faults_of_policy;
pub use policy::{BalanceSection, PolicyLimit, PolicyTarget, Target, TimeoutSection, TrafficPolicy};
pub use route::{Backend, BackendRef, BackendTo, Parent, ParentTarget, Route, RouteKind, Rule};
pub use routes::Effective;
pub use service::{Backing, Service, ServicePort, TargetPort};
pub use status::{State, Status};
pub use store::Store;

/// Namespace and name.
type Id = (Arc<str>, Arc<str>);
/// A policy and which of its targets.
type Attached = (Arc<TrafficPolicy>, usize);

/// A consistent state of everything the mesh is told.
#[derive(Debug, Default)]
pub struct Registry {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    mesh: Mesh,
    services: HashMap<ServiceRef, Arc<Service>>,
    services_by_ip: HashMap<IpAddr, ServiceRef>,
    /// The Services of type ExternalName whose name outside is the full name of another Service, whether that exists or not.
    aliases: HashMap<ServiceRef, Vec<ServiceRef>>,
    /// Everything that may stand behind a Service, in a stable order.
    members: HashMap<ServiceRef, Vec<Member>>,
    instances_by_ip: HashMap<IpAddr, Vec<Arc<Instance>>>,
    workloads: HashMap<Id, Arc<Workload>>,
    /// The Workloads a Service selects, templates included, in alphabetical order.
    selected: HashMap<ServiceRef, Vec<Arc<Workload>>>,
    /// The Services that select an instance, by name.
    selecting: HashMap<Id, Vec<ServiceRef>>,
    routes_by_service: HashMap<ServiceRef, Vec<(Arc<Route>, usize)>>,
    routes_by_gateway: HashMap<Id, Vec<(Arc<Route>, usize)>>,
    routes: HashMap<(RouteKind, Arc<str>, Arc<str>), Arc<Route>>,
    gateways: HashMap<Id, Arc<Gateway>>,
    secrets: HashMap<Id, Secret>,
    grants: backends::Grants,
    policies: Policies,
    access: access::AccessPolicies,
    statuses: BTreeMap<ObjectKey, Status>,
    diagnostics: Vec<Diagnostic>,
}

/// What the `Mesh` object says.
#[derive(Clone, Debug, PartialEq)]
struct Mesh {
    cluster_domain: Arc<str>,
    settings: ProxySettings,
    mtls: Mtls,
    certificate_lifetime: Duration,
    access: AccessDefault,
    limit_server: LimitServer,
}

#[derive(Debug, Default)]
struct Policies {
    all: HashMap<Id, Arc<TrafficPolicy>>,
    by_service: HashMap<ServiceRef, Vec<Attached>>,
    by_route: HashMap<(RouteKind, Arc<str>, Arc<str>), Vec<Attached>>,
    by_namespace: HashMap<Arc<str>, Vec<Attached>>,
    mesh: Vec<Attached>,
}

/// An instance behind a Service, and who says that it is.
#[derive(Clone, Debug)]
enum Member {
    /// A Workload the Service selects: its target port is the workload's to know.
    Selected(Arc<Instance>),
    /// An endpoint of an EndpointSlice: its ports are named after the Service's.
    Listed(Arc<Instance>),
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            settings: ProxySettings::default(),
            mtls: Mtls::default(),
            certificate_lifetime: CertificateSettings::default().lifetime.get(),
            access: AccessDefault::default(),
            limit_server: LimitServer::default(),
        }
    }
}

impl Registry {
    /// What is wrong with the objects, or worth knowing of them, in the order of files and lines.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// What became of every object.
    pub fn statuses(&self) -> impl Iterator<Item = (&ObjectKey, &Status)> {
        self.statuses.iter()
    }

    pub fn status(&self, key: &ObjectKey) -> Option<&Status> {
        self.statuses.get(key)
    }

    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Object>)> {
        self.objects.iter()
    }

    pub fn settings(&self) -> &ProxySettings {
        &self.mesh.settings
    }

    pub fn trust_domain(&self) -> &str {
        &self.mesh.settings.trust_domain
    }

    /// How long the certificates of workloads are good for. 10 s to 90 days.
    pub fn certificate_lifetime(&self) -> Duration {
        self.mesh.certificate_lifetime
    }

    /// Who counts shared limits whose policy does not say it.
    pub(crate) fn limit_server(&self) -> &LimitServer {
        &self.mesh.limit_server
    }

    /// The mTLS mode of workloads that no AccessPolicy gives one.
    pub(crate) fn mesh_mtls(&self) -> &Mtls {
        &self.mesh.mtls
    }

    /// What becomes of calls that no AccessPolicy decides.
    pub(crate) fn mesh_access(&self) -> &AccessDefault {
        &self.mesh.access
    }

    /// What full service names end with, `cluster.local`.
    pub fn cluster_domain(&self) -> &str {
        &self.mesh.cluster_domain
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.gateways.values()
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.services.get(&ServiceRef::new(namespace, name))
    }

    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(&(namespace.into(), name.into()))
    }

    pub fn gateway(&self, namespace: &str, name: &str) -> Option<&Arc<Gateway>> {
        self.gateways.get(&(namespace.into(), name.into()))
    }

    /// A route by its kind as manifests write it.
    pub fn route(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(&(RouteKind::from_name(kind)?, namespace.into(), name.into()))
    }

    /// The Service a host name means to a caller: `NAME` in its namespace, `NAME.NAMESPACE`, `NAME.NAMESPACE.svc`, or
    /// in full. The order of a resolver's search path.
    pub fn service_called(&self, host: &str, namespace: &str) -> Option<&Arc<Service>> {
        match service_name(host, self.cluster_domain())? {
            (name, Some(namespace)) => self.service(namespace, name),
            (name, None) => self.service(namespace, name),
        }
    }

    /// The Service that is meant by this one: another where it is of type ExternalName and names it in full, else itself. An alias of an
    /// alias is a name like any other outside.
    pub(crate) fn meant_by<'r>(&'r self, service: &'r Arc<Service>) -> &'r Arc<Service> {
        service
            .external()
            .and_then(|host| self.service_by_host(host))
            .filter(|meant| meant.external().is_none())
            .unwrap_or(service)
    }

    /// The Service whose full name this is; other spellings are not names of resources.
    pub(crate) fn service_by_host(&self, host: &str) -> Option<&Arc<Service>> {
        let (name, namespace) = full_service_name(host, self.cluster_domain())?;
        self.service(namespace, name)
    }

    pub(crate) fn service_by_ip(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.services.get(self.services_by_ip.get(&address)?)
    }

    /// An instance by its own address; of several at one address that which declares the port.
    pub(crate) fn instance_at(&self, address: IpAddr, port: u16) -> Option<&Arc<Instance>> {
        let instances = self.instances_by_ip.get(&address)?;
        instances.iter().find(|instance| instance.port(port).is_some()).or(instances.first())
    }

    /// The instances behind one port of a Service, each with the port it listens on.
    pub(crate) fn members_of<'r>(
        &'r self,
        service: &Service,
        port: &'r ServicePort,
    ) -> impl Iterator<Item = (&'r Arc<Instance>, u16)> {
        let members = self.members.get(&service.id).map(Vec::as_slice).unwrap_or_default();
        members.iter().filter_map(|member| match member {
            Member::Selected(instance) => {
                let number = match &port.target {
                    TargetPort::Number(number) => *number,
                    TargetPort::Name(name) => instance.port_named(name)?.number,
                };
                Some((instance, number))
            }
            Member::Listed(instance) => {
                let listed = instance.ports.iter().find(|listed| listed.name == port.name)?;
                Some((instance, listed.number))
            }
        })
    }

    /// The Services that send to one port of a workload, in alphabetical order.
    pub(crate) fn services_of<'r>(
        &'r self,
        workload: &Workload,
        port: &InstancePort,
    ) -> Vec<(&'r Arc<Service>, &'r ServicePort)> {
        let selecting = self.selecting.get(&(workload.namespace.clone(), workload.name.clone()));
        let services = selecting.into_iter().flatten().filter_map(|id| self.services.get(id));
        services
            .flat_map(|service| service.ports.iter().map(move |declared| (service, declared)))
            .filter(|(_, declared)| match &declared.target {
                TargetPort::Number(number) => *number == port.number,
                TargetPort::Name(name) => Some(name) == port.name.as_ref(),
            })
            .collect()
    }

    pub(crate) fn tls_secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        self.secrets.get(&(namespace.into(), name.into()))
    }

    pub(crate) fn routes_to_gateway(&self, id: &Id) -> &[(Arc<Route>, usize)] {
        self.routes_by_gateway.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    fn aliases_of(&self, service: &ServiceRef) -> &[ServiceRef] {
        self.aliases.get(service).map(Vec::as_slice).unwrap_or_default()
    }

    /// What TrafficPolicies make go wrong on purpose; those that say nothing are no experiments.
    pub fn experiments(&self) -> impl Iterator<Item = &Arc<Faults>> {
        let faults = self.policies.all.values().filter_map(|policy| policy.fault.as_ref());
        faults.filter(|faults| !faults.faults.is_empty())
    }

    fn policy_named(&self, id: &Id) -> Option<Arc<TrafficPolicy>> {
        self.policies.all.get(id).cloned()
    }

    pub(crate) fn policies_for_service(&self, service: &ServiceRef) -> &[Attached] {
        self.policies.by_service.get(service).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn policies_for_route(
        &self,
        kind: RouteKind,
        namespace: &Arc<str>,
        name: &Arc<str>,
    ) -> &[Attached] {
        let key = (kind, namespace.clone(), name.clone());
        self.policies.by_route.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn policies_for_namespace(&self, namespace: &str) -> &[Attached] {
        self.policies.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn policies_for_mesh(&self) -> &[Attached] {
        &self.policies.mesh
    }
}

impl Member {
    fn instance(&self) -> &Arc<Instance> {
        match self {
            Self::Selected(instance) | Self::Listed(instance) => instance,
        }
    }
}

impl InstancePort {
    /// What it speaks: as it declares, else as the Services that send to it do.
    pub(crate) fn protocol_behind(&self, services: &[(&Arc<Service>, &ServicePort)]) -> Protocol {
        std::iter::once(self.protocol)
            .chain(services.iter().map(|(_, declared)| declared.protocol))
            .find(|protocol| *protocol != Protocol::Detect)
            .unwrap_or(Protocol::Detect)
    }
}

/// Name and, where it is given, namespace in a host name that could be a Service's.
fn service_name<'h>(host: &'h str, cluster_domain: &str) -> Option<(&'h str, Option<&'h str>)> {
    if !host.contains('.') {
        return Some((host, None));
    }
    let (name, namespace) = full_service_name(host, cluster_domain)
        .or_else(|| two_labels(host))
        .or_else(|| two_labels(host.strip_suffix(".svc")?))?;
    Some((name, Some(namespace)))
}

/// Name and namespace in `NAME.NAMESPACE.svc.CLUSTER_DOMAIN`.
fn full_service_name<'h>(host: &'h str, cluster_domain: &str) -> Option<(&'h str, &'h str)> {
    two_labels(host.strip_suffix(cluster_domain)?.strip_suffix(".svc.")?)
}

/// Both parts of `A.B`.
fn two_labels(host: &str) -> Option<(&str, &str)> {
    let (first, second) = host.split_once('.')?;
    (!first.is_empty() && !second.is_empty() && !second.contains('.')).then_some((first, second))
}

#[cfg(test)]
pub(crate) mod tests;
