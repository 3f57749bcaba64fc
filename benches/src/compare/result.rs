//! What was measured, kept from one run to the next: scenarios can be measured one at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The file `compare.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub machine: String,
    /// By proxy.
    pub versions: BTreeMap<String, String>,
    /// By scenario.
    pub scenarios: BTreeMap<String, Row>,
}

/// One scenario, measured in one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub unit: String,
    pub settings: Settings,
    /// By proxy.
    pub proxies: BTreeMap<String, Cell>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// How ours was built.
    pub profile: String,
    pub rounds: usize,
    pub seconds: f64,
    /// Percent of all cores that others used at most, looked at before each measurement.
    pub busy_elsewhere: f64,
}

/// One proxy in one scenario: a value for each round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    pub values: Vec<f64>,
    /// Microseconds; only at a fixed rate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub p50: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub p99: Vec<f64>,
    /// Why there is no figure: one round with an error spoils all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Results {
    /// Those of the runs before, or none.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display())),
            Err(_) => Ok(Self::default()),
        }
    }

    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        fs::write(file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", file.display()))
    }

    pub fn median(&self, scenario: &str, proxy: &str) -> Option<f64> {
        self.scenarios.get(scenario)?.proxies.get(proxy)?.median()
    }
}

impl Cell {
    pub fn median(&self) -> Option<f64> {
        if self.failed.is_some() { None } else { median(&self.values) }
    }

    /// From the lowest to the highest, in percent of the median.
    pub fn spread(&self) -> f64 {
        let lowest = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        median(&self.values).map_or(0.0, |median| (highest - lowest) * 100.0 / median)
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_round_leaves_no_figure() {
        let good = Cell { values: vec![3.0, 1.0, 2.0], ..Cell::default() };
        assert_eq!((good.median(), good.spread()), (Some(2.0), 100.0));
        assert_eq!(Cell { failed: Some("one 503".to_owned()), ..good }.median(), None);
        assert_eq!(Cell::default().median(), None);
        assert_eq!(median(&[1.0, 4.0]), Some(2.5));
    }
}
