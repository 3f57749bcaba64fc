//! Gateways as the registry knows them: their listeners, and which routes those let in.

use std::sync::Arc;

use crate::model::{HostPattern, Origin};

use super::route::RouteKind;

/// The class of the Gateways this mesh runs.
pub const CLASS: &str = "outrigger";

#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// `spec.gatewayClassName`; those of other classes than [`CLASS`] are somebody else's.
    pub class: Arc<str>,
    pub listeners: Vec<Listener>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: Arc<str>,
    pub port: u16,
    pub hostname: HostPattern,
    pub protocol: ListenerProtocol,
    pub namespaces: From,
    /// `None`: those its protocol can carry.
    pub kinds: Option<Vec<RouteKind>>,
    /// `spec.listeners[0]`
    pub field: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ListenerProtocol {
    Http,
    Https(Vec<CertificateRef>),
    Tcp,
    TlsPassthrough,
    TlsTerminate(Vec<CertificateRef>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct CertificateRef {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// Set where it refers to something else than a Secret.
    pub other_kind: Option<Arc<str>>,
    /// `spec.listeners[0].tls.certificateRefs[0]`
    pub field: Arc<str>,
}

/// The namespaces whose routes may attach to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    All,
    Same,
    None,
}

impl Gateway {
    pub fn is_ours(&self) -> bool {
        *self.class == *CLASS
    }

    /// The first other listener that cannot stand beside this one (Gateway API, "distinct listeners"): a port speaks either HTTP, or TLS by
    /// server name, or TCP, and a host is served by one of them. None of the two is used then.
    pub fn conflict(&self, index: usize) -> Option<&Listener> {
        let listener = &self.listeners[index];
        self.listeners.iter().enumerate().find_map(|(i, other)| {
            let clash = i != index
                && other.port == listener.port
                && (other.protocol.family() != listener.protocol.family()
                    || other.hostname == listener.hostname);
            clash.then_some(other)
        })
    }
}

impl ListenerProtocol {
    /// Protocols of one family can share a port.
    fn family(&self) -> u8 {
        match self {
            Self::Http => 0,
            Self::Https(_) | Self::TlsPassthrough | Self::TlsTerminate(_) => 1,
            Self::Tcp => 2,
        }
    }
}

impl Listener {
    /// Whether routes of a kind can attach, by what the protocol carries and what the listener allows.
    pub fn takes(&self, kind: RouteKind) -> bool {
        let carried = match self.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https(_) => {
                matches!(kind, RouteKind::Http | RouteKind::Grpc)
            }
            ListenerProtocol::Tcp => kind == RouteKind::Tcp,
            ListenerProtocol::TlsPassthrough => kind == RouteKind::Tls,
            ListenerProtocol::TlsTerminate(_) => matches!(kind, RouteKind::Tls | RouteKind::Tcp),
        };
        carried && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// Whether nothing in what arrives could choose between two routes.
    pub fn is_for_one_route(&self) -> bool {
        matches!(self.protocol, ListenerProtocol::Tcp | ListenerProtocol::TlsTerminate(_))
    }

    pub fn certificates(&self) -> &[CertificateRef] {
        match &self.protocol {
            ListenerProtocol::Https(certificates) | ListenerProtocol::TlsTerminate(certificates) => {
                certificates
            }
            ListenerProtocol::Http | ListenerProtocol::Tcp | ListenerProtocol::TlsPassthrough => &[],
        }
    }
}
