//! The control plane's own certificate, by which proxies know that they talk to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use outrigger_config::model::SpiffeId;
use outrigger_config::xds::certificates::{CONTROL_NAMESPACE, CONTROL_SERVICE_ACCOUNT};
use parking_lot::Mutex;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::keeper::{Ca, Present};
use super::x509::Error;

/// Resolves every handshake to the newest one.
#[derive(Debug)]
pub struct Own {
    /// Besides the SPIFFE id, for clients that look for one of these.
    names: Vec<SanType>,
    current: ArcSwapOption<CertifiedKey>,
    made: Mutex<Option<Made>>,
}

#[derive(Debug)]
struct Made {
    /// By which state of the CA; a new one may have another root.
    by: Arc<Present>,
    trust_domain: String,
    /// Half of its life.
    renew: SystemTime,
}

impl Own {
    /// `addresses` and `hosts` stand in the certificate beside the SPIFFE id.
    pub fn new(addresses: &[IpAddr], hosts: &[String]) -> Result<Self, Error> {
        let mut names: Vec<_> = addresses
            .iter()
            .filter(|address| !address.is_unspecified())
            .map(|address| SanType::IpAddress(*address))
            .collect();
        for host in hosts {
            let name =
                host.as_str().try_into().map_err(|_| Error::Wrong(format!("{host:?} is not a name")))?;
            names.push(SanType::DnsName(name));
        }
        Ok(Self { names, current: ArcSwapOption::empty(), made: Mutex::new(None) })
    }

    /// Makes a new one when it is time for that, or the CA has changed.
    pub fn keep(&self, ca: &Ca, trust_domain: &str, life: Duration, now: SystemTime) -> Result<(), Error> {
        let by = ca.present();
        let mut made = self.made.lock();
        let is_good =
            |made: &Made| Arc::ptr_eq(&made.by, &by) && made.trust_domain == trust_domain && now < made.renew;
        if made.as_ref().is_some_and(is_good) {
            return Ok(());
        }
        let id = SpiffeId::new(trust_domain, CONTROL_NAMESPACE, CONTROL_SERVICE_ACCOUNT)
            .map_err(|error| Error::Wrong(error.to_string()))?;
        let id = id.as_str().try_into().map_err(|_| Error::Wrong(format!("{id} is not ASCII")))?;
        let names = std::iter::once(SanType::URI(id)).chain(self.names.iter().cloned()).collect();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = ca.sign(&key, names, life, now)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(leaf.chain, private, &provider)
            .map_err(|error| Error::Wrong(error.to_string()))?;
        self.current.store(Some(Arc::new(certified)));
        let renew = now + leaf.until.duration_since(now).unwrap_or_default() / 2;
        *made = Some(Made { by, trust_domain: trust_domain.to_owned(), renew });
        Ok(())
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}
