//! Encodes fields into field blocks.
//!
//! Owns the dynamic table that the peer's decoder follows, and the choice of how each field is written (RFC 7541 §6). Never splits a block into
//! frames, nor puts fields in order: pseudo-header fields come first because the caller writes them first.
//!
//! What repeats goes through the dynamic table: for eleven fields of a request that is as quick as writing them out (some 110 ns), makes 282 bytes
//! 11 (140 with three values that are new each time), and halves what the peer's decoder takes for them. Strings are written as they are: the
//! Huffman code would take a quarter off those three values, for 65 ns more a value here and 50 more at the peer, within a mesh whose network is the
//! cheaper side.

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::field::OVERHEAD;
use super::names::Key;
use super::recent::Recent;
use super::table::FIELDS;
use super::{DEFAULT_TABLE_SIZE, integer};

/// Encodes the blocks of one direction of a connection.
#[derive(Debug)]
pub struct Encoder {
    /// Made with the first field that it could hold: an idle connection has none.
    recent: Option<Box<Recent>>,
    /// Bytes as RFC 7541 §4.1 counts them.
    capacity: usize,
    /// The smallest capacity that the peer announced since the last block, if it has to be told of one.
    owed: Option<usize>,
}

/// A block being written: each function appends one field.
#[derive(Debug)]
pub struct Block<'a> {
    encoder: &'a mut Encoder,
    dst: &'a mut BytesMut,
}

impl Encoder {
    /// The peer's decoder has a table of 4096 bytes until its SETTINGS say something else.
    pub fn new() -> Self {
        Self { recent: None, capacity: DEFAULT_TABLE_SIZE, owed: None }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. Of a larger table than the default one no more than that is used: it would be memory for each
    /// connection, and what repeats in a mesh's messages fits.
    pub fn set_max_table_size(&mut self, max_table_size: usize) {
        let capacity = max_table_size.min(DEFAULT_TABLE_SIZE);
        if capacity == self.capacity {
            return;
        }
        self.owed = Some(self.owed.map_or(capacity, |owed| owed.min(capacity)));
        self.capacity = capacity;
        if let Some(recent) = &mut self.recent {
            recent.evict(capacity);
        }
        if capacity == 0 {
            self.recent = None;
        }
    }

    /// Begins a block at the end of `dst`, with the updates of the table's size that are due (RFC 7541 §4.2).
    pub fn block<'a>(&'a mut self, dst: &'a mut BytesMut) -> Block<'a> {
        if let Some(smallest) = self.owed.take() {
            if smallest < self.capacity {
                integer::write(dst, 0x20, 5, smallest);
            }
            integer::write(dst, 0x20, 5, self.capacity);
        }
        Block { encoder: self, dst }
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Block<'_> {
    pub fn method(&mut self, method: &Method) {
        match *method {
            Method::GET => self.indexed(METHOD_GET),
            Method::POST => self.indexed(METHOD_POST),
            _ => self.field(&METHOD, method.as_str().as_bytes()),
        }
    }

    pub fn scheme(&mut self, scheme: &str) {
        match scheme {
            "http" => self.indexed(SCHEME_HTTP),
            "https" => self.indexed(SCHEME_HTTPS),
            _ => self.field(&SCHEME, scheme.as_bytes()),
        }
    }

    pub fn authority(&mut self, authority: &[u8]) {
        self.field(&AUTHORITY, authority);
    }

    pub fn path(&mut self, path: &[u8]) {
        match path {
            b"/" => self.indexed(PATH_ROOT),
            _ => self.field(&PATH, path),
        }
    }

    pub fn status(&mut self, status: StatusCode) {
        let index = match status.as_u16() {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => return self.field(&STATUS, status.as_str().as_bytes()),
        };
        self.indexed(index);
    }

    /// Of an extended CONNECT (RFC 8441 §4).
    pub fn protocol(&mut self, protocol: &[u8]) {
        self.field(&PROTOCOL, protocol);
    }

    /// A sensitive value is written so that no intermediary may put it in a table (RFC 7541 §7.1.3).
    pub fn header(&mut self, name: &HeaderName, value: &HeaderValue) {
        let key = Key::of(name.as_str().as_bytes());
        let value_bytes = value.as_bytes();
        if value.is_sensitive() {
            let name = self.name(&key);
            self.literal(0x10, 4, name, &key, value_bytes);
        } else if UNINDEXED[usize::from(key.fixed)] {
            self.literal(0x00, 4, key.fixed.into(), &key, value_bytes);
        } else {
            self.field(&key, value_bytes);
        }
    }

    /// A field that is in the dynamic table or may enter it.
    fn field(&mut self, key: &Key<'_>, value: &[u8]) {
        let size = key.name.len() + value.len() + OVERHEAD;
        let capacity = self.encoder.capacity;
        if size > capacity / LARGEST_SHARE {
            let name = self.name(key);
            return self.literal(0x00, 4, name, key, value);
        }
        let recent = self.encoder.recent.get_or_insert_with(|| Box::new(Recent::new()));
        let hash = key.with(value);
        if let Some(index) = recent.field(key, value, hash) {
            return self.indexed(index);
        }
        let name = if key.fixed == 0 { recent.name(key).unwrap_or(0) } else { key.fixed.into() };
        // A name that is in no table is kept for its own sake, with whatever value it has the second time.
        let again = recent.seen(hash) || (name == 0 && recent.seen(key.hash));
        if again {
            recent.insert(key, value, hash, size, capacity);
            self.literal(0x40, 6, name, key, value);
        } else {
            self.literal(0x00, 4, name, key, value);
        }
    }

    fn name(&self, key: &Key<'_>) -> usize {
        match &self.encoder.recent {
            Some(recent) if key.fixed == 0 => recent.name(key).unwrap_or(0),
            _ => key.fixed.into(),
        }
    }

    fn indexed(&mut self, index: usize) {
        integer::write(self.dst, 0x80, 7, index);
    }

    /// A field that is written out, its name too if `name` is 0 instead of an index.
    fn literal(&mut self, pattern: u8, bits: u32, name: usize, key: &Key<'_>, value: &[u8]) {
        integer::write(self.dst, pattern, bits, name);
        if name == 0 {
            self.string(key.name);
        }
        self.string(value);
    }

    fn string(&mut self, string: &[u8]) {
        integer::write(self.dst, 0x00, 7, string.len());
        self.dst.put_slice(string);
    }
}

const AUTHORITY: Key<'static> = Key::fixed(1);
const METHOD: Key<'static> = Key::fixed(2);
const METHOD_GET: usize = 2;
const METHOD_POST: usize = 3;
const PATH: Key<'static> = Key::fixed(4);
const PATH_ROOT: usize = 4;
const SCHEME: Key<'static> = Key::fixed(6);
const SCHEME_HTTP: usize = 6;
const SCHEME_HTTPS: usize = 7;
const STATUS: Key<'static> = Key::fixed(8);
/// RFC 8441 is younger than the static table.
const PROTOCOL: Key<'static> = Key::other(":protocol");

/// No entry takes more of the table than one part in so many: a large one would evict what repeats.
const LARGEST_SHARE: usize = 4;

/// By static index: names whose values never enter the table.
///
/// Some are new with nearly each message, so that looking for them is lost. The others are secrets of whoever sent the message: many
/// share the connection and its table, and could find out from the length of their own messages what another one's held (RFC 7541 §7.1).
static UNINDEXED: [bool; FIELDS.len() + 1] = {
    let names = [
        "age",
        "content-length",
        "content-range",
        "date",
        "etag",
        "expires",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "last-modified",
        "location",
        "range",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
    ];
    let mut unindexed = [false; FIELDS.len() + 1];
    let mut at = 0;
    while at < names.len() {
        unindexed[index_of(names[at])] = true;
        at += 1;
    }
    unindexed
};

const fn index_of(name: &str) -> usize {
    let mut index = FIELDS.len();
    loop {
        let known = FIELDS[index - 1].0.as_bytes();
        let mut at = 0;
        while known.len() == name.len() && at < known.len() && known[at] == name.as_bytes()[at] {
            at += 1;
        }
        if known.len() == name.len() && at == known.len() {
            return index;
        }
        index -= 1;
    }
}
