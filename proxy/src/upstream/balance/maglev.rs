//! Maglev: a table in which every endpoint has its share of the places, looked up by a request's hash (Eisenbud and others, 2016, section 3.4).
//!
//! Each endpoint lists all places in an order of its own, and they take their next free place in turn. Hashes are those of Envoy's table: XXH64 of
//! `IP:PORT`, seed 0 for the offset and 1 for the step. Where an endpoint leaves, its places are shared by the others, and few of theirs move.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::upstream::Endpoint;

#[derive(Debug)]
pub(super) struct Maglev {
    /// Indices into the set; empty where nobody is usable.
    places: Box<[u32]>,
    /// Those in it, each once.
    members: Box<[u32]>,
}

/// Places looked at before all endpoints are gone through.
const LOOKED_AT: usize = 64;

/// Whoever is in a table with more members than places is in it by chance: then each has one place at most.
const FREE: u32 = u32::MAX;

impl Maglev {
    /// `size` is a prime.
    pub(super) fn new(all: &[Arc<Endpoint>], usable: &[u32], size: u32) -> Self {
        let size = u64::from(size);
        let mut listings: Vec<Listing> =
            usable.iter().map(|index| Listing::new(&all[*index as usize], *index, size)).collect();
        let heaviest = listings.iter().map(|listing| listing.weight).max().unwrap_or(1);
        let mut places = if listings.is_empty() { Vec::new() } else { vec![FREE; size as usize] };
        let mut taken = 0;
        // Whoever is lighter takes a place in fewer of the rounds.
        for round in 1.. {
            for listing in &mut listings {
                if taken == places.len() {
                    return Self { places: places.into(), members: usable.into() };
                }
                if listing.weight * round < listing.due {
                    continue;
                }
                listing.due += heaviest;
                let place = loop {
                    let place = listing.next(size);
                    if places[place] == FREE {
                        break place;
                    }
                };
                places[place] = listing.index;
                taken += 1;
            }
            if listings.is_empty() {
                break;
            }
        }
        Self { places: places.into(), members: usable.into() }
    }

    pub(super) fn find(&self, hash: u64, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let size = self.places.len();
        if size == 0 {
            return None;
        }
        let begin = (hash % size as u64) as usize;
        let near = (0..LOOKED_AT.min(size)).map(|step| self.places[(begin + step) % size]);
        let first = begin % self.members.len();
        let all = self.members[first..].iter().chain(&self.members[..first]).copied();
        near.chain(all).find(|index| fits(*index))
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> &[u32] {
        &self.places
    }
}

/// The order in which an endpoint wants places.
struct Listing {
    index: u32,
    weight: u64,
    /// What `weight` times the round has to reach for another place.
    due: u64,
    place: u64,
    step: u64,
}

impl Listing {
    fn new(endpoint: &Endpoint, index: u32, size: u64) -> Self {
        let name = endpoint.address.to_string();
        Self {
            index,
            weight: endpoint.weight().into(),
            due: 0,
            place: xxh64(name.as_bytes(), 0) % size,
            step: xxh64(name.as_bytes(), 1) % (size - 1) + 1,
        }
    }

    fn next(&mut self, size: u64) -> usize {
        let place = self.place;
        self.place = (self.place + self.step) % size;
        place as usize
    }
}
