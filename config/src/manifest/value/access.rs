//! What access rules name: service accounts, patterns of identities, networks.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::IdentityPattern;

use super::name::{is_label, is_subdomain};
use super::{Checked, Rejected, fits, text_serde, text_value};

text_value! {
    /// A service account: `NAME` in the policy's own namespace, or `NAMESPACE/NAME`.
    AccountName,
    "a service account (NAME or NAMESPACE/NAME)",
    { "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "minLength": 1, "maxLength": 317 },
    account
}

fn account(text: &str) -> Checked {
    match text.split_once('/') {
        Some((namespace, name)) => fits(is_label(namespace) && is_subdomain(name)),
        None => fits(is_subdomain(text)),
    }
}

text_value! {
    /// A SPIFFE id, or a pattern of some.
    IdentityGlob,
    "a SPIFFE id (spiffe://TRUST_DOMAIN/PATH, with * within a segment and ** as the last one)",
    { "pattern": "^spiffe://[^/]+/.+$", "maxLength": 2048 },
    |text| text.parse::<IdentityPattern>().map(drop)
}

impl IdentityGlob {
    pub fn compiled(&self) -> IdentityPattern {
        self.parse().expect("it was read from a text that parses")
    }
}

text_value! {
    /// What the host of a request is compared with: a name, `*.` and a name, or an address.
    RuleHost,
    "a host (a name, *.NAME for all below it, or an IP address)",
    { "pattern": "^(\\*\\.)?[^*]+$", "minLength": 1, "maxLength": 253 },
    |text| fits(
        text.parse::<IpAddr>().is_ok()
            || text.strip_prefix("*.").unwrap_or(text).split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            }) && text.len() <= 253
    )
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    pub const ACCEPTED: &'static str = "an IP address or network such as 10.0.0.0/8";

    pub const fn get(self) -> IpNet {
        self.0
    }
}

impl TryFrom<&str> for Cidr {
    type Error = Rejected;

    fn try_from(text: &str) -> Result<Cidr, Rejected> {
        let wrong = |why: String| Rejected::text(text, Cidr::ACCEPTED, why);
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Cidr(IpNet::from(address.to_canonical())));
        }
        let net: IpNet = text.parse().map_err(|_| wrong(String::new()))?;
        if let IpAddr::V6(address) = net.addr()
            && address.to_ipv4_mapped().is_some()
        {
            return Err(wrong("write it as IPv4".into()));
        }
        // 10.1.2.3/8 is as likely meant as 10.1.2.3 as it is as 10.0.0.0/8.
        if net.trunc() != net {
            return Err(wrong(format!("bits are set beyond its length; the network is {}", net.trunc())));
        }
        Ok(Cidr(net))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

text_serde!(Cidr, Cidr::ACCEPTED, { "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" });
