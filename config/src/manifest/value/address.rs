//! Addresses and trust domains.

use std::fmt;
use std::net::IpAddr;

use crate::model::identity::is_trust_domain;

use super::{Rejected, fits, text_serde, text_value};

/// An IPv4 or IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip(IpAddr);

impl Ip {
    pub const ACCEPTED: &'static str = "an IP address";

    pub const fn get(self) -> IpAddr {
        self.0
    }
}

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Ip {
        Ip(address)
    }
}

impl TryFrom<&str> for Ip {
    type Error = Rejected;

    fn try_from(text: &str) -> Result<Ip, Rejected> {
        text.parse().map(Ip).map_err(|_| Rejected::text(text, Ip::ACCEPTED, String::new()))
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

text_serde!(Ip, Ip::ACCEPTED, { "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] });

text_value! {
    /// The trust domain of SPIFFE identities (SPIFFE-ID section 2.1).
    TrustDomain,
    "a trust domain (1 to 255 of a-z, 0-9, ., - and _)",
    { "pattern": "^[a-z0-9._-]+$", "minLength": 1, "maxLength": 255 },
    |text| fits(is_trust_domain(text))
}

impl Default for TrustDomain {
    /// `cluster.local`, as in the rest of the field.
    fn default() -> TrustDomain {
        TrustDomain("cluster.local".into())
    }
}

text_value! {
    /// Where a server listens.
    HostPort,
    "HOST:PORT (a name, an IPv4 address or [IPv6], and a port from 1 to 65535)",
    { "pattern": "^[^/?#@ ]+:[0-9]{1,5}$", "maxLength": 261 },
    |text| fits(is_host_port(text))
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match bare {
        Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (1..=253).contains(&host.len()) && host.bytes().all(word)
        }
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    host && digits && port.parse::<u16>().is_ok_and(|port| port > 0)
}
