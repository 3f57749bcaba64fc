//! One generation of the registry, with every piece that was resolved from it so far.
//!
//! A thousand proxies that ask for the same share one computation and one encoding. What a change of the registry cannot have
//! touched is carried over from the generation before; what it may have touched but did not keeps its version, and is sent to nobody.

pub mod blame;
mod entry;
mod implied;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use outrigger_config::model::{Listener, Resource, ResourceKind, Root, TrustBundle};
use outrigger_config::registry::{Changes, Registry};
use outrigger_config::resolve::Subscriber;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::experiments::Standing;
pub use entry::Entry;

/// A consistent state of the whole mesh. Sessions go from one to the newest, skipping those in between.
#[derive(Debug)]
pub struct View {
    /// Rises by one with each change of the sources, from 1. Of this process only: replicas count for themselves.
    generation: u64,
    registry: Arc<Registry>,
    /// The roots proxies believe in; none where this control plane has no CA.
    roots: Arc<[Root]>,
    /// Which experiments run, and since when.
    standing: Arc<Standing>,
    /// When the sources had changed and the registry was made.
    since: Instant,
    cells: Arc<Cells>,
    before: Option<Before>,
}

/// What is needed of the generation before.
#[derive(Debug)]
struct Before {
    generation: u64,
    cells: Arc<Cells>,
    changes: Changes,
    roots_changed: bool,
    standing_changed: bool,
}

/// Filled on demand. Only what exists is kept, so that asking for nonsense costs no memory.
type Cells = Mutex<HashMap<Key, Arc<Cell>>>;
type Cell = OnceLock<Option<Arc<Entry>>>;
type Key = (Scope, ResourceKind, Arc<str>);

/// For whom a resource is the same: as many as possible.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    All,
    /// Sidecars in one namespace: short names and consumer routes depend on it.
    Sidecars(Arc<str>),
    One(Subscriber),
}

impl Scope {
    fn of(who: &Subscriber, kind: ResourceKind, name: &str) -> Self {
        match (who, kind) {
            (_, ResourceKind::Endpoints) => Self::All,
            _ if is_bundle(kind, name) => Self::All,
            (Subscriber::Sidecar { .. }, ResourceKind::Listener) if name == Listener::INBOUND => {
                Self::One(who.clone())
            }
            (Subscriber::Sidecar { namespace, .. }, _) => Self::Sidecars(namespace.clone()),
            (Subscriber::Gateway { .. }, _) => Self::One(who.clone()),
        }
    }
}

impl View {
    pub fn first(registry: Arc<Registry>, standing: Arc<Standing>) -> Self {
        Self {
            generation: 1,
            registry,
            roots: Arc::default(),
            standing,
            since: Instant::now(),
            cells: Arc::default(),
            before: None,
        }
    }

    /// The generation after `before`.
    pub fn next(before: &Self, registry: Arc<Registry>, standing: Arc<Standing>) -> Self {
        Self::after(before, registry, before.roots.clone(), standing)
    }

    /// The generation after `before`, in which others are believed.
    pub fn believing(before: &Self, roots: Arc<[Root]>) -> Self {
        Self::after(before, before.registry.clone(), roots, before.standing.clone())
    }

    /// The generation after `before`, in which other experiments run.
    pub fn experimenting(before: &Self, standing: Arc<Standing>) -> Self {
        Self::after(before, before.registry.clone(), before.roots.clone(), standing)
    }

    fn after(before: &Self, registry: Arc<Registry>, roots: Arc<[Root]>, standing: Arc<Standing>) -> Self {
        let changes = registry.changes_since(&before.registry);
        let roots_changed = roots != before.roots;
        let standing_changed = standing != before.standing;
        Self {
            generation: before.generation + 1,
            registry,
            roots,
            standing,
            since: Instant::now(),
            cells: Arc::default(),
            before: Some(Before {
                generation: before.generation,
                cells: before.cells.clone(),
                changes,
                roots_changed,
                standing_changed,
            }),
        }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub fn roots(&self) -> &Arc<[Root]> {
        &self.roots
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether only endpoints differ from the generation before.
    pub fn is_endpoints_only(&self) -> bool {
        self.before.as_ref().is_some_and(|before| before.changes.is_endpoints_only())
    }

    /// Whether `name` may be another resource than it was in `generation`. Says yes where it doesn't know.
    pub fn may_differ(&self, generation: u64, who: &Subscriber, kind: ResourceKind, name: &str) -> bool {
        match &self.before {
            _ if generation == self.generation => false,
            Some(before) if before.generation == generation => before.may_affect(who, kind, name),
            _ => true,
        }
    }

    /// The resource as `who` has to see it; `None` where there is none, or none for it.
    pub fn entry(&self, who: &Subscriber, kind: ResourceKind, name: &Arc<str>) -> Option<Arc<Entry>> {
        let key = (Scope::of(who, kind, name), kind, name.clone());
        let cell = self.cells.lock().entry(key.clone()).or_default().clone();
        // Outside the lock: two who ask for one thing wait for each other, two who ask for two do not.
        let entry = cell.get_or_init(|| self.resolve(who, kind, name, &key)).clone();
        if entry.is_none() {
            self.cells.lock().remove(&key);
        }
        entry
    }

    fn resolve(&self, who: &Subscriber, kind: ResourceKind, name: &str, key: &Key) -> Option<Arc<Entry>> {
        let before = self.before.as_ref().and_then(|before| {
            let cell = before.cells.lock().get(key)?.clone();
            let entry = cell.get()?.clone()?;
            Some((entry, before))
        });
        match before {
            Some((entry, before)) if !before.may_affect(who, kind, name) => Some(entry),
            before => {
                let entry = Entry::new(if is_bundle(kind, name) {
                    let roots = self.roots.iter().cloned();
                    TrustBundle::new(self.registry.trust_domain(), roots).map(Resource::TrustBundle)?
                } else {
                    let mut resource = self.registry.resolve(who, kind, name)?;
                    self.standing.tell(&mut resource);
                    resource
                });
                match before {
                    Some((before, _)) if before.version() == entry.version() => Some(before),
                    _ => Some(Arc::new(entry)),
                }
            }
        }
    }
}

impl Before {
    fn may_affect(&self, who: &Subscriber, kind: ResourceKind, name: &str) -> bool {
        let experiments = matches!(kind, ResourceKind::Listener | ResourceKind::RouteTable);
        (self.roots_changed && is_bundle(kind, name))
            || (self.standing_changed && experiments)
            || self.changes.may_affect(who, kind, name)
    }
}

/// Whether it is the one resource that comes from the CA and not from the manifests.
fn is_bundle(kind: ResourceKind, name: &str) -> bool {
    kind == ResourceKind::Secret && name == TrustBundle::NAME
}
