//! What is redirected, said once for every tool and address family.
//!
//! Four chains in each family; `output` and `prerouting` hang on the kernel's hooks of the same name, the other two
//! redirect:
//!
//! ```text
//! output      what this pod sends        canary ─> outbound · proxy to its own pod ─> inbound · the rest ─> outbound
//! prerouting  what this pod receives     all but loopback ─> inbound
//! outbound    ─> 15001
//! inbound     ports that are not the proxy's stay direct ─> 15006
//! ```
//!
//! The canary runs through the very chain it vouches for: whoever flushes `output` or `outbound` silences it.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where the proxy accepts what the pod sends.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where the proxy accepts what the pod receives.
pub const INBOUND_PORT: u16 = 15006;
/// A connection to this port of a loopback address is redirected like any other traffic, even the proxy's own:
/// a proxy that meets itself there knows that the rules are in place.
pub const CANARY_PORT: u16 = 15019;
/// The proxy's own ports for others: admin (bound to loopback, so refused from outside) and metrics with the probes.
pub const DIRECT_PORTS: [u16; 2] = [15000, 15020];

/// The redirection of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Whatever runs under this user id is the proxy: its connections leave untouched. Never 0.
    pub proxy_uid: u32,
    /// Ports of the pod that are reached directly, besides [`DIRECT_PORTS`].
    pub exclude_inbound_ports: BTreeSet<u16>,
    /// Destination ports that are dialled directly.
    pub exclude_outbound_ports: BTreeSet<u16>,
    /// Destinations that are dialled directly; none contains another.
    pub exclude_outbound_cidrs: Vec<IpNet>,
    /// Whether IPv6 is redirected too. Without it a pod with an IPv6 address bypasses the mesh.
    pub ipv6: bool,
}

impl Capture {
    /// The address families the rules are made for.
    pub fn families(&self) -> &'static [Family] {
        if self.ipv6 { &Family::ALL } else { &[Family::V4] }
    }

    /// The chains of one family, in the order in which they can be loaded: targets before those that go there.
    pub fn chains(&self, family: Family) -> [Chain; 4] {
        let outbound = vec![rule([Match::Tcp], Then::Redirect(OUTBOUND_PORT))];
        let mut inbound = vec![];
        let direct: BTreeSet<u16> =
            DIRECT_PORTS.into_iter().chain(self.exclude_inbound_ports.clone()).collect();
        inbound.extend(direct.into_iter().map(|port| rule([Match::Port(port)], Then::Return)));
        inbound.push(rule([Match::Tcp], Then::Redirect(INBOUND_PORT)));

        let prerouting = vec![
            rule([Match::InLoopback], Then::Return),
            rule([Match::Tcp], Then::Goto(Name::Inbound)).named("inbound"),
        ];
        [
            Chain { name: Name::Outbound, rules: outbound },
            Chain { name: Name::Inbound, rules: inbound },
            Chain { name: Name::Output, rules: self.output(family) },
            Chain { name: Name::Prerouting, rules: prerouting },
        ]
    }

    /// The order carries the meaning: the canary stands before every exemption, the proxy's calls to its own pod
    /// before the exemption of all it sends.
    fn output(&self, family: Family) -> Vec<Rule> {
        let loopback = family.loopback();
        let mut rules = vec![
            rule([Match::To(family.localhost()), Match::Port(CANARY_PORT)], Then::Goto(Name::Outbound))
                .named("canary"),
            // A source address of loopback is how the proxy marks what it hands to its app at the pod's own address.
            rule(
                [
                    Match::NotFrom(loopback),
                    Match::NotTo(loopback),
                    Match::OutLoopback,
                    Match::Tcp,
                    Match::User(self.proxy_uid),
                ],
                Then::Goto(Name::Inbound),
            )
            .named("self-call"),
            rule([Match::User(self.proxy_uid)], Then::Return),
            rule([Match::OutLoopback], Then::Return),
        ];
        let cidrs = self.exclude_outbound_cidrs.iter().filter(|&&cidr| Family::of(cidr) == family);
        rules.extend(cidrs.map(|&cidr| rule([Match::To(cidr)], Then::Return)));
        let ports = self.exclude_outbound_ports.iter();
        rules.extend(ports.map(|&port| rule([Match::Port(port)], Then::Return)));
        rules.push(rule([Match::Tcp], Then::Goto(Name::Outbound)).named("outbound"));
        rules
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(cidr: IpNet) -> Self {
        match cidr {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// All addresses that never leave the host.
    fn loopback(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            Self::V6 => self.localhost(),
        }
    }

    /// The one address that the canary is for.
    fn localhost(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Addr::LOCALHOST.into()),
            Self::V6 => IpNet::V6(Ipv6Net::from(Ipv6Addr::LOCALHOST)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: Name,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Output,
    Prerouting,
    Outbound,
    Inbound,
}

impl Name {
    pub const ALL: [Self; 4] = [Self::Outbound, Self::Inbound, Self::Output, Self::Prerouting];

    /// In lower case; each tool decorates it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Prerouting => "prerouting",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }

    /// Whether the kernel calls this chain itself.
    pub fn is_hooked(self) -> bool {
        matches!(self, Self::Output | Self::Prerouting)
    }
}

/// All matches hold, then the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the rule is for, where someone looks for it later.
    pub purpose: Option<&'static str>,
    /// In the order in which iptables-save lists them, so that what is loaded reads as what was rendered.
    pub when: Vec<Match>,
    pub then: Then,
}

impl Rule {
    fn named(self, purpose: &'static str) -> Self {
        Self { purpose: Some(purpose), ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    NotFrom(IpNet),
    To(IpNet),
    NotTo(IpNet),
    InLoopback,
    OutLoopback,
    Tcp,
    /// The TCP destination port.
    Port(u16),
    /// The user id of the sending process.
    User(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// To the end of the hook: the packet goes on as it is.
    Return,
    Goto(Name),
    Redirect(u16),
}

fn rule(when: impl Into<Vec<Match>>, then: Then) -> Rule {
    Rule { purpose: None, when: when.into(), then }
}

#[cfg(test)]
impl Capture {
    /// What `outrigger capture apply` makes without a flag.
    pub fn bare() -> Self {
        Self {
            proxy_uid: 1337,
            exclude_inbound_ports: BTreeSet::new(),
            exclude_outbound_ports: BTreeSet::new(),
            exclude_outbound_cidrs: vec![],
            ipv6: true,
        }
    }

    /// Every kind of exclusion, twice.
    pub fn with_everything() -> Self {
        Self {
            proxy_uid: 4321,
            exclude_inbound_ports: [9090, 22].into(),
            exclude_outbound_ports: [443, 53].into(),
            exclude_outbound_cidrs: ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::7/128", "fd00::/8"]
                .map(|cidr| cidr.parse().expect("a CIDR"))
                .into(),
            ipv6: true,
        }
    }
}
