//! Heads: bytes to requests and responses. Pure.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use httparse::{Error, Status};
use smallvec::SmallVec;

use crate::Limits;
use crate::framing::{Coding, Framing, Said, To};
use crate::input::Input;
use crate::refusal::Refusal;
use crate::spare::Spare;
use crate::spelling::{Range, Spelling};

/// The most fields any limit may allow.
pub(crate) const MOST_FIELDS: usize = 128;

pub(crate) struct RequestHead {
    pub request: Request<()>,
    pub framing: Framing,
    pub said: Said,
    pub http10: bool,
}

pub(crate) struct ResponseHead {
    pub response: Response<()>,
    pub framing: Framing,
    /// Another exchange may follow.
    pub keeps: bool,
}

/// The head `input` begins with, once it is there whole.
pub(crate) fn request(
    input: &mut Input,
    limits: &Limits,
    spare: &Spare,
) -> Result<Option<RequestHead>, Refusal> {
    if !may_be_whole(input, limits)? {
        return Ok(None);
    }
    let bytes = input.bytes();
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(bytes, &mut fields[..limits.fields.min(MOST_FIELDS)]);
    let size = match status {
        Ok(Status::Complete(size)) => size,
        Ok(Status::Partial) => return partial(input, limits),
        Err(Error::Token) if parsed.method.is_none() => return Err(Refusal::Method),
        Err(Error::Token | Error::Status) => return Err(Refusal::Target),
        Err(error) => return Err(refused(error)),
    };
    if size > limits.head {
        return Err(Refusal::HeadTooLarge);
    }
    check_lines(&bytes[..size])?;
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::Method);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::Method)?;
    let (http10, target) = (minor == 0, Range::of(target.as_bytes(), bytes));
    let mut places = SmallVec::new();
    note_places(parsed.headers, bytes, &mut places);

    let head = input.take(size);
    let uri = Uri::from_maybe_shared(target.slice(&head)).map_err(|_| Refusal::Target)?;
    check_form(&method, &uri)?;
    let mut spelling = Spelling::new(head.clone());
    let (headers, said) = read_fields(&head, &places, &mut spelling, spare)?;
    let framing = said.request(http10, &method, uri.authority().is_some())?;

    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version(http10);
    *request.headers_mut() = headers;
    *request.extensions_mut() = spare.extensions(spelling);
    Ok(Some(RequestHead { request, framing, said, http10 }))
}

/// As [`request`]; `to`: what it answers.
pub(crate) fn response(
    input: &mut Input,
    limits: &Limits,
    spare: &Spare,
    to: To,
) -> Result<Option<ResponseHead>, Refusal> {
    if !may_be_whole(input, limits)? {
        return Ok(None);
    }
    let bytes = input.bytes();
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut fields[..limits.fields.min(MOST_FIELDS)],
    );
    let size = match status {
        Ok(Status::Complete(size)) => size,
        Ok(Status::Partial) => return partial(input, limits),
        Err(error) => return Err(refused(error)),
    };
    if size > limits.head {
        return Err(Refusal::HeadTooLarge);
    }
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else { return Err(Refusal::Status) };
    let status = StatusCode::from_u16(code).map_err(|_| Refusal::Status)?;
    let reason = parsed.reason.filter(|reason| status.canonical_reason() != Some(reason));
    let reason = reason.filter(|reason| !reason.is_empty());
    let (http10, reason) = (minor == 0, reason.map(|reason| Range::of(reason.as_bytes(), bytes)));
    let mut places = SmallVec::new();
    note_places(parsed.headers, bytes, &mut places);

    let head = input.take(size);
    let mut spelling = Spelling::new(head.clone());
    if let Some(reason) = reason {
        spelling.set_reason(reason);
    }
    let (mut headers, said) = read_fields(&head, &places, &mut spelling, spare)?;
    let framing = said.response(http10, status, to)?;
    let mut keeps = said.keeps(http10) && framing != Framing::UntilClose;
    if said.coding != Coding::None {
        // It stands for the body that was read; who goes by the length would find another end (RFC 9112 §6.3).
        if said.coding == Coding::Chunked && said.length.is_some() {
            headers.remove(header::CONTENT_LENGTH);
            keeps = false;
        }
        headers.remove(header::TRANSFER_ENCODING);
    }

    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version(http10);
    *response.headers_mut() = headers;
    *response.extensions_mut() = spare.extensions(spelling);
    Ok(Some(ResponseHead { response, framing, keeps }))
}

/// A field section alone: what stands behind the last chunk.
pub(crate) fn trailers(section: &[u8]) -> Result<HeaderMap, Refusal> {
    check_lines(section)?;
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let parsed = match httparse::parse_headers(section, &mut fields) {
        Ok(Status::Complete((_, parsed))) => parsed,
        Err(Error::TooManyHeaders) => return Err(Refusal::TrailersTooLarge),
        Ok(Status::Partial) | Err(_) => return Err(Refusal::Trailers),
    };
    let mut trailers = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Refusal::Trailers)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Refusal::Trailers)?;
        if may_be_trailer(&name) {
            trailers.append(name, value);
        }
    }
    Ok(trailers)
}

/// What a trailer may not say: how the message is framed, where it goes, what its content is (RFC 9110 §6.5.1).
pub(crate) fn may_be_trailer(name: &HeaderName) -> bool {
    !matches!(
        *name,
        header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONNECTION
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::EXPECT
            | header::HOST
            | header::MAX_FORWARDS
            | header::SET_COOKIE
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    )
}

/// Whether it is worth parsing: a head that comes byte by byte is not read from its beginning for each.
fn may_be_whole(input: &Input, limits: &Limits) -> Result<bool, Refusal> {
    let bytes = input.bytes();
    if bytes.is_empty() {
        return Ok(false);
    }
    if input.scanned == 0 {
        return Ok(true);
    }
    let from = input.scanned.saturating_sub(3);
    let fresh = &bytes[from..];
    let ends = memchr::memchr_iter(b'\n', fresh)
        .any(|at| matches!(fresh[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]));
    if !ends && bytes.len() > limits.head {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(ends)
}

fn partial<T>(input: &mut Input, limits: &Limits) -> Result<Option<T>, Refusal> {
    if input.bytes().len() > limits.head {
        return Err(Refusal::HeadTooLarge);
    }
    input.scanned = input.bytes().len();
    Ok(None)
}

fn refused(error: Error) -> Refusal {
    match error {
        Error::HeaderName => Refusal::FieldName,
        Error::HeaderValue => Refusal::FieldValue,
        Error::NewLine => Refusal::LineEnd,
        Error::TooManyHeaders => Refusal::TooManyFields,
        Error::Version => Refusal::Version,
        Error::Status | Error::Token => Refusal::Status,
    }
}

/// Each line ends with CR LF. The parser also takes LF alone, where others see no end.
fn check_lines(head: &[u8]) -> Result<(), Refusal> {
    // Without a branch for each byte: sixteen are looked at together.
    let pairs = head.iter().zip(head.iter().skip(1));
    let alone = pairs
        .fold(0, |alone, (before, byte)| alone | (u8::from(*byte == b'\n') & u8::from(*before != b'\r')));
    if alone != 0 || head.first() == Some(&b'\n') { Err(Refusal::LineEnd) } else { Ok(()) }
}

/// RFC 9112 §3.2: each form belongs to some methods.
fn check_form(method: &Method, uri: &Uri) -> Result<(), Refusal> {
    let authority_form = uri.authority().is_some() && uri.scheme().is_none();
    let fits = match *method {
        Method::CONNECT => authority_form,
        Method::OPTIONS if uri.path() == "*" => true,
        _ => !authority_form && uri.path().starts_with('/'),
    };
    if fits { Ok(()) } else { Err(Refusal::TargetForm) }
}

fn version(http10: bool) -> Version {
    if http10 { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// A field of the head, by place: what was parsed goes with the buffer.
type Place = (Range, Range);

/// Into `places`: returned, all its room would be moved.
fn note_places(fields: &[httparse::Header<'_>], bytes: &[u8], places: &mut SmallVec<[Place; 32]>) {
    places.extend(
        fields.iter().map(|field| (Range::of(field.name.as_bytes(), bytes), Range::of(field.value, bytes))),
    );
}

fn read_fields(
    head: &Bytes,
    places: &[Place],
    spelling: &mut Spelling,
    spare: &Spare,
) -> Result<(HeaderMap, Said), Refusal> {
    let (mut headers, mut said) = (spare.map(), Said::default());
    headers.reserve(places.len());
    for (name_at, value) in places {
        let name = HeaderName::from_bytes(name_at.within(head)).map_err(|_| Refusal::FieldName)?;
        let value = HeaderValue::from_maybe_shared(value.slice(head)).map_err(|_| Refusal::FieldValue)?;
        if said.see(&name, &value)? {
            spelling.name(*name_at);
            headers.append(name, value);
        }
    }
    Ok((headers, said))
}

#[cfg(test)]
mod tests;
