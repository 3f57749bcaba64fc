//! Metrics as Prometheus reads them (text exposition format 0.0.4).
//!
//! Owns the spelling. Runs at a scrape, on the background runtime: reads the workers' cells, never stops a worker.

use std::fmt::{Display, Write};

use super::cells::{BUCKETS, Counter, Histogram};
use super::family::Family;
use super::metrics::Metrics;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text under construction.
#[derive(Debug, Default)]
pub struct Text(String);

/// A value that is read when it is asked for.
#[derive(Clone, Debug)]
pub struct Gauge {
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

impl Text {
    pub fn metrics(&mut self, metrics: &Metrics) {
        self.counters(&metrics.requests);
        self.histograms(&metrics.durations);
        self.counters(&metrics.bytes);
        self.counters(&metrics.attempts);
        self.counters(&metrics.access_denied);
        self.counters(&metrics.suppressed);
        self.counters(&metrics.ejections);
        self.counters(&metrics.probes);
        self.counters(&metrics.limited);
        self.counters(&metrics.limit_overflow);
        self.counters(&metrics.limit_asked);
        self.counters(&metrics.limit_undecided);
        self.counters(&metrics.faults);
        self.counters(&metrics.hedges);
        self.counters(&metrics.overflows);
        self.counters(&metrics.health_checks);
        let family = &metrics.connections;
        self.head(family.name, "gauge", family.help);
        for (labels, level) in family.all() {
            self.sample(family.name, &pairs(&family.labels, &labels), level.now());
        }
        let opened = "outrigger_connections_opened_total";
        self.head(opened, "counter", "Connections accepted.");
        for (labels, level) in family.all() {
            self.sample(opened, &pairs(&family.labels, &labels), level.opened.total());
        }
        self.counters(&metrics.handshake_failures);
        self.counter(
            "outrigger_passthrough_no_config_total",
            "Connections sent on to their original address because nobody could be asked what it is.",
            &metrics.passthrough_no_config,
        );
        self.counter(
            "outrigger_access_log_dropped_total",
            "Access log lines dropped because their reader did not keep up.",
            &metrics.access_log_dropped,
        );
    }

    pub fn gauges(&mut self, name: &str, help: &str, gauges: &[Gauge]) {
        self.head(name, "gauge", help);
        for gauge in gauges {
            let labels: Vec<_> = gauge.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.sample(name, &labels, gauge.value);
        }
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    pub fn counter_value(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "counter", help);
        self.sample(name, &[], value);
    }

    pub fn into_string(self) -> String {
        self.0
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.head(name, "counter", help);
        self.sample(name, &[], counter.total());
    }

    fn counters<const N: usize>(&mut self, family: &Family<Counter, N>) {
        self.head(family.name, "counter", family.help);
        for (labels, counter) in family.all() {
            self.sample(family.name, &pairs(&family.labels, &labels), counter.total());
        }
    }

    fn histograms<const N: usize>(&mut self, family: &Family<Histogram, N>) {
        self.head(family.name, "histogram", family.help);
        let (bucket, sum, count) = (
            format!("{}_bucket", family.name),
            format!("{}_sum", family.name),
            format!("{}_count", family.name),
        );
        for (labels, histogram) in family.all() {
            let labels = pairs(&family.labels, &labels);
            let (counts, total) = histogram.read();
            let mut cumulated = 0;
            for (index, n) in counts.iter().enumerate() {
                cumulated += n;
                let bound = BUCKETS.get(index).map_or_else(|| "+Inf".into(), f64::to_string);
                let mut labels = labels.clone();
                labels.push(("le", &bound));
                self.sample(&bucket, &labels, cumulated);
            }
            self.sample(&sum, &labels, total);
            self.sample(&count, &labels, cumulated);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    _ => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").expect("a String can be written to");
    }
}

fn pairs<'a, const N: usize>(
    names: &[&'a str; N],
    values: &'a [std::sync::Arc<str>; N],
) -> Vec<(&'a str, &'a str)> {
    names.iter().copied().zip(values.iter().map(|value| &**value)).collect()
}

#[cfg(test)]
mod tests;
