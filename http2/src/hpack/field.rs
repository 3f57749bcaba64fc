//! One field of a message as HPACK carries it, and what its name may be.
//!
//! Never says whether a message may have a field: which pseudo-header fields a request wants, in which order, and what a path may hold is
//! for the reader of the block.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::names;

/// A field as it left the decoder.
///
/// `Authority`, `Path`, `Protocol` and `Scheme` hold the bytes that came, whatever they are: who makes a URI of them checks them then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Authority(Bytes),
    Method(Method),
    Path(Bytes),
    /// Of an extended CONNECT (RFC 8441 §4).
    Protocol(Bytes),
    Scheme(Bytes),
    Status(StatusCode),
    /// Valid, as to RFC 9113 §8.2.1. A value whose sender wants it in no table (RFC 7541 §6.2.3) is marked as sensitive.
    Header(HeaderName, HeaderValue),
    /// Its name is no field name or an unknown pseudo-header field's ([`Name::Invalid`]), or its value is not one that this name may have.
    /// The message is malformed and its stream ends (RFC 9113 §8.1.1); the connection does not.
    Malformed(Name),
}

/// The name of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Authority,
    Method,
    Path,
    Protocol,
    Scheme,
    Status,
    Header(HeaderName),
    /// Upper case, a byte that no name has, or a pseudo-header field that nobody defined.
    Invalid,
}

impl Field {
    pub fn name(&self) -> Name {
        match self {
            Self::Authority(_) => Name::Authority,
            Self::Method(_) => Name::Method,
            Self::Path(_) => Name::Path,
            Self::Protocol(_) => Name::Protocol,
            Self::Scheme(_) => Name::Scheme,
            Self::Status(_) => Name::Status,
            Self::Header(name, _) => Name::Header(name.clone()),
            Self::Malformed(name) => name.clone(),
        }
    }
}

impl Name {
    pub fn parse(name: &[u8]) -> Self {
        match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            _ => match names::known(name) {
                Some(name) => Self::Header(name),
                None => HeaderName::from_lowercase(name).map_or(Self::Invalid, Self::Header),
            },
        }
    }
}

/// A header field, if `value` may be one's: no control characters, and no white space around it (RFC 9113 §8.2.1).
pub fn header(name: HeaderName, value: Bytes, sensitive: bool) -> Field {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if blank(value.first()) || blank(value.last()) {
        return Field::Malformed(Name::Header(name));
    }
    match HeaderValue::from_maybe_shared(value) {
        Ok(mut value) => {
            value.set_sensitive(sensitive);
            Field::Header(name, value)
        }
        Err(_) => Field::Malformed(Name::Header(name)),
    }
}

/// What a field counts in a table and against a limit beyond its bytes (RFC 7541 §4.1, RFC 9113 §10.5.1).
pub const OVERHEAD: usize = 32;
