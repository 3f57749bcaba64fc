//! One HTTP/1 connection to an endpoint, and the body of a response that is coming over it.
//!
//! A connection carries one exchange at a time. It is used again only if the response ended where it said it would and the request
//! was sent whole; otherwise it is closed. Which connection is used again is decided in `pool`.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use outrigger_http1::client::{self, Unsent, Why};
use outrigger_http1::{Incoming, Spare};
use smallvec::SmallVec;

use super::caps::Place;
use super::circuit::Circuit;
use super::connect::{self, Transport};
use super::lent::Lent;
use super::pool::{Home, RISKY};
use super::{Blame, Endpoint, SendError};
use crate::body::{Body, BodyError};
use crate::bytestream::is_unprocessed;
use crate::downstream::Interim;
use crate::failure::{Failure, Reason};
use crate::field;
use crate::identity::is_refusal;
use crate::policy::deadline::Told;
use crate::upgrade::Upgrade;

/// A connection. Boxed, once in its life, so that the bodies that hold one are small.
#[derive(Debug)]
pub(super) struct Http1(Box<Connection>);

#[derive(Debug)]
struct Connection {
    codec: client::Connection<Transport>,
    /// Where it is kept between exchanges.
    home: Home,
    /// Exchanges it carried to their end.
    carried: u32,
    /// How many it may carry.
    most: u32,
    /// Of the exchange it carries, where these are counted.
    place: Option<Place>,
    /// Of the exchange it carries: how long it is kept after that.
    keep: Duration,
}

impl Http1 {
    pub(super) fn over(transport: Transport, spare: Rc<Spare>, home: Home, most: u32) -> Self {
        let codec = client::Connection::new(transport, spare, connect::HTTP1);
        Self(Box::new(Connection { codec, home, carried: 0, most, place: None, keep: Duration::ZERO }))
    }

    /// Whether it can take a request, as far as is known without asking the kernel.
    pub(super) fn is_open(&self) -> bool {
        self.0.codec.is_open()
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
        self.0.codec.with_io(|io| io.is_quiet()).unwrap_or(false)
    }

    /// Sends `request`, `told` behind its fields, and waits for its response's headers. An unsent request comes back.
    ///
    /// `rested`: how long it was idle, if it was used before. `idle_timeout`: how long it is kept afterwards, unless the endpoint closes it earlier.
    pub(super) async fn send(
        mut self,
        request: Lent<'_>,
        told: Option<&Told>,
        rested: Option<Duration>,
        idle_timeout: Duration,
        endpoint: &Endpoint,
        interim: Option<&Interim>,
    ) -> Result<Response<Body>, SendError> {
        let connection = &mut *self.0;
        let returned = request.returned();
        let pass = |response| {
            if let Some(interim) = interim {
                interim.pass(response);
            }
        };
        let more = told.map_or(b"" as &[u8], Told::line);
        let answer = match connection.codec.send(request.take(), more, returned, &pass).await {
            Ok(answer) => answer,
            Err(failed) => return Err(self::failed(failed, endpoint, rested)),
        };
        let response = answer.response;
        if answer.tunnel {
            let (head, _) = response.into_parts();
            let tunnel = match connection.codec.take() {
                Some((io, unread)) => Body::upgrade(Upgrade::socket(Box::new(io), unread)),
                None => Body::empty(),
            };
            return Ok(Response::from_parts(head, tunnel));
        }
        if let Some(rest) = answer.rest {
            // Seldom: it answered before it was told everything, and both go on for as long as they like.
            tokio::task::spawn_local(rest);
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
        if !self.0.codec.is_reusable() {
            return self.abort();
        }
        self.0.carried = self.0.carried.saturating_add(1);
        if !self.0.keep.is_zero() && self.0.carried < self.0.most {
            let (home, keep, place) = (self.0.home.clone(), self.0.keep, self.0.place.take());
            home.keep(self, keep);
            // Whoever waits for it finds the connection.
            drop(place);
        }
    }

    /// Ends the connection where it is, for all who use it.
    fn abort(self) {
        drop(self.0.codec.take());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.codec.with_io(Transport::say_goodbye);
    }
}

/// The body of a response. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(crate) struct Received {
    incoming: Incoming<Transport>,
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
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Http1)))
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
    if let Some(authority) = request.uri().authority()
        && !request.headers().contains_key(HOST)
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

fn reason(why: &Why<BodyError>) -> Reason {
    match why {
        Why::Io(error) if is_refusal(error) => Reason::UpstreamTlsFailed,
        Why::Io(_) | Why::Closed | Why::Incomplete => Reason::UpstreamReset,
        Why::Refused(refusal) if refusal.is_too_large() => Reason::ResponseHeadersTooLarge,
        Why::Refused(_) => Reason::UpstreamProtocolError,
        Why::Body(error) => error.reason(),
        Why::Length => Reason::Internal,
    }
}

#[cold]
fn failed(failed: client::Failed<Body>, endpoint: &Endpoint, rested: Option<Duration>) -> SendError {
    let client::Failed { why, begun, unsent } = failed;
    let connection = if rested.is_some() { "a reused" } else { "a new" };
    let what: &dyn std::fmt::Display = match &why {
        Why::Io(error) => error,
        Why::Closed => &"it was closed before an answer",
        Why::Incomplete => &"it was closed within the answer's head",
        Why::Refused(refusal) => refusal,
        Why::Body(error) => error,
        Why::Length => &"the request's body is not as long as its head says",
    };
    let detail = format!("{} on {connection} connection: {what}", endpoint.address);
    let reason = reason(&why);
    let blame = match rested {
        _ if reason != Reason::UpstreamReset => Blame::Reason,
        None if !begun => Blame::Unreached,
        Some(_) if !begun => Blame::Nothing,
        // The end of an idle connection crossed the request. A reset would be none of that: who closes in an orderly way says so first (RFC 9293 §3.6).
        Some(rested) if rested >= RISKY && matches!(why, Why::Closed) => Blame::Nothing,
        _ => Blame::Reason,
    };
    let refused = matches!(&why, Why::Io(error) if is_unprocessed(error));
    if refused && begun {
        return SendError { unprocessed: true, blame: Blame::Nothing, ..SendError::lost(reason, detail) };
    }
    // A body that failed will not do better over another connection.
    let may_be_sent = !matches!(why, Why::Body(_) | Why::Length);
    match unsent.filter(|_| may_be_sent) {
        Some(unsent) => {
            let error = SendError::unsent(Failure::new(reason, detail), Box::new(whole(unsent)));
            SendError { blame, ..error }
        }
        None => SendError { unprocessed: !begun, blame, ..SendError::lost(reason, detail) },
    }
}

/// The request as it was, with what was taken of its body before the rest.
fn whole(unsent: Unsent<Body>) -> Request<Body> {
    let Unsent { request, taken } = unsent;
    request.map(|rest| rest.behind(taken.into_iter().map(Frame::data).collect()))
}
