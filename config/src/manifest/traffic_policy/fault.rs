//! `fault`: what goes wrong on purpose, to see what becomes of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::access_policy::{FromMatch, ToMatch};
use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::{Duration, MinRequests, Name, Percent, Sampling, number_value};
use crate::model::{FaultDelay, Faults, StopIf};

use super::load_balancing::Nothing;

/// An experiment: begun and ended as a whole. `fault: {}` takes the faults of less specific policies away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultSection {
    /// Caller: by the caller's proxy, once a request, so that no retry heals it. CallerBehindRetries: by the caller's proxy with each attempt, so that
    /// retries are put to the test. Callee: by the workload's proxy, before its app. Default Caller.
    #[serde(default)]
    pub at: FaultAt,
    /// What the dice are thrown by: with the same seed, the same requests in a row are hit. Default: by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// It ends by itself after so long; 1s to 7 days. Default: not before the policy does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_for: Option<Duration>,
    /// It ends by itself when too many calls fail in earnest. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_if: Option<StopIfSection>,
    /// Each with dice of its own; delays add up, and the first that ends a call ends it. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultItem>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum FaultAt {
    #[default]
    Caller,
    CallerBehindRetries,
    Callee,
}

/// Of the answers that are not injected; each proxy judges by those it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopIfSection {
    /// Fewer of them succeed. 1 to 100.
    pub success_rate_below: Percent,
    /// Default 10s; 1s to 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// With fewer answers within interval nothing is concluded. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<MinRequests>,
}

/// At least one of `delay`, `abort`, `throttle`, `cut`, `corruptTrailers` and `refuse`, or else `byHeaders` or `slowAccept`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultItem {
    /// Stands in headers, logs and metrics. Default `fault-` and its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Whose calls; 1 to 64. At the caller it is the caller's own identity. Absent: everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<FromMatch>>,
    /// Which requests, as the proxy receives them; 1 to 64. Absent: all, and connections that carry anything but HTTP.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<ToMatch>>,
    /// Of these, how many are hit; with `byHeaders` at most. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Sampling>,
    /// Calls and connections that it has its hand in at the same time, in each proxy; those on top are let alone. Default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<AtMost>,
    /// Before anything else happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<DelaySection>,
    /// The call ends without its callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortSection>,
    /// The answer comes slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<ThrottleSection>,
    /// The answer breaks off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutSection>,
    /// The values of the answer's trailers are made unusable, of a gRPC call its status and message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt_trailers: Option<Nothing>,
    /// As if nobody listened there: a connection is reset at once, a request answered as one without connection is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse: Option<Nothing>,
    /// What the headers `x-envoy-fault-*` of a request ask for, within these bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_headers: Option<ByHeadersSection>,
    /// At the Callee: new connections wait so long before anything is done about them, TLS included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_accept: Option<DelaySection>,
}

/// One of `fixed`, `uniform` and `exponential`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelaySection {
    /// 1ms to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Duration>,
    /// Evenly between both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uniform: Option<UniformDelay>,
    /// Mostly short and sometimes long, as waiting times are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential: Option<ExponentialDelay>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UniformDelay {
    /// At most max.
    pub min: Duration,
    /// 1ms to 1h.
    pub max: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExponentialDelay {
    /// 1ms to 1h.
    pub mean: Duration,
    /// What is longer is as long as this. Default ten times mean; at most 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}

/// One of `httpStatus`, `grpcStatus` and `reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbortSection {
    /// A gRPC call gets the gRPC status that stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<AbortStatus>,
    /// Of gRPC calls, trailers-only; other requests do not meet it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<GrpcStatus>,
    /// The caller's connection, over HTTP/2 its stream, is reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Nothing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ThrottleSection {
    /// Of the body of each answer, or towards the caller of each connection.
    pub bytes_per_second: ByteCount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CutSection {
    /// Of the body of the answer, or towards the caller of a connection. Shorter ones come whole.
    pub after_bytes: ByteCount,
}

/// What none of these names is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ByHeadersSection {
    /// The longest delay `x-envoy-fault-delay-request` (milliseconds) may ask for; 1ms to 1h. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Duration>,
    /// Whether `x-envoy-fault-abort-request` (an HTTP status) and `x-envoy-fault-abort-grpc-request` (a gRPC status) end calls. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abort: bool,
    /// The slowest `x-envoy-fault-throughput-response` (KiB a second) may ask for. Absent: no throttle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_bytes_per_second: Option<ByteCount>,
}

number_value! {
    /// The status of an injected answer.
    AbortStatus(u16), "a status (200 to 599)", 200..=599
}

number_value! {
    /// Calls at the same time.
    AtMost(u32), "a number of calls at a time (1 to 100000)", 1..=100_000
}

number_value! {
    /// Bytes of an answer.
    ByteCount(u32), "a number of bytes (1 to 1000000000)", 1..=1_000_000_000
}

/// A gRPC status that is an error, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schemars(inline)]
pub enum GrpcStatus {
    Cancelled = 1,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl DelaySection {
    /// `None` where not exactly one is given, or outside the bounds.
    pub fn get(self) -> Option<FaultDelay> {
        match self {
            Self { fixed: Some(fixed), uniform: None, exponential: None } => FaultDelay::Fixed(fixed.get()),
            Self { fixed: None, uniform: Some(UniformDelay { min, max }), exponential: None } => {
                FaultDelay::Uniform { min: min.get(), max: max.get() }
            }
            Self { fixed: None, uniform: None, exponential: Some(ExponentialDelay { mean, max }) } => {
                let mean = mean.get();
                let max = max.map_or_else(|| (mean * 10).min(FaultDelay::LONGEST), Duration::get);
                FaultDelay::Exponential { mean, max }
            }
            _ => return None,
        }
        .checked()
    }
}

impl Check for FaultSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(given) = self.active_for
            && !(1_000..=Faults::LONGEST.as_millis()).contains(&given.get().as_millis())
        {
            findings.error(at.key("activeFor"), format!("{given} is not within 1s and 168h"));
        }
        if let Some(stop) = &self.stop_if {
            let at = at.key("stopIf");
            if stop.success_rate_below.get() == 0 {
                findings.error(at.key("successRateBelow"), "0 would never end it; leave stopIf out");
            }
            if let Some(interval) = stop.interval
                && !(1_000..=300_000).contains(&interval.get().as_millis())
            {
                findings.error(at.key("interval"), format!("{interval} is not an interval (1s to 5m)"));
            }
        }
        let at = at.key("faults");
        findings.at_most(&at, self.faults.len(), Faults::MOST);
        findings.unique(&at, &self.faults, "name", |fault| fault.name.clone());
        findings.each(&at, &self.faults);
        for (index, fault) in self.faults.iter().enumerate() {
            if fault.slow_accept.is_some() && self.at != FaultAt::Callee {
                let at = at.index(index).key("slowAccept");
                findings.error(at, "is done by who accepts: it needs `at: Callee`");
            }
        }
    }
}

impl Check for FaultItem {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(from) = &self.from {
            let at = at.key("from");
            findings.not_empty(&at, from.len());
            findings.at_most(&at, from.len(), 64);
            findings.each(&at, from);
        }
        if let Some(matches) = &self.matches {
            let at = at.key("match");
            findings.not_empty(&at, matches.len());
            findings.at_most(&at, matches.len(), 64);
            findings.each(&at, matches);
        }
        let effects = [
            ("delay", self.delay.is_some()),
            ("abort", self.abort.is_some()),
            ("throttle", self.throttle.is_some()),
            ("cut", self.cut.is_some()),
            ("corruptTrailers", self.corrupt_trailers.is_some()),
            ("refuse", self.refuse.is_some()),
        ];
        let given = || effects.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
        if let Some(by_headers) = &self.by_headers {
            if let Some(other) = given().next() {
                findings.error(at.key(other), "does not go with byHeaders; make it a fault of its own");
            }
            by_headers.check(&at.key("byHeaders"), findings);
        } else if given().next().is_none() && self.slow_accept.is_none() {
            findings.error(
                at.clone(),
                "one of these is required: delay, abort, throttle, cut, corruptTrailers, refuse, byHeaders, slowAccept",
            );
        }
        if let Some(slow) = self.slow_accept {
            self.check_slow_accept(slow, at, given().next(), findings);
        }
        // What ends a call leaves no answer to be slow or broken off.
        for (end, ends) in [("abort", self.abort.is_some()), ("refuse", self.refuse.is_some())] {
            for other in given().filter(|other| ends && *other != end && *other != "delay") {
                if (end, other) != ("refuse", "abort") {
                    findings.error(at.key(other), format!("does not go with {end}, which leaves no answer"));
                }
            }
        }
        if let Some(delay) = self.delay {
            delay.check(&at.key("delay"), findings);
        }
        if let Some(abort) = self.abort {
            abort.check(&at.key("abort"), findings);
        }
    }
}

impl FaultItem {
    /// `other`: an effect that stands beside it.
    fn check_slow_accept(
        &self,
        slow: DelaySection,
        at: &FieldPath,
        other: Option<&str>,
        findings: &mut Findings,
    ) {
        if let Some(other) = other.or(self.by_headers.map(|_| "byHeaders")) {
            findings.error(at.key(other), "does not go with slowAccept; make it a fault of its own");
        }
        if self.from.is_some() {
            findings.error(at.key("from"), "does not go with slowAccept: nobody has proved anything yet");
        }
        for (index, to) in self.matches.iter().flatten().enumerate() {
            let ports_alone =
                ToMatch { ports: to.ports.clone(), not_ports: to.not_ports.clone(), ..ToMatch::default() };
            if *to != ports_alone {
                let at = at.key("match").index(index);
                findings.error(at, "goes with slowAccept by ports alone: no request has come yet");
            }
        }
        slow.check(&at.key("slowAccept"), findings);
    }
}

impl Check for DelaySection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let members = [
            ("fixed", self.fixed.is_some()),
            ("uniform", self.uniform.is_some()),
            ("exponential", self.exponential.is_some()),
        ];
        if one_of(at, findings, &members) && self.get().is_none() {
            let (name, _) = members.iter().find(|(_, given)| *given).expect("one is given");
            findings.error(at.key(*name), "is not within 1ms and 1h, the lesser before the greater");
        }
    }
}

impl Check for AbortSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let members = [
            ("httpStatus", self.http_status.is_some()),
            ("grpcStatus", self.grpc_status.is_some()),
            ("reset", self.reset.is_some()),
        ];
        one_of(at, findings, &members);
    }
}

impl Check for ByHeadersSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if *self == Self::default() {
            findings.error(at.clone(), "one of these is required: maxDelay, abort, minBytesPerSecond");
        }
        if let Some(given) = self.max_delay
            && FaultDelay::Fixed(given.get()).checked().is_none()
        {
            findings.error(at.key("maxDelay"), format!("{given} is not within 1ms and 1h"));
        }
    }
}

/// Whether exactly one is given.
fn one_of(at: &FieldPath, findings: &mut Findings, members: &[(&'static str, bool)]) -> bool {
    let mut given = members.iter().filter(|(_, given)| *given);
    match (given.next(), given.next()) {
        (Some(_), None) => true,
        (Some((first, _)), Some((second, _))) => {
            findings.error(at.key(*second), format!("cannot stand beside {first}"));
            false
        }
        (None, _) => {
            let names: Vec<_> = members.iter().map(|(name, _)| *name).collect();
            findings.error(at.clone(), format!("one of these is required: {}", names.join(", ")));
            false
        }
    }
}

const _: () = assert!(StopIf::DEFAULT_MIN_REQUESTS == 20, "the field says so");
