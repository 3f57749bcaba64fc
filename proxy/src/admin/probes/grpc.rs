//! A probe by gRPC: `grpc.health.v1.Health/Check`, in plaintext, must say SERVING.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::TcpStream;

use super::Failed;
use crate::grpc_health;

#[derive(Clone, Debug, PartialEq)]
pub struct Grpc {
    pub port: u16,
    /// Empty: the server as a whole.
    service: String,
}

impl Grpc {
    pub async fn make(&self, stream: TcpStream, address: SocketAddr) -> Result<(), Failed> {
        let failed = |error: hyper::Error| format!("no answer from {address} by HTTP/2: {error}");
        let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).max_header_list_size(64 * 1024);
        let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let asking = async {
            let answer = sender.send_request(self.request(address)).await.map_err(failed)?;
            if answer.status() != 200 {
                return Err(format!("the app answered {} to a gRPC health check", answer.status()));
            }
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, grpc_health::LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| format!("no whole answer from {address}: {error}"))?;
            let trailers = body.trailers().cloned();
            let judged = grpc_health::judge(&head.headers, trailers.as_ref(), &body.to_bytes());
            judged.map_err(|error| format!("the app {error}"))
        };
        tokio::pin!(asking, connection);
        tokio::select! {
            biased;
            answer = &mut asking => answer,
            // The answer may have come with the end, and an error is told to whoever asked.
            _ = &mut connection => asking.await,
        }
    }

    fn request(&self, address: SocketAddr) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(grpc_health::question(&self.service)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority(address.to_string())
            .path_and_query(grpc_health::PATH)
            .build()
            .expect("an address and a constant");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        request
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Raw {
    port: u16,
    #[serde(default)]
    service: Option<String>,
}

impl TryFrom<Raw> for Grpc {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let service = raw.service.unwrap_or_default();
        if service.len() > 256 {
            return Err("service: longer than 256 bytes".to_owned());
        }
        Ok(Self { port: raw.port, service })
    }
}
