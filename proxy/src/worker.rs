//! What all workers share, and what each has for itself.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use outrigger_config::model::{
    self, ClusterName, DestinationName, Discovery, Endpoint, Endpoints, Health, Origin, Protocol,
    UpstreamHttp,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::canary::Canary;
use crate::coalesce::Flusher;
use crate::dns::Resolver;
use crate::drain::{self, Drain};
use crate::identity::Identity;
use crate::mesh::{Backends, Destination, Inbound, Mesh};
use crate::policy::access::Access;
use crate::policy::deadline::Written;
use crate::route::{Table, Upstream};
use crate::telemetry::{self, Direction, ServiceMetrics, Telemetry};
use crate::timers::Timers;
use crate::upstream::{Cluster, Pools};

/// One a proxy.
#[derive(Debug)]
pub struct Shared {
    pub mesh: Arc<Mesh>,
    pub telemetry: Arc<Telemetry>,
    pub drain: Arc<Drain>,
    pub dns: Arc<Resolver>,
    pub listening: crate::downstream::Listening,
    pub readiness: crate::admin::Readiness,
    pub identity: Arc<Identity>,
    pub server_first: crate::downstream::ServerFirst,
    /// There where the pod's traffic is redirected to this proxy.
    pub canary: Option<Arc<Canary>>,
}

/// One a thread; its tasks alone use it.
#[derive(Debug)]
pub struct Worker {
    pub shared: Arc<Shared>,
    pub id: telemetry::Worker,
    pub pools: Rc<Pools>,
    /// Writes the HTTP/2 connections out at the end of a turn.
    pub flusher: Rc<Flusher>,
    /// How far a drain is.
    pub drained: Rc<drain::Seen>,
    /// Of connections and exchanges.
    pub timers: Rc<Timers>,
    /// Of deadlines.
    pub written: Written,
    rng: RefCell<SmallRng>,
    outside: RefCell<HashMap<(Direction, DestinationName), Outside>>,
    pub inbound: watch::Receiver<Option<Arc<Inbound>>>,
    /// Who may call the workload.
    pub access: Rc<Access>,
    pub tls: crate::downstream::Configurations,
    mirrors: Cell<usize>,
    unaddressed: [Arc<ServiceMetrics>; 3],
}

impl Worker {
    pub fn new(shared: Arc<Shared>, id: usize) -> Rc<Self> {
        let metrics = &shared.telemetry.metrics;
        let unaddressed = [Direction::Inbound, Direction::Outbound, Direction::Gateway]
            .map(|direction| metrics.service(direction, None));
        let flusher = Rc::<Flusher>::default();
        Rc::new(Self {
            inbound: shared.mesh.inbound(),
            access: Access::new(shared.mesh.inbound(), telemetry::Worker(id)),
            pools: Pools::new(
                shared.dns.clone(),
                shared.identity.clone(),
                shared.telemetry.metrics.clone(),
                telemetry::Worker(id),
                shared.canary.is_some(),
                flusher.clone(),
            ),
            flusher,
            drained: drain::Seen::new(),
            timers: Timers::new(),
            written: Written::default(),
            shared,
            id: telemetry::Worker(id),
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            outside: RefCell::default(),
            tls: Default::default(),
            mirrors: Cell::new(0),
            unaddressed,
        })
    }

    /// The handles of what is addressed to nothing the mesh knows.
    pub fn unaddressed(&self, direction: Direction) -> Arc<ServiceMetrics> {
        self.unaddressed[direction as usize].clone()
    }

    /// Not for keys or anything else an outsider may not guess.
    pub fn with_rng<T>(&self, use_it: impl FnOnce(&mut SmallRng) -> T) -> T {
        use_it(&mut self.rng.borrow_mut())
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.with_rng(|rng| rng.random_range(0..bound))
    }

    /// A place for one more mirrored request, as long as there are not too many.
    pub fn begin_mirror(self: &Rc<Self>) -> Option<Mirroring> {
        let now = self.mirrors.get();
        (now < MIRRORS).then(|| {
            self.mirrors.set(now + 1);
            Mirroring(self.clone())
        })
    }

    /// Something the mesh does not know, by name or address. Remembered for a while, so that its connections are used again.
    pub fn outside(&self, name: &DestinationName) -> Arc<Destination> {
        self.undeclared(Direction::Outbound, name)
    }

    /// A port of the app that the workload does not declare, where `direction` is inbound; else as [`Self::outside`].
    pub fn undeclared(&self, direction: Direction, name: &DestinationName) -> Arc<Destination> {
        let key = (direction, name.clone());
        let mut outside = self.outside.borrow_mut();
        let now = Instant::now();
        if let Some((destination, used)) = outside.get_mut(&key) {
            *used = now;
            return destination.clone();
        }
        if outside.len() >= OUTSIDE {
            let oldest = outside.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.map(|key| outside.remove(&key));
        }
        let destination = Arc::new(self.make_outside(direction, name));
        outside.insert(key, (destination.clone(), now));
        destination
    }

    fn make_outside(&self, direction: Direction, name: &DestinationName) -> Destination {
        let address = name.as_ip();
        let discovery = match address {
            Some(_) => Discovery::Endpoints,
            None => Discovery::Dns { host: name.host().into(), port: name.port() },
        };
        let cluster_name = match direction {
            Direction::Inbound => ClusterName::inbound(name.port()),
            Direction::Outbound | Direction::Gateway => ClusterName::outbound(name.port(), "", name.host()),
        };
        let cluster = Cluster::new(model::Cluster {
            name: cluster_name.clone(),
            service: None,
            discovery,
            http: UpstreamHttp::AsReceived,
            connect_timeout: OUTSIDE_CONNECT_TIMEOUT,
            idle_timeout: model::Cluster::DEFAULT_IDLE_TIMEOUT,
            multiplex: model::Multiplex::Never,
            circuit_breaker: Default::default(),
            balance: Default::default(),
            origin: None,
        });
        if let Some(ip) = address {
            let endpoint = Endpoint {
                address: (ip, name.port()).into(),
                health: Health::Healthy,
                weight: 1,
                workload: None,
                zone: None,
                for_zones: vec![],
                identity: None,
                meshed: false,
            };
            cluster.set_endpoints(Endpoints { cluster: cluster_name.clone(), endpoints: vec![endpoint] });
        }
        let metrics = &self.shared.telemetry.metrics;
        let service = metrics.service(direction, None);
        let upstream = Upstream { cluster, attempts: metrics.attempts(None) };
        let origin = Origin::new("Mesh", "", "", "spec.egress");
        Destination {
            service: None,
            protocol: Protocol::Detect,
            routes: Arc::new(Table::forwarding(
                cluster_name.as_str().into(),
                upstream.clone(),
                service.route("default"),
                origin,
                None,
            )),
            tls: Vec::new(),
            tcp: Backends::new(vec![(upstream, 1)], None),
            metrics: service,
            limits: None,
            origin: None,
            stale: false,
        }
    }
}

/// A destination that is not of the mesh, and when it was used last.
type Outside = (Arc<Destination>, Instant);

/// A mirrored request on its way.
#[derive(Debug)]
pub struct Mirroring(Rc<Worker>);

impl Drop for Mirroring {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get() - 1);
    }
}

/// Mirrored requests a worker has on their way at most; what comes on top is not mirrored. Each may hold a body of 64 KiB.
const MIRRORS: usize = 256;

/// Destinations outside the mesh a worker remembers at most.
const OUTSIDE: usize = 256;

/// Beyond the mesh round trips are longer.
const OUTSIDE_CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
