//! `fault` of a TrafficPolicy.

use std::sync::Arc;

use http::StatusCode;

use crate::manifest::traffic_policy::{
    AbortSection, AtMost, FaultAt as ManifestAt, FaultItem, FaultSection, StopIfSection, TrafficPolicy,
};
use crate::manifest::value::{Duration, MinRequests};
use crate::model::{
    Fault, FaultAt, FaultCeiling, FaultEffect, FaultEnd, Faults, Fraction, GivenFault, StopIf,
};

use super::Identity;
use super::access::{call, peer};

/// Of a policy by itself, in whatever mesh: for what depends on neither.
pub(crate) fn of_policy(policy: &TrafficPolicy) -> Option<Faults> {
    let id = Identity { kind: "TrafficPolicy", namespace: "default".into(), metadata: &policy.metadata };
    Some(faults(&id, policy.spec.fault.as_ref()?, &"cluster.local".into()))
}

/// `home`: the mesh's own trust domain.
pub(super) fn faults(id: &Identity<'_>, section: &FaultSection, home: &Arc<str>) -> Faults {
    let faults = section.faults.iter().enumerate();
    Faults {
        at: match section.at {
            ManifestAt::Caller => FaultAt::Caller,
            ManifestAt::CallerBehindRetries => FaultAt::CallerBehindRetries,
            ManifestAt::Callee => FaultAt::Callee,
        },
        faults: faults.map(|(i, manifest)| fault(id, i, manifest, home)).collect(),
        seed: section.seed,
        active_for: section.active_for.map(Duration::get),
        since: None,
        stop_if: section.stop_if.map(stop_if),
        origin: id.origin().at("spec.fault"),
    }
}

fn stop_if(manifest: StopIfSection) -> StopIf {
    StopIf {
        below: Fraction::new(manifest.success_rate_below.get().into(), 100)
            .expect("a percentage is at most all"),
        interval: manifest.interval.map_or(StopIf::DEFAULT_INTERVAL, Duration::get),
        min_requests: manifest.min_requests.map_or(StopIf::DEFAULT_MIN_REQUESTS, MinRequests::get),
    }
}

fn fault(id: &Identity<'_>, index: usize, manifest: &FaultItem, home: &Arc<str>) -> Fault {
    let from = manifest.from.iter().flatten().map(|from| {
        let mut from = peer(id, from);
        if from.home.is_empty() {
            from.home.push(home.clone());
        }
        from
    });
    let share = manifest.percent.map_or(Fraction::ALL, |percent| {
        Fraction::new(percent.per_million(), 1_000_000).expect("a percentage is at most all")
    });
    Fault {
        name: manifest.name.as_ref().map_or_else(|| format!("fault-{index}").into(), |name| name.shared()),
        from: from.collect(),
        matches: manifest.matches.iter().flatten().map(call).collect(),
        share,
        at_most: manifest.at_most.map(AtMost::get),
        effect: effect(manifest),
    }
}

fn effect(manifest: &FaultItem) -> FaultEffect {
    if let Some(ceiling) = manifest.by_headers {
        return FaultEffect::ByHeaders(FaultCeiling {
            delay: ceiling.max_delay.map(Duration::get),
            abort: ceiling.abort,
            throttle: ceiling.min_bytes_per_second.map(|least| least.get().into()),
        });
    }
    if let Some(slow) = manifest.slow_accept {
        return FaultEffect::SlowAccept(slow.get().expect("checked: one delay, within its bounds"));
    }
    let refuse = manifest.refuse.map(|_| FaultEnd::Refuse);
    FaultEffect::Given(GivenFault {
        delay: manifest.delay.map(|delay| delay.get().expect("checked: one delay, within its bounds")),
        end: manifest.abort.map(end).or(refuse),
        throttle: manifest.throttle.map(|throttle| throttle.bytes_per_second.get().into()),
        cut: manifest.cut.map(|cut| cut.after_bytes.get().into()),
        corrupt_trailers: manifest.corrupt_trailers.is_some(),
    })
}

fn end(manifest: AbortSection) -> FaultEnd {
    match manifest {
        AbortSection { http_status: Some(status), .. } => {
            FaultEnd::Http(StatusCode::from_u16(status.get()).expect("200 to 599 are statuses"))
        }
        AbortSection { grpc_status: Some(status), .. } => FaultEnd::Grpc(status as u16),
        AbortSection { .. } => FaultEnd::Reset,
    }
}
