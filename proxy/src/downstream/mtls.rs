//! TLS of the mesh, on the side of who is called.
//!
//! Owns the handshake with another proxy: both sides show a certificate, and from then on the caller is known. Which connections are of this kind is
//! decided in `inbound`; who is believed, in `identity`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::Stream;
use super::patience::HEAD;
use super::tls::Opened;
use crate::identity::edges::Negotiated;
use crate::identity::{Cause, HandshakeFailure, Leaf, Offered, PLAIN_HTTP, Token, verify};
use crate::telemetry::Peer;
use crate::worker::Shared;

/// A caller whose identity was proven.
#[derive(Debug)]
pub struct Caller {
    pub leaf: Leaf,
    pub negotiated: Negotiated,
    /// In metrics and the access log: `NAMESPACE/SERVICEACCOUNT`, or the id where it is of another form.
    pub label: Peer,
    pub name: Arc<str>,
    /// What is said of it to the app in `x-forwarded-client-cert`; made once a connection.
    pub forwarded: HeaderValue,
}

/// What a caller chose to speak inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// As agreed between proxies: nothing has to be found out.
    Agreed(Token),
    /// The bytes decide, as without TLS.
    Unsaid,
}

/// Opens TLS on a connection that begins with a ClientHello, within [`HEAD`].
pub async fn open<T: Stream>(
    io: T,
    shared: &Shared,
    offered: Offered,
) -> Result<(Opened<T>, Caller, Inside), HandshakeFailure> {
    let identity = &shared.identity;
    if let Some(why) = identity.unusable() {
        return Err(HandshakeFailure::new(Cause::NoIdentity, why));
    }
    let (Some(config), Some(own)) = (identity.server(offered), identity.svid()) else {
        return Err(HandshakeFailure::new(Cause::NoIdentity, "this proxy has no certificate"));
    };
    let handshake = TlsAcceptor::from(config).accept(io).into_fallible();
    let stream = match timeout(HEAD, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, io))) => {
            tokio::task::spawn_local(linger(io));
            return Err(error.into());
        }
        Err(_) => return Err(HandshakeFailure::new(Cause::Timeout, format!("no handshake within {HEAD:?}"))),
    };
    let session = stream.get_ref().1;
    let leaf = verify::peer(session.peer_certificates(), None, SystemTime::now())
        .map_err(|cause| HandshakeFailure::new(cause, cause.word()))?;
    if leaf.id.trust_domain() != own.leaf.id.trust_domain() {
        return Err(HandshakeFailure::new(Cause::OtherTrustDomain, leaf.id.to_string()));
    }
    let forwarded = forwarded(&own.leaf, &leaf, session.peer_certificates().and_then(<[_]>::first));
    let inside = match session.alpn_protocol() {
        Some(name) if PLAIN_HTTP.contains(&name) => Inside::Unsaid,
        Some(name) => Token::of(name).map_or(Inside::Unsaid, Inside::Agreed),
        None => Inside::Unsaid,
    };
    let name: Arc<str> = match leaf.id.account() {
        Some((namespace, account)) => format!("{namespace}/{account}").into(),
        None => leaf.id.as_str().into(),
    };
    let label = shared.telemetry.metrics.peer(&name);
    let caller = Caller { negotiated: Negotiated::of(session), label, name, leaf, forwarded };
    Ok((Opened::new(stream), caller, inside))
}

/// Reads on for a moment after a handshake was refused: the peer may have sent its first request already, and closing with unread bytes would
/// reset the connection before it reads why.
async fn linger(mut io: impl Stream) {
    if io.shutdown().await.is_err() {
        return;
    }
    let mut discarded = [0; 1024];
    let read = async {
        // Whoever sends more than fits into a first flight is cut off.
        for _ in 0..64 {
            if !matches!(io.read(&mut discarded).await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = timeout(LINGER, read).await;
}

const LINGER: Duration = Duration::from_secs(1);

/// `By=…;Hash=…;URI=…`, as Envoy writes it: who was called, the SHA-256 of the caller's certificate, and the caller.
fn forwarded(
    own: &Leaf,
    caller: &Leaf,
    certificate: Option<&rustls_pki_types::CertificateDer<'_>>,
) -> HeaderValue {
    use sha2::Digest;
    let hash = certificate.map(sha2::Sha256::digest).unwrap_or_default();
    let text = format!("By={};Hash={};URI={}", own.id, crate::identity::Hex(&hash), caller.id);
    HeaderValue::try_from(text).expect("SPIFFE ids and hexadecimal digits can stand in a field")
}
