//! One HTTP/2 connection to an endpoint: its streams, its keep-alive, its end.
//!
//! Works on the `h2` crate itself, not on hyper's client: only here is known whether the endpoint processed a stream (REFUSED_STREAM,
//! GOAWAY), the request's head is still at hand when it did not, and an exchange needs no task and no channel of its own.
//! Never queues inside `h2`: a stream is opened only with a [`Slot`], and there are as many as the peer allows.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason as Code, RecvStream, SendStream};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri, Version, uri};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::{self, MAX_HEADERS, Transport};
use super::{Endpoint, SendError};
use crate::body::{Body, BodyError};
use crate::failure::{Failure, Reason};
use crate::upgrade::Upgrade;

/// Streams opened before the peer's SETTINGS are known; what RFC 9113 §6.5.2 recommends as the least it should allow.
pub(super) const FIRST_LIMIT: usize = 100;

/// A ping goes out this long after the last one was answered, with or without streams (design.md section 5).
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A connection whose ping is not answered for this long is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection. Closed by dropping it: its streams end first.
#[derive(Debug)]
pub(super) struct Http2 {
    sender: h2::client::SendRequest<Bytes>,
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
    /// Told when a slot becomes free or the connection ends.
    freed: Rc<Notify>,
}

impl Http2 {
    /// `freed` is told whenever a stream ends.
    pub(super) async fn over(transport: Transport, freed: Rc<Notify>) -> Result<Self, Failure> {
        let (sender, mut connection) =
            connect::http2().handshake::<_, Bytes>(transport).await.map_err(|error| {
                Failure::new(Reason::UpstreamProtocolError, format!("HTTP/2 did not start: {error}"))
            })?;
        let state = Rc::new(State {
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            closed: Cell::new(false),
            freed,
        });
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
            driven.freed.notify_waiters();
        });
        Ok(Self { sender, state })
    }

    /// A place for one more stream, if there is one.
    pub(super) fn slot(&self) -> Option<(h2::client::SendRequest<Bytes>, Slot)> {
        if self.state.closed.get() || self.state.streams.get() >= self.sender.current_max_send_streams() {
            return None;
        }
        self.state.streams.set(self.state.streams.get() + 1);
        Some((self.sender.clone(), Slot { state: Rc::clone(&self.state) }))
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

impl Slot {
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
        state.freed.notify_one();
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

/// What becomes of an attempt to open a stream.
pub(super) enum Sent {
    Done(Result<Response<Body>, SendError>),
    /// The connection is going away; nothing was sent, and another one can be tried at once.
    Gone(Request<Body>),
}

/// Sends `request` as a stream of its own and waits for its response's headers. Dropping it resets the stream.
pub(super) async fn send(
    mut sender: h2::client::SendRequest<Bytes>,
    slot: Slot,
    request: Request<Body>,
    endpoint: &Endpoint,
) -> Sent {
    if poll_fn(|cx| sender.poll_ready(cx)).await.is_err() {
        slot.close_connection();
        return Sent::Gone(request);
    }
    let (head, body) = request.into_parts();
    let connect = head.method == Method::CONNECT;
    let bodiless = body.is_end_stream();
    // Kept because a stream may be refused or cut off by a GOAWAY after it was sent, which is an everyday event.
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
        exchange.pump = Some(Pump::new(body, stream));
    }
    let outcome = poll_fn(|cx| exchange.poll(cx)).await;
    let error = match outcome {
        Ok(response) => return Sent::Done(receive(response, exchange, slot, endpoint)),
        Err(error) => error,
    };
    let Exchange { pump, .. } = exchange;
    let (error, failure) = match error {
        Broken::Body(error) => {
            return Sent::Done(Err(SendError::lost(Reason::ClientClosed, error.to_string())));
        }
        Broken::Stream(error) => {
            let failure = Failure::new(reason(&error), format!("{}: {error}", endpoint.address));
            (error, failure)
        }
    };
    if !unprocessed(&error) {
        return Sent::Done(Err(SendError::lost(failure.reason, failure.detail.unwrap_or_default())));
    }
    let body = match pump {
        None => Some(Body::empty()),
        Some(pump) => pump.untouched(),
    };
    Sent::Done(Err(match body {
        Some(body) => SendError::unsent(failure, Request::from_parts(head, body)),
        None => SendError {
            unprocessed: true,
            ..SendError::lost(failure.reason, failure.detail.unwrap_or_default())
        },
    }))
}

fn receive(
    response: Response<RecvStream>,
    exchange: Exchange,
    slot: Slot,
    endpoint: &Endpoint,
) -> Result<Response<Body>, SendError> {
    if response.headers().len() > MAX_HEADERS {
        let detail = format!("{} sent {} headers", endpoint.address, response.headers().len());
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
        if self.pump.as_ref().is_some_and(|pump| pump.done) && response.is_ok() {
            self.pump = None;
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
    /// Whether anything was taken from the body.
    begun: bool,
    done: bool,
}

impl Pump {
    fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, held: Bytes::new(), begun: false, done: false }
    }

    /// The body, if nothing was taken from it.
    fn untouched(self) -> Option<Body> {
        (!self.begun).then_some(self.body)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let result = ready!(self.advance(cx));
        self.done = true;
        Poll::Ready(result)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if self.held.has_remaining() {
                self.stream.reserve_capacity(self.held.len());
                while self.stream.capacity() == 0 {
                    match ready!(self.stream.poll_capacity(cx)) {
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Poll::Ready(Err(Broken::Stream(error))),
                        None => return Poll::Ready(Err(Broken::Stream(Code::STREAM_CLOSED.into()))),
                    }
                }
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
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.begun = true;
            match frame {
                None => {
                    self.stream.send_data(Bytes::new(), true).map_err(Broken::Stream)?;
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(Broken::Body(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.held = data;
                        if self.held.is_empty() && self.body.is_end_stream() {
                            self.stream.send_data(Bytes::new(), true).map_err(Broken::Stream)?;
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.stream.send_trailers(trailers).map_err(Broken::Stream)?;
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
            }
        }
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

/// Makes a head HTTP/2: all pseudo-headers, no connection-level fields (RFC 9113 §8.2.2, §8.3.1). Returns what is sent and a copy.
fn outgoing(mut head: http::request::Parts) -> (Request<()>, http::request::Parts) {
    head.version = Version::HTTP_2;
    for name in CONNECTION_LEVEL {
        head.headers.remove(name);
    }
    if head.headers.get(header::TE).is_some_and(|te| te != "trailers") {
        head.headers.remove(header::TE);
    }
    let host = head.headers.remove(header::HOST);
    if head.uri.authority().is_none() || head.uri.scheme().is_none() {
        head.uri = absolute(std::mem::take(&mut head.uri), host.as_ref(), head.method == Method::CONNECT);
    }
    let copy = head.clone();
    (Request::from_parts(head, ()), copy)
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
