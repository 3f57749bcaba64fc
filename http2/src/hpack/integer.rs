//! Integers (RFC 7541 §5.1): a few bits of the first byte, then seven bits a byte.
//!
//! Never reads beyond five more bytes, nor gives a value that 32 bits do not hold: no length or index that HTTP/2 has use for is near that.

use bytes::{BufMut, BytesMut};

use super::DecodeError;

/// Reads an integer whose first byte is at `at` and has `bits` (1 to 7) for it; `at` moves behind it.
#[inline]
pub fn read(block: &[u8], at: &mut usize, bits: u32) -> Result<usize, DecodeError> {
    let most = (1u8 << bits) - 1;
    let value = block.get(*at).ok_or(DecodeError::Truncated)? & most;
    *at += 1;
    if value < most { Ok(value.into()) } else { continued(block, at, most) }
}

/// The rest of one that does not fit into its first byte.
fn continued(block: &[u8], at: &mut usize, most: u8) -> Result<usize, DecodeError> {
    let mut value = u64::from(most);
    for shift in [0, 7, 14, 21, 28] {
        let byte = *block.get(*at).ok_or(DecodeError::Truncated)?;
        *at += 1;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map(|value| value as usize).map_err(|_| DecodeError::Integer);
        }
    }
    Err(DecodeError::Integer)
}

/// Writes `value` into the low `bits` (1 to 7) of a byte whose other bits are those of `pattern`, and into as many more as it needs.
#[inline]
pub fn write(dst: &mut BytesMut, pattern: u8, bits: u32, value: usize) {
    let most = (1usize << bits) - 1;
    if value < most {
        dst.put_u8(pattern | value as u8);
    } else {
        dst.put_u8(pattern | most as u8);
        let mut rest = value - most;
        while rest >= 0x80 {
            dst.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        dst.put_u8(rest as u8);
    }
}
