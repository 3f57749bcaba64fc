//! TLS towards an endpoint of the mesh: mutual, with exactly the identity that came with its address.
//!
//! Owns the handshake of a caller. There is no way back to plaintext: an endpoint that cannot prove who it is gets nothing.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rustls_pki_types::{DnsName, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use outrigger_config::model::SpiffeId;

use crate::identity::edges::Negotiated;
use crate::identity::{Cause, HandshakeFailure, Identity, Token, verify};
use crate::socket::Socket;

/// From an open connection to the end of the handshake. Longer than a connect timeout: the other side may have many to do at once.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// Opens TLS with whoever is at the other end of `stream`, who has to be `id`, for what it takes first of `offered`.
pub async fn open(
    stream: TcpStream,
    identity: &Identity,
    id: &SpiffeId,
    offered: &[Token],
) -> Result<(TlsStream<Socket>, Token, Negotiated), HandshakeFailure> {
    let config = identity.client(id).map_err(|why| HandshakeFailure::new(Cause::NoIdentity, why))?;
    let name = session_name(stream.peer_addr()?);
    let connector = TlsConnector::from(config);
    let names = offered.iter().map(|token| token.name().to_vec()).collect();
    let handshake = connector.with_alpn(names).connect(name, Socket::new(stream));
    let stream = match timeout(HANDSHAKE, handshake).await {
        Ok(done) => done?,
        Err(_) => {
            return Err(HandshakeFailure::new(Cause::Timeout, format!("no handshake within {HANDSHAKE:?}")));
        }
    };
    let session = stream.get_ref().1;
    let negotiated = Negotiated::of(session);
    if let Err(cause) = verify::peer(session.peer_certificates(), Some(id), SystemTime::now()) {
        // Only a resumed session gets as far as that: what it began with has expired.
        identity.forget_sessions(id);
        return Err(HandshakeFailure::new(cause, format!("{cause}, in a session that was resumed")));
    }
    let taken = session.alpn_protocol().and_then(Token::of);
    let Some(taken) = taken.filter(|token| offered.contains(token)) else {
        let why = "it took TLS but none of the mesh's protocols: does its sidecar stand before this port?";
        return Err(HandshakeFailure::new(Cause::Protocol, why));
    };
    Ok((stream, taken, negotiated))
}

/// Under what sessions are remembered: the address, because another instance cannot read its neighbour's tickets. Never sent.
fn session_name(address: SocketAddr) -> ServerName<'static> {
    let ip: String =
        address.ip().to_string().chars().map(|c| if c == '.' || c == ':' { '-' } else { c }).collect();
    let name = format!("a{ip}a.port{}", address.port());
    match DnsName::try_from(name) {
        Ok(name) => ServerName::DnsName(name),
        // Not with the characters above; sessions of several ports would share a name then.
        Err(_) => ServerName::IpAddress(address.ip().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_a_session_name_of_its_own() {
        let mut names: Vec<_> =
            ["127.0.0.1:80", "127.0.0.1:81", "12.70.0.1:80", "[::1]:80", "[1::]:80", "[fe80::1%3]:1"]
                .iter()
                .filter_map(|address| address.parse().ok())
                .map(|address| match session_name(address) {
                    ServerName::DnsName(name) => name.as_ref().to_owned(),
                    other => panic!("{other:?}"),
                })
                .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}
