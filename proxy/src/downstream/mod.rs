//! The side of a connection's client: it arrives, its destination and protocol are found, its requests are read.
//!
//! Read in this order: `listen` and `accept` (sockets and connections), `outbound`, `inbound` and `gateway` (where a connection leads),
//! `sniff` (what it carries), then `http` (requests, each handed to `exchange`) or `tcp` (bytes).

pub mod accept;
pub mod client_hello;
mod connect;
mod connection;
pub mod counted;
pub mod detect;
pub mod gateway;
mod http;
pub mod inbound;
pub mod listen;
pub mod original_dst;
pub mod outbound;
mod patience;
mod replay;
mod sniff;
mod tcp;

use std::net::{IpAddr, SocketAddr};

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use connection::{Arrival, Connection, Towards};
pub use patience::InFlight;
pub use sniff::ServerFirst;

use crate::upstream::relay::Resettable;

/// What a connection of a client may be: a socket, TLS over one, the inside of a CONNECT.
pub trait Stream: AsyncRead + AsyncWrite + Resettable + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Resettable + Send + Unpin + 'static> Stream for T {}

/// The addresses this proxy listens on: calling one of them from here leads back here.
#[derive(Debug, Default)]
pub struct Listening(ArcSwap<Vec<SocketAddr>>);

impl Listening {
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        self.0.store(addresses.into());
    }

    pub fn is_ours(&self, address: SocketAddr) -> bool {
        let address = original_dst::canonical(address);
        self.0.load().iter().any(|own| {
            let wildcard = own.ip().is_unspecified() && is_local(address.ip());
            own.port() == address.port() && (own.ip() == address.ip() || wildcard)
        })
    }
}

/// Whether a wildcard socket certainly hears this address. Addresses of interfaces are not looked up.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

impl Resettable for TokioIo<hyper::upgrade::Upgraded> {
    fn reset(&mut self) {
        // Dropped without a shutdown it ends the way its codec ends what is cancelled.
    }
}

impl<T: Resettable> Resettable for replay::Replay<T> {
    fn reset(&mut self) {
        self.inner_mut().reset();
    }
}

const _: fn(TcpStream) = |stream| {
    fn is_stream(_: impl Stream) {}
    is_stream(stream);
};
