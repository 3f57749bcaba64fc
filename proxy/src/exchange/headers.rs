//! The fields of a message's head that a proxy has to do with: those of one hop, and those that say who asked.
//!
//! After [`receive`] a request has one form: over HTTP/1 an origin-form target and `Host`, over HTTP/2 an authority in its target and no
//! `Host`. What a sidecar's app says of its own callers is passed on; a gateway says it itself, because its clients cannot be believed.

use std::fmt::Write;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Uri;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use outrigger_config::model::DestinationName;
use smallvec::SmallVec;

use super::{is_connect, is_http2};
use crate::body::Body;
use crate::downstream::Connection;
use crate::failure::{self, Failure, Reason};
use crate::field::Known;
use crate::policy::retry::ATTEMPT;
use crate::route::{self, Rewrite};
use crate::telemetry::{Direction, Record, RequestId, uuid};

/// Whom a request is addressed to, as it says itself.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a>(&'a str);

impl<'a> Authority<'a> {
    /// `HOST`, `HOST:PORT`, or nothing.
    pub fn parse(text: &'a str) -> Self {
        Self(text)
    }

    /// The target's authority, or else `Host`; empty where HTTP/1.0 names none.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let host = || request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Self(request.uri().authority().map_or_else(host, |authority| authority.as_str()))
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// What it names; `default` where it names no port. `None` where it is no host.
    pub fn destination(self, default: u16) -> Option<DestinationName> {
        let host = self.host();
        let at = host.as_ptr() as usize - self.0.as_ptr() as usize + host.len();
        let port = match &self.0[at..] {
            "" => default,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        DestinationName::new(host, port)
    }

    /// Without port.
    pub fn host(self) -> &'a str {
        let (mut end, mut is_port) = (self.0.len(), true);
        // From its end, letter by letter: it is short.
        for (at, byte) in self.0.bytes().enumerate().rev() {
            match byte {
                b'@' => return &self.0[at + 1..end],
                b':' if is_port => (end, is_port) = (at, false),
                // A colon within brackets is part of an IPv6 address.
                b']' => is_port = false,
                _ => {}
            }
        }
        &self.0[..end]
    }
}

/// Checks a request's head and makes it ours: fields of the client's hop go, forwarding fields come. Returns the protocols an
/// HTTP/1 client would like to upgrade to. `known` is what it has, and still is of those fields that are left.
pub fn receive(
    request: &mut Request<Body>,
    known: &mut Known,
    connection: &Connection,
    record: &mut Record,
) -> Result<Option<HeaderValue>, Failure> {
    if request.headers().len() > MAX_HEADERS {
        return Err(Reason::RequestHeadersTooLarge.into());
    }
    one_form(request)?;
    // Over HTTP/2 such fields are malformed, and its codec refuses them (RFC 9113 §8.2.2).
    let protocols =
        if is_http2(request.version()) { None } else { strip(request.headers_mut(), known, true) };
    if known.has(Known::EXPECT) {
        // The codec answers `100-continue` when the body is first read, which is when an endpoint was found for it.
        request.headers_mut().remove(EXPECT);
    }
    forwarded(request.headers_mut(), *known, connection);
    request_id(request.headers_mut(), *known, connection, record);
    Ok(protocols.filter(|_| request.version() == Version::HTTP_11))
}

/// A request says once whom it is for (RFC 9112 §3.2, RFC 9113 §8.3.1); only HTTP/1.0 may leave it out.
pub fn one_host(request: &Request<Body>, known: Known) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::new(Reason::BadRequest, why));
    if known.has(Known::HOSTS) {
        return refused("the request has two Hosts");
    }
    let named = known.has(Known::HOST) || request.uri().authority().is_some();
    if named || request.version() == Version::HTTP_10 { Ok(()) } else { refused("the request names no host") }
}

/// Over HTTP/2 `:authority` alone decides; over HTTP/1 an absolute-form target's authority replaces `Host`.
fn one_form(request: &mut Request<Body>) -> Result<(), Failure> {
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    if is_http2(request.version()) {
        request.headers_mut().remove(HOST);
        return Ok(());
    }
    if is_connect(request) {
        return Ok(());
    }
    let refused = |why: &str| Failure::new(Reason::BadRequest, why);
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| refused("its authority is no host"))?;
    request.headers_mut().insert(HOST, host);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = (None, None);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| refused("its target has no path"))?;
    Ok(())
}

/// Removes what concerns one hop only (RFC 9110 §7.6.1), and returns the protocols to upgrade to, of those that can be passed on. `known` is what
/// there is, before and after.
fn strip(headers: &mut HeaderMap, known: &mut Known, request: bool) -> Option<HeaderValue> {
    let mut upgrade = None;
    if known.has(Known::CONNECTION) {
        let mut named: SmallVec<[HeaderName; 4]> = SmallVec::new();
        let mut upgrades = false;
        for line in headers.get_all(CONNECTION) {
            for token in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                // What most of them say, and no name of a field that is not looked for below in any case.
                if token.eq_ignore_ascii_case(b"keep-alive") {
                    continue;
                }
                upgrades |= token.eq_ignore_ascii_case(b"upgrade");
                named.extend(HeaderName::from_bytes(token).ok().filter(may_be_named));
            }
        }
        if upgrades {
            upgrade = protocols(headers);
        }
        headers.remove(CONNECTION);
        if !named.is_empty() {
            for name in &named {
                headers.remove(name);
            }
            // Any of them may have been one of the others.
            *known = Known::of(headers);
        }
    }
    if known.has(Known::HOP) {
        for name in HOP {
            headers.remove(name);
        }
    }
    if known.has(Known::TE) {
        let trailers = request && headers.get_all(TE).iter().any(wants_trailers);
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    upgrade
}

/// A `Connection` field must not name what is meant for all hops; somebody who does would cut off a host, a length or what proxies say of him.
fn may_be_named(name: &HeaderName) -> bool {
    *name != HOST && *name != CONTENT_LENGTH && *name != TE && !name.as_str().starts_with("x-forwarded-")
}

fn wants_trailers(te: &HeaderValue) -> bool {
    te.as_bytes()
        .split(|byte| *byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// What is left of `Upgrade` without the HTTP and TLS versions clients offer on the side (RFC 9110 §7.8): between hops they mean
/// nothing, and a request must not fail for an offer.
fn protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(UPGRADE).iter();
    let (first, more) = (lines.next()?, lines.next());
    let ours = |token: &[u8]| {
        let name = token.split(|byte| *byte == b'/').next().unwrap_or_default();
        [&b"h2c"[..], b"h2", b"tls", b"http"].iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let tokens = |line: &HeaderValue| {
        let tokens = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tokens.filter(|token| !token.is_empty() && !ours(token)).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    if more.is_none() && !first.as_bytes().contains(&b',') {
        return (!ours(first.as_bytes().trim_ascii())).then(|| first.clone());
    }
    let kept = headers.get_all(UPGRADE).iter().flat_map(tokens).collect::<Vec<_>>();
    if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept.join(&b", "[..])).ok() }
}

/// What of a response concerns its hop only: its version (RFC 9110 §2.5), and some fields. A 101 keeps what it switched to. An app does not speak for
/// the proxy in front of it: what it says in `Proxy-Status` is marked as passed on. Returns what it had, and still has of those fields that are left.
pub fn strip_response(response: &mut Response<Body>, direction: Direction) -> Known {
    if response.version() == Version::HTTP_10 {
        *response.version_mut() = Version::HTTP_11;
    }
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = if switched { response.headers().get(UPGRADE).cloned() } else { None };
    let mut known = Known::of(response.headers());
    strip(response.headers_mut(), &mut known, false);
    if known.has(Known::PROXY_STATUS) && direction == Direction::Inbound {
        failure::forwarded(response.headers_mut());
    }
    if let Some(upgrade) = upgrade {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, upgrade);
    }
    known
}

/// What of an interim response concerns its hop only; it has no content.
pub fn strip_interim(headers: &mut HeaderMap) {
    let mut known = Known::of(headers);
    strip(headers, &mut known, false);
    headers.remove(CONTENT_LENGTH);
}

/// Puts the rule's host and path in place of the request's.
pub fn rewrite(request: &mut Request<Body>, rewrite: &Rewrite) -> Result<(), Failure> {
    if let Some(host) = &rewrite.host {
        if request.uri().authority().is_none() {
            request.headers_mut().insert(HOST, host.header.clone());
        } else {
            set_authority(request, host.authority.clone())?;
        }
    } else if request.uri().authority().is_some()
        && !is_connect(request)
        && let Some(host) = request.headers_mut().remove(HOST)
    {
        // A rule that sets the field `host` means the authority.
        let authority = http::uri::Authority::try_from(host.as_bytes())
            .map_err(|_| Failure::new(Reason::Internal, "the rule's Host is no authority"))?;
        set_authority(request, authority)?;
    }
    if let Some(path) = &rewrite.path {
        *request.uri_mut() = route::with_path(request.uri(), path)
            .map_err(|_| Failure::new(Reason::Internal, "the rewritten path cannot stand in a request"))?;
    }
    Ok(())
}

fn set_authority(request: &mut Request<Body>, authority: http::uri::Authority) -> Result<(), Failure> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts)
        .map_err(|_| Failure::new(Reason::Internal, "the rewritten host cannot stand in a request"))?;
    Ok(())
}

/// `x-forwarded-*`: who asked us, and how.
fn forwarded(headers: &mut HeaderMap, known: Known, connection: &Connection) {
    match connection.direction {
        // Callers can write what they want: the last address is the one that can be believed, the rest is theirs.
        Direction::Gateway => {
            match known.has(Known::FORWARDED_FOR).then(|| headers.get(&FORWARDED_FOR)).flatten() {
                None => headers.insert(FORWARDED_FOR, connection.client_address.clone()),
                Some(before) => {
                    let all = [before.as_bytes(), b", ", connection.client_address.as_bytes()].concat();
                    let all = HeaderValue::from_maybe_shared(bytes::Bytes::from(all));
                    headers.insert(FORWARDED_FOR, all.unwrap_or_else(|_| connection.client_address.clone()))
                }
            };
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static(connection.scheme()));
            if known.has(Known::CLIENT_CERTIFICATE | Known::ATTEMPT) {
                headers.remove(CLIENT_CERTIFICATE);
                headers.remove(&ATTEMPT);
            }
            if let Some(host) = headers.get(HOST).cloned() {
                headers.insert(FORWARDED_HOST, host);
            }
        }
        // The app sees our address, so it is told its caller's, unless somebody before us did.
        Direction::Inbound => {
            if !known.has(Known::FORWARDED_FOR) {
                headers.insert(FORWARDED_FOR, connection.client_address.clone());
            }
            proto_if_absent(headers, known, connection);
            // Only what was proven here is said of a caller, whatever it says of itself.
            match &connection.caller {
                Some(caller) => drop(headers.insert(CLIENT_CERTIFICATE, caller.forwarded.clone())),
                None if known.has(Known::CLIENT_CERTIFICATE) => drop(headers.remove(CLIENT_CERTIFICATE)),
                None => {}
            }
        }
        Direction::Outbound => proto_if_absent(headers, known, connection),
    }
}

fn proto_if_absent(headers: &mut HeaderMap, known: Known, connection: &Connection) {
    if !known.has(Known::FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(connection.scheme()));
    }
}

/// Keeps the request's id, if it is one; else makes one (a version 4 UUID, RFC 9562 §5.4).
fn request_id(headers: &mut HeaderMap, known: Known, connection: &Connection, record: &mut Record) {
    if known.has(Known::REQUEST_ID)
        && let Some(id) = headers.get(&REQUEST_ID)
        && (1..=LONGEST_REQUEST_ID).contains(&id.len())
    {
        return;
    }
    let random: u128 = connection.worker.with_rng(rand::RngExt::random);
    let id = random & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    record.request_id(|| RequestId::Made(id));
    headers.insert(REQUEST_ID, HeaderValue::from_bytes(&uuid(id)).expect("hexadecimal digits and dashes"));
}

/// The id a request came with, for a line about it.
pub fn note_request_id(request: &Request<Body>, known: Known, record: &mut Record) {
    if known.has(Known::REQUEST_ID)
        && let Some(id) = request.headers().get(&REQUEST_ID)
    {
        record.request_id(|| RequestId::Received(id.clone()));
    }
}

/// An address as it stands in `x-forwarded-for`; made once a connection.
pub fn address_value(address: std::net::IpAddr) -> HeaderValue {
    let mut text = String::new();
    let _ = write!(text, "{}", address.to_canonical());
    HeaderValue::try_from(text).expect("addresses are ASCII")
}

/// The same on all four hops (design.md section 5).
pub const MAX_HEADERS: usize = 128;

/// Bytes; a longer one is replaced, so that a log line has a bound.
const LONGEST_REQUEST_ID: usize = 128;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Envoy's: who called, as its certificate says.
const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `Trailer` is not among them: it announces fields that go on with the body.
const HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
];
