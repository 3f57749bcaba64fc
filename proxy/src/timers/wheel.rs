//! Which timer is due next: a hierarchical wheel (Varghese and Lauck, 1987). Pure; told the time.
//!
//! Of each of its levels a place stands for a span of time, 64 times as long as on the level below. A timer lies where its tick and the present
//! begin to differ, and comes down a level when the present reaches its place; most are taken back long before. To set one, and to take it back,
//! links it into a list and out of it.

use std::task::Waker;

use slab::Slab;

/// Milliseconds, of a beginning that the wheel does not know.
pub type Tick = u64;

/// Of a timer, until it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u32);

#[derive(Debug, Default)]
pub struct Wheel {
    /// All that was due at this tick or before is.
    now: Tick,
    levels: [Level; LEVELS],
    entries: Slab<Entry>,
}

#[derive(Debug)]
struct Level {
    /// A bit for each place with a timer.
    occupied: u64,
    /// The first of each place.
    heads: [u32; PLACES],
}

#[derive(Debug)]
struct Entry {
    at: Tick,
    /// `None` once it is due.
    waker: Option<Waker>,
    before: u32,
    after: u32,
    level: u8,
    place: u8,
}

/// 139 years, from the beginning: nothing lies beyond.
const LEVELS: usize = 7;
const PLACES: usize = 64;
/// Of a tick, those that say its place on one level.
const BITS: usize = 6;
const NONE: u32 = u32::MAX;
const LAST: Tick = (1 << (BITS * LEVELS)) - 1;

/// A list that was this long once, and has little in it now, gives its room back.
const LONG: usize = 1024;

impl Default for Level {
    fn default() -> Self {
        Self { occupied: 0, heads: [NONE; PLACES] }
    }
}

impl Wheel {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Also returns when it has to be looked after, which is not later than `at`, unless that has passed.
    pub fn insert(&mut self, at: Tick, waker: Waker) -> (Key, Tick) {
        let entry =
            Entry { at: at.min(LAST), waker: Some(waker), before: NONE, after: NONE, level: 0, place: 0 };
        let key =
            u32::try_from(self.entries.insert(entry)).expect("so many timers would not fit into memory");
        (Key(key), self.link(key))
    }

    /// Takes one back, due or not. The waker is the caller's to drop.
    pub fn remove(&mut self, key: Key) -> Option<Waker> {
        let entry = self.entries.remove(key.0 as usize);
        if entry.waker.is_some() {
            self.unlink(&entry);
        }
        entry.waker
    }

    pub fn is_due(&self, key: Key) -> bool {
        self.entries[key.0 as usize].waker.is_none()
    }

    /// Has another one woken. The one before is the caller's to drop.
    pub fn wake(&mut self, key: Key, waker: &Waker) -> Option<Waker> {
        let now = self.entries[key.0 as usize].waker.as_mut()?;
        if now.will_wake(waker) { None } else { Some(std::mem::replace(now, waker.clone())) }
    }

    /// When it has to be looked after next.
    pub fn next(&self) -> Option<Tick> {
        self.first().map(|(level, place)| self.start(level, place))
    }

    /// Moves on to `now`. `due` gets the wakers of those whose time that is.
    pub fn expire(&mut self, now: Tick, mut due: impl FnMut(Waker)) {
        while let Some((level, place)) = self.first() {
            let start = self.start(level, place);
            if start > now {
                break;
            }
            self.now = start;
            let Level { occupied, heads } = &mut self.levels[level];
            *occupied &= !(1 << place);
            let mut next = std::mem::replace(&mut heads[place], NONE);
            while next != NONE {
                let key = next;
                let entry = &mut self.entries[key as usize];
                next = entry.after;
                if entry.at <= now {
                    due(entry.waker.take().expect("what is linked has its waker"));
                } else {
                    self.link(key);
                }
            }
        }
        self.now = self.now.max(now);
        if self.entries.capacity() > LONG && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
    }

    /// The place that comes first.
    fn first(&self) -> Option<(usize, usize)> {
        // What lies on a level is before all that lies on those above.
        let (number, level) = self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0)?;
        Some((number, level.occupied.trailing_zeros() as usize))
    }

    /// When a place begins. All places that are in use lie ahead, within one of the level above.
    fn start(&self, level: usize, place: usize) -> Tick {
        let shift = BITS * level;
        let above = self.now >> (shift + BITS) << (shift + BITS);
        above + ((place as Tick) << shift)
    }

    /// Returns when its place begins.
    fn link(&mut self, key: u32) -> Tick {
        let at = self.entries[key as usize].at.max(self.now);
        let differ = (at ^ self.now) | (PLACES as Tick - 1);
        let level = differ.ilog2() as usize / BITS;
        let place = (at >> (BITS * level)) as usize % PLACES;
        let Level { occupied, heads } = &mut self.levels[level];
        *occupied |= 1 << place;
        let after = std::mem::replace(&mut heads[place], key);
        if after != NONE {
            self.entries[after as usize].before = key;
        }
        let entry = &mut self.entries[key as usize];
        (entry.before, entry.after) = (NONE, after);
        (entry.level, entry.place) = (level as u8, place as u8);
        self.start(level, place)
    }

    fn unlink(&mut self, entry: &Entry) {
        let Entry { before, after, level, place, .. } = *entry;
        if after != NONE {
            self.entries[after as usize].before = before;
        }
        if before != NONE {
            self.entries[before as usize].after = after;
            return;
        }
        let Level { occupied, heads } = &mut self.levels[usize::from(level)];
        heads[usize::from(place)] = after;
        if after == NONE {
            *occupied &= !(1 << place);
        }
    }
}

#[cfg(test)]
mod tests;
