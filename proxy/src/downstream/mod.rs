//! The side of a connection's client: it arrives, its destination and protocol are found, its requests are read.
//!
//! Read in this order: `listen` and `accept` (sockets and connections), `outbound`, `inbound` and `gateway` (where a connection leads),
//! `sniff` (what it carries), then `http` (requests, each handed to `exchange`) or `tcp` (bytes).

pub mod accept;
mod carrier;
pub mod client_hello;
mod connect;
mod connection;
pub mod counted;
pub mod detect;
mod gateway;
mod http;
mod http2;
pub mod inbound;
mod interim;
pub mod listen;
mod mtls;
pub mod original_dst;
pub mod outbound;
mod patience;
mod replay;
mod resets;
mod sniff;
mod tcp;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use connection::{Arrival, Connection, Towards};
pub use interim::Interim;
pub use patience::InFlight;
pub use sniff::ServerFirst;
pub use tls::Configurations;

use crate::canary::Canary;
use crate::identity::Peer;
use crate::mesh::GatewayPortSlot;
use crate::socket::Socket;
use crate::telemetry::{Direction, Tls};
use crate::upstream::relay::Resettable;
use crate::worker::Worker;
use accept::Accepted;
use http::Http;
use outrigger_config::model::DestinationName;

/// What a listening socket is for.
#[derive(Clone, Debug)]
pub enum Role {
    Outbound,
    ServiceAddress(DestinationName),
    Inbound,
    /// One declared port of the workload.
    InboundPort(u16),
    /// One port of the gateway.
    Gateway(u16, Arc<GatewayPortSlot>),
}

/// A listening socket.
#[derive(Clone, Debug)]
pub struct Door {
    pub role: Role,
    /// That it listens on.
    pub port: u16,
}

impl PartialEq for Role {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Outbound, Self::Outbound) | (Self::Inbound, Self::Inbound) => true,
            (Self::ServiceAddress(a), Self::ServiceAddress(b)) => a == b,
            (Self::InboundPort(a), Self::InboundPort(b)) => a == b,
            (Self::Gateway(a, slot), Self::Gateway(b, other)) => a == b && Arc::ptr_eq(slot, other),
            _ => false,
        }
    }
}

impl Role {
    fn direction(&self) -> Direction {
        match self {
            Self::Outbound | Self::ServiceAddress(_) => Direction::Outbound,
            Self::Inbound | Self::InboundPort(_) => Direction::Inbound,
            Self::Gateway(..) => Direction::Gateway,
        }
    }
}

/// Serves one accepted connection to its end. Until it is found to carry HTTP, and while it carries anything else, it is a box of its own, so that a
/// connection that waits for its next request holds no room for what came before.
pub fn serve(accepted: Accepted<Door>, worker: Rc<Worker>) -> impl Future<Output = ()> {
    let Accepted { stream, peer, listener, open } = accepted;
    let begun = Box::pin(begin(stream, peer, listener, worker));
    async move {
        let _open = open;
        if let Some(http) = begun.await {
            http.serve().await;
        }
    }
}

/// Finds out what a connection carries; returns it if that is HTTP, and else serves it.
async fn begin(stream: TcpStream, peer: SocketAddr, door: Door, worker: Rc<Worker>) -> Option<Http> {
    let Door { role, port } = door;
    let direction = role.direction();
    // Not asked of the kernel where it would be of no use.
    let redirects = matches!(role, Role::Outbound | Role::Inbound) || worker.shared.canary.is_some();
    let original = if redirects { original_dst::original_dst(&stream) } else { None };
    if let (Some(canary), Some(original)) = (&worker.shared.canary, original)
        && Canary::is_called(direction, original)
    {
        Box::pin(canary.meet(stream, direction, original)).await;
        return None;
    }
    let stream = Socket::new(stream);
    // Boxed: it is handed on several times, and each who has had it keeps its room.
    let arrival = |port| {
        Box::new(Arrival {
            worker: worker.clone(),
            direction,
            peer: Peer::unproven(original_dst::canonical(peer)),
            port,
            secure: false,
            caller: None,
        })
    };
    // On the other two sides it is only known once its first bytes are whether it is TLS.
    let counted = match direction {
        Direction::Outbound => Some(arrival(0).count(Tls::None)),
        Direction::Inbound | Direction::Gateway => None,
    };
    let http = match role {
        Role::Outbound => match original {
            Some(original) => outbound::redirected(stream, arrival(original.port()), original).await,
            None => outbound::proxied(stream, arrival(port)).await,
        },
        Role::ServiceAddress(name) => outbound::service_address(stream, arrival(name.port()), name).await,
        Role::Inbound => {
            let port = original.map_or(port, |original| original.port());
            inbound::serve(stream, arrival(port), inbound::port(&worker, port), original).await
        }
        Role::InboundPort(port) => {
            inbound::serve(stream, arrival(port), inbound::port(&worker, port), None).await
        }
        Role::Gateway(_, slot) => gateway::serve(stream, arrival(port), slot).await,
    };
    match counted {
        Some(counted) => http.map(|http| http.counted(counted)),
        None => http,
    }
}

/// What a connection of a client may be: a socket, TLS over one, the inside of a CONNECT.
pub trait Stream: AsyncRead + AsyncWrite + Resettable + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Resettable + Unpin + 'static> Stream for T {}

/// The addresses this proxy listens on: calling one of them from here leads back here.
#[derive(Debug, Default)]
pub struct Listening(ArcSwap<Vec<Own>>);

#[derive(Debug)]
struct Own {
    address: SocketAddr,
    /// The service it stands for, if it is a service address.
    service: Option<DestinationName>,
}

impl Listening {
    pub fn set(&self, addresses: impl IntoIterator<Item = (SocketAddr, Option<DestinationName>)>) {
        let own = addresses.into_iter().map(|(address, service)| Own { address, service });
        self.0.store(Arc::new(own.collect()));
    }

    pub fn is_ours(&self, address: SocketAddr) -> bool {
        self.0.load().iter().any(|own| own.takes(address))
    }

    /// What a client means that uses us as its HTTP proxy for everything, and so names a service by its service address.
    pub fn meant_by(&self, name: DestinationName) -> DestinationName {
        let Some(ip) = name.as_ip() else { return name };
        let address = SocketAddr::new(ip, name.port());
        let own = self.0.load();
        let found = own.iter().filter(|own| own.takes(address)).find_map(|own| own.service.clone());
        found.unwrap_or(name)
    }
}

impl Own {
    fn takes(&self, address: SocketAddr) -> bool {
        let (own, address) = (self.address, original_dst::canonical(address));
        let wildcard = own.ip().is_unspecified() && is_local(address.ip());
        own.port() == address.port() && (own.ip() == address.ip() || wildcard)
    }
}

/// Whether a wildcard socket certainly hears this address. Addresses of interfaces are not looked up.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

impl Resettable for Box<dyn Stream> {
    fn reset(&mut self) {
        (**self).reset();
    }
}

impl<T: Resettable> Resettable for replay::Replay<T> {
    fn reset(&mut self) {
        self.inner_mut().reset();
    }
}

const _: fn(Socket) = |stream| {
    fn is_stream(_: impl Stream) {}
    is_stream(stream);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl FnOnce(Accepted<Door>, Rc<Worker>) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection holds it to its end, and most do nothing most of the time.
    #[test]
    fn the_task_of_a_connection_is_small() {
        let bytes = size(serve);
        println!("the task of a connection: {bytes} bytes");
        // In a debug build; what ships is smaller.
        assert!(bytes <= 128, "{bytes} bytes");
    }
}
