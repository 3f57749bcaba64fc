//! The app's connections: redirected ones, those to a service address, and those that use us as an HTTP proxy.
//!
//! Owns how a connection finds its destination. From there on all three are the same: [`destination`]. What turns out to be HTTP is returned, everything
//! else served.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_config::model::{DestinationName, Protocol};

use super::connection::{Arrival, look_up, outside};
use super::detect::Spoken;
use super::sniff::{self, Opening};
use super::{Connection, Http, Stream, Towards, tcp};
use crate::failure::{Failure, Reason};
use crate::mesh::{Destination, Lookup, Slot};
use crate::telemetry::Record;

/// A connection the kernel sent here that was going to `original`.
pub async fn redirected(io: impl Stream, arrival: Box<Arrival>, original: SocketAddr) -> Option<Http> {
    let name = DestinationName::ip(original.ip(), original.port());
    let worker = &arrival.worker;
    let slot = match Box::pin(worker.shared.mesh.destination(&name)).await {
        Lookup::Known(slot) => Ok(Some(slot)),
        Lookup::Unknown => outside(worker, &name).map(|()| None),
        // Where it was going is known: it goes there as it would without us, this once.
        Lookup::Unavailable => {
            worker.shared.telemetry.metrics.passed_without_config(worker.id);
            outside(worker, &name).map(|()| None)
        }
    };
    match slot {
        Ok(Some(slot)) => destination(io, arrival, name, Some(slot)).await,
        Ok(None) => destination(io, arrival, name, None).await,
        Err(failure) => refused(io, arrival, failure).await,
    }
}

/// A connection to the loopback address that stands for one service.
pub async fn service_address(io: impl Stream, arrival: Box<Arrival>, name: DestinationName) -> Option<Http> {
    match Box::pin(look_up(&arrival.worker, &name)).await {
        Ok(slot) => destination(io, arrival, name, slot).await,
        Err(failure) => refused(io, arrival, failure).await,
    }
}

/// A connection to the outbound port itself: the client uses us as its HTTP proxy.
pub async fn proxied(io: impl Stream, arrival: Box<Arrival>) -> Option<Http> {
    let Opening { spoken, io, .. } = Box::pin(sniff::look(io)).await?;
    match spoken {
        Spoken::Http1 | Spoken::Http2 => {
            let http2 = spoken == Spoken::Http2;
            Some(Http::new(io, Connection::new(&arrival, Towards::Asked, http2)))
        }
        Spoken::Tls { .. } | Spoken::Opaque => {
            let why =
                "only HTTP can be spoken to the outbound port, unless the connection was redirected to it";
            tcp::refuse(io, &arrival, &Failure::new(Reason::BadRequest, why));
            None
        }
    }
}

/// A connection whose destination is known by name; `slot` where it is one of the mesh.
pub async fn destination(
    io: impl Stream,
    arrival: Box<Arrival>,
    name: DestinationName,
    slot: Option<Arc<Slot>>,
) -> Option<Http> {
    let Some(slot) = slot else {
        // Beyond the mesh: untouched.
        let destination = arrival.worker.outside(&name);
        Box::pin(tcp::carry(io, &arrival, &destination, &destination.tcp, None)).await;
        return None;
    };
    let Some(destination) = slot.current() else {
        let failure = Failure::new(Reason::UnknownDestination, format!("{name} was removed from the mesh"));
        return refused(io, arrival, failure).await;
    };
    let found = find(io, &arrival, &destination, Some(&name)).await;
    carry(found, arrival, &destination, Towards::Slot(slot)).await
}

/// Finds out what the connection carries.
async fn find<T: Stream>(
    io: T,
    arrival: &Arrival,
    destination: &Destination,
    name: Option<&DestinationName>,
) -> Option<Opening<T>> {
    find_as(io, destination.protocol, arrival, destination, name).await
}

/// As if `declared` was said of the destination. Without `name` it does not matter who spoke first there before.
pub(super) async fn find_as<T: Stream>(
    io: T,
    declared: Protocol,
    arrival: &Arrival,
    destination: &Destination,
    name: Option<&DestinationName>,
) -> Option<Opening<T>> {
    let worker = &arrival.worker;
    let memory = name.map(|name| (&worker.shared.server_first, name));
    let dial = || async {
        // Nothing of the app is shown to a peer that may not be carried to it.
        if !arrival.may_carry() {
            return None;
        }
        let mut record = Record::tcp(&worker.shared.telemetry, worker.id, &destination.metrics);
        let dialled = tcp::dial(arrival, &destination.tcp, &mut record).await;
        // It only asks who speaks first.
        record.complete();
        dialled.ok()
    };
    Box::pin(sniff::find(io, declared, memory, dial)).await
}

/// Carries a connection whose protocol was found.
pub(super) async fn carry(
    found: Option<Opening<impl Stream>>,
    arrival: Box<Arrival>,
    destination: &Destination,
    towards: Towards,
) -> Option<Http> {
    let Opening { spoken, io, dialled } = found?;
    match spoken {
        Spoken::Http1 | Spoken::Http2 => {
            let connection = Connection::new(&arrival, towards, spoken == Spoken::Http2);
            return Some(Http::new(io, connection));
        }
        Spoken::Tls { sni, .. } => {
            Box::pin(tcp::carry(io, &arrival, destination, destination.tls(sni.as_deref()), dialled)).await;
        }
        Spoken::Opaque => {
            Box::pin(tcp::carry(io, &arrival, destination, &destination.tcp, dialled)).await;
        }
    }
    None
}

/// Tells a client that speaks HTTP why its requests go nowhere, and resets any other.
async fn refused(io: impl Stream, arrival: Box<Arrival>, failure: Failure) -> Option<Http> {
    let found = Box::pin(sniff::find(io, Protocol::Detect, None, || async { None })).await;
    let Opening { spoken, io, .. } = found?;
    match spoken {
        Spoken::Http1 | Spoken::Http2 => {
            let http2 = spoken == Spoken::Http2;
            Some(Http::new(io, Connection::new(&arrival, Towards::Nowhere(failure), http2)))
        }
        Spoken::Tls { .. } | Spoken::Opaque => {
            tcp::refuse(io, &arrival, &failure);
            None
        }
    }
}
