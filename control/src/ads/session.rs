//! What one proxy subscribed to, was told and answered: the delta protocol as a state machine without IO.
//!
//! A session holds no queue of pushes. It knows the newest [`View`] and, name by name, what the proxy was last told; the next
//! response is computed from the difference when the stream can take one. A slow proxy so skips states it has no time for, and costs
//! no more than a fast one.
//!
//! Order within a push (make before break): clusters, endpoints, secrets, listeners, route tables, then what is gone,
//! users before what they use.

mod names;

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_config::model::ResourceKind;
use outrigger_config::resolve::Subscriber;
use outrigger_config::xds::pb::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use outrigger_config::xds::{Client, names as wire, refusal};
use prost::Message;
use tonic::Status;

use crate::view::View;
pub use names::{Name, Names, State, Told};

/// Responses sent and not answered; beyond it the session is silent until one is.
pub const MAX_UNANSWERED: usize = 16;

/// Encoded size at which a response is closed and another begun. Clients of the field refuse messages over 4 MiB.
const RESPONSE_BYTES: usize = 1 << 20;

/// What is new or changed, in the order in which it can be used.
const MAKE: [ResourceKind; 5] = [
    ResourceKind::Cluster,
    ResourceKind::Endpoints,
    ResourceKind::Secret,
    ResourceKind::Listener,
    ResourceKind::RouteTable,
];

/// What is gone, users first.
const BREAK: [ResourceKind; 5] = [
    ResourceKind::Listener,
    ResourceKind::RouteTable,
    ResourceKind::Secret,
    ResourceKind::Endpoints,
    ResourceKind::Cluster,
];

#[derive(Debug)]
pub struct Session {
    who: Subscriber,
    client: Client,
    view: Arc<View>,
    kinds: BTreeMap<ResourceKind, Names>,
    unanswered: BTreeMap<u64, Sent>,
    last_nonce: u64,
    /// The newest generation that left nothing to say.
    caught_up: u64,
    /// The newest generation that was said something of.
    spoken: u64,
}

/// A response on its way.
#[derive(Debug)]
struct Sent {
    kind: ResourceKind,
    generation: u64,
    /// Each name with what was said of it.
    told: Vec<(Arc<str>, Told)>,
}

/// What a request said besides its subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Neither ACK nor NACK of anything known.
    None,
    Ack(ResourceKind),
    /// With how many resources it refused.
    Nack(ResourceKind, usize),
}

impl Session {
    pub fn new(who: Subscriber, client: Client, view: Arc<View>) -> Self {
        Self {
            who,
            client,
            caught_up: view.generation(),
            view,
            kinds: ResourceKind::ALL.into_iter().map(|kind| (kind, Names::default())).collect(),
            unanswered: BTreeMap::new(),
            last_nonce: 0,
            spoken: 0,
        }
    }

    pub fn who(&self) -> &Subscriber {
        &self.who
    }

    /// What it understands.
    pub fn client(&self) -> Client {
        self.client
    }

    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Takes in a request. An error ends the stream.
    pub fn receive(&mut self, request: DeltaDiscoveryRequest) -> Result<Answer, Status> {
        let Some(kind) = wire::kind(&request.type_url) else {
            // Envoys ask for kinds we have none of (runtime, extensions); an answer would never change.
            return Ok(Answer::None);
        };
        let answer = self.answered(&request);
        let names = self.kinds.get_mut(&kind).expect("all kinds are there from the start");
        names.subscribe(kind, &self.who, &self.view, request)?;
        self.note_progress();
        Ok(answer)
    }

    fn answered(&mut self, request: &DeltaDiscoveryRequest) -> Answer {
        let nonce = request.response_nonce.parse::<u64>().ok();
        let Some(sent) = nonce.and_then(|nonce| self.unanswered.remove(&nonce)) else { return Answer::None };
        let names = self.kinds.get_mut(&sent.kind).expect("all kinds are there from the start");
        let refusals = match &request.error_detail {
            None => Vec::new(),
            Some(status) => refusal::from_status(status, sent.told.iter().map(|(name, _)| &**name)),
        };
        let refused = names.answered(sent.told, refusals);
        match request.error_detail {
            None => Answer::Ack(sent.kind),
            Some(_) => Answer::Nack(sent.kind, refused),
        }
    }

    /// Goes on to a newer state of the mesh.
    pub fn advance(&mut self, view: Arc<View>) {
        let before = self.view.generation();
        for (kind, names) in &mut self.kinds {
            names.advance(*kind, &self.who, before, &view);
        }
        self.view = view;
        self.note_progress();
    }

    /// Whether there is something to say, and leave to say it.
    pub fn is_ready(&self) -> bool {
        self.unanswered.len() < MAX_UNANSWERED && !self.has_said_all()
    }

    fn has_said_all(&self) -> bool {
        self.kinds.values().all(Names::has_said_all)
    }

    /// The next response; `None` when all is said or too much is unanswered.
    pub fn speak(&mut self) -> Option<DeltaDiscoveryResponse> {
        if self.unanswered.len() >= MAX_UNANSWERED {
            return None;
        }
        let make = MAKE.into_iter().find_map(|kind| self.response(kind, Phase::Make));
        let response = make.or_else(|| BREAK.into_iter().find_map(|kind| self.response(kind, Phase::Break)));
        self.note_progress();
        response
    }

    fn response(&mut self, kind: ResourceKind, phase: Phase) -> Option<DeltaDiscoveryResponse> {
        let names = self.kinds.get_mut(&kind).expect("all kinds are there from the start");
        let mut response = DeltaDiscoveryResponse::default();
        let mut told = Vec::new();
        let mut bytes = 0;
        while bytes < RESPONSE_BYTES {
            let Some(name) = names.take_stale(phase) else { break };
            bytes += name.len();
            let entry = match phase {
                Phase::Make => self.view.entry(&self.who, kind, &name),
                Phase::Break => None,
            };
            let now = match entry {
                Some(entry) => {
                    let resource = Resource {
                        name: name.to_string(),
                        version: entry.version().to_string(),
                        resource: Some(entry.encoded(self.client).clone()),
                        ..Default::default()
                    };
                    bytes += resource.encoded_len();
                    response.resources.push(resource);
                    Told::Has(entry.version().clone())
                }
                None => {
                    response.removed_resources.push(name.to_string());
                    Told::Absent
                }
            };
            names.tell(&name, now.clone());
            told.push((name, now));
        }
        if told.is_empty() {
            return None;
        }
        self.last_nonce += 1;
        self.spoken = self.view.generation();
        self.unanswered.insert(self.last_nonce, Sent { kind, generation: self.view.generation(), told });
        response.type_url = wire::type_url(kind).to_owned();
        response.nonce = self.last_nonce.to_string();
        response.system_version_info = self.view.generation().to_string();
        Some(response)
    }

    fn note_progress(&mut self) {
        if self.has_said_all() {
            self.caught_up = self.view.generation();
        }
    }

    /// The newest generation of which the proxy was told everything that concerns it, and answered all of it.
    pub fn settled(&self) -> u64 {
        let oldest = self.unanswered.values().map(|sent| sent.generation).min();
        self.caught_up.min(oldest.map_or(u64::MAX, |generation| generation - 1))
    }

    /// The newest generation that the proxy was told anything of.
    pub fn spoken(&self) -> u64 {
        self.spoken
    }

    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    pub fn names(&self) -> impl Iterator<Item = (ResourceKind, &Names)> {
        self.kinds.iter().map(|(kind, names)| (*kind, names))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// New, changed, or never there.
    Make,
    /// There before, and gone.
    Break,
}
