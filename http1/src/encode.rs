//! The body of a message, into the bytes behind its head. Pure.

use bytes::Bytes;
use http::HeaderMap;

use crate::head::may_be_trailer;
use crate::output::Output;
use crate::spare::Spare;
use crate::spelling::write_field;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// There is none, whatever comes.
    None,
    /// This many bytes are still to be written.
    Length(u64),
    Chunked {
        /// Whether the reader takes trailers.
        trailers: bool,
    },
    UntilClose,
}

/// The body was not as long as its head said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongLength;

impl Encoder {
    /// Whether the reader knows that nothing more comes.
    pub fn is_full(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// Only with room.
    pub fn data(&mut self, data: Bytes, out: &mut Output, spare: &Spare) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Self::None => return Ok(()),
            Self::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                out.data(data, b"", spare);
            }
            Self::Chunked { .. } => {
                write_size(out.head(spare), data.len());
                out.data(data, b"\r\n", spare);
            }
            Self::UntilClose => out.data(data, b"", spare),
        }
        Ok(())
    }

    /// The end of the body, maybe right behind data.
    pub fn end(self, out: &mut Output, spare: &Spare) -> Result<(), WrongLength> {
        match self {
            Self::None | Self::Length(0) | Self::UntilClose => {}
            Self::Length(_) => return Err(WrongLength),
            Self::Chunked { .. } => out.last_chunk(spare),
        }
        Ok(())
    }

    /// The end of the body, with trailers. Only with room.
    pub fn trailers(self, trailers: &HeaderMap, out: &mut Output, spare: &Spare) -> Result<(), WrongLength> {
        if self != (Self::Chunked { trailers: true }) {
            return self.end(out, spare);
        }
        let out = out.head(spare);
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| may_be_trailer(name)) {
            write_field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// A chunk's size line.
fn write_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| HEX[size >> (4 * digit) & 15]));
    out.extend_from_slice(b"\r\n");
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_hexadecimal_without_zeros_before() {
        for size in [1, 9, 10, 15, 16, 255, 256, 4095, 4096, 65536, 0xdead_beef] {
            let mut line = Vec::new();
            write_size(&mut line, size);
            assert_eq!(line, format!("{size:x}\r\n").into_bytes());
        }
    }
}
