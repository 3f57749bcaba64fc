//! What a proxy sends to have certified (PKCS #10).
//!
//! Nothing is taken from it but its public key. A request that asks for more than its sender would get is refused, not cut down: whoever
//! sent it counts on getting it. A subject grants nothing in this mesh and is passed over.

use outrigger_config::model::SpiffeId;
use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::refusal::Refusal;

/// Bytes of PEM. An RSA key of 4096 bits with its signature takes 1.7 KiB.
const LONGEST: usize = 16 << 10;

/// Bits. Shorter ones are not safe, longer ones cost each verifier more than they add.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

/// The key of a request that asks for no more than `id`, and whose sender has the private half.
pub fn key_of(pem: &str, id: &SpiffeId) -> Result<SubjectPublicKeyInfo, Refusal> {
    if pem.len() > LONGEST {
        return Err(Refusal::CsrUnreadable(format!("{} bytes are more than {LONGEST}", pem.len())));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| Refusal::CsrUnreadable(format!("no CERTIFICATE REQUEST in PEM: {error}")))?;
    let (rest, request) = X509CertificationRequest::from_der(&der)
        .map_err(|error| Refusal::CsrUnreadable(format!("not PKCS #10: {error}")))?;
    if !rest.is_empty() {
        return Err(Refusal::CsrUnreadable("bytes follow it".into()));
    }
    let key = key(&request)?;
    request.verify_signature().map_err(|_| Refusal::CsrSignature)?;
    asks_no_more(&request, id)?;
    Ok(key)
}

/// Judged before anything is verified with it.
fn key(request: &X509CertificationRequest<'_>) -> Result<SubjectPublicKeyInfo, Refusal> {
    let info = &request.certification_request_info.subject_pki;
    if let Ok(PublicKey::RSA(rsa)) = info.parsed()
        && !RSA_BITS.contains(&rsa.key_size())
    {
        return Err(Refusal::CsrKey(format!("RSA of {} bits", rsa.key_size())));
    }
    // Knows ECDSA on P-256 and P-384, Ed25519 and RSA, and no others.
    let key = SubjectPublicKeyInfo::from_der(info.raw)
        .map_err(|_| Refusal::CsrKey(format!("algorithm {}", info.algorithm.algorithm)))?;
    let accepted = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ];
    let algorithm = rcgen::PublicKeyData::algorithm(&key);
    if !accepted.contains(&algorithm) {
        return Err(Refusal::CsrKey(format!("algorithm {}", info.algorithm.algorithm)));
    }
    Ok(key)
}

fn asks_no_more(request: &X509CertificationRequest<'_>, id: &SpiffeId) -> Result<(), Refusal> {
    let more = |what: &str| Err(Refusal::CsrAsksMore(what.to_owned()));
    for attribute in request.certification_request_info.iter_attributes() {
        let requested = match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => requested,
            // Meant for revoking by hand; grants nothing.
            ParsedCriAttribute::ChallengePassword(_) => continue,
            _ => return more(&format!("attribute {}", attribute.oid)),
        };
        for extension in &requested.extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::URI(uri) if *uri == id.as_str() => {}
                            GeneralName::URI(uri) => {
                                return Err(Refusal::OtherIdentity(shortened(uri)));
                            }
                            other => return more(&format!("the name {}", shortened(&other.to_string()))),
                        }
                    }
                }
                ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                    return more("to be an authority (basicConstraints CA)");
                }
                ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
                    return more("to sign certificates or revocations (keyUsage)");
                }
                ParsedExtension::ExtendedKeyUsage(usage)
                    if usage.any
                        || usage.code_signing
                        || usage.email_protection
                        || usage.time_stamping
                        || usage.ocsp_signing
                        || !usage.other.is_empty() =>
                {
                    return more("more than TLS client and server (extendedKeyUsage)");
                }
                // What is left of these is what every leaf gets, or less.
                ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectKeyIdentifier(_) => {}
                _ => return more(&format!("extension {}", extension.oid)),
            }
        }
    }
    Ok(())
}

/// For messages: what a stranger wrote, of a length a log line can bear.
fn shortened(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests;
