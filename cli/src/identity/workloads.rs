//! One line a proxy: its certificate, and what protects its connections.

use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{ContentArrangement, Table, presets};

use super::Proxy;

/// Whether it can prove who it is, for now.
pub fn is_well(proxy: &Proxy) -> bool {
    proxy.said.svid.as_ref().is_some_and(|svid| svid.not_after > now())
}

pub fn table(proxies: &[Proxy]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["WORKLOAD", "IDENTITY", "ISSUER", "EXPIRES", "KEY EXCHANGE", "CIPHER", "KEPT"]);
    for proxy in proxies {
        let said = &proxy.said;
        let negotiated = said.edges.iter().filter(|edge| edge.mtls).max_by_key(|edge| edge.last);
        let or_dash = |text: Option<&String>| text.map_or("-", |text| text).to_owned();
        let (id, issuer, expires) = match (&said.svid, &proxy.unreachable) {
            (Some(svid), _) => (svid.id.clone(), svid.issuer.clone(), in_time(svid.not_after)),
            (None, Some(why)) => (format!("unknown: {why}"), "-".into(), "-".into()),
            (None, None) if !said.configured => {
                ("none: this proxy speaks plaintext".into(), "-".into(), "-".into())
            }
            (None, None) => {
                let why = said.error.as_deref().unwrap_or("no certificate yet");
                (format!("none: {why}"), "-".into(), "-".into())
            }
        };
        let kept = match (said.kept, &said.why_not_kept) {
            (Some(true), _) => "in memory".into(),
            (Some(false), Some(why)) => format!("no: {why}"),
            _ => "-".into(),
        };
        table.add_row([
            proxy.workload.clone(),
            id,
            issuer,
            expires,
            or_dash(negotiated.and_then(|edge| edge.key_exchange.as_ref())),
            or_dash(negotiated.and_then(|edge| edge.cipher.as_ref())),
            kept,
        ]);
    }
    crate::up::trimmed(&table)
}

fn in_time(at: u64) -> String {
    match at.checked_sub(now()) {
        None => "has expired".into(),
        Some(left @ 0..120) => format!("in {left} s"),
        Some(left @ 120..7_200) => format!("in {} min", left / 60),
        Some(left) => format!("in {} h", left / 3_600),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
