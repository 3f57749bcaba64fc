//! Who this proxy is, and whom it believes.
//!
//! Owns the workload's certificate (`svid`), the trust bundle and what is made of both: the TLS configurations of either side (`trust`), which
//! check a peer's SPIFFE id instead of a host name (`verify`). Where they come from is `files`, or `authority` (renewed by
//! `rotate`, across restarts in `kept`, over connections of `control`).
//! Who spoke to whom, and how it was protected, is noted in `edges`. Never opens a connection of the mesh:
//! that is `downstream::mtls` and `upstream::tls`.
//!
//! A new leaf takes effect inside the one resolver all configurations share, so that sessions can be resumed across it. A new trust bundle makes new
//! configurations, so that nobody resumes what would not be believed today.

mod authority;
mod control;
pub mod edges;
mod failure;
mod files;
mod kept;
pub mod peer;
mod report;
mod rotate;
mod svid;
mod trust;
pub mod verify;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use outrigger_config::model::SpiffeId;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::Notify;

use crate::dns::Resolver;

pub use authority::Authority;
pub use control::Secure;
pub use edges::Edges;
pub use failure::{Cause, HandshakeFailure, is_refusal};
pub use files::Files;
pub use kept::Kept;
pub use peer::Peer;
pub(crate) use svid::Hex;
pub use svid::{Leaf, Svid, Unusable};
pub use trust::{Bundle, Offered, PLAIN_HTTP, Token};
use trust::{Shown, Trust};

/// Clocks differ by this much, and nobody is refused for it.
pub const SKEW: Duration = Duration::from_secs(60);

/// Where a proxy gets its certificate.
#[derive(Clone, Debug)]
pub enum Provision {
    Files(Files),
    Authority(Authority),
}

/// One a proxy.
#[derive(Debug)]
pub struct Identity {
    provision: Option<Provision>,
    provider: Arc<CryptoProvider>,
    shown: Arc<Shown>,
    trust: ArcSwapOption<Trust>,
    /// Bundle and trust domain change one at a time.
    changing: Mutex<()>,
    state: Mutex<State>,
    /// Told of every new certificate and bundle.
    changed: Notify,
    pub edges: Edges,
}

/// What there is to tell about where the certificate comes from.
#[derive(Clone, Debug, Default)]
struct State {
    /// Why there is no (newer) one.
    error: Option<String>,
    /// Since the process began.
    renewals: u64,
    /// Whether a restart finds the certificate again, or why not; `None` where somebody else keeps it.
    kept: Option<Result<(), String>>,
}

impl Identity {
    pub fn new(provision: Option<Provision>) -> Arc<Self> {
        Arc::new(Self {
            provision,
            provider: Arc::new(aws_lc_rs::default_provider()),
            shown: Arc::default(),
            trust: ArcSwapOption::empty(),
            changing: Mutex::new(()),
            state: Mutex::default(),
            changed: Notify::new(),
            edges: Edges::default(),
        })
    }

    /// A proxy that has none and speaks plaintext.
    pub fn none() -> Arc<Self> {
        Self::new(None)
    }

    /// Whether this proxy was told where its certificate comes from; else it speaks plaintext.
    pub fn is_configured(&self) -> bool {
        self.provision.is_some()
    }

    /// Gets the certificate and renews it, for as long as the process lives.
    pub async fn keep(self: Arc<Self>, dns: Arc<Resolver>) {
        match self.provision.clone() {
            None => {}
            Some(Provision::Files(files)) => files.follow(self).await,
            Some(Provision::Authority(authority)) => authority.run(self, dns).await,
        }
    }

    /// Whether the trust bundle is the control plane's to say.
    pub fn asks_for_bundle(&self) -> bool {
        matches!(self.provision, Some(Provision::Authority(_)))
    }

    fn kept(&self, kept: Result<(), String>) {
        self.state.lock().kept = Some(kept);
    }

    /// Why a restart would not find the certificate again, where that is so and this proxy's to see to.
    pub fn why_not_kept(&self) -> Option<String> {
        self.state.lock().kept.as_ref()?.as_ref().err().cloned()
    }

    /// The certificate in use.
    pub fn svid(&self) -> Option<Arc<Svid>> {
        self.shown.svid()
    }

    /// Why nothing can be spoken with mTLS now; `None` while it can.
    pub fn unusable(&self) -> Option<String> {
        self.unusable_at(SystemTime::now())
    }

    fn unusable_at(&self, now: SystemTime) -> Option<String> {
        let because = || match &self.state.lock().error {
            Some(error) => format!(": {error}"),
            None => String::new(),
        };
        let Some(svid) = self.svid() else {
            return Some(match self.provision {
                None => "this proxy was given no identity".into(),
                Some(_) => format!("this proxy has no certificate yet{}", because()),
            });
        };
        if self.trust.load().is_none() {
            return Some(format!("this proxy has no trust bundle yet{}", because()));
        }
        let expired = svid.leaf.not_after + SKEW < now;
        expired.then(|| format!("the certificate of this proxy has expired{}", because()))
    }

    /// Takes a certificate into use, from the next handshake on.
    pub fn set_svid(&self, svid: Svid) {
        let _one = self.changing.lock();
        let domain = svid.leaf.id.trust_domain().to_owned();
        tracing::info!(id = %svid.leaf.id, serial = svid.leaf.serial, "a new certificate is in use");
        self.shown.set(svid);
        {
            let mut state = self.state.lock();
            state.error = None;
            state.renewals += 1;
        }
        let bundle = self.trust.load().as_ref().map(|trust| (trust.bundle.clone(), trust.is_for(&domain)));
        if let Some((bundle, false)) = bundle {
            self.make_trust(bundle, &domain);
        }
        self.changed.notify_one();
    }

    /// Believes these roots and no others, from the next handshake on.
    pub fn set_bundle(&self, bundle: Bundle) {
        let _one = self.changing.lock();
        if self.trust.load().as_ref().is_some_and(|trust| *trust.bundle == bundle) {
            return;
        }
        tracing::info!(roots = bundle.len(), "a new trust bundle is in use");
        let domain = self.svid().map(|svid| svid.leaf.id.trust_domain().to_owned()).unwrap_or_default();
        self.make_trust(Arc::new(bundle), &domain);
        self.changed.notify_one();
    }

    fn make_trust(&self, bundle: Arc<Bundle>, domain: &str) {
        match Trust::new(bundle, domain, &self.provider, &self.shown) {
            Ok(trust) => self.trust.store(Some(Arc::new(trust))),
            Err(error) => self.failed(format!("the trust bundle cannot be used: {error}")),
        }
    }

    /// Notes why there is no certificate, or no newer one.
    pub fn failed(&self, error: String) {
        tracing::warn!(error, "no new certificate for now");
        self.state.lock().error = Some(error);
    }

    /// For accepting a connection of the mesh, by what its ClientHello offers.
    pub fn server(&self, offered: Offered) -> Option<Arc<ServerConfig>> {
        self.trust.load().as_ref().map(|trust| trust.server(offered))
    }

    /// For a connection to exactly `id`; made once and used again.
    pub fn client(&self, id: &SpiffeId) -> Result<Arc<ClientConfig>, String> {
        if let Some(why) = self.unusable() {
            return Err(why);
        }
        let (Some(svid), Some(trust)) = (self.svid(), self.trust.load_full()) else {
            return Err("this proxy has no certificate yet".into());
        };
        trust.client(id, &svid, &self.provider, &self.shown).map_err(|error| error.to_string())
    }

    /// Forgets what could be resumed with `id`.
    pub fn forget_sessions(&self, id: &SpiffeId) {
        if let Some(trust) = &*self.trust.load() {
            trust.forget(id);
        }
    }

    pub fn trust_bundle(&self) -> Option<Arc<Bundle>> {
        self.trust.load().as_ref().map(|trust| trust.bundle.clone())
    }
}
