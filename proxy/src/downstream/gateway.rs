//! Connections to a gateway's port: what its listeners are for is found by host, or by SNI where it is TLS.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Arrival;
use super::detect::Spoken;
use super::patience::HEAD;
use super::sniff::{self, Opening};
use super::{Connection, Stream, Towards, http, tcp};
use crate::failure::{Failure, Reason};
use crate::mesh::{Certificate, GatewayListener, GatewayPortSlot, ListenerTls};
use crate::upstream::relay::Resettable;

/// A connection to one of the gateway's ports.
pub async fn serve(io: impl Stream, arrival: Arrival, slot: Arc<GatewayPortSlot>) {
    let Some(port) = slot.current() else {
        let why = format!("the gateway has no port {} any more", arrival.port);
        return tcp::refuse(io, &arrival, &Failure::new(Reason::UnknownDestination, why));
    };
    // Bytes of any kind, perhaps of a server that speaks first: nothing is waited for.
    if let Some(listener) = port.listeners.iter().find(|l| !l.http && matches!(l.tls, ListenerTls::None)) {
        let destination = &listener.destination;
        return tcp::carry(io, &arrival, destination, &destination.tcp, None).await;
    }
    let Some(Opening { spoken, io, .. }) = sniff::look(io).await else { return };
    match spoken {
        Spoken::Http1 | Spoken::Http2 => {
            let connection = Connection::new(&arrival, Towards::Gateway(slot), spoken == Spoken::Http2);
            http::serve(io, connection).await;
        }
        Spoken::Tls { sni } => {
            let host = sni.as_deref().unwrap_or_default();
            let fits = |l: &&GatewayListener| !matches!(l.tls, ListenerTls::None) && l.hostname.matches(host);
            match port.listeners.iter().find(fits) {
                Some(listener) => secure(io, arrival, slot, listener, sni.as_deref()).await,
                None => {
                    let why = format!("no listener of port {} is for {host:?}", arrival.port);
                    tcp::refuse(io, &arrival, &Failure::new(Reason::NoRoute, why));
                }
            }
        }
        // The codec says in HTTP's words what is wrong with it.
        Spoken::Opaque => http::serve(io, Connection::new(&arrival, Towards::Gateway(slot), false)).await,
    }
}

async fn secure(
    io: impl Stream,
    mut arrival: Arrival,
    slot: Arc<GatewayPortSlot>,
    listener: &GatewayListener,
    sni: Option<&str>,
) {
    let destination = &listener.destination;
    let ListenerTls::Terminate(certificates) = &listener.tls else {
        return tcp::carry(io, &arrival, destination, destination.tls(sni), None).await;
    };
    let acceptor = TlsAcceptor::from(Arc::new(server_config(certificates, listener.http)));
    let stream = match timeout(HEAD, acceptor.accept(io)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(client = %arrival.client, %error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!(client = %arrival.client, "a TLS handshake took too long"),
    };
    arrival.secure = true;
    if !listener.http {
        return tcp::carry(stream, &arrival, destination, &destination.tcp, None).await;
    }
    let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    http::serve(stream, Connection::new(&arrival, Towards::Gateway(slot), http2)).await;
}

const HTTP2: &[u8] = b"h2";

fn server_config(certificates: &[Certificate], http: bool) -> ServerConfig {
    let keys = certificates.iter().map(|certificate| certificate.key.clone()).collect();
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(BySni(keys)));
    if http {
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    }
    config
}

/// The first certificate that is valid for the SNI; the first of all where none is, so that the client can say what it misses.
#[derive(Debug)]
struct BySni(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| {
            let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
            let leaf = key.cert.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
            name.zip(leaf)
                .is_some_and(|(name, leaf)| rustls::client::verify_server_name(&leaf, &name).is_ok())
        };
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

impl<T: Stream> Resettable for TlsStream<T> {
    fn reset(&mut self) {
        self.get_mut().0.reset();
    }
}
