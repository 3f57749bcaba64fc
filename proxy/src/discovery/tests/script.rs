//! A source that says what a test tells it to, and resources to say.

use outrigger_config::model::{
    self, AccessLog, Backend, BackendTarget, Cluster, ClusterName, Endpoint, Endpoints, Forward, HeaderEdits,
    HostPattern, Inbound, InboundPort, Listener, Mtls, Origin, PathMatch, Protocol, ProxySettings, Rewrite,
    Route, RouteMatch, RouteTable, RouteTableName, ServiceRef, TcpForward, Timeouts, UpstreamHttp,
    VirtualHost, WeightedCluster, WorkloadRef,
};
use tokio::task::JoinHandle;

use super::*;

pub struct Script {
    pub mesh: Arc<Mesh>,
    end: SourceEnd,
}

impl Script {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    pub fn start_with(cache: Option<Cache>) -> Self {
        let (mesh, asks) = Mesh::new();
        let (source, end) = Source::new("script");
        tokio::spawn(run(Own::Sidecar, mesh.clone(), asks, Around::nothing(), source, cache));
        Self { mesh, end }
    }

    pub async fn connect(&mut self) {
        self.tell(Event::Connected).await;
    }

    pub async fn disconnect(&mut self) {
        self.tell(Event::Disconnected { error: "told to".into() }).await;
    }

    pub async fn say(&mut self, resources: Vec<Resource>) {
        // As a source would: a listener is answered first, then what it turns out to need.
        for kind in ResourceKind::ALL {
            let of_kind =
                resources.iter().filter(|r| r.kind() == kind).cloned().map(Change::There).collect::<Vec<_>>();
            if !of_kind.is_empty() {
                self.tell(Event::update(of_kind).0).await;
            }
        }
    }

    pub async fn absent(&mut self, kind: ResourceKind, name: &str) {
        self.tell(Event::update(vec![Change::Absent((kind, name.into()))]).0).await;
    }

    async fn tell(&mut self, event: Event) {
        self.end.events.send(event).await.expect("discovery runs");
        self.applied().await;
    }

    /// Until everything told or asked so far was taken up.
    async fn applied(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    pub fn ask(&self, host: &str) -> JoinHandle<Lookup> {
        let (mesh, name) = (self.mesh.clone(), name(host));
        tokio::spawn(async move { mesh.destination(&name).await })
    }

    pub async fn lookup(&self, host: &str) -> Lookup {
        self.mesh.destination(&name(host)).await
    }

    /// Asks, answers and returns the slot.
    pub async fn known(&mut self, host: &str, addresses: &[&str]) -> Arc<Slot> {
        let asked = self.ask(host);
        self.applied().await;
        self.say(service(host, addresses)).await;
        match asked.await.expect("no panic") {
            Lookup::Known(slot) => slot,
            other => panic!("{host}: {other:?}"),
        }
    }

    pub fn wanted(&self) -> BTreeSet<Key> {
        (**self.end.wanted.borrow()).clone()
    }

    pub async fn wants(&mut self, name: &str) {
        let wanted = |keys: &Arc<BTreeSet<Key>>| keys.iter().any(|(_, wanted)| **wanted == *name);
        self.end.wanted.wait_for(wanted).await.expect("discovery runs");
    }
}

pub fn name(host: &str) -> DestinationName {
    DestinationName::new(host, 80).expect("valid")
}

fn cluster_name(service: &str) -> ClusterName {
    ClusterName::outbound(80, "", service)
}

fn table_name(service: &str) -> RouteTableName {
    RouteTableName::new(format!("outbound|80|{service}"))
}

/// A Service as all its resources.
pub fn service(service: &str, addresses: &[&str]) -> Vec<Resource> {
    vec![
        listener(service, service),
        table(service, &[(service, 1)]),
        cluster(service),
        endpoints(service, addresses),
    ]
}

/// The name an app uses, and the service it stands for.
pub fn listener(host: &str, service: &str) -> Resource {
    Resource::Listener(Listener::Destination(model::Destination {
        name: name(host),
        service: Some(ServiceRef::new("default", service)),
        protocol: Protocol::Detect,
        routes: table_name(service),
        tls: Vec::new(),
        tcp: TcpForward {
            backends: vec![WeightedCluster { cluster: cluster_name(service), weight: 1 }],
            idle: None,
            faults: None,
        },
        origin: None,
    }))
}

/// The same name, sending somewhere else.
pub fn listener_to(host: &str, service: &str) -> Resource {
    listener(host, service)
}

pub fn table(service: &str, backends: &[(&str, u32)]) -> Resource {
    let edits = HeaderEdits::default;
    let backends = backends.iter().map(|(to, weight)| Backend {
        target: BackendTarget::Cluster(cluster_name(to)),
        weight: *weight,
        request_headers: edits(),
        response_headers: edits(),
        rewrite: None,
    });
    let route = Route {
        name: "default".into(),
        origin: Origin::new("Service", "default", service, ""),
        matches: RouteMatch { path: PathMatch::prefix("/"), method: None, headers: vec![], query: vec![] },
        request_headers: edits(),
        response_headers: edits(),
        cors: None,
        mirrors: vec![],
        timeouts: Timeouts::default(),
        retry: None,
        caps: None,
        faults: None,
        hash: vec![],
        action: model::Action::Forward(Forward { backends: backends.collect(), rewrite: Rewrite::default() }),
    };
    let host = VirtualHost { domains: vec![HostPattern::Any], routes: vec![route] };
    Resource::RouteTable(RouteTable { name: table_name(service), hosts: vec![host] })
}

pub fn cluster(service: &str) -> Resource {
    Resource::Cluster(Cluster {
        name: cluster_name(service),
        service: Some(ServiceRef::new("default", service)),
        discovery: model::Discovery::Endpoints,
        http: UpstreamHttp::AsReceived,
        connect_timeout: Cluster::DEFAULT_CONNECT_TIMEOUT,
        idle_timeout: Cluster::DEFAULT_IDLE_TIMEOUT,
        multiplex: outrigger_config::model::Multiplex::Never,
        circuit_breaker: Default::default(),
        balance: Default::default(),
        origin: None,
    })
}

pub fn endpoints(service: &str, addresses: &[&str]) -> Resource {
    let endpoint = |address: &&str| Endpoint {
        address: address.parse().expect("an address"),
        health: Health::Healthy,
        weight: 1,
        workload: None,
        zone: None,
        for_zones: vec![],
        identity: None,
        meshed: false,
    };
    Resource::Endpoints(Endpoints {
        cluster: cluster_name(service),
        endpoints: addresses.iter().map(endpoint).collect(),
    })
}

pub fn inbound(ports: &[(u16, &str)], egress: Egress) -> Resource {
    let port = |(port, app): &(u16, &str)| InboundPort {
        port: *port,
        protocol: Protocol::Detect,
        app: app.parse().expect("an address"),
        service: None,
        mtls: Mtls::default(),
        limits: Default::default(),
        faults: Vec::new(),
        origin: None,
    };
    Resource::Listener(Listener::Inbound(Inbound {
        workload: WorkloadRef {
            namespace: "default".into(),
            name: "productpage-1".into(),
            service_account: "productpage".into(),
        },
        ports: ports.iter().map(port).collect(),
        mtls: Mtls::default(),
        access: Default::default(),
        settings: ProxySettings { egress, access_log: AccessLog::default(), ..ProxySettings::default() },
    }))
}

/// Addresses a TCP connection would go to.
pub fn endpoints_of(slot: &Slot) -> Vec<String> {
    let destination = slot.current().expect("known");
    let cluster = &destination.tcp.iter().next().expect("a backend").cluster;
    cluster.endpoints().iter().map(|endpoint| endpoint.address.to_string()).collect()
}

/// Clusters a request would go to.
pub fn backends_of(slot: &Slot) -> Vec<String> {
    let destination = slot.current().expect("known");
    let (method, headers) = (http::Method::GET, http::HeaderMap::new());
    let head = model::RequestHead { method: &method, host: "any", path: "/", query: None, headers: &headers };
    let route = destination.routes.find(&head).expect("a route");
    let Action::Forward(forward) = &route.action else { panic!("a redirect") };
    let names = forward.backends.iter().map(|backend| match &backend.target {
        Target::Cluster(upstream) => upstream.cluster.settings().name.to_string(),
        Target::Invalid(why) => panic!("{why}"),
    });
    names.collect()
}
