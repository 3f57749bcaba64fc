//! Apps inside this process: they answer what they are told, at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// An app that listens until it is dropped; then its connections are cut, like those of a process that was killed.
pub struct App(JoinHandle<()>);

impl App {
    /// Answers every HTTP/1.1 request with `body`.
    pub async fn http(address: SocketAddr, body: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let answer = Arc::new(move |_: Request<Incoming>| async move {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(body.as_bytes()))))
        });
        Ok(Self(tokio::spawn(async move {
            // Dropped with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // An error would only say that the option is not known.
                let _ = stream.set_nodelay(true);
                let answer = answer.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request));
                    // How a client ends its connection is its own affair.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
                while connections.try_join_next().is_some() {}
            }
        })))
    }

    /// Speaks first: says `banner` and then waits for the client to go.
    pub async fn server_first(address: SocketAddr, banner: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    if stream.write_all(banner.as_bytes()).await.is_ok() {
                        let (mut read, _write) = stream.split();
                        // Ends with the client.
                        let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
                    }
                });
            }
        })))
    }

    /// Accepts, and never says a word.
    pub async fn silent(address: SocketAddr) -> anyhow::Result<Self> {
        Self::server_first(address, "").await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.0.abort();
    }
}
