//! Connections to the workload this sidecar stands before: on a declared port itself, or redirected to the inbound port.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_config::model::DestinationName;

use super::connection::Arrival;
use super::{Stream, Towards, outbound, tcp};
use crate::failure::{Failure, Reason};
use crate::mesh::InboundPort;
use crate::worker::Worker;

/// A connection to `port`, if the workload declares it; `original` is where it was going.
pub async fn serve(
    io: impl Stream,
    arrival: Arrival,
    port: Option<Arc<InboundPort>>,
    original: Option<SocketAddr>,
) {
    // Our own ports are no ports of the app: from outside they are redirected here like any other.
    let original = original.filter(|original| !arrival.worker.shared.listening.is_ours(*original));
    let Some(port) = port else {
        return match original {
            // A port nobody declared is none of the mesh's business: it goes on to the app as it is.
            Some(original) => {
                let name = DestinationName::ip(original.ip(), original.port());
                let destination = arrival.worker.outside(&name);
                tcp::carry(io, &arrival, &destination, &destination.tcp, None).await;
            }
            None => {
                let why = format!("the workload declares no port {}", arrival.port);
                tcp::refuse(io, &arrival, &Failure::new(Reason::UnknownDestination, why));
            }
        };
    };
    let Some(destination) = port.destination.current() else {
        let why = format!("port {} was removed from the workload", port.port);
        return tcp::refuse(io, &arrival, &Failure::new(Reason::UnknownDestination, why));
    };
    let name = DestinationName::ip(port.app.ip(), port.port);
    let found = outbound::find(io, &arrival, &destination, Some(&name)).await;
    outbound::carry(found, arrival, &destination, Towards::Slot(port.destination.clone())).await;
}

/// What the workload declares for a port.
pub fn port(worker: &Worker, port: u16) -> Option<Arc<InboundPort>> {
    worker.inbound.borrow().as_ref()?.ports.get(&port).cloned()
}
