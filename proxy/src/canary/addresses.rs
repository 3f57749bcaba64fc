//! The addresses a pod has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Asked for again at each look: an address may come after the start.
#[derive(Clone, Copy, Debug)]
pub enum Addresses {
    /// What the interfaces have, but for loopback and link-local ones; `given` where it is one of them.
    OfInterfaces {
        given: Option<IpAddr>,
    },
    Fixed(Pod),
}

/// One address of each family that others reach the pod at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    pub fn now(&self) -> io::Result<Pod> {
        let given = match self {
            Self::Fixed(pod) => return Ok(*pod),
            Self::OfInterfaces { given } => *given,
        };
        let mut pod = Pod::default();
        for interface in getifaddrs()? {
            if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
                continue;
            }
            let Some(address) = interface.address else { continue };
            if let Some(v4) = address.as_sockaddr_in().map(|address| address.ip()) {
                if !v4.is_link_local() && (pod.v4.is_none() || given == Some(v4.into())) {
                    pod.v4 = Some(v4);
                }
            } else if let Some(v6) = address.as_sockaddr_in6().map(|address| address.ip())
                && !v6.is_unicast_link_local()
                && (pod.v6.is_none() || given == Some(v6.into()))
            {
                pod.v6 = Some(v6);
            }
        }
        Ok(pod)
    }
}

impl Pod {
    pub fn first(&self) -> Option<IpAddr> {
        self.v4.map(IpAddr::from).or(self.v6.map(IpAddr::from))
    }
}

/// Whether this machine has IPv6 at all.
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
