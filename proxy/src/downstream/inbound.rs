//! Connections to the workload this sidecar stands before: on a declared port itself, or redirected to the inbound port.
//!
//! Owns the decision whether a connection is TLS of the mesh, which is opened here, or the app's own business. Strict: everything has to be TLS of the
//! mesh. Permissive: what offers one of the mesh's protocols is, anything else goes on as it came, other TLS unopened. Nothing of a refused connection
//! reaches the app.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use outrigger_config::model::{DestinationName, MtlsMode, Protocol};

use super::carrier::Carrier;
use super::connection::Arrival;
use super::detect::Spoken;
use super::mtls::{self, Inside};
use super::sniff::{self, Opening};
use super::{Connection, Http, Stream, Towards, outbound, tcp};
use crate::canary;
use crate::failure::{Failure, Reason};
use crate::identity::edges::{Edge, Why};
use crate::identity::{HandshakeFailure, Offered, Token};
use crate::mesh::{Destination, InboundPort, Slot};
use crate::telemetry::{Direction, Tls};
use crate::worker::Worker;

/// A connection to `port`, if the workload declares it; `original` is where it was going. Returns what turns out to be HTTP; everything else is served.
pub async fn serve(
    io: impl Stream,
    arrival: Box<Arrival>,
    port: Option<Arc<InboundPort>>,
    original: Option<SocketAddr>,
) -> Option<Http> {
    let worker = &arrival.worker;
    if worker.shared.canary.is_some() && canary::OWN_PORTS.contains(&arrival.port) {
        let why = format!("port {} is the proxy's own", arrival.port);
        tcp::refuse(io, &arrival, &Failure::new(Reason::LoopDetected, why));
        return None;
    }
    // Our own ports are no ports of the app: from outside they are redirected here like any other.
    let original = original.filter(|original| !worker.shared.listening.is_ours(*original));
    let target = match (&port, original) {
        (Some(port), _) => match port.destination.current() {
            Some(destination) => Target {
                destination,
                name: DestinationName::ip(port.app.ip(), port.port),
                slot: Some(port.destination.clone()),
            },
            None => {
                let why = format!("port {} was removed from the workload", port.port);
                tcp::refuse(io, &arrival, &Failure::new(Reason::UnknownDestination, why));
                return None;
            }
        },
        // A port nobody declared is none of the mesh's business: what is in it goes on to the app as it is.
        (None, Some(original)) => {
            let name = DestinationName::ip(original.ip(), original.port());
            Target { destination: worker.undeclared(Direction::Inbound, &name), name, slot: None }
        }
        (None, None) => {
            let why = format!("the workload declares no port {}", arrival.port);
            tcp::refuse(io, &arrival, &Failure::new(Reason::UnknownDestination, why));
            return None;
        }
    };
    if let Some(slow) = target.destination.tcp.faults().and_then(|faults| faults.accept(&arrival)) {
        tracing::debug!(client = %arrival.peer.address, fault = %slow.name, wait = ?slow.wait, "a connection waits");
        // Boxed: hardly any connection has such a wait.
        if !Box::pin(slow.over(arrival.worker.shared.drain.watch())).await {
            return None;
        }
    }
    match mode(&arrival.worker, port.as_deref()) {
        MtlsMode::Strict => strict(io, arrival, target).await,
        MtlsMode::Permissive if arrival.worker.shared.identity.is_configured() => {
            permissive(io, arrival, target).await
        }
        MtlsMode::Permissive => plaintext(io, arrival, target, Why::NoIdentity).await,
        MtlsMode::Disabled => plaintext(io, arrival, target, Why::Disabled).await,
    }
}

/// Where a connection leads.
struct Target {
    destination: Arc<Destination>,
    name: DestinationName,
    /// `None` for a port the workload does not declare, whose bytes nobody looks into.
    slot: Option<Arc<Slot>>,
}

impl Target {
    fn protocol(&self) -> Protocol {
        if self.slot.is_some() { self.destination.protocol } else { Protocol::Tcp }
    }

    fn towards(&self) -> Towards {
        match &self.slot {
            Some(slot) => Towards::Slot(slot.clone()),
            None => Towards::Fixed(self.destination.clone()),
        }
    }
}

async fn strict(io: impl Stream, arrival: Box<Arrival>, target: Target) -> Option<Http> {
    let Opening { spoken, io, .. } = Box::pin(sniff::look(io)).await?;
    let why = "the port takes mTLS of the mesh only, and this was sent without";
    let failure = || Failure::new(Reason::MtlsRequired, why);
    match spoken {
        Spoken::Tls { offered, .. } => Box::pin(open(io, arrival, target, offered)).await,
        Spoken::Http1 | Spoken::Http2 => {
            let http2 = spoken == Spoken::Http2;
            let http = Http::new(io, Connection::new(&arrival, Towards::Nowhere(failure()), http2));
            Some(http.counted(arrival.count(Tls::None)))
        }
        Spoken::Opaque => {
            tcp::refuse(io, &arrival, &failure());
            None
        }
    }
}

async fn permissive(io: impl Stream, arrival: Box<Arrival>, target: Target) -> Option<Http> {
    let declared = target.protocol();
    // A caller of the mesh speaks first whatever is inside, so that an opaque port is listened to for a moment, too; and that a server was
    // heard to speak first says nothing about the next caller.
    let looked_for = if declared == Protocol::Tcp { Protocol::Detect } else { declared };
    let found = outbound::find_as(io, looked_for, &arrival, &target.destination, None).await;
    let Opening { spoken, io, dialled } = found?;
    let why = match &spoken {
        Spoken::Tls { offered, .. } if offered.mesh => {
            return Box::pin(open(io, arrival, target, *offered)).await;
        }
        Spoken::Tls { .. } => Why::CallerOwnTls,
        Spoken::Http1 | Spoken::Http2 | Spoken::Opaque => Why::CallerPlaintext,
    };
    let counted = arrival.count(Tls::None);
    note(&arrival, why);
    let spoken = if declared == Protocol::Tcp { Spoken::Opaque } else { spoken };
    let found = Opening { spoken, io, dialled };
    let http = outbound::carry(Some(found), arrival, &target.destination, target.towards()).await;
    http.map(|http| http.counted(counted))
}

async fn plaintext(io: impl Stream, arrival: Box<Arrival>, target: Target, why: Why) -> Option<Http> {
    let counted = arrival.count(Tls::None);
    note(&arrival, why);
    inside(io, arrival, target, None).await.map(|http| http.counted(counted))
}

/// Opens TLS of the mesh, and serves what is inside.
async fn open(io: impl Stream, mut arrival: Box<Arrival>, target: Target, offered: Offered) -> Option<Http> {
    let worker = arrival.worker.clone();
    let shared = &worker.shared;
    let (io, caller, inner) = match Box::pin(mtls::open(io, shared, offered)).await {
        Ok(opened) => opened,
        Err(failure) => {
            refused(&arrival, &failure);
            return None;
        }
    };
    let counted = arrival.count(Tls::Mutual);
    shared.identity.edges.note(edge(&arrival, Some(&caller), None), Some(caller.negotiated));
    arrival.peer.identity = Some(caller.leaf.id.clone());
    arrival.caller = Some(Rc::new(caller));
    let agreed = match inner {
        Inside::Agreed(token) => Some(token),
        Inside::Unsaid => None,
    };
    inside(io, arrival, target, agreed).await.map(|http| http.counted(counted))
}

/// What a connection carries, once nothing protects it any more. `agreed`: between the proxies; else it is found out.
async fn inside(
    io: impl Stream,
    arrival: Box<Arrival>,
    target: Target,
    agreed: Option<Token>,
) -> Option<Http> {
    let towards = target.towards();
    let Target { destination, name, .. } = &target;
    match agreed {
        Some(Token::Http2) => Some(Http::new(io, Connection::new(&arrival, towards, true))),
        Some(Token::Carried) => Some(Http::carrier(Carrier::new(io, arrival, towards))),
        Some(Token::Http11 | Token::Http10) => Some(Http::new(io, Connection::new(&arrival, towards, false))),
        Some(Token::Tcp) => {
            Box::pin(tcp::carry(io, &arrival, destination, &destination.tcp, None)).await;
            None
        }
        None => {
            let found = outbound::find_as(io, target.protocol(), &arrival, destination, Some(name)).await;
            outbound::carry(found, arrival, destination, towards).await
        }
    }
}

/// A handshake that came to nothing.
fn refused(arrival: &Arrival, failure: &HandshakeFailure) {
    let metrics = &arrival.worker.shared.telemetry.metrics;
    metrics.handshake_failed(arrival.worker.id, arrival.direction, failure.cause);
    tracing::info!(client = %arrival.peer.address, port = arrival.port, %failure, "an mTLS handshake failed");
}

fn note(arrival: &Arrival, why: Why) {
    arrival.worker.shared.identity.edges.note(edge(arrival, None, Some(why)), None);
}

fn edge(arrival: &Arrival, caller: Option<&mtls::Caller>, plaintext: Option<Why>) -> Edge {
    Edge {
        direction: Direction::Inbound,
        peer: caller.map(|caller| caller.leaf.id.clone()),
        address: caller.is_none().then(|| address(arrival)),
        workload: None,
        port: arrival.port,
        plaintext,
    }
}

fn address(arrival: &Arrival) -> IpAddr {
    arrival.peer.address.ip().to_canonical()
}

/// How the port's callers have to come.
fn mode(worker: &Worker, port: Option<&InboundPort>) -> MtlsMode {
    match port {
        Some(port) => port.mtls.mode,
        None => worker.inbound.borrow().as_ref().map_or(MtlsMode::default(), |inbound| inbound.mtls.mode),
    }
}

/// What the workload declares for a port.
pub fn port(worker: &Worker, port: u16) -> Option<Arc<InboundPort>> {
    worker.inbound.borrow().as_ref()?.ports.get(&port).cloned()
}
