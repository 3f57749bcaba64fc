//! A probe by HTTP or HTTPS: any answer from 200 to 399 is a good one.
//!
//! As the kubelet does: the certificate is not looked at, because an app's own is for others. Unlike it a redirect is not followed; it
//! is an answer.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Failed, here};

#[derive(Clone, Debug, PartialEq)]
pub struct HttpGet {
    pub port: u16,
    tls: bool,
    /// Path and query.
    path: String,
    headers: HeaderMap,
}

/// Of what an app says to a failed probe, bytes.
const MOST_SAID: usize = 4096;

impl HttpGet {
    /// `agent`: who asked, so that the app sees it is a probe.
    pub async fn make(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        agent: Option<&HeaderValue>,
    ) -> Result<(), Failed> {
        if !self.tls {
            return self.ask(stream, address, agent).await;
        }
        let name = ServerName::IpAddress(address.ip().into());
        let stream = connector()?.connect(name, stream).await;
        let stream = stream.map_err(|error| format!("no TLS with {address}: {error}"))?;
        self.ask(stream, address, agent).await
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
        agent: Option<&HeaderValue>,
    ) -> Result<(), Failed> {
        let failed = |error: hyper::Error| format!("no answer from {address}: {error}");
        let mut http = hyper::client::conn::http1::Builder::new();
        http.max_buf_size(64 * 1024);
        let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let asking = async {
            let answer = sender.send_request(self.request(address, agent)).await.map_err(failed)?;
            let status = answer.status();
            if (200..400).contains(&status.as_u16()) {
                return Ok(());
            }
            // What the app has to say ends up in the pod's events.
            let said = Limited::new(answer.into_body(), MOST_SAID).collect().await;
            let said =
                said.map(|said| String::from_utf8_lossy(&said.to_bytes()).into_owned()).unwrap_or_default();
            Err(said_no(status, &said))
        };
        tokio::pin!(asking, connection);
        tokio::select! {
            biased;
            answer = &mut asking => answer,
            // The answer may have come with the end, and an error is told to whoever asked.
            _ = &mut connection => asking.await,
        }
    }

    fn request(&self, address: SocketAddr, agent: Option<&HeaderValue>) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.parse().expect("parsed when it was read");
        let headers = request.headers_mut();
        let host =
            HeaderValue::from_str(&address.to_string()).expect("an address is made of digits and marks");
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, agent.cloned().unwrap_or(HeaderValue::from_static("outrigger-probe")));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        // Replaces the above where it has the same names; what is given twice is sent twice.
        for name in self.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        request
    }
}

fn said_no(status: StatusCode, said: &str) -> Failed {
    match said.trim() {
        "" => format!("the app answered {status}"),
        said => format!("the app answered {status}: {said}"),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Raw {
    port: u16,
    #[serde(default)]
    host: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    http_headers: Vec<RawHeader>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Scheme {
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "HTTPS")]
    Https,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    name: String,
    value: String,
}

impl TryFrom<Raw> for HttpGet {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        here(&raw.host)?;
        let slash = if raw.path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{}", raw.path);
        path.parse::<http::Uri>().map_err(|error| format!("path: {path:?}: {error}"))?;
        let mut headers = HeaderMap::new();
        for RawHeader { name, value } in raw.http_headers {
            let wrong = |what: &str| format!("httpHeaders: {name:?} has no valid {what}");
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("name"))?;
            headers.append(header, HeaderValue::from_str(&value).map_err(|_| wrong("value"))?);
        }
        Ok(Self { port: raw.port, tls: matches!(raw.scheme, Scheme::Https), path, headers })
    }
}

fn connector() -> Result<TlsConnector, Failed> {
    let provider = CryptoProvider::get_default().ok_or("no cryptography was installed")?.clone();
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes any certificate, as the kubelet does, if its owner is the one who speaks.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
