//! What one policy adds to an exchange: a callee's sidecar without any, and with each of them alone.
//!
//! Each allows everything, as it does to nearly all requests in use: what is counted is the asking.

use std::net::SocketAddr;

use anyhow::Context;

use crate::exchange::Through;

/// A name, and what a TrafficPolicy for the app says.
pub const POLICIES: [(&str, &str); 10] = [
    ("none", ""),
    ("limit", "rateLimit: {limits: [{requests: 1000000}]}"),
    ("limit-silent", "rateLimit: {headers: Never, limits: [{requests: 1000000}]}"),
    ("limit-by-address", "rateLimit: {headers: Never, limits: [{requests: 1000000, key: [{by: Address}]}]}"),
    (
        "limit-by-header",
        "rateLimit: {headers: Never, limits: [{requests: 1000000, key: [{by: Header, name: user-agent}]}]}",
    ),
    ("concurrency", "concurrency: {limits: [{requests: 10000}]}"),
    ("concurrency-by-address", "concurrency: {limits: [{requests: 10000, key: [{by: Address}]}]}"),
    (
        "fault-by-header",
        "fault: {at: Callee, faults: [{match: [{headers: [{name: end-user, value: jason}]}], delay: {fixed: 7s}}]}",
    ),
    ("fault-by-dice", "fault: {at: Callee, faults: [{percent: 0.0001, delay: {fixed: 1ms}}]}"),
    (
        "fault-stop-if",
        "fault: {at: Callee, stopIf: {successRateBelow: 50}, faults: [{percent: 0.0001, delay: {fixed: 1ms}}]}",
    ),
];

/// All that stand in the column `ours-in-use` of the comparison.
pub const IN_USE: &str = include_str!("../compare/proxies/policies.yaml");

/// A TrafficPolicy for the app.
pub fn of_app(sections: &str) -> String {
    format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: app}}\n\
         spec: {{targetRefs: [{{kind: Service, name: app}}], {sections}}}\n"
    )
}

/// A callee's sidecar before an app, under the policy of this name and what `more` manifests say.
pub fn under(name: &str, more: &str) -> anyhow::Result<Through> {
    let known = || POLICIES.map(|(name, _)| name).join(", ");
    let (_, section) = POLICIES
        .iter()
        .find(|(known, _)| *known == name)
        .with_context(|| format!("there are {}", known()))?;
    Through::run(|at, app, _| {
        let line = ["--workload", "callee", "--inbound-listen", "--pod-address", &at.ip().to_string()];
        (mesh(at, app, section) + "---\n" + more, line.map(str::to_owned).to_vec())
    })
}

fn mesh(at: SocketAddr, app: SocketAddr, section: &str) -> String {
    let callee = format!(
        "apiVersion: outrigger.dev/v1alpha1\n\
         kind: Workload\n\
         metadata: {{name: callee, labels: {{app: app}}}}\n\
         spec:\n  address: \"{}\"\n  appAddress: \"{}\"\n  \
         ports: [{{name: http, port: {}, appPort: {}, appProtocol: http}}]\n\
         ---\n\
         apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: app}}\n\
         spec: {{selector: {{app: app}}, ports: [{{name: http, port: 80, targetPort: {}, appProtocol: http}}]}}\n",
        at.ip(),
        app.ip(),
        at.port(),
        app.port(),
        at.port(),
    );
    if section.is_empty() {
        return callee;
    }
    callee + &of_app(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lets_requests_through() {
        let _alone = crate::alone();
        for (name, _) in POLICIES {
            let mut through = under(name, "").unwrap();
            for _ in 0..3 {
                through.once().unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
        under("none", IN_USE).unwrap().once().unwrap();
    }
}
