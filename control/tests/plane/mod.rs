//! A control plane over a directory of its own, and a scripted delta ADS client.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use outrigger_config::model::{Resource, ResourceKind};
use outrigger_config::xds::certificates::{AUTHORIZATION, authorization};
use outrigger_config::xds::pb::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_config::xds::pb::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use outrigger_config::xds::{self, Node, Refusal, Role, Unsupported, names, pb, refusal};
use outrigger_control::{Config, Control, Identity};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// For whatever is sure to come; ten times the longest promise.
const DEADLINE: Duration = Duration::from_secs(10);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

pub struct Plane {
    pub dir: TempDir,
    pub ads: SocketAddr,
    pub api: SocketAddr,
    pub metrics: SocketAddr,
    pub secure: Option<SocketAddr>,
    end: Option<oneshot::Sender<()>>,
    pub server: JoinHandle<std::io::Result<()>>,
}

impl Plane {
    pub async fn start(files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self::over(dir).await
    }

    pub async fn over(dir: TempDir) -> Self {
        Self::with(dir, None).await
    }

    pub async fn with(dir: TempDir, identity: Option<Identity>) -> Self {
        let config = Config {
            manifests: vec![dir.path().to_owned()],
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ads_port: Some(0),
            metrics_port: 0,
            api_port: 0,
            identity,
            limits: None,
            experiments: None,
        };
        let control = Control::open(&config).await.unwrap();
        let (end, ended) = oneshot::channel::<()>();
        Self {
            dir,
            ads: control.ads_address().unwrap().unwrap(),
            api: control.api_address().unwrap(),
            metrics: control.metrics_address().unwrap(),
            secure: control.secure_address().unwrap(),
            end: Some(end),
            server: tokio::spawn(control.run(async {
                let _ = ended.await;
            })),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Renamed into place.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("new~"), text).unwrap();
        std::fs::rename(self.path("new~"), self.path(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        get(self.api, path).await
    }

    /// Waits until `object` (`KIND/NAMESPACE/NAME`) was read at `generation` and everyone concerned has answered.
    pub async fn synced(&self, object: &str, generation: i64) -> Value {
        let (status, answer) =
            self.get(&format!("/v1/synced?object={object}&generation={generation}&timeout=10s")).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Waits until the status page satisfies `want`.
    pub async fn status(&self, want: impl Fn(&Value) -> bool) -> Value {
        let looks = async {
            loop {
                let (_, status) = self.get("/v1/status").await;
                if want(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon("the status", looks).await
    }

    pub async fn metric(&self, line: &str) -> Option<f64> {
        let page = fetch(self.metrics, "/metrics").await.1;
        page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }

    pub fn stop(&mut self) {
        drop(self.end.take());
    }
}

pub async fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = fetch(address, path).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

async fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: control\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub fn sidecar(name: &str) -> Node {
    Node::new(Role::Sidecar { namespace: "default".into(), workload: name.into() }, None)
}

/// A proxy that says exactly what the test has it say.
pub struct Client {
    node: Option<pb::core::Node>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// Responses so far.
    pub heard: usize,
}

impl Client {
    pub async fn connect(plane: &Plane, node: Node) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", plane.ads)).unwrap();
        Self::over(endpoint.connect().await.unwrap(), node).await
    }

    pub async fn over(channel: Channel, node: Node) -> Self {
        Self::saying(channel, node, None).await.unwrap()
    }

    /// With a token.
    pub async fn saying(channel: Channel, node: Node, token: Option<&str>) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(token) = token {
            request.metadata_mut().insert(AUTHORIZATION, authorization(token).unwrap());
        }
        let responses = AggregatedDiscoveryServiceClient::new(channel)
            .delta_aggregated_resources(request)
            .await?
            .into_inner();
        Ok(Self { node: Some(node.to_message()), requests, responses, heard: 0 })
    }

    pub async fn send(&mut self, request: DeltaDiscoveryRequest) {
        let request = DeltaDiscoveryRequest { node: self.node.take(), ..request };
        self.requests.send(request).await.unwrap();
    }

    /// Says it is someone else.
    pub async fn send_as(&mut self, node: pb::core::Node, kind: ResourceKind, name: &str) {
        self.node = Some(node);
        self.subscribe(kind, &[name]).await;
    }

    pub async fn subscribe(&mut self, kind: ResourceKind, wanted: &[&str]) {
        self.send(DeltaDiscoveryRequest {
            type_url: names::type_url(kind).into(),
            resource_names_subscribe: wanted.iter().map(ToString::to_string).collect(),
            ..Default::default()
        })
        .await;
    }

    /// As after a reconnect: with the versions it has.
    pub async fn resume(&mut self, kind: ResourceKind, versions: &BTreeMap<String, String>) {
        self.send(DeltaDiscoveryRequest {
            type_url: names::type_url(kind).into(),
            resource_names_subscribe: versions.keys().cloned().collect(),
            initial_resource_versions: versions.clone().into_iter().collect(),
            ..Default::default()
        })
        .await;
    }

    pub async fn unsubscribe(&mut self, kind: ResourceKind, names: &[&str]) {
        self.send(DeltaDiscoveryRequest {
            type_url: xds::names::type_url(kind).into(),
            resource_names_unsubscribe: names.iter().map(ToString::to_string).collect(),
            ..Default::default()
        })
        .await;
    }

    /// The next response, not yet answered.
    pub async fn hear(&mut self) -> Response {
        let message =
            soon("a response", self.responses.message()).await.unwrap().expect("the stream is open");
        self.heard += 1;
        Response::of(message)
    }

    pub async fn ack(&mut self, response: &Response) {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        })
        .await;
    }

    pub async fn nack(&mut self, response: &Response, name: &str, path: &str, reason: &str) {
        let why = Unsupported { path: path.into(), reason: reason.into() };
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: Some(refusal::to_status(&[Refusal::new(name, why)])),
            ..Default::default()
        })
        .await;
    }

    /// The next response, acknowledged.
    pub async fn take(&mut self) -> Response {
        let response = self.hear().await;
        self.ack(&response).await;
        response
    }

    /// Subscribes to one name and takes the answer.
    pub async fn ask(&mut self, kind: ResourceKind, name: &str) -> Response {
        self.subscribe(kind, &[name]).await;
        self.take().await
    }

    /// How the stream ends.
    pub async fn end(mut self) -> Result<(), tonic::Status> {
        loop {
            match soon("the end", self.responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }

    /// Asks for a name nobody has: its answer is the very next response unless something came before.
    pub async fn assert_heard_nothing(&mut self) {
        let fence = "outbound|fence.nowhere:1";
        self.subscribe(ResourceKind::Listener, &[fence]).await;
        let response = self.take().await;
        assert_eq!(response.removed, [fence], "something was sent that changed nothing: {response:?}");
    }
}

#[derive(Debug)]
pub struct Response {
    pub type_url: String,
    pub nonce: String,
    pub kind: ResourceKind,
    pub resources: BTreeMap<String, Resource>,
    pub versions: BTreeMap<String, String>,
    pub removed: Vec<String>,
}

impl Response {
    fn of(message: DeltaDiscoveryResponse) -> Self {
        let mut response = Self {
            kind: names::kind(&message.type_url).unwrap(),
            type_url: message.type_url,
            nonce: message.nonce,
            resources: BTreeMap::new(),
            versions: BTreeMap::new(),
            removed: message.removed_resources,
        };
        for resource in message.resources {
            let decoded = xds::decode(&resource.resource.unwrap()).unwrap();
            assert_eq!(decoded.name(), resource.name);
            assert_eq!(decoded.version().to_string(), resource.version);
            response.versions.insert(resource.name.clone(), resource.version);
            response.resources.insert(resource.name, decoded);
        }
        response
    }

    pub fn only(&self) -> &Resource {
        assert_eq!((self.resources.len(), self.removed.len()), (1, 0), "{self:?}");
        self.resources.values().next().unwrap()
    }

    /// `IP:PORT state` of the only resource.
    pub fn endpoints(&self) -> Vec<String> {
        let Resource::Endpoints(endpoints) = self.only() else { panic!("{self:?}") };
        endpoints.endpoints.iter().map(|e| format!("{} {:?}", e.address, e.health)).collect()
    }
}
