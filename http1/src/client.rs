//! The side of an endpoint: one request at a time goes out, its response comes in.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Limits;
use crate::body::Incoming;
use crate::channel::Channel;
use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::framing::To;
use crate::head::{self, ResponseHead};
use crate::refusal::Refusal;
use crate::send::{Sending, Unsendable};
use crate::server::{length_of, write_length};
use crate::spare::Spare;
use crate::spelling::{Spelling, write_field, write_fields};

/// A connection to an endpoint. At rest it holds its stream and a few words.
pub struct Connection<T> {
    channel: Rc<RefCell<Channel<T>>>,
    limits: Limits,
}

/// A response, and what is left to do of its request.
#[derive(Debug)]
pub struct Answer<T, B> {
    pub response: Response<Incoming<T>>,
    /// There if the endpoint answered before the request was written whole: to be driven beside the response. Dropped, or once the connection is
    /// closed, it ends.
    pub rest: Option<Rest<T, B>>,
    /// The connection left HTTP: [`Connection::take`] it.
    pub tunnel: bool,
}

/// Why there is no response.
#[derive(Debug)]
pub struct Failed<B: Body> {
    pub why: Why<B::Error>,
    /// Something of the request was written: it may have been processed.
    pub begun: bool,
    /// The request, if nothing of it was written and nothing of it is lost.
    pub unsent: Option<Unsent<B>>,
}

/// A request that was not sent.
#[derive(Debug)]
pub struct Unsent<B> {
    pub request: Request<B>,
    /// Data that was taken of its body; it belongs before what is left.
    pub taken: SmallVec<[Bytes; 1]>,
}

/// What happened instead of a response.
#[derive(Debug)]
pub enum Why<E> {
    Io(io::Error),
    /// The endpoint ended the connection without a word.
    Closed,
    /// The endpoint ended the connection within its head.
    Incomplete,
    /// What it answered is no response.
    Refused(Refusal),
    /// The request's body failed.
    Body(E),
    /// The request's body is not as long as its head said.
    Length,
}

/// Interim responses to one request, at most.
const MOST_INTERIM: usize = 64;

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    pub fn new(io: T, spare: Rc<Spare>, limits: Limits) -> Self {
        let channel = Rc::new(RefCell::new(Channel::new(io, limits.head, spare)));
        Self { channel, limits }
    }

    /// Whether it is still open, as far as the runtime knows: an end, or anything said without being asked, makes it useless. Costs no system
    /// call while nothing has come.
    pub fn is_open(&self) -> bool {
        let channel = &mut *self.channel.borrow_mut();
        if channel.io.is_none() || channel.input.ended || !channel.input.is_empty() {
            return false;
        }
        channel.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Whether the last exchange left it as it was: both messages ended where they said they would.
    pub fn is_reusable(&self) -> bool {
        let channel = self.channel.borrow();
        let whole = channel.sent && channel.decoder.is_ended() && channel.output.is_empty();
        channel.io.is_some() && channel.keeps && whole && channel.input.is_empty() && !channel.input.ended
    }

    /// The connection below. `None` if it was closed or taken.
    pub fn with_io<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.channel.borrow_mut().io.as_mut().map(use_it)
    }

    /// Takes the connection from all who use it; what was read of it but not used comes with it.
    pub fn take(&self) -> Option<(T, Bytes)> {
        let channel = &mut *self.channel.borrow_mut();
        let unread = channel.input.take(channel.input.bytes().len());
        if let Some(rest) = channel.rest.take() {
            rest.wake();
        }
        Some((channel.io.take()?, unread))
    }

    /// Sends `request` and waits for its response's head. One at a time, and not after one that left it unusable.
    ///
    /// `request` is boxed, so that what waits does not have room for it. `more`: whole lines of a field section, written behind the request's fields.
    /// `interim` is given what the endpoint says before, but for 100, which is this hop's own.
    /// `returned` gets the request's head once it is on its way or given up, but for one that is unsent; without it the next message uses its maps.
    pub async fn send<B>(
        &self,
        request: Box<Request<B>>,
        more: &[u8],
        returned: Option<&Cell<Option<Parts>>>,
        interim: &dyn Fn(Response<()>),
    ) -> Result<Answer<T, B>, Failed<B>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let spare = self.channel.borrow().spare.clone();
        let (mut used, mut sending, mut exchange) = self.prepare(*request, more, returned, interim, &spare);
        let mut unsent = true;
        let answered = poll_fn(|cx| {
            let polled = exchange.poll(self, &mut sending, cx);
            if unsent && self.channel.borrow().output.begun {
                unsent = false;
                sending.taken.clear();
                used.give();
            }
            polled
        })
        .await;
        match answered {
            Ok(head) => Ok(self.answered(head, sending, exchange)),
            Err(why) => {
                let begun = !unsent;
                let Sending { body, taken, lost, .. } = sending;
                let body = body.filter(|_| unsent && !lost);
                let unsent = body.zip(used.parts.take_if(|_| unsent));
                let unsent =
                    unsent.map(|(body, parts)| Unsent { request: Request::from_parts(parts, body), taken });
                Err(Failed { why, begun, unsent })
            }
        }
    }

    /// Apart from `send`, which would hold each of its steps for as long as it waits.
    fn prepare<'a, B>(
        &self,
        request: Request<B>,
        more: &[u8],
        returned: Option<&'a Cell<Option<Parts>>>,
        interim: &'a dyn Fn(Response<()>),
        spare: &'a Spare,
    ) -> (Used<'a>, Sending<B>, Exchange<'a>)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        let to = To::method(&parts.method);
        let encoder = self.begin(&parts, more, &body);
        let exchange = Exchange { to, interim: 0, pass: interim, sent: false, failed: false };
        (Used { parts: Some(parts), returned, spare }, Sending::new(body, encoder, true), exchange)
    }

    fn answered<B>(&self, head: ResponseHead, sending: Sending<B>, exchange: Exchange<'_>) -> Answer<T, B> {
        let status = head.response.status();
        let tunnel =
            status == StatusCode::SWITCHING_PROTOCOLS || exchange.to == To::Connect && status.is_success();
        let channel = &mut *self.channel.borrow_mut();
        channel.decoder = Decoder::new(head.framing);
        channel.keeps = head.keeps && !tunnel && !exchange.failed;
        channel.sent = exchange.sent;
        let rest =
            (!exchange.sent && !exchange.failed).then(|| Rest { channel: self.channel.clone(), sending });
        let body = Incoming::new(&self.channel, channel);
        Answer { response: head.response.map(|()| body), rest, tunnel }
    }

    /// Writes the request's head.
    fn begin(&self, parts: &Parts, more: &[u8], body: &impl Body) -> Encoder {
        // Asked without holding the channel, which a body may lead back to.
        let (ended, exact) = (body.is_end_stream(), body.size_hint().exact());
        let channel = &mut *self.channel.borrow_mut();
        channel.serial = channel.serial.wrapping_add(1);
        (channel.decoder, channel.keeps, channel.sent) = (Decoder::Ended, false, false);
        // The server's word for "nothing interim any more": a client's body never sends a 100.
        (channel.answering, channel.output.begun) = (true, false);
        let spare = channel.spare.clone();
        let out = channel.output.head(&spare);
        out.extend_from_slice(parts.method.as_str().as_bytes());
        out.push(b' ');
        write_target(out, parts);
        out.extend_from_slice(b" HTTP/1.1\r\n");

        let (said, once) = length_of(&parts.headers);
        let (encoder, length) = if parts.method == Method::CONNECT {
            (Encoder::None, None)
        } else if ended {
            let expected = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
            (Encoder::None, (expected || said == Some(0)).then_some(0))
        } else {
            match said.or(exact) {
                Some(length) => (Encoder::Length(length), Some(length)),
                None => (Encoder::Chunked { trailers: true }, None),
            }
        };
        let spelled = once && said == length;
        let spelling = parts.extensions.get::<Spelling>();
        // RFC 9112 §3.2: Host comes first, where nobody put it elsewhere.
        let host = parts.headers.get(header::HOST).filter(|_| spelling.is_none());
        if let Some(host) = host {
            write_field(out, &header::HOST, host);
        }
        write_fields(out, &parts.headers, spelling, |name| match *name {
            header::TRANSFER_ENCODING => true,
            header::CONTENT_LENGTH => !spelled,
            header::HOST => host.is_some(),
            _ => false,
        });
        if let Some(length) = length.filter(|_| !spelled) {
            write_length(out, length);
        }
        if let Encoder::Chunked { .. } = encoder {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(more);
        out.extend_from_slice(b"\r\n");
        encoder
    }
}

/// The head of a request, once it was written into a buffer.
struct Used<'a> {
    parts: Option<Parts>,
    returned: Option<&'a Cell<Option<Parts>>>,
    spare: &'a Spare,
}

impl Used<'_> {
    fn give(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        match self.returned {
            Some(returned) => returned.set(Some(parts)),
            None => self.spare.give_head(parts.headers, parts.extensions),
        }
    }
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        self.give();
    }
}

/// What is going on between a request and its response.
struct Exchange<'a> {
    to: To,
    /// Where interim responses go on, and how many did.
    pass: &'a dyn Fn(Response<()>),
    interim: usize,
    sent: bool,
    /// Writing failed; the response may be here all the same.
    failed: bool,
}

impl Exchange<'_> {
    fn poll<T, B>(
        &mut self,
        connection: &Connection<T>,
        sending: &mut Sending<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Why<B::Error>>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
        B: Body<Data = Bytes> + Unpin,
    {
        let begun = || connection.channel.borrow().output.begun;
        let asked = begun();
        // First what the endpoint says: a body that never stops must not keep its answer from being read.
        if asked {
            let read = self.read(connection, cx);
            if read.is_ready() || self.sent {
                return read;
            }
        }
        match sending.poll(&connection.channel, cx) {
            Poll::Pending if asked || !begun() => Poll::Pending,
            Poll::Pending => self.read(connection, cx),
            Poll::Ready(Ok(())) => {
                self.sent = true;
                self.read(connection, cx)
            }
            // Who answers early may close at once; what it said is read if it is here.
            Poll::Ready(Err(Unsendable::Io(error))) => {
                self.failed = true;
                match self.read::<_, B::Error>(connection, cx) {
                    Poll::Ready(Ok(head)) => Poll::Ready(Ok(head)),
                    Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(Err(Why::Io(error))),
                }
            }
            Poll::Ready(Err(Unsendable::Body(error))) => Poll::Ready(Err(Why::Body(error))),
            Poll::Ready(Err(Unsendable::Length)) => Poll::Ready(Err(Why::Length)),
        }
    }

    fn read<T: AsyncRead + AsyncWrite + Unpin, E>(
        &mut self,
        connection: &Connection<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Why<E>>> {
        let channel = &mut *connection.channel.borrow_mut();
        loop {
            match head::response(&mut channel.input, &connection.limits, &channel.spare, self.to) {
                // Nothing was asked yet: what it says is no answer (a 408 before it closes, say).
                Ok(Some(_)) if !channel.output.begun => return Poll::Ready(Err(Why::Closed)),
                Ok(Some(head)) if is_interim(head.response.status()) => {
                    self.interim += 1;
                    if self.interim > MOST_INTERIM {
                        return Poll::Ready(Err(Why::Refused(Refusal::TooManyInterim)));
                    }
                    if head.response.status() != StatusCode::CONTINUE {
                        (self.pass)(head.response);
                    }
                    continue;
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Err(Why::Refused(refusal))),
            }
            if channel.input.ended {
                let why = if channel.input.is_empty() { Why::Closed } else { Why::Incomplete };
                return Poll::Ready(Err(why));
            }
            match channel.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Why::Io(error))),
            }
        }
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The form of the target is what it was made to be: authority for CONNECT, absolute where it has an authority, else origin.
fn write_target(out: &mut Vec<u8>, parts: &Parts) {
    let uri = &parts.uri;
    if parts.method == Method::CONNECT
        && let Some(authority) = uri.authority()
    {
        out.extend_from_slice(authority.as_str().as_bytes());
        return;
    }
    if uri.scheme().is_some() {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{uri}");
        return;
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    if !target.starts_with(['/', '*']) {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
}

/// The rest of a request whose answer came early.
#[derive(Debug)]
pub struct Rest<T, B> {
    channel: Rc<RefCell<Channel<T>>>,
    sending: Sending<B>,
}

impl<T, B> Future for Rest<T, B>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { channel, sending } = &mut *self;
        {
            let channel = &mut *channel.borrow_mut();
            if channel.io.is_none() {
                return Poll::Ready(());
            }
            if !channel.rest.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                channel.rest = Some(cx.waker().clone());
            }
        }
        let sent = std::task::ready!(sending.poll(channel, cx));
        let channel = &mut *channel.borrow_mut();
        match sent {
            Ok(()) => channel.sent = true,
            Err(_) => channel.keeps = false,
        }
        channel.rest = None;
        Poll::Ready(())
    }
}

impl<T> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client::Connection")
    }
}

#[cfg(test)]
mod tests;
