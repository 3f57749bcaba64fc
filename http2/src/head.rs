//! Heads: from the fields of a block to `http`'s, and back (RFC 9113 §8.2, §8.3).
//!
//! Owns which fields make a message malformed. Never decodes or encodes a field.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, uri};

use crate::hpack::{Block, Field};

/// The protocol of an extended CONNECT (RFC 8441 §4), as an extension of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(pub Bytes);

/// What a block said so far.
#[derive(Debug, Default)]
pub struct Fields {
    method: Option<Method>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<StatusCode>,
    pub headers: HeaderMap,
    malformed: bool,
}

impl Fields {
    pub fn take(&mut self, field: Field) {
        fn once<T>(place: &mut Option<T>, value: T) -> bool {
            place.replace(value).is_none()
        }
        // Pseudo-header fields come before all others, each once (§8.3).
        let early = self.headers.is_empty();
        self.malformed |= !match field {
            Field::Header(name, value) => {
                let fits = may_stand(&name, &value);
                self.headers.try_append(name, value).is_ok() && fits
            }
            Field::Method(method) => once(&mut self.method, method) && early,
            Field::Scheme(scheme) => once(&mut self.scheme, scheme) && early,
            Field::Authority(authority) => once(&mut self.authority, authority) && early,
            Field::Path(path) => once(&mut self.path, path) && early,
            Field::Protocol(protocol) => once(&mut self.protocol, protocol) && early,
            Field::Status(status) => once(&mut self.status, status) && early,
            Field::Malformed(_) => false,
        };
    }

    /// `None`: it is malformed (§8.1.1).
    pub fn request(self) -> Option<Request<()>> {
        if self.malformed || self.status.is_some() {
            return None;
        }
        let method = self.method?;
        let connect = method == Method::CONNECT;
        let extended = self.protocol.is_some();
        if extended && !connect {
            return None;
        }
        // A plain CONNECT has neither scheme nor path, everything else both (§8.3.1, §8.5).
        let plain = connect && !extended;
        if self.scheme.is_none() != plain || self.path.is_none() != plain {
            return None;
        }
        let mut parts = uri::Parts::default();
        if let Some(authority) = self.authority {
            parts.authority = Some(Authority::from_maybe_shared(authority).ok()?);
        }
        if let Some(scheme) = self.scheme {
            let scheme = match &scheme[..] {
                b"http" => Scheme::HTTP,
                b"https" => Scheme::HTTPS,
                other => Scheme::try_from(other).ok()?,
            };
            // A URI cannot hold it alone; it means nothing without an authority.
            if parts.authority.is_some() {
                parts.scheme = Some(scheme);
            }
        }
        if let Some(path) = self.path {
            // A path, or the asterisk of OPTIONS (§8.3.1); a fragment is the client's own.
            let fits = path.first() == Some(&b'/') || (method == Method::OPTIONS && path == "*");
            if !fits || path.contains(&b'#') {
                return None;
            }
            parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).ok()?);
        }
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        if let Some(protocol) = self.protocol {
            request.extensions_mut().insert(Protocol(protocol));
        }
        Some(request)
    }

    /// `None`: it is malformed.
    pub fn response(self) -> Option<Response<()>> {
        if self.malformed || self.is_request() {
            return None;
        }
        let status = self.status?;
        // There is nothing to switch to (§8.6).
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = self.headers;
        Some(response)
    }

    /// `None`: they are malformed.
    pub fn trailers(self) -> Option<HeaderMap> {
        (!self.malformed && !self.is_request() && self.status.is_none()).then_some(self.headers)
    }

    fn is_request(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some()
    }
}

/// Bytes of the body that a head announces. `Err`: it contradicts itself.
pub fn length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let text = value.as_bytes();
        if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
            return Err(());
        }
        let length = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).ok_or(())?;
        if found.is_some_and(|found| found != length) {
            return Err(());
        }
        found = Some(length);
    }
    Ok(found)
}

pub fn write_request(
    block: &mut Block<'_>,
    method: &Method,
    uri: &Uri,
    protocol: Option<&[u8]>,
    headers: &HeaderMap,
) {
    block.method(method);
    if *method != Method::CONNECT || protocol.is_some() {
        block.scheme(uri.scheme_str().unwrap_or("http"));
        let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
        block.path(if path.is_empty() { b"/" } else { path.as_bytes() });
    }
    if let Some(authority) = uri.authority() {
        block.authority(authority.as_str().as_bytes());
    }
    if let Some(protocol) = protocol {
        block.protocol(protocol);
    }
    write_fields(block, headers);
}

pub fn write_response(block: &mut Block<'_>, status: StatusCode, headers: &HeaderMap) {
    block.status(status);
    write_fields(block, headers);
}

pub fn write_fields(block: &mut Block<'_>, headers: &HeaderMap) {
    for (name, value) in headers {
        // What a message brought along from HTTP/1 means nothing here (§8.2.2).
        if may_stand(name, value) {
            block.header(name, value);
        }
    }
}

/// Whether HTTP/2 has such a field: fields of a connection mean nothing in it (§8.2.2).
fn may_stand(name: &HeaderName, value: &HeaderValue) -> bool {
    if *name == header::TE {
        return value == "trailers";
    }
    *name != header::CONNECTION
        && *name != header::TRANSFER_ENCODING
        && *name != header::UPGRADE
        && *name != KEEP_ALIVE
        && *name != PROXY_CONNECTION
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
