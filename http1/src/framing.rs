//! Where a message's body ends, and whether its connection goes on: every decision of that kind, strict, in one place.
//!
//! A proxy and those behind it must not be able to read this in two ways (RFC 9112 §11.2). So what is ambiguous in a request is refused, not
//! repaired; in a response, which comes from an app that answers for itself, the reading of RFC 9112 §6.3 is taken and nothing else goes on.

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::refusal::Refusal;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// The end of the connection is the end of the body. Responses only.
    UntilClose,
}

/// What the fields of a head say of its message, gathered as they are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    pub length: Option<u64>,
    pub coding: Coding,
    pub close: bool,
    keep_alive: bool,
    upgrade: bool,
    protocol: bool,
    hosts: u8,
    expects: bool,
    /// `TE: trailers`.
    pub trailers: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Coding {
    #[default]
    None,
    /// A name for none (RFC 2616; some old servers say it).
    Identity,
    Chunked,
    Other,
}

impl Said {
    /// Whether the field is to be kept: one that repeats what is known is not.
    pub fn see(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, Refusal> {
        match *name {
            header::CONTENT_LENGTH => {
                let length = length(value.as_bytes()).ok_or(Refusal::LengthInvalid)?;
                return match self.length.replace(length) {
                    None => Ok(true),
                    Some(before) if before == length => Ok(false),
                    Some(_) => Err(Refusal::LengthsDiffer),
                };
            }
            header::TRANSFER_ENCODING => {
                let value = value.as_bytes();
                self.coding = match self.coding {
                    Coding::None if value.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
                    Coding::None if value.eq_ignore_ascii_case(b"identity") => Coding::Identity,
                    _ => Coding::Other,
                };
            }
            header::CONNECTION => {
                let mut more = false;
                for token in tokens(value) {
                    let close = token.eq_ignore_ascii_case(b"close");
                    let keep_alive = token.eq_ignore_ascii_case(b"keep-alive");
                    self.close |= close;
                    self.keep_alive |= keep_alive;
                    self.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
                    more |= !(close || keep_alive);
                }
                // Whether the connection goes on is all that most of them say, and known by that.
                return Ok(more);
            }
            header::HOST => {
                if !is_host(value.as_bytes()) {
                    return Err(Refusal::HostInvalid);
                }
                self.hosts = self.hosts.saturating_add(1);
            }
            header::EXPECT => self.expects |= value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
            header::TE => self.trailers |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers")),
            header::UPGRADE => self.protocol = true,
            _ => {}
        }
        Ok(true)
    }

    /// Whether another message may follow on the connection.
    pub fn keeps(&self, http10: bool) -> bool {
        !self.close && (!http10 || self.keep_alive)
    }

    /// Whether a request asks to leave HTTP. HTTP/1.0 cannot.
    pub fn asks_to_leave(&self, http10: bool, method: &Method) -> bool {
        method == Method::CONNECT || !http10 && self.upgrade && self.protocol
    }

    /// Whether the client waits for a 100 before it sends the body (RFC 9110 §10.1.1).
    pub fn expects(&self, http10: bool) -> bool {
        self.expects && !http10
    }

    /// `addressed`: its target says whom it is for, as those of clients that use a proxy do.
    pub fn request(&self, http10: bool, method: &Method, addressed: bool) -> Result<Framing, Refusal> {
        match self.hosts {
            0 if !http10 && !addressed => return Err(Refusal::HostMissing),
            0 | 1 => {}
            _ => return Err(Refusal::HostTwice),
        }
        let framing = match (self.coding, self.length) {
            (Coding::None, None | Some(0)) => Framing::None,
            (Coding::None, Some(length)) => Framing::Length(length),
            _ if http10 => return Err(Refusal::CodingInHttp10),
            (_, Some(_)) => return Err(Refusal::LengthAndCoding),
            (Coding::Chunked, None) => Framing::Chunked,
            (Coding::Identity | Coding::Other, None) => return Err(Refusal::CodingUnknown),
        };
        if *method == Method::CONNECT && framing != Framing::None {
            return Err(Refusal::ConnectWithBody);
        }
        Ok(framing)
    }

    /// `to`: what kind of request it answers.
    pub fn response(&self, http10: bool, status: StatusCode, to: To) -> Result<Framing, Refusal> {
        let bodiless = to == To::Head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || to == To::Connect && status.is_success();
        if bodiless {
            return Ok(Framing::None);
        }
        Ok(match (self.coding, self.length) {
            (Coding::Chunked | Coding::Other, _) if http10 => return Err(Refusal::CodingInHttp10),
            (Coding::Other, _) => return Err(Refusal::CodingUnknown),
            (Coding::Chunked, _) => Framing::Chunked,
            (Coding::None | Coding::Identity, Some(0)) => Framing::None,
            (Coding::None | Coding::Identity, Some(length)) => Framing::Length(length),
            (Coding::None | Coding::Identity, None) => Framing::UntilClose,
        })
    }
}

/// The kinds of requests whose answers are framed differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Head,
    Connect,
    Other,
}

impl To {
    pub fn method(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// `1*DIGIT` that fits; a sign, a list or a space is none of it.
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// The parts of a list, without the space around them.
pub(crate) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether nothing in it could end a host for one reader and not for another (RFC 3986 §3.2.2). May be empty.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'[' | b']')
            || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
    })
}

#[cfg(test)]
mod tests;
