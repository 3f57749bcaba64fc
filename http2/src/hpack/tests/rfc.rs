//! RFC 7541 Appendix C, all of it: what comes of each block, and what the table holds after it.

use bytes::Bytes;

use super::{decode, hex, table, text};
use crate::hpack::{DEFAULT_TABLE_SIZE, DecodeError, Decoder, integer};

/// Blocks of one connection: hexadecimal, the fields, the table after it from the newest on, and what that counts.
type Example<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], usize);

#[test]
fn c_1_integers() {
    for (encoded, bits, value) in [("0a", 5, 10), ("1f9a0a", 5, 1337), ("2a", 8 - 1, 42)] {
        assert_eq!(integer::read(&hex(encoded), &mut 0, bits), Ok(value), "{encoded}");
        let mut written = bytes::BytesMut::new();
        integer::write(&mut written, 0, bits, value);
        assert_eq!(written.freeze(), hex(encoded));
    }
}

#[test]
fn c_2_representations() {
    let custom: &[_] = &[("custom-key", "custom-header")];
    run(
        DEFAULT_TABLE_SIZE,
        &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", custom, custom, 55)],
    );
    run(DEFAULT_TABLE_SIZE, &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], &[], 0)]);
    run(
        DEFAULT_TABLE_SIZE,
        &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], &[], 0)],
    );
    run(DEFAULT_TABLE_SIZE, &[("82", &[(":method", "GET")], &[], 0)]);
}

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

const REQUEST_TABLE: [(&str, &str); 3] =
    [("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")];

#[test]
fn c_3_requests_without_huffman_coding() {
    requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn c_4_requests_with_huffman_coding() {
    requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

fn requests(blocks: [&str; 3]) {
    run(
        DEFAULT_TABLE_SIZE,
        &[
            (blocks[0], REQUESTS[0], &REQUEST_TABLE[2..], 57),
            (blocks[1], REQUESTS[1], &REQUEST_TABLE[1..], 110),
            (blocks[2], REQUESTS[2], &REQUEST_TABLE, 164),
        ],
    );
}

const DATE: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const LATER: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const COOKIE: (&str, &str) = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");

#[test]
fn c_5_responses_without_huffman_coding() {
    responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
         3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
         7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
         6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ]);
}

#[test]
fn c_6_responses_with_huffman_coding() {
    responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
         1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
         e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}

/// With a table of 256 bytes, so that entries leave it.
fn responses(blocks: [&str; 3]) {
    let (found, moved) = ((":status", "302"), (":status", "307"));
    run(
        256,
        &[
            (blocks[0], &[found, PRIVATE, DATE, LOCATION], &[LOCATION, DATE, PRIVATE, found], 222),
            (blocks[1], &[moved, PRIVATE, DATE, LOCATION], &[moved, LOCATION, DATE, PRIVATE], 222),
            (
                blocks[2],
                &[(":status", "200"), PRIVATE, LATER, LOCATION, GZIP, COOKIE],
                &[COOKIE, GZIP, LATER],
                215,
            ),
        ],
    );
}

fn run(table_size: usize, examples: &[Example<'_>]) {
    let mut decoder = Decoder::new(table_size);
    for (block, fields, entries, size) in examples {
        let (decoded, _) = decode(&mut decoder, &hex(block)).expect("an example of the RFC");
        assert_eq!(decoded.iter().map(text).collect::<Vec<_>>(), strings(fields), "{block}");
        let (kept, kept_size) = table(&mut decoder);
        assert_eq!(kept, strings(entries), "the table after {block}");
        assert_eq!(kept_size, *size, "the table's size after {block}");
    }
}

fn strings(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn an_example_cut_short_is_refused() {
    let whole = hex("4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
    for len in 1..whole.len() {
        let cut = Bytes::copy_from_slice(&whole[..len]);
        assert_eq!(
            decode(&mut Decoder::new(DEFAULT_TABLE_SIZE), &cut),
            Err(DecodeError::Truncated),
            "{len} bytes"
        );
    }
}
