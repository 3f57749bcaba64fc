//! A certificate from a certificate authority: asked for at the start, renewed in time, used as long as it is valid.
//!
//! Owns the private key's making; it is never sent. An authority that is away changes nothing until the certificate has expired, and when it is back,
//! the next attempt mends that, too.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::xds::certificates::{CertificateRequest, CertificateServiceClient};
use rand::RngExt;
use rand::seq::SliceRandom;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{sleep, timeout};
use tonic::Request;

use super::control::Secure;
use super::kept::{Kept, Material};
use super::rotate::{Retry, jitter, renewal};
use super::svid::{certificates, is_self_issued};
use super::{Bundle, Identity, Svid};
use crate::discovery::Dial;
use crate::dns::Resolver;

/// Where certificates are asked for, and where one is kept across restarts.
#[derive(Clone, Debug)]
pub struct Authority {
    /// `HOST:PORT`; replicas.
    pub addresses: Vec<Arc<str>>,
    pub secure: Secure,
    pub kept: Kept,
}

/// For one attempt, from the connection to the certificate.
const ATTEMPT: Duration = Duration::from_secs(15);

/// Between two certificates, however short they live.
const SOONEST: Duration = Duration::from_secs(1);

/// At most this long without a look at the clock, which may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Authority {
    pub(super) async fn run(self, identity: Arc<Identity>, dns: Arc<Resolver>) {
        let dial = Dial { dns, secure: Some((self.secure.clone(), identity.clone())) };
        self.renew(&identity, SystemTime::now, || self.ask(&identity, &dial)).await;
    }

    /// Asks at the start and whenever it is time to, by `clock`, for ever.
    async fn renew<A: Future<Output = Result<Material, String>>>(
        &self,
        identity: &Identity,
        clock: impl Fn() -> SystemTime,
        ask: impl Fn() -> A,
    ) {
        let mut held = self.reuse(identity, clock());
        let mut due = match identity.svid() {
            // How long ago it came is not known; its own beginning is close enough.
            Some(svid) => renewal(&svid.leaf, svid.leaf.not_before, jitter()),
            None => clock(),
        };
        let mut retry = Retry::default();
        loop {
            let left = due.duration_since(clock()).unwrap_or_default();
            if !left.is_zero() {
                tokio::select! {
                    () = sleep(left.min(LONGEST_SLEEP)) => {}
                    () = identity.changed.notified() => {
                        if let Some(held) = &held {
                            self.keep(identity, held);
                        }
                    }
                }
                continue;
            }
            match ask().await {
                Ok(material) => {
                    retry.reset();
                    let now = clock();
                    let renewal = identity.svid().map_or(now, |svid| renewal(&svid.leaf, now, jitter()));
                    due = renewal.max(now + SOONEST);
                    self.keep(identity, &material);
                    held = Some(material);
                }
                Err(error) => {
                    let now = clock();
                    let life = identity.svid().and_then(|svid| svid.leaf.not_after.duration_since(now).ok());
                    due = now + retry.pause(life.unwrap_or_default(), rand::rng().random());
                    identity.failed(error);
                }
            }
        }
    }

    /// Takes up what an earlier process kept, as long as it is valid.
    fn reuse(&self, identity: &Identity, now: SystemTime) -> Option<Material> {
        let material = match self.kept.read() {
            Ok(material) => material?,
            Err(why) => {
                tracing::warn!(why, "the certificate that was kept is not used");
                return None;
            }
        };
        match material.svid(&identity.provider) {
            Ok((svid, _)) if svid.leaf.not_after <= now => None,
            Ok((svid, bundle)) => {
                identity.set_bundle(bundle);
                identity.set_svid(svid);
                Some(material)
            }
            Err(why) => {
                tracing::warn!(why, "the certificate that was kept is not used");
                None
            }
        }
    }

    fn keep(&self, identity: &Identity, material: &Material) {
        let Some(bundle) = identity.trust_bundle() else { return };
        let kept = self.kept.write(&material.with_roots(&bundle));
        if let Err(why) = &kept {
            tracing::warn!(
                why,
                "the certificate is not kept: a restart while the authority is away would have none"
            );
        }
        identity.kept(kept);
    }

    /// One certificate, from the first authority that gives one.
    async fn ask(&self, identity: &Identity, dial: &Dial) -> Result<Material, String> {
        let mut addresses = self.addresses.clone();
        addresses.shuffle(&mut rand::rng());
        let mut failure = "no certificate authority is given".to_owned();
        for address in &addresses {
            match timeout(ATTEMPT, self.ask_at(address, identity, dial)).await {
                Ok(Ok(material)) => return Ok(material),
                Ok(Err(error)) => failure = format!("{address}: {error}"),
                Err(_) => failure = format!("{address}: no certificate within {ATTEMPT:?}"),
            }
        }
        Err(failure)
    }

    async fn ask_at(&self, address: &Arc<str>, identity: &Identity, dial: &Dial) -> Result<Material, String> {
        let endpoint = Dial::endpoint(address).map_err(|error| error.to_string())?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
        let csr = signing_request(&key).map_err(|error| error.to_string())?;
        let mut request = Request::new(CertificateRequest { csr, validity_duration: 0, metadata: None });
        dial.sign(&mut request)?;
        let channel = dial.connect(&endpoint).await?;
        let answer = CertificateServiceClient::new(channel).create_certificate(request).await;
        let answer =
            answer.map_err(|status| format!("{}: {}", status.code(), status.message()))?.into_inner();
        let mut chain =
            certificates(answer.cert_chain.join("\n").as_bytes()).map_err(|error| error.to_string())?;
        // Istio's authority appends its root, which nobody needs to be shown.
        let root = if chain.len() > 1 { chain.pop_if(|last| is_self_issued(last)) } else { None };
        let key = key.serialize_der();
        let svid = Svid::new(chain.clone(), private(&key)?, &identity.provider)
            .map_err(|error| error.to_string())?;
        if svid.leaf.not_after <= SystemTime::now() {
            return Err("its certificate has expired already: do the clocks agree?".into());
        }
        if identity.trust_bundle().is_none()
            && let Some(root) = root
        {
            identity.set_bundle(Bundle::new(vec![root]));
        }
        identity.set_svid(svid);
        Ok(Material::new(key, chain))
    }
}

/// Asks for nothing but a signature: whose certificate it is to be says the token.
fn signing_request(key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key)?.pem()
}

pub(super) fn private(der: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::try_from(der.to_vec()).map_err(ToOwned::to_owned)
}

pub(super) type Chain = Vec<CertificateDer<'static>>;

#[cfg(test)]
mod tests;
