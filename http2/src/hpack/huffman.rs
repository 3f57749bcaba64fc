//! Strings in the Huffman code (RFC 7541 §5.2), decoded.
//!
//! Sixty-four bits of input are held at a time and the first of them looked up in a table, which tells one or two symbols at once.
//! Never encodes: see `encode.rs` for why we send strings as they are. Never allocates: the caller gives the room, bounded by [`room`].

mod code;

pub use code::LENGTHS;
use code::{EOS, LONGEST, ORDER, ROWS, SHORTEST};

use super::DecodeError;

/// The bytes [`decode`] wants for a string of `encoded` bytes. One more than can come out of it: symbols are written two at a time.
pub const fn room(encoded: usize) -> usize {
    encoded * 8 / SHORTEST + 1
}

/// Decodes `src` into the beginning of `dst`, which has the [`room`] for it, and says how long it became.
///
/// Refuses EOS in the string, a code cut off by its end, and padding that is longer than seven bits or not the first bits of EOS.
pub fn decode(src: &[u8], dst: &mut [u8]) -> Result<usize, DecodeError> {
    // The next bits of the input, from the highest on, and how many of them count.
    let (mut window, mut bits) = (0u64, 0u32);
    let (mut at, mut out) = (0, 0);
    while let Some(word) = src[at..].first_chunk::<8>() {
        // What is read of a byte that does not fit whole is read again the next time, into the same place.
        window |= u64::from_be_bytes(*word) >> bits;
        let whole = (63 - bits) / 8;
        at += whole as usize;
        bits += whole * 8;
        // At least 56 bits are there: enough for one code of any length, or for so many steps.
        for _ in 0..56 / PEEK {
            let step = STEPS[(window >> (64 - PEEK)) as usize];
            if step.symbols == 0 {
                if bits >= LONGEST as u32 {
                    let (symbol, length) = long(window)?;
                    dst[out] = symbol;
                    out += 1;
                    window <<= length;
                    bits -= length;
                }
                break;
            }
            dst[out] = step.first;
            dst[out + 1] = step.second;
            out += usize::from(step.symbols);
            window <<= step.bits;
            bits -= u32::from(step.bits);
        }
    }
    loop {
        while bits <= 56 && at < src.len() {
            window |= u64::from(src[at]) << (56 - bits);
            at += 1;
            bits += 8;
        }
        let step = STEPS[(window >> (64 - PEEK)) as usize];
        if step.symbols == 2 && u32::from(step.bits) <= bits {
            dst[out] = step.first;
            dst[out + 1] = step.second;
            out += 2;
            window <<= step.bits;
            bits -= u32::from(step.bits);
            continue;
        }
        let found = match step.symbols {
            0 => long(window),
            _ => Ok((step.first, LENGTHS[usize::from(step.first)].into())),
        };
        match found {
            Ok((symbol, length)) if length <= bits => {
                dst[out] = symbol;
                out += 1;
                window <<= length;
                bits -= length;
            }
            // No whole code is left, so what is left has to be padding.
            _ => {
                let padding = bits < 8 && window.leading_ones() >= bits;
                return if padding { Ok(out) } else { Err(DecodeError::Huffman) };
            }
        }
    }
}

/// The symbol of a code longer than [`PEEK`] bits, and its length.
fn long(window: u64) -> Result<(u8, u32), DecodeError> {
    let window = (window >> 32) as u32;
    for (length, row) in ROWS.iter().enumerate().skip(PEEK + 1) {
        let place = window.wrapping_sub(row.first) >> (32 - length);
        if place < row.count {
            return match ORDER[(row.start + place) as usize] {
                EOS => Err(DecodeError::Huffman),
                symbol => Ok((symbol as u8, length as u32)),
            };
        }
    }
    Err(DecodeError::Huffman)
}

/// How many bits are looked up at once.
const PEEK: usize = 12;

/// What the next [`PEEK`] bits begin with.
#[derive(Clone, Copy)]
struct Step {
    first: u8,
    second: u8,
    /// How many whole symbols these bits hold: none (a longer code), 1 or 2.
    symbols: u8,
    /// The length of the codes of all of them.
    bits: u8,
}

static STEPS: [Step; 1 << PEEK] = {
    let mut steps = [Step { first: 0, second: 0, symbols: 0, bits: 0 }; 1 << PEEK];
    let mut bits = 0;
    while bits < steps.len() {
        let window = (bits as u32) << (32 - PEEK);
        if let Some((first, alone)) = short(window, PEEK) {
            steps[bits] = match short(window << alone, PEEK - alone) {
                Some((second, more)) => Step { first, second, symbols: 2, bits: (alone + more) as u8 },
                None => Step { first, second: 0, symbols: 1, bits: alone as u8 },
            };
        }
        bits += 1;
    }
    steps
};

/// The symbol that `window` begins with and the length of its code, which is at most `most` bits.
const fn short(window: u32, most: usize) -> Option<(u8, usize)> {
    let mut length = SHORTEST;
    while length <= most {
        let row = ROWS[length];
        let place = window.wrapping_sub(row.first) >> (32 - length);
        if window >= row.first && place < row.count {
            return Some((ORDER[(row.start + place) as usize] as u8, length));
        }
        length += 1;
    }
    None
}
