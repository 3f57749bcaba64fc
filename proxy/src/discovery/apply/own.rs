//! What this proxy itself listens for: a workload's inbound ports, or a gateway's.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_config::model::{
    self, Action, Backend, BackendTarget, CircuitBreaker, ClusterName, Discovery, Endpoint, Endpoints,
    Forward, Gateway as GatewayModel, GatewayProtocol, HeaderEdits, Health, HostPattern,
    Inbound as InboundModel, Listener, Origin, PathMatch, Protocol, ProxySettings, Resource, Rewrite, Route,
    RouteMatch, RouteTable, RouteTableName, SecretName, Timeouts, TrustBundle, UpstreamHttp, Version,
    VirtualHost, WorkloadRef,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;

use super::publish::{WARMING, upstream};
use super::{Apply, needs};
use crate::mesh::{
    Backends, Certificate, Content, Destination, Gateway, GatewayListener, GatewayPort, GatewayPortSlot,
    Inbound, InboundPort, Known, ListenerTls, Slot, Standing,
};
use crate::policy::access::Ports;
use crate::policy::rate_limit::{Limits, States};
use crate::route::{Table, Upstream};
use crate::telemetry::Direction;
use crate::upstream::Cluster;

#[derive(Debug)]
pub(super) struct LiveInbound {
    version: Version,
    access: Arc<Ports>,
    /// What the limits of all ports are counted by.
    limits: States,
    ports: BTreeMap<u16, LivePort>,
}

/// One port of the app. Slot and cluster live as long as the port: connections hold the one, pools go by the other.
#[derive(Debug)]
struct LivePort {
    slot: Arc<Slot>,
    cluster: Arc<Cluster>,
}

#[derive(Debug)]
pub(super) struct LiveGateway {
    /// What it was made of: if all of it is the same, so is what would be made.
    made_of: MadeOf,
    ports: BTreeMap<u16, Arc<GatewayPortSlot>>,
    pub tables: Vec<RouteTableName>,
    /// Clusters its listeners name directly.
    pub uses: Vec<ClusterName>,
}

#[derive(Debug)]
struct MadeOf {
    version: Version,
    tables: BTreeMap<RouteTableName, Arc<Table>>,
    secrets: BTreeMap<SecretName, Option<Version>>,
}

impl Apply {
    pub(super) fn publish_own(&mut self, content: &mut Content, now: Instant) {
        let Some(Known::There { resource, version, .. }) = content.resources.get(&self.own) else { return };
        let (resource, version) = (resource.clone(), *version);
        match &*resource {
            Resource::Listener(Listener::Inbound(model)) => self.publish_inbound(model, version),
            Resource::Listener(Listener::Gateway(model)) => {
                self.publish_gateway(content, model, version, now)
            }
            _ => tracing::warn!(listener = %self.own.1, "this is not what this proxy listens for"),
        }
    }

    fn publish_inbound(&mut self, model: &InboundModel, version: Version) {
        if self.inbound.as_ref().is_some_and(|live| live.version == version) {
            return;
        }
        let (mut before, access, counted) = match self.inbound.take() {
            Some(live) => (live.ports, Some(live.access), live.limits),
            None => Default::default(),
        };
        let limits = States::of(
            model.ports.iter().map(|port| &port.limits),
            &counted,
            &self.telemetry.metrics,
            &self.servers,
        );
        let access = access.filter(|access| access.say(model));
        let access = access.unwrap_or_else(|| Arc::new(Ports::new(model, &self.telemetry.metrics)));
        let (mut ports, mut live) = (BTreeMap::new(), BTreeMap::new());
        for port in &model.ports {
            let metrics = self.service(Direction::Inbound, port.service.as_ref());
            let settings = app_cluster(port, &model.settings);
            let at = before.remove(&port.port);
            let cluster = match &at {
                Some(at) => {
                    at.cluster.update(settings);
                    at.cluster.clone()
                }
                None => Cluster::new(settings),
            };
            cluster.set_endpoints(app_endpoint(port));
            cluster.circuit().counted_by(|| self.telemetry.metrics.circuit(port.service.as_ref()));
            let attempts = self.telemetry.metrics.attempts(port.service.as_ref());
            let upstream = Upstream { cluster: cluster.clone(), attempts };
            let table = app_routes(port, &model.workload);
            let faults = self.experiments(&port.faults);
            let destination = Destination {
                service: port.service.clone(),
                protocol: port.protocol,
                routes: Arc::new(Table::compile(
                    &table,
                    |_| upstream.clone(),
                    |route| metrics.route(&route.name),
                    |_| faults.clone(),
                )),
                tls: Vec::new(),
                tcp: Backends::new(vec![(upstream.clone(), 1)], None).with_faults(faults),
                metrics,
                limits: Limits::new(&port.limits, &limits, &model.settings.trust_domain),
                origin: port.origin.clone(),
                stale: false,
            };
            let standing = Standing::Known(Arc::new(destination));
            let slot = match at {
                Some(at) => {
                    at.slot.set(standing);
                    at.slot
                }
                None => Slot::new(standing, self.mesh.seconds()),
            };
            let destination = slot.clone();
            let inbound =
                InboundPort { port: port.port, app: port.app, mtls: port.mtls.clone(), destination };
            ports.insert(port.port, Arc::new(inbound));
            live.insert(port.port, LivePort { slot, cluster });
        }
        // Connections to a port that is gone take no more exchanges.
        before.into_values().for_each(|gone| gone.slot.set(Standing::Unknown));
        tracing::info!(%version, ports = ports.len(), "inbound in force");
        self.inbound = Some(LiveInbound { version, access: access.clone(), limits, ports: live });
        self.telemetry.access_log.set(&model.settings.access_log);
        let (workload, settings) = (model.workload.clone(), model.settings.clone());
        let mtls = model.mtls.clone();
        self.mesh.set_inbound(Arc::new(Inbound { workload, ports, mtls, access, settings }));
    }

    fn publish_gateway(
        &mut self,
        content: &mut Content,
        model: &GatewayModel,
        version: Version,
        now: Instant,
    ) {
        let metrics = self.service(Direction::Gateway, None);
        let (mut tables, mut missing) = (BTreeMap::new(), None);
        let protocols =
            || model.ports.iter().flat_map(|port| &port.listeners).map(|listener| &listener.protocol);
        for name in protocols().filter_map(routes) {
            match self.table(content, name, &metrics, now) {
                Some(table) => drop(tables.insert(name.clone(), table)),
                None => missing = Some(name),
            }
        }
        let key = self.own.clone();
        if let Some(name) = missing {
            // Without its table a listener would refuse everything; that it does in the end disables no other listener.
            let since = *self.waiting.entry(key.clone()).or_insert(now);
            if now < since + WARMING {
                return self.wake_at(since + WARMING);
            }
            tracing::warn!(table = %name, "the gateway goes on without a route table that did not come");
        }
        let secrets =
            protocols().flat_map(certificates).map(|name| (name.clone(), secret_version(content, name)));
        let made_of = MadeOf { version, tables, secrets: secrets.collect() };
        if self.gateway.as_ref().is_some_and(|live| live.made_of == made_of) {
            return;
        }
        let mut uses: Vec<_> = protocols().flat_map(direct_backends).cloned().collect();
        uses.dedup();
        let replaces = self.gateway.is_some();
        if self.gateway.as_ref().is_none_or(|live| live.made_of.version != version)
            && !self.is_warm(content, &key, &uses, replaces, now)
        {
            return;
        }
        let mut before = self.gateway.take().map(|live| live.ports).unwrap_or_default();
        let mut ports = BTreeMap::new();
        for port in &model.ports {
            let listeners =
                port.listeners.iter().map(|listener| self.listener(content, listener, &made_of)).collect();
            let content = GatewayPort { port: port.port, listeners };
            let slot = match before.remove(&port.port) {
                Some(slot) => {
                    slot.set(Some(content));
                    slot
                }
                None => GatewayPortSlot::new(content),
            };
            ports.insert(port.port, slot);
        }
        before.into_values().for_each(|gone| gone.set(None));
        tracing::info!(%version, ports = ports.len(), "gateway in force");
        let tables = made_of.tables.keys().cloned().collect();
        self.gateway = Some(LiveGateway { made_of, ports: ports.clone(), tables, uses });
        self.restructured = true;
        self.telemetry.access_log.set(&model.settings.access_log);
        self.mesh.set_gateway(Arc::new(Gateway {
            namespace: model.namespace.clone(),
            name: model.name.clone(),
            ports,
            settings: model.settings.clone(),
        }));
    }

    fn listener(
        &mut self,
        content: &mut Content,
        model: &model::GatewayListener,
        made_of: &MadeOf,
    ) -> GatewayListener {
        let metrics = self.service(Direction::Gateway, None);
        let all = self.telemetry.metrics.clone();
        let table = routes(&model.protocol).and_then(|name| made_of.tables.get(name).cloned());
        let http = matches!(model.protocol, GatewayProtocol::Http { .. } | GatewayProtocol::Https { .. });
        let no_routes = || {
            let none = RouteTable { name: RouteTableName::new(""), hosts: Vec::new() };
            Arc::new(Table::compile(
                &none,
                |name| upstream(content, name, &all),
                |route| metrics.route(&route.name),
                |_| None,
            ))
        };
        let routes = table.unwrap_or_else(no_routes);
        let certificates =
            || certificates(&model.protocol).iter().filter_map(|name| certificate(content, name)).collect();
        let tls = match &model.protocol {
            GatewayProtocol::Http { .. } | GatewayProtocol::Tcp { .. } => ListenerTls::None,
            GatewayProtocol::TlsPassthrough { .. } => ListenerTls::Passthrough,
            GatewayProtocol::Https { .. } | GatewayProtocol::TlsTerminate { .. } => {
                ListenerTls::Terminate(certificates())
            }
        };
        let (tls_routes, tcp) = match &model.protocol {
            GatewayProtocol::TlsPassthrough { routes } => {
                (routes.iter().map(|route| self.tls_route(content, route)).collect(), Backends::default())
            }
            GatewayProtocol::Tcp { forward } | GatewayProtocol::TlsTerminate { forward, .. } => {
                (Vec::new(), self.backends(content, forward))
            }
            GatewayProtocol::Http { .. } | GatewayProtocol::Https { .. } => (Vec::new(), Backends::default()),
        };
        let destination = Destination {
            service: None,
            protocol: if http { Protocol::Http } else { Protocol::Tcp },
            routes,
            tls: tls_routes,
            tcp,
            metrics,
            limits: None,
            origin: Some(model.origin.clone()),
            stale: false,
        };
        GatewayListener {
            name: model.name.clone(),
            hostname: model.hostname.clone(),
            http,
            tls,
            destination: Arc::new(destination),
            origin: model.origin.clone(),
        }
    }
}

impl PartialEq for MadeOf {
    fn eq(&self, other: &Self) -> bool {
        let same_tables = || {
            self.tables.len() == other.tables.len()
                && self.tables.iter().zip(&other.tables).all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1))
        };
        self.version == other.version && self.secrets == other.secrets && same_tables()
    }
}

fn routes(protocol: &GatewayProtocol) -> Option<&RouteTableName> {
    match protocol {
        GatewayProtocol::Http { routes } | GatewayProtocol::Https { routes, .. } => Some(routes),
        GatewayProtocol::Tcp { .. }
        | GatewayProtocol::TlsPassthrough { .. }
        | GatewayProtocol::TlsTerminate { .. } => None,
    }
}

fn certificates(protocol: &GatewayProtocol) -> &[SecretName] {
    match protocol {
        GatewayProtocol::Https { certificates, .. } | GatewayProtocol::TlsTerminate { certificates, .. } => {
            certificates
        }
        GatewayProtocol::Http { .. }
        | GatewayProtocol::Tcp { .. }
        | GatewayProtocol::TlsPassthrough { .. } => &[],
    }
}

fn direct_backends(protocol: &GatewayProtocol) -> Vec<&ClusterName> {
    match protocol {
        GatewayProtocol::Http { .. } | GatewayProtocol::Https { .. } => Vec::new(),
        GatewayProtocol::Tcp { forward } | GatewayProtocol::TlsTerminate { forward, .. } => {
            forward.backends.iter().map(|backend| &backend.cluster).collect()
        }
        GatewayProtocol::TlsPassthrough { routes } => {
            routes.iter().flat_map(|route| &route.forward.backends).map(|backend| &backend.cluster).collect()
        }
    }
}

fn secret_version(content: &Content, name: &SecretName) -> Option<Version> {
    match content.resources.get(&needs::secret(name))? {
        Known::There { version, .. } => Some(*version),
        Known::Absent => None,
    }
}

fn certificate(content: &Content, name: &SecretName) -> Option<Certificate> {
    let Known::There { resource, .. } = content.resources.get(&needs::secret(name))? else { return None };
    let Resource::Secret(secret) = &**resource else { return None };
    match certified_key(secret) {
        Ok(key) => Some(Certificate { name: name.clone(), key: Arc::new(key) }),
        Err(error) => {
            tracing::warn!(secret = %name, error, "the gateway goes on without this certificate");
            None
        }
    }
}

/// The bundle in the form verifiers need it.
pub(super) fn roots(bundle: &TrustBundle) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, root) in bundle.roots().iter().enumerate() {
        let added = roots.add(CertificateDer::from(root.der()));
        added.map_err(|error| format!("root {index} is not a certificate: {error}"))?;
    }
    Ok(roots)
}

/// Certificate and key in the form handshakes need them. The error names the part that is wrong, never its content.
pub(super) fn certified_key(secret: &model::Secret) -> Result<CertifiedKey, String> {
    let chain =
        CertificateDer::pem_slice_iter(secret.certificate_chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("tls.crt: {error}"))?;
    if chain.is_empty() {
        return Err("tls.crt: no certificate in it".into());
    }
    let key = PrivateKeyDer::from_pem_slice(secret.private_key.as_bytes())
        .map_err(|error| format!("tls.key: {error}"))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|error| format!("tls.key: {error}"))
}

fn app_cluster(port: &model::InboundPort, settings: &ProxySettings) -> model::Cluster {
    model::Cluster {
        name: ClusterName::inbound(port.port),
        service: port.service.clone(),
        discovery: Discovery::Endpoints,
        http: if port.protocol == Protocol::Http2 { UpstreamHttp::Http2 } else { UpstreamHttp::AsReceived },
        connect_timeout: model::Cluster::DEFAULT_CONNECT_TIMEOUT,
        idle_timeout: settings.app_idle_timeout,
        multiplex: model::Multiplex::Never,
        // There is only one app: it is asked however it does, but for more than it can take.
        circuit_breaker: Arc::new(CircuitBreaker {
            ejection: None,
            adaptive: port.limits.adaptive.clone(),
            ..CircuitBreaker::default()
        }),
        balance: Default::default(),
        origin: port.origin.clone(),
    }
}

fn app_endpoint(port: &model::InboundPort) -> Endpoints {
    let endpoint = Endpoint {
        address: port.app,
        health: Health::Healthy,
        weight: 1,
        workload: None,
        zone: None,
        for_zones: vec![],
        identity: None,
        meshed: false,
    };
    Endpoints { cluster: ClusterName::inbound(port.port), endpoints: vec![endpoint] }
}

/// Everything goes to the app.
fn app_routes(port: &model::InboundPort, workload: &WorkloadRef) -> RouteTable {
    let cluster = ClusterName::inbound(port.port);
    let backend = Backend {
        target: BackendTarget::Cluster(cluster.clone()),
        weight: 1,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        rewrite: None,
    };
    let origin = port.origin.clone();
    let route = Route {
        name: "default".into(),
        origin: origin.unwrap_or_else(|| Origin::new("Workload", &workload.namespace, &workload.name, "")),
        matches: RouteMatch {
            path: PathMatch::prefix("/"),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        },
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        cors: None,
        mirrors: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        caps: None,
        faults: None,
        hash: vec![],
        action: Action::Forward(Forward { backends: vec![backend], rewrite: Rewrite::default() }),
    };
    let host = VirtualHost { domains: vec![HostPattern::Any], routes: vec![route] };
    RouteTable { name: RouteTableName::new(cluster.as_str()), hosts: vec![host] }
}
