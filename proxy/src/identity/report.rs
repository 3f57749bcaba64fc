//! What the admin port tells about identity; `outrigger identity` puts together what all proxies tell.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Identity;
use super::edges::{Edge, Seen};

impl Identity {
    /// Certificate, trust and edges, as JSON. Times are seconds since 1970; never a key.
    pub fn report(&self) -> Value {
        let state = self.state.lock().clone();
        let svid = self.svid().map(|svid| {
            json!({
                "id": svid.leaf.id.as_str(),
                "serial": svid.leaf.serial,
                "issuer": svid.leaf.issuer,
                "not_before": seconds(svid.leaf.not_before),
                "not_after": seconds(svid.leaf.not_after),
            })
        });
        let edges = self.edges.all();
        json!({
            "configured": self.is_configured(),
            "svid": svid,
            "roots": self.trust_bundle().map_or(0, |bundle| bundle.len()),
            "renewals": state.renewals,
            "kept": state.kept.as_ref().map(|kept| kept.is_ok()),
            "why_not_kept": state.kept.as_ref().and_then(|kept| kept.as_ref().err()),
            "error": state.error,
            "edges": edges.iter().map(|(edge, seen)| self::edge(edge, seen)).collect::<Vec<_>>(),
        })
    }
}

fn edge(edge: &Edge, seen: &Seen) -> Value {
    json!({
        "direction": edge.direction.label(),
        "peer": edge.peer.as_ref().map(|peer| peer.as_str()),
        "workload": edge.workload,
        "address": edge.address,
        "port": edge.port,
        "mtls": edge.plaintext.is_none(),
        "why_plaintext": edge.plaintext.map(|why| why.words()),
        "key_exchange": seen.negotiated.map(|negotiated| negotiated.key_exchange),
        "cipher": seen.negotiated.map(|negotiated| negotiated.cipher),
        "connections": seen.connections,
        "resumed": seen.resumed,
        "first": seconds(seen.first),
        "last": seconds(seen.last),
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
