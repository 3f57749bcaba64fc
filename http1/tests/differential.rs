//! A bounded, seeded run of what the fuzz target does without end.

mod differ;

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const LINES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "GET /a?b=c#d HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\n",
    "POST / HTTP/1.0\r\n",
    "GET / HTTP/1.0\r\n",
    "GET http://a.test/ HTTP/1.1\r\n",
    "CONNECT a.test:443 HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET a.test HTTP/1.1\r\n",
    "GET  / HTTP/1.1\r\n",
    "GET / HTTP/1.1\n",
    "\r\nGET / HTTP/1.1\r\n",
];

const FIELDS: &[&str] = &[
    "Host: a\r\n",
    "Host: a\r\n",
    "Host: a\r\n",
    "Host: b\r\n",
    "Host: a b\r\n",
    "X-A: 1\r\n",
    "x-a:2\r\n",
    "X-B:\r\n",
    "X-C : 1\r\n",
    " folded\r\n",
    "X-D: \u{e9}\r\n",
    "X-E: 1\n",
    "Content-Length: 5\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 6\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding:\tchunked \r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "TE: trailers\r\n",
];

const BODIES: &[&str] = &[
    "",
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5;\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "05\r\nhello\r\n000\r\n\r\n",
    "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\n",
];

fn some_bytes(rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        bytes.extend_from_slice(pick(rng, LINES).as_bytes());
        bytes.extend_from_slice(FIELDS[0].as_bytes());
        for _ in 0..rng.random_range(0..4) {
            bytes.extend_from_slice(pick(rng, FIELDS).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(pick(rng, BODIES).as_bytes());
    }
    // Half of them as they are: most changes break the first line they hit.
    if rng.random_range(0..2) == 0 {
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 => bytes[at] = pick(rng, b"\r\n :;0\t,"),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, pick(rng, b"\r\n :0\0")),
            }
            if bytes.is_empty() {
                break;
            }
        }
    }
    bytes
}

fn pick<T: Copy>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

#[test]
fn every_difference_to_hyper_is_explained() {
    let mut differences: BTreeMap<_, u32> = BTreeMap::new();
    for seed in 0..20_000 {
        let bytes = some_bytes(&mut SmallRng::seed_from_u64(seed));
        match differ::compare(&bytes) {
            Ok(what) => *differences.entry(what).or_default() += 1,
            Err(complaint) => panic!("seed {seed}: {complaint}"),
        }
    }
    println!("{differences:#?}");
    // A run in which nothing differs, or nothing agrees, has looked at nothing.
    assert!(differences.len() >= 3 && differences["the same"] > 5_000, "{differences:#?}");
}
