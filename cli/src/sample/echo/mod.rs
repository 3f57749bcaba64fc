//! `echo`: says what it received, byte for byte where it can; what tests and demos call.
//!
//! | path | answer |
//! |---|---|
//! | `/status/N` | status N, 200 to 599 |
//! | `/delay/MS` | after MS milliseconds, at most 10 minutes |
//! | `/bytes/N` | N bytes `abc…zabc…`; with `?chunked` without a length |
//! | `/upload` | length and CRC-32 of the body |
//! | `/trailers` | a body with trailers |
//! | `/ws` | a WebSocket that echoes messages, over HTTP/1.1 or HTTP/2 |
//! | `/upgrade` | 101 to any `Upgrade`, then echoes bytes |
//! | any other | the request as JSON |
//!
//! A body is read to its end before the answer begins, and never held.

use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::body::{self, Body};
use super::listen::{self, Handler, Listen, MAX_STREAMS, Stop};

mod generated;
mod received;
mod websocket;

use received::{Described, Swallowed};

/// Answer every request with what was received; more under --help
///
/// Paths: /status/N, /delay/MS, /bytes/N, /upload, /trailers, /ws (WebSocket), /upgrade (any protocol). Every other
/// path answers the request as JSON. Speaks HTTP/1.1 and cleartext HTTP/2 on the same port.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    listen: Listen,

    /// Name of this instance, shown in every answer
    #[arg(long, env = "POD_NAME", default_value = "echo")]
    name: String,

    /// Streams a client may have open on one HTTP/2 connection
    #[arg(long, value_name = "STREAMS", default_value_t = MAX_STREAMS)]
    max_streams: u32,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let listener = args.listen.bind(PORT).await?;
    let stop = Stop::on_signal()?;
    let echo = Echo { name: args.name.clone(), max_streams: args.max_streams, stop: stop.clone() };
    listen::run(&args.name, listener, echo, stop).await
}

pub struct Echo {
    pub name: String,
    pub max_streams: u32,
    /// Ends what an upgrade left running.
    pub stop: Stop,
}

impl Handler for Echo {
    const KEEPS_HEADS: bool = true;

    fn max_streams(&self) -> u32 {
        self.max_streams
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/ws" => return websocket::accept(request, &self.stop),
            "/upgrade" => return self.upgrade(request),
            _ if request.method() == Method::CONNECT => {
                return self.refuse(StatusCode::METHOD_NOT_ALLOWED, "this is no proxy");
            }
            _ => {}
        }
        let described = Described::of(&request);
        let (parts, body) = request.into_parts();
        let Ok(swallowed) = Swallowed::whole(body).await else {
            return self.refuse(StatusCode::BAD_REQUEST, "the body broke off");
        };
        let path = parts.uri.path();
        if path == "/upload" {
            return body::json(StatusCode::OK, &json!({"instance": self.name, "body": swallowed.to_json()}));
        }
        if path == "/trailers" {
            return generated::with_trailers();
        }
        if let Some(number) = path.strip_prefix("/status/") {
            return self.status(number);
        }
        if let Some(number) = path.strip_prefix("/bytes/") {
            return match number.parse() {
                Ok(length) => generated::bytes(length, parts.uri.query() == Some("chunked")),
                Err(_) => self.refuse(StatusCode::BAD_REQUEST, "/bytes/N: N is a number of bytes"),
            };
        }
        if let Some(number) = path.strip_prefix("/delay/") {
            match number.parse().map(Duration::from_millis) {
                Ok(delay) if delay <= MAX_DELAY => tokio::time::sleep(delay).await,
                _ => return self.refuse(StatusCode::BAD_REQUEST, "/delay/MS: 0 to 600000 milliseconds"),
            }
        }
        body::json(StatusCode::OK, &described.to_json(&self.name, &swallowed))
    }
}

impl Echo {
    fn status(&self, number: &str) -> Response<Body> {
        match number.parse::<u16>() {
            // A 1xx is no final answer, so none is given as one.
            Ok(code @ 200..=599) => {
                let status = StatusCode::from_u16(code).expect("100 to 999 are statuses");
                body::json(status, &json!({"instance": self.name, "status": code}))
            }
            _ => self.refuse(StatusCode::BAD_REQUEST, "/status/N: 200 to 599"),
        }
    }

    fn refuse(&self, status: StatusCode, why: &str) -> Response<Body> {
        body::json(status, &json!({"instance": self.name, "error": why}))
    }

    /// Takes the first protocol that was offered and echoes its bytes.
    fn upgrade(&self, mut request: Request<Incoming>) -> Response<Body> {
        let offered = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
        let protocol =
            offered.and_then(|list| list.split(',').next()).map(str::trim).filter(|name| !name.is_empty());
        let Some(protocol) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) else {
            return self.refuse(StatusCode::BAD_REQUEST, "/upgrade: no Upgrade field");
        };
        let (upgrade, stop) = (hyper::upgrade::on(&mut request), self.stop.clone());
        self.stop.spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            tokio::select! {
                _ = tokio::io::copy(&mut read, &mut write) => {}
                () = stop.asked() => {}
            }
            let _ = write.shutdown().await;
        });
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(header::UPGRADE, protocol);
        response
    }
}

const PORT: u16 = 8080;
const MAX_DELAY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
