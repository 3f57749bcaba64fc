//! Who is at the other end of a connection.

use std::net::SocketAddr;

use outrigger_config::model::SpiffeId;

/// The peer of one connection: what authorization judges, whatever its requests say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Proven in the handshake of mesh TLS; `None` where there was none.
    pub identity: Option<SpiffeId>,
    /// Where the connection came from.
    pub address: SocketAddr,
}

impl Peer {
    /// Of a connection without mesh TLS.
    pub fn unproven(address: SocketAddr) -> Self {
        Self { identity: None, address }
    }
}
