//! One HTTP/1 connection to an endpoint, and the body of a response that is coming over it.
//!
//! A connection carries one exchange at a time. It is used again only if the response ended where it said it would and the request
//! was sent whole; otherwise it is closed. Which connection is used again is decided in `pool`.

use std::cell::RefCell;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::connect::{self, Transport};
use super::pool::Reuse;
use super::{Endpoint, SendError};
use crate::body::{Body, BodyError};
use crate::failure::{Failure, Reason};
use crate::upgrade::Upgrade;

/// A connection nobody is using.
#[derive(Debug)]
pub(super) struct Http1 {
    sender: SendRequest<Body>,
    io: SharedIo,
    /// It was used again before: the endpoint does keep connections.
    proven: bool,
    /// The socket, when the codec is done with it: after a 101.
    released: oneshot::Receiver<Released>,
    driver: AbortHandle,
}

/// The transport and what was read of it but not used.
pub(crate) type Released = (SharedIo, Bytes);

impl Http1 {
    pub(super) async fn over(transport: Transport) -> Result<Self, Failure> {
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
        Ok(Self { sender, io, proven: false, released, driver: driver.abort_handle() })
    }

    /// Whether it can take a request, as far as is known without asking the kernel.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// See [`Transport::is_quiet`].
    pub(super) fn is_quiet(&self) -> bool {
        self.io.0.borrow().is_quiet()
    }

    /// Sends `request` and waits for its response's headers. An unsent request comes back.
    pub(super) async fn send(
        mut self,
        request: Request<Body>,
        reuse: Reuse,
        endpoint: &Endpoint,
    ) -> Result<Response<Body>, SendError> {
        let connect = request.method() == Method::CONNECT;
        let bodiless = request.body().is_end_stream();
        let response = match self.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message();
                let error = error.into_error();
                let (reason, detail) = (reason(&error), describe(&error, endpoint, reuse.is_reused()));
                return Err(match unsent {
                    Some(request) => SendError::unsent(Failure::new(reason, detail), request),
                    None => SendError::lost(reason, detail),
                });
            }
        };
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success()) {
            let (mut head, _) = response.into_parts();
            // The tunnel is ours; hyper's promise of one would never be kept.
            head.extensions.remove::<hyper::upgrade::OnUpgrade>();
            return Ok(Response::from_parts(head, Body::upgrade(Upgrade::released(self.released))));
        }
        self.proven = reuse.is_reused();
        let keep = keep_alive(response.headers());
        Ok(response.map(|incoming| {
            let lease = Lease { connection: self, reuse, keep, bodiless };
            if incoming.is_end_stream() {
                lease.give_back();
                return Body::empty();
            }
            Body::http1(Received { incoming, lease: Some(lease) })
        }))
    }
}

/// A connection that is carrying a response's body, and where it goes when that ended.
#[derive(Debug)]
struct Lease {
    connection: Http1,
    reuse: Reuse,
    /// How long the endpoint said it keeps the connection.
    keep: Option<Duration>,
    /// Whether the request had no body, so that it was sent whole with its head.
    bodiless: bool,
}

impl Lease {
    /// Ends the connection where it is. Dropping its parts is not enough: the codec goes on with a request's body, wanted or not.
    fn abort(self) {
        self.connection.driver.abort();
    }

    /// After the response's end. With the request's body still on its way the connection is of no use and is closed: that also
    /// stops the body (the endpoint answered without reading it).
    fn give_back(self) {
        let sent = self.bodiless || self.connection.is_ready();
        if !sent {
            self.abort();
        } else if !self.connection.is_closed() {
            self.reuse.keep(self.connection, self.keep);
        }
    }
}

/// The body of a response. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(crate) struct Received {
    incoming: Incoming,
    lease: Option<Lease>,
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
        if let Some(lease) = self.lease.take() {
            lease.abort();
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
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
    if request.method() == Method::CONNECT || request.uri().authority().is_none() {
        return;
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = (None, None);
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// `Keep-Alive: timeout=5`, as Node and others announce it.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("keep-alive")?.to_str().ok()?;
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
    } else if let Some(body) = error.source().and_then(|source| source.downcast_ref::<BodyError>()) {
        body.reason()
    } else {
        Reason::UpstreamReset
    }
}

fn describe(error: &hyper::Error, endpoint: &Endpoint, reused: bool) -> String {
    let connection = if reused { "a reused" } else { "a new" };
    let mut text = format!("{} on {connection} connection: {error}", endpoint.address);
    if let Some(source) = error.source() {
        text.push_str(": ");
        text.push_str(&source.to_string());
    }
    text
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
