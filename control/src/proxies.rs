//! The proxies that are connected, and those that were a while ago.
//!
//! Owns who is there. What each was told is its [`Session`]'s, which its stream and the status page share.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use outrigger_config::model::{ResourceKind, TrustBundle};
use outrigger_config::xds::Node;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::ads::session::Session;
use crate::view::View;

/// Proxies that went, remembered for the status page.
const REMEMBERED: usize = 1_000;

#[derive(Debug, Default)]
pub struct Proxies {
    last_id: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<Proxy>>>,
    gone: Mutex<VecDeque<Gone>>,
    /// Rises with everything that may bring a proxy closer to the newest state.
    progress: watch::Sender<u64>,
}

#[derive(Debug)]
pub struct Proxy {
    id: u64,
    node: Node,
    peer: Option<SocketAddr>,
    since: SystemTime,
    session: Mutex<Session>,
    replaced: Notify,
}

/// A proxy whose stream ended.
#[derive(Clone, Debug)]
pub struct Gone {
    pub node: Node,
    pub until: SystemTime,
    /// Why its stream ended.
    pub why: String,
}

impl Proxies {
    /// A stream of this node begins. An earlier one of the very same process is over, whether its connection knows it or not.
    pub fn enter(&self, node: Node, peer: Option<SocketAddr>, session: Session) -> Arc<Proxy> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let proxy = Arc::new(Proxy {
            id,
            node,
            peer,
            since: SystemTime::now(),
            session: Mutex::new(session),
            replaced: Notify::new(),
        });
        let mut connected = self.connected.lock();
        if proxy.node.instance.is_some() {
            let same = |other: &&Arc<Proxy>| {
                other.node.role == proxy.node.role && other.node.instance == proxy.node.instance
            };
            connected.values().filter(same).for_each(|other| other.replaced.notify_one());
        }
        connected.insert(id, proxy.clone());
        drop(connected);
        self.gone.lock().retain(|gone| gone.node.role != proxy.node.role);
        self.note_progress();
        proxy
    }

    pub fn leave(&self, proxy: &Proxy, why: String) {
        let mut connected = self.connected.lock();
        connected.remove(&proxy.id);
        let still_there = connected.values().any(|other| other.node.role == proxy.node.role);
        drop(connected);
        if still_there {
            return self.note_progress();
        }
        let mut gone = self.gone.lock();
        gone.retain(|gone| gone.node.role != proxy.node.role);
        if gone.len() >= REMEMBERED {
            gone.pop_front();
        }
        gone.push_back(Gone { node: proxy.node.clone(), until: SystemTime::now(), why });
        drop(gone);
        self.note_progress();
    }

    pub fn connected(&self) -> Vec<Arc<Proxy>> {
        self.connected.lock().values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.connected.lock().len()
    }

    pub fn gone(&self) -> Vec<Gone> {
        self.gone.lock().iter().cloned().collect()
    }

    /// Whether every connected proxy that asks for the trust bundle works with that of `view`.
    pub fn have_bundle_of(&self, view: &View) -> bool {
        let name: Arc<str> = TrustBundle::NAME.into();
        self.connected().iter().all(|proxy| {
            let session = proxy.session();
            let wanted = view.entry(session.who(), ResourceKind::Secret, &name);
            session
                .names()
                .filter(|(kind, _)| *kind == ResourceKind::Secret)
                .flat_map(|(_, names)| names.iter())
                .filter(|(asked, _)| **asked == name)
                .all(|(_, known)| known.applied() == wanted.as_ref().map(|entry| entry.version()))
        })
    }

    pub fn note_progress(&self) {
        self.progress.send_modify(|progress| *progress = progress.wrapping_add(1));
    }

    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }
}

impl Proxy {
    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Held briefly: for one request, one response or one look.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock()
    }

    /// Waits until a later stream of the same process has taken over.
    pub async fn replaced(&self) {
        self.replaced.notified().await;
    }
}
