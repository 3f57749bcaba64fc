//! A control plane of which each stream is in the hands of the test.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;

use futures_util::Stream;
use outrigger_config::xds::pb::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use outrigger_config::xds::pb::discovery::{DiscoveryRequest, DiscoveryResponse};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server as Grpc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::*;

/// No test waits longer for anything; the slowest of them takes a second.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    address: SocketAddr,
    streams: mpsc::Receiver<Asked>,
    opened: mpsc::Sender<Asked>,
    serving: Option<JoinHandle<()>>,
}

/// One stream.
pub struct Asked {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonce: u64,
    /// Those that came while an answer was awaited.
    subscriptions: VecDeque<DeltaDiscoveryRequest>,
}

impl Server {
    pub async fn start() -> Self {
        let (opened, streams) = mpsc::channel(4);
        let mut server = Self { address: ([127, 0, 0, 1], 0).into(), streams, opened, serving: None };
        server.restart().await;
        server
    }

    pub fn address(&self) -> Arc<str> {
        self.address.to_string().into()
    }

    /// Takes up the address it had before.
    pub async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is free");
        self.address = listener.local_addr().expect("bound");
        let service = AggregatedDiscoveryServiceServer::new(Ads(self.opened.clone()));
        self.serving = Some(tokio::spawn(async move {
            Grpc::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .expect("it serves");
        }));
    }

    /// Closes the port. Connections end with the streams, which the test holds.
    pub async fn kill(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
        while self.streams.try_recv().is_ok() {}
    }

    /// The next stream a proxy opens.
    pub async fn stream(&mut self) -> Asked {
        timeout(PATIENCE, self.streams.recv()).await.expect("a proxy connects").expect("the server lives")
    }
}

impl Asked {
    fn new(
        requests: Streaming<DeltaDiscoveryRequest>,
        responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Self {
        Self { requests, responses, nonce: 0, subscriptions: VecDeque::new() }
    }

    async fn next(&mut self) -> DeltaDiscoveryRequest {
        let next = timeout(PATIENCE, self.requests.message()).await.expect("a request comes");
        let request = next.expect("no error").expect("the stream is open");
        let names = request.resource_names_subscribe.len() + request.resource_names_unsubscribe.len();
        assert!(names > 0 || !request.response_nonce.is_empty(), "it asks for everything: {request:?}");
        request
    }

    /// The next request that is no mere answer.
    pub async fn request(&mut self) -> DeltaDiscoveryRequest {
        if let Some(request) = self.subscriptions.pop_front() {
            return request;
        }
        loop {
            let request = self.next().await;
            if request.response_nonce.is_empty() {
                return request;
            }
        }
    }

    pub async fn expect(&mut self, kind: ResourceKind, subscribed: &[&str]) {
        let request = self.request().await;
        assert_eq!(request.type_url, names::type_url(kind));
        assert_eq!(request.resource_names_subscribe, subscribed);
    }

    /// Answers requests until `count` of `resources` were asked for; what was asked, in this order.
    pub async fn serve(&mut self, resources: &[Resource], count: usize) -> Vec<(ResourceKind, String)> {
        let mut asked = Vec::new();
        while asked.len() < count {
            let request = self.request().await;
            let kind = names::kind(&request.type_url).expect("a kind");
            for name in request.resource_names_subscribe {
                let found =
                    resources.iter().find(|resource| resource.kind() == kind && resource.name() == name);
                self.say(vec![found.unwrap_or_else(|| panic!("{kind:?} {name} is not there")).clone()]).await;
                asked.push((kind, name));
            }
        }
        asked
    }

    /// Sends resources of one kind and awaits that they are taken.
    pub async fn say(&mut self, resources: Vec<Resource>) {
        let kind = resources[0].kind();
        let answer = self.send(kind, resources.iter().map(wire).collect(), vec![]).await;
        assert_eq!(answer.error_detail, None);
    }

    /// Sends a response and returns its ACK or NACK.
    pub async fn send(
        &mut self,
        kind: ResourceKind,
        resources: Vec<wire::Resource>,
        removed_resources: Vec<String>,
    ) -> DeltaDiscoveryRequest {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let type_url = names::type_url(kind).to_owned();
        let response = DeltaDiscoveryResponse {
            type_url,
            nonce: nonce.clone(),
            resources,
            removed_resources,
            ..Default::default()
        };
        self.responses.send(Ok(response)).await.expect("the proxy reads");
        loop {
            let request = self.next().await;
            if request.response_nonce == nonce {
                return request;
            }
            self.subscriptions.push_back(request);
        }
    }
}

/// Answers with what the registry resolves for `who`, until the stream ends.
pub async fn resolved(mut asked: Asked, registry: Arc<Registry>, who: Subscriber) {
    loop {
        let request = asked.request().await;
        let kind = names::kind(&request.type_url).expect("a kind");
        let (mut there, mut absent) = (Vec::new(), Vec::new());
        for name in request.resource_names_subscribe {
            match registry.resolve(&who, kind, &name) {
                Some(resource) => there.push(wire(&resource)),
                None => absent.push(name),
            }
        }
        asked.send(kind, there, absent).await;
    }
}

struct Ads(mpsc::Sender<Asked>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, outgoing) = mpsc::channel(4);
        let asked = Asked::new(request.into_inner(), responses);
        self.0.send(asked).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

pub fn wire(resource: &Resource) -> wire::Resource {
    wire::Resource {
        name: resource.name(),
        version: resource.version().to_string(),
        resource: Some(xds::encode(resource)),
        ..Default::default()
    }
}
