//! What of a request says which endpoint it belongs to: its hash, and its session.
//!
//! Owns reading them from a request and the cookies that carry them back. Reading allocates nothing. Never chooses (that is `balance`).

use std::io::Write as _;
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Request, Response, header};
use outrigger_config::model::{Balance, HashCookie, HashInput, HashOn, SessionCookie};
use rand::RngExt;
use rand::rngs::SmallRng;
use xxhash_rust::xxh64::xxh64;

use super::session;
use crate::upstream::Picked;

/// The ties of one request; empty for nearly all.
#[derive(Debug, Default)]
pub struct Affinity {
    pub hash: Option<u64>,
    /// The name of the endpoint its cookie brings.
    pub session: Option<u64>,
    /// A cookie to hash by that the client does not have yet.
    made: Option<HeaderValue>,
}

impl Affinity {
    /// `route` says what to hash where the cluster does not. Cheap where the cluster asks for nothing.
    pub fn of<B>(
        request: &Request<B>,
        balance: &Balance,
        route: &[HashOn],
        client: IpAddr,
        rng: &mut SmallRng,
    ) -> Self {
        let mut affinity = Self::default();
        if balance.algorithm.hashes() {
            let on = if balance.hash.is_empty() { route } else { &balance.hash };
            affinity.hash = combined(on, |input| match input {
                HashInput::Header(name) => by_header(request.headers(), name),
                HashInput::Cookie(wanted) => {
                    let value = cookie(request.headers(), &wanted.name);
                    value.map(|value| xxh64(value, 0)).or_else(|| affinity.make(wanted, rng))
                }
                HashInput::Source => Some(by_address(client)),
                HashInput::Query(name) => by_query(request.uri().query()?, name),
            });
        }
        if let Some(wanted) = &balance.session {
            let value = cookie(request.headers(), &wanted.name);
            affinity.session = value.and_then(|value| {
                u64::from_str_radix(str::from_utf8(value).ok()?, 16).ok().filter(|_| value.len() == NAME)
            });
        }
        affinity
    }

    /// On a TCP connection there is nothing but where it comes from.
    pub fn of_connection(balance: &Balance, client: IpAddr) -> Self {
        let by_source = balance.hash.iter().any(|on| on.input == HashInput::Source);
        let hash = (balance.algorithm.hashes() && by_source).then(|| by_address(client));
        Self { hash, ..Self::default() }
    }

    fn make(&mut self, wanted: &HashCookie, rng: &mut SmallRng) -> Option<u64> {
        let ttl = wanted.ttl?;
        let value = format!("{:016x}", rng.random::<u64>());
        self.made = set_cookie(&wanted.name, &value, ttl, wanted.path.as_deref());
        Some(xxh64(value.as_bytes(), 0))
    }

    /// Gives the client the cookies that bring its next request here.
    pub fn tell<B>(&self, balance: &Balance, picked: &Picked, response: &mut Response<B>) {
        if let Some(made) = &self.made {
            response.headers_mut().append(header::SET_COOKIE, made.clone());
        }
        if let Some(SessionCookie { name, ttl, path }) = &balance.session {
            let here = session::name(picked.endpoint());
            if self.session != Some(here)
                && let Some(value) = set_cookie(name, &format!("{here:016x}"), *ttl, Some(path))
            {
                response.headers_mut().append(header::SET_COOKIE, value);
            }
        }
    }
}

/// Hex digits of a session's cookie.
const NAME: usize = 16;

/// As Envoy combines hashes.
fn combined(on: &[HashOn], mut one: impl FnMut(&HashInput) -> Option<u64>) -> Option<u64> {
    let mut hash: Option<u64> = None;
    for HashOn { input, terminal } in on {
        if let Some(next) = one(input) {
            hash = Some(hash.map_or(next, |hash| hash.rotate_left(1) ^ next));
        }
        if *terminal && hash.is_some() {
            break;
        }
    }
    hash
}

fn by_header(headers: &HeaderMap, name: &http::HeaderName) -> Option<u64> {
    let mut hashes = headers.get_all(name).iter().map(|value| xxh64(value.as_bytes(), 0));
    let first = hashes.next()?;
    // In any order: a proxy on the way may have changed it.
    Some(hashes.fold(first, u64::wrapping_add))
}

fn by_address(address: IpAddr) -> u64 {
    let mut text = [0; 64];
    let mut rest = &mut text[..];
    write!(rest, "{}", address.to_canonical()).expect("no address is that long");
    let free = rest.len();
    xxh64(&text[..text.len() - free], 0)
}

fn by_query(query: &str, name: &str) -> Option<u64> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(given, _)| *given == name).map(|(_, value)| xxh64(value.as_bytes(), 0))
}

/// The value of the first cookie of this name (RFC 6265 section 4.2.1).
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

/// `None` where name or path cannot stand in a header, which no configuration has.
fn set_cookie(name: &str, value: &str, ttl: std::time::Duration, path: Option<&str>) -> Option<HeaderValue> {
    let mut text = format!("{name}={value}");
    if let Some(path) = path {
        text.push_str("; Path=");
        text.push_str(path);
    }
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
    }
    text.push_str("; HttpOnly");
    HeaderValue::try_from(text).ok()
}
