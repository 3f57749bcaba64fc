//! Real loopback sockets, real servers (hyper, h2, or bytes written by hand), all in one thread.

mod cluster;
mod connect;
mod ejection;
mod http1;
mod http2;
mod relay;
mod tasks;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_config::model::{self, ClusterName, Discovery, Health, UpstreamHttp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::{Cluster, Endpoint, HttpVersionChoice, Pools, SendError};
use crate::body::Body;
use crate::dns::Resolver;

pub(super) use HttpVersionChoice::{Http1, Http2};

pub(super) fn settings() -> model::Cluster {
    model::Cluster {
        name: ClusterName::outbound(80, "", "app.default.svc.cluster.local"),
        service: None,
        discovery: Discovery::Endpoints,
        http: UpstreamHttp::AsReceived,
        connect_timeout: model::Cluster::DEFAULT_CONNECT_TIMEOUT,
        idle_timeout: model::Cluster::DEFAULT_IDLE_TIMEOUT,
        multiplex: model::Multiplex::Never,
        circuit_breaker: Default::default(),
        balance: Default::default(),
        origin: None,
    }
}

pub(super) fn endpoint(address: SocketAddr) -> model::Endpoint {
    model::Endpoint {
        address,
        health: Health::Healthy,
        weight: 1,
        workload: None,
        zone: None,
        for_zones: vec![],
        identity: None,
        meshed: false,
    }
}

pub(super) fn endpoints(endpoints: Vec<model::Endpoint>) -> model::Endpoints {
    model::Endpoints { cluster: settings().name, endpoints }
}

/// A cluster of one endpoint, and the pools of one worker.
pub(super) struct Client {
    pub pools: Rc<Pools>,
    pub cluster: Arc<Cluster>,
    pub endpoint: Arc<Endpoint>,
}

impl Client {
    pub fn of(address: SocketAddr) -> Self {
        Self::with(settings(), address)
    }

    pub fn with(settings: model::Cluster, address: SocketAddr) -> Self {
        Self::to(settings, endpoint(address))
    }

    /// The endpoint is a sidecar.
    pub fn of_proxy(address: SocketAddr) -> Self {
        Self::to(settings(), model::Endpoint { meshed: true, ..endpoint(address) })
    }

    fn to(settings: model::Cluster, endpoint: model::Endpoint) -> Self {
        let cluster = Cluster::new(settings);
        cluster.set_endpoints(endpoints(vec![endpoint]));
        let picked = cluster.pick(Instant::now(), &mut SmallRng::seed_from_u64(1), &[]).expect("it has one");
        Self {
            pools: pools(Resolver::system(Handle::current())),
            endpoint: Arc::clone(picked.endpoint()),
            cluster,
        }
    }

    pub async fn send(
        &self,
        http: HttpVersionChoice,
        request: Request<Body>,
    ) -> Result<Response<Body>, SendError> {
        self.pools.send(&self.cluster, &self.endpoint, http, request).await
    }

    /// Status and whole body.
    pub async fn get(&self, http: HttpVersionChoice, path: &str) -> Result<(u16, Bytes), SendError> {
        let response = self.send(http, get(path)).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("the body is whole").to_bytes();
        Ok((status, body))
    }
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "app.test").body(Body::empty()).expect("it is valid")
}

pub(super) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("host", "app.test").body(body.into()).expect("it is valid")
}

/// A listener on a free port.
pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// An HTTP/1 server; `answer` is told the number of the connection (from 1).
pub(super) async fn http1_server<F, R>(answer: F) -> SocketAddr
where
    F: Fn(usize, Request<Incoming>) -> R + Clone + 'static,
    R: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let (listener, address) = listen().await;
    tokio::task::spawn_local(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.expect("it accepts");
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                let service = hyper::service::service_fn(move |request| {
                    let response = answer(number, request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

pub(super) fn ok(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(body.into()))
}

/// Lets everything that is ready run, a few times over.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// A server that is a script: what it does with its `number`th connection (from 1).
pub(super) async fn scripted<F, R>(script: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let (listener, address) = listen().await;
    tokio::task::spawn_local(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.expect("it accepts");
            tokio::task::spawn_local(script(number, stream));
        }
    });
    address
}

/// Reads one HTTP/1 request, head and body of `Content-Length`; `None` at the end of the connection.
pub(super) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => request.extend_from_slice(&chunk[..n]),
        }
    }
}

/// A body whose data comes as it is fed.
pub(super) fn body_of_hand() -> (Body, tokio::sync::mpsc::Sender<Bytes>) {
    let (feed, mut fed) = tokio::sync::mpsc::channel(1);
    let frames = futures_util::stream::poll_fn(move |cx| {
        fed.poll_recv(cx).map(|data: Option<Bytes>| data.map(|data| Ok(http_body::Frame::data(data))))
    });
    (Body::wrapped(http_body_util::StreamBody::new(frames)), feed)
}

/// Of a worker without an identity.
pub(super) fn pools(dns: Arc<Resolver>) -> Rc<Pools> {
    Pools::new(
        dns,
        crate::identity::Identity::none(),
        crate::telemetry::Metrics::new(1),
        Default::default(),
        false,
        Rc::default(),
    )
}
