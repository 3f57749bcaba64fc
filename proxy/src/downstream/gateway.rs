//! Connections from outside the mesh, at the listeners of a gateway.
//!
//! Owns which listener takes a connection: by port, then by the server name a TLS client names, then, for HTTP, by each request's host.

use std::sync::Arc;

use outrigger_config::model::Protocol;
use tokio::time::timeout;

use super::connection::Arrival;
use super::detect::Spoken;
use super::patience::HEAD;
use super::sniff::{self, Opening};
use super::{Connection, Http, Stream, Towards, outbound, tcp, tls};
use crate::failure::{Failure, Reason};
use crate::mesh::{GatewayListener, GatewayPort, GatewayPortSlot, ListenerTls};
use crate::telemetry::Tls;

/// Returns what turns out to be HTTP; everything else is served.
pub async fn serve(io: impl Stream, arrival: Box<Arrival>, slot: Arc<GatewayPortSlot>) -> Option<Http> {
    let Some(port) = slot.current() else {
        tcp::refuse(io, &arrival, &Failure::new(Reason::NoRoute, "the gateway has no such port any more"));
        return None;
    };
    // Bytes without TLS in front are a port's only listener: nothing in them says which of several is meant.
    if let [listener] = &port.listeners[..]
        && !listener.http
        && matches!(listener.tls, ListenerTls::None)
    {
        let destination = listener.destination.clone();
        let _counted = arrival.count(Tls::None);
        Box::pin(tcp::carry(io, &arrival, &destination, &destination.tcp, None)).await;
        return None;
    }
    let Opening { spoken, io, .. } = Box::pin(sniff::look(io)).await?;
    match spoken {
        Spoken::Http1 | Spoken::Http2 if takes_http(&port) => {
            let http2 = spoken == Spoken::Http2;
            let http = Http::new(io, Connection::new(&arrival, Towards::Gateway(slot), http2));
            Some(http.counted(arrival.count(Tls::None)))
        }
        // Not quite HTTP: the codec says what is wrong with it.
        Spoken::Opaque if takes_http(&port) => {
            let http = Http::new(io, Connection::new(&arrival, Towards::Gateway(slot), false));
            Some(http.counted(arrival.count(Tls::None)))
        }
        Spoken::Tls { sni, .. } => Box::pin(with_tls(io, arrival, slot, port, sni)).await,
        Spoken::Http1 | Spoken::Http2 | Spoken::Opaque => {
            let why = format!("no listener of port {} takes what was sent", port.port);
            tcp::refuse(io, &arrival, &Failure::new(Reason::NoRoute, why));
            None
        }
    }
}

fn takes_http(port: &GatewayPort) -> bool {
    port.listeners.iter().any(|listener| listener.http && matches!(listener.tls, ListenerTls::None))
}

/// The listener with TLS that the server name names.
fn with_name<'a>(port: &'a GatewayPort, sni: Option<&str>) -> Option<&'a GatewayListener> {
    port.listeners
        .iter()
        .filter(|listener| !matches!(listener.tls, ListenerTls::None))
        // A client that names no server may get what is there for everyone.
        .find(|listener| listener.hostname.matches(sni.unwrap_or_default()))
}

async fn with_tls(
    io: impl Stream,
    mut arrival: Box<Arrival>,
    slot: Arc<GatewayPortSlot>,
    port: Arc<GatewayPort>,
    sni: Option<Arc<str>>,
) -> Option<Http> {
    let Some(listener) = with_name(&port, sni.as_deref()) else {
        let why =
            format!("no TLS listener of port {} is for {}", port.port, sni.as_deref().unwrap_or("no name"));
        tcp::refuse(io, &arrival, &Failure::new(Reason::NoRoute, why));
        return None;
    };
    let destination = listener.destination.clone();
    let ListenerTls::Terminate(certificates) = &listener.tls else {
        let backends = destination.tls(sni.as_deref());
        let _counted = arrival.count(Tls::None);
        Box::pin(tcp::carry(io, &arrival, &destination, backends, None)).await;
        return None;
    };
    let handshake = tls::open(io, &arrival.worker, certificates, listener.http);
    let opened = match Box::pin(timeout(HEAD, handshake)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            tracing::debug!(client = %arrival.peer.address, %error, "a TLS handshake failed");
            return None;
        }
        Err(_) => return None,
    };
    arrival.secure = true;
    let counted = arrival.count(Tls::Server);
    if !listener.http {
        Box::pin(tcp::carry(opened, &arrival, &destination, &destination.tcp, None)).await;
        return None;
    }
    let http = match opened.alpn() {
        Some(alpn) => {
            let http2 = alpn == tls::Alpn::Http2;
            Some(Http::new(opened, Connection::new(&arrival, Towards::Gateway(slot), http2)))
        }
        // Without ALPN the bytes decide, as without TLS.
        None => {
            let found = Box::pin(sniff::find(opened, Protocol::Http, None, || async { None })).await;
            outbound::carry(found, arrival, &destination, Towards::Gateway(slot)).await
        }
    };
    http.map(|http| http.counted(counted))
}
