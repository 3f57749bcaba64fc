//! Every experiment of a mesh: what the control plane says of it, and what each proxy did.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::http::get_json;
use crate::up::MeshReport;

/// A proxy answers from memory.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Serialize)]
pub struct Listing {
    /// What the control plane knows; empty while it is away.
    pub experiments: Vec<Known>,
    pub proxies: Vec<Proxy>,
}

/// `/v1/faults` of the control plane. Times are milliseconds since 1970.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Known {
    pub policy: String,
    pub at: String,
    pub state: String,
    pub since: u64,
    pub until: Option<u64>,
    pub stopped: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Proxy {
    /// `NAMESPACE/NAME`
    pub workload: String,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    pub experiments: Vec<Experiment>,
}

/// Of `/faults` of a proxy. Times are seconds since 1970.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Experiment {
    pub policy: String,
    pub at: String,
    pub active: bool,
    pub began: u64,
    pub left_ms: Option<u64>,
    pub ended: Option<Ended>,
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ended {
    pub by: String,
    pub at: u64,
    pub detail: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fault {
    pub name: String,
    pub met: u64,
    pub done: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Said {
    experiments: Vec<Experiment>,
}

pub async fn ask_all(mesh: &MeshReport) -> Listing {
    let asked = mesh.proxies().map(|(workload, admin)| async move {
        let said: anyhow::Result<Said> = get_json(admin, "/faults", PATIENCE).await;
        let (unreachable, experiments) = match said {
            Ok(said) => (None, said.experiments),
            Err(error) => (Some(format!("{error:#}")), Vec::new()),
        };
        Proxy { workload, unreachable, experiments }
    });
    let control = async {
        let control = mesh.control.as_ref()?;
        get_json::<Vec<Known>>(&control.api, "/v1/faults", PATIENCE).await.ok()
    };
    let (experiments, proxies) = tokio::join!(control, join_all(asked));
    Listing { experiments: experiments.unwrap_or_default(), proxies }
}

pub fn table(listing: &Listing) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["POLICY", "FAULT", "AT", "PROXY", "STATE", "MET", "DONE"]);
    for proxy in &listing.proxies {
        if let Some(why) = &proxy.unreachable {
            table.add_row(["-", "-", "-", &proxy.workload, &format!("unknown: {why}"), "-", "-"]);
        }
        for experiment in &proxy.experiments {
            for fault in &experiment.faults {
                table.add_row([
                    experiment.policy.clone(),
                    fault.name.clone(),
                    experiment.at.clone(),
                    proxy.workload.clone(),
                    state(experiment),
                    fault.met.to_string(),
                    done(&fault.done),
                ]);
            }
        }
    }
    // Proxies that were told that it is over have none of it any more; those that never called have not begun.
    for known in &listing.experiments {
        let listed =
            listing.proxies.iter().flat_map(|proxy| &proxy.experiments).any(|one| one.policy == known.policy);
        if !listed {
            table.add_row([&known.policy, "-", &known.at, "-", &known.state, "-", "-"]);
        }
    }
    if table.is_empty() {
        return "nothing goes wrong on purpose".to_owned();
    }
    crate::up::trimmed(&table)
}

fn state(experiment: &Experiment) -> String {
    match (&experiment.ended, experiment.left_ms) {
        (Some(ended), _) => format!("over by {}: {}", ended.by, ended.detail),
        (None, Some(left)) => format!("active for {:.0} s more", left as f64 / 1000.0),
        (None, None) => "active".to_owned(),
    }
}

fn done(kinds: &BTreeMap<String, u64>) -> String {
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if kinds.is_empty() { "nothing yet".to_owned() } else { kinds.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_fault_is_a_line_with_its_state_and_what_it_did() {
        let said: Said = serde_json::from_value(json!({"experiments": [
            {"policy": "default/slow", "at": "Caller", "active": true, "began": 1, "left_ms": 61_000, "ended": null,
             "faults": [{"name": "jason", "met": 7, "done": {"delay": 3, "abort": 1}}, {"name": "fault-1", "met": 0, "done": {}}]},
            {"policy": "default/bad", "at": "Callee", "active": false, "began": 1, "left_ms": null,
             "ended": {"by": "stopIf", "at": 2, "detail": "5 of 20 calls succeeded within 10s, fewer than 90 %"},
             "faults": [{"name": "all", "met": 20, "done": {"delay": 20}}]},
        ]}))
        .expect("as a proxy says it");
        let known = |policy: &str, state: &str| Known {
            policy: policy.into(),
            at: "Caller".into(),
            state: state.into(),
            since: 0,
            until: None,
            stopped: None,
        };
        let listing = Listing {
            experiments: vec![known("default/slow", "active"), known("default/over", "stopped")],
            proxies: vec![
                Proxy { workload: "default/web".into(), unreachable: None, experiments: said.experiments },
                Proxy {
                    workload: "default/db".into(),
                    unreachable: Some("refused".into()),
                    experiments: vec![],
                },
            ],
        };
        let lines: Vec<_> = table(&listing)
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "POLICY FAULT AT PROXY STATE MET DONE",
                "default/slow jason Caller default/web active for 61 s more 7 1 abort, 3 delay",
                "default/slow fault-1 Caller default/web active for 61 s more 0 nothing yet",
                "default/bad all Callee default/web over by stopIf: 5 of 20 calls succeeded within 10s, fewer than 90 % 20 20 delay",
                "- - - default/db unknown: refused - -",
                "default/over - Caller - stopped - -",
            ]
        );
        assert_eq!(table(&Listing::default()), "nothing goes wrong on purpose");
    }
}
