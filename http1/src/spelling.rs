//! How a head was written: the case and order of its fields, and its reason phrase.
//!
//! A head is a `HeaderMap` on its way through a proxy, which knows no case. Some clients and devices do, so a message that goes on in HTTP/1
//! is written as it was spelled; fields that came without a spelling (added on the way, or from HTTP/2) are written in title case.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::spare::Mailbox;

/// Extension of requests and responses that came over HTTP/1. Shares the memory of the head's values.
#[derive(Clone, Debug, Default)]
pub struct Spelling {
    head: Bytes,
    /// In the order they came.
    names: SmallVec<[Range; 16]>,
    /// Where it is not the usual one.
    reason: Option<Range>,
    /// Of a request: where interim responses to it go.
    pub(crate) mailbox: Option<Mailbox>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub start: u32,
    pub len: u32,
}

impl Range {
    /// Where `part` lies in `whole`, of which it is a part.
    pub fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        Self { start: start as u32, len: part.len() as u32 }
    }

    pub fn within(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..][..self.len as usize]
    }

    pub fn slice(self, whole: &Bytes) -> Bytes {
        whole.slice(self.start as usize..(self.start + self.len) as usize)
    }
}

impl Spelling {
    pub(crate) fn new(head: Bytes) -> Self {
        Self { head, ..Self::default() }
    }

    pub(crate) fn name(&mut self, name: Range) {
        self.names.push(name);
    }

    pub(crate) fn set_reason(&mut self, reason: Range) {
        self.reason = Some(reason);
    }

    /// The reason phrase, where it is not the usual one of its status.
    pub fn reason(&self) -> Option<&[u8]> {
        self.reason.map(|reason| reason.within(&self.head))
    }

    fn spelled(&self, at: usize) -> &[u8] {
        self.names[at].within(&self.head)
    }

    /// Where `name` was written first, from `from` on.
    fn find(&self, name: &[u8], from: usize) -> Option<usize> {
        (from..self.names.len()).find(|at| is_spelling(self.spelled(*at), name))
    }
}

/// Whether `spelled` is `name`, which is in lower case: eight letters at a time, because this is asked of every field of every head.
fn is_spelling(spelled: &[u8], name: &[u8]) -> bool {
    if spelled.len() != name.len() {
        return false;
    }
    let same = |(spelled, name): (&[u8; 8], &[u8; 8])| {
        lower_case(u64::from_ne_bytes(*spelled)) == u64::from_ne_bytes(*name)
    };
    match (spelled.last_chunk(), name.last_chunk()) {
        (Some(end), Some(end_of_name)) => {
            let (words, of_name) = (spelled.as_chunks().0, name.as_chunks().0);
            same((end, end_of_name)) && words.iter().zip(of_name).all(same)
        }
        _ => spelled.eq_ignore_ascii_case(name),
    }
}

/// Of eight bytes those that are capital letters of ASCII made small.
const fn lower_case(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let seven = word & (0x7f * EACH);
    // The highest bit of each byte says: from A on; beyond Z; not of ASCII. None carries into the next.
    let (from_a, beyond_z) = (seven + (0x80 - b'A' as u64) * EACH, seven + (0x7f - b'Z' as u64) * EACH);
    word | (from_a & !beyond_z & !word & (0x80 * EACH)) >> 2
}

/// Writes all fields but the skipped ones, each as `Name: value`, CR LF.
pub(crate) fn write_fields(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    spelling: Option<&Spelling>,
    skip: impl Fn(&HeaderName) -> bool,
) {
    let Some(spelling) = spelling else {
        for (name, value) in headers {
            if !skip(name) {
                write_field(out, name, value);
            }
        }
        return;
    };
    let (mut lines, mut next, mut last) = (SmallVec::<[Line<'_>; 32]>::new(), 0, None);
    // Every field so far stood where it stands: the next one is most likely right behind.
    let mut orderly = true;
    for (name, value) in headers {
        if skip(name) {
            continue;
        }
        // A name's values stand together here, in the order they came in; one that has no place of its own was added. A map from which
        // something was removed is not in order.
        let from = if orderly || last.is_some_and(|last| last == name) { next } else { 0 };
        let found = spelling.find(name.as_str().as_bytes(), from);
        if let Some(at) = found {
            orderly &= at == next;
            next = at + 1;
        }
        last = Some(name);
        lines.push(Line { at: found.unwrap_or(usize::MAX), name, value });
    }
    // Stable: what has no place keeps the order it was added in.
    if !lines.is_sorted_by_key(|line| line.at) {
        lines.sort_by_key(|line| line.at);
    }
    for Line { at, name, value } in &lines {
        if *at == usize::MAX {
            write_field(out, name, value);
        } else {
            out.extend_from_slice(spelling.spelled(*at));
            write_value(out, value);
        }
    }
}

struct Line<'a> {
    /// In the order they came; the largest for one that did not.
    at: usize,
    name: &'a HeaderName,
    value: &'a HeaderValue,
}

pub(crate) fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let from = out.len();
    out.extend_from_slice(name.as_str().as_bytes());
    let mut first = true;
    for byte in &mut out[from..] {
        if first {
            byte.make_ascii_uppercase();
        }
        first = *byte == b'-';
    }
    write_value(out, value);
}

fn write_value(out: &mut Vec<u8>, value: &HeaderValue) {
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_any_case_and_no_other_for_it() {
        for byte in 0..=u8::MAX {
            let word = [byte; 8];
            let lower = lower_case(u64::from_ne_bytes(word)).to_ne_bytes();
            assert_eq!(lower, [byte.to_ascii_lowercase(); 8], "{byte}");
        }
        for name in
            ["te", "host", "expect", "trailers", "x-request", "content-length", "x-forwarded-client-cert"]
        {
            let name = name.as_bytes();
            for at in 0..name.len() {
                let (mut spelled, mut other) = (name.to_vec(), name.to_vec());
                spelled[at].make_ascii_uppercase();
                other[at] ^= 0x01;
                assert!(is_spelling(&spelled, name));
                assert!(!is_spelling(&other, name));
                // The other case of what is no letter is another name.
                other[at] = name[at] ^ 0x20;
                assert_eq!(is_spelling(&other, name), name[at].is_ascii_alphabetic());
            }
            assert!(!is_spelling(&name[1..], name));
        }
    }
}
