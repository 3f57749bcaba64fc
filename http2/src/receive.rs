//! Frames from the peer, and what they do to the connection (RFC 9113 §5, §6).
//!
//! Owns every judgement on what a peer may send. An `Err` ends the connection; what ends a stream alone is dealt with here. Frames of streams that are
//! over are read and forgotten, however many: resets cross with what was under way already, and none of that says anything about the peer.

use bytes::{Bytes, BytesMut};

use crate::core::{ALIVE, Core, LEAVING, Leaving};
use crate::error::{Code, Error};
use crate::frame::{self, HEAD, Head, MAX_FRAME, MAX_WINDOW, flag, kind};
use crate::head::{self, Fields};
use crate::hpack;
use crate::stream::{SMALL, Stream};

/// A connection error.
pub type Fatal = (Code, &'static str);

/// A header block that goes on in CONTINUATION.
#[derive(Debug)]
pub struct Partial {
    stream: u32,
    end: bool,
    block: BytesMut,
    frames: u32,
}

/// CONTINUATION frames of a block. Larger than any block that is taken needs, if they are not made small on purpose (CVE-2024-27316).
const CONTINUATIONS: u32 = 64;

/// What comes in a DATA frame: read in place, or its own memory.
pub enum Payload<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Payload<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Whether a frame's payload is better not copied.
pub fn is_large(head: Head) -> bool {
    head.kind == kind::DATA && head.length >= SMALL
}

impl Core {
    /// What a frame's head alone is enough to refuse.
    pub fn check(&self, head: Head) -> Result<(), Fatal> {
        if head.length > MAX_FRAME {
            return Err((Code::FRAME_SIZE_ERROR, "a frame is larger than allowed"));
        }
        if !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err((Code::PROTOCOL_ERROR, "the first frame is not SETTINGS"));
        }
        match &self.partial {
            Some(partial) if head.kind != kind::CONTINUATION || head.stream != partial.stream => {
                Err((Code::PROTOCOL_ERROR, "a header block is interrupted"))
            }
            None if head.kind == kind::CONTINUATION => {
                Err((Code::PROTOCOL_ERROR, "CONTINUATION without a header block"))
            }
            _ => Ok(()),
        }
    }

    pub fn frame(&mut self, head: Head, payload: Payload<'_>) -> Result<(), Fatal> {
        let bytes = payload.bytes();
        let of_stream = matches!(
            head.kind,
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::CONTINUATION
        );
        let of_connection = matches!(head.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        if (of_stream && head.stream == 0) || (of_connection && head.stream != 0) {
            return Err((Code::PROTOCOL_ERROR, "a frame of the wrong stream"));
        }
        let size =
            |right: bool| right.then_some(()).ok_or((Code::FRAME_SIZE_ERROR, "a frame of the wrong size"));
        match head.kind {
            kind::DATA => self.data(head, payload),
            kind::HEADERS => self.headers(head, bytes),
            kind::CONTINUATION => self.continuation(head, bytes),
            kind::PRIORITY => {
                self.idle()?;
                if bytes.len() != 5 {
                    self.fault(head.stream, Code::FRAME_SIZE_ERROR)?;
                }
                Ok(())
            }
            kind::RST_STREAM => {
                size(bytes.len() == 4)?;
                self.reset_by_peer(head.stream, Code(frame::bits(bytes)))
            }
            kind::SETTINGS if head.has(flag::ACK) => {
                size(bytes.is_empty())?;
                self.idle()?;
                // We ask for the table everybody begins with.
                self.decoder.set_max_table_size(hpack::DEFAULT_TABLE_SIZE);
                Ok(())
            }
            kind::SETTINGS => {
                size(bytes.len().is_multiple_of(6))?;
                self.idle()?;
                self.settings(bytes)
            }
            kind::PUSH_PROMISE => Err((Code::PROTOCOL_ERROR, "PUSH_PROMISE, which was not allowed")),
            kind::PING => {
                size(bytes.len() == 8)?;
                self.idle()?;
                self.ping(head, bytes);
                Ok(())
            }
            kind::GOAWAY => {
                size(bytes.len() >= 8)?;
                self.idle()?;
                self.go_away(frame::number(bytes), Code(frame::bits(&bytes[4..])));
                Ok(())
            }
            kind::WINDOW_UPDATE => {
                size(bytes.len() == 4)?;
                self.window_update(head.stream, i64::from(frame::number(bytes)))
            }
            // Unknown kinds mean nothing to us (§5.5).
            _ => self.idle(),
        }
    }

    /// A stream that nobody has opened yet.
    fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || if self.client { id >= self.last } else { id > self.last }
    }

    fn known(&self, id: u32) -> Result<Option<usize>, Fatal> {
        if self.is_idle(id) {
            return Err((Code::PROTOCOL_ERROR, "a frame of a stream that is not open"));
        }
        Ok(self.streams.find(id))
    }

    /// The peer broke the protocol in one stream.
    fn fault(&mut self, id: u32, code: Code) -> Result<(), Fatal> {
        self.faults += 1;
        if self.faults > self.limits.faulty_streams {
            return Err((Code::ENHANCE_YOUR_CALM, "too many streams that break the protocol"));
        }
        match self.streams.find(id) {
            Some(key) if self.streams[key].is_open() => self.reset(key, code),
            _ => {}
        }
        Ok(())
    }

    /// A frame that brings nothing.
    fn idle(&mut self) -> Result<(), Fatal> {
        self.idle_frames += 1;
        if self.idle_frames > self.limits.idle_frames {
            return Err((Code::ENHANCE_YOUR_CALM, "too many frames that bring nothing"));
        }
        Ok(())
    }

    fn data(&mut self, head: Head, payload: Payload<'_>) -> Result<(), Fatal> {
        let length = head.length;
        let Some(range) = frame::unpadded(head, payload.bytes()) else {
            return Err((Code::PROTOCOL_ERROR, "more padding than payload"));
        };
        let found = self.known(head.stream)?;
        if range.is_empty() && !head.has(flag::END_STREAM) {
            self.idle()?;
        }
        if self.receive_window < length as i64 {
            return Err((Code::FLOW_CONTROL_ERROR, "more data than the connection's window"));
        }
        self.use_up(length);
        let Some(key) = found.filter(|key| self.streams[*key].error.is_none()) else {
            self.give_back(length);
            return Ok(());
        };
        let stream = &mut self.streams[key];
        let refused = if !stream.receiving {
            Some(Code::STREAM_CLOSED)
        } else if stream.receive_window < length as i64 {
            Some(Code::FLOW_CONTROL_ERROR)
        } else if !stream.headed || stream.left.is_some_and(|left| left < range.len() as u64) {
            Some(Code::PROTOCOL_ERROR)
        } else {
            None
        };
        if let Some(code) = refused {
            self.give_back(length);
            return self.fault(head.stream, code);
        }
        stream.receive_window -= length as i64;
        if let Some(left) = &mut stream.left {
            *left -= range.len() as u64;
        }
        let end = head.has(flag::END_STREAM);
        if end && stream.left.is_some_and(|left| left > 0) {
            self.give_back(length);
            return self.fault(head.stream, Code::PROTOCOL_ERROR);
        }
        let read = stream.read;
        let padding = length - range.len();
        if !range.is_empty() && read {
            match payload {
                Payload::Borrowed(bytes) => stream.body.push_small(&bytes[range]),
                Payload::Owned(bytes) => stream.body.push(bytes.slice(range)),
            }
            if let Some(waker) = stream.receiver.take() {
                waker.wake();
            }
        } else if end && let Some(waker) = stream.receiver.take() {
            waker.wake();
        }
        if !read {
            // Its own window stays as small as it is.
            self.give_back(length);
        } else if padding > 0 {
            self.release(key, padding);
        }
        if end {
            self.ended_receiving(key);
        }
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let Some(range) = frame::unpadded(head, payload) else {
            return Err((Code::PROTOCOL_ERROR, "more padding than payload"));
        };
        let end = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, end, Bytes::copy_from_slice(&payload[range]));
        }
        self.partial = Some(Partial { stream: head.stream, end, block: payload[range].into(), frames: 0 });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let Some(partial) = &mut self.partial else { return Ok(()) };
        partial.frames += 1;
        partial.block.extend_from_slice(payload);
        if partial.frames > CONTINUATIONS || partial.block.len() > 2 * self.limits.header_list {
            return Err((Code::ENHANCE_YOUR_CALM, "a header block without end"));
        }
        if head.has(flag::END_HEADERS)
            && let Some(Partial { stream, end, block, .. }) = self.partial.take()
        {
            return self.block(stream, end, block.freeze());
        }
        Ok(())
    }

    /// A header block that is whole.
    fn block(&mut self, id: u32, end: bool, block: Bytes) -> Result<(), Fatal> {
        let mut fields = Fields::default();
        let limits = hpack::Limits { max_list_size: self.limits.header_list, max_fields: FIELDS };
        // Whatever becomes of it: both tables go on together.
        let outcome = self.decoder.decode(&block, limits, |field| fields.take(field));
        let too_large = match outcome {
            Ok(outcome) => outcome.exceeded.is_some(),
            Err(_) => return Err((Code::COMPRESSION_ERROR, "a header block that cannot be decoded")),
        };
        if !self.client && id % 2 == 1 && id > self.last {
            return self.request(id, end, fields, too_large);
        }
        let Some(key) = self.known(id)?.filter(|key| self.streams[*key].error.is_none()) else {
            return self.idle();
        };
        let stream = &self.streams[key];
        if !stream.receiving {
            return self.fault(id, Code::STREAM_CLOSED);
        }
        if too_large {
            return self.fault(id, Code::PROTOCOL_ERROR);
        }
        if stream.headed {
            self.received_trailers(key, id, end, fields)
        } else {
            self.response(key, id, end, fields)
        }
    }

    fn request(&mut self, id: u32, end: bool, fields: Fields, too_large: bool) -> Result<(), Fatal> {
        self.last = id;
        if self.leaving == Leaving::Told {
            // The client was told that nobody looks at it.
            return self.idle();
        }
        if self.open >= self.limits.streams as usize {
            self.write(&frame::reset(id, Code::REFUSED_STREAM));
            return self.idle();
        }
        let mut stream = Stream::new(id, self.limits.stream_window, self.peer.stream_window);
        stream.headed = true;
        stream.receiving = !end;
        self.open += 1;
        let key = self.streams.insert(stream);
        if too_large {
            // RFC 6585 §5, with what of its body may come not waited for.
            let status = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let _ = self.respond(key, status, &http::HeaderMap::new(), true);
            if !end {
                self.reset(key, Code::NO_ERROR);
            }
            return Ok(());
        }
        let Some(request) = fields.request() else { return self.fault(id, Code::PROTOCOL_ERROR) };
        match head::length(request.headers()) {
            Ok(Some(1..)) if end => return self.fault(id, Code::PROTOCOL_ERROR),
            Ok(length) => self.streams[key].left = length,
            Err(()) => return self.fault(id, Code::PROTOCOL_ERROR),
        }
        if !end {
            let expects = request.headers().get(http::header::EXPECT);
            self.streams[key].expects =
                expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        }
        // Held until it is handed out.
        self.streams[key].handles = 2;
        self.accepted.push_back((key, request));
        Ok(())
    }

    fn response(&mut self, key: usize, id: u32, end: bool, fields: Fields) -> Result<(), Fatal> {
        let Some(response) = fields.response() else { return self.fault(id, Code::PROTOCOL_ERROR) };
        let status = response.status();
        if status.is_informational() {
            if end {
                return self.fault(id, Code::PROTOCOL_ERROR);
            }
            let stream = &mut self.streams[key];
            stream.interims += 1;
            if stream.interims > MOST_INTERIM {
                return self.fault(id, Code::ENHANCE_YOUR_CALM);
            }
            if stream.read {
                stream.interim.push_back(response);
                if let Some(waker) = stream.receiver.take() {
                    waker.wake();
                }
            }
            return Ok(());
        }
        let Ok(length) = head::length(response.headers()) else {
            return self.fault(id, Code::PROTOCOL_ERROR);
        };
        let stream = &mut self.streams[key];
        let bodiless = stream.bodiless || status == http::StatusCode::NOT_MODIFIED;
        stream.left = if bodiless { None } else { length };
        if end && stream.left.is_some_and(|left| left > 0) {
            return self.fault(id, Code::PROTOCOL_ERROR);
        }
        stream.headed = true;
        stream.head = Some(response);
        if let Some(waker) = stream.receiver.take() {
            waker.wake();
        }
        if end {
            self.ended_receiving(key);
        }
        Ok(())
    }

    fn received_trailers(&mut self, key: usize, id: u32, end: bool, fields: Fields) -> Result<(), Fatal> {
        let short = self.streams[key].left.is_some_and(|left| left > 0);
        let Some(trailers) = fields.trailers().filter(|_| end && !short) else {
            return self.fault(id, Code::PROTOCOL_ERROR);
        };
        let stream = &mut self.streams[key];
        stream.trailers = Some(trailers);
        if let Some(waker) = stream.receiver.take() {
            waker.wake();
        }
        self.ended_receiving(key);
        Ok(())
    }

    fn reset_by_peer(&mut self, id: u32, code: Code) -> Result<(), Fatal> {
        let Some(key) = self.known(id)? else { return self.idle() };
        if let Some(at) = self.accepted.iter().position(|(unseen, _)| *unseen == key) {
            self.accepted.remove(at);
            self.streams[key].handles = 0;
            self.unseen_resets += 1;
            self.fail(key, Error::Reset(code));
            if self.unseen_resets > self.limits.unseen_resets {
                return Err((Code::ENHANCE_YOUR_CALM, "too many requests that are reset at once"));
            }
            return Ok(());
        }
        self.fail(key, Error::Reset(code));
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Fatal> {
        let before = self.peer.stream_window;
        self.peer.apply(payload, !self.settled, self.client)?;
        self.settled = true;
        self.set_table();
        let change = self.peer.stream_window - before;
        if change != 0 {
            for stream in self.streams.iter_mut() {
                stream.send_window += change;
                if stream.send_window > MAX_WINDOW {
                    return Err((Code::FLOW_CONTROL_ERROR, "a window is too large"));
                }
                if change > 0
                    && let Some(waker) = stream.sender.take()
                {
                    waker.wake();
                }
            }
        }
        self.write(&frame::settings_ack());
        self.wake_openers();
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) {
        let mut opaque = [0; 8];
        opaque.copy_from_slice(payload);
        if !head.has(flag::ACK) {
            self.write(&frame::ping(true, opaque));
        } else if opaque == ALIVE {
            self.pongs = self.pongs.wrapping_add(1);
            if let Some(waker) = self.pinger.take() {
                waker.wake();
            }
        } else if opaque == LEAVING && self.leaving == Leaving::Warned {
            self.leaving = Leaving::Told;
            self.write(&frame::go_away(self.last, Code::NO_ERROR));
            self.maybe_over();
        }
    }

    fn go_away(&mut self, last: u32, code: Code) {
        self.left = true;
        if self.client {
            for key in self.streams.keys() {
                if self.streams.get(key).is_some_and(|stream| stream.id > last) {
                    self.fail(key, Error::GoneAway(code));
                }
            }
        }
        self.wake_openers();
        self.maybe_over();
    }

    fn window_update(&mut self, id: u32, by: i64) -> Result<(), Fatal> {
        match self.updates.checked_sub(1) {
            Some(left) => self.updates = left,
            None => self.idle()?,
        }
        if id == 0 {
            if by == 0 {
                return Err((Code::PROTOCOL_ERROR, "WINDOW_UPDATE by nothing"));
            }
            self.send_window += by;
            if self.send_window > MAX_WINDOW {
                return Err((Code::FLOW_CONTROL_ERROR, "a window is too large"));
            }
            self.advance_line();
            return Ok(());
        }
        let Some(key) = self.known(id)? else { return Ok(()) };
        if by == 0 {
            return self.fault(id, Code::PROTOCOL_ERROR);
        }
        let stream = &mut self.streams[key];
        stream.send_window += by;
        if stream.send_window > MAX_WINDOW {
            return self.fault(id, Code::FLOW_CONTROL_ERROR);
        }
        if let Some(waker) = stream.sender.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Takes all frames that are whole. They are read in place, but for large bodies, which become memory of their own by being cut off.
    pub fn take_frames(&mut self, input: &mut BytesMut) -> Result<(), Fatal> {
        use bytes::Buf as _;
        while let Some(head) = Head::parse(input) {
            self.check(head)?;
            let whole = HEAD + head.length;
            if input.len() < whole {
                return Ok(());
            }
            if is_large(head) {
                let frame = input.split_to(whole).freeze();
                self.frame(head, Payload::Owned(frame.slice(HEAD..)))?;
            } else {
                self.frame(head, Payload::Borrowed(&input[HEAD..whole]))?;
                input.advance(whole);
            }
        }
        Ok(())
    }
}

/// Interim responses to one request, at most.
const MOST_INTERIM: u8 = 64;

/// What a map of `http` can hold is more. The size of the list bounds it first.
const FIELDS: usize = 16 * 1024;
