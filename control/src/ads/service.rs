//! Accepts streams of either form: who asks, and whether there is room.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream as AsyncStream, StreamExt};
use outrigger_config::resolve::Subscriber;
use outrigger_config::xds::pb::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use outrigger_config::xds::pb::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_config::xds::{Node, Role};
use parking_lot::Mutex;
use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::session::Session;
use super::stream::{Around, Requests, Stream};
use super::whole::Whole;
use crate::ca::{Admission, Refusal};
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::view::View;

/// Streams at a time. Each holds a connection and some 10 KiB.
const MAX_STREAMS: usize = 20_000;

/// Until the first request of a stream has come.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// After this long a stream is ended, ± 10 %: proxies spread over replicas again, and whatever went wrong unnoticed is
/// set right by the versions they come back with.
pub const STREAM_AGE: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, Debug)]
pub struct Ads {
    around: Around,
    /// Whoever connects has to say who it is; `None` where everybody may be whom it says it is.
    admission: Option<Arc<Admission>>,
}

impl Ads {
    pub fn new(
        views: watch::Receiver<Arc<View>>,
        proxies: Arc<Proxies>,
        metrics: Arc<Metrics>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self { around: Around { views, proxies, metrics, closing }, admission: None }
    }

    /// The same for a port where a proxy is told only what its token entitles it to.
    pub fn admitting(&self, admission: Arc<Admission>) -> Self {
        Self { around: self.around.clone(), admission: Some(admission) }
    }
}

type Responses<T> = Pin<Box<dyn AsyncStream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let peer = request.remote_addr();
        let whole = Arc::new(Mutex::new(Whole::default()));
        let asked = whole.clone();
        let (metadata, _, requests) = request.into_parts();
        let requests = requests.map(move |request| request.map(|request| asked.lock().request(request)));
        let responses = self.accept(&metadata, peer, Box::pin(requests)).await?;
        let responses =
            responses.map(move |response| response.map(|response| whole.lock().response(response)));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let peer = request.remote_addr();
        let (metadata, _, requests) = request.into_parts();
        let responses = self.accept(&metadata, peer, Box::pin(requests)).await?;
        Ok(Response::new(Box::pin(responses)))
    }
}

impl Ads {
    /// Converses with whoever sends `requests`, in a task of its own, if it may.
    async fn accept(
        &self,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
        mut requests: Requests,
    ) -> Result<ReceiverStream<Result<DeltaDiscoveryResponse, Status>>, Status> {
        if self.around.proxies.count() >= MAX_STREAMS {
            return Err(Status::resource_exhausted(format!("{MAX_STREAMS} streams are open")));
        }
        let caller = match &self.admission {
            None => None,
            Some(admission) => {
                let caller = admission.caller(metadata, peer).await;
                Some(caller.map_err(|why| turned_away(peer, &why))?)
            }
        };
        let around = self.around.clone();
        let (sender, responses) = mpsc::channel(1);
        tokio::spawn(async move {
            let first = match tokio::time::timeout(FIRST_REQUEST, requests.next()).await {
                Ok(Some(Ok(first))) => first,
                Ok(None | Some(Err(_))) => return,
                Err(_) => {
                    let status = Status::deadline_exceeded("no request came");
                    let _ = sender.send(Err(status)).await;
                    return;
                }
            };
            let node = match Node::from_message(first.node.as_ref().unwrap_or(&Default::default())) {
                Ok(node) => node,
                Err(error) => {
                    tracing::warn!(?peer, "a proxy was turned away: {error}");
                    let _ = sender.send(Err(Status::invalid_argument(error.to_string()))).await;
                    return;
                }
            };
            if let Some(Err(why)) = caller.map(|caller| caller.may_be(&node.role)) {
                let _ = sender.send(Err(turned_away(peer, &why))).await;
                return;
            }
            let session = Session::new(subscriber(&node), node.client(), around.views.borrow().clone());
            let proxy = around.proxies.enter(node, peer, session);
            let age = STREAM_AGE.mul_f64(rand::rng().random_range(0.9..1.1));
            Stream { around, proxy, requests, responses: sender, age }.run(first).await;
        });
        Ok(ReceiverStream::new(responses))
    }
}

fn turned_away(peer: Option<SocketAddr>, why: &Refusal) -> Status {
    tracing::warn!(?peer, reason = why.reason(), "a proxy was turned away: {why}");
    why.status()
}

fn subscriber(node: &Node) -> Subscriber {
    match &node.role {
        Role::Sidecar { namespace, workload } => {
            Subscriber::Sidecar { namespace: namespace.clone(), name: workload.clone() }
        }
        Role::Gateway { namespace, name } => {
            Subscriber::Gateway { namespace: namespace.clone(), name: name.clone() }
        }
    }
}
