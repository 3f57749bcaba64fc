//! What is kept of one stream, and the table of all.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use slab::Slab;

use crate::error::Error;

#[derive(Debug)]
pub struct Stream {
    pub id: u32,
    /// Ends of it that somebody holds.
    pub handles: u8,
    /// Somebody wants what comes.
    pub read: bool,
    /// The peer has not said its last word yet.
    pub receiving: bool,
    /// Nor have we.
    pub sending: bool,
    /// Ended before its end.
    pub error: Option<Error>,
    /// Its final head is here: what comes next are trailers.
    pub headed: bool,
    /// Of a response, until it is taken.
    pub head: Option<Response<()>>,
    /// Interim responses before it that were not taken yet, and how many came in all.
    pub interim: VecDeque<Response<()>>,
    pub interims: u8,
    /// Of a server: its final response has begun.
    pub answered: bool,
    /// Of a server: the client waits for a 100 before it sends the body (RFC 9110 §10.1.1).
    pub expects: bool,
    pub body: Queue,
    pub trailers: Option<HeaderMap>,
    /// Bytes that `Content-Length` announced and that did not come yet.
    pub left: Option<u64>,
    /// Of a HEAD: what its response announces does not come.
    pub bodiless: bool,
    /// Bytes the peer may send.
    pub receive_window: i64,
    /// Bytes that were taken, and of which the peer was not told yet.
    pub taken: u32,
    /// Bytes we may send. Below nothing where the peer made its window smaller.
    pub send_window: i64,
    /// It is in the line of those that wait for the connection.
    pub queued: bool,
    pub receiver: Option<Waker>,
    pub sender: Option<Waker>,
}

impl Stream {
    pub fn new(id: u32, receive_window: u32, send_window: i64) -> Self {
        Self {
            id,
            handles: 0,
            read: true,
            receiving: true,
            sending: true,
            error: None,
            headed: false,
            head: None,
            interim: VecDeque::new(),
            interims: 0,
            answered: false,
            expects: false,
            body: Queue::default(),
            trailers: None,
            left: None,
            bodiless: false,
            receive_window: i64::from(receive_window),
            taken: 0,
            send_window,
            queued: false,
            receiver: None,
            sender: None,
        }
    }

    pub fn is_open(&self) -> bool {
        (self.receiving || self.sending) && self.error.is_none()
    }

    pub fn wake(&mut self) {
        for waker in [self.receiver.take(), self.sender.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Remembers who asked last.
pub fn remember(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// Data that came and was not taken yet. Small pieces are put together, so that what is held is never much more than what was announced.
#[derive(Debug, Default)]
pub struct Queue {
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
    small: BytesMut,
}

/// Shorter than this, a piece is copied: a longer one holds the 64 KiB it was read into, at most five times itself.
pub const SMALL: usize = 12 * 1024;
/// Small pieces are put together to this size.
const PIECE: usize = 16 * 1024;

impl Queue {
    pub fn push_small(&mut self, data: &[u8]) {
        if self.is_empty() {
            self.first = Some(Bytes::copy_from_slice(data));
            return;
        }
        self.small.extend_from_slice(data);
        if self.small.len() >= PIECE {
            self.more.push_back(std::mem::take(&mut self.small).freeze());
        }
    }

    pub fn push(&mut self, data: Bytes) {
        if self.is_empty() {
            self.first = Some(data);
            return;
        }
        if !self.small.is_empty() {
            self.more.push_back(std::mem::take(&mut self.small).freeze());
        }
        self.more.push_back(data);
    }

    pub fn pop(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().or_else(|| self.more.pop_front()) {
            return Some(first);
        }
        (!self.small.is_empty()).then(|| std::mem::take(&mut self.small).freeze())
    }

    pub fn len(&self) -> usize {
        let first = self.first.as_ref().map_or(0, Bytes::len);
        first + self.more.iter().map(Bytes::len).sum::<usize>() + self.small.len()
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty() && self.small.is_empty()
    }

    /// Throws all of it away; returns how much that was.
    pub fn clear(&mut self) -> usize {
        let mut bytes = 0;
        while let Some(data) = self.pop() {
            bytes += data.len();
        }
        bytes
    }
}

/// All streams that are open, or of which somebody holds an end.
#[derive(Debug, Default)]
pub struct Streams {
    slab: Slab<Stream>,
    ids: HashMap<u32, usize, BuildHasherDefault<ById>>,
}

impl Streams {
    pub fn insert(&mut self, stream: Stream) -> usize {
        let id = stream.id;
        let key = self.slab.insert(stream);
        self.ids.insert(id, key);
        key
    }

    pub fn find(&self, id: u32) -> Option<usize> {
        self.ids.get(&id).copied()
    }

    pub fn remove(&mut self, key: usize) -> Stream {
        let stream = self.slab.remove(key);
        self.ids.remove(&stream.id);
        if self.slab.is_empty() {
            // A connection at rest keeps no table.
            *self = Self::default();
        }
        stream
    }

    pub fn keys(&self) -> Vec<usize> {
        self.slab.iter().map(|(key, _)| key).collect()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slab.iter_mut().map(|(_, stream)| stream)
    }

    pub fn get(&self, key: usize) -> Option<&Stream> {
        self.slab.get(key)
    }

    pub fn try_get(&mut self, key: usize, id: u32) -> Option<&mut Stream> {
        self.slab.get_mut(key).filter(|stream| stream.id == id)
    }
}

impl std::ops::Index<usize> for Streams {
    type Output = Stream;

    fn index(&self, key: usize) -> &Stream {
        &self.slab[key]
    }
}

impl std::ops::IndexMut<usize> for Streams {
    fn index_mut(&mut self, key: usize) -> &mut Stream {
        &mut self.slab[key]
    }
}

/// Stream numbers are given out in order, at most a few hundred at a time: a multiplication spreads them well enough, and whoever chooses them has only
/// his own connection to slow down.
#[derive(Default)]
struct ById(u64);

impl Hasher for ById {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
