//! A family: all series of one name, told apart by their labels, and no more of them than it may have.
//!
//! Owns the bound. Labels that would make a series too many are counted under `other`, so that nothing is lost from a sum. A series
//! once there stays for the life of the process: one that came back from 0 would look like a restart. Looked up at load or on first
//! sight, never for each exchange.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Series a family has at most, those called `other` apart (design.md section 5).
pub const MAX_SERIES: usize = 1_000;

pub const OTHER: &str = "other";

#[derive(Debug)]
pub struct Family<S, const LABELS: usize> {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: [&'static str; LABELS],
    /// Leading labels that keep their value in `other`: only closed sets.
    kept: usize,
    series: Mutex<BTreeMap<[Arc<str>; LABELS], Arc<S>>>,
}

impl<S, const LABELS: usize> Family<S, LABELS> {
    pub fn new(name: &'static str, labels: [&'static str; LABELS], kept: usize, help: &'static str) -> Self {
        Self { name, help, labels, kept, series: Mutex::default() }
    }

    /// The series with these labels, made by `new` if it is not there yet.
    pub fn series(&self, labels: [Arc<str>; LABELS], new: impl FnOnce() -> S) -> Arc<S> {
        let mut series = self.series.lock();
        if let Some(found) = series.get(&labels) {
            return found.clone();
        }
        let mut labels = labels;
        if series.len() >= MAX_SERIES {
            labels[self.kept..].fill(OTHER.into());
        }
        series.entry(labels).or_insert_with(|| Arc::new(new())).clone()
    }

    /// All of them, by labels.
    pub fn all(&self) -> Vec<([Arc<str>; LABELS], Arc<S>)> {
        self.series.lock().iter().map(|(labels, series)| (labels.clone(), series.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_after_the_last_is_called_other() {
        let family: Family<usize, 2> = Family::new("a", ["direction", "service"], 1, "");
        let labels = |direction: &str, service: &str| [direction.into(), service.into()];
        for i in 0..MAX_SERIES {
            family.series(labels("in", &i.to_string()), || i);
        }
        let other = family.series(labels("in", "one more"), || 7_000);
        assert_eq!(*other, 7_000);
        assert!(Arc::ptr_eq(&other, &family.series(labels("in", "two more"), || 8_000)));
        assert_eq!(*family.series(labels("out", "three more"), || 9_000), 9_000);
        assert_eq!(*family.series(labels("in", "5"), || 0), 5, "one that is there stays");
        assert_eq!(family.all().len(), MAX_SERIES + 2);
        assert!(family.all().iter().any(|(labels, _)| *labels == [Arc::from("out"), Arc::from(OTHER)]));
    }
}
