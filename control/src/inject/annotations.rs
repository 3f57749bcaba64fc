//! What a pod's own annotations say about its sidecar.
//!
//! Owns their names, their forms and their defaults. A name in our group that does not exist is an error: a misspelt exclusion must not
//! pass for one that works.

use std::net::IpAddr;
use std::time::Duration;

use outrigger_config::manifest::nearest;
use outrigger_config::manifest::path::FieldPath;
use serde_json::Value;

use super::record::RECORD;
use super::shape::{self, Object};
use super::{Refused, Report};

/// `"false"` keeps the sidecar out; also read as a label, which is what a webhook can select by.
pub const INJECT: &str = "outrigger.dev/inject";
const LOG_LEVEL: &str = "outrigger.dev/log-level";
const CONCURRENCY: &str = "outrigger.dev/concurrency";
const DRAIN_WINDOW: &str = "outrigger.dev/drain-window";
const EXCLUDE_INBOUND_PORTS: &str = "outrigger.dev/exclude-inbound-ports";
const EXCLUDE_OUTBOUND_PORTS: &str = "outrigger.dev/exclude-outbound-ports";
const EXCLUDE_OUTBOUND_CIDRS: &str = "outrigger.dev/exclude-outbound-cidrs";
const CPU_REQUEST: &str = "outrigger.dev/proxy-cpu-request";
const CPU_LIMIT: &str = "outrigger.dev/proxy-cpu-limit";
const MEMORY_REQUEST: &str = "outrigger.dev/proxy-memory-request";
const MEMORY_LIMIT: &str = "outrigger.dev/proxy-memory-limit";

/// Every annotation that is read; docs/inject.md has a row for each.
pub const TUNABLES: [&str; 11] = [
    INJECT,
    LOG_LEVEL,
    CONCURRENCY,
    DRAIN_WINDOW,
    EXCLUDE_INBOUND_PORTS,
    EXCLUDE_OUTBOUND_PORTS,
    EXCLUDE_OUTBOUND_CIDRS,
    CPU_REQUEST,
    CPU_LIMIT,
    MEMORY_REQUEST,
    MEMORY_LIMIT,
];
const GROUP: &str = "outrigger.dev/";

/// Worker threads beyond this are refused.
const MAX_CONCURRENCY: u16 = 64;
/// A longer wait before every stop is taken for a mistake.
const MAX_DRAIN_WINDOW: u64 = 300;

/// How one pod wants its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    pub inject: bool,
    /// Directives of the proxy's log filter. Default: the proxy's own, `info`.
    pub log_level: Option<String>,
    /// Worker threads. Default: by the CPU limit.
    pub concurrency: Option<u16>,
    /// How long callers may need to hear that this pod leaves. Default 5 s; none where pods run to an end.
    pub drain_window: Option<Duration>,
    pub exclude_inbound_ports: Vec<u16>,
    pub exclude_outbound_ports: Vec<u16>,
    /// As written; checked.
    pub exclude_outbound_cidrs: Vec<String>,
    pub cpu: Share,
    pub memory: Share,
}

/// What a container asks for, and what it may have at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub request: Quantity,
    pub limit: Option<Quantity>,
}

/// An amount as Kubernetes writes it, `100m` or `64Mi`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    pub written: String,
    amount: f64,
}

impl Quantity {
    /// Digits, at most one point, and one of the usual suffixes.
    pub fn parse(text: &str) -> Option<Quantity> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        if !number.starts_with(|c: char| c.is_ascii_digit()) || number.ends_with('.') {
            return None;
        }
        let (_, factor) = SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
        let amount = number.parse::<f64>().ok()? * factor;
        (amount > 0.0).then(|| Quantity { written: text.to_owned(), amount })
    }
}

const SUFFIXES: [(&str, f64); 8] = [
    ("", 1.0),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("Ki", 1024.0),
    ("Mi", 1024.0 * 1024.0),
    ("Gi", 1024.0 * 1024.0 * 1024.0),
];

impl Tuning {
    /// Reads the annotations of a pod. Every error is reported, not only the first.
    pub fn read(template: &Object, report: &mut Report) -> Result<Tuning, Refused> {
        let metadata_at = FieldPath::root().key("metadata");
        let root = FieldPath::root();
        let empty = Object::new();
        let metadata = shape::object(template, &root, "metadata", report)?.unwrap_or(&empty);
        let labels = shape::object(metadata, &metadata_at, "labels", report)?.unwrap_or(&empty);
        let annotations = shape::object(metadata, &metadata_at, "annotations", report)?.unwrap_or(&empty);
        let mut reader = Reader { annotations, at: metadata_at.key("annotations"), report, failed: false };
        reader.refuse_unknown();
        let tuning = Tuning {
            inject: reader.one(INJECT, is_true).unwrap_or(true),
            log_level: reader.one(LOG_LEVEL, log_level),
            concurrency: reader.one(CONCURRENCY, concurrency),
            drain_window: reader.one(DRAIN_WINDOW, drain_window),
            exclude_inbound_ports: reader.one(EXCLUDE_INBOUND_PORTS, ports).unwrap_or_default(),
            exclude_outbound_ports: reader.one(EXCLUDE_OUTBOUND_PORTS, ports).unwrap_or_default(),
            exclude_outbound_cidrs: reader.one(EXCLUDE_OUTBOUND_CIDRS, cidrs).unwrap_or_default(),
            cpu: reader.share(CPU_REQUEST, "50m", CPU_LIMIT, None),
            memory: reader.share(MEMORY_REQUEST, "32Mi", MEMORY_LIMIT, Some("256Mi")),
        };
        let failed = reader.failed;
        match labels.get(INJECT).and_then(Value::as_str) {
            Some("false") => return Ok(Tuning { inject: false, ..tuning }),
            None | Some("true") => {}
            Some(_) => {
                let field = metadata_at.key("labels").key(INJECT);
                return Err(report.error(&field, "must be \"true\" or \"false\""));
            }
        }
        if failed { Err(Refused) } else { Ok(tuning) }
    }
}

struct Reader<'a> {
    annotations: &'a Object,
    at: FieldPath,
    report: &'a mut Report,
    failed: bool,
}

impl Reader<'_> {
    fn refuse_unknown(&mut self) {
        let ours = self.annotations.keys().filter(|key| key.starts_with(GROUP));
        for key in ours.filter(|key| *key != RECORD && !TUNABLES.contains(&key.as_str())) {
            let hint = match nearest(key, TUNABLES) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("there are {}", TUNABLES.join(", ")),
            };
            let Refused =
                self.report.error(&self.at.key(key), format!("is not an annotation that is read; {hint}"));
            self.failed = true;
        }
    }

    fn one<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.annotations.get(name).filter(|value| !value.is_null())?;
        let Some(text) = value.as_str() else {
            let Refused = self.report.error(&self.at.key(name), "must be a text: put it in quotes");
            self.failed = true;
            return None;
        };
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(message) => {
                let Refused = self.report.error(&self.at.key(name), message);
                self.failed = true;
                None
            }
        }
    }

    /// A request above the limit would be refused by Kubernetes: a default gives way, a request that was asked for is an error.
    fn share(&mut self, request: &str, default: &str, limit: &str, default_limit: Option<&str>) -> Share {
        let known = |text| Quantity::parse(text).expect("a default is a quantity");
        let asked = self.one(request, quantity);
        let limited = self.one(limit, quantity);
        let mut share = Share {
            request: asked.clone().unwrap_or_else(|| known(default)),
            limit: limited.clone().or_else(|| default_limit.map(known)),
        };
        let Some(most) = share.limit.clone() else { return share };
        if share.request.amount > most.amount {
            match (asked, limited) {
                (Some(asked), Some(limited)) => {
                    let message = format!("{} is more than the limit, {}", asked.written, limited.written);
                    let Refused = self.report.error(&self.at.key(request), message);
                    self.failed = true;
                }
                (Some(asked), None) => share.limit = Some(asked),
                (None, _) => share.request = most,
            }
        }
        share
    }
}

fn is_true(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is not \"true\" or \"false\""))
}

fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_target = |target: &str| {
        !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
    };
    let is_directive = |directive: &str| match directive.split_once('=') {
        None => LEVELS.contains(&directive),
        Some((target, level)) => is_target(target) && LEVELS.contains(&level),
    };
    if text.split(',').all(is_directive) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not a level ({}), or a list such as info,outrigger_proxy=debug",
        LEVELS.join(", ")
    ))
}

fn concurrency(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_CONCURRENCY).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a number of threads (1 to {MAX_CONCURRENCY})"))
}

fn drain_window(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
    seconds.filter(|seconds| *seconds <= MAX_DRAIN_WINDOW).map(Duration::from_secs).ok_or_else(|| {
        format!("{text:?} is not a duration in seconds, such as 5s (0s to {MAX_DRAIN_WINDOW}s)")
    })
}

fn ports(text: &str) -> Result<Vec<u16>, String> {
    list(text, |item| item.parse().ok().filter(|port| *port > 0), "a port (1 to 65535)")
}

fn cidrs(text: &str) -> Result<Vec<String>, String> {
    list(text, |item| is_cidr(item).then(|| item.to_owned()), "an address or a CIDR such as 10.0.0.0/8")
}

fn is_cidr(text: &str) -> bool {
    let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= most))
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>, what: &str) -> Result<Vec<T>, String> {
    let item = |item: &str| parse(item).ok_or_else(|| format!("{item:?} is not {what}"));
    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(item).collect()
}

fn quantity(text: &str) -> Result<Quantity, String> {
    Quantity::parse(text).ok_or_else(|| format!("{text:?} is not a quantity such as 100m, 0.5 or 64Mi"))
}
