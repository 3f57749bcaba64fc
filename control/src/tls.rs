//! Connections over TLS 1.3, for the port where proxies say who they are.
//!
//! Owns the listening socket, the handshakes and how many of both there may be. Who may do what on a connection is told by
//! the token of each call.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::ca::limit;

/// Connections at a time, handshakes among them. A proxy has one, and one more for a moment when it asks for its certificate.
const MAX_CONNECTIONS: usize = 40_000;
/// Of them, from one host: outside Kubernetes all proxies of a machine may come from one address.
const MAX_OF_A_HOST: usize = 8_000;
/// Handshakes at a time: others wait in the backlog.
const MAX_HANDSHAKES: usize = 4_096;
/// Of them, from one host: what is more is closed, so that whoever opens connections and says nothing keeps only its own host waiting.
const HANDSHAKES_OF_A_HOST: usize = 512;
/// From the first byte to the last of a handshake (design.md 5, slow clients).
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After an error of the listening socket, which may be that no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// What a connection resolves to its certificate with.
pub fn config(certificate: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Connections whose handshake is done. Accepting ends when the stream is dropped.
pub fn incoming(listener: TcpListener, config: ServerConfig) -> ReceiverStream<io::Result<Connection>> {
    let (sender, done) = mpsc::channel(64);
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), sender));
    ReceiverStream::new(done)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, done: mpsc::Sender<io::Result<Connection>>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let hosts = Arc::new(Hosts::new(MAX_OF_A_HOST));
    let shaking = Arc::new(Hosts::new(HANDSHAKES_OF_A_HOST));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= MAX_HANDSHAKES {
            handshakes.join_next().await;
        }
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            () = done.closed() => return,
        };
        let (tcp, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = done.closed() => return,
        };
        let Some(host) = hosts.enter(peer.ip()) else {
            tracing::debug!(%peer, "closed: this host has {MAX_OF_A_HOST} connections");
            continue;
        };
        let Some(handshake) = shaking.enter(peer.ip()) else {
            tracing::debug!(%peer, "closed: this host has {HANDSHAKES_OF_A_HOST} handshakes under way");
            continue;
        };
        let (acceptor, done) = (acceptor.clone(), done.clone());
        handshakes.spawn(async move {
            // Small writes of one call each: waiting for more gains nothing.
            let _ = tcp.set_nodelay(true);
            let accepted = tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await;
            drop(handshake);
            match accepted {
                Ok(Ok(tls)) => {
                    // Refused where the server is ending.
                    let _ = done.send(Ok(Connection { tls, _permit: permit, _host: host })).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no handshake"),
                Err(_) => tracing::debug!(%peer, "no handshake within {HANDSHAKE:?}"),
            }
        });
    }
}

#[derive(Debug)]
pub struct Connection {
    tls: TlsStream<TcpStream>,
    _permit: OwnedSemaphorePermit,
    _host: Entered,
}

/// How many each host has of something.
#[derive(Debug)]
struct Hosts {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Entered {
    hosts: Arc<Hosts>,
    host: IpAddr,
}

impl Hosts {
    fn new(most: usize) -> Self {
        Self { most, counts: Mutex::default() }
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let host = limit::host(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(host).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Entered { hosts: self.clone(), host })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.hosts.counts.lock();
        if let Some(count) = counts.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.host);
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.tls.get_ref().0.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_share_and_gets_it_back() {
        const MOST: usize = 3;
        let hosts = Arc::new(Hosts::new(MOST));
        let enter = |address: &str| hosts.enter(address.parse().expect("an address"));
        let mut all: Vec<_> = (0..MOST).map(|_| enter("10.0.0.1").expect("its share")).collect();
        assert!(enter("10.0.0.1").is_none());
        assert!(enter("10.0.0.2").is_some());
        all.pop();
        all.push(enter("10.0.0.1").expect("one has gone"));
        drop(all);
        assert!(hosts.counts.lock().is_empty());
    }
}
