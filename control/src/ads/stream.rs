//! One proxy's stream: its session, driven by what comes in, by new views, and by room for one more response.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream as AsyncStream, StreamExt};
use outrigger_config::model::ResourceKind;
use outrigger_config::xds::names;
use outrigger_config::xds::pb::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Status;

use super::session::Answer;
use crate::metrics::Metrics;
use crate::proxies::{Proxies, Proxy};
use crate::view::View;

pub(super) type Response = Result<DeltaDiscoveryResponse, Status>;

/// How long a stream that ends by an error waits to say so.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What every stream needs of the server.
#[derive(Clone, Debug)]
pub(super) struct Around {
    pub(super) views: watch::Receiver<Arc<View>>,
    pub(super) proxies: Arc<Proxies>,
    pub(super) metrics: Arc<Metrics>,
    /// True once the server is to end.
    pub(super) closing: watch::Receiver<bool>,
}

pub(super) type Requests = Pin<Box<dyn AsyncStream<Item = Result<DeltaDiscoveryRequest, Status>> + Send>>;

pub(super) struct Stream {
    pub(super) around: Around,
    pub(super) proxy: Arc<Proxy>,
    pub(super) requests: Requests,
    /// Room for one: a proxy that does not read makes nothing pile up but its own difference to the newest view.
    pub(super) responses: mpsc::Sender<Response>,
    pub(super) age: Duration,
}

enum Event<'s> {
    Request(Box<DeltaDiscoveryRequest>),
    View,
    Room(mpsc::Permit<'s, Response>),
}

impl Stream {
    pub(super) async fn run(mut self, first: DeltaDiscoveryRequest) {
        self.around.metrics.streams.inc();
        self.around.metrics.proxies.inc();
        let node = self.proxy.node().clone();
        tracing::info!(
            node = node.id(),
            agent = &*node.user_agent,
            version = &*node.version,
            "proxy connected"
        );
        let why = match self.converse(first).await {
            Ok(why) => why.to_owned(),
            Err(status) => {
                let why = status.message().to_owned();
                // A proxy that does not read, or is gone, will not learn it.
                let _ = tokio::time::timeout(LAST_WORD, self.responses.send(Err(status))).await;
                why
            }
        };
        tracing::info!(node = node.id(), why, "proxy disconnected");
        self.around.metrics.proxies.dec();
        self.around.proxies.leave(&self.proxy, why);
    }

    /// Until the stream is over; why it is.
    async fn converse(&mut self, first: DeltaDiscoveryRequest) -> Result<&'static str, Status> {
        let responses = self.responses.clone();
        let deadline = tokio::time::sleep(self.age);
        tokio::pin!(deadline);
        self.receive(first)?;
        // The session began with the view of a moment ago.
        self.advance();
        loop {
            let ready = self.proxy.session().is_ready();
            let event = tokio::select! {
                request = self.requests.next() => match request {
                    Some(request) => Event::Request(request?.into()),
                    None => return Ok("closed by the proxy"),
                },
                permit = responses.reserve(), if ready => match permit {
                    Ok(permit) => Event::Room(permit),
                    Err(_) => return Ok("the connection is gone"),
                },
                () = responses.closed() => return Ok("the connection is gone"),
                changed = self.around.views.changed() => match changed {
                    Ok(()) => Event::View,
                    Err(_) => return Ok("the control plane ends"),
                },
                _ = self.around.closing.wait_for(|closing| *closing) => return Ok("the control plane ends"),
                // It comes back with the versions it has, which checks all of them.
                () = &mut deadline => return Ok("old enough"),
                () = self.proxy.replaced() => return Ok("replaced by a newer stream of the same proxy"),
            };
            match event {
                Event::Request(request) => self.receive(*request)?,
                Event::View => self.advance(),
                Event::Room(permit) => {
                    let response = self.proxy.session().speak();
                    if let Some(response) = response {
                        count(&self.around.metrics, &response);
                        permit.send(Ok(response));
                    }
                }
            }
        }
    }

    fn advance(&mut self) {
        let view = self.around.views.borrow_and_update().clone();
        self.proxy.session().advance(view);
        self.around.proxies.note_progress();
    }

    fn receive(&self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let mut session = self.proxy.session();
        let (settled, detail) = (session.settled(), request.error_detail.clone());
        let answer = session.receive(request)?;
        let converged = session.settled() > settled && session.spoken() == session.settled();
        let since = session.view().since();
        drop(session);
        let metrics = &self.around.metrics;
        match answer {
            Answer::None => {}
            Answer::Ack(kind) => metrics.kind(kind).acks.inc(),
            Answer::Nack(kind, refused) => {
                metrics.kind(kind).nacks.inc();
                metrics.kind(kind).refused.inc_by(refused as u64);
                let why = detail.map(|status| status.message).unwrap_or_default();
                tracing::warn!(node = self.proxy.node().id(), "refused by the proxy: {why}");
            }
        }
        if converged {
            metrics.convergence.observe(Instant::now().duration_since(since).as_secs_f64());
        }
        self.around.proxies.note_progress();
        Ok(())
    }
}

fn count(metrics: &Metrics, response: &DeltaDiscoveryResponse) {
    let kind = names::kind(&response.type_url).unwrap_or(ResourceKind::Listener);
    let metrics = metrics.kind(kind);
    metrics.responses.inc();
    metrics.resources.inc_by(response.resources.len() as u64);
    metrics.removed.inc_by(response.removed_resources.len() as u64);
}
