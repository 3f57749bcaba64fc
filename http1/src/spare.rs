//! What the connections of one worker share, because each needs it for a moment only.
//!
//! Owns the space that is read into, the buffer that is written from, and emptied header maps. A connection at rest holds none of these. Local to its thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use http::{Extensions, HeaderMap};

use crate::spelling::Spelling;

/// One a worker.
#[derive(Default)]
pub struct Spare {
    space: RefCell<BytesMut>,
    /// Connections whose reads are large.
    flowing: Cell<usize>,
    buffers: RefCell<Vec<Vec<u8>>>,
    maps: RefCell<Vec<HeaderMap>>,
    extensions: RefCell<Vec<Extensions>>,
    date: Cell<Option<(u64, [u8; 29])>>,
}

/// Bytes a read has room for at least, so that a usual message comes with one that is not filled: a filled one has to be repeated.
const ROOM: usize = 8 * 1024;

/// Bytes that are read at a time, at most.
pub(crate) const LARGEST_READ: usize = 64 * 1024;

/// The same for a body that is flowing: it costs less than half as much.
const FLOWING_READ: usize = 256 * 1024;

/// Connections that may read so much at a time: whoever stops taking a body in the middle of it leaves one such read in memory.
const FLOWING: usize = 16;

/// Of each kind, so that a burst leaves little behind.
const KEPT: usize = 16;

impl Spare {
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Space to read into, for as long as it takes to do so.
    pub(crate) fn with_space<R>(&self, want: usize, most: usize, read: impl FnOnce(&mut BytesMut) -> R) -> R {
        let mut space = self.space.take();
        if space.capacity() < want.max(ROOM) {
            space.reserve(want.clamp(4 * ROOM, most));
        }
        let result = read(&mut space);
        self.space.replace(space);
        result
    }

    /// How much may be read at a time by a body that `flows`, or began to by what it gave last.
    pub(crate) fn most(&self, flows: &mut bool, filled: bool) -> usize {
        if !*flows && filled && self.flowing.get() < FLOWING {
            self.flowing.set(self.flowing.get() + 1);
            *flows = true;
        }
        if *flows { FLOWING_READ } else { LARGEST_READ }
    }

    /// It flows no longer.
    pub(crate) fn rests(&self, flows: &mut bool) {
        if std::mem::take(flows) {
            self.flowing.set(self.flowing.get() - 1);
        }
    }

    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if (1..=LARGEST_READ).contains(&buffer.capacity()) && buffers.len() < KEPT {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    pub(crate) fn map(&self) -> HeaderMap {
        self.maps.borrow_mut().pop().unwrap_or_default()
    }

    /// Those of a head that is spelled so, and nothing else.
    pub(crate) fn extensions(&self, spelling: Spelling) -> Extensions {
        let mut extensions = self.extensions.borrow_mut().pop().unwrap_or_default();
        match extensions.get_mut() {
            Some(room) => *room = spelling,
            None => drop(extensions.insert(spelling)),
        }
        extensions
    }

    /// A head that was written is of no more use; its maps are.
    pub fn give_head(&self, mut headers: HeaderMap, mut extensions: Extensions) {
        let mut maps = self.maps.borrow_mut();
        if (1..=64).contains(&headers.capacity()) && maps.len() < KEPT {
            headers.clear();
            maps.push(headers);
        }
        let mut kept = self.extensions.borrow_mut();
        if !extensions.is_empty() && kept.len() < KEPT {
            // Where there is nothing else in it, the room of its spelling is the next one's.
            let alone = extensions.len() == 1;
            match extensions.get_mut::<Spelling>() {
                Some(spelling) if alone => *spelling = Spelling::default(),
                _ => extensions.clear(),
            }
            kept.push(extensions);
        }
    }

    /// As `Date` has it (RFC 9110 §6.6.1); formatted once a second.
    pub(crate) fn date(&self) -> [u8; 29] {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some((at, text)) = self.date.get()
            && at == second
        {
            return text;
        }
        let formatted = httpdate::fmt_http_date(now);
        let mut text = [b' '; 29];
        let bytes = formatted.as_bytes();
        text[..bytes.len().min(29)].copy_from_slice(&bytes[..bytes.len().min(29)]);
        self.date.set(Some((second, text)));
        text
    }
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spare")
    }
}
