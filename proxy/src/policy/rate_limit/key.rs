//! What a request is counted by.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::{HeaderMap, Method};
use outrigger_config::model::access::canonical;
use outrigger_config::model::{KeyPart, LimitOverride};
use smallvec::SmallVec;

use crate::failure::is_grpc;
use crate::identity::Peer;

/// What is known of whoever wants something.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub peer: &'a Peer,
    /// `None`: a connection that carries bytes.
    pub request: Option<Head<'a>>,
}

/// What of a request may be counted by.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    /// Without port.
    pub host: &'a str,
    pub headers: &'a HeaderMap,
}

/// One value for each part of a key; empty where the request has none.
pub type Values<'a> = SmallVec<[Cow<'a, [u8]>; 2]>;

/// `home`: the mesh's own trust domain.
pub fn values<'a>(parts: &'a [KeyPart], asked: Asked<'a>, home: &str) -> Values<'a> {
    parts.iter().map(|part| value(part, asked, home)).collect()
}

/// The same for equal values, and else by accident alone.
pub fn hash(values: &Values<'_>, secret: &RandomState) -> u64 {
    let mut hasher = secret.build_hasher();
    for value in values {
        hasher.write_usize(value.len());
        hasher.write(value);
    }
    hasher.finish()
}

/// The first that fits the values, by its place.
pub fn overriding<A>(overrides: &[LimitOverride<A>], values: &Values<'_>) -> Option<usize> {
    let fits = |(want, value): (&Option<Arc<str>>, &Cow<'_, [u8]>)| {
        want.as_ref().is_none_or(|want| want.as_bytes() == &**value)
    };
    overrides.iter().position(|given| given.key.iter().zip(values).all(fits))
}

fn value<'a>(part: &'a KeyPart, asked: Asked<'a>, home: &str) -> Cow<'a, [u8]> {
    const NONE: Cow<'_, [u8]> = Cow::Borrowed(b"");
    let identity = asked.peer.identity.as_ref();
    match (part, asked.request) {
        (KeyPart::Identity, _) => identity.map_or(NONE, |identity| identity.as_str().as_bytes().into()),
        (KeyPart::Namespace, _) => {
            let Some((identity, (namespace, _))) = identity.and_then(|id| Some((id, id.account()?))) else {
                return NONE;
            };
            // The same name in another trust domain is somebody else's.
            match identity.trust_domain() {
                domain if domain == home => namespace.as_bytes().into(),
                domain => Cow::Owned(format!("{domain}/{namespace}").into_bytes()),
            }
        }
        (KeyPart::Address { trusted_hops: 0 }, _) => network(asked.peer.address.ip()),
        (KeyPart::Address { trusted_hops }, request) => {
            let told = request.and_then(|head| forwarded(head.headers, *trusted_hops));
            network(told.unwrap_or_else(|| asked.peer.address.ip()))
        }
        (_, None) => NONE,
        (KeyPart::Header(name), Some(head)) => {
            let mut lines = head.headers.get_all(name).iter();
            let Some(first) = lines.next() else { return NONE };
            // Of several lines an app may take any: each combination is a key of its own.
            lines.fold(Cow::Borrowed(first.as_bytes()), |all, line| {
                Cow::Owned([&*all, b",", line.as_bytes()].concat())
            })
        }
        (KeyPart::Path(templates), Some(head)) => {
            let Ok(path) = canonical(head.path) else { return NONE };
            let template = templates.iter().find(|template| template.matches(&path));
            template.map_or(NONE, |template| template.as_str().as_bytes().into())
        }
        (KeyPart::Method, Some(head)) => head.method.as_str().as_bytes().into(),
        (KeyPart::GrpcMethod, Some(head)) if is_grpc(head.headers) => head.path.as_bytes().into(),
        (KeyPart::GrpcMethod, Some(_)) => NONE,
    }
}

/// Whoever has an IPv6 address has 2^64 of them (RFC 6177 §2).
fn network<'a>(address: IpAddr) -> Cow<'a, [u8]> {
    Cow::Owned(match address.to_canonical() {
        IpAddr::V4(address) => dotted(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)).into_bytes()
        }
    })
}

/// As `to_string` does, in a tenth of its instructions: each request of a limit by address needs it.
fn dotted(address: Ipv4Addr) -> Vec<u8> {
    let mut text = Vec::with_capacity("255.255.255.255".len());
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        if octet >= 100 {
            text.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
    text
}

/// The address that many from the right of `x-forwarded-for`; `None` where there are fewer, or it is none.
fn forwarded(headers: &HeaderMap, hops: u8) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for");
    let mut entries = SmallVec::<[&str; 4]>::new();
    for line in lines {
        entries.extend(line.to_str().ok()?.split(',').map(str::trim));
    }
    let entry = entries.iter().rev().nth(usize::from(hops) - 1)?;
    let bare = entry.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let without_port = || entry.rsplit_once(':').map_or(*entry, |(host, _)| host);
    let parsed = entry.parse().or_else(|_| bare.unwrap_or_else(without_port).parse());
    parsed.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_everywhere() {
        for octet in 0..=255 {
            let address = Ipv4Addr::new(octet, 255 - octet, 0, octet / 2);
            assert_eq!(dotted(address), address.to_string().into_bytes());
        }
    }
}
