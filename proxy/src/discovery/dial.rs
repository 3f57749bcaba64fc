//! Connections to a control plane, for gRPC: plaintext, or TLS where its roots are given.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::Request;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use crate::dns::Resolver;
use crate::identity::{Identity, Secure};
use crate::upstream::connect::open_tcp;

/// Opens connections with our own resolver: a static binary has no other.
#[derive(Clone, Debug)]
pub struct Dial {
    pub dns: Arc<Resolver>,
    /// `None`: plaintext.
    pub secure: Option<(Secure, Arc<Identity>)>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not HOST:PORT of a control plane")]
pub struct InvalidAddress(Arc<str>);

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Until HTTP/2 is agreed on, with TLS before it.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

impl Dial {
    /// Checks an address before anybody is asked at it.
    pub fn endpoint(address: &Arc<str>) -> Result<Endpoint, InvalidAddress> {
        let invalid = || InvalidAddress(address.clone());
        // TLS, where there is some, is opened here: to the codec everything is plaintext.
        let uri: Uri = format!("http://{address}").parse().map_err(|_| invalid())?;
        if uri.port().is_none() || uri.host().is_none_or(str::is_empty) || uri.path() != "/" {
            return Err(invalid());
        }
        Ok(Endpoint::from(uri)
            .connect_timeout(READY_TIMEOUT)
            // A control plane that hangs is left after 15 s (requirements 4.3).
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true))
    }

    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, String> {
        endpoint.connect_with_connector(self.clone()).await.map_err(|error| causes(&error))
    }

    /// Says in a call which proxy this is.
    pub fn sign<T>(&self, request: &mut Request<T>) -> Result<(), String> {
        self.secure.as_ref().map_or(Ok(()), |(secure, _)| secure.sign(request))
    }

    async fn open(
        self,
        host: &str,
        port: u16,
    ) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let addresses = self.dns.addresses(host).await?;
        let mut failure = None;
        for address in addresses.iter() {
            match open_tcp((*address, port).into(), CONNECT_TIMEOUT).await {
                Ok(stream) => {
                    let Some((secure, identity)) = &self.secure else { return Ok(Connection::Plain(stream)) };
                    let stream = secure.open(stream, host, identity).await?;
                    return Ok(Connection::Tls(Box::new(stream)));
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.map_or_else(|| format!("{host} has no address").into(), Into::into))
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Connection>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let port = uri.port_u16().unwrap_or_default();
            dial.open(host, port).await.map(TokioIo::new)
        })
    }
}

/// What went wrong, down to where it began.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

/// An open connection to a control plane.
#[derive(Debug)]
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
