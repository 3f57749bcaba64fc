//! Heads as HTTP/2 wants them.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Uri, Version, uri};

/// Fields and their size as RFC 9113 §6.5.2 counts it.
pub(super) fn size(headers: &HeaderMap) -> (usize, usize) {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    (headers.len(), bytes)
}

/// Makes a head HTTP/2: it has all pseudo-header fields (RFC 9113 §8.3.1). Fields of a connection the codec leaves out.
pub(super) fn make(head: &mut Parts) {
    head.version = Version::HTTP_2;
    let host = head.headers.remove(header::HOST);
    if head.uri.authority().is_none() || (head.uri.scheme().is_none() && head.method != Method::CONNECT) {
        head.uri = absolute(std::mem::take(&mut head.uri), host.as_ref(), head.method == Method::CONNECT);
    }
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
