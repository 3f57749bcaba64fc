//! One certification authority: a root, and what signs under it.

use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::x509::{self, Error};

/// As it is kept. Holds keys: never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authority {
    /// The first eight digits of the root's fingerprint.
    pub id: String,
    /// PEM.
    pub root: String,
    /// PEM. Absent where the root's key is kept elsewhere, and then new intermediates come from there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<String>,
    /// PEM; what signs first, up to but without the root. Empty where the root itself signs.
    pub chain: Vec<String>,
    /// PEM; belongs to the first of the chain, or to the root.
    pub key: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.id)
    }
}

impl Authority {
    /// A new root and an intermediate that signs for it.
    pub fn make(now: SystemTime) -> Result<Self, Error> {
        let name = format!("{:08x}", rand::random::<u32>());
        let root = x509::make_root(&name, now)?;
        let mut authority = Self {
            id: id_of(&root.certificate),
            root: pem_of(&root.certificate),
            root_key: Some(root.key.serialize_pem()),
            chain: Vec::new(),
            key: String::new(),
        };
        authority.make_intermediate(now)?;
        Ok(authority)
    }

    /// A given one: `certificates` in PEM, what signs first, then what signed that, with its root among them; `key` is the first one's.
    ///
    /// It is tried before it is taken: a leaf it signs has to verify.
    pub fn given(certificates: &str, key: &str, now: SystemTime) -> Result<Self, Error> {
        let (chain, mut roots) = sorted(certificates)?;
        let root = match roots.len() {
            1 => roots.remove(0),
            0 => return Err(Error::Wrong("no root (a certificate issued by itself) is among them".into())),
            n => return Err(Error::Wrong(format!("{n} roots are among them; one is expected"))),
        };
        let authority = Self {
            id: id_of(&root),
            root: pem_of(&root),
            root_key: None,
            chain: chain.iter().map(pem_of).collect(),
            key: key.to_owned(),
        };
        authority.issuer()?.prove(&[root], now)?;
        Ok(authority)
    }

    fn make_intermediate(&mut self, now: SystemTime) -> Result<(), Error> {
        let Some(root_key) = &self.root_key else { return Ok(()) };
        let root = self.root_certificate()?;
        let intermediate = x509::make_intermediate(&self.id, &root, KeyPair::from_pem(root_key)?, now)?;
        self.chain = vec![pem_of(&intermediate.certificate)];
        self.key = intermediate.key.serialize_pem();
        Ok(())
    }

    /// The same with a new intermediate, once half the life of the present one is over; `None` before, or where the root's key is not here.
    pub fn renewed(&self, now: SystemTime) -> Result<Option<Self>, Error> {
        let (Some(_), Some(present)) = (&self.root_key, self.chain.first()) else { return Ok(None) };
        let present = certificate(present)?;
        let (begin, end) = (x509::not_before(&present)?, x509::not_after(&present)?);
        let half = begin + end.duration_since(begin).unwrap_or_default() / 2;
        if now < half {
            return Ok(None);
        }
        let mut renewed = self.clone();
        renewed.make_intermediate(now)?;
        Ok(Some(renewed))
    }

    pub fn root_certificate(&self) -> Result<CertificateDer<'static>, Error> {
        certificate(&self.root)
    }

    pub fn issuer(&self) -> Result<Issuer, Error> {
        let chain = self.chain.iter().map(|pem| certificate(pem)).collect::<Result<Vec<_>, _>>()?;
        Issuer::new(chain, &self.root_certificate()?, &self.key)
    }
}

/// What signs leaves, ready to.
pub struct Issuer {
    /// Goes along with each leaf.
    chain: Vec<CertificateDer<'static>>,
    signer: rcgen::Issuer<'static, KeyPair>,
    until: SystemTime,
    root_until: SystemTime,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("until", &self.until).finish_non_exhaustive()
    }
}

/// A leaf with what leads to its root.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    pub until: SystemTime,
}

impl Leaf {
    /// One certificate each.
    pub fn pem(&self) -> Vec<String> {
        self.chain.iter().map(pem_of).collect()
    }
}

impl Issuer {
    /// `chain` as in [`Authority::chain`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        root: &CertificateDer<'_>,
        key: &str,
    ) -> Result<Self, Error> {
        let own = chain.first().unwrap_or(root);
        let key = KeyPair::from_pem(key).map_err(|e| Error::Wrong(format!("not a private key: {e}")))?;
        let parsed = x509::parse(own)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::Wrong("the key is not that of the first certificate".into()));
        }
        if !parsed.is_ca() {
            return Err(Error::Wrong("the first certificate may not sign others (basicConstraints)".into()));
        }
        let root_until = x509::not_after(root)?;
        let mut until = root_until;
        for certificate in &chain {
            until = until.min(x509::not_after(certificate)?);
        }
        let signer = rcgen::Issuer::from_ca_cert_der(own, key)?;
        Ok(Self { chain, signer, until, root_until })
    }

    /// When its own certificates end; no leaf of it lives longer.
    pub fn until(&self) -> SystemTime {
        self.until
    }

    /// When the root above it ends.
    pub fn root_until(&self) -> SystemTime {
        self.root_until
    }

    pub fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        life: Duration,
        now: SystemTime,
    ) -> Result<Leaf, Error> {
        let until = self.until.min(now + life);
        if until <= now {
            return Err(Error::Wrong("the authority itself has expired".into()));
        }
        let leaf = x509::sign_leaf(key, names, &self.signer, now, until)?;
        Ok(Leaf { chain: std::iter::once(leaf).chain(self.chain.iter().cloned()).collect(), until })
    }

    /// Signs a leaf and verifies it.
    pub fn prove(&self, roots: &[CertificateDer<'_>], now: SystemTime) -> Result<(), Error> {
        let key = KeyPair::generate()?;
        let leaf = self.sign(&key, Vec::new(), Duration::from_secs(60), now)?;
        x509::verify(&leaf.chain[0], &leaf.chain[1..], roots, now)
            .map_err(|error| Error::Wrong(format!("what it signs would not verify: {error}")))
    }
}

/// The certificates of a PEM file: those that lead up, in their order, and the roots.
pub fn sorted(pem: &str) -> Result<(Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>), Error> {
    let mut chain = Vec::new();
    let mut roots = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| Error::Wrong(format!("not PEM: {error}")))?;
        let is_root = x509::is_self_issued(&certificate)?;
        if is_root { &mut roots } else { &mut chain }.push(certificate);
    }
    if chain.is_empty() && roots.is_empty() {
        return Err(Error::Wrong("no certificate in it".into()));
    }
    Ok((chain, roots))
}

pub fn certificate(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| Error::Wrong(format!("not PEM: {error}")))
}

pub fn pem_of(certificate: &CertificateDer<'_>) -> String {
    outrigger_config::model::Root::new(certificate.as_ref()).pem()
}

/// SHA-256, hexadecimal.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id_of(root: &CertificateDer<'_>) -> String {
    fingerprint(root)[..8].to_owned()
}
