//! One HTTP/2 connection to an endpoint: its streams, its keep-alive, its end.
//!
//! Works on the `h2` crate itself, not on hyper's client: only here is known whether the endpoint processed a stream (REFUSED_STREAM,
//! GOAWAY), the request's head is still at hand when it did not, and an exchange needs no task and no channel of its own.
//! Never queues inside `h2`: a stream is opened only with a [`Slot`], and there are as many as the peer allows.

use std::cell::Cell;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason as Code, RecvStream, SendStream};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri, Version, uri};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::{self, MAX_HEADER_BYTES, MAX_HEADERS, Transport};
use super::replay::{Budget, Kept};
use super::{Endpoint, SendError};
use crate::body::{Body, BodyError};
use crate::failure::{Failure, Reason};
use crate::upgrade::Upgrade;

/// How many requests count on one connection that is being opened, before any was: what RFC 9113 §6.5.2 recommends as the least a peer should allow.
pub(super) const EXPECTED_LIMIT: usize = 100;

/// A ping goes out this long after the last one was answered, with or without streams (design.md section 5).
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A connection whose ping is not answered for this long is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A stream that cannot be opened for this long, although there was a slot for it, means that the connection is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// A connection. Closed by dropping it: its streams end first.
#[derive(Debug)]
pub(super) struct Http2 {
    sender: Sender,
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    /// Streams in use.
    streams: Cell<usize>,
    /// When the last stream ended.
    idle_since: Cell<Instant>,
    /// No new stream can be opened: it is closed, or going away.
    closed: Cell<bool>,
    /// Told when a slot becomes free and when the connection ends.
    changed: Rc<Notify>,
}

impl Http2 {
    /// Starts HTTP/2 and waits for the peer's SETTINGS, at most for `timeout`: only then is known how many streams it allows, and
    /// that it speaks HTTP/2 at all. `changed` is told whenever a stream or the connection ends.
    pub(super) async fn over(
        transport: Transport,
        changed: Rc<Notify>,
        timeout: Duration,
        endpoint: &Endpoint,
    ) -> Result<Self, Failure> {
        let failed = |why: &dyn fmt::Display| {
            let detail = format!("{} does not speak HTTP/2 without TLS negotiation: {why}", endpoint.address);
            Failure::new(Reason::UpstreamProtocolError, detail)
        };
        let (sender, mut connection) =
            connect::http2().handshake::<_, Bytes>(transport).await.map_err(|error| failed(&error))?;
        let state = Rc::new(State {
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            closed: Cell::new(false),
            changed,
        });
        let settle = poll_fn(|cx| {
            // Until then no stream may be opened, by the builder's settings.
            let ended = Pin::new(&mut connection).poll(cx);
            match ended {
                _ if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => Poll::Ready(Err(failed(&"it closed the connection"))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(failed(&error))),
                Poll::Pending => Poll::Pending,
            }
        });
        match tokio::time::timeout(timeout, settle).await {
            Ok(settled) => settled?,
            Err(_) => return Err(failed(&format_args!("no SETTINGS within {timeout:?}"))),
        }
        let pings = connection.ping_pong();
        let driven = Rc::clone(&state);
        tokio::task::spawn_local(async move {
            tokio::select! {
                result = &mut connection => if let Err(error) = result {
                    tracing::debug!(%error, "an upstream HTTP/2 connection ended");
                },
                () = keep_alive(pings) => tracing::debug!("an upstream HTTP/2 connection does not answer pings"),
            }
            driven.closed.set(true);
            driven.changed.notify_waiters();
        });
        Ok(Self { sender, state })
    }

    /// A place for one more stream, if there is one.
    pub(super) fn slot(&self) -> Option<(Sender, Slot)> {
        let state = &self.state;
        if state.closed.get() || state.streams.get() >= self.limit() {
            return None;
        }
        state.streams.set(state.streams.get() + 1);
        Some((self.sender.clone(), Slot { state: Rc::clone(state) }))
    }

    /// Streams the peer allows at a time.
    pub(super) fn limit(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// Since when it carries nothing.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.state.streams.get() == 0).then(|| self.state.idle_since.get())
    }
}

/// The right to one stream of a connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Rc<State>,
}

/// What opens a stream.
pub(super) type Sender = h2::client::SendRequest<Bytes>;

impl Slot {
    /// Nothing new goes over this connection any more.
    fn close_connection(&self) {
        self.state.closed.set(true);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let state = &self.state;
        state.streams.set(state.streams.get() - 1);
        if state.streams.get() == 0 {
            state.idle_since.set(Instant::now());
        }
        state.changed.notify_one();
    }
}

/// Ends when the peer stopped answering.
async fn keep_alive(pings: Option<h2::PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        match tokio::time::timeout(PING_TIMEOUT, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection ends by itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// What became of a request.
pub(super) enum Sent {
    Done(Result<Response<Body>, SendError>),
    /// The connection was going away before it was processed. Another one can be tried at once: nothing is wrong with the endpoint.
    Gone(Request<Body>),
}

/// Sends `request` as a stream of its own and waits for its response's headers. Dropping it resets the stream.
pub(super) async fn send(
    (mut sender, slot): (Sender, Slot),
    request: Request<Body>,
    endpoint: &Endpoint,
    budget: &Rc<Budget>,
) -> Sent {
    if poll_fn(|cx| sender.poll_ready(cx)).await.is_err() {
        slot.close_connection();
        return Sent::Gone(request);
    }
    let extended = request.extensions().get::<hyper::ext::Protocol>().is_some();
    if extended && !sender.is_extended_connect_protocol_enabled() {
        let detail = format!("{} does not offer extended CONNECT (RFC 8441)", endpoint.address);
        return Sent::Done(Err(SendError::unsent(Failure::new(Reason::UpgradeFailed, detail), request)));
    }
    let (head, body) = request.into_parts();
    let connect = head.method == Method::CONNECT;
    let bodiless = body.is_end_stream();
    let (wire, head) = outgoing(head);
    let (response, stream) = match sender.send_request(wire, bodiless && !connect) {
        Ok(sent) => sent,
        Err(error) if error.is_go_away() || error.is_io() => {
            slot.close_connection();
            return Sent::Gone(Request::from_parts(head, body));
        }
        Err(error) => {
            let detail = format!("the request cannot be sent as HTTP/2: {error}");
            return Sent::Done(Err(SendError::lost(Reason::BadRequest, detail)));
        }
    };
    let mut exchange = Exchange { response, pump: None, tunnel: None };
    if connect {
        exchange.tunnel = Some(stream);
    } else if !bodiless {
        exchange.pump = Some(Pump::new(body, stream, budget));
    }
    if !is_opened(&mut sender).await {
        // It was never sent, so that nothing was processed; the connection takes nobody else down with it.
        slot.close_connection();
        tracing::warn!(endpoint = %endpoint.address, "an HTTP/2 connection opens no stream any more, and is left");
        return Sent::Gone(Request::from_parts(head, exchange.into_body().unwrap_or_default()));
    }
    let error = match poll_fn(|cx| exchange.poll(cx)).await {
        Ok(response) => return Sent::Done(receive(response, exchange, slot, endpoint)),
        Err(Broken::Body(error)) => {
            return Sent::Done(Err(SendError::lost(error.reason(), error.to_string())));
        }
        Err(Broken::Stream(error)) => error,
    };
    let (reason, detail) = (reason(&error), format!("{}: {error}", endpoint.address));
    if !unprocessed(&error) {
        return Sent::Done(Err(SendError::lost(reason, detail)));
    }
    let Some(body) = exchange.into_body() else {
        return Sent::Done(Err(SendError { unprocessed: true, ..SendError::lost(reason, detail) }));
    };
    let request = Request::from_parts(head, body);
    if error.is_go_away() {
        slot.close_connection();
        return Sent::Gone(request);
    }
    Sent::Done(Err(SendError::unsent(Failure::new(reason, detail), request)))
}

/// Waits until the stream is open, should the peer have lowered its limit just now. Almost always it is.
async fn is_opened(sender: &mut Sender) -> bool {
    match poll_fn(|cx| Poll::Ready(sender.poll_ready(cx))).await {
        // The connection's end is told by the response.
        Poll::Ready(_) => true,
        Poll::Pending => tokio::time::timeout(STUCK, poll_fn(|cx| sender.poll_ready(cx))).await.is_ok(),
    }
}

fn receive(
    response: Response<RecvStream>,
    exchange: Exchange,
    slot: Slot,
    endpoint: &Endpoint,
) -> Result<Response<Body>, SendError> {
    let (count, size) = size(response.headers());
    if count > MAX_HEADERS || size > MAX_HEADER_BYTES {
        let detail = format!(
            "{} answered with {count} headers of {size} bytes in all; {MAX_HEADERS} and {MAX_HEADER_BYTES} are accepted",
            endpoint.address
        );
        return Err(SendError::lost(Reason::ResponseHeadersTooLarge, detail));
    }
    let Exchange { pump, tunnel, .. } = exchange;
    if let Some(stream) = tunnel
        && response.status().is_success()
    {
        return Ok(response.map(|recv| Body::upgrade(Upgrade::stream(stream, recv, slot))));
    }
    let left = response.headers().get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
    Ok(response.map(|recv| {
        if recv.is_end_stream() && pump.is_none() {
            return Body::empty();
        }
        // The endpoint answers while it still reads: from here on the two directions have nothing to do with each other.
        let upload = pump.map(|mut pump| {
            tokio::task::spawn_local(async move {
                if let Err(Broken::Body(_)) = poll_fn(|cx| pump.poll(cx)).await {
                    pump.stream.send_reset(Code::CANCEL);
                }
            })
            .abort_handle()
        });
        Body::http2(Received { recv, ended: false, left, upload, _slot: slot })
    }))
}

/// Both directions of a stream until the response's headers.
struct Exchange {
    response: h2::client::ResponseFuture,
    pump: Option<Pump>,
    /// The sending half of a CONNECT.
    tunnel: Option<SendStream<Bytes>>,
}

enum Broken {
    /// The request's body failed: the client is gone.
    Body(BodyError),
    Stream(h2::Error),
}

impl Exchange {
    /// The request's body as it was at the beginning, if all of it is still here.
    fn into_body(self) -> Option<Body> {
        match self.pump {
            None => Some(Body::empty()),
            Some(pump) => pump.kept.map(|kept| kept.rewind(pump.body)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, Broken>> {
        if let Some(pump) = &mut self.pump
            && !pump.done
            && let Poll::Ready(result) = pump.poll(cx)
        {
            match result {
                Ok(()) => {}
                Err(Broken::Body(error)) => {
                    pump.stream.send_reset(Code::CANCEL);
                    return Poll::Ready(Err(Broken::Body(error)));
                }
                // The response says better what happened: the endpoint may have answered and then reset the rest (RFC 9113 §8.1).
                Err(Broken::Stream(_)) => {}
            }
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx));
        if let (Some(pump), Ok(_)) = (&mut self.pump, &response) {
            // Whatever happens now, the endpoint has begun to process it.
            pump.kept = None;
            if pump.done {
                self.pump = None;
            }
        }
        Poll::Ready(response.map_err(Broken::Stream))
    }
}

/// Moves a request's body into its stream, no more of it than the peer has room for.
struct Pump {
    body: Body,
    stream: SendStream<Bytes>,
    /// Data taken from the body that has found no room yet.
    held: Bytes,
    /// What was taken, while it is not too much and the response has not begun: the stream may yet be refused.
    kept: Option<Kept>,
    done: bool,
}

impl Pump {
    fn new(body: Body, stream: SendStream<Bytes>, budget: &Rc<Budget>) -> Self {
        Self { body, stream, held: Bytes::new(), kept: Some(Kept::new(budget)), done: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let result = ready!(self.advance(cx));
        self.done = true;
        Poll::Ready(result)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if !self.held.is_empty() {
                ready!(self.poll_room(cx))?;
                let room = self.stream.capacity().min(self.held.len());
                let data = self.held.split_to(room);
                let end = self.held.is_empty() && self.body.is_end_stream();
                self.stream.send_data(data, end).map_err(Broken::Stream)?;
                if end {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            // Also while the body has nothing to give: an endpoint that does not want the rest says so here.
            if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
                let error = reset.map_or_else(|error| error, h2::Error::from);
                return Poll::Ready(Err(Broken::Stream(error)));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.stream.send_data(Bytes::new(), true).map_err(Broken::Stream)?;
                return Poll::Ready(Ok(()));
            };
            let frame = frame.map_err(Broken::Body)?;
            if self.kept.as_mut().is_some_and(|kept| !kept.keep(&frame)) {
                self.kept = None;
            }
            match frame.into_data() {
                Ok(data) if data.is_empty() && self.body.is_end_stream() => {
                    self.stream.send_data(data, true).map_err(Broken::Stream)?;
                    return Poll::Ready(Ok(()));
                }
                Ok(data) => self.held = data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.stream.send_trailers(trailers).map_err(Broken::Stream)?;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    /// Waits until the peer has room for some of what is held.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.stream.reserve_capacity(self.held.len());
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Broken::Stream(error))),
                None => return Poll::Ready(Err(Broken::Stream(Code::STREAM_CLOSED.into()))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The body of a response. Dropped before its end, it resets the stream, and with it what is left of the request's body.
#[derive(Debug)]
pub(crate) struct Received {
    recv: RecvStream,
    ended: bool,
    /// From `Content-Length`, so that the next hop can announce it too.
    left: Option<u64>,
    upload: Option<AbortHandle>,
    _slot: Slot,
}

impl Received {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => {
                // Room is given back as data is taken: it is taken only as fast as it goes on.
                let _ = self.recv.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => self.end(Some(Err(BodyError::Stream(error)))),
            None => match ready!(self.recv.poll_trailers(cx)) {
                Ok(Some(trailers)) => self.end(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) => self.end(None),
                Err(error) => self.end(Some(Err(BodyError::Stream(error)))),
            },
        }
    }

    fn end(
        &mut self,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.ended = true;
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended || self.recv.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}

/// Whether the endpoint certainly did nothing with the stream: it refused it (RFC 9113 §8.7), or went away before it (§6.8).
/// `h2` reports a peer's GOAWAY only to streams beyond the last one it names.
fn unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Code::REFUSED_STREAM))
}

fn reason(error: &h2::Error) -> Reason {
    if error.is_library() && error.is_reset() { Reason::UpstreamProtocolError } else { Reason::UpstreamReset }
}

/// Fields and their size as RFC 9113 §6.5.2 counts it.
fn size(headers: &HeaderMap) -> (usize, usize) {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    (headers.len(), bytes)
}

/// Makes a head HTTP/2: all pseudo-headers, no connection-level fields (RFC 9113 §8.2.2, §8.3.1).
///
/// Returns what is sent, and a copy: a stream may be refused or cut off by a GOAWAY after it was sent, which is an everyday event, and
/// its request is then sent elsewhere. This copy is the one allocation of an HTTP/2 request that HTTP/1 does not make.
fn outgoing(mut head: Parts) -> (Request<()>, Parts) {
    let protocol = head.extensions.get::<hyper::ext::Protocol>();
    let protocol = protocol.map(|protocol| h2::ext::Protocol::from(protocol.as_str()));
    head.version = Version::HTTP_2;
    for name in CONNECTION_LEVEL {
        head.headers.remove(name);
    }
    if head.headers.get(header::TE).is_some_and(|te| te != "trailers") {
        head.headers.remove(header::TE);
    }
    let host = head.headers.remove(header::HOST);
    if head.uri.authority().is_none() || (head.uri.scheme().is_none() && head.method != Method::CONNECT) {
        head.uri = absolute(std::mem::take(&mut head.uri), host.as_ref(), head.method == Method::CONNECT);
    }
    // What hangs on the request belongs to this process and not to the wire; copying it would cost more than the headers.
    let extensions = std::mem::take(&mut head.extensions);
    let mut wire = Request::from_parts(head.clone(), ());
    if let Some(protocol) = protocol {
        wire.extensions_mut().insert(protocol);
    }
    head.extensions = extensions;
    (wire, head)
}

fn absolute(uri: Uri, host: Option<&HeaderValue>, connect: bool) -> Uri {
    let mut parts = uri.clone().into_parts();
    if parts.authority.is_none() {
        parts.authority = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    }
    if parts.authority.is_none() {
        return uri;
    }
    // The authority-form of a plain CONNECT has neither (RFC 9113 §8.5).
    if !connect || parts.path_and_query.is_some() {
        parts.scheme.get_or_insert(uri::Scheme::HTTP);
        parts.path_and_query.get_or_insert_with(|| uri::PathAndQuery::from_static("/"));
    }
    Uri::from_parts(parts).unwrap_or(uri)
}

const CONNECTION_LEVEL: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
