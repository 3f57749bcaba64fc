//! One proxy, put together: what every other module has is built here and handed down; nothing is global.
//!
//! Owns the order of starting (sockets are bound before any thread runs, so that a port that is taken fails the start) and of stopping.
//! Used as a library by tests and by both binaries.

mod listeners;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use outrigger_config::model::DestinationName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::admin;
use crate::canary::{self, Canary};
use crate::discovery::{self, Cache, Own, Source};
use crate::dns::Resolver;
use crate::downstream::accept::{Handed, Lanes};
use crate::downstream::{self, Door, Listening, Role, listen};
use crate::drain::{self, Drain};
use crate::identity::{Identity, Provision};
use crate::mesh::Mesh;
use crate::runtime;
use crate::telemetry::Telemetry;
use crate::upstream::health;
use crate::worker::{Shared, Worker};
use listeners::Listeners;
pub use listeners::Offered;

/// What a proxy is and where it listens. Port 0 lets the kernel choose; [`Running`] knows what it chose.
#[derive(Clone, Debug)]
pub struct Setup {
    pub own: Own,
    /// `None`: by the CPU limit ([`runtime::worker_count`]).
    pub workers: Option<usize>,
    /// Where the app's connections arrive, redirected or as to an HTTP proxy.
    pub outbound: Vec<SocketAddr>,
    /// Where connections to the workload arrive that were redirected.
    pub inbound: Vec<SocketAddr>,
    /// Listen on each declared port of the workload at this address, because nothing redirects.
    pub inbound_listen: Option<IpAddr>,
    /// A socket that stands for one destination.
    pub service_addresses: Vec<(SocketAddr, DestinationName)>,
    /// Where a gateway listens on the ports of its listeners.
    pub gateway: Vec<IpAddr>,
    /// Added to listener ports below 1024. Default 0.
    pub low_port_offset: u16,
    /// Admin port; 15000 by its name.
    pub admin: SocketAddr,
    /// Metrics and health; 15020 by its name.
    pub metrics: SocketAddr,
    pub drain: drain::Timing,
    /// The pod's traffic is redirected here, which this proxy proves to itself before it is ready.
    pub captured: Option<Captured>,
    /// What the admin port changes the level of.
    pub log: admin::Log,
    /// Probes of the app that the metrics port answers for.
    pub app_probes: admin::AppProbes,
    /// Where the app of this pod is probed. Default 127.0.0.1.
    pub pod_address: IpAddr,
    /// Where its certificate comes from; without one it speaks plaintext. Default: nowhere.
    pub identity: Option<Provision>,
}

impl Setup {
    /// A proxy that listens nowhere but for those who look after it, on ports the kernel chooses.
    pub fn new(own: Own) -> Self {
        Self {
            own,
            workers: None,
            outbound: Vec::new(),
            inbound: Vec::new(),
            inbound_listen: None,
            service_addresses: Vec::new(),
            gateway: Vec::new(),
            low_port_offset: 0,
            admin: (Ipv4Addr::LOCALHOST, 0).into(),
            metrics: (Ipv4Addr::LOCALHOST, 0).into(),
            drain: drain::Timing::default(),
            captured: None,
            log: admin::Log::default(),
            app_probes: admin::AppProbes::default(),
            pod_address: Ipv4Addr::LOCALHOST.into(),
            identity: None,
        }
    }
}

/// How a proxy looks whether the pod's traffic is redirected to it.
#[derive(Clone, Debug)]
pub struct Captured {
    pub addresses: canary::Addresses,
    /// How often it looks again. Default 30 s.
    pub every: Duration,
}

/// A proxy at work. Dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    pub shared: Arc<Shared>,
    /// As bound, in the order of [`Setup`].
    pub outbound: Vec<SocketAddr>,
    pub inbound: Vec<SocketAddr>,
    pub service_addresses: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub metrics: SocketAddr,
    /// The ports that follow the configuration, as they are bound now.
    pub offered: watch::Receiver<Offered>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    background: Option<tokio::runtime::Runtime>,
}

/// Starts a proxy. `supply` says where its configuration comes from, and where a copy is kept; it is called on the background runtime.
pub fn start(
    setup: Setup,
    supply: impl FnOnce(&Shared) -> anyhow::Result<(Source, Option<Cache>)>,
) -> anyhow::Result<Running> {
    // An error says that another one is installed already, by whoever runs us.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let workers = runtime::worker_count(setup.workers);
    if let Err(error) = runtime::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let mut bound = Bound::default();
    bound.all(&setup, workers)?;
    let (admin, metrics) = (admin::bind(setup.admin)?, admin::bind(setup.metrics)?);
    let (admin_address, metrics_address) = (admin.local_addr()?, metrics.local_addr()?);

    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()?;
    let (mesh, asks) = Mesh::new();
    let shared = Arc::new(Shared {
        mesh: mesh.clone(),
        telemetry: Telemetry::new(workers),
        drain: Drain::new(setup.drain),
        dns: Resolver::system(background.handle().clone()),
        listening: Listening::default(),
        readiness: admin::Readiness::default(),
        identity: Identity::new(setup.identity.clone()),
        server_first: Default::default(),
        canary: setup.captured.as_ref().map(|_| Arc::default()),
    });
    shared.listening.set(bound.addresses(&setup));
    let _entered = background.enter();
    let (source, cache) = supply(&shared)?;
    background.spawn(shared.identity.clone().keep(shared.dns.clone()));
    let around = discovery::Around {
        telemetry: shared.telemetry.clone(),
        identity: shared.identity.clone(),
        dns: shared.dns.clone(),
        outbound: bound.outbound.first().copied(),
    };
    background.spawn(discovery::run(setup.own.clone(), mesh, asks, around, source, cache));
    if let (Some(Captured { addresses, every }), Some(canary)) = (&setup.captured, &shared.canary) {
        let condition =
            shared.readiness.require("whether the pod's traffic is redirected here is not known yet");
        background.spawn(Canary::watch(canary.clone(), condition, *addresses, *every));
    }
    let (watched, to_check) = watch::channel(Vec::new());
    background.spawn(health::follow(shared.mesh.clone(), watched));
    let (stop, stopping) = watch::channel(false);
    let (lanes, receivers) = Lanes::new(workers);
    let mut commands = Vec::new();
    let mut threads = Vec::new();
    for (index, handed) in receivers.into_iter().enumerate() {
        let (command, received) = mpsc::unbounded_channel();
        for (role, sockets) in &mut bound.sockets {
            let socket = sockets.pop().expect("one socket for each worker was bound");
            let listen = Command::Listen { socket, role: role.clone() };
            command.send(listen).expect("the receiving end was made above and not dropped yet");
        }
        commands.push(command);
        let worker = Lane {
            index,
            handed,
            commands: received,
            lanes: lanes.clone(),
            stopping: stopping.clone(),
            // Once for the whole proxy.
            to_check: (index == 0).then(|| to_check.clone()),
        };
        let shared = shared.clone();
        let thread = runtime::spawn(format!("worker-{index}"), move || worker.run(shared));
        threads.push(thread.context("starting a worker")?);
    }
    let (listeners, offered) = Listeners::new(&setup, shared.clone(), commands);
    background.spawn(admin::serve(
        admin,
        metrics,
        admin::State {
            shared: shared.clone(),
            log: setup.log.clone(),
            started: Instant::now(),
            probes: setup.app_probes.clone(),
            pod: setup.pod_address,
        },
    ));
    background.spawn(listeners.follow());
    Ok(Running {
        shared,
        outbound: bound.outbound,
        inbound: bound.inbound,
        service_addresses: bound.service_addresses,
        admin: admin_address,
        metrics: metrics_address,
        offered,
        stop,
        workers: threads,
        background: Some(background),
    })
}

impl Running {
    /// Drains on SIGTERM and SIGINT, and returns when the process is to end.
    pub fn wait(&self) -> anyhow::Result<()> {
        self.background().block_on(async {
            self.shared.drain.on_signals().context("listening for signals")?;
            self.shared.drain.run().await;
            Ok(())
        })
    }

    fn background(&self) -> &tokio::runtime::Handle {
        self.background.as_ref().expect("only dropping takes it away").handle()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        if let Some(background) = self.background.take() {
            background.shutdown_background();
        }
    }
}

/// What a worker is told while it runs.
#[derive(Debug)]
enum Command {
    Listen {
        socket: std::net::TcpListener,
        role: Role,
    },
    /// Take what still waits for this role and close its sockets.
    Close {
        role: Role,
    },
}

#[derive(Default)]
struct Bound {
    sockets: Vec<(Role, Vec<std::net::TcpListener>)>,
    outbound: Vec<SocketAddr>,
    inbound: Vec<SocketAddr>,
    service_addresses: Vec<SocketAddr>,
}

impl Bound {
    fn all(&mut self, setup: &Setup, workers: usize) -> io::Result<()> {
        for address in &setup.outbound {
            let bound = self.one(*address, Role::Outbound, workers)?;
            self.outbound.push(bound);
        }
        for address in &setup.inbound {
            let bound = self.one(*address, Role::Inbound, workers)?;
            self.inbound.push(bound);
        }
        for (address, name) in &setup.service_addresses {
            let bound = self.one(*address, Role::ServiceAddress(name.clone()), workers)?;
            self.service_addresses.push(bound);
        }
        Ok(())
    }

    fn one(&mut self, address: SocketAddr, role: Role, workers: usize) -> io::Result<SocketAddr> {
        let sockets = listen::bind(address, workers)?;
        let bound = sockets[0].local_addr()?;
        self.sockets.push((role, sockets));
        Ok(bound)
    }

    /// Where a connection made by us would come back to us, and as which service.
    fn addresses(&self, setup: &Setup) -> Vec<(SocketAddr, Option<DestinationName>)> {
        let services = setup.service_addresses.iter().map(|(_, name)| Some(name.clone()));
        let service_addresses = self.service_addresses.iter().copied().zip(services);
        let plain = self.outbound.iter().chain(&self.inbound).map(|address| (*address, None));
        plain.chain(service_addresses).collect()
    }
}

/// A worker's thread before it runs.
struct Lane {
    index: usize,
    handed: mpsc::Receiver<Handed<Door>>,
    commands: mpsc::UnboundedReceiver<Command>,
    lanes: Lanes<Door>,
    stopping: watch::Receiver<bool>,
    to_check: Option<health::Watched>,
}

impl Lane {
    async fn run(mut self, shared: Arc<Shared>) {
        let worker = Worker::new(shared, self.index);
        tokio::task::spawn_local(worker.access.clone().follow());
        tokio::task::spawn_local(worker.drained.clone().follow(worker.shared.drain.watch()));
        if let Some(watched) = self.to_check.take() {
            tokio::task::spawn_local(health::run(worker.clone(), watched));
        }
        // Dropping a sender closes its socket.
        let mut accepting: Vec<(Role, oneshot::Sender<()>)> = Vec::new();
        loop {
            tokio::select! {
                Some(command) = self.commands.recv() => match command {
                    Command::Listen { socket, role } => {
                        let socket = match tokio::net::TcpListener::from_std(socket) {
                            Ok(socket) => socket,
                            Err(error) => {
                                tracing::error!(%error, ?role, "cannot listen");
                                continue;
                            }
                        };
                        let port = socket.local_addr().map_or(0, |at| at.port());
                        let (worker, served) = (worker.clone(), Door { role: role.clone(), port });
                        let serve = move |accepted| { tokio::task::spawn_local(downstream::serve(accepted, worker.clone())); };
                        let (open, closed) = oneshot::channel();
                        let closed = async move { _ = closed.await };
                        let lanes = self.lanes.clone();
                        let accept = downstream::accept::accept(socket, served, lanes, self.index, closed, serve);
                        tokio::task::spawn_local(accept);
                        accepting.push((role, open));
                    }
                    Command::Close { role } => accepting.retain(|(open, _)| *open != role),
                },
                Some(handed) = self.handed.recv() => match handed.accept() {
                    Ok(accepted) => { tokio::task::spawn_local(downstream::serve(accepted, worker.clone())); }
                    Err(error) => tracing::warn!(%error, "a connection from another worker was lost"),
                },
                stopped = self.stopping.wait_for(|stop| *stop) => {
                    // An error says that whoever could stop us is gone.
                    let _ = stopped;
                    return;
                }
            }
        }
    }
}
