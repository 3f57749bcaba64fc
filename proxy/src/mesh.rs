//! What is known, live: destinations, the workload's own ports or the gateway's, settings.
//!
//! Owns the shared state every worker reads and the question "what is HOST:PORT?". Reading takes no lock: one atomic load and one
//! lookup by a hash that callers cannot attack (names come from requests). `discovery::apply` is the only writer; it replaces whole
//! pieces, and whoever holds an old one finishes on it. Never talks to a control plane and never routes a request.

mod destination;
mod gateway;
mod inbound;
mod inventory;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_config::model::{DestinationName, ProxySettings};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::policy::fault::Experiments;
pub use destination::{Backends, Destination, TlsRoute};
pub use gateway::{Certificate, Gateway, GatewayListener, GatewayPort, GatewayPortSlot, ListenerTls};
pub use inbound::{Inbound, InboundPort};
pub use inventory::{Content, Inventory, Known, Link, Shelved};

/// Shared by all workers and the background runtime.
#[derive(Debug)]
pub struct Mesh {
    destinations: ArcSwap<Destinations>,
    asks: mpsc::Sender<Ask>,
    inbound: watch::Sender<Option<Arc<Inbound>>>,
    gateway: watch::Sender<Option<Arc<Gateway>>>,
    settings: ArcSwap<ProxySettings>,
    inventory: Inventory,
    experiments: Experiments,
    /// Zero of `Slot::used`.
    born: Instant,
}

/// SipHash: the keys are what apps and their clients ask for.
pub(crate) type Destinations = HashMap<DestinationName, Arc<Slot>>;

/// How long an app waits for the first answer about a destination (design.md 2.3).
pub const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// Questions that wait for the background runtime at most; one more is answered `Unavailable`.
const ASKS: usize = 1_024;

/// What is known of a destination.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Hold the slot as long as the connection; take [`Slot::current`] for each exchange.
    Known(Arc<Slot>),
    /// There is no such destination in the mesh: the caller decides by [`ProxySettings::egress`].
    Unknown,
    /// Nobody could be asked, or the answer did not come in time.
    Unavailable,
}

impl Mesh {
    /// The mesh, and the questions `discovery` has to answer.
    pub fn new() -> (Arc<Self>, Asks) {
        let (asks, questions) = mpsc::channel(ASKS);
        let mesh = Self {
            destinations: ArcSwap::default(),
            asks,
            inbound: watch::Sender::new(None),
            gateway: watch::Sender::new(None),
            settings: ArcSwap::default(),
            inventory: Inventory::default(),
            experiments: Experiments::default(),
            born: Instant::now(),
        };
        (Arc::new(mesh), Asks(questions))
    }

    /// What `name` is; asked for on first use. Waits at most [`FIRST_ANSWER`], and only while nothing is known.
    pub async fn destination(&self, name: &DestinationName) -> Lookup {
        if let Some(slot) = self.destinations.load().get(name)
            && let Some(lookup) = self.read(slot)
        {
            return lookup;
        }
        timeout(FIRST_ANSWER, self.ask(name)).await.unwrap_or(Lookup::Unavailable)
    }

    async fn ask(&self, name: &DestinationName) -> Lookup {
        // Bound here, because a guard of the map may not be held across a wait.
        let known = self.destinations.load().get(name).cloned();
        let slot = match known {
            Some(slot) => slot,
            None => {
                let (reply, slot) = oneshot::channel();
                if self.asks.try_send(Ask { name: name.clone(), reply }).is_err() {
                    return Lookup::Unavailable;
                }
                let Ok(Some(slot)) = slot.await else { return Lookup::Unavailable };
                slot
            }
        };
        loop {
            // Registered before looking, so that an answer in between is not missed.
            let settled = slot.settled.notified();
            if let Some(lookup) = self.read(&slot) {
                return lookup;
            }
            settled.await;
        }
    }

    /// `None` while there is no answer yet.
    fn read(&self, slot: &Arc<Slot>) -> Option<Lookup> {
        let now = self.seconds();
        // Written once a second, not once a request: the line is shared by all workers.
        if slot.used.load(Ordering::Relaxed) != now {
            slot.used.store(now, Ordering::Relaxed);
        }
        match **slot.standing.load() {
            Standing::Pending => None,
            Standing::Known(_) => Some(Lookup::Known(slot.clone())),
            Standing::Unknown => Some(Lookup::Unknown),
            Standing::Unavailable => Some(Lookup::Unavailable),
        }
    }

    /// The ports of the workload this sidecar stands before; `None` until they are known. Changes are told.
    pub fn inbound(&self) -> watch::Receiver<Option<Arc<Inbound>>> {
        self.inbound.subscribe()
    }

    /// The ports of the gateway this proxy is; `None` until they are known. Changes are told.
    pub fn gateway(&self) -> watch::Receiver<Option<Arc<Gateway>>> {
        self.gateway.subscribe()
    }

    pub fn settings(&self) -> Arc<ProxySettings> {
        self.settings.load_full()
    }

    /// Everything that was received, and how the source is doing: for the admin port, metrics and readiness.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// What goes wrong on purpose, while any route or port says so.
    pub fn experiments(&self) -> &Experiments {
        &self.experiments
    }

    /// Whether what this proxy listens for is known: then it may serve.
    pub fn is_configured(&self) -> bool {
        self.inbound.borrow().is_some() || self.gateway.borrow().is_some()
    }

    /// Whole seconds since the process began to count.
    pub(crate) fn seconds(&self) -> u64 {
        self.born.elapsed().as_secs()
    }

    pub(crate) fn set_destinations(&self, destinations: Destinations) {
        self.destinations.store(destinations.into());
    }

    pub(crate) fn set_inbound(&self, inbound: Arc<Inbound>) {
        self.settings.store(inbound.settings.clone().into());
        self.inbound.send_replace(Some(inbound));
    }

    pub(crate) fn set_gateway(&self, gateway: Arc<Gateway>) {
        self.settings.store(gateway.settings.clone().into());
        self.gateway.send_replace(Some(gateway));
    }
}

/// The place of one destination, whose content is replaced when updates arrive.
#[derive(Debug)]
pub struct Slot {
    standing: ArcSwap<Standing>,
    settled: Notify,
    /// Second it was last looked up in.
    used: AtomicU64,
}

#[derive(Debug)]
pub(crate) enum Standing {
    /// Asked for, not answered.
    Pending,
    Known(Arc<Destination>),
    Unknown,
    Unavailable,
}

impl Slot {
    pub(crate) fn new(standing: Standing, now: u64) -> Arc<Self> {
        let standing = ArcSwap::from_pointee(standing);
        Arc::new(Self { standing, settled: Notify::new(), used: AtomicU64::new(now) })
    }

    /// The snapshot an exchange runs on. `None` once the mesh does not know the destination any more: new exchanges on
    /// connections to it are refused as `unknown_destination`.
    pub fn current(&self) -> Option<Arc<Destination>> {
        match &**self.standing.load() {
            Standing::Known(destination) => Some(destination.clone()),
            Standing::Pending | Standing::Unknown | Standing::Unavailable => None,
        }
    }

    pub(crate) fn set(&self, standing: Standing) {
        self.standing.store(standing.into());
        self.settled.notify_waiters();
    }

    /// Takes back the answer that nobody could be asked.
    pub(crate) fn retry(&self) {
        if matches!(**self.standing.load(), Standing::Unavailable) {
            self.set(Standing::Pending);
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        matches!(**self.standing.load(), Standing::Pending)
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// One question of a worker.
#[derive(Debug)]
pub(crate) struct Ask {
    pub name: DestinationName,
    /// The slot it will be answered in; `None` where no more names are taken.
    pub reply: oneshot::Sender<Option<Arc<Slot>>>,
}

/// The questions of all workers.
#[derive(Debug)]
pub struct Asks(pub(crate) mpsc::Receiver<Ask>);
