//! Who was seen to call whom, protected or not.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{Edge, Proxy, names};

/// A caller that Strict would turn away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    pub workload: String,
    pub port: u16,
    /// A workload's name where its address is known.
    pub caller: String,
    pub why: String,
    pub connections: u64,
    /// Seconds since 1970.
    pub last: u64,
}

/// A port that callers reached without mTLS of the mesh.
pub fn refused_by_strict(proxies: &[Proxy]) -> Vec<Refused> {
    let names = names(proxies);
    let plaintext = proxies.iter().flat_map(|proxy| {
        let inbound = proxy.said.edges.iter().filter(|edge| edge.direction == "inbound" && !edge.mtls);
        inbound.map(move |edge| (proxy, edge))
    });
    let mut refused: Vec<_> = plaintext
        .map(|(proxy, edge)| Refused {
            workload: proxy.workload.clone(),
            port: edge.port,
            caller: other(edge, &names),
            why: edge.why_plaintext.clone().unwrap_or_default(),
            connections: edge.connections,
            last: edge.last,
        })
        .collect();
    refused.sort_by(|a, b| (&a.workload, a.port, &a.caller).cmp(&(&b.workload, b.port, &b.caller)));
    refused
}

/// Connections that workloads were seen to take, in whatever way.
pub fn callers_seen(proxies: &[Proxy]) -> u64 {
    let inbound = |edge: &&Edge| edge.direction == "inbound";
    proxies
        .iter()
        .flat_map(|proxy| proxy.said.edges.iter().filter(inbound))
        .map(|edge| edge.connections)
        .sum()
}

/// `seen`: [`callers_seen`]. Where nobody called, nothing is known.
pub fn strict_table(refused: &[Refused], seen: u64) -> String {
    match (refused.is_empty(), seen) {
        (true, 0) => return "No caller was seen yet: nothing can be said about Strict.".into(),
        (true, _) => {
            return format!(
                "Strict would turn nobody away: every connection seen ({seen}) was mTLS of the mesh."
            );
        }
        (false, _) => {}
    }
    let mut table = new(&["WORKLOAD", "PORT", "CALLER", "WHY IT WOULD BE REFUSED", "CONNECTIONS"]);
    for one in refused {
        table.add_row([
            one.workload.clone(),
            one.port.to_string(),
            one.caller.clone(),
            one.why.clone(),
            one.connections.to_string(),
        ]);
    }
    crate::up::trimmed(&table)
}

/// Each edge once, as its caller saw it; as the callee did, where the caller is none of the mesh.
pub fn table(proxies: &[Proxy]) -> String {
    let names = names(proxies);
    let mut table = new(&["FROM", "TO", "PORT", "MTLS", "CONNECTIONS", "RESUMED"]);
    let mut rows = Vec::new();
    for proxy in proxies {
        for edge in &proxy.said.edges {
            let known = edge.address.as_deref().is_some_and(|address| names.contains_key(address));
            let (from, to) = match edge.direction.as_str() {
                "outbound" => (proxy.workload.clone(), other(edge, &names)),
                _ if edge.mtls || known => continue,
                _ => (other(edge, &names), proxy.workload.clone()),
            };
            let protected = match (&edge.key_exchange, &edge.why_plaintext) {
                (Some(key_exchange), _) if edge.mtls => format!("yes, {key_exchange}"),
                (_, Some(why)) => format!("no: {why}"),
                _ => if edge.mtls { "yes" } else { "no" }.into(),
            };
            rows.push([
                from,
                to,
                edge.port.to_string(),
                protected,
                edge.connections.to_string(),
                edge.resumed.to_string(),
            ]);
        }
    }
    if rows.is_empty() {
        return "\n\nNo connection was seen yet.".into();
    }
    rows.sort();
    for row in rows {
        table.add_row(row);
    }
    format!("\n\n{}", crate::up::trimmed(&table))
}

fn other(edge: &Edge, names: &BTreeMap<&str, &str>) -> String {
    let by_address = || edge.address.as_deref().map(|address| names.get(address).copied().unwrap_or(address));
    edge.workload.as_deref().or_else(by_address).or(edge.peer.as_deref()).unwrap_or("unknown").to_owned()
}

fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Said;

    fn edge(direction: &str, address: &str, mtls: bool) -> Edge {
        Edge {
            direction: direction.into(),
            peer: mtls.then(|| "spiffe://cluster.local/ns/default/sa/x".into()),
            workload: None,
            address: Some(address.into()),
            port: 9080,
            mtls,
            why_plaintext: (!mtls).then(|| "the caller spoke plaintext".into()),
            key_exchange: mtls.then(|| "X25519MLKEM768".into()),
            cipher: None,
            connections: 3,
            resumed: 1,
            first: 1,
            last: 2,
        }
    }

    fn proxy(name: &str, address: &str, edges: Vec<Edge>) -> Proxy {
        let said = Said { configured: true, edges, ..Said::default() };
        Proxy { workload: name.into(), address: address.into(), unreachable: None, said }
    }

    #[test]
    fn what_strict_would_refuse_is_what_came_in_without_mtls() {
        let proxies = [
            proxy("default/a", "127.64.1.1", vec![edge("outbound", "127.64.1.2", true)]),
            proxy(
                "default/b",
                "127.64.1.2",
                vec![edge("inbound", "127.64.1.1", true), edge("inbound", "127.0.0.1", false)],
            ),
            proxy("default/c", "127.64.1.3", vec![edge("inbound", "127.64.1.1", false)]),
        ];
        let refused: Vec<_> =
            refused_by_strict(&proxies).into_iter().map(|one| (one.workload, one.caller)).collect();
        let want = [("default/b", "127.0.0.1"), ("default/c", "default/a")];
        assert_eq!(refused, want.map(|(workload, caller)| (workload.to_owned(), caller.to_owned())));
        assert_eq!(callers_seen(&proxies), 9);
        assert!(strict_table(&[], 9).contains("nobody away: every connection seen (9)"));
        assert!(strict_table(&[], 0).contains("nothing can be said"), "no news is no good news");
        let table = table(&proxies);
        assert!(table.contains("yes, X25519MLKEM768") && table.contains("127.0.0.1"), "{table}");
        assert_eq!(
            table.matches("default/c").count(),
            0,
            "the caller is of the mesh and says it itself: {table}"
        );
    }
}
