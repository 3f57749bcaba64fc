//! Heads as HTTP/2 wants them.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Uri, Version, uri};

/// Fields and their size as RFC 9113 §6.5.2 counts it.
pub(super) fn size(headers: &HeaderMap) -> (usize, usize) {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    (headers.len(), bytes)
}

/// Makes a head HTTP/2: all pseudo-headers, no connection-level fields (RFC 9113 §8.2.2, §8.3.1).
///
/// Returns what is sent, and a copy: a stream may be refused or cut off by a GOAWAY after it was sent, which is an everyday event, and
/// its request is then sent elsewhere. This copy is the one allocation of an HTTP/2 request that HTTP/1 does not make.
pub(super) fn outgoing(mut head: Parts) -> (Request<()>, Parts) {
    let protocol = head.extensions.get::<hyper::ext::Protocol>();
    let protocol = protocol.map(|protocol| h2::ext::Protocol::from(protocol.as_str()));
    head.version = Version::HTTP_2;
    if head.headers.keys().any(|name| CONNECTION_LEVEL.contains(&name.as_str())) {
        for name in CONNECTION_LEVEL {
            head.headers.remove(name);
        }
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

const CONNECTION_LEVEL: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
