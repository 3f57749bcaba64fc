//! The tables: medians with their spread, ratios, and what was aimed at.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use super::proxies::{PROXIES, Proxy, falls_back};
use super::result::Results;
use super::scenario::{SCENARIOS, Unit};

/// More than this between two rounds, in percent, and the figure is marked.
const NOISY: f64 = 10.0;

pub fn medians(results: &Results) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let mut header = vec!["scenario".to_owned(), "unit".to_owned()];
    header.extend(PROXIES.iter().map(|proxy| proxy.name().to_owned()));
    table.set_header(header);
    for scenario in &SCENARIOS {
        let Some(row) = results.scenarios.get(scenario.name) else { continue };
        let mut line = vec![format!("{}: {}", scenario.name, row.what), row.unit.clone()];
        line.extend(PROXIES.iter().map(|proxy| match row.proxies.get(proxy.name()) {
            None => String::new(),
            Some(cell) => match cell.median() {
                None => "failed".to_owned(),
                Some(median) => {
                    let mark = if falls_back(*proxy, scenario.setting) { "¹" } else { "" };
                    let noisy = if cell.spread() > NOISY { " (!)" } else { "" };
                    format!("{}{mark} ±{:.0} %{noisy}", figure(median), cell.spread() / 2.0)
                }
            },
        }));
        table.add_row(line);
        for (name, quantile) in [("p50", 0), ("p99", 1)] {
            let mut line = vec![format!("{}: {name}", scenario.name), "µs".to_owned()];
            let cells = PROXIES.iter().map(|proxy| {
                let cell = row.proxies.get(proxy.name()).filter(|cell| cell.failed.is_none());
                let values = cell.map(|cell| if quantile == 0 { &cell.p50 } else { &cell.p99 });
                values.and_then(|values| super::result::median(values)).map(figure).unwrap_or_default()
            });
            line.extend(cells);
            if line.iter().skip(2).any(|cell| !cell.is_empty()) {
                table.add_row(line);
            }
        }
    }
    table.to_string()
}

/// Ours divided by each peer.
pub fn ratios(results: &Results) -> String {
    let peers = PROXIES.iter().filter(|proxy| !proxy.is_ours());
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let mut header = vec!["scenario".to_owned()];
    for peer in peers.clone() {
        header.extend([format!("ours / {}", peer.name()), "in use".to_owned()]);
    }
    table.set_header(header);
    for scenario in &SCENARIOS {
        if !results.scenarios.contains_key(scenario.name) {
            continue;
        }
        let better = if scenario.unit.more_is_better() { " (more is better)" } else { "" };
        let mut line = vec![format!("{}{better}", scenario.name)];
        for peer in peers.clone() {
            for ours in [Proxy::Ours, Proxy::OursInUse] {
                let both = results
                    .median(scenario.name, ours.name())
                    .zip(results.median(scenario.name, peer.name()));
                line.push(both.map(|(ours, peer)| format!("{:.2}", ours / peer)).unwrap_or_default());
            }
        }
        table.add_row(line);
    }
    table.to_string()
}

/// What is aimed at: against a peer's median of the same run, or in the row's own unit.
#[derive(Clone, Copy, Debug)]
struct Target {
    scenario: &'static str,
    bare: Option<f64>,
    in_use: Option<f64>,
    to: To,
    /// Bare, and in use.
    ours: [Proxy; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Peer(Proxy),
    Itself,
}

const fn target(scenario: &'static str, bare: Option<f64>, in_use: Option<f64>, to: To) -> Target {
    Target { scenario, bare, in_use, to, ours: [Proxy::Ours, Proxy::OursInUse] }
}

const HAPROXY: To = To::Peer(Proxy::Haproxy);
const FEATURES: To = To::Peer(Proxy::HaproxyFeatures);
const MESH: To = To::Peer(Proxy::EnvoyMesh);

const TARGETS: [Target; 18] = [
    target("h1", Some(0.93), Some(1.0), HAPROXY),
    target("h1", None, Some(0.95), FEATURES),
    target("h1", None, Some(0.42), MESH),
    target("rate", Some(0.93), Some(1.0), HAPROXY),
    target("h2", Some(0.90), Some(1.0), HAPROXY),
    target("two-h1", Some(0.80), Some(0.86), HAPROXY),
    target("two-h1", None, Some(0.30), MESH),
    Target {
        ours: [Proxy::OursOverH2, Proxy::OursOverH2InUse],
        ..target("two-h1", Some(0.5), Some(0.57), HAPROXY)
    },
    target("two-h2", Some(1.0), Some(1.15), HAPROXY),
    target("two-h2", None, Some(0.31), MESH),
    target("bulk", Some(1.7), None, HAPROXY),
    target("bulk-tls", Some(1.7), None, HAPROXY),
    target("new", Some(1.05), None, HAPROXY),
    target("handshake", Some(0.6), None, HAPROXY),
    target("idle", Some(1_536.0), Some(1_536.0), To::Itself),
    target("idle", None, Some(0.1), MESH),
    target("start", Some(10.0), None, To::Itself),
    target("program", Some(12.0), None, To::Itself),
];

/// The table of targets, and whether all that were measured are met.
pub fn targets(results: &Results) -> (String, bool) {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["scenario", "of", "aimed at", "measured", ""]);
    let mut all_met = true;
    for target in TARGETS {
        let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == target.scenario) else {
            continue;
        };
        let more = scenario.unit.more_is_better();
        for (proxy, bound) in target.ours.into_iter().zip([target.bare, target.in_use]) {
            let measured = match target.to {
                To::Itself => results.median(scenario.name, proxy.name()),
                To::Peer(peer) => results
                    .median(scenario.name, proxy.name())
                    .zip(results.median(scenario.name, peer.name()))
                    .map(|(ours, peer)| ours / peer),
            };
            let (Some(bound), Some(measured)) = (bound, measured) else { continue };
            let met = if more { measured >= bound } else { measured <= bound };
            all_met &= met;
            let aimed = format!("{} {bound}{}", if more { "≥" } else { "≤" }, unit_of(target, scenario.unit));
            let verdict = if met { "met" } else { "NOT MET" };
            table.add_row([scenario.name, proxy.name(), &aimed, &format!("{measured:.2}"), verdict]);
        }
    }
    (table.to_string(), all_met)
}

fn unit_of(target: Target, unit: Unit) -> String {
    match target.to {
        To::Peer(peer) => format!(" × {}", peer.name()),
        To::Itself => format!(" {}", unit.name()),
    }
}

/// Three digits that mean something.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// What has to be said beside the tables.
pub fn notes(results: &Results) -> String {
    let mut text = format!("Machine: {}\n", results.machine);
    for (proxy, version) in &results.versions {
        text.push_str(&format!("{proxy}: {version}\n"));
    }
    for scenario in &SCENARIOS {
        let Some(row) = results.scenarios.get(scenario.name) else { continue };
        let settings = &row.settings;
        text.push_str(&format!(
            "{}: {} rounds of {} s, profile {}; others used up to {:.0} % of the machine{}\n",
            scenario.name,
            settings.rounds,
            settings.seconds,
            settings.profile,
            settings.busy_elsewhere,
            if settings.busy_elsewhere > NOISY { ": NOISY" } else { "" }
        ));
        for (proxy, cell) in &row.proxies {
            if let Some(why) = &cell.failed {
                text.push_str(&format!("  {proxy} failed: {why}\n"));
            }
        }
    }
    text.push_str("¹ HTTP/1.1 behind the client: this nginx speaks no HTTP/2 to its servers.\n");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::compare::result::{Cell, Row, Settings};

    fn measured(scenario: &str, ours: f64, haproxy: f64) -> Results {
        let cell = |value| Cell { values: vec![value], ..Cell::default() };
        let settings = Settings { profile: "quick".to_owned(), rounds: 1, seconds: 1.0, busy_elsewhere: 0.0 };
        let proxies = [("ours".to_owned(), cell(ours)), ("haproxy".to_owned(), cell(haproxy))].into();
        let row = Row { what: String::new(), unit: String::new(), settings, proxies };
        Results { scenarios: BTreeMap::from([(scenario.to_owned(), row)]), ..Results::default() }
    }

    #[test]
    fn less_cpu_and_more_bytes_are_better() {
        for (scenario, ours, met) in
            [("h1", 9.3, true), ("h1", 9.4, false), ("bulk", 17.0, true), ("bulk", 16.9, false)]
        {
            assert_eq!(targets(&measured(scenario, ours, 10.0)).1, met, "{scenario} {ours}");
        }
        assert!(targets(&Results::default()).1, "what was not measured is no failure");
        assert!(!targets(&measured("start", 10.1, 1.0)).1, "an absolute figure");
    }

    #[test]
    fn every_target_is_about_a_scenario() {
        for target in TARGETS {
            assert!(SCENARIOS.iter().any(|scenario| scenario.name == target.scenario), "{}", target.scenario);
        }
    }
}
