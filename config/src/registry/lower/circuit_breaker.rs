//! `circuitBreaker` of a TrafficPolicy.

use crate::manifest::traffic_policy::{
    BreakerMode as ManifestMode, CircuitBreakerSection, EjectionErrors as ManifestErrors, EjectionMode,
    EjectionSection, SlowCallsSection, SuccessRateSection,
};
use crate::manifest::value::{Cap, Duration, MinRequests, Percent};
use crate::model::{
    BreakerMode, Caps, CircuitBreaker, Ejection, EjectionErrors, Fraction, Origin, SlowCalls, SuccessRate,
};

use super::adaptive::adaptive;

pub(super) fn circuit_breaker(manifest: &CircuitBreakerSection, origin: Origin) -> CircuitBreaker {
    let mode = match manifest.mode {
        ManifestMode::Enforce => BreakerMode::Enforce,
        ManifestMode::Observe => BreakerMode::Observe,
    };
    let cap = |cap: Option<Cap>| cap.map(Cap::get);
    let pending_default = manifest.max_connections.map(|_| Caps::DEFAULT_PENDING);
    CircuitBreaker {
        caps: Caps {
            mode,
            connections: cap(manifest.max_connections),
            pending: cap(manifest.max_pending_requests).or(pending_default),
            requests: cap(manifest.max_requests),
            retries: cap(manifest.max_retries),
            requests_per_connection: cap(manifest.max_requests_per_connection),
        },
        ejection: ejection(manifest.ejection.unwrap_or_default(), mode),
        adaptive: manifest.adaptive.map(|manifest| adaptive(manifest, mode, &origin)),
        origin: Some(origin),
    }
}

fn ejection(manifest: EjectionSection, mode: BreakerMode) -> Option<Ejection> {
    let default = Ejection::default();
    let base = manifest.base_time.map_or(default.base, Duration::get);
    let in_a_row = |given: Option<crate::manifest::value::Consecutive>, default: Option<u8>| {
        given.map_or(default, |given| Some(given.get()).filter(|number| *number > 0))
    };
    Some(Ejection {
        mode: match manifest.mode {
            Some(EjectionMode::Disabled) => return None,
            Some(EjectionMode::Enforce) => BreakerMode::Enforce,
            Some(EjectionMode::Observe) => BreakerMode::Observe,
            None => mode,
        },
        errors: match manifest.errors {
            ManifestErrors::Gateway => EjectionErrors::Gateway,
            ManifestErrors::Server => EjectionErrors::Server,
        },
        consecutive_errors: in_a_row(manifest.consecutive_errors, default.consecutive_errors),
        connect_failures: in_a_row(manifest.connect_failures, default.connect_failures),
        success_rate: success_rate(manifest.success_rate.unwrap_or_default()),
        slow_calls: manifest.slow_calls.map(slow_calls),
        base,
        max: manifest.max_time.map_or(default.max.max(base), Duration::get),
        jitter: manifest.jitter_percent.map_or(default.jitter, share),
        max_ejected: manifest.max_percent.map_or(default.max_ejected, share),
        ramp: manifest.ramp.map_or(default.ramp, Duration::get),
    })
}

fn success_rate(manifest: SuccessRateSection) -> Option<SuccessRate> {
    let default = SuccessRate::default();
    let rate = SuccessRate {
        below: manifest.percent.map_or(default.below, share),
        interval: manifest.interval.map_or(default.interval, Duration::get),
        min_requests: manifest.min_requests.map_or(default.min_requests, MinRequests::get),
    };
    (rate.below != Fraction::ZERO).then_some(rate)
}

fn slow_calls(manifest: SlowCallsSection) -> SlowCalls {
    let default = SuccessRate::default();
    SlowCalls {
        longer_than: manifest.longer_than.get(),
        share: manifest.percent.map_or(SlowCalls::DEFAULT_SHARE, share),
        interval: manifest.interval.map_or(default.interval, Duration::get),
        min_requests: manifest.min_requests.map_or(default.min_requests, MinRequests::get),
    }
}

fn share(percent: Percent) -> Fraction {
    Fraction::new(percent.get().into(), 100).expect("a percentage is at most 100")
}
