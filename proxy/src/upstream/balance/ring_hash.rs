//! A ring of hashes: a request goes to the first endpoint at or behind its own hash (Karger and others, 1997).
//!
//! Places are named `IP:PORT_0`, `IP:PORT_1` and so on and hashed by XXH64, as Envoy does it. An endpoint's number of places depends on the others only
//! where the ring is full, and then in steps of two: one that leaves moves its own requests and no others.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::upstream::Endpoint;

#[derive(Debug)]
pub(super) struct Ring {
    /// Sorted by hash.
    places: Box<[(u64, u32)]>,
}

impl Ring {
    pub(super) fn new(all: &[Arc<Endpoint>], usable: &[u32], min_size: u32, max_size: u32) -> Self {
        let weight = |index: &u32| u64::from(all[*index as usize].weight());
        let lightest = usable.iter().map(weight).min().unwrap_or(1).max(1);
        let parts: u64 = usable.iter().map(|index| weight(index).div_ceil(lightest)).sum();
        let mut each = u64::from(min_size);
        while each > 1 && each.saturating_mul(parts) > u64::from(max_size) {
            each /= 2;
        }
        let mut places = Vec::new();
        for index in usable {
            // With weights that lie far apart one place each may be more than there is room for.
            let own = (each * weight(index) / lightest).clamp(1, u64::from(max_size));
            let address = all[*index as usize].address.to_string();
            places.extend((0..own).map(|place| (xxh64(format!("{address}_{place}").as_bytes(), 0), *index)));
        }
        places.sort_unstable();
        Self { places: places.into() }
    }

    pub(super) fn find(&self, hash: u64, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let begin = self.places.partition_point(|(place, _)| *place < hash);
        let (before, from) = self.places.split_at(begin);
        let mut last = None;
        from.iter().chain(before).map(|(_, index)| *index).find(|index| {
            // Neighbours are often the same endpoint, which is asked about once.
            last.replace(*index) != Some(*index) && fits(*index)
        })
    }
}
