//! The body of a message, out of the bytes behind its head. Pure.

use bytes::Bytes;
use http::HeaderMap;

use crate::framing::Framing;
use crate::head;
use crate::input::Input;
use crate::refusal::Refusal;

/// How far a body is.
#[derive(Debug, Default)]
pub(crate) enum Decoder {
    /// Nothing of it is left.
    #[default]
    Ended,
    /// More than 0.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    /// It is no body.
    Broken(Refusal),
}

/// The next piece of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// More has to be read first.
    More,
}

#[derive(Debug, Default)]
pub(crate) struct Chunked {
    at: At,
    /// Of the chunk's size line, or what is left of its data.
    size: u64,
    digits: u8,
    /// Bytes of all extensions so far.
    extensions: u32,
    /// How much of the trailers was looked through for their end.
    scanned: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    /// Space behind the size; some servers fill up a line of fixed width.
    Pad,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// Bytes of a body's extensions, all together. Nobody uses them.
const MOST_EXTENSIONS: u32 = 16 * 1024;

/// A size this long fits into 60 bits.
const MOST_DIGITS: u8 = 15;

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Bytes that are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose | Self::Broken(_) => None,
        }
    }

    /// How much a read should have room for.
    pub fn want(&self) -> usize {
        match self {
            Self::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            Self::Chunked(Chunked { at: At::Data, size, .. }) => {
                usize::try_from(size.saturating_add(64)).unwrap_or(usize::MAX)
            }
            Self::UntilClose => 32 * 1024,
            Self::Chunked(_) | Self::Ended | Self::Broken(_) => 0,
        }
    }

    /// `most`: bytes of trailers.
    pub fn next(&mut self, input: &mut Input, most: usize) -> Result<Piece, Refusal> {
        let piece = match self {
            Self::Ended => return Ok(Piece::End),
            Self::Broken(refusal) => return Err(*refusal),
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.bytes().len());
                if count == 0 {
                    return Ok(Piece::More);
                }
                *left -= count as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                return Ok(Piece::Data(input.take(count)));
            }
            Self::UntilClose if !input.is_empty() => {
                return Ok(Piece::Data(input.take(input.bytes().len())));
            }
            Self::UntilClose if input.ended => Ok(Piece::End),
            Self::UntilClose => return Ok(Piece::More),
            Self::Chunked(chunked) => chunked.next(input, most),
        };
        match &piece {
            Err(refusal) => *self = Self::Broken(*refusal),
            Ok(Piece::End | Piece::Trailers(_)) => *self = Self::Ended,
            Ok(Piece::Data(_)) => {
                // The end often comes with the last data; who knows it at once can write both at once.
                if let Self::Chunked(chunked) = self {
                    match chunked.advance(input) {
                        Ok(()) if chunked.at == At::End => *self = Self::Ended,
                        Ok(()) => {}
                        Err(refusal) => *self = Self::Broken(refusal),
                    }
                }
            }
            Ok(Piece::More) => {}
        }
        piece
    }
}

impl Chunked {
    fn next(&mut self, input: &mut Input, most: usize) -> Result<Piece, Refusal> {
        self.advance(input)?;
        match self.at {
            At::End => Ok(Piece::End),
            At::Data if !input.is_empty() => {
                let count = usize::try_from(self.size).unwrap_or(usize::MAX).min(input.bytes().len());
                self.size -= count as u64;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                Ok(Piece::Data(input.take(count)))
            }
            At::Trailers => self.trailers(input, most),
            _ => Ok(Piece::More),
        }
    }

    /// Reads what stands between data, up to the next of it or to the end.
    fn advance(&mut self, input: &mut Input) -> Result<(), Refusal> {
        let bytes = input.bytes();
        let mut used = 0;
        while let Some(byte) = bytes.get(used) {
            self.at = match (&self.at, byte) {
                (At::Data | At::End, _) => break,
                (At::Trailers, _) => {
                    if bytes[used..].starts_with(b"\r\n") {
                        used += 2;
                        self.at = At::End;
                    }
                    break;
                }
                (At::Size, b'\r') if self.digits > 0 => At::SizeLf,
                (At::Size, b';') if self.digits > 0 => At::Extension,
                (At::Size, b' ' | b'\t') if self.digits > 0 => At::Pad,
                (At::Size, digit) => {
                    let digit = char::from(*digit).to_digit(16).ok_or(Refusal::ChunkSize)?;
                    if self.digits == MOST_DIGITS {
                        return Err(Refusal::ChunkSize);
                    }
                    self.digits += 1;
                    self.size = self.size * 16 + u64::from(digit);
                    At::Size
                }
                (At::Pad, b'\r') | (At::Extension, b'\r') => At::SizeLf,
                (At::Pad, b';') => At::Extension,
                (At::Pad, b' ' | b'\t') => {
                    self.extended()?;
                    At::Pad
                }
                (At::Pad, _) => return Err(Refusal::ChunkSize),
                (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                    self.extended()?;
                    At::Extension
                }
                (At::Extension, _) => return Err(Refusal::ChunkExtension),
                (At::SizeLf, b'\n') => {
                    self.digits = 0;
                    if self.size == 0 { At::Trailers } else { At::Data }
                }
                (At::SizeLf, _) => return Err(Refusal::ChunkSize),
                (At::DataCr, b'\r') => At::DataLf,
                (At::DataLf, b'\n') => At::Size,
                (At::DataCr | At::DataLf, _) => return Err(Refusal::ChunkEnd),
            };
            used += 1;
        }
        input.skip(used);
        Ok(())
    }

    fn extended(&mut self) -> Result<(), Refusal> {
        self.extensions += 1;
        if self.extensions > MOST_EXTENSIONS { Err(Refusal::ChunkExtension) } else { Ok(()) }
    }

    fn trailers(&mut self, input: &mut Input, most: usize) -> Result<Piece, Refusal> {
        let bytes = input.bytes();
        let from = self.scanned.saturating_sub(3);
        let end = memchr::memmem::find(&bytes[from.min(bytes.len())..], b"\r\n\r\n");
        let size = end.map(|at| from + at + 4);
        if size.unwrap_or(bytes.len()) > most {
            return Err(Refusal::TrailersTooLarge);
        }
        let Some(size) = size else {
            self.scanned = bytes.len();
            return Ok(Piece::More);
        };
        let trailers = head::trailers(&input.take(size))?;
        self.at = At::End;
        Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) })
    }
}

#[cfg(test)]
mod tests;
