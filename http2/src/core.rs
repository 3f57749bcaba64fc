//! The state of one connection, shared by whoever reads it and by all who hold an end of one of its streams.
//!
//! Owns the streams, both flow-control windows of the connection, and the order in which frames are written. Frames go to the [`Outlet`] as soon as
//! somebody has one: a stream's task writes its own, and nobody has to be woken for it. What goes out is `send`, what comes from the peer `receive.rs`. Local to
//! its thread, borrowed for one call at a time.

mod send;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;
use http::{HeaderMap, Request, Response, StatusCode};

use crate::error::{Code, Error};
use crate::frame;
use crate::hpack::{Decoder, Encoder};
use crate::receive::Partial;
use crate::settings::{Limits, Peer};
use crate::stream::{Streams, remember};

/// Where frames go. Takes whatever it is given; whoever gives asks first how much there is.
pub trait Outlet {
    /// What leaves as one.
    fn write(&self, head: &[u8], data: &[u8]);
    /// Bytes that did not leave yet.
    fn waiting(&self) -> usize;
    /// Wakes `driver`, who reads the connection, when there are fewer than [`FULL`].
    fn want_room(&self, driver: Option<&Waker>);
}

/// Bytes that may wait before bodies and new streams do.
pub const FULL: usize = 64 * 1024;
/// Bytes that may wait before nothing is read any more: what we have to answer the peer does not take.
pub const STUCK: usize = 128 * 1024;

pub type Shared = Rc<RefCell<Core>>;

pub struct Core {
    pub outlet: Rc<dyn Outlet>,
    pub client: bool,
    pub limits: Limits,
    pub streams: Streams,
    /// Streams that are open.
    pub open: usize,
    encoder: Encoder,
    pub decoder: Decoder,
    block: BytesMut,
    /// A header block of which not all is here.
    pub partial: Option<Partial>,
    pub peer: Peer,
    /// The peer's SETTINGS are here.
    pub settled: bool,
    /// Bytes of bodies we may send.
    pub send_window: i64,
    /// Bytes of bodies the peer may send.
    pub receive_window: i64,
    /// Bytes of bodies that were taken, and of which the peer was not told yet.
    pub taken: u32,
    /// Bytes the peer may send, or has sent, beyond the window that was announced.
    pub lent: u32,
    /// Of a client: the next one it opens. Of a server: the last one its client opened.
    pub last: u32,
    /// Requests nobody looked at yet.
    pub accepted: VecDeque<(usize, Request<()>)>,
    pub unseen_resets: usize,
    pub faults: usize,
    /// Of this turn.
    pub idle_frames: usize,
    /// WINDOW_UPDATE frames that the peer may send for what it was sent.
    pub updates: u64,
    /// Streams that wait for the connection's window or the outlet.
    line: VecDeque<(usize, u32)>,
    /// Somebody waits for room in the outlet.
    full: bool,
    /// Who wants to open a stream and cannot.
    openers: Vec<Waker>,
    /// Who reads the connection, to be told that its last stream ended.
    pub driver: Option<Waker>,
    pub leaving: Leaving,
    /// The peer said GOAWAY.
    pub left: bool,
    pub pongs: u32,
    pub pinger: Option<Waker>,
    /// Those who may open streams.
    pub senders: usize,
    /// Nothing is read or written any more.
    pub ended: Option<Error>,
    /// Of this second (RFC 9110 §6.6.1).
    date: Option<(u64, HeaderValue)>,
}

/// How far we are with leaving (RFC 9113 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    No,
    /// GOAWAY without an end was sent, and a PING behind it: what the peer sends before its answer it sent without knowing.
    Warned,
    /// GOAWAY with the last stream was sent.
    Told,
}

/// The PING behind a first GOAWAY, and the one that asks whether the peer is still there.
pub const LEAVING: [u8; 8] = *b"leaving!";
pub const ALIVE: [u8; 8] = *b"alive...";

impl Core {
    pub fn new(outlet: Rc<dyn Outlet>, limits: Limits, client: bool) -> Self {
        let mut hello = Vec::with_capacity(80);
        if client {
            hello.extend_from_slice(frame::PREFACE);
        }
        hello.extend_from_slice(&limits.frame(!client));
        let more = limits.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            hello.extend_from_slice(&frame::window_update(0, more));
        }
        outlet.write(&hello, &[]);
        Self {
            outlet,
            client,
            limits,
            streams: Streams::default(),
            open: 0,
            encoder: Encoder::new(),
            decoder: Decoder::new(crate::hpack::DEFAULT_TABLE_SIZE),
            block: BytesMut::new(),
            partial: None,
            peer: Peer::default(),
            settled: false,
            send_window: i64::from(DEFAULT_WINDOW),
            receive_window: i64::from(limits.connection_window.max(DEFAULT_WINDOW)),
            taken: 0,
            lent: 0,
            last: u32::from(client),
            accepted: VecDeque::new(),
            unseen_resets: 0,
            faults: 0,
            idle_frames: 0,
            updates: 0,
            line: VecDeque::new(),
            full: false,
            openers: Vec::new(),
            driver: None,
            leaving: Leaving::No,
            left: false,
            pongs: 0,
            pinger: None,
            senders: 0,
            ended: None,
            date: None,
        }
    }

    pub fn want_room(&mut self) {
        self.full = true;
        self.outlet.want_room(self.driver.as_ref());
    }

    pub fn write(&self, frame: &[u8]) {
        if self.ended.is_none() {
            self.outlet.write(frame, &[]);
        }
    }

    fn ended_sending(&mut self, key: usize) {
        let stream = &mut self.streams[key];
        stream.sending = false;
        if !stream.receiving && stream.error.is_none() {
            self.closed(key);
        } else {
            // It may have been woken for room that it did not use.
            self.advance_line();
        }
    }

    pub fn ended_receiving(&mut self, key: usize) {
        let stream = &mut self.streams[key];
        stream.receiving = false;
        if !stream.sending && stream.error.is_none() {
            self.closed(key);
        }
    }

    /// A stream is open no longer.
    fn closed(&mut self, key: usize) {
        self.open -= 1;
        self.wake_openers();
        self.advance_line();
        if self.streams[key].handles == 0 {
            self.forget(key);
        }
        self.maybe_over();
    }

    fn forget(&mut self, key: usize) {
        let mut stream = self.streams.remove(key);
        let unread = stream.body.clear();
        self.give_back(unread);
    }

    /// Tells whoever reads the connection that nothing goes on any more, should that be its end.
    pub fn maybe_over(&mut self) {
        if self.is_over()
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// Nothing goes on, and nothing new can begin.
    pub fn is_over(&self) -> bool {
        let unused = self.client && self.senders == 0;
        self.open == 0 && (self.left || self.leaving == Leaving::Told || unused)
    }

    /// Ends a stream before its end, and says so to the peer.
    pub fn reset(&mut self, key: usize, code: Code) {
        let stream = &self.streams[key];
        if !stream.is_open() {
            return;
        }
        self.write(&frame::reset(stream.id, code));
        self.fail(key, Error::Refused(code));
    }

    /// Ends a stream before its end.
    pub fn fail(&mut self, key: usize, error: Error) {
        let stream = &mut self.streams[key];
        if !stream.is_open() {
            return;
        }
        stream.error = Some(error);
        stream.wake();
        self.closed(key);
    }

    /// Somebody lets go of an end of a stream. `receiver`: nobody reads it any more.
    pub fn let_go(&mut self, key: usize, receiver: bool) {
        let stream = &mut self.streams[key];
        stream.handles -= 1;
        if receiver {
            stream.read = false;
            stream.receiver = None;
            let unread = stream.body.clear();
            (stream.head, stream.trailers) = (None, None);
            stream.interim.clear();
            self.give_back(unread);
        } else if stream.handles > 0 {
            // It has no use for room any more, neither for what it waits for nor for what it was woken for.
            stream.sender = None;
            self.leave_line(key);
        }
        let stream = &mut self.streams[key];
        if stream.handles > 0 {
            return;
        }
        if stream.is_open() {
            // A server that has answered does not need the rest of the request (§8.1); all else is a cancellation.
            let answered = !self.client && !stream.sending;
            self.reset(key, if answered { Code::NO_ERROR } else { Code::CANCEL });
        } else {
            self.forget(key);
        }
    }

    /// What came was taken: the peer may send as much again. Told once that is half of what it may still send, which is soon where others
    /// hold most of a window and seldom where nobody does.
    pub fn release(&mut self, key: usize, bytes: usize) {
        let stream = &mut self.streams[key];
        if stream.receiving && stream.error.is_none() {
            stream.taken += bytes as u32;
            if stream.taken > 0 && 2 * i64::from(stream.taken) >= stream.receive_window {
                stream.receive_window += i64::from(stream.taken);
                let frame = frame::window_update(stream.id, std::mem::take(&mut stream.taken));
                self.write(&frame);
            }
        }
        self.give_back(bytes);
    }

    /// As [`Self::release`], of the connection's window alone.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes as u32;
        let repaid = bytes.min(self.lent);
        self.lent -= repaid;
        self.taken += bytes - repaid;
        self.tell();
    }

    /// What came leaves less of the connection's window.
    pub fn use_up(&mut self, bytes: usize) {
        self.receive_window -= bytes as i64;
        let quarter = self.limits.connection_window.max(DEFAULT_WINDOW) / 4;
        if self.receive_window + i64::from(self.taken) < i64::from(quarter) {
            let more = quarter.min(self.limits.lent - self.lent);
            self.lent += more;
            self.taken += more;
        }
        // What was taken may be half of what is left only now, and whose streams wait for it may not be who reads next.
        self.tell();
    }

    fn tell(&mut self) {
        if self.taken > 0 && 2 * i64::from(self.taken) >= self.receive_window {
            self.receive_window += i64::from(self.taken);
            let frame = frame::window_update(0, std::mem::take(&mut self.taken));
            self.write(&frame);
        }
    }

    /// No stream goes on. `tell`: with what GOAWAY says.
    pub fn end(&mut self, error: Error, tell: Option<Code>) {
        if self.ended.is_some() {
            return;
        }
        if let Some(code) = tell {
            let last = if self.client { 0 } else { self.last };
            self.write(&frame::go_away(last, code));
        }
        self.ended = Some(error.clone());
        for (key, _) in std::mem::take(&mut self.accepted) {
            // Nobody will hold it.
            self.streams[key].handles = 0;
            if !self.streams[key].is_open() {
                self.forget(key);
            }
        }
        for key in self.streams.keys() {
            self.fail(key, error.clone());
        }
        self.wake_openers();
        for waker in [self.driver.clone(), self.pinger.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Takes no more streams, in two steps.
    pub fn leave(&mut self) {
        if self.leaving == Leaving::No && self.ended.is_none() {
            self.leaving = Leaving::Warned;
            self.write(&frame::go_away(frame::MAX_WINDOW as u32, Code::NO_ERROR));
            self.write(&frame::ping(false, LEAVING));
        }
    }

    pub fn poll_response(&mut self, key: usize, cx: &Context<'_>) -> Poll<Result<Response<()>, Error>> {
        let stream = &mut self.streams[key];
        if let Some(head) = stream.interim.pop_front().or_else(|| stream.head.take()) {
            return Poll::Ready(Ok(head));
        }
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(error.clone()));
        }
        remember(&mut stream.receiver, cx);
        Poll::Pending
    }

    /// Data as it came; `None` is its end, or that of all.
    pub fn poll_received(&mut self, key: usize, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let stream = &mut self.streams[key];
        if let Some(data) = stream.body.pop() {
            stream.expects = false;
            return Poll::Ready(Some(Ok(data)));
        }
        if !stream.receiving {
            return Poll::Ready(None);
        }
        if let Some(error) = &stream.error {
            return Poll::Ready(Some(Err(error.clone())));
        }
        remember(&mut stream.receiver, cx);
        if std::mem::take(&mut stream.expects) {
            // Somebody wants the body, and none of it is here.
            let id = stream.id;
            self.inform(key, id, StatusCode::CONTINUE, &HeaderMap::new());
        }
        Poll::Pending
    }

    pub fn poll_reset(&mut self, key: usize, cx: &Context<'_>) -> Poll<Error> {
        let stream = &mut self.streams[key];
        if let Some(error) = &stream.error {
            return Poll::Ready(error.clone());
        }
        remember(&mut stream.sender, cx);
        Poll::Pending
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("open", &self.open).field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// Of a connection and of each stream before any SETTINGS (RFC 9113 §6.9.2).
pub const DEFAULT_WINDOW: u32 = 65_535;
