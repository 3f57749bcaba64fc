//! The ports that follow the configuration: a gateway's, and the workload's where nothing redirects.
//!
//! Owns their sockets' coming and going, and that no inbound socket outlives the moment a drain refuses new connections. A port that cannot be bound is reported and tried again with the next change; the others work.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Command, Setup};
use crate::admin;
use crate::downstream::{Role, listen};
use crate::drain::Phase;
use crate::worker::Shared;

/// Declared ports and where they are offered, with the reason where they are not.
pub type Offered = BTreeMap<u16, Vec<Result<SocketAddr, Arc<str>>>>;

#[derive(Debug)]
pub(super) struct Listeners {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    inbound: Option<IpAddr>,
    gateway: Vec<IpAddr>,
    low_port_offset: u16,
    open: BTreeMap<(u16, IpAddr), Open>,
    offered: watch::Sender<Offered>,
    /// Told once the ports were tried.
    readiness: admin::Condition,
}

#[derive(Debug)]
struct Open {
    role: Role,
    at: Result<SocketAddr, Arc<str>>,
}

/// A port that is taken may become free.
const AGAIN: Duration = Duration::from_secs(5);

impl Listeners {
    pub fn new(
        setup: &Setup,
        shared: Arc<Shared>,
        workers: Vec<mpsc::UnboundedSender<Command>>,
    ) -> (Self, watch::Receiver<Offered>) {
        let (offered, offers) = watch::channel(Offered::new());
        let readiness = shared.readiness.require("the ports are not open yet");
        let listeners = Self {
            shared,
            workers,
            inbound: setup.inbound_listen,
            gateway: setup.gateway.clone(),
            low_port_offset: setup.low_port_offset,
            open: BTreeMap::new(),
            offered,
            readiness,
        };
        (listeners, offers)
    }

    /// Until a drain refuses new connections: then every inbound socket is closed, those of redirected traffic, too.
    pub async fn follow(mut self) {
        let (mut inbound, mut gateway) = (self.shared.mesh.inbound(), self.shared.mesh.gateway());
        let mut drain = self.shared.drain.watch();
        loop {
            let mut wanted = BTreeMap::new();
            if let (Some(ip), Some(inbound)) = (self.inbound, &*inbound.borrow_and_update()) {
                for port in inbound.ports.keys() {
                    wanted.insert((*port, ip), Role::InboundPort(*port));
                }
            }
            if let Some(gateway) = &*gateway.borrow_and_update() {
                for (port, slot) in &gateway.ports {
                    for ip in &self.gateway {
                        wanted.insert((*port, *ip), Role::Gateway(*port, slot.clone()));
                    }
                }
            }
            self.become_so(wanted);
            let missing = self.open.values().any(|open| open.at.is_err());
            let again = Instant::now() + AGAIN;
            let changed = tokio::select! {
                changed = inbound.changed() => changed.is_ok(),
                changed = gateway.changed() => changed.is_ok(),
                () = sleep_until(again), if missing => true,
                () = drain.reached(Phase::Draining) => false,
            };
            if !changed {
                self.tell(|| Command::Close { role: Role::Inbound });
                return self.become_so(BTreeMap::new());
            }
        }
    }

    fn become_so(&mut self, wanted: BTreeMap<(u16, IpAddr), Role>) {
        let stays = |key: &(u16, IpAddr), open: &Open| open.at.is_ok() && wanted.get(key) == Some(&open.role);
        let gone: Vec<_> =
            self.open.iter().filter(|(key, open)| !stays(key, open)).map(|(key, _)| *key).collect();
        for key in gone {
            if let Some(Open { role, at: Ok(_) }) = self.open.remove(&key) {
                self.tell(|| Command::Close { role: role.clone() });
            }
        }
        for ((port, ip), role) in wanted {
            if self.open.contains_key(&(port, ip)) {
                continue;
            }
            let at = self.listen(port, ip, &role).map_err(|error| {
                tracing::error!(%error, port, "a port cannot be offered");
                error.to_string().into()
            });
            self.open.insert((port, ip), Open { role, at });
        }
        if self.shared.mesh.is_configured() {
            let failed: Vec<_> =
                self.open.values().filter_map(|open| open.at.as_ref().err()).map(|why| &**why).collect();
            if failed.is_empty() {
                self.readiness.holds();
            } else {
                self.readiness.fails(failed.join("; "));
            }
        }
        let mut offered = Offered::new();
        for ((port, _), open) in &self.open {
            offered.entry(*port).or_default().push(open.at.clone());
        }
        self.offered.send_if_modified(|now| {
            let changed = *now != offered;
            *now = offered;
            changed
        });
    }

    fn listen(&self, port: u16, ip: IpAddr, role: &Role) -> io::Result<SocketAddr> {
        let offset = if port < 1024 { self.low_port_offset } else { 0 };
        let port = port.checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?;
        let sockets = listen::bind((ip, port).into(), self.workers.len())?;
        let at = sockets[0].local_addr()?;
        let mut sockets = sockets.into_iter();
        self.tell(|| Command::Listen {
            socket: sockets.next().expect("as many sockets were bound as there are workers"),
            role: role.clone(),
        });
        Ok(at)
    }

    fn tell(&self, mut command: impl FnMut() -> Command) {
        for worker in &self.workers {
            // A worker that is gone listens to nothing.
            let _ = worker.send(command());
        }
    }
}
