//! The listeners of a gateway, with what stands behind each.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use outrigger_config::model::{HostPattern, Origin, ProxySettings, SecretName};
use rustls::sign::CertifiedKey;

use super::Destination;

#[derive(Clone, Debug)]
pub struct Gateway {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub ports: BTreeMap<u16, Arc<GatewayPortSlot>>,
    pub settings: ProxySettings,
}

/// The place of one port, whose listeners are replaced when updates arrive. Hold it as long as the connection.
#[derive(Debug)]
pub struct GatewayPortSlot(ArcSwapOption<GatewayPort>);

#[derive(Clone, Debug)]
pub struct GatewayPort {
    pub port: u16,
    /// Most specific hostname first.
    pub listeners: Vec<GatewayListener>,
}

#[derive(Clone, Debug)]
pub struct GatewayListener {
    /// `sectionName`
    pub name: Arc<str>,
    pub hostname: HostPattern,
    /// Whether what arrives is HTTP (once TLS is opened); bytes otherwise.
    pub http: bool,
    pub tls: ListenerTls,
    /// Routes for HTTP, `tls` routes for passthrough, `tcp` backends for the rest.
    pub destination: Arc<Destination>,
    pub origin: Origin,
}

#[derive(Clone, Debug)]
pub enum ListenerTls {
    None,
    /// Goes on unopened, by its SNI.
    Passthrough,
    /// Opened with the first certificate that fits the SNI. Those that did not arrive or are not valid are missing.
    Terminate(Vec<Certificate>),
}

#[derive(Clone, Debug)]
pub struct Certificate {
    pub name: SecretName,
    pub key: Arc<CertifiedKey>,
}

impl GatewayPortSlot {
    pub(crate) fn new(port: GatewayPort) -> Arc<Self> {
        Arc::new(Self(ArcSwapOption::from_pointee(port)))
    }

    /// `None` once the gateway has no such port any more.
    pub fn current(&self) -> Option<Arc<GatewayPort>> {
        self.0.load_full()
    }

    pub(crate) fn set(&self, port: Option<GatewayPort>) {
        self.0.store(port.map(Arc::new));
    }
}

impl GatewayPort {
    /// The listener that takes a request for `host`, or a TLS connection that names it as SNI.
    pub fn listener(&self, host: &str) -> Option<&GatewayListener> {
        self.listeners.iter().find(|listener| listener.hostname.matches(host))
    }
}
