//! The HTTP/1.1 client the samples call each other with.
//!
//! Owns kept-alive connections and the proxy variables: with `http_proxy` (or `HTTP_PROXY`) set, requests to hosts
//! outside `no_proxy` (or `NO_PROXY`) go to that proxy in absolute form (RFC 9112 §3.2.2), as common HTTP clients send
//! them. Never retries a request that may have been read, and never waits past the caller's timeout.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::body::{BoxError, collect};

mod proxies;
pub use proxies::Proxies;

#[derive(Debug)]
pub struct Client {
    proxies: Proxies,
    idle: Mutex<HashMap<Authority, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    sender: Sender,
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// Why a call got no answer.
#[derive(Debug)]
pub enum CallError {
    /// Nothing, or not everything, came within this time.
    Timeout(Duration),
    /// No connection to this address.
    Connect(Authority, std::io::Error),
    /// The connection failed, or the answer was not HTTP or too long.
    Exchange(BoxError),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout(limit) => write!(f, "no answer within {limit:?}"),
            Self::Connect(authority, error) => write!(f, "cannot connect to {authority}: {error}"),
            Self::Exchange(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for CallError {}

impl Client {
    /// A client that obeys the proxy variables of the environment, the lower-case ones first.
    pub fn from_env() -> anyhow::Result<Self> {
        let either = |lower: &str, upper: &str| std::env::var(lower).or_else(|_| std::env::var(upper)).ok();
        Self::new(either("http_proxy", "HTTP_PROXY").as_deref(), either("no_proxy", "NO_PROXY").as_deref())
    }

    pub fn new(http_proxy: Option<&str>, no_proxy: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self { proxies: Proxies::new(http_proxy, no_proxy)?, idle: Mutex::default() })
    }

    /// Sends `request`, whose URI is absolute and `http`, and reads the whole answer, at most 1 MiB of it.
    pub async fn send(&self, request: Request<Bytes>, limit: Duration) -> Result<Response<Bytes>, CallError> {
        timeout(limit, self.exchange(request)).await.unwrap_or(Err(CallError::Timeout(limit)))
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let (next_hop, mut request) = self.address(request)?;
        loop {
            let (mut sender, reused) = match self.kept(&next_hop) {
                Some(sender) => (sender, true),
                None => (connect(&next_hop).await?, false),
            };
            let response = match sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message() {
                    // The kept connection was closed before anything was written to it.
                    Some(unsent) if reused => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(CallError::Exchange(error.into_error().into())),
                },
            };
            let (parts, body) = response.into_parts();
            let bytes = collect(body, MAX_ANSWER).await.map_err(CallError::Exchange)?;
            self.keep(next_hop, sender);
            return Ok(Response::from_parts(parts, bytes));
        }
    }

    /// Which address the request goes to, and the request in the form that one reads.
    fn address(&self, request: Request<Bytes>) -> Result<(Authority, Request<Full<Bytes>>), CallError> {
        let (mut parts, body) = request.into_parts();
        let (Some("http"), Some(authority)) = (parts.uri.scheme_str(), parts.uri.authority().cloned()) else {
            return Err(CallError::Exchange(format!("not an http:// address: {}", parts.uri).into()));
        };
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|error| CallError::Exchange(error.into()))?;
        parts.headers.insert(header::HOST, host);
        let next_hop = match self.proxies.for_host(&authority) {
            Some(proxy) => proxy.clone(),
            None => {
                let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
                parts.uri =
                    path.parse().map_err(|error: http::uri::InvalidUri| CallError::Exchange(error.into()))?;
                authority
            }
        };
        Ok((next_hop, Request::from_parts(parts, Full::new(body))))
    }

    fn kept(&self, next_hop: &Authority) -> Option<Sender> {
        let mut idle = self.idle();
        let kept = idle.get_mut(next_hop)?;
        while let Some(Idle { since, sender }) = kept.pop() {
            if since.elapsed() < IDLE && sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, next_hop: Authority, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle();
        let kept = idle.entry(next_hop).or_default();
        if kept.len() < MAX_IDLE {
            kept.push(Idle { since: Instant::now(), sender });
        }
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<Authority, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(address: &Authority) -> Result<Sender, CallError> {
    let host = address.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, address.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| CallError::Connect(address.clone(), error))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| CallError::Exchange(error.into()))?;
    // Ends when the sender is dropped or the server closes; the caller hears of errors through the sender.
    tokio::spawn(connection);
    Ok(sender)
}

/// Shorter than the idle time of common servers, the shortest of which close at 5 s.
const IDLE: Duration = Duration::from_secs(4);

const MAX_IDLE: usize = 32;

const MAX_ANSWER: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
