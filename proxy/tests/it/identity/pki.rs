//! Certificate authorities and certificates, good and bad ones, as files and as TLS clients.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proxy::identity::{self, Provision};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// A root that signs leaves itself.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

/// What a leaf is to say.
#[derive(Clone)]
pub struct Wanted<'a> {
    pub names: Vec<SanType>,
    pub from: SystemTime,
    pub to: SystemTime,
    pub common_name: &'a str,
}

impl Wanted<'_> {
    pub fn new(uris: &[&str]) -> Self {
        let now = SystemTime::now();
        Self {
            names: uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))).collect(),
            from: now - Duration::from_secs(300),
            to: now + Duration::from_secs(3600),
            common_name: "leaf",
        }
    }

    /// Seconds from now on, negative ones before.
    pub fn valid(mut self, from: i64, to: i64) -> Self {
        let at = |seconds: i64| {
            let now = SystemTime::now();
            let by = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - by } else { now + by }
        };
        (self.from, self.to) = (at(from), at(to));
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.common_name);
        params.subject_alt_names = self.names.clone();
        (params.not_before, params.not_after) = (self.from.into(), self.to.into());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params
    }

    /// Signed by nobody but itself.
    pub fn self_signed(&self) -> Leaf {
        let key = key();
        let mut params = self.params();
        // As `openssl req -x509` makes it.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("it can be signed");
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = key();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("it can be signed");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// For one hour, as a workload's certificate is meant to be.
    pub fn leaf(&self, id: &str) -> Leaf {
        self.sign(&Wanted::new(&[id]))
    }

    /// Signs a request's key, whatever the request asks for. PEM.
    pub fn answer(&self, request: &str, wanted: &Wanted) -> String {
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(request).expect("a request");
        request.params = wanted.params();
        request.signed_by(&self.issuer).expect("it can be signed").pem()
    }

    pub fn sign(&self, wanted: &Wanted) -> Leaf {
        let key = key();
        let certificate = wanted.params().signed_by(&key, &self.issuer).expect("it can be signed");
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("randomness")
}

/// Where a proxy reads its certificate; each write puts new files in the place of the old ones.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn write(&self, leaf: &Leaf, roots: &[&Authority]) {
        self.roots(roots);
        self.put("key.pem", &leaf.key);
        self.put("cert.pem", &leaf.certificate);
    }

    pub fn roots(&self, roots: &[&Authority]) {
        self.put("roots.pem", &roots.iter().map(|root| root.pem.as_str()).collect::<String>());
    }

    fn put(&self, name: &str, text: &str) {
        let mut file = tempfile::NamedTempFile::new_in(self.0.path()).expect("a file");
        file.write_all(text.as_bytes()).expect("it can be written");
        file.persist(self.path(name)).expect("it can be renamed");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn provision(&self) -> Provision {
        Provision::Files(identity::Files {
            certificate: self.path("cert.pem"),
            key: self.path("key.pem"),
            trust_bundle: self.path("roots.pem"),
        })
    }
}

/// A client's configuration that shows `leaf` and believes anybody: what it is refused for is the other side's doing.
pub fn client(leaf: Option<&Leaf>, protocols: &[&[u8]]) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match leaf {
        Some(leaf) => {
            let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes());
            let chain = chain.collect::<Result<_, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("they belong together")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A server that shows `leaf`, for gRPC.
pub fn server(leaf: &Leaf) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("PEM");
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Result<_, _>>().expect("PEM"), key)
        .expect("they belong together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

pub fn name() -> ServerName<'static> {
    ServerName::try_from("callee.test").expect("a name")
}

#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
