//! How a head was written: the case and order of its fields, and its reason phrase.
//!
//! A head is a `HeaderMap` on its way through a proxy, which knows no case. Some clients and devices do, so a message that goes on in HTTP/1
//! is written as it was spelled; fields that came without a spelling (added on the way, or from HTTP/2) are written in title case.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Extension of requests and responses that came over HTTP/1. Shares the memory of the head's values.
#[derive(Clone, Debug, Default)]
pub struct Spelling {
    head: Bytes,
    /// In the order they came.
    names: SmallVec<[Range; 16]>,
    /// Where it is not the usual one.
    reason: Option<Range>,
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

    /// The whole line of a field in the head it came in, with its end; empty where its value is another one by now, or it was written in another way than a
    /// line is here.
    fn line(&self, at: usize, value: &HeaderValue) -> std::ops::Range<usize> {
        let (head, value) = (&*self.head, value.as_bytes());
        let start = self.names[at].start as usize;
        let from = start + self.names[at].len as usize + 2;
        let end = from + value.len() + 2;
        let same =
            (value.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize) == from && end <= head.len();
        if same && head[from - 2..from] == *b": " && head[end - 2..end] == *b"\r\n" {
            start..end
        } else {
            0..0
        }
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

/// A byte in each place.
const EACH: u64 = 0x0101_0101_0101_0101;

/// Of eight bytes those that are capital letters of ASCII made small.
const fn lower_case(word: u64) -> u64 {
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
    match spelling {
        None => {
            for (name, value) in headers.iter().filter(|(name, _)| !skip(name)) {
                write_field(out, name, value);
            }
        }
        Some(spelling) => {
            let begun = out.len();
            if !write_in_order(out, headers, spelling, &skip) {
                out.truncate(begun);
                write_sorted(out, headers, spelling, &skip);
            }
        }
    }
}

/// Most heads go on as they came, and what was added stands behind: then nothing has to be sorted, and lines that stood side by side are copied at once.
/// False where the order is another one, and what was written so far is of no use.
fn write_in_order(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    spelling: &Spelling,
    skip: impl Fn(&HeaderName) -> bool,
) -> bool {
    let head = &*spelling.head;
    let mut added = SmallVec::<[(&HeaderName, &HeaderValue); 8]>::new();
    let (mut next, mut run) = (0, 0..0);
    for (name, value) in headers {
        if skip(name) {
            continue;
        }
        let Some(at) = spelling.find(name.as_str().as_bytes(), next) else {
            if next > 0 && spelling.find(name.as_str().as_bytes(), 0).is_some() {
                return false;
            }
            added.push((name, value));
            continue;
        };
        next = at + 1;
        let line = spelling.line(at, value);
        if line.start != run.end || line.is_empty() {
            out.extend_from_slice(&head[std::mem::take(&mut run)]);
            run.start = line.start;
        }
        run.end = line.end;
        if line.is_empty() {
            run = 0..0;
            out.extend_from_slice(spelling.spelled(at));
            write_value(out, value);
        }
    }
    out.extend_from_slice(&head[run]);
    for (name, value) in added {
        write_field(out, name, value);
    }
    true
}

fn write_sorted(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    spelling: &Spelling,
    skip: impl Fn(&HeaderName) -> bool,
) {
    let (mut lines, mut next, mut last) = (SmallVec::<[Line<'_>; 32]>::new(), 0, None);
    for (name, value) in headers {
        if skip(name) {
            continue;
        }
        // A name's values stand together here, in the order they came in; one that has no place of its own was added.
        let from = if last == Some(name) { next } else { 0 };
        let found = spelling.find(name.as_str().as_bytes(), from);
        if let Some(at) = found {
            next = at + 1;
        }
        last = Some(name);
        lines.push(Line { at: found.unwrap_or(usize::MAX), name, value });
    }
    // Stable: what has no place keeps the order it was added in.
    lines.sort_by_key(|line| line.at);
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

/// Of a field that came without a spelling.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    let (words, rest) = name.as_chunks::<8>();
    let mut begins = FIRST;
    for word in words {
        let word = u64::from_le_bytes(*word);
        out.extend_from_slice(&capitals(word, begins).to_le_bytes());
        begins = dashes(word) >> 56;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    out.extend_from_slice(&capitals(u64::from_le_bytes(last), begins).to_le_bytes()[..rest.len()]);
    write_value(out, value);
}

/// Of eight bytes the first, by its highest bit.
const FIRST: u64 = 0x80;

/// Of eight bytes of a name, the first in the lowest place, those that begin a word with capital letters: those behind a dash, and those said.
const fn capitals(word: u64, begins: u64) -> u64 {
    let seven = word & (0x7f * EACH);
    let (from_a, beyond_z) = (seven + (0x80 - b'a' as u64) * EACH, seven + (0x7f - b'z' as u64) * EACH);
    let letters = from_a & !beyond_z & !word;
    word & !((letters & (dashes(word) << 8 | begins) & (0x80 * EACH)) >> 2)
}

/// The highest bits of those bytes that are dashes.
const fn dashes(word: u64) -> u64 {
    let other = word ^ (b'-' as u64 * EACH);
    !(((other & (0x7f * EACH)) + 0x7f * EACH) | other) & (0x80 * EACH)
}

fn write_value(out: &mut Vec<u8>, value: &HeaderValue) {
    out.reserve(value.len() + 4);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_without_a_spelling_is_written_in_title_case() {
        let names = "te host -x x- x--y a-b-c-d-e-f-g-h x-forwarded-client-cert x-1a-2b abcdefgh-i abcdefg-h x-~a x_a-_b";
        for name in names.split(' ') {
            let mut written = Vec::new();
            write_field(&mut written, &name.parse().unwrap(), &HeaderValue::from_static("a-b"));
            let (mut expected, mut first) = (String::new(), true);
            for letter in name.chars() {
                expected.push(if first { letter.to_ascii_uppercase() } else { letter });
                first = letter == '-';
            }
            assert_eq!(String::from_utf8(written).unwrap(), format!("{expected}: a-b\r\n"));
        }
    }

    /// As it was read: names by their places, values as parts of the head.
    fn read(head: &'static str) -> (Spelling, HeaderMap) {
        let bytes = Bytes::from_static(head.as_bytes());
        let (mut spelling, mut headers) = (Spelling::new(bytes.clone()), HeaderMap::new());
        for line in head.lines() {
            let (name, value) = line.split_once(':').unwrap();
            let place = Range::of(value.trim().as_bytes(), head.as_bytes());
            spelling.name(Range::of(name.as_bytes(), head.as_bytes()));
            let value = HeaderValue::from_maybe_shared(place.slice(&bytes)).unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value);
        }
        (spelling, headers)
    }

    fn written(headers: &HeaderMap, spelling: &Spelling, skipped: &str) -> String {
        let mut out = b"before\r\n".to_vec();
        write_fields(&mut out, headers, Some(spelling), |name| name.as_str() == skipped);
        String::from_utf8(out).unwrap().strip_prefix("before\r\n").unwrap().to_owned()
    }

    const HEAD: &str = "HOST: a\r\nAccept:b\r\nx-One: 1\r\nX-one: 2\r\nx-Two: 3\r\n";

    #[test]
    fn fields_are_written_as_they_were_spelled_and_what_was_added_behind() {
        let (spelling, headers) = read(HEAD);
        let all = "HOST: a\r\nAccept: b\r\nx-One: 1\r\nX-one: 2\r\nx-Two: 3\r\n";
        assert_eq!(written(&headers, &spelling, ""), all);
        assert_eq!(written(&headers, &spelling, "x-one"), "HOST: a\r\nAccept: b\r\nx-Two: 3\r\n");
        assert_eq!(written(&headers, &spelling, "host"), all.strip_prefix("HOST: a\r\n").unwrap());
        let mut more = headers.clone();
        more.insert("x-three", HeaderValue::from_static("4"));
        // The very bytes of another field's value.
        more.insert("x-host", headers["host"].clone());
        assert_eq!(written(&more, &spelling, ""), format!("{all}X-Three: 4\r\nX-Host: a\r\n"));
    }

    #[test]
    fn what_was_changed_is_written_as_it_is_now_in_the_place_it_had() {
        let (spelling, headers) = read(HEAD);
        let mut other = headers.clone();
        other.insert("host", HeaderValue::from_static("other"));
        other.insert("x-two", headers["host"].clone());
        let expected = "HOST: other\r\nAccept: b\r\nx-One: 1\r\nX-one: 2\r\nx-Two: a\r\n";
        assert_eq!(written(&other, &spelling, ""), expected);
        // To remove a field puts the last one into its place.
        let mut fewer = headers.clone();
        fewer.remove("host");
        assert_eq!(written(&fewer, &spelling, ""), "Accept: b\r\nx-One: 1\r\nX-one: 2\r\nx-Two: 3\r\n");
        fewer.insert("x-new", HeaderValue::from_static("n"));
        fewer.append("x-one", HeaderValue::from_static("5"));
        let expected = "Accept: b\r\nx-One: 1\r\nX-one: 2\r\nx-Two: 3\r\nX-New: n\r\n";
        assert!(written(&fewer, &spelling, "").starts_with("Accept: b\r\nx-One: 1\r\nX-one: 2\r\n"));
        fewer.remove("x-one");
        assert_eq!(written(&fewer, &spelling, ""), expected.replace("x-One: 1\r\nX-one: 2\r\n", ""));
    }

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
