//! A bounded, seeded run of what the fuzz target does without end.

mod differ;

use std::collections::BTreeMap;

use differ::{
    CONTINUATION, DATA, Frame, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

fn pick<'a, T: ?Sized>(rng: &mut SmallRng, from: &[&'a T]) -> &'a T {
    from[rng.random_range(0..from.len())]
}

/// HPACK, each way of writing a field.
struct Block<'a> {
    rng: &'a mut SmallRng,
    bytes: Vec<u8>,
}

impl Block<'_> {
    fn integer(&mut self, pattern: u8, bits: u32, value: usize) {
        let most = (1usize << bits) - 1;
        if value < most {
            return self.bytes.push(pattern | value as u8);
        }
        self.bytes.push(pattern | most as u8);
        let mut rest = value - most;
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    fn string(&mut self, string: &[u8]) {
        self.integer(0, 7, string.len());
        self.bytes.extend_from_slice(string);
    }

    fn literal(&mut self, name: &[u8], value: &[u8]) {
        let (pattern, bits) = [(0x40, 6), (0, 4), (0x10, 4)][self.rng.random_range(0..3)];
        self.integer(pattern, bits, 0);
        self.string(name);
        self.string(value);
    }

    /// A request's, most of the time.
    fn pseudo(&mut self) {
        match self.rng.random_range(0..12) {
            0..8 => self.bytes.extend([0x83, 0x86, 0x84]),
            8 => self.bytes.extend([0x82, 0x87, 0x85]),
            9 => {
                self.literal(b":method", b"CONNECT");
                self.literal(b":authority", b"a.test:443");
            }
            _ => {
                for (name, value) in [
                    (":method", &["GET", "PUT", "", "G T", "HEAD"][..]),
                    (":scheme", &["http", "https", "ftp", "h ttp", ""]),
                    (":path", &["/a?b", "*", "", "a", "/\u{7f}", "/#x"]),
                    (":authority", &["a.test", "", "a b", "u@a", "a:b"]),
                    (":status", &["200"]),
                    (":protocol", &["websocket"]),
                    (":other", &["x"]),
                ] {
                    if self.rng.random_range(0..4) > 0
                        && (!name.starts_with(":s") || self.rng.random_range(0..3) > 0)
                    {
                        let value = pick(self.rng, value);
                        self.literal(name.as_bytes(), value.as_bytes());
                    }
                }
            }
        }
    }

    fn field(&mut self) {
        match self.rng.random_range(0..100) {
            0..20 => {
                let index = self.rng.random_range(15..62);
                self.integer(0x80, 7, index);
            }
            20..23 => {
                let index = self.rng.random_range(62..64);
                self.integer(0x80, 7, index);
            }
            23 => {
                let index = self.rng.random_range(0..120);
                self.integer(0x80, 7, index);
            }
            24..50 => {
                let (pattern, bits) = [(0x40, 6), (0, 4), (0x10, 4)][self.rng.random_range(0..3)];
                let index = self.rng.random_range(15..62);
                self.integer(pattern, bits, index);
                let value = pick(self.rng, VALUES);
                self.string(value);
            }
            50..54 => {
                // A string in the Huffman code, or what claims to be one.
                self.integer(0x40, 6, 58);
                let length = self.rng.random_range(0..12);
                self.integer(0x80, 7, length);
                let code: Vec<u8> = (0..length).map(|_| self.rng.random()).collect();
                self.bytes.extend(code);
            }
            54 => {
                let size = [0, 30, 100, 4096, 4097][self.rng.random_range(0..5)];
                self.integer(0x20, 5, size);
            }
            55..60 => {
                let length = ["0", "1", "5", "05", "5, 5", "x", "99999999999999999999"];
                let value = pick(self.rng, &length);
                self.literal(b"content-length", value.as_bytes());
            }
            60..63 => {
                let name = pick(self.rng, BAD_NAMES);
                self.literal(name.as_bytes(), b"a");
            }
            63..66 => {
                let value = pick(self.rng, BAD_VALUES);
                self.literal(b"x-a", value);
            }
            _ => {
                let name = pick(self.rng, NAMES);
                let value = pick(self.rng, VALUES);
                self.literal(name.as_bytes(), value);
            }
        }
    }
}

const NAMES: &[&str] = &["x-a", "x-b", "te", "cookie", "host", "x-request-id", "traceparent", "accept"];
const BAD_NAMES: &[&str] =
    &["connection", "keep-alive", "upgrade", "transfer-encoding", "X-C", "", "x y", ":path", ":x"];
const VALUES: &[&[u8]] =
    &[b"", b"a", b"trailers", b"a b", b"\xff", b"0123456789012345678901234567890123456789"];
const BAD_VALUES: &[&[u8]] = &[b" a", b"a\t", b"a\0b", b"a\nb", b"\x7f"];

fn block(rng: &mut SmallRng, request: bool) -> Vec<u8> {
    let mut block = Block { rng, bytes: Vec::new() };
    if block.rng.random_range(0..12) == 0 {
        let size = block.rng.random_range(0..4200);
        block.integer(0x20, 5, size);
    }
    if request {
        block.pseudo();
    }
    for _ in 0..block.rng.random_range(0..5) {
        block.field();
    }
    block.bytes
}

fn frames(rng: &mut SmallRng) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut put = |kind: u8, flags: u8, stream: u32, payload: Vec<u8>| {
        frames.push(Frame { kind, flags, stream, payload })
    };
    let mut next = 1;
    for _ in 0..rng.random_range(1..12) {
        // Of one that was opened, most of the time.
        let any = match rng.random_range(0..100) {
            0 => rng.random_range(0..12),
            _ => (2 * rng.random_range(0..next / 2 + 1) + 1).min(next.max(3) - 2),
        };
        let end = rng.random_range(0..2);
        let what = if next == 1 { 0 } else { rng.random_range(0..60) };
        match what {
            0..20 => {
                put(HEADERS, 4 | end, next, block(rng, true));
                // Now and then a number is passed over.
                next += 2 + 2 * (rng.random_range(0..8) / 7);
            }
            20..23 => put(HEADERS, 4 | end, any, block(rng, false)),
            23..28 => {
                let block = block(rng, true);
                let (head, rest) = block.split_at(rng.random_range(0..=block.len()));
                put(HEADERS, end, next, head.to_vec());
                let rest = rest.to_vec();
                put(CONTINUATION, 4 * rng.random_range(0..8).min(1), next, rest);
                next += 2;
            }
            28..45 => {
                let padded = if rng.random_range(0..4) == 0 { 8 } else { 0 };
                let length = [0, 1, 3, 5, 100, 10_000, 16_384][rng.random_range(0..7)];
                put(DATA, padded | end, any, vec![rng.random_range(0..6); length]);
            }
            45..48 => put(RST_STREAM, 0, any, vec![0; 4 + rng.random_range(0..30) / 29]),
            48..51 => {
                let by: u32 = [1, 1_000, 100_000, 0x8000_0001, 0, 0x7fff_ffff][rng.random_range(0..24) / 4];
                let stream = if rng.random_range(0..2) == 0 { 0 } else { any };
                put(WINDOW_UPDATE, 0, stream, by.to_be_bytes().to_vec());
            }
            51..54 => {
                let id: u16 = rng.random_range(0..10);
                let value: u32 =
                    [0, 1, 2, 100, 16_384, 65_536, 0x7fff_ffff, 0x8000_0000][rng.random_range(0..8)];
                put(SETTINGS, 0, 0, [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
            }
            54..57 => put(PING, rng.random_range(0..2), 0, vec![0; 8]),
            57..59 => put(PRIORITY, 0, any, vec![0, 0, 0, 2 * rng.random_range(0..4), 0]),
            _ => {
                // Anything.
                let kind =
                    [GOAWAY, 5, 10, SETTINGS, PING, DATA, HEADERS, CONTINUATION][rng.random_range(0..8)];
                let payload = (0..rng.random_range(0..12)).map(|_| rng.random()).collect();
                let stream = if rng.random_range(0..2) == 0 { 0 } else { any };
                put(kind, rng.random(), stream, payload);
            }
        }
    }
    frames
}

#[test]
fn every_difference_to_h2_is_explained() {
    let mut differences: BTreeMap<_, u32> = BTreeMap::new();
    for seed in 0..10_000 {
        let frames = frames(&mut SmallRng::seed_from_u64(seed));
        match differ::compare(&frames) {
            Ok(what) => *differences.entry(what).or_default() += 1,
            Err(complaint) => panic!("seed {seed}: {complaint}"),
        }
        if seed % 20 == 0 {
            let bytes = differ::HELLO.iter().copied().chain(frames.iter().flat_map(Frame::bytes));
            differ::endure(&bytes.collect::<Vec<_>>());
        }
    }
    println!("{differences:#?}");
    // A run in which nothing differs, or nothing agrees, has looked at nothing.
    assert!(differences.len() >= 3 && differences["the same"] > 2_000, "{differences:#?}");
}

/// As the fuzz target makes them of what it is given.
#[test]
fn arbitrary_bytes_are_explained() {
    for seed in 0..5_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let bytes: Vec<u8> = (0..rng.random_range(0..300)).map(|_| rng.random()).collect();
        if let Err(complaint) = differ::compare(&Frame::all(&bytes)) {
            panic!("seed {seed}: {complaint}");
        }
        differ::endure(&bytes);
    }
}
