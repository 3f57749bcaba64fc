//! The trust bundle and the TLS configurations made of it.
//!
//! Owns which sessions may be resumed: those made under the same bundle, with the same peer, and not longer than the certificate lives that
//! was shown when they began. TLS 1.3 only, X25519MLKEM768 first (the provider's order).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use outrigger_config::model::SpiffeId;
use parking_lot::Mutex;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use tokio::time::Instant;

use super::svid::{Svid, Unusable, certificates};
use super::verify::{Callee, Callers};

/// Roots that are believed: a set, so that one can be added before it is used and taken away after it was.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Sorted, each once.
    roots: Vec<CertificateDer<'static>>,
}

impl Bundle {
    /// `pem`: one or more certificates.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Unusable> {
        certificates(pem).map(Self::new)
    }

    pub fn new(mut roots: Vec<CertificateDer<'static>>) -> Self {
        roots.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        Self { roots }
    }

    pub fn len(&self) -> usize {
        self.roots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter()
    }

    /// As rustls reads them. A root it cannot read is left out, with a warning; the others are believed.
    pub(super) fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            if let Err(error) = store.add(root.clone()) {
                tracing::warn!(%error, "a root of the trust bundle is left out");
            }
        }
        store
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} roots)", self.roots.len())
    }
}

/// What a ClientHello offers to speak inside (ALPN), as far as it matters to who takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// One of the tokens between sidecars ([`Token`]).
    pub mesh: bool,
    /// `h2` or `http/1.1`.
    pub http: bool,
}

/// What two sidecars speak inside their TLS. Istio's names, so that either side may be its proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Http2,
    /// Ours: streams of HTTP/2, each of which carries a connection of HTTP/1.1 (docs/http1.md).
    Carried,
    Http11,
    Http10,
    Tcp,
}

impl Token {
    /// The callee's order.
    pub const ALL: [Self; 5] = [Self::Http2, Self::Carried, Self::Http11, Self::Http10, Self::Tcp];

    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"istio-h2",
            Self::Carried => b"outrigger-http/1.1-h2",
            Self::Http11 => b"istio-http/1.1",
            Self::Http10 => b"istio-http/1.0",
            Self::Tcp => b"istio",
        }
    }

    pub fn of(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|token| token.name() == name)
    }
}

/// ALPN names that every client knows.
pub const PLAIN_HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What is made of one bundle.
#[derive(Debug)]
pub(super) struct Trust {
    pub bundle: Arc<Bundle>,
    trust_domain: Box<str>,
    roots: Arc<RootCertStore>,
    with_alpn: Arc<ServerConfig>,
    /// For clients that offer nothing we know: rustls would refuse them.
    without_alpn: Arc<ServerConfig>,
    clients: Mutex<HashMap<SpiffeId, Client>>,
}

#[derive(Debug)]
struct Client {
    config: Arc<ClientConfig>,
    /// When the certificate in use when it was made ends, and how much earlier its sessions are given up.
    resumable_until: SystemTime,
    shown_until: SystemTime,
    used: Instant,
}

/// Identities with a configuration of their own; the one unused for longest goes.
const CLIENTS: usize = 1_024;

/// Sessions remembered for one identity: 8 tickets for each of 32 addresses.
const SESSIONS: usize = 256;

impl Trust {
    pub fn new(
        bundle: Arc<Bundle>,
        trust_domain: &str,
        provider: &Arc<CryptoProvider>,
        shown: &Arc<Shown>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let roots = Arc::new(bundle.store());
        let callers = Arc::new(Callers::new(roots.clone(), trust_domain, provider)?);
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(callers)
            .with_cert_resolver(shown.clone());
        server.ticketer = aws_lc_rs::Ticketer::new()?;
        // Sessions travel in tickets; nothing is kept of them here.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let without_alpn = Arc::new(server.clone());
        server.alpn_protocols = Token::ALL.iter().map(|token| token.name().to_vec()).collect();
        server.alpn_protocols.extend(PLAIN_HTTP.iter().map(|name| name.to_vec()));
        Ok(Self {
            bundle,
            trust_domain: trust_domain.into(),
            roots,
            with_alpn: Arc::new(server),
            without_alpn,
            clients: Mutex::default(),
        })
    }

    pub fn is_for(&self, trust_domain: &str) -> bool {
        *self.trust_domain == *trust_domain
    }

    pub fn server(&self, offered: Offered) -> Arc<ServerConfig> {
        if offered.mesh || offered.http { self.with_alpn.clone() } else { self.without_alpn.clone() }
    }

    pub fn client(
        &self,
        id: &SpiffeId,
        svid: &Svid,
        provider: &Arc<CryptoProvider>,
        shown: &Arc<Shown>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get_mut(id)
            && !client.is_outlived(svid)
        {
            client.used = Instant::now();
            return Ok(client.config.clone());
        }
        if clients.len() >= CLIENTS && !clients.contains_key(id) {
            let oldest = clients.iter().min_by_key(|(_, client)| client.used).map(|(id, _)| id.clone());
            oldest.map(|id| clients.remove(&id));
        }
        let callee = Arc::new(Callee::new(self.roots.clone(), id.clone(), provider));
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(callee)
            .with_client_cert_resolver(shown.clone());
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        // A callee is known by its id; what it is called is nobody's business on the wire.
        config.enable_sni = false;
        let config = Arc::new(config);
        clients.insert(id.clone(), Client::new(config.clone(), svid));
        Ok(config)
    }

    pub fn forget(&self, id: &SpiffeId) {
        self.clients.lock().remove(id);
    }
}

impl Client {
    fn new(config: Arc<ClientConfig>, svid: &Svid) -> Self {
        let shown_until = svid.leaf.not_after;
        let life = shown_until.duration_since(SystemTime::now()).unwrap_or_default();
        Self {
            config,
            resumable_until: shown_until.checked_sub(life / 4).unwrap_or(shown_until),
            shown_until,
            used: Instant::now(),
        }
    }

    /// A resumed session still shows the certificate it began with, whatever we have now. When that one comes to its end and there is a
    /// newer one, sessions begin anew.
    fn is_outlived(&self, svid: &Svid) -> bool {
        svid.leaf.not_after > self.shown_until && SystemTime::now() >= self.resumable_until
    }
}

/// The certificate of the moment, shown by both sides of this proxy. There is one for all configurations, for as long as the process lives:
/// rustls resumes a session only with the very resolver it began with.
#[derive(Debug, Default)]
pub(super) struct Shown(ArcSwapOption<Svid>);

impl Shown {
    pub fn svid(&self) -> Option<Arc<Svid>> {
        self.0.load_full()
    }

    pub fn set(&self, svid: Svid) {
        self.0.store(Some(Arc::new(svid)));
    }

    fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|svid| svid.key.clone())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}
