//! The proxy put together: sockets, workers, configuration, admin.
//!
//! Owns what is started, in which order, and what a connection is given to by where it arrived. All sockets that are known from
//! the start are bound before any thread runs, so that a port that is taken ends the start. Those that follow the configuration (the
//! workload's ports, a gateway's) open and close with it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use outrigger_config::model::DestinationName;
use outrigger_config::resolve::Subscriber;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::admin;
use crate::discovery::{self, Own, Source};
use crate::dns::Resolver;
use crate::downstream::accept::{Accepted, Handed, Lanes, accept};
use crate::downstream::{Arrival, Listening, gateway, inbound, listen, original_dst, outbound};
use crate::drain::{Drain, Phase, Timing};
use crate::mesh::Mesh;
use crate::options::Options;
use crate::runtime;
use crate::telemetry::{Direction, Telemetry, Tls};
use crate::worker::{Shared, Worker};

/// What a listening socket is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Outbound,
    Service(DestinationName),
    /// Redirected: each connection knows its port.
    Inbound,
    InboundPort(u16),
    GatewayPort(u16),
}

impl Entry {
    fn direction(&self) -> Direction {
        match self {
            Self::Outbound | Self::Service(_) => Direction::Outbound,
            Self::Inbound | Self::InboundPort(_) => Direction::Inbound,
            Self::GatewayPort(_) => Direction::Gateway,
        }
    }
}

/// What a worker is told.
enum Order {
    Open { address: SocketAddr, socket: std::net::TcpListener, entry: Entry },
    Close { address: SocketAddr },
}

/// Orders waiting for one worker.
const ORDERS: usize = 256;

/// Runs a proxy until it is told to end. Must be called on a multi-thread runtime, which becomes the background one.
pub async fn run(options: Options) -> anyhow::Result<()> {
    if let Err(error) = runtime::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    // An error says that another one is installed already, by whoever runs us.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let workers = runtime::worker_count(options.workers);
    let telemetry = Telemetry::new(workers);
    let drain = Drain::new(Timing { window: options.drain_window, deadline: options.drain_deadline });
    let (mesh, asks) = Mesh::new();
    let shared = Arc::new(Shared {
        mesh: mesh.clone(),
        telemetry: telemetry.clone(),
        drain: drain.clone(),
        dns: Resolver::system(tokio::runtime::Handle::current()),
        listening: Listening::default(),
    });

    let (own, who) = match &options.gateway {
        Some(name) => (
            Own::Gateway { namespace: options.namespace.as_str().into(), name: name.as_str().into() },
            Subscriber::gateway(&options.namespace, name),
        ),
        None => {
            let name = options.workload.as_deref().context("--workload or --gateway is needed")?;
            (Own::Sidecar, Subscriber::sidecar(&options.namespace, name))
        }
    };
    let mut sockets = Sockets { shared: shared.clone(), workers: Vec::new(), open: BTreeMap::new() };
    let mut receivers = Vec::new();
    for _ in 0..workers {
        let (orders, receiver) = mpsc::channel(ORDERS);
        sockets.workers.push(orders);
        receivers.push(receiver);
    }
    if options.gateway.is_none() {
        sockets.open(options.outbound(), Entry::Outbound).await?;
        sockets.open(options.inbound(), Entry::Inbound).await?;
        for address in &options.service_address {
            sockets.open(address.listen, Entry::Service(address.service.clone())).await?;
        }
    }
    let admin_socket = admin::bind(options.admin())?;
    let metrics_socket = admin::bind(options.metrics())?;

    let (lanes, handed) = Lanes::new(workers);
    for (id, (orders, handed)) in receivers.into_iter().zip(handed).enumerate() {
        let (shared, lanes) = (shared.clone(), lanes.clone());
        runtime::spawn(format!("worker-{id}"), move || {
            attend(Worker::new(shared, id), id, lanes, orders, handed)
        })
        .context("starting a worker")?;
    }

    let source = Source::files(options.manifests.clone(), who).context("watching the manifests")?;
    tokio::spawn(discovery::run(own, mesh.clone(), asks, telemetry, source));
    let listening = admin::Listening::default();
    tokio::spawn(admin::serve(admin_socket, metrics_socket, shared.clone(), listening.clone()));
    tokio::spawn(follow(sockets, options, listening));
    drain.on_signals().context("listening for signals")?;
    drain.run().await;
    Ok(())
}

/// The sockets of all workers.
struct Sockets {
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Order>>,
    open: BTreeMap<SocketAddr, Entry>,
}

impl Sockets {
    async fn open(&mut self, address: SocketAddr, entry: Entry) -> io::Result<()> {
        let sockets = listen::bind(address, self.workers.len())?;
        for (orders, socket) in self.workers.iter().zip(sockets) {
            let order = Order::Open { address, socket, entry: entry.clone() };
            orders.send(order).await.map_err(|_| io::Error::other("a worker is gone"))?;
        }
        self.open.insert(address, entry);
        self.publish();
        Ok(())
    }

    async fn close(&mut self, address: SocketAddr) {
        self.open.remove(&address);
        self.publish();
        for orders in &self.workers {
            // A worker that is gone has no sockets.
            let _ = orders.send(Order::Close { address }).await;
        }
    }

    fn publish(&self) {
        self.shared.listening.set(self.open.keys().copied().collect());
    }
}

/// Keeps the sockets that follow the configuration in line with it. Readiness waits for them.
async fn follow(mut sockets: Sockets, options: Options, listening: admin::Listening) {
    let mesh = sockets.shared.mesh.clone();
    let (mut inbound, mut gateway) = (mesh.inbound(), mesh.gateway());
    let mut drain = sockets.shared.drain.watch();
    loop {
        let wanted = wanted(&mesh, &options);
        let dynamic = |entry: &Entry| matches!(entry, Entry::InboundPort(_) | Entry::GatewayPort(_));
        let gone: Vec<_> = sockets
            .open
            .iter()
            .filter(|(address, entry)| dynamic(entry) && wanted.get(*address) != Some(*entry))
            .map(|(address, _)| *address)
            .collect();
        for address in gone {
            sockets.close(address).await;
        }
        let mut failed = Vec::new();
        for (address, entry) in wanted {
            if !sockets.open.contains_key(&address)
                && let Err(error) = sockets.open(address, entry).await
            {
                tracing::error!("{error}");
                failed.push(error.to_string());
            }
        }
        let retry = !failed.is_empty();
        if mesh.is_configured() {
            listening.set(failed);
        }
        tokio::select! {
            _ = inbound.changed() => {}
            _ = gateway.changed() => {}
            // Somebody else may leave the port.
            () = tokio::time::sleep(std::time::Duration::from_secs(1)), if retry => {}
            () = drain.reached(Phase::Ended) => break,
        }
    }
    let closing: Vec<_> = sockets
        .open
        .iter()
        .filter(|(_, entry)| entry.direction() != Direction::Outbound)
        .map(|(address, _)| *address)
        .collect();
    for address in closing {
        sockets.close(address).await;
    }
    // Outbound goes on as long as the process does.
    std::future::pending::<()>().await;
}

fn wanted(mesh: &Mesh, options: &Options) -> BTreeMap<SocketAddr, Entry> {
    let mut wanted = BTreeMap::new();
    if options.inbound_listen
        && let Some(inbound) = mesh.inbound().borrow().as_ref()
    {
        let ports =
            inbound.ports.keys().map(|port| ((options.pod_address, *port).into(), Entry::InboundPort(*port)));
        wanted.extend(ports);
    }
    if let Some(gateway) = mesh.gateway().borrow().as_ref() {
        for port in gateway.ports.keys() {
            let offset = if *port < 1024 { options.low_port_offset } else { 0 };
            wanted.insert((options.pod_address, port + offset).into(), Entry::GatewayPort(*port));
        }
    }
    wanted
}

/// One worker: opens and closes sockets as told, serves what arrives.
async fn attend(
    worker: Rc<Worker>,
    id: usize,
    lanes: Lanes<Entry>,
    mut orders: mpsc::Receiver<Order>,
    mut handed: mpsc::Receiver<Handed<Entry>>,
) {
    let mut sockets: HashMap<SocketAddr, JoinHandle<()>> = HashMap::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Open { address, socket, entry }) => match TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let (lanes, worker) = (lanes.clone(), worker.clone());
                        let serve = move |accepted| serve(&worker, accepted);
                        sockets.insert(address, tokio::task::spawn_local(accept(socket, entry, lanes, id, serve)));
                    }
                    Err(error) => tracing::error!(%address, %error, "a socket cannot be watched"),
                },
                Some(Order::Close { address }) => {
                    if let Some(accepting) = sockets.remove(&address) {
                        accepting.abort();
                    }
                }
                None => return,
            },
            Some(given) = handed.recv() => match given.accept() {
                Ok(accepted) => serve(&worker, accepted),
                Err(error) => tracing::warn!(%error, "a connection cannot be watched"),
            },
        }
    }
}

fn serve(worker: &Rc<Worker>, accepted: Accepted<Entry>) {
    let Accepted { stream, peer, listener, open } = accepted;
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let _open = open;
        let direction = listener.direction();
        let metrics = &worker.shared.telemetry.metrics;
        let _counted = metrics.connection(worker.id, direction, Tls::None);
        if let Err(error) = connection(worker, stream, peer, listener).await {
            tracing::debug!(client = %peer, %error, "a connection was gone before it was served");
        }
    });
}

async fn connection(
    worker: Rc<Worker>,
    stream: TcpStream,
    client: SocketAddr,
    entry: Entry,
) -> io::Result<()> {
    let local = original_dst::canonical(stream.local_addr()?);
    let original = original_dst::original_dst(&stream);
    let arrival = |port| Arrival {
        worker: worker.clone(),
        direction: entry.direction(),
        client: original_dst::canonical(client),
        port,
        secure: false,
    };
    let mesh = &worker.shared.mesh;
    match &entry {
        Entry::Outbound => match original {
            Some(original) => outbound::redirected(stream, arrival(original.port()), original).await,
            None => outbound::proxied(stream, arrival(local.port())).await,
        },
        Entry::Service(name) => outbound::service_address(stream, arrival(name.port()), name.clone()).await,
        Entry::Inbound => {
            let reached = original.unwrap_or(local);
            let port =
                mesh.inbound().borrow().as_ref().and_then(|own| own.ports.get(&reached.port()).cloned());
            // Our own ports are no ports of the app: from outside they are redirected here like any other.
            let original = original.filter(|original| !worker.shared.listening.is_ours(*original));
            inbound::serve(stream, arrival(reached.port()), port, original).await;
        }
        Entry::InboundPort(number) => {
            let port = mesh.inbound().borrow().as_ref().and_then(|own| own.ports.get(number).cloned());
            inbound::serve(stream, arrival(*number), port, None).await;
        }
        Entry::GatewayPort(number) => {
            let slot =
                mesh.gateway().borrow().as_ref().and_then(|gateway| gateway.ports.get(number).cloned());
            if let Some(slot) = slot {
                gateway::serve(stream, arrival(local.port()), slot).await;
            }
        }
    }
    Ok(())
}
