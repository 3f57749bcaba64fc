//! The two ends of a stream that whoever uses it holds: what comes, and what goes.
//!
//! A stream of which both are dropped before it is over is reset.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::core::Shared;
use crate::error::{Code, Error};

/// What comes of a stream.
pub struct RecvStream {
    shared: Shared,
    key: usize,
}

/// What goes out on a stream.
pub struct SendStream {
    shared: Shared,
    key: usize,
}

/// Where interim responses to a request go. Does not keep its stream.
#[derive(Clone)]
pub struct Interim {
    shared: Shared,
    key: usize,
    id: u32,
}

/// Both ends of a stream that counts them already.
pub(crate) fn ends(shared: &Shared, key: usize) -> (SendStream, RecvStream) {
    (SendStream { shared: shared.clone(), key }, RecvStream { shared: shared.clone(), key })
}

impl RecvStream {
    /// The next head of the response: those of interim ones, and then that of the final one, once.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        self.shared.borrow_mut().poll_response(self.key, cx)
    }

    /// The next piece of the body; `None` is its end. What was taken is to be [released](Self::release).
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.shared.borrow_mut().poll_received(self.key, cx)
    }

    /// Behind the end of the body.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.shared.borrow_mut().streams[self.key].trailers.take()
    }

    /// The peer may send as many bytes more.
    pub fn release(&mut self, bytes: usize) {
        self.shared.borrow_mut().release(self.key, bytes);
    }

    /// Everything came and was taken.
    pub fn is_end_stream(&self) -> bool {
        let core = self.shared.borrow();
        let stream = &core.streams[self.key];
        !stream.receiving && stream.body.is_empty() && stream.trailers.is_none()
    }

    /// Bytes that are announced and did not come yet, and those that came and were not taken.
    pub fn left(&self) -> Option<u64> {
        let core = self.shared.borrow();
        let stream = &core.streams[self.key];
        stream.left.map(|left| left + stream.body.len() as u64)
    }
}

impl SendStream {
    /// Writes all of `data`, as far as the peer has room for it; what is left of it after Pending is for the next call. `end`: nothing comes behind it.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), Error>> {
        self.shared.borrow_mut().poll_data(self.key, cx, data, end)
    }

    /// Waits until there is room for some data; returns for how many bytes.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.shared.borrow_mut().poll_room(self.key, cx)
    }

    /// As much of `data` as there is room for; returns how much that was.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, Error>> {
        self.shared.borrow_mut().poll_write(self.key, cx, data)
    }

    /// Ends the stream.
    pub fn end(&mut self) -> Result<(), Error> {
        self.trailers(&HeaderMap::new())
    }

    /// Ends the stream with these.
    pub fn trailers(&mut self, trailers: &HeaderMap) -> Result<(), Error> {
        self.shared.borrow_mut().trailers(self.key, trailers)
    }

    pub fn reset(&mut self, code: Code) {
        self.shared.borrow_mut().reset(self.key, code);
    }

    /// Ready once the stream ended before its end.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.shared.borrow_mut().poll_reset(self.key, cx)
    }

    /// Of a server.
    pub fn interim(&self) -> Interim {
        let id = self.shared.borrow().streams[self.key].id;
        Interim { shared: self.shared.clone(), key: self.key, id }
    }

    /// Of a server: the head of its answer. Without a `Date` it gets one (RFC 9110 §6.6.1).
    pub fn respond(&mut self, head: &mut http::response::Parts, end: bool) -> Result<(), Error> {
        let mut core = self.shared.borrow_mut();
        if !head.headers.contains_key(http::header::DATE) {
            let date = core.date();
            head.headers.insert(http::header::DATE, date);
        }
        core.respond(self.key, head.status, &head.headers, end)
    }
}

impl Interim {
    /// Hands one on. Left out once the final response has begun, and where the client takes too little of what it is sent.
    pub fn pass(&self, response: &Response<()>) {
        let mut core = self.shared.borrow_mut();
        core.inform(self.key, self.id, response.status(), response.headers());
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.shared.borrow_mut().let_go(self.key, true);
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.shared.borrow_mut().let_go(self.key, false);
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecvStream")
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interim")
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendStream")
    }
}
