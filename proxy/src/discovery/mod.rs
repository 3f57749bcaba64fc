//! How the mesh becomes known: one of two sources, and one way to apply what it says.
//!
//! ```text
//! workers ── Mesh::destination ──► names ── wanted ──► client (delta ADS) | files (manifests)
//!    ▲                                                      │ events
//!    └────────── Mesh ◄── apply (warming) ◄─────────────────┘
//!                            └──► cache (the disk copy)
//! ```
//! Everything runs as tasks of the background runtime. A source is told the whole set of names wanted, and reports what is there and what
//! is not; that it is away changes nothing that is known (static stability, design.md 2.3).

mod apply;
mod backoff;
mod cache;
mod client;
mod dial;
mod files;
mod names;
mod needs;
mod shelf;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::model::{Gateway, Listener, Resource, ResourceKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::dns::Resolver;
use crate::identity::Identity;
use crate::mesh::{Asks, Mesh};
use crate::policy::rate_limit::{Servers, Through};
use crate::telemetry::Telemetry;
use apply::Apply;
pub use cache::Cache;
pub use dial::{Connection, Dial, InvalidAddress};

/// One name of one kind.
pub type Key = (ResourceKind, Arc<str>);

/// Which proxy this is, and so which listener it cannot do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    Sidecar,
    Gateway { namespace: Arc<str>, name: Arc<str> },
}

impl Own {
    fn key(&self) -> Key {
        let name = match self {
            Self::Sidecar => Listener::INBOUND.into(),
            Self::Gateway { namespace, name } => Gateway::resource_name(namespace, name).into(),
        };
        (ResourceKind::Listener, name)
    }
}

/// A source of configuration: told what is wanted, it says what there is.
#[derive(Debug)]
pub struct Source {
    /// An address or a directory, for people.
    name: Arc<str>,
    wanted: watch::Sender<Arc<BTreeSet<Key>>>,
    events: mpsc::Receiver<Event>,
    /// Where a control plane is, and how it is reached.
    home: Option<(Vec<Arc<str>>, Dial)>,
}

/// The other end of a [`Source`].
#[derive(Debug)]
struct SourceEnd {
    wanted: watch::Receiver<Arc<BTreeSet<Key>>>,
    events: mpsc::Sender<Event>,
}

/// What a source reports.
#[derive(Debug)]
enum Event {
    /// It is there; what it says from now on is current.
    Connected,
    Disconnected {
        error: String,
    },
    Update {
        changes: Vec<Change>,
        /// Dropped once they are in force, or known to wait for something.
        applied: oneshot::Sender<()>,
    },
}

#[derive(Clone, Debug)]
enum Change {
    There(Resource),
    Absent(Key),
}

impl Event {
    /// With what resolves once it was taken up.
    fn update(changes: Vec<Change>) -> (Self, oneshot::Receiver<()>) {
        let (applied, is_applied) = oneshot::channel();
        (Self::Update { changes, applied }, is_applied)
    }
}

/// Reports waiting to be applied; a source that is faster waits.
const EVENTS: usize = 16;

impl Source {
    fn new(name: &str) -> (Self, SourceEnd) {
        let (wanted, wanted_end) = watch::channel(Arc::default());
        let (events_end, events) = mpsc::channel(EVENTS);
        (
            Self { name: name.into(), wanted, events, home: None },
            SourceEnd { wanted: wanted_end, events: events_end },
        )
    }

    /// A source that knows `resources` and never changes: for tests and benches.
    pub fn fixed(resources: Vec<Resource>) -> Self {
        let (source, mut end) = Self::new("fixed");
        tokio::spawn(async move {
            let there = |key: &Key| {
                let found = resources.iter().find(|r| r.kind() == key.0 && r.name() == *key.1);
                found.map_or_else(|| Change::Absent(key.clone()), |r| Change::There(r.clone()))
            };
            if end.events.send(Event::Connected).await.is_err() {
                return;
            }
            let mut told = BTreeSet::new();
            loop {
                let wanted = end.wanted.borrow_and_update().clone();
                let changes: Vec<_> = wanted.difference(&told).map(there).collect();
                told.clone_from(&wanted);
                if !changes.is_empty() && end.events.send(Event::update(changes).0).await.is_err() {
                    return;
                }
                if end.wanted.changed().await.is_err() {
                    return;
                }
            }
        });
        source
    }
}

/// What of the proxy configuration is applied to, besides the mesh.
#[derive(Clone, Debug)]
pub struct Around {
    pub telemetry: Arc<Telemetry>,
    /// Is told the trust bundle.
    pub identity: Arc<Identity>,
    pub dns: Arc<Resolver>,
    /// Where what the workload calls is taken; `None` at a proxy that takes nothing.
    pub outbound: Option<SocketAddr>,
}

impl Around {
    #[cfg(test)]
    fn nothing() -> Self {
        let dns = Resolver::system(tokio::runtime::Handle::current());
        Self { telemetry: Telemetry::new(1), identity: Identity::none(), dns, outbound: None }
    }
}

/// Answers the workers' questions and keeps the mesh current; ends with the process.
///
/// Begins with what `cache` remembers, which is in force when the first question is answered.
pub async fn run(
    own: Own,
    mesh: Arc<Mesh>,
    asks: Asks,
    around: Around,
    mut source: Source,
    cache: Option<Cache>,
) {
    let Asks(mut asks) = asks;
    let through = around.outbound.map(|outbound| Through { mesh: Arc::downgrade(&mesh), outbound });
    let servers = Servers::new(around.dns.clone(), source.home.take()).through(through);
    let mut apply = Apply::new(&own, mesh.clone(), around, servers, source.name.clone());
    if let Some(mut cache) = cache {
        apply.restore(cache.take_remembered());
        tokio::spawn(cache.keep(mesh));
    }
    let mut expiry = interval(EXPIRY_TICK);
    expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut batch, mut ended) = (Vec::new(), false);
    source.wanted.send_replace(apply.settle());
    loop {
        let deadline = apply.deadline().unwrap_or_else(|| Instant::now() + EXPIRY_TICK);
        tokio::select! {
            n = asks.recv_many(&mut batch, 64) => {
                if n == 0 {
                    return;
                }
                apply.asked(batch.drain(..));
            }
            event = source.events.recv(), if !ended => {
                ended = event.is_none();
                apply.event(event.unwrap_or_else(|| Event::Disconnected { error: "it ended".into() }));
            }
            () = sleep_until(deadline) => {}
            _ = expiry.tick() => apply.expire(),
        }
        let wanted = apply.settle();
        source.wanted.send_if_modified(|now| {
            let changed = **now != *wanted;
            *now = wanted;
            changed
        });
    }
}

const EXPIRY_TICK: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
