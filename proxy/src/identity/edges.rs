//! Who spoke to whom, and how it was protected: what `outrigger identity` shows.
//!
//! Owns one entry a pair of ends and kind of protection, noted once a connection, never for a request. Bounded; the one not seen for longest goes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_config::model::SpiffeId;
use parking_lot::Mutex;

use crate::telemetry::Direction;

#[derive(Debug, Default)]
pub struct Edges(Mutex<HashMap<Edge, Seen>>);

/// The two ends, as this proxy sees them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    pub direction: Direction,
    /// Who is at the other end, where it is proven.
    pub peer: Option<SpiffeId>,
    /// Where the other end is, where nothing is proven.
    pub address: Option<IpAddr>,
    /// The endpoint's `NAMESPACE/NAME`, where a caller knows it.
    pub workload: Option<Arc<str>>,
    /// The port that was called.
    pub port: u16,
    /// `None` for mTLS; else why not.
    pub plaintext: Option<Why>,
}

/// Why a connection is not mTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The endpoint has no sidecar that could take it.
    EndpointUnmeshed,
    /// The destination is not one of the mesh.
    OutsideMesh,
    /// The caller spoke plaintext.
    CallerPlaintext,
    /// The caller spoke TLS of its own, which went on to the app.
    CallerOwnTls,
    /// The port is declared to be without mTLS.
    Disabled,
    /// This proxy was given no identity.
    NoIdentity,
}

impl Why {
    pub const fn words(self) -> &'static str {
        match self {
            Self::EndpointUnmeshed => "the endpoint has no sidecar with mTLS",
            Self::OutsideMesh => "the destination is outside the mesh",
            Self::CallerPlaintext => "the caller spoke plaintext",
            Self::CallerOwnTls => "the caller spoke TLS of its own",
            Self::Disabled => "mTLS is disabled for the port",
            Self::NoIdentity => "this proxy has no identity",
        }
    }
}

/// How often, and since when.
#[derive(Clone, Debug)]
pub struct Seen {
    pub first: SystemTime,
    pub last: SystemTime,
    pub connections: u64,
    /// Of them, those that resumed a session.
    pub resumed: u64,
    /// As negotiated last; `None` for plaintext.
    pub negotiated: Option<Negotiated>,
}

/// What protects a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub key_exchange: &'static str,
    pub cipher: &'static str,
    pub resumed: bool,
}

impl Negotiated {
    pub fn of(connection: &rustls::CommonState) -> Self {
        Self {
            key_exchange: connection
                .negotiated_key_exchange_group()
                .and_then(|group| group.name().as_str())
                .unwrap_or("unknown"),
            cipher: connection
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown"),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }
}

/// Pairs remembered at most.
const MOST: usize = 1_024;

impl Edges {
    /// One more connection.
    pub fn note(&self, edge: Edge, negotiated: Option<Negotiated>) {
        let now = SystemTime::now();
        let resumed = u64::from(negotiated.is_some_and(|negotiated| negotiated.resumed));
        let mut edges = self.0.lock();
        if let Some(seen) = edges.get_mut(&edge) {
            seen.last = now;
            seen.connections += 1;
            seen.resumed += resumed;
            seen.negotiated = negotiated;
            return;
        }
        if edges.len() >= MOST {
            let oldest = edges.iter().min_by_key(|(_, seen)| seen.last).map(|(edge, _)| edge.clone());
            oldest.map(|edge| edges.remove(&edge));
        }
        edges.insert(edge, Seen { first: now, last: now, connections: 1, resumed, negotiated });
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<(Edge, Seen)> {
        self.0.lock().iter().map(|(edge, seen)| (edge.clone(), seen.clone())).collect()
    }
}
