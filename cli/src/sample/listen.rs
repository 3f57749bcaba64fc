//! How every sample listens, serves HTTP/1.1 and cleartext HTTP/2 on one port, and stops.
//!
//! Stopping is what an app owes a mesh: after SIGTERM it goes on accepting and answering for a short while, every
//! HTTP/1 answer carrying `Connection: close`; then idle connections close, HTTP/2 ones send GOAWAY, and what is still
//! being answered has until the end of `DRAIN`.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::{self, Body};

pub mod wire;
use wire::{Heads, Protocol, Wire};

/// Where to listen.
#[derive(Clone, Debug, clap::Args)]
pub struct Listen {
    /// Address or name to listen on
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: String,

    /// Port to listen on; 0 takes a free one. Default: the app's usual one
    #[arg(long, env = "PORT")]
    port: Option<u16>,
}

impl Listen {
    pub async fn bind(&self, usual_port: u16) -> anyhow::Result<TcpListener> {
        let port = self.port.unwrap_or(usual_port);
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        TcpListener::bind((host, port))
            .await
            .with_context(|| format!("cannot listen on {}:{port}", self.host))
    }
}

/// What answers the requests of one sample.
pub trait Handler: Send + Sync + 'static {
    /// Whether HTTP/1 requests carry a [`wire::Head`], their header section as it was received.
    const KEEPS_HEADS: bool = false;

    /// How many streams a client may have open on one HTTP/2 connection.
    fn max_streams(&self) -> u32 {
        MAX_STREAMS
    }

    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// The peer's address, in the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Asks a server and everything it started to stop, and knows when they have.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: CancellationToken,
    lingered: CancellationToken,
    tasks: TaskTracker,
}

impl Stop {
    /// Asked to stop by SIGTERM or SIGINT.
    pub fn on_signal() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = Self::default();
        let asked = stop.asked.clone();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            asked.cancel();
        });
        Ok(stop)
    }

    #[cfg(test)]
    pub fn ask(&self) {
        self.asked.cancel();
    }

    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Runs beside the connections; the server waits for it when it stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }
}

/// Says where `app` listens and serves until SIGTERM or SIGINT.
pub async fn run<H: Handler>(app: &str, listener: TcpListener, handler: H, stop: Stop) -> anyhow::Result<()> {
    say(&format!("{app}: listening on {}", listener.local_addr()?));
    serve(listener, Arc::new(handler), stop).await;
    say(&format!("{app}: stopped"));
    Ok(())
}

/// One line on stdout. A reader that went away is no reason to stop serving.
pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// One line on stderr, likewise.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Serves until `stop` is asked for, then for at most `DRAIN` more.
pub async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, stop: Stop) {
    let mut lingering = pin!(async {
        stop.asked().await;
        sleep(LINGER).await;
    });
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => stop.spawn(connection(stream, peer, handler.clone(), stop.clone())),
                // Out of file descriptors, or the peer is gone again: the next accept may succeed, but not at once.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            () = &mut lingering => break,
        }
    }
    drop(listener);
    stop.lingered.cancel();
    stop.tasks.close();
    if timeout(DRAIN - LINGER, stop.tasks.wait()).await.is_err() {
        complain(&format!("gave up on {} unfinished connections", stop.tasks.len()));
    }
}

async fn connection<H: Handler>(stream: TcpStream, peer: SocketAddr, handler: Arc<H>, stop: Stop) {
    // Answers are small and written whole; waiting for more bytes would only delay them.
    let _ = stream.set_nodelay(true);
    let sniffed = tokio::select! {
        sniffed = timeout(FIRST_BYTES, Wire::sniff(stream, H::KEEPS_HEADS)) => sniffed,
        () = stop.lingered.cancelled() => return,
    };
    let Ok(Ok((wire, protocol))) = sniffed else { return };
    let max_streams = handler.max_streams();
    let service = Service { handler, heads: wire.heads(), peer, stop: stop.clone() };
    let service = service_fn(move |request| service.clone().answer(request));
    let io = TokioIo::new(wire);
    match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_headers(256);
            let connection = builder.serve_connection(io, service).with_upgrades();
            drive(connection, |connection| connection.graceful_shutdown(), &stop).await;
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(max_streams)
                .max_header_list_size(64 * 1024);
            builder.enable_connect_protocol();
            let connection = builder.serve_connection(io, service);
            drive(connection, |connection| connection.graceful_shutdown(), &stop).await;
        }
    }
}

/// Serves one connection to its end, asking it to finish once the lingering time is over. What it ends with is its
/// peer's business and not looked at.
async fn drive<C: Future>(connection: C, finish: impl FnOnce(Pin<&mut C>), stop: &Stop) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.lingered.cancelled() => finish(connection.as_mut()),
    }
    connection.await;
}

struct Service<H> {
    handler: Arc<H>,
    heads: Option<Heads>,
    peer: SocketAddr,
    stop: Stop,
}

impl<H> Clone for Service<H> {
    fn clone(&self) -> Self {
        let Self { handler, heads, peer, stop } = self;
        Self { handler: handler.clone(), heads: heads.clone(), peer: *peer, stop: stop.clone() }
    }
}

impl<H: Handler> Service<H> {
    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        request.extensions_mut().insert(Peer(self.peer));
        if let Some(head) = self.heads.as_ref().and_then(Heads::take) {
            request.extensions_mut().insert(head);
        }
        let (http1, head) = (request.version() < Version::HTTP_2, request.method() == Method::HEAD);
        let mut response = self.handler.handle(request).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        if let Some(heads) = self.heads {
            heads.expect_next();
        }
        if head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            response = without_body(response, head);
        }
        if http1 && self.stop.is_asked() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// An answer that ends at its head (RFC 9110 §6.4.1); one to HEAD says how long its body would be. hyper leaves such bodies out over
/// HTTP/1, but sends them over HTTP/2.
fn without_body(mut response: Response<Body>, head: bool) -> Response<Body> {
    if head && let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response.map(|_| body::empty())
}

pub const MAX_STREAMS: u32 = 1000;

/// From SIGTERM on, how long new connections and requests are still taken: callers learn of the end by
/// `Connection: close` or an endpoint update, not by a reset.
const LINGER: Duration = Duration::from_millis(300);

/// From SIGTERM on, how long anything may take.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a connection may stay silent before its first request.
const FIRST_BYTES: Duration = Duration::from_secs(30);

/// How long a connection may idle between requests, or take over a request's head.
const IDLE: Duration = Duration::from_secs(75);

#[cfg(test)]
mod tests;
