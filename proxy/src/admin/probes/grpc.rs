//! A probe by gRPC: `grpc.health.v1.Health/Check`, in plaintext, must say SERVING.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::Failed;

#[derive(Clone, Debug, PartialEq)]
pub struct Grpc {
    pub port: u16,
    /// Empty: the server as a whole.
    service: String,
}

/// Of an answer, bytes; it has a handful.
const MOST: usize = 4096;

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
            let body = Limited::new(body, MOST).collect().await;
            let body = body.map_err(|error| format!("no whole answer from {address}: {error}"))?;
            let status = |headers: &HeaderMap| headers.get("grpc-status").cloned();
            let status = body.trailers().and_then(status).or_else(|| status(&head.headers));
            if status.as_ref().is_none_or(|status| status != "0") {
                let code = status.as_ref().and_then(|status| status.to_str().ok()).unwrap_or("missing");
                return Err(format!("the app's health check ended with grpc-status {code}{}", hint(code)));
            }
            self.judge(&body.to_bytes())
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
        let message = CheckRequest { service: self.service.clone() }.encode_to_vec();
        let mut frame = BytesMut::new();
        // Not compressed, and its length.
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).expect("a name of at most 256 bytes"));
        frame.put_slice(&message);
        let mut request = Request::new(Full::new(frame.freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority(address.to_string())
            .path_and_query("/grpc.health.v1.Health/Check")
            .build()
            .expect("an address and a constant");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        request
    }

    fn judge(&self, body: &[u8]) -> Result<(), Failed> {
        let [0, _, _, _, _, message @ ..] = body else {
            return Err("the app's health check has no message".to_owned());
        };
        let answer =
            CheckResponse::decode(message).map_err(|error| format!("the app's health check: {error}"))?;
        match answer.status {
            SERVING => Ok(()),
            other => {
                Err(format!("the app says {:?} of itself", STATUSES.get(other as usize).unwrap_or(&"?")))
            }
        }
    }
}

fn hint(code: &str) -> &'static str {
    match code {
        "5" => " (NOT_FOUND): it knows no such service",
        "12" => " (UNIMPLEMENTED): it has no health service",
        _ => "",
    }
}

const SERVING: i32 = 1;
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
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
