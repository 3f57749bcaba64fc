//! Strings in the Huffman code, against an encoder that goes by the list of lengths alone.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::hex;
use crate::hpack::DecodeError;
use crate::hpack::huffman::{LENGTHS, decode, room};

/// The code of a symbol: as many as come before it, each with its share of all sequences of bits (RFC 7541 Appendix B is canonical).
fn code(symbol: usize) -> (u64, u32) {
    let length = u32::from(LENGTHS[symbol]);
    let before = (0..LENGTHS.len()).filter(|&other| (LENGTHS[other], other) < (LENGTHS[symbol], symbol));
    let share: u64 = before.map(|other| 1 << (32 - LENGTHS[other])).sum();
    (share >> (32 - length), length)
}

/// Symbols as bits, the first one first.
fn bits(symbols: impl IntoIterator<Item = usize>) -> Vec<bool> {
    static CODES: LazyLock<Vec<(u64, u32)>> = LazyLock::new(|| (0..LENGTHS.len()).map(code).collect());
    let mut bits = Vec::new();
    for symbol in symbols {
        let (code, length) = CODES[symbol];
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits
}

/// Bits as bytes, the last one filled up with ones.
fn bytes(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8)
        .map(|byte| (0..8).fold(0, |all, bit| all << 1 | u8::from(*byte.get(bit).unwrap_or(&true))))
        .collect()
}

pub fn encode(text: &[u8]) -> Vec<u8> {
    bytes(&bits(text.iter().map(|&byte| byte.into())))
}

fn decoded(encoded: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut text = vec![0; room(encoded.len())];
    let len = decode(encoded, &mut text)?;
    text.truncate(len);
    Ok(text)
}

#[test]
fn every_sequence_of_bits_has_one_meaning() {
    let total: u64 = LENGTHS.iter().map(|&length| 1u64 << (32 - length)).sum();
    assert_eq!(total, 1 << 32, "Kraft's sum is 1");
    // A few codes as Appendix B prints them, from each of its corners.
    for (symbol, want) in [
        (0, (0x1ff8, 13)),
        (b'0'.into(), (0x0, 5)),
        (b'z'.into(), (0x7b, 7)),
        (b'\\'.into(), (0x7fff0, 19)),
        (10, (0x3fff_fffc, 30)),
        (200, (0x3ff_ffe2, 26)),
        (255, (0x3ff_ffee, 26)),
        (256, (0x3fff_ffff, 30)),
    ] {
        assert_eq!(code(symbol), want, "symbol {symbol}");
    }
}

#[test]
fn each_symbol_at_each_place() {
    for symbol in 0..=u8::MAX {
        for before in 0..16 {
            let mut text = vec![b'0'; before];
            text.push(symbol);
            assert_eq!(decoded(&encode(&text)), Ok(text.clone()), "{symbol} behind {before}");
            text.extend([b'a'; 16]);
            assert_eq!(decoded(&encode(&text)), Ok(text), "{symbol} behind {before} and before others");
        }
    }
}

#[test]
fn padding_is_short_and_made_of_ones() {
    for (encoded, want) in [
        ("", Ok("")),
        ("07", Ok("0")), // five bits and 111
        ("06", Err("a zero in the padding")),
        ("03", Err("a zero in the padding")),
        ("07ff", Err("more than seven bits of padding")),
        ("ff", Err("eight bits of padding")),
        ("f8ff", Err("eight bits of padding behind a whole code of eight")),
        ("f8", Ok("&")),
        ("ffffffff", Err("EOS and its padding")),
        ("07fffffffc", Err("EOS within a string")),
        ("0000 0000 0000 0000 0000 0000 0000 0000 ffff ffff 0000 0000 0000 0000", Err("EOS in the middle")),
        ("fe", Err("a long code cut off")),
    ] {
        let got = decoded(&hex(encoded));
        match want {
            Ok(text) => assert_eq!(got, Ok(text.as_bytes().to_vec()), "{encoded}"),
            Err(why) => assert_eq!(got, Err(DecodeError::Huffman), "{encoded}: {why}"),
        }
    }
}

proptest! {
    #[test]
    fn what_was_encoded_comes_out(text in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(decoded(&encode(&text)), Ok(text));
    }

    #[test]
    fn texts_come_out(text in "[ -~]{0,200}") {
        prop_assert_eq!(decoded(&encode(text.as_bytes())), Ok(text.into_bytes()));
    }

    /// Whatever is accepted is what its text is encoded as: there is one way to write a string.
    #[test]
    fn any_bytes_are_refused_or_stand_for_a_text(encoded in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(text) = decoded(&encoded) {
            prop_assert_eq!(encode(&text), encoded);
        }
    }
}
