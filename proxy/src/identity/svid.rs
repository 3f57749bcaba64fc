//! A workload's certificate: an X.509 SVID (SPIFFE X509-SVID), with the key that belongs to it.
//!
//! Owns what is read out of a certificate. Never decides whether one is believed (`verify`).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::model::SpiffeId;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Cause;

/// A certificate chain, leaf first, with its key.
#[derive(Clone, Debug)]
pub struct Svid {
    pub leaf: Leaf,
    pub key: Arc<CertifiedKey>,
}

/// Why certificate and key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("{0} cannot be read as PEM: {1}")]
    Pem(&'static str, String),
    #[error("there is no certificate")]
    NoCertificate,
    #[error("{0}")]
    Leaf(Cause),
    #[error("the key cannot be used, or is not the certificate's: {0}")]
    Key(String),
}

impl Svid {
    /// `chain` and `key` are PEM; the chain's leaf stands first.
    pub fn from_pem(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, Unusable> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| Unusable::Pem("the private key", error.to_string()))?;
        Self::new(chain, key, provider)
    }

    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, Unusable> {
        let leaf = Leaf::read(chain.first().ok_or(Unusable::NoCertificate)?).map_err(Unusable::Leaf)?;
        let key =
            CertifiedKey::from_der(chain, key, provider).map_err(|error| Unusable::Key(error.to_string()))?;
        Ok(Self { leaf, key: Arc::new(key) })
    }
}

/// The certificates of a PEM text; at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| Unusable::Pem("the certificate", error.to_string()))?;
    if all.is_empty() { Err(Unusable::NoCertificate) } else { Ok(all) }
}

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub id: SpiffeId,
    /// In hexadecimal, as openssl prints it.
    pub serial: Box<str>,
    pub issuer: Box<str>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Leaf {
    /// Fails where the certificate is not one of a workload: it must have exactly one URI among its names, and that a SPIFFE id.
    pub fn read(der: &[u8]) -> Result<Self, Cause> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Cause::BadCertificate)?;
        let names = certificate.subject_alternative_name().map_err(|_| Cause::BadCertificate)?;
        let mut uris =
            names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(Cause::NotOneUri) };
        let id = uri.parse().map_err(|_| Cause::NotASpiffeId)?;
        let validity = certificate.validity();
        Ok(Self {
            id,
            serial: Hex(certificate.raw_serial()).to_string().into(),
            issuer: certificate.issuer().to_string().into(),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }
}

/// Whether a certificate names itself as its issuer.
pub(super) fn is_self_issued(der: &[u8]) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, certificate)| certificate.issuer().as_raw() == certificate.subject().as_raw())
}

fn time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Bytes in hexadecimal, lower case.
pub(crate) struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
