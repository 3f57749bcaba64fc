//! A small HTTP/1 client for the mesh's own local ports: admin, readiness.
//!
//! One request a connection, bounded in time and size. Never used for the traffic of apps.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// Largest answer read, in bytes.
const LIMIT: usize = 64 * 1024 * 1024;

/// The whole exchange has to fit into `timeout`.
pub async fn request(
    method: Method,
    address: SocketAddr,
    path_and_query: &str,
    headers: &[(String, String)],
    timeout: Duration,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(method).uri(path_and_query);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header(http::header::HOST, address.to_string());
        }
        let request = request.header(http::header::CONNECTION, "close").body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            match Limited::new(response.into_body(), LIMIT).collect().await {
                Ok(body) => anyhow::Ok((status, body.to_bytes())),
                Err(error) => bail!("reading the answer of {address}: {error}"),
            }
        };
        let (answer, _) = tokio::join!(answer, connection);
        answer
    };
    tokio::time::timeout(timeout, exchange)
        .await
        .with_context(|| format!("{address} did not answer within {timeout:?}"))?
}

pub async fn get(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
    timeout: Duration,
) -> anyhow::Result<(StatusCode, Bytes)> {
    request(Method::GET, address, path, headers, timeout).await
}

/// The answer of `http://ADDR:PORT` as JSON; any status but a success is an error.
pub async fn get_json<T: DeserializeOwned>(at: &str, path: &str, timeout: Duration) -> anyhow::Result<T> {
    let address: SocketAddr = at.trim_start_matches("http://").parse()?;
    let (status, body) = get(address, path, &[], timeout).await?;
    if !status.is_success() {
        bail!("{address} answered {status}");
    }
    Ok(serde_json::from_slice(&body)?)
}

pub async fn post(address: SocketAddr, path: &str, timeout: Duration) -> anyhow::Result<(StatusCode, Bytes)> {
    request(Method::POST, address, path, &[], timeout).await
}
