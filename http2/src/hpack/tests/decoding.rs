//! What a decoder takes, refuses and bounds.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;

use super::{UNLIMITED, decode, hex, huffman, table, text};
use crate::hpack::{DEFAULT_TABLE_SIZE, DecodeError, Decoder, Exceeded, Field, Limits, Name, integer};

/// A literal with its name written out; `pattern` is the first byte.
fn literal(pattern: u8, name: &[u8], value: &[u8]) -> Bytes {
    let mut block = BytesMut::new();
    block.put_u8(pattern);
    for text in [name, value] {
        integer::write(&mut block, 0, 7, text.len());
        block.put_slice(text);
    }
    block.freeze()
}

const KEPT: u8 = 0x40;
const PASSING: u8 = 0x00;
const NEVER_KEPT: u8 = 0x10;

fn joined(parts: &[Bytes]) -> Bytes {
    parts.concat().into()
}

#[test]
fn integers_are_bounded() {
    for (encoded, want) in [
        ("7f 00", Ok(127)),
        ("7f 80 00", Ok(127)), // longer than it has to be, but not beyond bounds
        ("7f 80 80 80 80 00", Ok(127)),
        ("7f 80 ff ff ff 0f", Ok(u32::MAX as usize)),
        ("7f 81 ff ff ff 0f", Err(DecodeError::Integer)),
        ("7f ff ff ff ff 7f", Err(DecodeError::Integer)),
        ("7f 80 80 80 80 80 00", Err(DecodeError::Integer)),
        ("7f ff ff ff ff ff ff ff ff ff ff", Err(DecodeError::Integer)),
        ("7f", Err(DecodeError::Truncated)),
        ("7f 80 80", Err(DecodeError::Truncated)),
        ("", Err(DecodeError::Truncated)),
    ] {
        assert_eq!(integer::read(&hex(encoded), &mut 0, 7), want, "{encoded}");
    }
}

#[test]
fn a_broken_block_is_refused() {
    for (block, want) in [
        ("80", DecodeError::Index),                       // there is no index 0
        ("be", DecodeError::Index),                       // beyond an empty table
        ("ff 80 ff ff ff 0f", DecodeError::Index),        // the largest index there is
        ("7e 01 61", DecodeError::Index),                 // a name beyond an empty table
        ("00 01 61 05 61", DecodeError::Truncated),       // a value longer than the block
        ("00 7f 80 ff ff ff 0f", DecodeError::Truncated), // a name of four gigabytes
        ("00 ff 80 ff ff ff 0f", DecodeError::Truncated), // and one in the Huffman code
        ("00 01 61", DecodeError::Truncated),             // no value
        ("40", DecodeError::Truncated),
        ("00 01 61 81 00", DecodeError::Huffman), // padding of zeroes
        ("00 81 00 01 61", DecodeError::Huffman), // in a name
        ("04 84 ff ff ff ff", DecodeError::Huffman), // EOS
    ] {
        assert_eq!(decode(&mut Decoder::new(DEFAULT_TABLE_SIZE), &hex(block)), Err(want), "{block}");
    }
}

#[test]
fn a_malformed_field_ends_no_block_and_keeps_its_place_in_the_table() {
    let invalid = Field::Malformed(Name::Invalid);
    let field = |name: &'static str| Field::Malformed(Name::Header(http::HeaderName::from_static(name)));
    for (name, value, want) in [
        (&b"Upper"[..], &b"1"[..], invalid.clone()),
        (b"", b"1", invalid.clone()),
        (b"with space", b"1", invalid.clone()),
        (b"with:colon", b"1", invalid.clone()),
        (b"byte\xff", b"1", invalid.clone()),
        (b":unknown", b"1", invalid.clone()),
        (b":", b"1", invalid.clone()),
        (b"x-it", b"a\nb", field("x-it")),
        (b"x-it", b"a\rb", field("x-it")),
        (b"x-it", b"a\0b", field("x-it")),
        (b"x-it", b" a", field("x-it")),
        (b"x-it", b"a\t", field("x-it")),
        (b":status", b"20", Field::Malformed(Name::Status)),
        (b":status", b"2000", Field::Malformed(Name::Status)),
        (b":method", b"G T", Field::Malformed(Name::Method)),
        (b":method", b"", Field::Malformed(Name::Method)),
    ] {
        let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
        let (fields, outcome) =
            decode(&mut decoder, &joined(&[literal(KEPT, name, value), literal(KEPT, b"a", b"b")]))
                .expect("sound");
        assert_eq!(fields[0], want, "{name:?} {value:?}");
        assert_eq!(text(&fields[1]), ("a".into(), "b".into()));
        assert_eq!(outcome.list_size, name.len() + value.len() + 32 + 34);
        // Both are in the table, and the malformed one's name lends itself on.
        let (fields, _) = decode(&mut decoder, &hex("bf be 0f30 01 31")).expect("sound");
        assert_eq!(fields[0], want);
        assert_eq!(text(&fields[1]), ("a".into(), "b".into()));
        match want.name() {
            Name::Header(name) => assert_eq!(fields[2], Field::Header(name, HeaderValue::from_static("1"))),
            Name::Method => assert_eq!(text(&fields[2]), (":method".into(), "1".into())),
            name => assert_eq!(fields[2], Field::Malformed(name)),
        }
    }
}

#[test]
fn values_that_are_not_text_pass() {
    let (fields, _) =
        decode(&mut Decoder::new(0), &literal(PASSING, b"x-it", b"caf\xc3\xa9 \xff\ttab")).expect("sound");
    let Field::Header(_, value) = &fields[0] else { panic!("{fields:?}") };
    assert_eq!(value.as_bytes(), b"caf\xc3\xa9 \xff\ttab");
}

#[test]
fn a_value_for_no_table_is_marked() {
    let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
    for (pattern, sensitive) in [(NEVER_KEPT, true), (PASSING, false), (KEPT, false)] {
        for value in [&b"secret"[..], &[b'x'; 100]] {
            let (fields, _) =
                decode(&mut decoder, &literal(pattern, b"authorization", value)).expect("sound");
            let Field::Header(_, value) = &fields[0] else { panic!("{fields:?}") };
            assert_eq!(value.is_sensitive(), sensitive);
        }
    }
    assert_eq!(table(&mut decoder).0.len(), 2, "only what was sent to be kept is");
}

#[test]
fn limits_stop_the_fields_and_not_the_table() {
    let block = joined(&[
        literal(KEPT, b"a", b"1"),    // 34
        literal(PASSING, b"b", b"2"), // 68
        literal(KEPT, b"c", b"3"),    // 102
        literal(PASSING, b"d", b"4"),
        hex("82"),
    ]);
    for (max_list_size, max_fields, want, exceeded) in [
        (usize::MAX, usize::MAX, 5, None),
        (68, usize::MAX, 2, Some(Exceeded::ListSize)),
        (67, usize::MAX, 1, Some(Exceeded::ListSize)),
        (0, usize::MAX, 0, Some(Exceeded::ListSize)),
        (usize::MAX, 5, 5, None),
        (usize::MAX, 2, 2, Some(Exceeded::Fields)),
        (usize::MAX, 0, 0, Some(Exceeded::Fields)),
    ] {
        let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
        let mut given = 0;
        let outcome =
            decoder.decode(&block, Limits { max_list_size, max_fields }, |_| given += 1).expect("sound");
        assert_eq!(
            (given, outcome.fields, outcome.exceeded),
            (want, want, exceeded),
            "{max_list_size} {max_fields}"
        );
        let (entries, _) = table(&mut decoder);
        assert_eq!(entries, [("c".into(), "3".into()), ("a".into(), "1".into())]);
    }
}

#[test]
fn a_small_block_cannot_become_a_large_list() {
    // One entry as large as the table, then named a thousand times: a byte each.
    let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
    let block = joined(&[literal(KEPT, b"a", &[b'x'; 4000]), Bytes::from(vec![0xbe; 1000])]);
    let limits = Limits { max_list_size: 65536, max_fields: 1000 };
    let mut given = 0;
    let outcome = decoder.decode(&block, limits, |_| given += 1).expect("sound");
    assert_eq!((given, outcome.exceeded), (65536 / 4033, Some(Exceeded::ListSize)));
    assert!(outcome.list_size <= limits.max_list_size);
    assert_eq!(
        decode(&mut decoder, &hex("be")).map(|(fields, _)| fields.len()),
        Ok(1),
        "the table is as it was"
    );
    assert_eq!(decoder.decode(&block, UNLIMITED, |_| ()).map(|outcome| outcome.fields), Ok(1001));
}

#[test]
fn the_oldest_leave_first_and_one_too_large_empties_the_table() {
    let mut decoder = Decoder::new(100);
    let entry = |letter: &str| (letter.to_owned(), "1".to_owned());
    for (name, want) in [("a", &["a"][..]), ("b", &["b", "a"]), ("c", &["c", "b"])] {
        decode(&mut decoder, &literal(KEPT, name.as_bytes(), b"1")).expect("sound");
        let want: Vec<_> = want.iter().map(|letter| entry(letter)).collect();
        assert_eq!(table(&mut decoder), (want.clone(), want.len() * 34));
    }
    let (fields, _) = decode(&mut decoder, &literal(KEPT, b"d", &[b'x'; 68])).expect("sound");
    assert_eq!(fields.len(), 1, "it is a field all the same");
    assert_eq!(table(&mut decoder), (vec![], 0));
    decode(&mut decoder, &literal(KEPT, b"d", &[b'x'; 67])).expect("sound");
    assert_eq!(table(&mut decoder).1, 100, "just as large as the table fits");
}

#[test]
fn an_entry_may_take_its_name_from_the_one_it_evicts() {
    let mut decoder = Decoder::new(40);
    let block = joined(&[literal(KEPT, b"name", b"1"), hex("7e 01 32")]);
    let (fields, _) = decode(&mut decoder, &block).expect("sound");
    assert_eq!(text(&fields[1]), ("name".into(), "2".into()));
    assert_eq!(table(&mut decoder).0, [("name".to_owned(), "2".to_owned())]);
}

#[test]
fn the_peer_sizes_the_table_within_what_was_announced() {
    let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
    decode(&mut decoder, &literal(KEPT, b"a", b"1")).expect("sound");
    decode(&mut decoder, &hex("3f e1 1f 82")).expect("4096 is what it may have");
    assert_eq!(table(&mut decoder).1, 34);
    decode(&mut decoder, &hex("20 3f e1 1f 82")).expect("down to nothing and up again, in one block");
    assert_eq!(table(&mut decoder).1, 0);
    assert_eq!(decode(&mut decoder, &hex("3f e2 1f")), Err(DecodeError::TableSize), "4097 is too much");
    assert_eq!(
        decode(&mut decoder, &hex("82 20")),
        Err(DecodeError::TableSize),
        "behind a field it is misplaced"
    );
}

#[test]
fn more_than_was_announced_takes_effect_only_when_the_peer_says_so() {
    let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
    decoder.set_max_table_size(8192);
    for name in 0..200u32 {
        decode(&mut decoder, &literal(KEPT, format!("name-{name}").as_bytes(), b"1")).expect("sound");
    }
    assert!(table(&mut decoder).1 <= DEFAULT_TABLE_SIZE);
    decode(&mut decoder, &hex("3f e1 3f")).expect("8192");
    for name in 0..200u32 {
        decode(&mut decoder, &literal(KEPT, format!("name-{name}").as_bytes(), b"1")).expect("sound");
    }
    let size = table(&mut decoder).1;
    assert!(size > DEFAULT_TABLE_SIZE && size <= 8192, "{size}");
}

#[test]
fn a_reduction_has_to_be_followed_at_the_next_block() {
    for (changes, block, want) in [
        (&[100][..], "82", Err(DecodeError::TableSize)), // not followed
        (&[100], "", Err(DecodeError::TableSize)),
        (&[100], "3f 45 82", Ok(())),                      // 100
        (&[100], "3f 46 82", Err(DecodeError::TableSize)), // 101
        (&[100], "20 82", Ok(())),                         // less is the peer's own choice
        (&[100, 4096], "82", Err(DecodeError::TableSize)), // the least of them counts
        (&[100, 4096], "3f e1 1f 82", Err(DecodeError::TableSize)),
        (&[100, 4096], "3f 45 3f e1 1f 82", Ok(())),
        (&[4096], "82", Ok(())),       // no reduction
        (&[5000, 4096], "82", Ok(())), // none below what is in use
    ] {
        let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
        for &size in changes {
            decoder.set_max_table_size(size);
        }
        let got = decode(&mut decoder, &hex(block)).map(|_| ());
        assert_eq!(got, want, "{changes:?} then {block}");
        if got.is_ok() {
            decode(&mut decoder, &hex("82")).expect("once is enough");
        }
    }
}

#[test]
fn an_entry_does_not_keep_its_block() {
    let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
    let value = [b'x'; 500];
    let block = joined(&[
        literal(KEPT, b"x-long", &value),
        literal(KEPT, b"x-short", b"1"),
        literal(PASSING, b"x-passing", b"2"),
    ]);
    let (fields, _) = decode(&mut decoder, &block).expect("sound");
    assert!(block.is_unique(), "{fields:?} are no slices of the block");
    let block = literal(PASSING, b"x-long", &value);
    let (fields, _) = decode(&mut decoder, &block).expect("sound");
    assert!(!block.is_unique(), "a long value that is not kept is one");
    drop(fields);
    assert!(block.is_unique());
}

#[test]
fn strings_in_the_huffman_code_mix_with_plain_ones() {
    let mut block = BytesMut::new();
    for length in [0, 1, 5, 63, 64, 200] {
        let value = vec![b'~'; length];
        let coded = huffman::encode(&value);
        for (flag, bytes) in [(0x80, &coded), (0x00, &value)] {
            block.put_slice(&hex("00 06 782d 6e61 6d65"));
            integer::write(&mut block, flag, 7, bytes.len());
            block.put_slice(bytes);
        }
    }
    let (fields, _) = decode(&mut Decoder::new(DEFAULT_TABLE_SIZE), &block.freeze()).expect("sound");
    let lengths: Vec<_> = fields.iter().map(|field| text(field).1.len()).collect();
    assert_eq!(lengths, [0, 0, 1, 1, 5, 5, 63, 63, 64, 64, 200, 200]);
    assert!(fields.iter().all(|field| text(field).1.bytes().all(|byte| byte == b'~')));
}
