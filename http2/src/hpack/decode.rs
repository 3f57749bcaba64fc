//! Decodes field blocks into fields.
//!
//! Owns the dynamic table that the peer's encoder writes (RFC 7541 §2.3.2), and the arena that a block's values are put into. Every block of
//! a connection passes through here whole and in order, even one whose message is refused: the table depends on all of them.
//! Never reads a frame, nor decides what becomes of a message: that a block is broken, too large or holds a malformed field is told.
//!
//! Values are not allocated one by one. Those of a block that are Huffman coded or short go into one arena, made for the block when the first
//! of them is met, and long ones are slices of the block itself; only what the table keeps is copied, so that it holds on to neither.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use super::field::{self, Field, Name};
use super::table::{Dynamic, Entry, STATIC, fixed};
use super::{DEFAULT_TABLE_SIZE, DecodeError, huffman, integer};

/// Decodes the blocks of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: Dynamic,
    /// The largest table that the peer may ask for. Bytes as RFC 7541 §4.1 counts them.
    max_table_size: usize,
    /// The peer has to come down to this at the beginning of the next block.
    owed: Option<usize>,
}

/// What a block may give. Beyond either, fields are decoded for the table's sake alone.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of names and values together, and 32 bytes more for each field (RFC 9113 §10.5.1): SETTINGS_MAX_HEADER_LIST_SIZE.
    pub max_list_size: usize,
    pub max_fields: usize,
}

/// How a whole block was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the fields that were given on count, as [`Limits::max_list_size`] does.
    pub list_size: usize,
    /// How many fields were given on.
    pub fields: usize,
    /// The first limit that was passed, if one was: the field that did it and those after it were not given on.
    pub exceeded: Option<Exceeded>,
}

/// A limit of [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    ListSize,
    Fields,
}

impl Decoder {
    /// `max_table_size` is what the peer's encoder may use from the first block on. That is 4096 as long as it has not acknowledged other
    /// SETTINGS (RFC 9113 §6.5.2): other sizes are for [`Self::set_max_table_size`], when it has.
    pub fn new(max_table_size: usize) -> Self {
        Self { table: Dynamic::new(max_table_size.min(DEFAULT_TABLE_SIZE)), max_table_size, owed: None }
    }

    /// The peer acknowledged this SETTINGS_HEADER_TABLE_SIZE. If its table is larger, the next block has to begin with an update of its size
    /// (RFC 9113 §4.3.1).
    pub fn set_max_table_size(&mut self, max_table_size: usize) {
        self.max_table_size = max_table_size;
        if max_table_size < self.owed.unwrap_or(self.table.capacity()) {
            self.owed = Some(max_table_size);
        }
    }

    /// Decodes one whole block and gives its fields to `sink` in their order.
    ///
    /// An error is one of the connection: COMPRESSION_ERROR (RFC 9113 §4.3). Nothing more can be decoded after it.
    pub fn decode(
        &mut self,
        block: &Bytes,
        limits: Limits,
        mut sink: impl FnMut(Field),
    ) -> Result<Outcome, DecodeError> {
        let mut reader = Reader { block, at: 0, arena: BytesMut::new() };
        let mut outcome = Outcome { list_size: 0, fields: 0, exceeded: None };
        self.size_updates(&mut reader)?;
        while let Some(&first) = block.get(reader.at) {
            if first & 0x80 != 0 {
                let index = reader.integer(7)?;
                let entry = self.entry(index)?;
                if outcome.admit(entry.size, &limits) {
                    sink(entry.field.clone());
                }
            } else if first & 0x40 != 0 {
                let entry = self.literal(&mut reader, 6, Keep::InTable)?;
                if outcome.admit(entry.size, &limits) {
                    sink(entry.field.clone());
                }
                self.table.insert(entry);
            } else if first & 0x20 != 0 {
                return Err(DecodeError::TableSize);
            } else {
                let keep = if outcome.exceeded.is_some() {
                    Keep::Nowhere
                } else {
                    Keep::InMessage { sensitive: first & 0x10 != 0 }
                };
                let entry = self.literal(&mut reader, 4, keep)?;
                if outcome.admit(entry.size, &limits) {
                    sink(entry.field);
                }
            }
        }
        Ok(outcome)
    }

    /// Updates of the table's size stand at the beginning of a block and nowhere else (RFC 7541 §4.2).
    fn size_updates(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        while reader.block.get(reader.at).is_some_and(|first| first & 0xe0 == 0x20) {
            let size = reader.integer(5)?;
            if size > self.max_table_size || self.owed.take().is_some_and(|most| size > most) {
                return Err(DecodeError::TableSize);
            }
            self.table.resize(size);
        }
        if self.owed.is_some() { Err(DecodeError::TableSize) } else { Ok(()) }
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<&Entry, DecodeError> {
        let entry = if index <= STATIC { fixed(index) } else { self.table.entry(index - STATIC - 1) };
        entry.ok_or(DecodeError::Index)
    }

    /// A field whose value, and maybe name, is written out; the index of the name has `bits` of the first byte.
    fn literal(&self, reader: &mut Reader<'_>, bits: u32, keep: Keep) -> Result<Entry, DecodeError> {
        let index = reader.integer(bits)?;
        let (name, name_len) = if index == 0 {
            let text = reader.text()?;
            let name = reader.view(&text)?;
            (Name::parse(name), name.len())
        } else {
            let entry = self.entry(index)?;
            (entry.field.name(), entry.name_len as usize)
        };
        let text = reader.text()?;
        let (field, value_len) = match (name, keep) {
            // Nobody gets it: all that counts is that its code is sound.
            (name, Keep::Nowhere) => (Field::Malformed(name), reader.view(&text)?.len()),
            (Name::Method, _) => {
                let value = reader.view(&text)?;
                (Method::from_bytes(value).map_or(Field::Malformed(Name::Method), Field::Method), value.len())
            }
            (Name::Status, _) => {
                let value = reader.view(&text)?;
                (
                    StatusCode::from_bytes(value).map_or(Field::Malformed(Name::Status), Field::Status),
                    value.len(),
                )
            }
            (name, keep) => {
                let value = reader.value(&text, keep)?;
                let value_len = value.len();
                let field = match name {
                    Name::Authority => Field::Authority(value),
                    Name::Path => Field::Path(value),
                    Name::Protocol => Field::Protocol(value),
                    Name::Scheme => Field::Scheme(value),
                    Name::Header(name) => {
                        field::header(name, value, matches!(keep, Keep::InMessage { sensitive: true }))
                    }
                    name @ (Name::Method | Name::Status | Name::Invalid) => Field::Malformed(name),
                };
                (field, value_len)
            }
        };
        Ok(Entry::new(field, name_len, value_len))
    }
}

impl Outcome {
    /// Counts a field, and says whether it is within the limits.
    #[inline]
    fn admit(&mut self, size: u32, limits: &Limits) -> bool {
        if self.exceeded.is_some() {
            return false;
        }
        let list_size = self.list_size + size as usize;
        if list_size > limits.max_list_size {
            self.exceeded = Some(Exceeded::ListSize);
        } else if self.fields == limits.max_fields {
            self.exceeded = Some(Exceeded::Fields);
        } else {
            self.list_size = list_size;
            self.fields += 1;
        }
        self.exceeded.is_none()
    }
}

/// Where a literal value lives once it is decoded.
#[derive(Clone, Copy)]
enum Keep {
    InTable,
    InMessage { sensitive: bool },
    Nowhere,
}

/// A block as far as it has been read, and the arena for its values.
struct Reader<'a> {
    block: &'a Bytes,
    at: usize,
    arena: BytesMut,
}

/// A string literal, still encoded (RFC 7541 §5.2): where it is in the block.
struct Text {
    huffman: bool,
    start: usize,
    end: usize,
}

impl Reader<'_> {
    #[inline]
    fn integer(&mut self, bits: u32) -> Result<usize, DecodeError> {
        integer::read(self.block, &mut self.at, bits)
    }

    fn text(&mut self) -> Result<Text, DecodeError> {
        let huffman = self.block.get(self.at).ok_or(DecodeError::Truncated)? & 0x80 != 0;
        let len = self.integer(7)?;
        if len > self.block.len() - self.at {
            return Err(DecodeError::Truncated);
        }
        let start = self.at;
        self.at += len;
        Ok(Text { huffman, start, end: self.at })
    }

    /// A string to look at, which may be overwritten by the next one.
    fn view(&mut self, text: &Text) -> Result<&[u8], DecodeError> {
        if text.huffman {
            let len = self.decoded(text)?;
            Ok(&self.arena[..len])
        } else {
            Ok(&self.block[text.start..text.end])
        }
    }

    /// A string to keep.
    fn value(&mut self, text: &Text, keep: Keep) -> Result<Bytes, DecodeError> {
        let len = text.end - text.start;
        if matches!(keep, Keep::InTable) {
            Ok(Bytes::copy_from_slice(self.view(text)?))
        } else if text.huffman {
            let len = self.decoded(text)?;
            Ok(self.arena.split_to(len).freeze())
        } else if len >= SLICED {
            Ok(self.block.slice(text.start..text.end))
        } else if len == 0 {
            Ok(Bytes::new())
        } else {
            self.make_room(text);
            self.arena[..len].copy_from_slice(&self.block[text.start..text.end]);
            Ok(self.arena.split_to(len).freeze())
        }
    }

    /// Decodes a string in the Huffman code into the beginning of the arena.
    fn decoded(&mut self, text: &Text) -> Result<usize, DecodeError> {
        self.make_room(text);
        huffman::decode(&self.block[text.start..text.end], &mut self.arena)
    }

    /// The arena is made once, for all that the block can still become: no string takes more of it than [`huffman::room`] counts for its bytes.
    fn make_room(&mut self, text: &Text) {
        if self.arena.len() < huffman::room(text.end - text.start) {
            self.arena = BytesMut::zeroed(huffman::room(self.block.len() - text.start));
        }
    }
}

/// From this length on a value is a slice of its block. Bytes. Shorter ones are copied: it costs as little, and a value that is kept
/// longer than its message does not keep the read buffer with it.
const SLICED: usize = 64;
