//! Experiments of a mesh: those that run, and those that are over although their policy is still there.

use outrigger_config::diagnostic::Severity;

use super::problem::{Kind, Problem};
use crate::fault::Listing;

/// One line a policy for what the control plane knows, and one for each proxy that ended it by itself.
pub fn problems(listing: &Listing) -> Vec<Problem> {
    let problem =
        |severity, place: String, message| Problem { severity, kind: Kind::Experiment, place, message };
    let mut problems = Vec::new();
    for known in &listing.experiments {
        let message = match known.state.as_str() {
            "active" => "makes calls go wrong on purpose (outrigger fault list)",
            "stopped" => "was stopped (outrigger fault stop); it begins again when its fault changes",
            _ => "is over by activeFor; it begins again when its fault changes",
        };
        problems.push(problem(Severity::Note, format!("TrafficPolicy {}", known.policy), message.to_owned()));
    }
    for proxy in &listing.proxies {
        // By its time it ends everywhere, which stands above.
        let early = proxy.experiments.iter().filter_map(|one| {
            let ended = one.ended.as_ref().filter(|ended| ended.by != "activeFor")?;
            let message =
                format!("is over in the proxy of {}, by {}: {}", proxy.workload, ended.by, ended.detail);
            Some(problem(Severity::Warning, format!("TrafficPolicy {}", one.policy), message))
        });
        problems.extend(early);
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fault::Listing;

    #[test]
    fn what_runs_and_what_ended_by_itself_is_told_of_its_policy() {
        let listing = Listing {
            experiments: serde_json::from_value(json!([
                {"policy": "default/a", "at": "Caller", "state": "active", "since": 1},
                {"policy": "default/b", "at": "Caller", "state": "over", "since": 1, "until": 2},
                {"policy": "default/c", "at": "Callee", "state": "stopped", "since": 1, "stopped": 2},
            ]))
            .expect("as the control plane says it"),
            proxies: vec![crate::fault::Proxy {
                workload: "default/web".into(),
                unreachable: None,
                experiments: serde_json::from_value(json!([{
                    "policy": "default/a", "at": "Caller", "active": false, "began": 1, "left_ms": null, "faults": [],
                    "ended": {"by": "stopIf", "at": 2, "detail": "1 of 20"},
                }]))
                .expect("as a proxy says it"),
            }],
        };
        let lines: Vec<_> = problems(&listing).iter().map(|one| format!("{}: {one}", one.severity)).collect();
        assert_eq!(
            lines,
            [
                "note: TrafficPolicy default/a: makes calls go wrong on purpose (outrigger fault list)",
                "note: TrafficPolicy default/b: is over by activeFor; it begins again when its fault changes",
                "note: TrafficPolicy default/c: was stopped (outrigger fault stop); it begins again when its fault changes",
                "warning: TrafficPolicy default/a: is over in the proxy of default/web, by stopIf: 1 of 20",
            ]
        );
    }
}
