//! HPACK (RFC 7541): the fields of HTTP/2 messages, compressed.
//!
//! Owns both tables of a connection, what a peer may make them grow to, and the choice of how a field is written. Never reads or writes a
//! frame (a block comes and goes whole), and never judges a message: it tells what of a block is malformed or beyond a limit.
//!
//! Made for a proxy that decodes a message's fields, changes a few and encodes them again, on one thread: the decoder's tables hold finished
//! names and values, which an indexed field shares, and the encoder recognises a repeated field by one look into a small array.
//!
//! - `field.rs` a field and its name; `names.rs` the names that are known beforehand
//! - `decode.rs`, over `table.rs` (static and dynamic), `huffman.rs` and `integer.rs`
//! - `encode.rs`, over `recent.rs` (the fields sent lately)

mod decode;
mod encode;
mod field;
mod huffman;
mod integer;
mod names;
mod recent;
mod table;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, Limits};
#[cfg(test)]
pub use decode::{Exceeded, Outcome};
pub use encode::{Block, Encoder};
pub use field::Field;
#[cfg(test)]
pub use field::Name;

/// Why a block cannot be decoded. All of these are connection errors of type COMPRESSION_ERROR (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the field block ends within a field")]
    Truncated,
    #[error("an integer in the field block is too long")]
    Integer,
    #[error("the field block refers to an entry that no table has")]
    Index,
    #[error("a string in the field block is not in the Huffman code")]
    Huffman,
    #[error("an update of the table size is missing, misplaced or beyond what was announced")]
    TableSize,
}

/// The size of a dynamic table before any SETTINGS, in bytes as RFC 7541 §4.1 counts them (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE_SIZE: usize = 4096;
