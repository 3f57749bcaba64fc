//! How the control plane is reached with TLS, for configuration as for certificates.
//!
//! Owns what is believed of it (a file of roots, and the trust bundle once there is one) and what it is shown (a token). Both are read anew for each connection,
//! so that whoever renews them need not tell us. Never keeps a connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::xds::certificates::{AUTHORIZATION, authorization};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Request;

use super::verify::ControlPlane;
use super::{Bundle, HandshakeFailure, Identity, files};

/// What a control plane is believed by, and what a proxy shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secure {
    /// Roots, PEM.
    pub roots: PathBuf,
    /// The token that says which proxy this is.
    pub token: Option<PathBuf>,
}

/// Until TLS is agreed on.
const HANDSHAKE: Duration = Duration::from_secs(5);

impl Secure {
    /// Opens TLS with the control plane called `host`.
    pub async fn open(
        &self,
        stream: TcpStream,
        host: &str,
        identity: &Identity,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is no host name"))?;
        let config = self.config(identity)?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        match timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                Err(format!("no TLS with the control plane: {}", HandshakeFailure::from(error)))
            }
            Err(_) => Err(format!("no TLS with the control plane within {HANDSHAKE:?}")),
        }
    }

    fn config(&self, identity: &Identity) -> Result<Arc<ClientConfig>, String> {
        let given = Bundle::from_pem(&files::read(&self.roots)?)
            .map_err(|error| format!("{}: {error}", self.roots.display()))?;
        let known = identity.trust_bundle();
        // The file may be older than a root that was replaced since.
        let all = given.iter().chain(known.iter().flat_map(|known| known.iter())).cloned().collect();
        let verifier = ControlPlane::new(Arc::new(Bundle::new(all).store()), &identity.provider);
        let builder = ClientConfig::builder_with_provider(identity.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?;
        let mut config =
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// Says in a call which proxy this is.
    pub fn sign<T>(&self, request: &mut Request<T>) -> Result<(), String> {
        let Some(path) = &self.token else { return Ok(()) };
        let token = files::read(path)?;
        let token = std::str::from_utf8(&token).ok().and_then(|token| authorization(token.trim()));
        let token = token.ok_or_else(|| format!("{}: this is no token", path.display()))?;
        request.metadata_mut().insert(AUTHORIZATION, token);
        Ok(())
    }
}
