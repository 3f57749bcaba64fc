//! The encoder's dynamic table, asked for fields by their content.
//!
//! A field enters at its second sight: what is new each time (a request id, a path with a number) stays out and evicts nothing. Entries of one
//! bucket are chained from the newest to the oldest, and the oldest leave first, so a chain ends at the first entry that is gone and
//! eviction has nothing to tidy.
//! Never writes a byte: `encode.rs` does.

use std::collections::VecDeque;

use super::names::Key;
use super::table::STATIC;

#[derive(Debug)]
pub struct Recent {
    /// The newest first.
    entries: VecDeque<Entry>,
    /// How many were ever inserted, modulo 2³²: the number of the newest.
    inserted: u32,
    size: usize,
    /// The number of each bucket's newest entry, by the field's hash.
    by_field: [u32; BUCKETS],
    /// The same by the name's hash, for names that are not in the static table.
    by_name: [u32; BUCKETS],
    /// Hashes of fields and names that were sent and not kept.
    seen: [u32; BUCKETS],
}

#[derive(Debug)]
struct Entry {
    hash: u32,
    /// The number of the next older entry of the bucket of this field, and of this name.
    older_field: u32,
    older_name: u32,
    /// As [`Key::fixed`].
    fixed: u8,
    /// Bytes of the name in `text`: none if it is in the static table.
    name_len: usize,
    /// Name and value.
    text: Box<[u8]>,
    size: usize,
}

impl Recent {
    pub fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            inserted: 0,
            size: 0,
            by_field: [0; BUCKETS],
            by_name: [0; BUCKETS],
            seen: [0; BUCKETS],
        }
    }

    /// The index of this field, whose hash is `hash`.
    #[inline]
    pub fn field(&self, key: &Key<'_>, value: &[u8], hash: u64) -> Option<usize> {
        let mut number = self.by_field[bucket(hash)];
        while let Some((place, entry)) = self.entry(number) {
            if entry.hash == tag(hash) && entry.has_name(key) && &entry.text[entry.name_len..] == value {
                return Some(STATIC + 1 + place);
            }
            number = entry.older_field;
        }
        None
    }

    /// An index that has this name, which is not in the static table.
    pub fn name(&self, key: &Key<'_>) -> Option<usize> {
        let mut number = self.by_name[bucket(key.hash)];
        while let Some((place, entry)) = self.entry(number) {
            if entry.has_name(key) {
                return Some(STATIC + 1 + place);
            }
            number = entry.older_name;
        }
        None
    }

    /// Whether what has this hash was asked about not long ago. From now on it was.
    pub fn seen(&mut self, hash: u64) -> bool {
        let seen = &mut self.seen[bucket(hash)];
        std::mem::replace(seen, tag(hash)) == tag(hash)
    }

    /// Inserts a field that counts `size` into a table of `capacity`, into which it fits.
    pub fn insert(&mut self, key: &Key<'_>, value: &[u8], hash: u64, size: usize, capacity: usize) {
        self.evict(capacity.saturating_sub(size));
        let name = if key.fixed == 0 { key.name } else { &[] };
        self.inserted = self.inserted.wrapping_add(1);
        let older_field = std::mem::replace(&mut self.by_field[bucket(hash)], self.inserted);
        // An entry whose name is in the static table is nobody's next: its own number is never followed.
        let older_name = if key.fixed == 0 {
            std::mem::replace(&mut self.by_name[bucket(key.hash)], self.inserted)
        } else {
            self.inserted
        };
        self.size += size;
        self.entries.push_front(Entry {
            hash: tag(hash),
            older_field,
            older_name,
            fixed: key.fixed,
            name_len: name.len(),
            text: [name, value].concat().into(),
            size,
        });
    }

    /// Evicts the oldest until no more than `keep` is taken.
    pub fn evict(&mut self, keep: usize) {
        while self.size > keep {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size;
        }
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<(usize, &Entry)> {
        let place = self.inserted.wrapping_sub(number) as usize;
        self.entries.get(place).map(|entry| (place, entry))
    }
}

impl Entry {
    #[inline]
    fn has_name(&self, key: &Key<'_>) -> bool {
        self.fixed == key.fixed && (key.fixed != 0 || &self.text[..self.name_len] == key.name)
    }
}

/// As many as a table of 4096 bytes has entries of a usual size.
const BUCKETS: usize = 64;

fn bucket(hash: u64) -> usize {
    hash as usize % BUCKETS
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}
