//! How fields are written, and that a decoder follows the encoder wherever its table goes.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

use super::{decode, hex, table, text};
use crate::hpack::{DEFAULT_TABLE_SIZE, Decoder, Encoder, Field};

/// Encodes `fields` as one block.
fn encode(encoder: &mut Encoder, fields: &[Field]) -> Bytes {
    let mut dst = BytesMut::new();
    let mut block = encoder.block(&mut dst);
    for field in fields {
        match field {
            Field::Authority(value) => block.authority(value),
            Field::Method(method) => block.method(method),
            Field::Path(value) => block.path(value),
            Field::Protocol(value) => block.protocol(value),
            Field::Scheme(value) => block.scheme(std::str::from_utf8(value).expect("ASCII")),
            Field::Status(status) => block.status(*status),
            Field::Header(name, value) => block.header(name, value),
            Field::Malformed(_) => panic!("nobody sends one"),
        }
    }
    dst.freeze()
}

fn header(name: &str, value: &str) -> Field {
    let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
    Field::Header(name, HeaderValue::from_str(value).expect("a value"))
}

#[test]
fn what_the_static_table_has_is_one_byte() {
    let mut encoder = Encoder::new();
    for (field, want) in [
        (Field::Method(Method::GET), "82"),
        (Field::Method(Method::POST), "83"),
        (Field::Path("/".into()), "84"),
        (Field::Scheme("http".into()), "86"),
        (Field::Scheme("https".into()), "87"),
        (Field::Status(StatusCode::OK), "88"),
        (Field::Status(StatusCode::NO_CONTENT), "89"),
        (Field::Status(StatusCode::PARTIAL_CONTENT), "8a"),
        (Field::Status(StatusCode::NOT_MODIFIED), "8b"),
        (Field::Status(StatusCode::BAD_REQUEST), "8c"),
        (Field::Status(StatusCode::NOT_FOUND), "8d"),
        (Field::Status(StatusCode::INTERNAL_SERVER_ERROR), "8e"),
    ] {
        let block = encode(&mut encoder, std::slice::from_ref(&field));
        assert_eq!(block, hex(want), "{field:?}");
        assert_eq!(decode(&mut Decoder::new(0), &block).expect("sound").0, [field]);
    }
}

#[test]
fn a_field_enters_the_table_at_its_second_sight() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(DEFAULT_TABLE_SIZE));
    for field in [
        header("user-agent", "outrigger"),
        header("x-team", "checkout"),
        Field::Authority("shop".into()),
        Field::Path("/cart".into()),
        Field::Method(Method::PUT),
        Field::Status(StatusCode::IM_A_TEAPOT),
        Field::Protocol("websocket".into()),
        Field::Scheme("ws".into()),
    ] {
        let fields = [field];
        let lengths: Vec<_> = (0..4)
            .map(|_| {
                let block = encode(&mut encoder, &fields);
                assert_eq!(decode(&mut decoder, &block).expect("sound").0, fields);
                block.len()
            })
            .collect();
        assert!(lengths[0] > 3 && lengths[1] > 3, "{fields:?}: {lengths:?}");
        assert_eq!(lengths[2..], [1, 1], "{fields:?}");
    }
    assert_eq!(table(&mut decoder).0.len(), 8);
}

#[test]
fn what_is_new_each_time_evicts_nothing() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(DEFAULT_TABLE_SIZE));
    let mut lengths = Vec::new();
    for turn in 0..1000 {
        let block = encode(
            &mut encoder,
            &[
                Field::Path(format!("/users/{turn}").into()),
                header("user-agent", "outrigger"),
                header("x-request-id", &format!("{turn:032}")),
                header("date", &format!("Tue, 24 Nov 2026 00:00:{:02} GMT", turn / 100)),
                header("content-length", "12"),
                header("cookie", "session=1"),
                header("authorization", "Bearer 1"),
            ],
        );
        decode(&mut decoder, &block).expect("sound");
        lengths.push(block.len());
    }
    let names: Vec<_> = table(&mut decoder).0.into_iter().map(|(name, _)| name).collect();
    // The request id's name is worth an entry, whatever value came with it.
    assert_eq!(names, ["x-request-id", "user-agent"]);
    assert!(lengths[9] <= lengths[0] - "outrigger".len() - "x-request-id".len(), "{:?}", &lengths[..10]);
}

#[test]
fn a_secret_stays_one_on_the_next_hop() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(DEFAULT_TABLE_SIZE));
    for name in ["authorization", "x-api-key", "user-agent"] {
        let mut value = HeaderValue::from_static("secret");
        let open = Field::Header(HeaderName::from_static(name), value.clone());
        value.set_sensitive(true);
        let field = Field::Header(HeaderName::from_static(name), value);
        for _ in 0..4 {
            let block = encode(&mut encoder, std::slice::from_ref(&field));
            assert_eq!(block[0] & 0xf0, 0x10, "{name}");
            let (fields, _) = decode(&mut decoder, &block).expect("sound");
            let Field::Header(_, value) = &fields[0] else { panic!("{fields:?}") };
            assert!(value.is_sensitive());
            assert_eq!(fields[0], open);
        }
    }
    assert_eq!(table(&mut decoder).1, 0);
}

#[test]
fn a_large_field_stays_out() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(DEFAULT_TABLE_SIZE));
    for length in [900, 1100, 5000] {
        let field = header("x-large", &"x".repeat(length));
        let block = (0..5).map(|_| {
            let block = encode(&mut encoder, std::slice::from_ref(&field));
            decode(&mut decoder, &block).expect("sound");
            block.len()
        });
        assert_eq!(block.last() == Some(1), length == 900, "{length}");
    }
}

#[test]
fn the_table_follows_the_peer() {
    let mut encoder = Encoder::new();
    for (sizes, want) in [
        (&[][..], "82"),
        (&[65536], "82"), // no more than the default is used
        (&[4096], "82"),
        (&[100], "3f45 82"),
        (&[], "82"),
        (&[0], "20 82"),
        (&[200, 100], "3f45 82"),
        (&[0, 4096], "20 3fe11f 82"), // the least, and the last
        (&[10, 5, 4096], "25 3fe11f 82"),
        (&[4096, 100, 65536], "3f45 3fe11f 82"),
    ] {
        for &size in sizes {
            encoder.set_max_table_size(size);
        }
        assert_eq!(encode(&mut encoder, &[Field::Method(Method::GET)]), hex(want), "{sizes:?}");
    }
}

#[test]
fn without_a_table_fields_are_literals() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(DEFAULT_TABLE_SIZE));
    encoder.set_max_table_size(0);
    decoder.set_max_table_size(0);
    let fields =
        [header("user-agent", "outrigger"), header("x-team", "checkout"), Field::Path("/cart".into())];
    for _ in 0..5 {
        assert_eq!(decode(&mut decoder, &encode(&mut encoder, &fields)).expect("sound").0, fields);
    }
}

/// From so few that they repeat, and now and then one that does not.
fn any_field() -> impl Strategy<Value = Field> {
    let value = prop_oneof!["[a-c]{0,3}", "[!-~]{1,100}", "x{1000,1100}"];
    prop_oneof![
        prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::PUT)].prop_map(Field::Method),
        (100u16..600).prop_map(|code| Field::Status(StatusCode::from_u16(code).expect("three digits"))),
        value.clone().prop_map(|text| Field::Path(text.into())),
        value.clone().prop_map(|text| Field::Authority(text.into())),
        value.clone().prop_map(|text| Field::Scheme(text.into())),
        value.clone().prop_map(|text| Field::Protocol(text.into())),
        (prop_oneof!["[a-c]{1,2}", "x-[a-z0-9]{1,30}"], value.clone())
            .prop_map(|(name, value)| header(&name, &value)),
        (0..NAMES.len(), value, prop::bool::weighted(0.1)).prop_map(|(name, value, sensitive)| {
            let mut value = HeaderValue::from_str(&value).expect("a value");
            value.set_sensitive(sensitive);
            Field::Header(HeaderName::from_static(NAMES[name]), value)
        }),
    ]
}

const NAMES: [&str; 8] =
    ["accept", "user-agent", "cookie", "date", "www-authenticate", "traceparent", "te", "x-forwarded-for"];

#[derive(Clone, Debug)]
enum Turn {
    Block(Vec<Field>),
    /// The peer announces these, one after the other.
    Sizes(Vec<usize>),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let size = prop_oneof![Just(0), Just(64), 0..5000usize, Just(65536)];
    prop_oneof![
        6 => prop::collection::vec(any_field(), 0..12).prop_map(Turn::Block),
        1 => prop::collection::vec(size, 1..4).prop_map(Turn::Sizes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_decoder_gets_what_the_encoder_was_given(turns in prop::collection::vec(any_turn(), 1..40)) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(DEFAULT_TABLE_SIZE));
        for turn in turns {
            match turn {
                Turn::Block(fields) => {
                    let block = encode(&mut encoder, &fields);
                    let (decoded, _) = decode(&mut decoder, &block).expect("sound");
                    for (got, want) in decoded.iter().zip(&fields) {
                        if let (Field::Header(_, got), Field::Header(_, want)) = (got, want) {
                            prop_assert_eq!(got.is_sensitive(), want.is_sensitive());
                        }
                        prop_assert_eq!(text(got), text(want));
                    }
                    prop_assert_eq!(decoded, fields);
                }
                // The encoder is told when SETTINGS come, the decoder when it is acknowledged: before the next block either way.
                Turn::Sizes(sizes) => for size in sizes {
                    encoder.set_max_table_size(size);
                    decoder.set_max_table_size(size);
                },
            }
        }
        // An update may still be owed.
        decode(&mut decoder, &encode(&mut encoder, &[])).expect("sound");
        prop_assert!(table(&mut decoder).1 <= DEFAULT_TABLE_SIZE);
    }
}
