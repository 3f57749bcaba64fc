//! Which protocol a client speaks, told from its first bytes.
//!
//! Owns the judgement of bytes; reading them, waiting for them and what follows from silence are `sniff.rs`.

use super::client_hello::{self, Hello};
use crate::identity::Offered;

/// RFC 9113 §3.4.
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    Http2,
    Tls {
        sni: Option<std::sync::Arc<str>>,
        /// Protocols to speak inside.
        offered: Offered,
    },
    /// None of these.
    Opaque,
}

/// What is told from the first bytes; `None` while they could still be several things.
pub fn spoken(bytes: &[u8]) -> Option<Spoken> {
    if bytes.is_empty() {
        return None;
    }
    if client_hello::looks_like_tls(bytes) {
        return match client_hello::parse(bytes) {
            Hello::Incomplete => None,
            Hello::Complete { sni, offered } => Some(Spoken::Tls { sni, offered }),
            Hello::Invalid => Some(Spoken::Opaque),
        };
    }
    if bytes == [22] {
        return None;
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Some(Spoken::Http2);
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return None;
    }
    http1(bytes)
}

/// A known method, a space and what a request target begins with (RFC 9112 §3.2). The target is looked at because line protocols
/// (Redis' inline commands, memcached's text) have commands named like methods.
fn http1(bytes: &[u8]) -> Option<Spoken> {
    let Some(space) = bytes.iter().take(LONGEST_METHOD + 1).position(|byte| *byte == b' ') else {
        let maybe = METHODS.iter().any(|method| method.as_bytes().starts_with(bytes));
        return if maybe { None } else { Some(Spoken::Opaque) };
    };
    let (method, target) = (&bytes[..space], &bytes[space + 1..]);
    if !METHODS.iter().any(|known| known.as_bytes() == method) {
        return Some(Spoken::Opaque);
    }
    let first = target.first()?;
    let fits = match method {
        b"CONNECT" => first.is_ascii_alphanumeric() || *first == b'[',
        _ => matches!(first, b'/' | b'*') || starts_absolute(target),
    };
    Some(if fits { Spoken::Http1 } else { Spoken::Opaque })
}

/// `http://` and `https://`, as far as it is there.
fn starts_absolute(target: &[u8]) -> bool {
    [&b"http://"[..], b"https://"].iter().any(|scheme| {
        let shared = target.len().min(scheme.len());
        target[..shared].eq_ignore_ascii_case(&scheme[..shared])
    })
}

/// RFC 9110 §9, RFC 5789, and WebDAV (RFC 4918, 3253, 3744, 5323), which speaks HTTP on undeclared ports, too.
const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "ACL",
];
const LONGEST_METHOD: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_told_from_its_first_bytes() {
        let http1 = Some(Spoken::Http1);
        let http2 = Some(Spoken::Http2);
        let opaque = Some(Spoken::Opaque);
        for (bytes, want) in [
            (&b""[..], None),
            (b"G", None),
            (b"GET", None),
            (b"GET ", None),
            (b"GET /", http1.clone()),
            (b"PROPPATCH /a", http1.clone()),
            (b"OPTIONS * HTTP/1.1", http1.clone()),
            (b"GET http://reviews:9080/ HTTP/1.1", http1.clone()),
            (b"CONNECT reviews:9080 HTTP/1.1", http1.clone()),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n", None),
            (HTTP2_PREFACE, http2),
            (b"PRI * HTTP/1.1\r\n", opaque.clone()),
            (b"GET key\r\n", opaque.clone()), // an inline command of Redis
            (b"get key\r\n", opaque.clone()), // memcached
            (b"SET a b\r\n", opaque.clone()),
            (b"*1\r\n$4\r\nPING\r\n", opaque.clone()),
            (b"GETTING /", opaque.clone()),
            (b"\x16", None),
            (b"\x16\x03", None),
            (b"\x16\x04", opaque.clone()),
            (b"\0\0\0\x08", opaque),
        ] {
            assert_eq!(spoken(bytes), want, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn the_longest_method_is_known() {
        assert_eq!(METHODS.iter().map(|method| method.len()).max(), Some(LONGEST_METHOD));
    }
}
