//! A control plane with a CA of its own, and TLS clients that call it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
pub use outrigger_config::xds::certificates::AUDIENCE;
use outrigger_config::xds::certificates::{
    AUTHORIZATION, CertificateRequest, CertificateServiceClient, authorization,
};
use outrigger_config::xds::{Role, pb};
pub use outrigger_control::ca::Caller;
use outrigger_control::ca::TokenSigner;
use outrigger_control::{CaOrigin, Identity};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::plane::Plane;

pub struct Secured {
    pub plane: Plane,
    pub signer: TokenSigner,
    state: TempDir,
}

/// A request for a certificate.
#[derive(Clone)]
pub struct Asked {
    pub token: Option<String>,
    pub csr: String,
    pub life: i64,
    pub metadata: Option<pb::Struct>,
}

impl Asked {
    pub fn by(token: &str, csr: &str) -> Self {
        Self { token: Some(token.to_owned()), csr: csr.to_owned(), life: 0, metadata: None }
    }
}

pub fn caller(workload: &str, service_account: &str) -> Caller {
    Caller {
        role: Role::Sidecar { namespace: "default".into(), workload: workload.into() },
        service_account: service_account.into(),
    }
}

pub fn csr(key: &KeyPair, names: &[SanType]) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.serialize_request(key).unwrap().pem().unwrap()
}

impl Secured {
    pub async fn start(files: &[(&str, &str)]) -> Self {
        Self::over(files, TempDir::new().unwrap()).await
    }

    /// With the CA that may be in `state`.
    pub async fn over(files: &[(&str, &str)], state: TempDir) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let token_key = state.path().join("token.key");
        let signer = TokenSigner::open(&token_key).unwrap();
        let identity = Identity {
            ca: CaOrigin::Directory(state.path().join("ca")),
            token_key,
            listen: "127.0.0.1:0".parse().unwrap(),
            names: Vec::new(),
        };
        Self { plane: Plane::with(dir, Some(identity)).await, signer, state }
    }

    pub fn ca(&self) -> PathBuf {
        self.state.path().join("ca")
    }

    pub fn address(&self) -> SocketAddr {
        self.plane.secure.unwrap()
    }

    pub fn token(&self, caller: &Caller) -> String {
        self.signer.sign(caller, Duration::from_secs(3_600)).unwrap()
    }

    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        let pem = std::fs::read(self.ca().join("roots.pem")).unwrap();
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap()
    }

    pub async fn ask(&self, asked: &Asked) -> Result<Vec<String>, Status> {
        let mut request = Request::new(CertificateRequest {
            csr: asked.csr.clone(),
            validity_duration: asked.life,
            metadata: asked.metadata.clone(),
        });
        if let Some(token) = &asked.token {
            request.metadata_mut().insert(AUTHORIZATION, authorization(token).unwrap());
        }
        let mut client = CertificateServiceClient::new(self.channel().await);
        Ok(client.create_certificate(request).await?.into_inner().cert_chain)
    }

    pub async fn channel(&self) -> Channel {
        let dial = Dial { address: self.address(), config: config(&self.roots(), rustls::ALL_VERSIONS) };
        let endpoint = Endpoint::from_static("http://control");
        endpoint.connect_with_connector(dial).await.unwrap()
    }

    pub async fn handshake(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<TlsStream<TcpStream>> {
        Dial { address: self.address(), config: config(&self.roots(), versions) }.open().await
    }

    pub async fn handshake_believing(
        &self,
        roots: &[CertificateDer<'static>],
    ) -> io::Result<TlsStream<TcpStream>> {
        Dial { address: self.address(), config: config(roots, rustls::ALL_VERSIONS) }.open().await
    }
}

fn config(
    roots: &[CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[derive(Clone)]
struct Dial {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Dial {
    async fn open(self) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        TlsConnector::from(self.config).connect(self.address.ip().into(), tcp).await
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.open().await.map(TokioIo::new) })
    }
}
