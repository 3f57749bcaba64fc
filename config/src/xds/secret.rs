//! Secrets: a certificate chain with its key, inline.

use super::at::{At, Unsupported, take};
use super::pb::core::data_source::Specifier;
use super::pb::{self, tls as proto};
use crate::model::{Secret, SecretName};

pub(super) fn encode(secret: &Secret) -> proto::Secret {
    let inline = |pem: &str| {
        Some(pb::core::DataSource {
            specifier: Some(Specifier::InlineString(pem.to_owned())),
            watched_directory: None,
        })
    };
    proto::Secret {
        name: secret.name.to_string(),
        r#type: Some(proto::secret::Type::TlsCertificate(proto::TlsCertificate {
            certificate_chain: inline(&secret.certificate_chain),
            private_key: inline(&secret.private_key),
            ..Default::default()
        })),
    }
}

/// No reason names what stands in the secret.
pub(super) fn decode(message: proto::Secret) -> Result<Secret, Unsupported> {
    let at = At::ROOT;
    let Some(proto::secret::Type::TlsCertificate(certificate)) = message.r#type else {
        return Err(at.field("type").refuse("not supported; only `tls_certificate` is"));
    };
    let at = at.field("tls_certificate");
    take! { at, certificate => proto::TlsCertificate;
        read { certificate_chain, private_key }
        ignore { ocsp_staple, signed_certificate_timestamp }
        refuse { pkcs12, watched_directory, private_key_provider, password, tls_params }
    };
    Ok(Secret {
        name: SecretName::new(message.name),
        certificate_chain: pem(certificate_chain, &at.field("certificate_chain"))?.into(),
        private_key: pem(private_key, &at.field("private_key"))?.into(),
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
