//! Names known when the program is compiled, by their text, and the hash that this and the encoder's look-ups begin with.
//!
//! The hash is not seeded: two fields that share one cost a comparison, and nothing grows by it.

use http::HeaderName;

use super::field::Field;
use super::table::{FIELDS, STATIC, fixed};

/// The header name that `name` is, if it is a known one: without an allocation, a check of its bytes, or a count of who shares it.
#[inline]
pub fn known(name: &[u8]) -> Option<HeaderName> {
    let index = find(name, hash(name));
    if index > STATIC {
        return OTHERS.get(index - STATIC - 1).cloned();
    }
    match &fixed(index)?.field {
        Field::Header(name, _) => Some(name.clone()),
        _ => None,
    }
}

/// A field's name as the encoder asks for it.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    pub name: &'a [u8],
    /// The first index that has this name in the static table; 0 if none has.
    pub fixed: u8,
    pub hash: u64,
}

impl<'a> Key<'a> {
    #[inline]
    pub fn of(name: &'a [u8]) -> Self {
        let hash = hash(name);
        let index = find(name, hash);
        let fixed = if index <= STATIC { index as u8 } else { 0 };
        Self { name, fixed, hash }
    }

    /// For names known when the program is compiled.
    pub const fn fixed(fixed: u8) -> Key<'static> {
        let name = FIELDS[fixed as usize - 1].0.as_bytes();
        Key { name, fixed, hash: hash(name) }
    }

    /// For a name that is not in the static table.
    pub const fn other(name: &'static str) -> Key<'static> {
        Key { name: name.as_bytes(), fixed: 0, hash: hash(name.as_bytes()) }
    }

    /// The hash of a field with this name.
    #[inline]
    pub fn with(&self, value: &[u8]) -> u64 {
        let mut hash = fold(self.hash ^ value.len() as u64, ODD);
        let mut rest = value;
        while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
            hash = fold(hash ^ u64::from_le_bytes(*eight), ODD);
            rest = behind;
        }
        // Read again with the bytes before them, if there are any: one load instead of up to seven.
        let last = match (value.last_chunk::<8>(), rest.is_empty()) {
            (_, true) => return hash,
            (Some(eight), false) => u64::from_le_bytes(*eight),
            (None, false) => few(value),
        };
        fold(hash ^ last, ODD)
    }
}

/// A known name's index: in the static table, or behind it; 0 for a name that is not known.
#[inline]
fn find(name: &[u8], hash: u64) -> usize {
    let mut slot = hash as usize % SLOTS;
    loop {
        let index = usize::from(BY_NAME[slot]);
        if index == 0 || text(index).as_bytes() == name {
            return index;
        }
        slot = (slot + 1) % SLOTS;
    }
}

const fn text(index: usize) -> &'static str {
    if index <= STATIC { FIELDS[index - 1].0 } else { OTHER_TEXTS[index - STATIC - 1] }
}

macro_rules! others {
    ($($name:literal)*) => {
        const OTHER_TEXTS: &[&str] = &[$($name),*];
        static OTHERS: [HeaderName; OTHER_TEXTS.len()] = [$(HeaderName::from_static($name)),*];
    };
}

// What the messages of a mesh carry beside the static table's names.
others! {
    "b3"
    "baggage"
    "forwarded"
    "grpc-accept-encoding"
    "grpc-encoding"
    "grpc-message"
    "grpc-status"
    "grpc-status-details-bin"
    "grpc-timeout"
    "idempotency-key"
    "origin"
    "priority"
    "te"
    "traceparent"
    "tracestate"
    "trailer"
    "x-b3-parentspanid"
    "x-b3-sampled"
    "x-b3-spanid"
    "x-b3-traceid"
    "x-forwarded-for"
    "x-forwarded-host"
    "x-forwarded-port"
    "x-forwarded-proto"
    "x-real-ip"
    "x-request-id"
}

/// No more than a third of them are taken, so that a look ends soon.
const SLOTS: usize = 256;

static BY_NAME: [u8; SLOTS] = {
    let mut slots = [0; SLOTS];
    let mut index = STATIC + OTHER_TEXTS.len();
    // Pseudo-header fields, which the static table begins with, are not looked up by name.
    while text(index).as_bytes()[0] != b':' {
        let mut slot = hash(text(index).as_bytes()) as usize % SLOTS;
        while slots[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = index as u8;
        index -= 1;
    }
    slots
};

/// Of a name: its length and both ends tell names apart well enough.
const fn hash(name: &[u8]) -> u64 {
    let (first, last) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (few(name), 0),
    };
    fold(first ^ ODD, last ^ (name.len() as u64) << 56 ^ ODD.rotate_left(32))
}

/// Fewer than eight bytes as a number.
const fn few(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u32::from_le_bytes(*first) as u64 | (u32::from_le_bytes(*last) as u64) << 32
        }
        _ => match bytes {
            [] => 0,
            [first, ..] => {
                let (middle, last) = (bytes[bytes.len() / 2], bytes[bytes.len() - 1]);
                *first as u64 | (middle as u64) << 8 | (last as u64) << 16
            }
        },
    }
}

/// Mixes by a multiplication: both halves of the product carry what both factors were.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

/// Odd, with as many ones as zeroes: the golden ratio's digits.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
