//! A registry from its objects: each lowered, then all of them indexed by what is asked of them, then checked.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::diagnostic::Diagnostic;
use crate::manifest::mesh::{AccessLogMode, EgressMode, Mesh as MeshManifest};
use crate::manifest::{self, Kind, Manifest, Object, ObjectKey};
use crate::model::{self, AccessDefault, Fraction, LimitServer, Mtls, ProxySettings, SecretName, ServiceRef};

use super::backends::Grant;
use super::lower::{self, Identity, LoweredWorkload, Slice, SliceEndpoint};
use super::{
    Instance, Member, Mesh, ParentTarget, PolicyTarget, Registry, Route, RouteKind, check, full_service_name,
};

impl Registry {
    /// `found` is what reading the objects' sources has already found.
    pub fn new(objects: BTreeMap<ObjectKey, Arc<Object>>, found: Vec<Diagnostic>) -> Self {
        let mut registry = Self { mesh: mesh(&objects), ..Self::default() };
        let mut candidates = Candidates::default();
        for (key, object) in &objects {
            registry.take(key, object, &mut candidates);
        }
        registry.index_instances(candidates);
        registry.objects = objects;
        registry.diagnostics = found;
        check::check(&mut registry);
        registry.diagnostics.sort_by(|a, b| a.listing_order().cmp(&b.listing_order()));
        registry
    }

    /// Objects come in the order of their keys, so whatever is "the first" here is the same in every process.
    fn take(&mut self, key: &ObjectKey, object: &Object, candidates: &mut Candidates) {
        let id = Identity {
            kind: key.kind.as_str(),
            namespace: key.namespace.clone(),
            metadata: object.metadata(),
        };
        let name = (key.namespace.clone(), key.name.clone());
        match &object.manifest {
            Manifest::Service(manifest) => {
                let service = Arc::new(lower::service(&id, manifest, &self.mesh.cluster_domain));
                for address in &service.cluster_ips {
                    self.services_by_ip.entry(*address).or_insert_with(|| service.id.clone());
                }
                if let Some((name, namespace)) =
                    service.external().and_then(|host| full_service_name(host, &self.mesh.cluster_domain))
                {
                    let meant = ServiceRef::new(namespace, name);
                    self.aliases.entry(meant).or_default().push(service.id.clone());
                }
                self.services.insert(service.id.clone(), service);
            }
            Manifest::EndpointSlice(manifest) => {
                candidates
                    .slices
                    .extend(lower::endpoint_slice(&id, manifest).map(|slice| (slice, id.origin())));
            }
            Manifest::Workload(manifest) => {
                let lowered = lower::workload(&id, manifest);
                self.workloads.insert(name, lowered.workload.clone());
                candidates.workloads.push(lowered);
            }
            Manifest::HttpRoute(manifest) => self.insert_route(lower::http_route(&id, manifest)),
            Manifest::GrpcRoute(manifest) => self.insert_route(lower::grpc_route(&id, manifest)),
            Manifest::TcpRoute(manifest) => self.insert_route(lower::tcp_route(&id, manifest)),
            Manifest::TlsRoute(manifest) => self.insert_route(lower::tls_route(&id, manifest)),
            Manifest::Gateway(manifest) => {
                self.gateways.insert(name, Arc::new(lower::gateway(&id, manifest)));
            }
            Manifest::Secret(manifest) => {
                self.secrets.extend(tls_secret(key, manifest).map(|secret| (name, secret)));
            }
            Manifest::ReferenceGrant(manifest) => self.insert_grants(&key.namespace, manifest),
            Manifest::TrafficPolicy(manifest) => {
                let home = self.mesh.settings.trust_domain.clone();
                self.insert_policy(lower::traffic_policy(&id, manifest, &home));
            }
            Manifest::AccessPolicy(manifest) => self.access.insert(lower::access_policy(&id, manifest)),
            // Read first: everything else depends on it.
            Manifest::Mesh(_) => {}
        }
    }

    fn insert_route(&mut self, route: Route) {
        let route = Arc::new(route);
        for (i, parent) in route.parents.iter().enumerate() {
            match &parent.target {
                ParentTarget::Service(service) => {
                    self.routes_by_service.entry(service.clone()).or_default().push((route.clone(), i));
                }
                ParentTarget::Gateway(namespace, name) => {
                    let id = (namespace.clone(), name.clone());
                    self.routes_by_gateway.entry(id).or_default().push((route.clone(), i));
                }
                ParentTarget::Other => {}
            }
        }
        self.routes.insert((route.kind, route.namespace.clone(), route.name.clone()), route);
    }

    fn insert_policy(&mut self, policy: super::TrafficPolicy) {
        let policy = Arc::new(policy);
        let id = (policy.origin.namespace.clone(), policy.origin.name.clone());
        self.policies.all.insert(id, policy.clone());
        for (i, target) in policy.targets.iter().enumerate() {
            let list = match &target.to {
                PolicyTarget::Service { service, .. } => {
                    self.policies.by_service.entry(service.clone()).or_default()
                }
                PolicyTarget::Route { kind, name, .. } => {
                    let key = (*kind, policy.namespace.clone(), name.clone());
                    self.policies.by_route.entry(key).or_default()
                }
                PolicyTarget::Namespace(namespace) => {
                    self.policies.by_namespace.entry(namespace.clone()).or_default()
                }
                PolicyTarget::Mesh(name) if **name == *manifest::mesh::MESH_NAME => &mut self.policies.mesh,
                PolicyTarget::Mesh(_) => continue,
            };
            list.push((policy.clone(), i));
        }
    }

    fn insert_grants(&mut self, namespace: &Arc<str>, manifest: &manifest::ReferenceGrant) {
        for from in &manifest.spec.from {
            for to in &manifest.spec.to {
                // Kinds that never refer, or are never referred to, grant nothing here.
                let (Some(from_kind), Some(to_kind)) =
                    (known(&from.group, &from.kind), known(&to.group, &to.kind))
                else {
                    continue;
                };
                let grant = Grant {
                    from_kind,
                    from_namespace: from.namespace.shared(),
                    to_kind,
                    to_name: to.name.as_ref().map(|name| name.shared()),
                };
                self.grants.insert(namespace, grant);
            }
        }
    }

    fn index_instances(&mut self, candidates: Candidates) {
        let mut by_address: HashMap<IpAddr, Arc<Instance>> = HashMap::new();
        for instance in candidates.workloads.iter().filter_map(|lowered| lowered.instance.as_ref()) {
            by_address.entry(instance.address).or_insert_with(|| instance.clone());
            self.instances_by_ip.entry(instance.address).or_default().push(instance.clone());
        }
        self.select_workloads(&candidates.workloads);
        for (slice, origin) in candidates.slices {
            for endpoint in &slice.endpoints {
                let instance = listed(&slice, endpoint, by_address.get(&endpoint.address), &origin);
                let instance = Arc::new(instance);
                self.instances_by_ip.entry(endpoint.address).or_default().push(instance.clone());
                self.members.entry(slice.service.clone()).or_default().push(Member::Listed(instance));
            }
        }
    }
}

/// What may stand behind Services, before it is known whose.
#[derive(Default)]
struct Candidates {
    workloads: Vec<LoweredWorkload>,
    slices: Vec<(Slice, model::Origin)>,
}

/// An endpoint of a slice; at the address of a Workload it is that Workload's.
fn listed(
    slice: &Slice,
    endpoint: &SliceEndpoint,
    known: Option<&Arc<Instance>>,
    origin: &model::Origin,
) -> Instance {
    Instance {
        address: endpoint.address,
        health: endpoint.health,
        weight: known.map_or(1, |known| known.weight),
        zone: endpoint.zone.clone().or_else(|| known?.zone.clone()),
        for_zones: endpoint.for_zones.clone(),
        workload: known.and_then(|known| known.workload.clone()),
        name: endpoint.pod.clone().or_else(|| known?.name.clone()),
        ports: slice.ports.clone(),
        listed_for: Some(slice.service.clone()),
        origin: origin.clone(),
    }
}

fn mesh(objects: &BTreeMap<ObjectKey, Arc<Object>>) -> Mesh {
    let key = ObjectKey::new(Kind::Mesh, "", manifest::mesh::MESH_NAME);
    match objects.get(&key).map(|object| &object.manifest) {
        Some(Manifest::Mesh(manifest)) => {
            let certificate = manifest.spec.certificate.unwrap_or_default();
            Mesh {
                settings: settings(manifest),
                mtls: mtls(manifest),
                access: access(manifest),
                certificate_lifetime: certificate.lifetime.get(),
                limit_server: limit_server(manifest),
                ..Mesh::default()
            }
        }
        _ => Mesh::default(),
    }
}

fn settings(manifest: &MeshManifest) -> ProxySettings {
    let spec = &manifest.spec;
    let log = spec.access_log.unwrap_or_default();
    ProxySettings {
        egress: match spec.egress.unwrap_or_default().mode {
            EgressMode::AllowAny => model::Egress::AllowAny,
            EgressMode::RegistryOnly => model::Egress::RegistryOnly,
        },
        access_log: model::AccessLog {
            mode: match log.mode {
                AccessLogMode::Off => model::AccessLogMode::Off,
                AccessLogMode::Errors => model::AccessLogMode::Errors,
                AccessLogMode::All => model::AccessLogMode::All,
            },
            sampling: Fraction::new(log.sampling.per_million(), 1_000_000)
                .expect("a percentage is at most all"),
        },
        trust_domain: spec.trust_domain.shared(),
        ..ProxySettings::default()
    }
}

fn limit_server(manifest: &MeshManifest) -> LimitServer {
    manifest.spec.rate_limit.as_ref().map(|section| section.server.lowered()).unwrap_or_default()
}

fn mtls(manifest: &MeshManifest) -> Mtls {
    manifest.spec.mtls.map_or_else(Mtls::default, |section| Mtls {
        mode: lower::mtls_mode(section.mode),
        origin: Some(mesh_origin("spec.mtls.mode")),
    })
}

fn access(manifest: &MeshManifest) -> AccessDefault {
    manifest.spec.access.map_or_else(AccessDefault::default, |section| AccessDefault {
        action: lower::access_action(section.default),
        origin: Some(mesh_origin("spec.access.default")),
    })
}

fn mesh_origin(field: &str) -> model::Origin {
    model::Origin::new(Kind::Mesh.as_str(), "", manifest::mesh::MESH_NAME, field)
}

fn tls_secret(key: &ObjectKey, manifest: &manifest::Secret) -> Option<model::Secret> {
    let (chain, private_key) = manifest.tls()?;
    Some(model::Secret {
        name: SecretName::new(format!("{}/{}", key.namespace, key.name)),
        certificate_chain: std::str::from_utf8(chain).ok()?.into(),
        private_key: std::str::from_utf8(private_key).ok()?.into(),
    })
}

/// A kind as grants name it, if it can refer or be referred to.
fn known(group: &str, kind: &str) -> Option<&'static str> {
    let kind = Kind::from_name(kind).filter(|kind| kind.group() == group)?;
    let refers = kind == Kind::Gateway || RouteKind::from_name(kind.as_str()).is_some();
    let referred = matches!(kind, Kind::Service | Kind::Secret);
    (refers || referred).then(|| kind.as_str())
}
