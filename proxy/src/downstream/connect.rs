//! CONNECT, where the client uses us as its HTTP proxy (RFC 9110 §9.3.6).
//!
//! What comes through the tunnel is treated like a connection made to that destination: looked into where it is one of the mesh, carried
//! untouched where it is not.

use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::connection::{Arrival, look_up};
use super::{Connection, outbound};
use crate::body::Body;
use crate::exchange::{Authority, Outgoing};
use crate::failure::{Asker, Failure, Reason};
use crate::telemetry::Record;

/// Answers 200 once the destination is known to be one that may be called, and takes over what follows.
pub async fn answer(mut request: Request<Incoming>, connection: Rc<Connection>) -> Response<Outgoing> {
    let listening = &connection.worker.shared.listening;
    let name = Authority::of(&request).destination(443).map(|name| listening.meant_by(name));
    let found = match &name {
        Some(name) => look_up(&connection.worker, name).await,
        None => Err(Failure::new(Reason::BadRequest, "CONNECT needs a host and a port")),
    };
    let (name, slot) = match (name, found) {
        (Some(name), Ok(slot)) => (name, slot),
        (_, Err(failure)) => return refused(&failure, &request, &connection),
        (None, Ok(_)) => return refused(&Reason::Internal.into(), &request, &connection),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let in_flight = connection.begin();
    let arrival = Arrival {
        worker: connection.worker.clone(),
        direction: connection.direction,
        peer: connection.peer.clone(),
        port: name.port(),
        secure: false,
        caller: connection.caller.clone(),
    };
    tokio::task::spawn_local(async move {
        let _in_flight = in_flight;
        match upgrade.await {
            Ok(upgraded) => {
                let io = TokioIo::new(upgraded);
                // Boxed: what is inside may be HTTP with a CONNECT of its own.
                Box::pin(outbound::destination(io, arrival, name, slot)).await;
            }
            Err(error) => tracing::debug!(%error, "a CONNECT ended before its tunnel stood"),
        }
    });
    Outgoing::plain(Response::new(Body::empty()))
}

fn refused(
    failure: &Failure,
    request: &Request<Incoming>,
    connection: &Rc<Connection>,
) -> Response<Outgoing> {
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
