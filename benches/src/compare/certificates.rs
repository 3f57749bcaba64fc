//! Certificates for all proxies alike: one root, ECDSA P-256 leaves for a caller and a callee, as files.
//!
//! Each leaf has one SPIFFE id and one DNS name, so that a proxy may verify either. The callee's also serves TLS to clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// The DNS name of every callee.
pub const CALLEE: &str = "callee.test";

/// A certificate, its key, and both in one file, as HAProxy has it. PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub both: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Certificates {
    pub root: PathBuf,
    pub caller: Leaf,
    pub callee: Leaf,
}

impl Certificates {
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let key = key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "benches");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = folder.join("root.pem");
        fs::write(&root, params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        let leaf = |name: &str| leaf(folder, name, &issuer).with_context(|| format!("certificate of {name}"));
        Ok(Self { root, caller: leaf("caller")?, callee: leaf("callee")? })
    }

    /// A TLS 1.3 client that proves to be the caller and believes only the callee. Key exchange is X25519 alone: not every peer knows more.
    pub fn client(&self, alpn: &str, mutual: bool, resume: bool) -> anyhow::Result<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.root)?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = if mutual {
            let chain = vec![CertificateDer::from_pem_file(&self.caller.certificate)?];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&self.caller.key)?)?
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![alpn.into()];
        config.resumption =
            if resume { Resumption::in_memory_sessions(1024) } else { Resumption::disabled() };
        Ok(config)
    }
}

/// How a client names the callee.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(CALLEE).expect("it is a DNS name")
}

fn leaf(folder: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) -> anyhow::Result<Leaf> {
    let key = key()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![
        SanType::URI(format!("spiffe://cluster.local/ns/default/sa/{name}").as_str().try_into()?),
        SanType::DnsName(format!("{name}.test").as_str().try_into()?),
    ];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let (certificate, key) = (params.signed_by(&key, issuer)?.pem(), key.serialize_pem());
    let leaf = Leaf {
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
        both: folder.join(format!("{name}.both.pem")),
    };
    fs::write(&leaf.certificate, &certificate)?;
    fs::write(&leaf.key, &key)?;
    fs::write(&leaf.both, certificate + &key)?;
    Ok(leaf)
}

fn key() -> anyhow::Result<KeyPair> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}
