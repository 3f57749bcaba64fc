//! Certificates being made and read: roots, intermediates, leaves.
//!
//! Owns what stands in each of them. Told the time; never decides who gets one.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates begin this much before they are made, for verifiers whose clocks are behind.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Of a root made here.
pub const ROOT_LIFE: Duration = DAY.saturating_mul(3_650);
/// Of an intermediate made here; it is replaced at half of it.
pub const INTERMEDIATE_LIFE: Duration = DAY.saturating_mul(365);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("making a certificate: {0}")]
    Making(#[from] rcgen::Error),
    #[error("{0}")]
    Wrong(String),
}

/// A CA certificate and its key.
pub struct Made {
    pub certificate: CertificateDer<'static>,
    pub key: KeyPair,
}

pub fn make_root(name: &str, now: SystemTime) -> Result<Made, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    // One intermediate below it, which has none below itself.
    let params = authority(&format!("Outrigger root {name}"), 1, now, ROOT_LIFE);
    let certificate = params.self_signed(&key)?.into();
    Ok(Made { certificate, key })
}

pub fn make_intermediate(
    name: &str,
    root: &CertificateDer<'_>,
    root_key: KeyPair,
    now: SystemTime,
) -> Result<Made, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let until = not_after(root)?;
    let life = INTERMEDIATE_LIFE.min(until.duration_since(now).unwrap_or_default());
    let params = authority(&format!("Outrigger intermediate {name}"), 0, now, life);
    let issuer = rcgen::Issuer::from_ca_cert_der(root, root_key)?;
    let certificate = params.signed_by(&key, &issuer)?.into();
    Ok(Made { certificate, key })
}

/// What stands in a leaf besides names, which is all a caller has a say in.
pub fn sign_leaf(
    key: &impl PublicKeyData,
    names: Vec<SanType>,
    issuer: &rcgen::Issuer<'_, KeyPair>,
    now: SystemTime,
    until: SystemTime,
) -> Result<CertificateDer<'static>, Error> {
    let mut params = CertificateParams::default();
    // An SVID is known by its SPIFFE id alone; without a subject the SAN is critical (RFC 5280 §4.2.1.6).
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial());
    params.not_before = (now - BACKDATE).into();
    params.not_after = until.into();
    Ok(params.signed_by(key, issuer)?.into())
}

fn authority(name: &str, path_length: u8, now: SystemTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Outrigger");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial());
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + life).into();
    params
}

/// 127 random bits: never negative, never zero but by a chance of 2^-127 (RFC 5280 §4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes = rand::random::<[u8; 16]>();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

pub fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Error::Wrong("bytes follow a certificate".into())),
        Err(error) => Err(Error::Wrong(format!("not a certificate: {error}"))),
    }
}

pub fn not_after(der: &CertificateDer<'_>) -> Result<SystemTime, Error> {
    Ok(system_time(parse(der)?.validity().not_after.to_datetime()))
}

pub fn not_before(der: &CertificateDer<'_>) -> Result<SystemTime, Error> {
    Ok(system_time(parse(der)?.validity().not_before.to_datetime()))
}

/// Issued by itself, which is what a root is.
pub fn is_self_issued(der: &CertificateDer<'_>) -> Result<bool, Error> {
    let certificate = parse(der)?;
    Ok(certificate.subject().as_raw() == certificate.issuer().as_raw())
}

/// Whether a leaf is good at `now` for whoever believes `roots`, as a peer's handshake would find out.
pub fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), Error> {
    let wrong = |error: rustls::Error| Error::Wrong(error.to_string());
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone().into_owned()).map_err(wrong)?;
    }
    let leaf = rustls::server::ParsedCertificate::try_from(leaf).map_err(wrong)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &leaf,
        &store,
        intermediates,
        now,
        algorithms.all,
    )
    .map_err(wrong)
}

fn system_time(at: OffsetDateTime) -> SystemTime {
    at.into()
}
