//! The destinations that are subscribed to, because someone asked for them.
//!
//! Owns how many there may be and which leaves. One that a connection holds never does: its slot would get no more updates.

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_config::model::{DestinationName, ResourceKind};

use super::Key;
use crate::mesh::{Destinations, Slot, Standing};

/// Names at most (design.md 2.3).
pub const MAX_NAMES: usize = 2_000;

/// Seconds without a lookup or an open connection after which a name is given up.
pub const UNUSED: u64 = 600;

/// SipHash: the names are what apps and their clients ask for.
#[derive(Debug, Default)]
pub struct Names(HashMap<DestinationName, Name>);

#[derive(Debug)]
pub struct Name {
    pub slot: Arc<Slot>,
    /// Of its listener.
    pub key: Key,
}

impl Names {
    pub fn get(&self, name: &DestinationName) -> Option<&Name> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&DestinationName, &Name)> {
        self.0.iter()
    }

    /// Adds a name that is not there. Where there are [`MAX_NAMES`], the least recently used leaves and is returned; `Err` where
    /// connections hold all of them.
    pub fn add(&mut self, name: DestinationName, now: u64) -> Result<Option<DestinationName>, Full> {
        let mut left = None;
        if self.0.len() >= MAX_NAMES {
            let oldest =
                self.0.iter().filter(|(_, name)| !name.is_held()).min_by_key(|(_, name)| name.slot.used());
            let oldest = oldest.map(|(name, _)| name.clone()).ok_or(Full)?;
            self.0.remove(&oldest);
            left = Some(oldest);
        }
        let key = (ResourceKind::Listener, name.resource_name().into());
        let slot = Slot::new(Standing::Pending, now);
        self.0.insert(name, Name { slot, key });
        Ok(left)
    }

    /// Removes and returns those that nobody has used for [`UNUSED`] seconds.
    pub fn expire(&mut self, now: u64) -> Vec<DestinationName> {
        let unused = |name: &Name| name.slot.used() + UNUSED <= now && !name.is_held();
        let expired: Vec<_> =
            self.0.iter().filter(|(_, name)| unused(name)).map(|(name, _)| name.clone()).collect();
        for name in &expired {
            self.0.remove(name);
        }
        expired
    }

    /// What the workers look names up in.
    pub fn published(&self) -> Destinations {
        self.0.iter().map(|(name, entry)| (name.clone(), entry.slot.clone())).collect()
    }
}

/// There are [`MAX_NAMES`], all in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Name {
    /// Besides this table and the published map, somebody has the slot. An earlier published map that is still being read counts
    /// as somebody, which only keeps the name a little longer.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.slot) > 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(i: usize) -> DestinationName {
        DestinationName::new(&format!("s{i}"), 80).expect("valid")
    }

    /// The names, and the map the workers would see.
    fn full() -> (Names, Destinations) {
        let mut names = Names::default();
        for i in 0..MAX_NAMES {
            assert_eq!(names.add(name(i), i as u64), Ok(None));
        }
        let published = names.published();
        (names, published)
    }

    #[tokio::test]
    async fn the_least_recently_used_leaves() {
        let (mut names, published) = full();
        let _held = published[&name(0)].clone();
        assert_eq!(names.add(name(MAX_NAMES), 5_000), Ok(Some(name(1))), "the oldest that nobody holds");
        assert_eq!(names.iter().count(), MAX_NAMES);
    }

    #[tokio::test]
    async fn nothing_leaves_that_a_connection_holds() {
        let (mut names, published) = full();
        let _held: Vec<_> = published.values().cloned().collect();
        assert_eq!(names.add(name(MAX_NAMES), 5_000), Err(Full));
        assert!(names.get(&name(MAX_NAMES)).is_none());
    }

    #[tokio::test]
    async fn what_nobody_uses_expires() {
        let mut names = Names::default();
        for (i, used) in [(0, 0), (1, 100), (2, 0)] {
            names.add(name(i), used).expect("there is room");
        }
        let published = names.published();
        let _held = published[&name(2)].clone();
        assert_eq!(names.expire(UNUSED - 1), []);
        assert_eq!(names.expire(UNUSED), [name(0)]);
        assert_eq!(names.iter().count(), 2);
    }
}
