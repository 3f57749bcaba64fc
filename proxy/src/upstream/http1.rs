//! One HTTP/1 connection to an endpoint, and the body of a response that is coming over it.
//!
//! A connection carries one exchange at a time. It is used again only if the response ended where it said it would and the request
//! was sent whole; otherwise it is closed. Which connection is used again is decided in `pool`.

use std::cell::RefCell;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::caps::Place;
use super::circuit::Circuit;
use super::connect::{self, Transport};
use super::pool::Home;
use super::{Endpoint, SendError};
use crate::body::{Body, BodyError};
use crate::failure::{Failure, Reason};
use crate::field;
use crate::identity::is_refusal;
use crate::upgrade::Upgrade;

/// A connection. Boxed, once in its life, so that the bodies that hold one are small.
#[derive(Debug)]
pub(super) struct Http1(Box<Connection>);

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Body>,
    io: SharedIo,
    /// Where it is kept between exchanges.
    home: Home,
    /// Exchanges it carried to their end.
    carried: u32,
    /// How many it may carry.
    most: u32,
    /// Of the exchange it carries, where these are counted.
    place: Option<Place>,
    /// The socket, when the codec is done with it: after a 101.
    released: oneshot::Receiver<Released>,
    driver: AbortHandle,
    /// Of the exchange it carries: whether the request had no body, so that it was sent whole with its head.
    bodiless: bool,
    /// Of the exchange it carries: how long it is kept after that.
    keep: Duration,
}

/// The transport and what was read of it but not used.
pub(crate) type Released = (SharedIo, Bytes);

impl Http1 {
    pub(super) async fn over(transport: Transport, home: Home, most: u32) -> Result<Self, Failure> {
        let io = SharedIo(Rc::new(RefCell::new(transport)));
        let (sender, mut connection) = connect::http1()
            .handshake(TokioIo::new(io.clone()))
            .await
            .map_err(|error| Failure::new(Reason::Internal, format!("HTTP/1 did not start: {error}")))?;
        let (release, released) = oneshot::channel();
        let driver = tokio::task::spawn_local(async move {
            if let Err(error) = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await {
                tracing::debug!(%error, "an upstream connection ended");
            }
            let parts = connection.into_parts();
            if let Err((mut io, _)) = release.send((parts.io.into_inner(), parts.read_buf)) {
                // Nobody is left: say goodbye in the transport's own words.
                let _ = io.shutdown().await;
            }
        });
        Ok(Self(Box::new(Connection {
            sender,
            io,
            home,
            carried: 0,
            most,
            place: None,
            released,
            driver: driver.abort_handle(),
            bodiless: false,
            keep: Duration::ZERO,
        })))
    }

    /// Whether it can take a request, as far as is known without asking the kernel.
    pub(super) fn is_ready(&self) -> bool {
        self.0.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.sender.is_closed()
    }

    /// It was used again before: the endpoint does keep connections.
    pub(super) fn is_proven(&self) -> bool {
        self.0.carried > 1
    }

    /// It carries an exchange from now on, that has this place.
    pub(super) fn occupy(&mut self, place: Option<Place>) {
        self.0.place = place;
    }

    /// Whether it counts towards the caps of `circuit`.
    pub(super) fn is_of(&self, circuit: &Arc<Circuit>) -> bool {
        self.0.home.circuit.as_ref().is_some_and(|own| Arc::ptr_eq(own, circuit))
    }

    /// See [`Transport::is_quiet`].
    pub(super) fn is_quiet(&self) -> bool {
        self.0.io.0.borrow().is_quiet()
    }

    /// Sends `request` and waits for its response's headers. An unsent request comes back.
    ///
    /// `idle_timeout`: how long the connection is kept afterwards, unless the endpoint closes it earlier.
    pub(super) async fn send(
        mut self,
        request: Box<Request<Body>>,
        idle_timeout: Duration,
        endpoint: &Endpoint,
    ) -> Result<Response<Body>, SendError> {
        let connection = &mut *self.0;
        let connect = request.method() == Method::CONNECT;
        connection.bodiless = request.body().is_end_stream();
        let response = match connection.sender.try_send_request(*request).await {
            Ok(response) => response,
            Err(error) => return Err(failed(error, endpoint, connection.carried > 0)),
        };
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success()) {
            let (mut head, _) = response.into_parts();
            // The tunnel is ours; hyper's promise of one would never be kept.
            head.extensions.remove::<hyper::upgrade::OnUpgrade>();
            return Ok(Response::from_parts(head, Body::upgrade(Upgrade::released(self.0.released))));
        }
        connection.keep = match keep_alive(response.headers()) {
            // What we send in its last moment would cross its FIN.
            Some(announced) => {
                idle_timeout.min(announced.saturating_sub(Duration::from_secs(1)).max(announced / 2))
            }
            None => idle_timeout,
        };
        Ok(response.map(|incoming| {
            if incoming.is_end_stream() {
                self.give_back();
                return Body::empty();
            }
            Body::http1(Received { incoming, connection: Some(self) })
        }))
    }

    /// After the response's end. With the request's body still on its way the connection is of no use and is closed: that also
    /// stops the body (the endpoint answered without reading it).
    fn give_back(mut self) {
        if !self.0.bodiless && !self.is_ready() {
            return self.abort();
        }
        self.0.carried = self.0.carried.saturating_add(1);
        if !self.is_closed() && !self.0.keep.is_zero() && self.0.carried < self.0.most {
            let (home, keep, place) = (self.0.home.clone(), self.0.keep, self.0.place.take());
            home.keep(self, keep);
            // Whoever waits for it finds the connection.
            drop(place);
        }
    }

    /// Ends the connection where it is. Dropping it is not enough: the codec goes on with a request's body, wanted or not.
    fn abort(self) {
        self.0.driver.abort();
    }
}

/// The body of a response. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(crate) struct Received {
    incoming: Incoming,
    /// Until the end.
    connection: Option<Http1>,
}

impl Received {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            None => self.finish(),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.finish(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.abort(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Codec)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn abort(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.abort();
        }
    }

    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.give_back();
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Makes a request HTTP/1.1: origin-form with `Host`, but for CONNECT (RFC 9112 §3.2).
pub(super) fn frame(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    if !request.headers().contains_key(HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    join_cookies(request.headers_mut());
    if request.method() == Method::CONNECT || request.uri().authority().is_none() {
        return;
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = (None, None);
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// The request once more, where it may be sent twice without harm and has no body (RFC 9110 §9.2.1).
pub(super) fn safe_copy(request: &Request<Body>) -> Option<Box<Request<Body>>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(Box::new(copy))
}

/// HTTP/2 clients may send each cookie as a field of its own; HTTP/1 wants one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined = {
        let cookies: SmallVec<[&[u8]; 8]> =
            headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        Bytes::from(cookies.join(&b"; "[..]))
    };
    if let Ok(one) = HeaderValue::from_maybe_shared(joined) {
        headers.insert(COOKIE, one);
    }
}

/// `Keep-Alive: timeout=5`, as Node and others announce it.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let value = field::find(headers, "keep-alive")?.to_str().ok()?;
    value.split(',').find_map(|part| {
        let seconds = part.trim().strip_prefix("timeout=")?.trim_matches('"').parse().ok()?;
        Some(Duration::from_secs(seconds))
    })
}

fn reason(error: &hyper::Error) -> Reason {
    if error.is_parse_too_large() {
        Reason::ResponseHeadersTooLarge
    } else if error.is_parse() {
        Reason::UpstreamProtocolError
    } else if is_refusal(error) {
        Reason::UpstreamTlsFailed
    } else if let Some(body) = error.source().and_then(|source| source.downcast_ref::<BodyError>()) {
        body.reason()
    } else {
        Reason::UpstreamReset
    }
}

#[cold]
fn failed(mut error: TrySendError<Request<Body>>, endpoint: &Endpoint, reused: bool) -> SendError {
    let unsent = error.take_message();
    let error = error.into_error();
    let connection = if reused { "a reused" } else { "a new" };
    let mut detail = format!("{} on {connection} connection: {error}", endpoint.address);
    if let Some(source) = error.source() {
        detail.push_str(": ");
        detail.push_str(&source.to_string());
    }
    match unsent {
        Some(request) => SendError::unsent(Failure::new(reason(&error), detail), Box::new(request)),
        None => SendError::lost(reason(&error), detail),
    }
}

/// The transport, shared by the codec that drives it and the pool that asks whether it is still open.
/// Never borrowed across an await.
#[derive(Clone, Debug)]
pub(crate) struct SharedIo(pub(crate) Rc<RefCell<Transport>>);

impl AsyncRead for SharedIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}
