//! Destinations that expired: kept 24 h, for the day the control plane is away when one is asked for again.
//!
//! Owns what is kept and how long. Kept in memory and in the disk copy, never subscribed to.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::model::{DestinationName, ResourceKind};

use super::{Key, needs};
use crate::mesh::{Content, Known, Shelved};

/// design.md 2.3.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Destinations kept at most; the oldest leaves.
pub const MAX_SHELVED: usize = 1_000;

/// Keeps what is known of `name`, if all of it is.
pub fn put(content: &mut Content, name: &DestinationName, now: SystemTime) {
    let mut open = VecDeque::from([listener(name)]);
    let mut seen = BTreeSet::from([listener(name)]);
    let mut resources = Vec::new();
    while let Some(key) = open.pop_front() {
        match content.resources.get(&key) {
            Some(Known::There { resource, version, stale: _ }) => {
                needs::each(resource, &mut |needed| {
                    if seen.insert(needed.clone()) {
                        open.push_back(needed);
                    }
                });
                resources.push((resource.clone(), *version));
            }
            // What does not exist needs no keeping, unless it is the destination.
            Some(Known::Absent) if !resources.is_empty() => {}
            Some(Known::Absent) | None => return,
        }
    }
    if content.shelf.len() >= MAX_SHELVED {
        let oldest =
            content.shelf.iter().min_by_key(|(_, shelved)| shelved.since).map(|(name, _)| name.clone());
        oldest.and_then(|oldest| content.shelf.remove(&oldest));
    }
    content.shelf.insert(name.clone(), Shelved { since: now, resources });
    content.changed();
}

pub fn expire(content: &mut Content, now: SystemTime) {
    let before = content.shelf.len();
    content.shelf.retain(|_, shelved| now < shelved.since + KEPT);
    if content.shelf.len() != before {
        content.changed();
    }
}

pub fn listener(name: &DestinationName) -> Key {
    (ResourceKind::Listener, Arc::from(name.resource_name()))
}
