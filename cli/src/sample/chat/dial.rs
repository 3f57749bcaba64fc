//! A connection to a gRPC server: cleartext HTTP/2, direct or through an HTTP proxy by CONNECT.
//!
//! Reads the variables gRPC libraries read: `grpc_proxy`, `https_proxy`, `http_proxy`, the first that is set, and
//! `no_grpc_proxy` or `no_proxy`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, bail};
use http::uri::Authority;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::codegen::Service;

use crate::sample::client::Proxies;

/// One HTTP/2 connection, as tonic's client wants it.
#[derive(Clone, Debug)]
pub struct Connection(http2::SendRequest<tonic::body::Body>);

impl Service<http::Request<tonic::body::Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// The proxy variables of the environment, for gRPC.
pub fn proxies_from_env() -> anyhow::Result<Proxies> {
    let first = |names: &[&str]| {
        names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let proxy = first(&["grpc_proxy", "https_proxy", "http_proxy"]);
    Proxies::new(proxy.as_deref(), first(&["no_grpc_proxy", "no_proxy"]).as_deref())
}

pub async fn connect(address: &Authority, proxies: &Proxies) -> anyhow::Result<Connection> {
    let proxy = proxies.for_host(address);
    let next = proxy.unwrap_or(address);
    let host = next.host().trim_start_matches('[').trim_end_matches(']');
    let port = next.port_u16().with_context(|| format!("{next}: no port"))?;
    let stream =
        TcpStream::connect((host, port)).await.with_context(|| format!("cannot connect to {next}"))?;
    stream.set_nodelay(true)?;
    if proxy.is_none() {
        return http2_over(stream).await;
    }
    http2_over(tunnel(stream, address).await.with_context(|| format!("proxy {next}"))?).await
}

async fn http2_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> anyhow::Result<Connection> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // Ends with the last sender; what breaks it reaches the caller through the calls.
    tokio::spawn(connection);
    Ok(Connection(sender))
}

/// Asks the proxy for a tunnel to `address` (RFC 9110 §9.3.6).
async fn tunnel(stream: TcpStream, address: &Authority) -> anyhow::Result<TokioIo<Upgraded>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let request = http::Request::connect(address.as_str())
        .header(http::header::HOST, address.as_str())
        .body(http_body_util::Empty::<bytes::Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        bail!("answered {} to CONNECT {address}", response.status());
    }
    Ok(TokioIo::new(hyper::upgrade::on(response).await?))
}
