//! Secrets: a certificate chain with its key, or the roots that are believed, inline.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::at::{At, Unsupported, take};
use super::fields;
use super::pb::core::data_source::Specifier;
use super::pb::{self, tls as proto};
use crate::model::{Resource, Root, Secret, SecretName, TrustBundle};

pub(super) fn encode(secret: &Secret) -> proto::Secret {
    proto::Secret {
        name: secret.name.to_string(),
        r#type: Some(proto::secret::Type::TlsCertificate(proto::TlsCertificate {
            certificate_chain: inline(&secret.certificate_chain),
            private_key: inline(&secret.private_key),
            ..Default::default()
        })),
    }
}

/// As `trusted_ca`, which every client knows, and by the SPIFFE validator, which ties the roots to their trust domain.
pub(super) fn encode_bundle(bundle: &TrustBundle) -> proto::Secret {
    let pem = bundle.pem();
    let domain = proto::spiffe_cert_validator_config::TrustDomain {
        name: bundle.trust_domain().to_string(),
        trust_bundle: inline(&pem),
        ..Default::default()
    };
    let validator = proto::SpiffeCertValidatorConfig { trust_domains: vec![domain], ..Default::default() };
    proto::Secret {
        name: TrustBundle::NAME.to_owned(),
        r#type: Some(proto::secret::Type::ValidationContext(proto::CertificateValidationContext {
            trusted_ca: inline(&pem),
            custom_validator_config: Some(pb::core::TypedExtensionConfig {
                name: SPIFFE_VALIDATOR.to_owned(),
                typed_config: Some(fields::pack(&validator)),
            }),
            ..Default::default()
        })),
    }
}

/// No reason names what stands in the secret.
pub(super) fn decode(message: proto::Secret) -> Result<Resource, Unsupported> {
    let at = At::ROOT;
    match message.r#type {
        Some(proto::secret::Type::TlsCertificate(certificate)) => {
            decode_certificate(message.name, certificate, &at.field("tls_certificate")).map(Resource::Secret)
        }
        Some(proto::secret::Type::ValidationContext(context)) => {
            if message.name != TrustBundle::NAME {
                let name = TrustBundle::NAME;
                return Err(at
                    .field("name")
                    .refuse(format!("the only validation context is called {name:?}")));
            }
            decode_bundle(context, &at.field("validation_context")).map(Resource::TrustBundle)
        }
        _ => Err(at.field("type").refuse("only `tls_certificate` and `validation_context` are supported")),
    }
}

fn decode_certificate(
    name: String,
    certificate: proto::TlsCertificate,
    at: &At<'_>,
) -> Result<Secret, Unsupported> {
    take! { at, certificate => proto::TlsCertificate;
        read { certificate_chain, private_key }
        ignore { ocsp_staple, signed_certificate_timestamp }
        refuse { pkcs12, watched_directory, private_key_provider, password, tls_params }
    };
    Ok(Secret {
        name: SecretName::new(name),
        certificate_chain: pem(certificate_chain, &at.field("certificate_chain"))?.into(),
        private_key: pem(private_key, &at.field("private_key"))?.into(),
    })
}

fn decode_bundle(
    context: proto::CertificateValidationContext,
    at: &At<'_>,
) -> Result<TrustBundle, Unsupported> {
    take! { at, context => proto::CertificateValidationContext;
        // `trusted_ca` repeats the trust domain's bundle.
        read { custom_validator_config }
        ignore { trusted_ca, suppress_client_ca_list }
        refuse {
            ca_certificate_provider_instance, system_root_certs, watched_directory, verify_certificate_spki,
            verify_certificate_hash, match_typed_subject_alt_names, match_subject_alt_names,
            require_signed_certificate_timestamp, crl, allow_expired_certificate, trust_chain_verification,
            only_verify_leaf_cert_crl, max_verify_depth,
        }
    };
    let at = at.field("custom_validator_config");
    let config = custom_validator_config.and_then(|config| config.typed_config);
    let config = config.ok_or_else(|| at.refuse("missing: nothing else says whose roots these are"))?;
    let at = at.field("typed_config");
    let validator: proto::SpiffeCertValidatorConfig = fields::unpack(&config, &at)?;
    take! { at, validator => proto::SpiffeCertValidatorConfig;
        read { trust_domains }
        ignore {}
        refuse { trust_bundles }
    };
    let [domain] = <[_; 1]>::try_from(trust_domains).map_err(|all| {
        at.field("trust_domains").refuse(format!("{} of them; one is supported", all.len()))
    })?;
    let at = at.index("trust_domains", 0);
    take! { at, domain => proto::spiffe_cert_validator_config::TrustDomain;
        read { name, trust_bundle }
        ignore {}
        refuse { workload_trust_domain }
    };
    if name.is_empty() {
        return Err(at.field("name").missing());
    }
    let at = at.field("trust_bundle");
    let pem = pem(trust_bundle, &at)?;
    let roots = CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|root| root.map(|root| Root::new(root.as_ref())))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| at.refuse("not certificates in PEM"))?;
    TrustBundle::new(name, roots).ok_or_else(|| at.refuse("no certificate in it"))
}

fn inline(pem: &str) -> Option<pb::core::DataSource> {
    Some(pb::core::DataSource {
        specifier: Some(Specifier::InlineString(pem.to_owned())),
        watched_directory: None,
    })
}

fn pem(source: Option<pb::core::DataSource>, at: &At<'_>) -> Result<String, Unsupported> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineString(pem)) => Ok(pem),
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).map_err(|_| at.refuse("not PEM")),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) => {
            Err(at.refuse("not supported; only inline_string and inline_bytes are"))
        }
        None => Err(at.missing()),
    }
}

const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
