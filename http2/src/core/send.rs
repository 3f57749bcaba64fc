//! What goes out: heads, and bodies as far as there is room for them.
//!
//! Owns the order in which streams that wait for the connection go on, and what a connection keeps to write heads with.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Method, StatusCode};

use super::{Core, FULL};
use crate::error::{Code, Error};
use crate::frame::{HEAD, Head, flag, kind};
use crate::head;
use crate::stream::{Stream, remember};

impl Core {
    /// Writes the header block that is in `block` as HEADERS and what CONTINUATION it needs.
    fn write_block(&mut self, stream: u32, end: bool) {
        let mut block = std::mem::take(&mut self.block);
        let mut flags = if end { flag::END_STREAM } else { 0 };
        let mut kind = kind::HEADERS;
        let mut rest = &block[HEAD..];
        if rest.len() <= self.peer.max_frame {
            let head = Head { length: rest.len(), kind, flags: flags | flag::END_HEADERS, stream };
            block[..HEAD].copy_from_slice(&head.bytes());
            self.write(&block);
        } else {
            while !rest.is_empty() {
                let (part, more) = rest.split_at(rest.len().min(self.peer.max_frame));
                if more.is_empty() {
                    flags |= flag::END_HEADERS;
                }
                let head = Head { length: part.len(), kind, flags, stream };
                if self.ended.is_none() {
                    self.outlet.write(&head.bytes(), part);
                }
                (kind, flags, rest) = (kind::CONTINUATION, 0, more);
            }
        }
        if block.capacity() <= KEPT_BLOCK {
            block.clear();
            self.block = block;
        }
    }

    /// Room for the head of the first frame stands before the block.
    fn begin_block(&mut self) {
        self.block.clear();
        self.block.extend_from_slice(&[0; HEAD]);
    }

    /// Whether a stream can be opened now. `Err`: never again.
    pub fn poll_open(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(error.clone()));
        }
        if self.left || self.last > LAST_STREAM {
            return Poll::Ready(Err(Error::GoneAway(Code::NO_ERROR)));
        }
        let full = self.outlet.waiting() >= FULL;
        if full || self.open >= self.peer.streams {
            if full {
                self.want_room();
            }
            if !self.openers.iter().any(|waker| waker.will_wake(cx.waker())) {
                self.openers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub fn wake_openers(&mut self) {
        for waker in self.openers.drain(..) {
            waker.wake();
        }
    }

    /// Opens a stream with a request. To be asked only when [`Self::poll_open`] says so. Two ends of it are held.
    pub fn open(
        &mut self,
        method: &Method,
        uri: &http::Uri,
        protocol: Option<&[u8]>,
        headers: &HeaderMap,
        end: bool,
    ) -> usize {
        let id = self.last;
        self.last += 2;
        self.begin_block();
        let mut block = self.encoder.block(&mut self.block);
        head::write_request(&mut block, method, uri, protocol, headers);
        self.write_block(id, end);
        let mut stream = Stream::new(id, self.limits.stream_window, self.peer.stream_window);
        stream.sending = !end;
        stream.bodiless = *method == Method::HEAD;
        self.open += 1;
        self.streams.insert(stream)
    }

    pub fn respond(
        &mut self,
        key: usize,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
    ) -> Result<(), Error> {
        let id = self.writable(key)?;
        self.streams[key].answered = true;
        self.begin_block();
        let mut block = self.encoder.block(&mut self.block);
        head::write_response(&mut block, status, headers);
        self.write_block(id, end);
        if end {
            self.ended_sending(key);
        }
        Ok(())
    }

    /// Writes an interim response, unless the final one has begun, the stream is over, or the client takes too little of what it is sent.
    pub fn inform(&mut self, key: usize, id: u32, status: StatusCode, headers: &HeaderMap) {
        let Some(stream) = self.streams.try_get(key, id) else { return };
        if stream.answered || !stream.sending || stream.error.is_some() || self.outlet.waiting() >= FULL {
            return;
        }
        self.begin_block();
        let mut block = self.encoder.block(&mut self.block);
        head::write_response(&mut block, status, headers);
        self.write_block(id, false);
    }

    pub fn trailers(&mut self, key: usize, trailers: &HeaderMap) -> Result<(), Error> {
        let id = self.writable(key)?;
        if trailers.is_empty() {
            self.write(&Head { length: 0, kind: kind::DATA, flags: flag::END_STREAM, stream: id }.bytes());
        } else {
            self.begin_block();
            let mut block = self.encoder.block(&mut self.block);
            head::write_fields(&mut block, trailers);
            self.write_block(id, true);
        }
        self.ended_sending(key);
        Ok(())
    }

    fn writable(&self, key: usize) -> Result<u32, Error> {
        let stream = &self.streams[key];
        match &stream.error {
            Some(error) => Err(error.clone()),
            None if !stream.sending => Err(Error::Refused(Code::STREAM_CLOSED)),
            None => Ok(stream.id),
        }
    }

    /// Writes as much of `data` as there is room for. `end`: nothing comes behind it.
    pub fn poll_data(
        &mut self,
        key: usize,
        cx: &Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), Error>> {
        let id = match self.writable(key) {
            Ok(id) => id,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if data.is_empty() {
            if end {
                self.write(
                    &Head { length: 0, kind: kind::DATA, flags: flag::END_STREAM, stream: id }.bytes(),
                );
                self.ended_sending(key);
            }
            return Poll::Ready(Ok(()));
        }
        while !data.is_empty() {
            let stream = &mut self.streams[key];
            let room = stream.send_window.min(self.send_window).min(self.peer.max_frame as i64);
            let full = self.outlet.waiting() >= FULL;
            if room <= 0 || full {
                remember(&mut stream.sender, cx);
                self.queue(key, full);
                self.advance_line();
                return Poll::Pending;
            }
            let part = data.split_to(data.len().min(room as usize));
            let last = end && data.is_empty();
            let flags = if last { flag::END_STREAM } else { 0 };
            let head = Head { length: part.len(), kind: kind::DATA, flags, stream: id };
            stream.send_window -= part.len() as i64;
            self.send_window -= part.len() as i64;
            self.updates += UPDATES;
            if self.ended.is_none() {
                self.outlet.write(&head.bytes(), &part);
            }
            if last {
                self.ended_sending(key);
            }
        }
        self.advance_line();
        Poll::Ready(Ok(()))
    }

    /// Writes as much of `data` as fits into a frame and has room; returns how much that was.
    pub fn poll_write(&mut self, key: usize, cx: &Context<'_>, data: &[u8]) -> Poll<Result<usize, Error>> {
        let room = ready!(self.poll_room(key, cx))?;
        let part = &data[..room.min(data.len())];
        let stream = &mut self.streams[key];
        let head = Head { length: part.len(), kind: kind::DATA, flags: 0, stream: stream.id };
        stream.send_window -= part.len() as i64;
        self.send_window -= part.len() as i64;
        if self.ended.is_none() {
            self.outlet.write(&head.bytes(), part);
        }
        self.advance_line();
        Poll::Ready(Ok(part.len()))
    }

    /// For a response that has none of its own.
    pub fn date(&mut self) -> HeaderValue {
        let now = std::time::SystemTime::now();
        let second = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        match &self.date {
            Some((at, value)) if *at == second => value.clone(),
            _ => {
                let text = httpdate::fmt_http_date(now);
                let value = HeaderValue::try_from(text).expect("a date is of letters, digits and spaces");
                self.date.insert((second, value)).1.clone()
            }
        }
    }

    /// The peer's table may have another size from now on.
    pub fn set_table(&mut self) {
        self.encoder.set_max_table_size(self.peer.table);
    }

    /// Bytes of room there is, for whoever wants to know before he has any. To be tried anew after Pending.
    pub fn poll_room(&mut self, key: usize, cx: &Context<'_>) -> Poll<Result<usize, Error>> {
        if let Err(error) = self.writable(key) {
            return Poll::Ready(Err(error));
        }
        let stream = &mut self.streams[key];
        let room = stream.send_window.min(self.send_window).min(self.peer.max_frame as i64);
        let full = self.outlet.waiting() >= FULL;
        if room > 0 && !full {
            return Poll::Ready(Ok(room as usize));
        }
        remember(&mut stream.sender, cx);
        self.queue(key, full);
        // Whoever is behind it may have the room that it cannot use.
        self.advance_line();
        Poll::Pending
    }

    /// Puts a stream in line, if it is the connection it waits for.
    fn queue(&mut self, key: usize, full: bool) {
        if full {
            self.want_room();
        }
        let stream = &mut self.streams[key];
        if (full || self.send_window <= 0) && !std::mem::replace(&mut stream.queued, true) {
            self.line.push_back((key, stream.id));
            if self.line.len() > 2 * self.open + 16 {
                // Most ended in line, and nothing moves that would pass them over.
                self.line.retain(|(key, id)| {
                    self.streams.try_get(*key, *id).is_some_and(|stream| stream.is_open())
                });
            }
        }
    }

    /// How many are in line, or were.
    #[cfg(test)]
    pub fn line(&self) -> usize {
        self.line.len()
    }

    /// Takes a stream out of line; should it be its turn already, the next one has it.
    pub fn leave_line(&mut self, key: usize) {
        let stream = &mut self.streams[key];
        if std::mem::take(&mut stream.queued) {
            let place = (key, stream.id);
            self.line.retain(|other| *other != place);
        }
        self.advance_line();
    }

    /// Wakes as many of those that wait for the connection as there may be room for. Whoever is woken sends, or ends; both come here again.
    pub fn advance_line(&mut self) {
        if self.line.is_empty() || self.outlet.waiting() >= FULL {
            return;
        }
        let mut room = self.send_window;
        while room > 0
            && let Some((key, id)) = self.line.pop_front()
        {
            let Some(stream) = self.streams.try_get(key, id) else { continue };
            stream.queued = false;
            if let Some(waker) = stream.sender.take() {
                waker.wake();
            }
            room -= self.peer.max_frame as i64;
        }
    }

    /// Should somebody wait for room in the outlet, and there be some.
    pub fn advance(&mut self) {
        if !self.full {
            return;
        }
        if self.outlet.waiting() < FULL {
            self.full = false;
            self.wake_openers();
            self.advance_line();
        } else {
            self.want_room();
        }
    }
}

/// Numbers are used up there; the connection is to be left well before.
const LAST_STREAM: u32 = (1 << 31) - 3;
/// WINDOW_UPDATE frames that a DATA frame may be answered with: of its stream, of the connection, and for peers who give back what they read piece by piece.
const UPDATES: u64 = 10;
/// Memory a connection keeps for the next block.
const KEPT_BLOCK: usize = 1024;
