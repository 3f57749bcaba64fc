//! What the tests are made of: a mesh given as resources, proxies that run on it, apps and clients.

pub(crate) use super::ports;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_config::model::{
    self, Action, Backend, BackendTarget, Cluster, ClusterName, Destination, DestinationName, Discovery,
    Endpoint, Endpoints, Forward, HeaderEdits, Health, HostPattern, Inbound, InboundPort, Listener, Mtls,
    Multiplex, Origin, PathMatch, Protocol, ProxySettings, Resource, Rewrite, Route, RouteMatch, RouteTable,
    ServiceRef, TcpForward, Timeouts, UpstreamHttp, VirtualHost, WeightedCluster, WorkloadRef,
};
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An event every test may wait for this long; only a failing one does.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

/// One service of the mesh, as its callers see it.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: DestinationName,
    pub protocol: Protocol,
    pub http: UpstreamHttp,
    pub endpoints: Vec<SocketAddr>,
    pub routes: Option<Vec<Route>>,
    pub tls: Vec<model::TlsRoute>,
    /// Of connections that are carried as bytes.
    pub idle: Option<Duration>,
}

impl Service {
    pub fn new(name: &str, endpoints: &[SocketAddr]) -> Self {
        Self {
            name: name.parse().expect("HOST:PORT"),
            protocol: Protocol::Http,
            http: UpstreamHttp::AsReceived,
            endpoints: endpoints.to_vec(),
            routes: None,
            tls: Vec::new(),
            idle: None,
        }
    }

    pub fn protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    pub fn http(self, http: UpstreamHttp) -> Self {
        Self { http, ..self }
    }

    pub fn routes(self, routes: Vec<Route>) -> Self {
        Self { routes: Some(routes), ..self }
    }

    pub fn cluster(&self) -> ClusterName {
        ClusterName::outbound(self.name.port(), "", self.name.host())
    }

    pub fn resources(&self) -> Vec<Resource> {
        let cluster = self.cluster();
        let service =
            Some(ServiceRef::new("default", self.name.host().split('.').next().unwrap_or_default()));
        let table = format!("outbound|{}|{}", self.name.port(), self.name.host());
        vec![
            Resource::Listener(Listener::Destination(Destination {
                name: self.name.clone(),
                service: service.clone(),
                protocol: self.protocol,
                routes: table.as_str().into(),
                tls: self.tls.clone(),
                tcp: TcpForward {
                    backends: vec![WeightedCluster { cluster: cluster.clone(), weight: 1 }],
                    idle: self.idle,
                    faults: None,
                },
                origin: None,
            })),
            table_of(&table, self.routes.clone().unwrap_or_else(|| vec![route("/", &cluster)])),
            cluster_of(&cluster, service, self.http),
            endpoints_of(&cluster, &self.endpoints),
        ]
    }
}

pub fn table_of(name: &str, routes: Vec<Route>) -> Resource {
    let hosts = vec![VirtualHost { domains: vec![HostPattern::Any], routes }];
    Resource::RouteTable(RouteTable { name: name.into(), hosts })
}

pub fn cluster_of(name: &ClusterName, service: Option<ServiceRef>, http: UpstreamHttp) -> Resource {
    Resource::Cluster(Cluster {
        name: name.clone(),
        service,
        discovery: Discovery::Endpoints,
        http,
        connect_timeout: Cluster::DEFAULT_CONNECT_TIMEOUT,
        idle_timeout: Cluster::DEFAULT_IDLE_TIMEOUT,
        multiplex: Multiplex::Never,
        circuit_breaker: Default::default(),
        balance: Default::default(),
        origin: None,
    })
}

pub fn endpoints_of(cluster: &ClusterName, addresses: &[SocketAddr]) -> Resource {
    let endpoint = |address: &SocketAddr| Endpoint {
        address: *address,
        health: Health::Healthy,
        weight: 1,
        workload: None,
        zone: None,
        for_zones: vec![],
        identity: None,
        meshed: false,
    };
    Resource::Endpoints(Endpoints {
        cluster: cluster.clone(),
        endpoints: addresses.iter().map(endpoint).collect(),
    })
}

/// Everything below `prefix` goes to the cluster.
pub fn route(prefix: &str, cluster: &ClusterName) -> Route {
    forward(prefix, vec![backend(cluster, 1)])
}

pub fn backend(cluster: &ClusterName, weight: u32) -> Backend {
    Backend {
        target: BackendTarget::Cluster(cluster.clone()),
        weight,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        rewrite: None,
    }
}

pub fn forward(prefix: &str, backends: Vec<Backend>) -> Route {
    Route {
        name: "test".into(),
        origin: Origin::new("HTTPRoute", "default", "test", "spec.rules[0]"),
        matches: RouteMatch {
            path: PathMatch::prefix(prefix),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        },
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        cors: None,
        mirrors: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        caps: None,
        faults: None,
        hash: vec![],
        action: Action::Forward(Forward { backends, rewrite: Rewrite::default() }),
    }
}

/// The inbound side of a workload.
pub fn inbound(ports: &[(u16, Protocol, SocketAddr)], settings: ProxySettings) -> Resource {
    let port = |(port, protocol, app): &(u16, Protocol, SocketAddr)| InboundPort {
        port: *port,
        protocol: *protocol,
        app: *app,
        service: Some(ServiceRef::new("default", "callee")),
        mtls: Mtls::default(),
        limits: Default::default(),
        faults: Vec::new(),
        origin: None,
    };
    Resource::Listener(Listener::Inbound(Inbound {
        workload: WorkloadRef {
            namespace: "default".into(),
            name: "test".into(),
            service_account: "default".into(),
        },
        ports: ports.iter().map(port).collect(),
        mtls: Mtls::default(),
        access: Default::default(),
        settings,
    }))
}

/// A sidecar before nothing, for its outbound side.
pub fn caller(services: &[Service]) -> Running {
    caller_with(services, ProxySettings::default(), |_| {})
}

pub fn caller_with(
    services: &[Service],
    settings: ProxySettings,
    change: impl FnOnce(&mut Setup),
) -> Running {
    let mut resources = vec![inbound(&[], settings)];
    resources.extend(services.iter().flat_map(Service::resources));
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(1);
    setup.outbound = vec![(LOOPBACK, 0).into()];
    change(&mut setup);
    app::start(setup, |_| Ok((Source::fixed(resources), None))).expect("it starts")
}

/// A sidecar before an app, and the address callers reach it at.
pub async fn callee(protocol: Protocol, app: SocketAddr) -> (Running, SocketAddr) {
    let port = ports::free();
    let resources = vec![inbound(&[(port, protocol, app)], ProxySettings::default())];
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(1);
    setup.inbound_listen = Some(LOOPBACK);
    let running = app::start(setup, |_| Ok((Source::fixed(resources), None))).expect("it starts");
    let at = offered(&running, port).await;
    (running, at)
}

/// Where a declared port is offered, once it is.
pub async fn offered(running: &Running, port: u16) -> SocketAddr {
    let mut offers = running.offered.clone();
    let offers = within("the port is offered", offers.wait_for(|offers| offers.contains_key(&port))).await;
    offers.expect("the proxy runs")[&port][0].clone().expect("it could be bound")
}

/// An app that answers each request by a function; HTTP/1 and HTTP/2 by their preface.
pub async fn app<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<AppBody>> + Send + 'static,
{
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut first = [0; 3];
                let http2 = matches!(stream.peek(&mut first).await, Ok(3)) && first == *b"PRI";
                let service = hyper::service::service_fn(move |request| {
                    let response = answer(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let io = TokioIo::new(stream);
                if http2 {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(io, service).await;
                } else {
                    let mut builder = hyper::server::conn::http1::Builder::new();
                    builder.preserve_header_case(true).half_close(true);
                    let _ = builder.serve_connection(io, service).with_upgrades().await;
                }
            });
        }
    });
    at
}

pub type AppBody = http_body_util::combinators::BoxBody<Bytes, Infallible>;

pub fn text(text: impl Into<Bytes>) -> AppBody {
    Full::new(text.into()).boxed()
}

/// An app that answers with what it was asked.
pub async fn echo() -> SocketAddr {
    app(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let mut said = format!("{} {} {:?}\n", head.method, head.uri, head.version);
        for (name, value) in &head.headers {
            said.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
        said.push('\n');
        said.push_str(&String::from_utf8_lossy(&body));
        Response::new(text(said))
    })
    .await
}

/// An app that speaks bytes: gets each connection.
pub async fn bytes_app<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    at
}

/// Sends bytes over a new connection and reads until the other side ends it.
pub async fn exchange_bytes(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.expect("it listens");
    stream.write_all(bytes).await.expect("it reads");
    let mut answer = Vec::new();
    within("the answer's end", stream.read_to_end(&mut answer)).await.expect("an orderly end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A response, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = within("the body's end", body.collect()).await.expect("a whole body");
        let trailers = body.trailers().cloned();
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Self { status: head.status.as_u16(), headers: head.headers, body, trailers }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The reason word, where the proxy answered by itself.
    pub fn reason(&self) -> &str {
        let status = self.header("proxy-status");
        status.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
    }
}

pub type ClientBody = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// One HTTP/1 connection.
pub struct Http1(hyper::client::conn::http1::SendRequest<ClientBody>);

impl Http1 {
    pub async fn connect(at: SocketAddr) -> Self {
        Self::over(TcpStream::connect(at).await.expect("it listens")).await
    }

    pub async fn over(
        io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.expect("HTTP/1");
        tokio::spawn(connection.with_upgrades());
        Self(sender)
    }

    pub async fn send(&mut self, request: Request<ClientBody>) -> Response<Incoming> {
        self.0.ready().await.expect("the connection is kept alive");
        within("a response", self.0.send_request(request)).await.expect("a response")
    }

    pub async fn get(&mut self, uri: &str, host: &str) -> Answer {
        let request = Request::get(uri).header("host", host).body(text("")).expect("valid");
        Answer::read(self.send(request).await).await
    }
}

/// One HTTP/2 connection with prior knowledge.
#[derive(Clone)]
pub struct Http2(hyper::client::conn::http2::SendRequest<ClientBody>);

impl Http2 {
    pub async fn connect(at: SocketAddr) -> Self {
        Self::over(TcpStream::connect(at).await.expect("it listens")).await
    }

    pub async fn over(
        io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(64 * 1024).initial_connection_window_size(4 * 1024 * 1024);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn try_send(&mut self, request: Request<ClientBody>) -> hyper::Result<Response<Incoming>> {
        within("a response", self.0.send_request(request)).await
    }

    pub async fn send(&mut self, request: Request<ClientBody>) -> Response<Incoming> {
        self.try_send(request).await.expect("a response")
    }

    pub async fn get(&mut self, uri: &str) -> Answer {
        Answer::read(self.send(Request::get(uri).body(text("")).expect("valid")).await).await
    }
}

/// A body whose frames are sent one after the other; it ends when the sender is dropped.
pub fn frames() -> (tokio::sync::mpsc::Sender<Frame<Bytes>>, ClientBody) {
    let (send, frames) = tokio::sync::mpsc::channel(1);
    (send, Frames(frames).boxed())
}

struct Frames(tokio::sync::mpsc::Receiver<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// A body of unknown length, with trailers.
pub fn with_trailers(data: Bytes, trailers: HeaderMap) -> AppBody {
    let (send, body) = frames();
    tokio::spawn(async move {
        for frame in [Frame::data(data), Frame::trailers(trailers)] {
            let _ = send.send(frame).await;
        }
    });
    body
}

/// The first flight of a TLS client.
pub fn client_hello(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from(name).expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("into memory");
    bytes
}
