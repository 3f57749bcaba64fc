//! Steady load from many keep-alive connections, and what became of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// What to send, again and again.
#[derive(Clone, Debug)]
pub struct Shape {
    pub target: SocketAddr,
    pub path: String,
    pub host: String,
    pub connections: usize,
    pub version: Version,
    pub method: Method,
    pub body: Bytes,
    /// Between two requests of a connection.
    pub pause: Duration,
}

impl Shape {
    pub fn get(target: SocketAddr, path: &str, connections: usize) -> Self {
        Self {
            target,
            path: path.into(),
            host: target.to_string(),
            connections,
            version: Version::Http1,
            method: Method::GET,
            body: Bytes::new(),
            pause: Duration::from_millis(5),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub ok: usize,
    /// By what happened, at most 20 kinds.
    pub failures: BTreeMap<String, usize>,
    /// The bodies of the last answers, newest last, at most 4,000.
    pub bodies: Vec<Bytes>,
}

impl Tally {
    pub fn assert_no_failure(&self) {
        assert!(self.failures.is_empty(), "{} succeeded, but: {:#?}", self.ok, self.failures);
        assert!(self.ok > 0, "no request was made");
    }
}

/// Load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start(shape: Shape) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let thread = std::thread::spawn({
            let (stop, tally) = (stop.clone(), tally.clone());
            move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..shape.connections)
                        .map(|_| tokio::spawn(one_connection(shape.clone(), stop.clone(), tally.clone())))
                        .collect();
                    for task in tasks {
                        task.await.expect("no panic");
                    }
                });
            }
        });
        Self { stop, tally, thread: Some(thread) }
    }

    pub fn so_far(&self) -> Tally {
        self.tally.lock().expect("not poisoned").clone()
    }

    /// Forgets the bodies seen so far, so that what follows is seen alone.
    pub fn forget_bodies(&self) {
        self.tally.lock().expect("not poisoned").bodies.clear();
    }

    pub fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("still running").join().expect("no panic");
        self.so_far()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn one_connection(shape: Shape, stop: Arc<AtomicBool>, tally: Arc<Mutex<Tally>>) {
    let mut sender = None;
    while !stop.load(Ordering::Relaxed) {
        let outcome = tokio::time::timeout(Duration::from_secs(20), one_request(&shape, &mut sender)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("no answer within 20 s".into()));
        {
            let mut tally = tally.lock().expect("not poisoned");
            match outcome {
                Ok(body) => {
                    tally.ok += 1;
                    if tally.bodies.len() >= 4_000 {
                        tally.bodies.drain(..2_000);
                    }
                    tally.bodies.push(body);
                }
                Err(error) => {
                    sender = None;
                    if tally.failures.len() < 20 || tally.failures.contains_key(&error) {
                        *tally.failures.entry(error).or_default() += 1;
                    }
                }
            }
        }
        tokio::time::sleep(shape.pause).await;
    }
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    /// Like any HTTP client, it takes a new connection when the old one was closed in good order between two requests.
    async fn usable(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

async fn one_request(shape: &Shape, slot: &mut Option<Sender>) -> Result<Bytes, String> {
    if let Some(sender) = slot
        && !sender.usable().await
    {
        *slot = None;
    }
    if slot.is_none() {
        *slot = Some(connect(shape).await?);
    }
    let path = &shape.path;
    let request = |uri: String| {
        Request::builder()
            .method(shape.method.clone())
            .uri(uri)
            .header("host", &shape.host)
            .body(Full::new(shape.body.clone()))
            .map_err(|e| e.to_string())
    };
    let response = match slot {
        Some(Sender::Http1(sender)) => sender.send_request(request(path.clone())?).await,
        Some(Sender::Http2(sender)) => {
            sender.send_request(request(format!("http://{}{path}", shape.host))?).await
        }
        None => return Err("not connected".into()),
    }
    .map_err(|e| format!("sending: {e:?}"))?;
    let status = response.status();
    let reason = response
        .headers()
        .get("proxy-status")
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default();
    let closing = response.headers().get("connection").is_some_and(|value| value == "close");
    let body = response.into_body().collect().await.map_err(|e| format!("reading: {e:?}"))?.to_bytes();
    if closing {
        *slot = None;
    }
    if status.is_success() { Ok(body) } else { Err(format!("{status} {reason}")) }
}

async fn connect(shape: &Shape) -> Result<Sender, String> {
    let stream = TcpStream::connect(shape.target).await.map_err(|e| format!("connecting: {e}"))?;
    let io = TokioIo::new(stream);
    match shape.version {
        Version::Http1 => {
            let (sender, connection) =
                hyper::client::conn::http1::handshake(io).await.map_err(|e| format!("handshake: {e}"))?;
            tokio::spawn(async move {
                let _ = connection.await;
            });
            Ok(Sender::Http1(sender))
        }
        Version::Http2 => {
            let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(|e| format!("handshake: {e}"))?;
            tokio::spawn(async move {
                let _ = connection.await;
            });
            Ok(Sender::Http2(sender))
        }
    }
}
