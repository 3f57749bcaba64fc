//! The side of a connection's client: requests come in, responses go out, in order.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Limits;
use crate::body::Incoming;
use crate::channel::Channel;
use crate::decode::{Decoder, Piece};
use crate::encode::Encoder;
use crate::framing::{self, tokens};
use crate::head::{self, RequestHead};
use crate::refusal::Refusal;
use crate::send::{Sending, Unsendable};
use crate::spare::Spare;
use crate::spelling::{Spelling, write_fields};

/// A connection of a client. At rest it holds its stream and a few words.
pub struct Connection<T> {
    channel: Rc<RefCell<Channel<T>>>,
    limits: Limits,
    asked: Asked,
}

/// What of the request decides how its response is written.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    http10: bool,
    head: bool,
    connect: bool,
    leaves: bool,
    keeps: bool,
    trailers: bool,
}

/// What a client did next.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made once a request, and moved once")]
pub enum Next<T> {
    Request(Request<Incoming<T>>),
    /// What it sent is no request. It can be told so by [`Connection::answer`], after which the connection ends.
    Refused(Refusal),
    /// It ended the connection between two requests, or before the end of a head.
    End,
    Broken(io::Error),
}

/// What may follow a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request.
    Next,
    /// Nothing: the connection is to be closed. `unread`: the client has sent something that nobody read, or may be doing so, and would
    /// not get to read the response if it were closed at once (RFC 9112 §9.6).
    Close { unread: bool },
    /// Whatever was agreed on; see [`Connection::take`].
    Tunnel,
}

/// Why a response did not get out. The connection is of no use.
#[derive(Debug)]
pub enum Broken<E> {
    /// Of the connection.
    Io(io::Error),
    /// Of the response's body.
    Body {
        error: E,
        /// The client cannot tell this from the body's end unless the connection is reset.
        looks_whole: bool,
    },
    /// The body is not as long as its head said.
    Length,
}

/// Bytes of a body nobody wanted that are read all the same, so that the connection can go on.
const DISCARDED: usize = 64 * 1024;

/// Bytes of interim responses that wait for a client.
const MOST_INTERIM: usize = 16 * 1024;

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Connection<T> {
    pub fn new(io: T, spare: Rc<Spare>, limits: Limits) -> Self {
        let channel = Rc::new(RefCell::new(Channel::new(io, limits.head, spare)));
        Self { channel, limits, asked: Asked::default() }
    }

    /// Something of a request is here, but not its whole head.
    pub fn has_begun(&self) -> bool {
        !self.channel.borrow().input.is_empty()
    }

    /// Waits for the next request. Not before the one before was answered.
    pub fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Next<T>> {
        let channel = &mut *self.channel.borrow_mut();
        loop {
            let serial = channel.serial.wrapping_add(1);
            match head::request(&mut channel.input, &self.limits, &channel.spare) {
                Ok(Some(head)) => {
                    self.asked = Asked::of(&head);
                    channel.serial = serial;
                    channel.decoder = Decoder::new(head.framing);
                    channel.expects = head.said.expects(head.http10) && !channel.decoder.is_ended();
                    channel.answering = false;
                    let body = Incoming::new(&self.channel, channel);
                    return Poll::Ready(Next::Request(head.request.map(|()| body)));
                }
                Ok(None) => {}
                Err(refusal) => {
                    self.asked = Asked::default();
                    channel.serial = serial;
                    channel.decoder = Decoder::Broken(refusal);
                    return Poll::Ready(Next::Refused(refusal));
                }
            }
            if channel.input.ended {
                return Poll::Ready(Next::End);
            }
            if let Err(error) = ready!(channel.poll_fill(cx)) {
                return Poll::Ready(Next::Broken(error));
            }
        }
    }

    pub async fn request(&mut self) -> Next<T> {
        poll_fn(|cx| self.poll_request(cx)).await
    }

    /// To be polled beside whatever makes the response, after it. Ready if the connection broke. Hands interim responses on. A client that merely ended its side
    /// still waits for its response.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let channel = &mut *self.channel.borrow_mut();
        if !channel.output.is_empty()
            && !channel.answering
            && let Poll::Ready(Err(error)) = channel.poll_write(cx)
        {
            return Poll::Ready(error);
        }
        if !channel.decoder.is_ended() || channel.input.ended || !channel.input.is_empty() {
            return Poll::Pending;
        }
        match channel.poll_fill(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            // The next request, or the end: its turn comes.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Where interim responses to the request that came last go; nowhere if it came over HTTP/1.0, which has none.
    pub fn interim(&self) -> Option<Interim<T>> {
        let serial = self.channel.borrow().serial;
        (!self.asked.http10).then(|| Interim { channel: Rc::downgrade(&self.channel), serial })
    }

    /// Writes the response to the request that came last, to its end.
    pub async fn answer<B>(&mut self, response: Response<B>) -> Result<After, Broken<B::Error>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = response.into_parts();
        let (encoder, after) = self.begin(parts, &body);
        let mut sending = Sending::new(body, encoder, false);
        poll_fn(|cx| {
            let polled = sending.poll(&self.channel, cx);
            if polled.is_pending()
                && let Poll::Ready(error) = self.poll_watch(cx)
            {
                return Poll::Ready(Err(Unsendable::Io(error)));
            }
            polled
        })
        .await
        .map_err(|error| match error {
            Unsendable::Io(error) => Broken::Io(error),
            Unsendable::Body(error) => {
                Broken::Body { error, looks_whole: sending.encoder() == Encoder::UntilClose }
            }
            Unsendable::Length => Broken::Length,
        })?;
        Ok(self.finish(after))
    }

    /// The stream, and what was read of it but not used. `None` if it was taken before.
    pub fn take(&mut self) -> Option<(T, Bytes)> {
        let mut channel = self.channel.borrow_mut();
        let unread = channel.input.bytes().len();
        let unread = channel.input.take(unread);
        Some((channel.io.take()?, unread))
    }

    /// Writes the head, and decides what comes after the response.
    fn begin(&mut self, parts: Parts, body: &impl Body) -> (Encoder, After) {
        self.discard();
        // Asked without holding the channel: the body may be one of this very connection.
        let exact = body.size_hint().exact();
        let asked = self.asked;
        let channel = &mut *self.channel.borrow_mut();
        (channel.answering, channel.expects) = (true, false);
        let Parts { status, headers, extensions, .. } = parts;
        let leaves = status == StatusCode::SWITCHING_PROTOCOLS || asked.connect && status.is_success();
        let OwnFields { length: (said, once), closes: says_close, date } = OwnFields::of(&headers);
        // As it was spelled, if it says one thing once.
        let spelled = once && !leaves && !is_empty(status);
        let (encoder, length) = match said.or(exact) {
            _ if leaves || is_empty(status) => (Encoder::None, None),
            _ if asked.head || status == StatusCode::NOT_MODIFIED => (Encoder::None, said),
            Some(length) => (Encoder::Length(length), Some(length)),
            None if asked.http10 => (Encoder::UntilClose, None),
            None => (Encoder::Chunked { trailers: asked.trailers }, None),
        };
        // Bytes behind a request to leave HTTP that was not granted: nobody can say what they were meant to be.
        let was_for_tunnel = asked.leaves && !channel.input.is_empty();
        // A body that is still being read may come to its end in time.
        let may_go_on = channel.decoder.is_ended() || Rc::strong_count(&self.channel) > 1;
        let keeps = asked.keeps
            && may_go_on
            && !says_close
            && !was_for_tunnel
            && encoder != Encoder::UntilClose
            && !(channel.input.ended && channel.input.is_empty());

        let spare = channel.spare.clone();
        let date = (!date).then(|| spare.date());
        let out = channel.output.head(&spare);
        let spelling = extensions.get::<Spelling>();
        write_status(out, asked.http10, status, spelling);
        write_fields(out, &headers, spelling, |name| match *name {
            // How this connection carries the message is said here, whatever the response says.
            header::TRANSFER_ENCODING => true,
            header::CONTENT_LENGTH => !spelled,
            header::CONNECTION => !leaves,
            _ => false,
        });
        if let Some(length) = length.filter(|_| !spelled) {
            write_length(out, length);
        }
        if let Encoder::Chunked { .. } = encoder {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if let Some(date) = date {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(&date);
            out.extend_from_slice(b"\r\n");
        }
        match (leaves, keeps, asked.http10) {
            (false, false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (false, true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, ..) | (false, true, false) => {}
        }
        out.extend_from_slice(b"\r\n");
        spare.give_head(headers, extensions);
        let after = if leaves {
            After::Tunnel
        } else if keeps {
            After::Next
        } else {
            After::Close { unread: false }
        };
        (encoder, after)
    }

    fn finish(&mut self, after: After) -> After {
        if after == After::Next {
            self.discard();
        }
        self.asked = Asked::default();
        let channel = &mut *self.channel.borrow_mut();
        // Whoever still holds the request's body holds nothing.
        channel.serial = channel.serial.wrapping_add(1);
        channel.answering = false;
        channel.output.begun = false;
        channel.spare.rests(&mut channel.input.flows);
        let unread = !channel.decoder.is_ended();
        match after {
            After::Next if unread => After::Close { unread },
            After::Close { .. } => After::Close { unread: unread || !channel.input.is_empty() },
            After::Next | After::Tunnel => after,
        }
    }

    /// Reads what has come of a body that nobody wants, so that the connection can go on.
    fn discard(&mut self) {
        let channel = &mut *self.channel.borrow_mut();
        // Waiting for a 100, the client may send the body or leave it: what comes next is anybody's guess.
        if channel.decoder.is_ended() || channel.expects || Rc::strong_count(&self.channel) > 1 {
            return;
        }
        let mut discarded = 0;
        while discarded <= DISCARDED {
            match channel.next() {
                Ok(Piece::Data(data)) => discarded += data.len(),
                Ok(Piece::Trailers(_)) => {}
                Ok(Piece::More) if !channel.input.ended => {
                    match channel.poll_fill(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(_)) | Poll::Pending => return,
                    }
                }
                Ok(Piece::End | Piece::More) | Err(_) => return,
            }
        }
    }
}

impl<T> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("server::Connection")
    }
}

/// Where interim responses to one request go. Does not keep its connection.
pub struct Interim<T> {
    channel: Weak<RefCell<Channel<T>>>,
    serial: u32,
}

impl<T> Interim<T> {
    /// Hands one on, without what of it concerns one hop. Once the final response has begun, or where the client takes too little of what it is sent, it is left out.
    pub fn pass(&self, response: &Response<()>) {
        let Some(channel) = self.channel.upgrade() else { return };
        let Ok(mut channel) = channel.try_borrow_mut() else { return };
        let channel = &mut *channel;
        if channel.serial != self.serial || channel.answering || channel.io.is_none() {
            return;
        }
        let head = write_interim(response);
        if channel.output.has_room() {
            let out = channel.output.head(&channel.spare);
            if out.len() + head.len() <= MOST_INTERIM {
                out.extend_from_slice(&head);
            }
        }
    }
}

impl<T> fmt::Debug for Interim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interim")
    }
}

impl Asked {
    fn of(head: &RequestHead) -> Self {
        let (method, http10) = (head.request.method(), head.http10);
        Self {
            http10,
            head: method == Method::HEAD,
            connect: method == Method::CONNECT,
            leaves: head.said.asks_to_leave(http10, method),
            keeps: head.said.keeps(http10),
            trailers: head.said.trailers && !http10,
        }
    }
}

/// Statuses without a body, and without a length (RFC 9110 §8.6).
fn is_empty(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

/// What the fields of a response say about how it is written, looked at in one go.
#[derive(Default)]
struct OwnFields {
    /// See [`length_of`].
    length: (Option<u64>, bool),
    closes: bool,
    date: bool,
}

impl OwnFields {
    fn of(headers: &HeaderMap) -> Self {
        let (mut own, mut has_length) = (Self::default(), false);
        for (name, value) in headers {
            match *name {
                header::CONTENT_LENGTH => has_length = true,
                header::CONNECTION => {
                    own.closes |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"close"));
                }
                header::DATE => own.date = true,
                _ => {}
            }
        }
        if has_length {
            own.length = length_of(headers);
        }
        own
    }
}

/// What the fields say, if they say it in one voice, and whether they say it once.
pub(crate) fn length_of(headers: &HeaderMap) -> (Option<u64>, bool) {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next().and_then(|first| framing::length(first.as_bytes()));
    let Some(length) = first else { return (None, false) };
    let mut once = true;
    for other in lengths {
        once = false;
        if framing::length(other.as_bytes()) != Some(length) {
            return (None, false);
        }
    }
    (Some(length), once)
}

pub(crate) fn write_length(out: &mut Vec<u8>, length: u64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "Content-Length: {length}\r\n");
}

fn write_status(out: &mut Vec<u8>, http10: bool, status: StatusCode, spelling: Option<&Spelling>) {
    out.extend_from_slice(if http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let usual = || status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(spelling.and_then(Spelling::reason).unwrap_or_else(usual));
    out.extend_from_slice(b"\r\n");
}

/// An interim response as it goes on; what concerns one hop stays behind.
fn write_interim(response: &Response<()>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let spelling = response.extensions().get::<Spelling>();
    write_status(&mut out, false, response.status(), spelling);
    let named = |name: &HeaderName| {
        let mut lines = response.headers().get_all(header::CONNECTION).iter();
        lines.any(|line| tokens(line).any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes())))
    };
    write_fields(&mut out, response.headers(), spelling, |name| {
        let of_hop = matches!(
            *name,
            header::CONNECTION
                | header::CONTENT_LENGTH
                | header::TRANSFER_ENCODING
                | header::UPGRADE
                | header::TRAILER
                | header::TE
                | header::PROXY_AUTHENTICATE
        );
        of_hop || matches!(name.as_str(), "keep-alive" | "proxy-connection") || named(name)
    });
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests;
