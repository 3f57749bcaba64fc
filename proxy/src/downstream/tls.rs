//! TLS towards a gateway's clients, and the opened connection of either kind (that of the mesh is `mtls`).
//!
//! Owns the handshake with the certificates a listener has at the time. A listener's configuration is made once for a set of certificates and
//! used until the set changes: clients can resume their sessions, and a renewed certificate holds from the next handshake on.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Stream;
use crate::mesh::Certificate;
use crate::upstream::relay::Resettable;
use crate::worker::Worker;

/// What a client chose to speak inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    Http1,
    Http2,
}

/// A connection whose TLS was opened. Boxed: it is a thousand bytes large, and handed on a few times.
#[derive(Debug)]
pub struct Opened<T>(Box<TlsStream<T>>);

/// `http`: offer `h2` and `http/1.1`.
pub async fn open<T: Stream>(
    io: T,
    worker: &Worker,
    certificates: &[Certificate],
    http: bool,
) -> io::Result<Opened<T>> {
    let config = worker.tls.configuration(certificates, http)?;
    TlsAcceptor::from(config).accept(io).await.map(Opened::new)
}

impl<T> Opened<T> {
    pub(super) fn new(stream: TlsStream<T>) -> Self {
        Self(Box::new(stream))
    }

    pub fn alpn(&self) -> Option<Alpn> {
        match self.0.get_ref().1.alpn_protocol()? {
            H2 => Some(Alpn::Http2),
            HTTP1 => Some(Alpn::Http1),
            _ => None,
        }
    }
}

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The configurations made so far. One a worker.
#[derive(Debug, Default)]
pub struct Configurations(RefCell<Vec<Made>>);

#[derive(Debug)]
struct Made {
    certificates: Vec<Arc<CertifiedKey>>,
    http: bool,
    config: Arc<ServerConfig>,
}

/// Most that are kept; the oldest goes.
const KEPT: usize = 256;

impl Configurations {
    fn configuration(&self, certificates: &[Certificate], http: bool) -> io::Result<Arc<ServerConfig>> {
        let same = |made: &&Made| {
            made.http == http
                && made.certificates.len() == certificates.len()
                && made.certificates.iter().zip(certificates).all(|(a, b)| Arc::ptr_eq(a, &b.key))
        };
        let mut made = self.0.borrow_mut();
        if let Some(found) = made.iter().find(same) {
            return Ok(found.config.clone());
        }
        if certificates.is_empty() {
            return Err(io::Error::other("the listener has no certificate"));
        }
        let keys: Vec<_> = certificates.iter().map(|certificate| certificate.key.clone()).collect();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByName(keys.clone())));
        if http {
            config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        }
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
        let config = Arc::new(config);
        if made.len() >= KEPT {
            made.remove(0);
        }
        made.push(Made { certificates: keys, http, config: config.clone() });
        Ok(config)
    }
}

/// The first certificate that is valid for the name the client asks for; the first of all where none is, or it names none.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| hello.server_name().is_some_and(|name| is_for(key, name));
        self.0.iter().find(fits).or_else(|| self.0.first()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &str) -> bool {
    let Ok(name) = rustls_pki_types::ServerName::try_from(name) else { return false };
    let Some(leaf) = key.cert.first() else { return false };
    rustls::server::ParsedCertificate::try_from(leaf)
        .is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, &name).is_ok())
}

impl<T: Stream> AsyncRead for Opened<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: Stream> AsyncWrite for Opened<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<T: Resettable> Resettable for Opened<T> {
    fn reset(&mut self) {
        self.0.get_mut().0.reset();
    }
}
