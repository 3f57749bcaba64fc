//! CONNECT, where the client uses us as its HTTP proxy (RFC 9110 §9.3.6).
//!
//! What comes through the tunnel is treated like a connection made to that destination: looked into where it is one of the mesh, carried
//! untouched where it is not. Outside the mesh it is connected to before the answer, which so can say that nobody is there.

use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, Response};

use super::connection::{Arrival, look_up};
use super::replay::Replay;
use super::tcp::{self, Dialled};
use super::{Connection, Stream, outbound};
use crate::body::Body;
use crate::exchange::{Authority, Outgoing};
use crate::failure::{Asker, Failure, Reason};
use crate::mesh::{Destination, Slot};
use crate::telemetry::Record;
use crate::upgrade::Upgrade;
use outrigger_config::model::DestinationName;

/// Where a tunnel leads.
enum Far {
    Mesh(DestinationName, Arc<Slot>),
    Outside(Arc<Destination>, Dialled),
}

/// Answers 200 once the destination may be called and, outside the mesh, is there; then takes over what follows.
pub async fn answer(
    request: Request<Body>,
    client: Upgrade,
    connection: &Rc<Connection>,
) -> Response<Outgoing> {
    let listening = &connection.worker.shared.listening;
    let name = Authority::of(&request).destination(443).map(|name| listening.meant_by(name));
    let found = match &name {
        Some(name) => look_up(&connection.worker, name).await,
        None => Err(Failure::new(Reason::BadRequest, "CONNECT needs a host and a port")),
    };
    let (name, slot) = match (name, found) {
        (Some(name), Ok(slot)) => (name, slot),
        (_, Err(failure)) => return refused(&failure, &request, connection),
        (None, Ok(_)) => return refused(&Reason::Internal.into(), &request, connection),
    };
    let in_flight = connection.begin();
    let arrival = Box::new(Arrival {
        worker: connection.worker.clone(),
        direction: connection.direction,
        peer: connection.peer.clone(),
        port: name.port(),
        secure: false,
        caller: connection.caller.clone(),
    });
    let far = match slot {
        Some(slot) => Far::Mesh(name, slot),
        None => match outside(&arrival, &name).await {
            Ok(far) => far,
            Err(failure) => return refused(&failure, &request, connection),
        },
    };
    tokio::task::spawn_local(async move {
        let _in_flight = in_flight;
        match client.established().await {
            // Boxed: what is inside may be HTTP with a CONNECT of its own.
            Ok(upgraded) => Box::pin(far.carry(upgraded, arrival)).await,
            Err(error) => tracing::debug!(%error, "a CONNECT ended before its tunnel stood"),
        }
    });
    Outgoing::plain(Response::new(Body::empty()))
}

impl Far {
    async fn carry(self, io: impl Stream, arrival: Box<Arrival>) {
        match self {
            Self::Mesh(name, slot) => {
                if let Some(http) = Box::pin(outbound::destination(io, arrival, name, Some(slot))).await {
                    http.serve().await;
                }
            }
            Self::Outside(destination, dialled) => {
                let dialled = Box::new(Replay::new(Default::default(), dialled));
                tcp::carry(io, &arrival, &destination, &destination.tcp, Some(dialled)).await;
            }
        }
    }
}

async fn outside(arrival: &Arrival, name: &DestinationName) -> Result<Far, Failure> {
    let worker = &arrival.worker;
    let destination = worker.outside(name);
    let mut record = Record::tcp(&worker.shared.telemetry, worker.id, &destination.metrics);
    let dialled = tcp::dial(arrival, &destination.tcp, &mut record).await;
    // The tunnel has a record of its own, and so has the refusal.
    record.complete();
    dialled.map(|dialled| Far::Outside(destination, dialled))
}

fn refused(failure: &Failure, request: &Request<Body>, connection: &Rc<Connection>) -> Response<Outgoing> {
    let worker = &connection.worker;
    let mut record = Record::http(&worker.shared.telemetry, worker.id, &connection.unaddressed, request);
    record.client(connection.peer.address);
    record.fail(failure);
    let mut response =
        failure.response(Asker::new(&Method::CONNECT, request.headers(), connection.tells_details()));
    connection.last_word(&mut response);
    record.status(response.status());
    Outgoing::plain(response)
}
