//! The fields that an index stands for: the static table and the decoder's dynamic one (RFC 7541 §2.3).
//!
//! Entries are finished fields, so that to resolve an index is to raise a reference count. What an entry holds is its own: never a slice of
//! the block that brought it, which would keep a read buffer as long as the table keeps the entry.
//! The encoder's table is in `recent.rs`: it is asked for fields by their content, this one by their index.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::field::{Field, OVERHEAD};

/// A field and what it counts.
#[derive(Clone, Debug)]
pub struct Entry {
    pub field: Field,
    /// Bytes of the name: what a field that takes the name alone is counted by.
    pub name_len: u32,
    /// Bytes of name and value and the [`OVERHEAD`].
    pub size: u32,
}

impl Entry {
    /// Lengths that 32 bits do not hold, which no block has, count as the most that they do.
    pub fn new(field: Field, name_len: usize, value_len: usize) -> Self {
        let size =
            u32::try_from(name_len.saturating_add(value_len).saturating_add(OVERHEAD)).unwrap_or(u32::MAX);
        Self { field, name_len: u32::try_from(name_len).unwrap_or(u32::MAX), size }
    }
}

/// The decoder's dynamic table.
#[derive(Debug)]
pub struct Dynamic {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    capacity: usize,
}

impl Dynamic {
    /// `capacity` in bytes as RFC 7541 §4.1 counts them.
    pub fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, capacity }
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Index 0 is the newest entry.
    #[inline]
    pub fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// One larger than the whole table empties it and is not kept (RFC 7541 §4.4).
    pub fn insert(&mut self, entry: Entry) {
        let size = entry.size as usize;
        self.evict(self.capacity.saturating_sub(size));
        if size <= self.capacity {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    pub fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.evict(capacity);
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    fn evict(&mut self, keep: usize) {
        while self.size > keep {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size as usize;
        }
    }
}

/// How many entries the static table has; the dynamic table's indices begin behind them.
pub const STATIC: usize = 61;

/// The entry that index `index` (1 to 61) of the static table stands for.
#[inline]
pub fn fixed(index: usize) -> Option<&'static Entry> {
    ENTRIES.get(index.wrapping_sub(1))
}

macro_rules! fields {
    ($($name:literal $value:literal)*) => {
        /// RFC 7541 Appendix A, as text, from index 1 on.
        pub const FIELDS: [(&str, &str); STATIC] = [$(($name, $value)),*];
        static ENTRIES: [Entry; STATIC] = [$(finished($name, $value)),*];
    };
}

fields! {
    ":authority" ""
    ":method" "GET"
    ":method" "POST"
    ":path" "/"
    ":path" "/index.html"
    ":scheme" "http"
    ":scheme" "https"
    ":status" "200"
    ":status" "204"
    ":status" "206"
    ":status" "304"
    ":status" "400"
    ":status" "404"
    ":status" "500"
    "accept-charset" ""
    "accept-encoding" "gzip, deflate"
    "accept-language" ""
    "accept-ranges" ""
    "accept" ""
    "access-control-allow-origin" ""
    "age" ""
    "allow" ""
    "authorization" ""
    "cache-control" ""
    "content-disposition" ""
    "content-encoding" ""
    "content-language" ""
    "content-length" ""
    "content-location" ""
    "content-range" ""
    "content-type" ""
    "cookie" ""
    "date" ""
    "etag" ""
    "expect" ""
    "expires" ""
    "from" ""
    "host" ""
    "if-match" ""
    "if-modified-since" ""
    "if-none-match" ""
    "if-range" ""
    "if-unmodified-since" ""
    "last-modified" ""
    "link" ""
    "location" ""
    "max-forwards" ""
    "proxy-authenticate" ""
    "proxy-authorization" ""
    "range" ""
    "referer" ""
    "refresh" ""
    "retry-after" ""
    "server" ""
    "set-cookie" ""
    "strict-transport-security" ""
    "transfer-encoding" ""
    "user-agent" ""
    "vary" ""
    "via" ""
    "www-authenticate" ""
}

const fn finished(name: &'static str, value: &'static str) -> Entry {
    let field = match name.as_bytes() {
        b":authority" => Field::Authority(Bytes::from_static(value.as_bytes())),
        b":method" => Field::Method(method(value)),
        b":path" => Field::Path(Bytes::from_static(value.as_bytes())),
        b":scheme" => Field::Scheme(Bytes::from_static(value.as_bytes())),
        b":status" => Field::Status(status(value)),
        _ => Field::Header(HeaderName::from_static(name), HeaderValue::from_static(value)),
    };
    Entry { field, name_len: name.len() as u32, size: (name.len() + value.len() + OVERHEAD) as u32 }
}

const fn method(value: &str) -> Method {
    match value.as_bytes() {
        b"GET" => Method::GET,
        b"POST" => Method::POST,
        _ => panic!("the static table has two methods"),
    }
}

const fn status(value: &str) -> StatusCode {
    match value.as_bytes() {
        [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            let code = (*hundreds - b'0') as u16 * 100 + (*tens - b'0') as u16 * 10 + (*ones - b'0') as u16;
            match StatusCode::from_u16(code) {
                Ok(status) => status,
                Err(_) => panic!("three digits are a status"),
            }
        }
        _ => panic!("a status is three digits"),
    }
}
