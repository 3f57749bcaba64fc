//! Everything that was received, as it was received: what the admin port shows, a reconnect states and the disk keeps.
//!
//! Behind a mutex, because only the background runtime comes here; workers never do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::model::{ClusterName, DestinationName, Resource, ResourceKind, Version};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::upstream::Cluster;

#[derive(Debug, Default)]
pub struct Inventory(Mutex<Content>);

#[derive(Debug, Default)]
pub struct Content {
    /// Of every name that is subscribed to and was answered.
    pub resources: BTreeMap<(ResourceKind, Arc<str>), Known>,
    /// Live handles.
    pub clusters: BTreeMap<ClusterName, Arc<Cluster>>,
    /// Destinations that expired, kept in case the source is away when they are asked for again.
    pub shelf: BTreeMap<DestinationName, Shelved>,
    pub link: Link,
    /// Raised with every change of `resources` or `shelf`.
    pub revision: watch::Sender<u64>,
}

/// The last word on one name.
#[derive(Clone, Debug)]
pub enum Known {
    There {
        resource: Arc<Resource>,
        version: Version,
        /// Taken from the shelf.
        stale: bool,
    },
    /// The source says there is none.
    Absent,
}

/// What an expired destination was made of.
#[derive(Clone, Debug)]
pub struct Shelved {
    pub since: SystemTime,
    pub resources: Vec<(Arc<Resource>, Version)>,
}

/// How the source of configuration is doing.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// What it is: an address, a directory.
    pub source: Arc<str>,
    pub connected: bool,
    /// When it last proved to be there. `None`: never in this process; what there is comes from the disk copy.
    pub confirmed: Option<Instant>,
    /// When the disk copy this process started from was written, if it did.
    pub copy_written: Option<SystemTime>,
    /// What went wrong last, for people.
    pub error: Option<Arc<str>>,
}

impl Inventory {
    pub fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock()
    }
}

impl Content {
    pub(crate) fn changed(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }
}

impl Link {
    /// How old the configuration may be: 0 while the source is there. `None` without any configuration.
    pub fn age(&self) -> Option<Duration> {
        if self.connected {
            return Some(Duration::ZERO);
        }
        let of_copy = || Some(SystemTime::now().duration_since(self.copy_written?).unwrap_or_default());
        self.confirmed.map(|confirmed| confirmed.elapsed()).or_else(of_copy)
    }
}
