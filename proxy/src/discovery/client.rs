//! Configuration from a control plane: the delta form of the aggregated discovery service (xDS v3).
//!
//! Subscribes by name only: no request ever asks for everything of a kind. One stream at a time, to the first address that answers;
//! when it ends, for whatever reason, another one begins and states the versions there are, so that nothing is sent twice. A resource that
//! cannot be used is named in the NACK while the others of its response apply; the version before it stays in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::model::{Resource, ResourceKind};
use outrigger_config::xds::pb::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_config::xds::pb::discovery::{self as wire, DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use outrigger_config::xds::refusal::{self, Refusal};
use outrigger_config::xds::{self, Node, Unsupported, names};
use rand::seq::SliceRandom;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use super::backoff::Backoff;
use super::dial::{Dial, InvalidAddress};
use super::{Change, Event, Key, Source, SourceEnd, apply};
use crate::mesh::{Known, Mesh};

impl Source {
    /// Asks the control plane at one of `addresses` (`HOST:PORT`, HTTP/2), which are taken in random order.
    pub fn control_plane(
        addresses: Vec<Arc<str>>,
        node: &Node,
        mesh: Arc<Mesh>,
        dial: Dial,
    ) -> Result<Self, InvalidAddress> {
        let endpoints: Vec<_> = addresses.iter().map(Dial::endpoint).collect::<Result<_, _>>()?;
        let (mut source, end) = Self::new(&addresses.join(", "));
        source.home = Some((addresses.clone(), dial.clone()));
        let mut endpoints: Vec<_> = addresses.into_iter().zip(endpoints).collect();
        endpoints.shuffle(&mut rand::rng());
        let client = Client { node: node.to_message(), mesh, dial, end, versions: HashMap::new() };
        tokio::spawn(client.run(endpoints));
        Ok(source)
    }
}

/// Until a new stream is accepted.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Until a request is taken: a control plane that reads nothing is no use.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that lasted this long was not refused: the next one is tried at once.
const GOOD_STREAM: Duration = Duration::from_secs(5);
/// Largest response read. Bytes.
const MAX_RESPONSE: usize = 16 << 20;
/// Requests under way: one a kind at the beginning, then answers and changes.
const REQUESTS: usize = 16;

struct Client {
    node: xds::pb::core::Node,
    mesh: Arc<Mesh>,
    dial: Dial,
    end: SourceEnd,
    /// As the control plane calls what it sent. Those of the disk copy are called by their content.
    versions: HashMap<Key, String>,
}

/// Why a stream is over.
enum Over {
    Failed(String),
    /// The proxy ends.
    Ending,
}

impl Client {
    async fn run(mut self, endpoints: Vec<(Arc<str>, Endpoint)>) {
        let mut backoff = Backoff::default();
        for (address, endpoint) in endpoints.iter().cycle() {
            let begun = tokio::time::Instant::now();
            let Over::Failed(error) = self.stream(address, endpoint).await else { return };
            if begun.elapsed() >= GOOD_STREAM {
                backoff.reset();
            }
            tracing::info!(%address, error, "no configuration from this control plane for now");
            let error = format!("{address}: {error}");
            if self.end.events.send(Event::Disconnected { error }).await.is_err() {
                return;
            }
            sleep(backoff.next()).await;
        }
    }

    /// One stream, from the connection to its end.
    async fn stream(&mut self, address: &Arc<str>, endpoint: &Endpoint) -> Over {
        let channel = match self.dial.connect(endpoint).await {
            Ok(channel) => channel,
            Err(error) => return Over::Failed(error),
        };
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        let mut subscriptions =
            Subscriptions { node: Some(self.node.clone()), requests, names: BTreeSet::new() };
        let wanted = self.end.wanted.borrow_and_update().clone();
        // Before anything is awaited of the control plane: many answer the headers with their first response.
        if let Err(over) = subscriptions.change(&wanted, |key| self.version(key)).await {
            return over;
        }
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
        let mut opening = Request::new(ReceiverStream::new(outgoing));
        if let Err(error) = self.dial.sign(&mut opening) {
            return Over::Failed(error);
        }
        let opening = client.delta_aggregated_resources(opening);
        let mut responses = match timeout(STREAM_TIMEOUT, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Over::Failed(status.message().to_owned()),
            Err(_) => return Over::Failed(format!("no stream within {STREAM_TIMEOUT:?}")),
        };
        tracing::info!(%address, "connected to the control plane");
        if self.end.events.send(Event::Connected).await.is_err() {
            return Over::Ending;
        }
        self.converse(&mut subscriptions, &mut responses).await
    }

    async fn converse(
        &mut self,
        subscriptions: &mut Subscriptions,
        responses: &mut Streaming<DeltaDiscoveryResponse>,
    ) -> Over {
        loop {
            tokio::select! {
                response = responses.message() => {
                    let answered = match response {
                        Ok(Some(response)) => self.take(subscriptions, response).await,
                        Ok(None) => return Over::Failed("the control plane ended the stream".into()),
                        Err(status) => return Over::Failed(status.message().to_owned()),
                    };
                    if let Err(over) = answered {
                        return over;
                    }
                }
                changed = self.end.wanted.changed() => {
                    if changed.is_err() {
                        return Over::Ending;
                    }
                    let wanted = self.end.wanted.borrow_and_update().clone();
                    self.versions.retain(|key, _| wanted.contains(key));
                    // What is asked for anew is not held, so there is no version to state.
                    if let Err(over) = subscriptions.change(&wanted, |_| None).await {
                        return over;
                    }
                }
            }
        }
    }

    /// Applies what can be used, then answers.
    async fn take(
        &mut self,
        subscriptions: &Subscriptions,
        response: DeltaDiscoveryResponse,
    ) -> Result<(), Over> {
        let DeltaDiscoveryResponse { type_url, nonce, resources, removed_resources, .. } = response;
        let Some(kind) = names::kind(&type_url) else {
            let why = Unsupported { path: String::new(), reason: format!("{type_url:?} was not asked for") };
            return subscriptions.answer(&type_url, nonce, &[Refusal::new("", why)]).await;
        };
        let (mut changes, mut refusals) = (Vec::new(), Vec::new());
        for resource in resources {
            let (name, version) = (resource.name.clone(), resource.version.clone());
            match read(kind, resource) {
                Ok(resource) => {
                    self.versions.insert((kind, name.into()), version);
                    changes.push(Change::There(resource));
                }
                Err(why) => {
                    tracing::warn!(?kind, name, %why, "refused: this resource cannot be used; what was before it stays");
                    refusals.push(Refusal::new(name, why));
                }
            }
        }
        for name in removed_resources {
            let key = (kind, Arc::from(name));
            self.versions.remove(&key);
            changes.push(Change::Absent(key));
        }
        let (update, applied) = Event::update(changes);
        self.end.events.send(update).await.map_err(|_| Over::Ending)?;
        // An ACK says that it is in force. The sender is dropped when it is, so the result says nothing more.
        let _ = applied.await;
        subscriptions.answer(&type_url, nonce, &refusals).await
    }

    /// The version held of a resource, as the control plane would call it.
    fn version(&self, key: &Key) -> Option<String> {
        match self.mesh.inventory().lock().resources.get(key)? {
            Known::There { version, .. } => {
                Some(self.versions.get(key).cloned().unwrap_or_else(|| version.to_string()))
            }
            Known::Absent => None,
        }
    }
}

fn read(kind: ResourceKind, resource: wire::Resource) -> Result<Resource, Unsupported> {
    let refuse = |path: &str, reason: String| Err(Unsupported { path: path.into(), reason });
    let Some(body) = &resource.resource else { return refuse("", "it is empty".into()) };
    let decoded = xds::decode(body)?;
    if decoded.kind() != kind {
        return refuse("", format!("it is of kind {:?}, the response is of {kind:?}", decoded.kind()));
    }
    if decoded.name() != resource.name {
        return refuse(
            "name",
            format!("it is sent as {:?} and calls itself {:?}", resource.name, decoded.name()),
        );
    }
    match apply::check(&decoded) {
        Ok(()) => Ok(decoded),
        Err(reason) => refuse("", reason),
    }
}

/// The sending half of a stream, and what it subscribed to.
struct Subscriptions {
    /// Goes along with the first request.
    node: Option<xds::pb::core::Node>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    names: BTreeSet<Key>,
}

impl Subscriptions {
    /// Subscribes to what is new in `wanted` and gives up what is not in it any more; `version` states what is held.
    async fn change(
        &mut self,
        wanted: &Arc<BTreeSet<Key>>,
        version: impl Fn(&Key) -> Option<String>,
    ) -> Result<(), Over> {
        let mut by_kind: BTreeMap<ResourceKind, DeltaDiscoveryRequest> = BTreeMap::new();
        for key in wanted.difference(&self.names) {
            let request = by_kind.entry(key.0).or_default();
            request.resource_names_subscribe.push(key.1.to_string());
            if let Some(version) = version(key) {
                request.initial_resource_versions.insert(key.1.to_string(), version);
            }
        }
        for key in self.names.difference(wanted) {
            by_kind.entry(key.0).or_default().resource_names_unsubscribe.push(key.1.to_string());
        }
        self.names.clone_from(wanted);
        for (kind, mut request) in by_kind {
            request.type_url = names::type_url(kind).to_owned();
            request.node = self.node.take();
            self.send(request).await?;
        }
        Ok(())
    }

    async fn answer(&self, type_url: &str, nonce: String, refusals: &[Refusal]) -> Result<(), Over> {
        let error_detail = (!refusals.is_empty()).then(|| refusal::to_status(refusals));
        let type_url = type_url.to_owned();
        self.send(DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            error_detail,
            ..Default::default()
        })
        .await
    }

    async fn send(&self, request: DeltaDiscoveryRequest) -> Result<(), Over> {
        match timeout(SEND_TIMEOUT, self.requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Over::Failed("the connection is gone".into())),
            Err(_) => Err(Over::Failed(format!("the control plane read nothing for {SEND_TIMEOUT:?}"))),
        }
    }
}

#[cfg(test)]
mod tests;
