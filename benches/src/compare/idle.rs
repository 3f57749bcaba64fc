//! What open connections cost while nothing happens on them, and that they still work afterwards.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::Certificates;
use super::proxies::Running;
use super::scenario::{Body, Hops, Http, Setting};
use super::wire::Wire;

/// Until what is freed a moment later is freed.
const SETTLE: Duration = Duration::from_secs(2);
/// Opened first and kept: what the first connections of a process cost once is not theirs.
const FIRST: usize = 50;

/// Bytes a connection.
pub async fn run(
    running: &Running,
    certificates: &Certificates,
    setting: Setting,
    connections: usize,
) -> anyhow::Result<f64> {
    let mutual = setting.hops == Hops::Callee;
    let config = certificates.client(running.proxy.alpn(setting), mutual, false)?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut open = Vec::with_capacity(connections);
    for _ in 0..FIRST {
        open.push(Connection::open(running.at, setting, &connector).await?);
    }
    let before = running.resident()?;
    for _ in 0..connections {
        open.push(Connection::open(running.at, setting, &connector).await?);
    }
    sleep(SETTLE).await;
    let idle = running.resident()?;
    for connection in &mut open {
        connection.get().await.context("the second request of an idle connection")?;
    }
    Ok((idle.all - before.all) * 1024.0 * 1024.0 / connections as f64)
}

enum Connection {
    Plain(Wire<TcpStream>),
    Tls(Box<Wire<TlsStream<TcpStream>>>),
    Http2(SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// Opened, with one answer.
    async fn open(at: SocketAddr, setting: Setting, connector: &TlsConnector) -> anyhow::Result<Self> {
        let mut connection = match (setting.hops, setting.http) {
            (Hops::OneTls | Hops::Callee, _) => Self::Tls(Box::new(Wire::tls(at, connector).await?)),
            (_, Http::One) => Self::Plain(Wire::plain(at).await?),
            (_, Http::Two) => {
                let stream = TcpStream::connect(at).await?;
                let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(async move {
                    // Its errors come back with the requests.
                    let _ = connection.await;
                });
                Self::Http2(sender)
            }
        };
        connection.get().await?;
        Ok(connection)
    }

    async fn get(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Plain(wire) => wire.keep().await,
            Self::Tls(wire) => wire.keep().await,
            Self::Http2(sender) => {
                poll_fn(|context| sender.poll_ready(context)).await?;
                let request = Request::get("http://callee.test/1k").body(Empty::new())?;
                let response = sender.send_request(request).await?;
                let status = response.status();
                let length = response.into_body().collect().await?.to_bytes().len() as u64;
                ensure!(status == 200 && length == Body::Small.answered(), "{status}, {length} bytes");
                Ok(())
            }
        }
    }
}
