//! Circuit breaking: Envoy's thresholds and outlier detection where they can say it, all of it in our own message.
//!
//! What other clients lose: slow calls, the probe and the ramp, Observe (they enforce nothing then), caps of a route, adaptive ones.

use std::time::Duration;

use super::at::{At, Unsupported, take};
use super::pb::cluster as proto;
use super::pb::cluster::circuit_breakers::Thresholds;
use super::{fields, own, pb};
use crate::model::{
    Adaptive, BreakerMode, Caps, CircuitBreaker, Ejection, EjectionErrors, Fraction, RouteCaps, SlowCalls,
    SuccessRate,
};

/// Envoy's way to say that there is no cap.
const NO_CAP: u32 = u32::MAX;

/// Always said: what is left out means 1,024 to Envoy, and 3 retries.
pub(super) fn thresholds(caps: &Caps) -> proto::CircuitBreakers {
    let cap = |cap: Option<u32>| match caps.mode {
        BreakerMode::Enforce => fields::uint32(cap.unwrap_or(NO_CAP)),
        BreakerMode::Observe => fields::uint32(NO_CAP),
    };
    let thresholds = Thresholds {
        max_connections: cap(caps.connections),
        max_pending_requests: cap(caps.pending),
        max_requests: cap(caps.requests),
        max_retries: cap(caps.retries),
        ..Default::default()
    };
    proto::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

pub(super) fn outlier_detection(ejection: &Ejection) -> proto::OutlierDetection {
    let enforced =
        |on: bool| fields::uint32(if on && ejection.mode == BreakerMode::Enforce { 100 } else { 0 });
    let consecutive =
        |errors| ejection.consecutive_errors.filter(|_| ejection.errors == errors).map(u32::from);
    let percent = |share: Fraction| share.millionths() / 10_000;
    let (gateway, server) = (consecutive(EjectionErrors::Gateway), consecutive(EjectionErrors::Server));
    let rate = ejection.success_rate;
    let number = |number: Option<u32>| number.and_then(fields::uint32);
    proto::OutlierDetection {
        consecutive_5xx: number(server),
        enforcing_consecutive_5xx: enforced(server.is_some()),
        consecutive_gateway_failure: number(gateway),
        enforcing_consecutive_gateway_failure: enforced(gateway.is_some()),
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: number(ejection.connect_failures.map(u32::from)),
        enforcing_consecutive_local_origin_failure: enforced(ejection.connect_failures.is_some()),
        enforcing_success_rate: fields::uint32(0),
        enforcing_local_origin_success_rate: fields::uint32(0),
        failure_percentage_threshold: number(rate.map(|rate| 100 - percent(rate.below))),
        enforcing_failure_percentage: enforced(rate.is_some()),
        failure_percentage_minimum_hosts: fields::uint32(1),
        failure_percentage_request_volume: number(rate.map(|rate| rate.min_requests)),
        interval: rate.map(|rate| fields::duration(rate.interval)),
        base_ejection_time: Some(fields::duration(ejection.base)),
        max_ejection_time: Some(fields::duration(ejection.max)),
        max_ejection_time_jitter: Some(fields::duration(part(ejection.base, ejection.jitter))),
        max_ejection_percent: fields::uint32(percent(ejection.max_ejected)),
        always_eject_one_host: fields::bool_value(true),
        ..Default::default()
    }
}

pub(super) fn own(breaker: &CircuitBreaker) -> own::CircuitBreaker {
    own::CircuitBreaker {
        caps: Some(own_caps(&breaker.caps)),
        ejection: breaker.ejection.as_ref().map(own_ejection),
        adaptive: breaker.adaptive.as_ref().map(own_adaptive),
        origin: breaker.origin.as_ref().map(Into::into),
    }
}

pub(super) fn own_adaptive(adaptive: &Adaptive) -> own::Adaptive {
    own::Adaptive {
        mode: own::BreakerMode::from(adaptive.mode) as i32,
        least: adaptive.least,
        most: adaptive.most,
        origin: adaptive.origin.as_ref().map(Into::into),
    }
}

pub(super) fn decode_adaptive(own: own::Adaptive, at: &At<'_>) -> Result<Adaptive, Unsupported> {
    if own.least == 0 || own.most < own.least {
        return Err(at.field("most").refuse(format!("{} to {} are no bounds of a cap", own.least, own.most)));
    }
    Ok(Adaptive {
        mode: own::enumeration::<own::BreakerMode, _>(own.mode, &at.field("mode"))?,
        least: own.least,
        most: own.most,
        origin: own.origin.map(Into::into),
    })
}

fn own_caps(caps: &Caps) -> own::Caps {
    own::Caps {
        mode: own::BreakerMode::from(caps.mode) as i32,
        connections: caps.connections,
        pending: caps.pending,
        requests: caps.requests,
        retries: caps.retries,
        requests_per_connection: caps.requests_per_connection,
        origin: None,
    }
}

pub(super) fn own_route_caps(caps: &RouteCaps) -> own::Caps {
    own::Caps {
        mode: own::BreakerMode::from(caps.mode) as i32,
        pending: caps.pending,
        requests: caps.requests,
        retries: caps.retries,
        origin: caps.origin.as_ref().map(Into::into),
        ..own::Caps::default()
    }
}

fn own_ejection(ejection: &Ejection) -> own::Ejection {
    let within = |share: Fraction, interval, min_requests| own::Within {
        share: share.millionths(),
        interval: Some(fields::duration(interval)),
        min_requests,
    };
    own::Ejection {
        mode: own::BreakerMode::from(ejection.mode) as i32,
        errors: own::EjectionErrors::from(ejection.errors) as i32,
        consecutive_errors: ejection.consecutive_errors.map(u32::from),
        connect_failures: ejection.connect_failures.map(u32::from),
        success_rate: ejection.success_rate.map(|rate| within(rate.below, rate.interval, rate.min_requests)),
        slow_calls: ejection.slow_calls.map(|slow| within(slow.share, slow.interval, slow.min_requests)),
        slower_than: ejection.slow_calls.map(|slow| fields::duration(slow.longer_than)),
        base: Some(fields::duration(ejection.base)),
        max: Some(fields::duration(ejection.max)),
        jitter: ejection.jitter.millionths(),
        max_ejected: ejection.max_ejected.millionths(),
        ramp: Some(fields::duration(ejection.ramp)),
    }
}

pub(super) fn decode_own(breaker: own::CircuitBreaker, at: &At<'_>) -> Result<CircuitBreaker, Unsupported> {
    let caps = breaker.caps.unwrap_or_default();
    let caps_at = at.field("caps");
    let ejection =
        breaker.ejection.map(|ejection| decode_ejection(ejection, &at.field("ejection"))).transpose()?;
    Ok(CircuitBreaker {
        caps: Caps {
            mode: own::enumeration::<own::BreakerMode, _>(caps.mode, &caps_at.field("mode"))?,
            connections: at_least_one(caps.connections, &caps_at.field("connections"))?,
            pending: at_least_one(caps.pending, &caps_at.field("pending"))?,
            requests: caps.requests,
            retries: caps.retries,
            requests_per_connection: at_least_one(
                caps.requests_per_connection,
                &caps_at.field("requests_per_connection"),
            )?,
        },
        ejection,
        adaptive: breaker
            .adaptive
            .map(|adaptive| decode_adaptive(adaptive, &at.field("adaptive")))
            .transpose()?,
        origin: breaker.origin.map(Into::into),
    })
}

pub(super) fn decode_route_caps(caps: own::Caps, at: &At<'_>) -> Result<RouteCaps, Unsupported> {
    Ok(RouteCaps {
        mode: own::enumeration::<own::BreakerMode, _>(caps.mode, &at.field("mode"))?,
        pending: at_least_one(caps.pending, &at.field("pending"))?,
        requests: caps.requests,
        retries: caps.retries,
        origin: caps.origin.map(Into::into),
    })
}

fn decode_ejection(ejection: own::Ejection, at: &At<'_>) -> Result<Ejection, Unsupported> {
    let default = Ejection::default();
    let share = |millionths, name| {
        Fraction::new(millionths, 1_000_000)
            .ok_or_else(|| at.field(name).refuse(format!("{millionths} is more than 1000000 millionths")))
    };
    let time = |given, name, default| {
        let at = at.field(name);
        within_an_hour(fields::optional_duration(given, &at)?.unwrap_or(default), &at)
    };
    let success_rate = ejection.success_rate.map(|within| {
        let at = at.field("success_rate");
        let interval = fields::optional_duration(within.interval, &at.field("interval"))?;
        Ok(SuccessRate {
            below: share(within.share, "success_rate")?,
            interval: interval_of(interval, &at.field("interval"))?,
            min_requests: min_requests(within.min_requests, &at.field("min_requests"))?,
        })
    });
    let slow_calls = ejection.slow_calls.map(|within| {
        let at = at.field("slow_calls");
        let interval = fields::optional_duration(within.interval, &at.field("interval"))?;
        let longer_than = fields::optional_duration(ejection.slower_than, &at.field("slower_than"))?;
        Ok(SlowCalls {
            longer_than: longer_than.ok_or_else(|| at.field("slower_than").missing())?,
            share: share(within.share, "slow_calls")?,
            interval: interval_of(interval, &at.field("interval"))?,
            min_requests: min_requests(within.min_requests, &at.field("min_requests"))?,
        })
    });
    Ok(Ejection {
        mode: own::enumeration::<own::BreakerMode, _>(ejection.mode, &at.field("mode"))?,
        errors: own::enumeration::<own::EjectionErrors, _>(ejection.errors, &at.field("errors"))?,
        consecutive_errors: consecutive(ejection.consecutive_errors, &at.field("consecutive_errors"))?,
        connect_failures: consecutive(ejection.connect_failures, &at.field("connect_failures"))?,
        success_rate: success_rate.transpose()?,
        slow_calls: slow_calls.transpose()?,
        base: time(ejection.base, "base", default.base)?,
        max: time(ejection.max, "max", default.max)?,
        jitter: share(ejection.jitter, "jitter")?,
        max_ejected: share(ejection.max_ejected, "max_ejected")?,
        ramp: time(ejection.ramp, "ramp", default.ramp)?,
    })
}

/// What another control plane asks for. What it leaves out is what Envoy takes for it.
pub(super) fn decode(
    breakers: Option<proto::CircuitBreakers>,
    outliers: Option<proto::OutlierDetection>,
    requests_per_connection: Option<u32>,
) -> Result<CircuitBreaker, Unsupported> {
    let ejection = outliers.map(|outliers| decode_outliers(outliers, &At::ROOT.field("outlier_detection")));
    let caps = decode_thresholds(breakers.unwrap_or_default(), &At::ROOT.field("circuit_breakers"))?;
    Ok(CircuitBreaker {
        caps: Caps { requests_per_connection, ..caps },
        ejection: ejection.transpose()?,
        adaptive: None,
        origin: None,
    })
}

fn decode_thresholds(breakers: proto::CircuitBreakers, at: &At<'_>) -> Result<Caps, Unsupported> {
    take! { at, breakers => proto::CircuitBreakers;
        read { thresholds }
        ignore {}
        refuse { per_host_thresholds }
    };
    let default = pb::core::RoutingPriority::Default as i32;
    // No request of ours has another priority.
    let of_default =
        thresholds.into_iter().enumerate().find(|(_, thresholds)| thresholds.priority == default);
    let (index, thresholds) = of_default.unwrap_or_default();
    let at = at.index("thresholds", index);
    take! { at, thresholds => Thresholds;
        read { max_connections, max_pending_requests, max_requests, max_retries }
        ignore { priority, track_remaining }
        refuse { retry_budget, max_connection_pools }
    };
    let cap = |given: Option<pb::UInt32Value>, default: u32| {
        Some(given.map_or(default, |given| given.value)).filter(|cap| *cap != NO_CAP)
    };
    Ok(Caps {
        mode: BreakerMode::Enforce,
        connections: at_least_one(cap(max_connections, 1024), &at.field("max_connections"))?,
        pending: at_least_one(cap(max_pending_requests, 1024), &at.field("max_pending_requests"))?,
        requests: cap(max_requests, 1024),
        retries: cap(max_retries, 3),
        requests_per_connection: None,
    })
}

fn decode_outliers(outliers: proto::OutlierDetection, at: &At<'_>) -> Result<Ejection, Unsupported> {
    take! { at, outliers => proto::OutlierDetection;
        read {
            consecutive_5xx, enforcing_consecutive_5xx, consecutive_gateway_failure,
            enforcing_consecutive_gateway_failure, split_external_local_origin_errors, interval,
            consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure, enforcing_success_rate,
            failure_percentage_threshold, enforcing_failure_percentage, failure_percentage_request_volume,
            base_ejection_time, max_ejection_time, max_ejection_time_jitter, max_ejection_percent
        }
        // Of the deviation of success rates, which is refused below; and how few endpoints conclude nothing.
        ignore {
            success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
            enforcing_local_origin_success_rate, enforcing_failure_percentage_local_origin,
            failure_percentage_minimum_hosts, successful_active_health_check_uneject_host, always_eject_one_host
        }
        refuse { monitors, detect_degraded_hosts }
    };
    let enforced = |given: Option<pb::UInt32Value>, default: u32, name| match given
        .map_or(default, |given| given.value)
    {
        0 => Ok(false),
        100 => Ok(true),
        other => Err(at.field(name).refuse(format!("{other} is not supported; 0 and 100 are"))),
    };
    if enforced(enforcing_success_rate, 100, "enforcing_success_rate")? {
        let text = "the deviation of success rates is not supported; set it to 0";
        return Err(at.field("enforcing_success_rate").refuse(text));
    }
    let number = |given: Option<pb::UInt32Value>, default: u32| given.map_or(default, |given| given.value);
    let row = |on: bool, given, name| consecutive(on.then(|| number(given, 5)), &at.field(name));
    let server = enforced(enforcing_consecutive_5xx, 100, "enforcing_consecutive_5xx")?;
    let gateway =
        enforced(enforcing_consecutive_gateway_failure, 0, "enforcing_consecutive_gateway_failure")?;
    let local = split_external_local_origin_errors
        && enforced(
            enforcing_consecutive_local_origin_failure,
            100,
            "enforcing_consecutive_local_origin_failure",
        )?;
    let server = row(server, consecutive_5xx, "consecutive_5xx")?;
    let gateway = row(gateway, consecutive_gateway_failure, "consecutive_gateway_failure")?;
    let (errors, consecutive_errors) = match (server, gateway) {
        // Every gateway error is a 5xx.
        (Some(server), Some(gateway)) if gateway < server => {
            let text = "fewer than consecutive_5xx, beside it, is not supported";
            return Err(at.field("consecutive_gateway_failure").refuse(text));
        }
        (Some(server), _) => (EjectionErrors::Server, Some(server)),
        (None, gateway) => (EjectionErrors::Gateway, gateway),
    };
    let interval = fields::optional_duration(interval, &at.field("interval"))?;
    let percent = |given: Option<pb::UInt32Value>, default: u32, name| {
        let percent = number(given, default);
        let whole = Fraction::new(percent, 100);
        whole.ok_or_else(|| at.field(name).refuse(format!("{percent} is not a percentage")))
    };
    let success_rate = match enforced(enforcing_failure_percentage, 0, "enforcing_failure_percentage")? {
        false => None,
        true => {
            let failing = percent(failure_percentage_threshold, 85, "failure_percentage_threshold")?;
            let min = number(failure_percentage_request_volume, 50);
            Some(SuccessRate {
                below: Fraction::new(1_000_000 - failing.millionths(), 1_000_000).expect("at most one"),
                interval: interval_of(interval, &at.field("interval"))?,
                min_requests: min_requests(min, &at.field("failure_percentage_request_volume"))?,
            })
        }
    };
    let time = |given, name, default| {
        let at = at.field(name);
        within_an_hour(fields::optional_duration(given, &at)?.unwrap_or(default), &at)
    };
    let base = time(base_ejection_time, "base_ejection_time", Duration::from_secs(30))?;
    let jitter_at = at.field("max_ejection_time_jitter");
    let jitter = fields::optional_duration(max_ejection_time_jitter, &jitter_at)?.unwrap_or_default();
    Ok(Ejection {
        mode: BreakerMode::Enforce,
        errors,
        consecutive_errors,
        connect_failures: row(local, consecutive_local_origin_failure, "consecutive_local_origin_failure")?,
        success_rate,
        slow_calls: None,
        base,
        max: time(max_ejection_time, "max_ejection_time", base.max(Duration::from_secs(300)))?,
        jitter: share_of(jitter, base),
        max_ejected: percent(max_ejection_percent, 10, "max_ejection_percent")?,
        ramp: Duration::ZERO,
    })
}

fn at_least_one(cap: Option<u32>, at: &At<'_>) -> Result<Option<u32>, Unsupported> {
    match cap {
        Some(0) => Err(at.refuse("0 lets nothing through")),
        cap => Ok(cap),
    }
}

fn consecutive(number: Option<u32>, at: &At<'_>) -> Result<Option<u8>, Unsupported> {
    let fits =
        |number: u32| u8::try_from(number).ok().filter(|n| (1..=Ejection::MAX_CONSECUTIVE).contains(n));
    let most = Ejection::MAX_CONSECUTIVE;
    let checked = number.map(|n| fits(n).ok_or_else(|| at.refuse(format!("{n} is not 1 to {most}"))));
    checked.transpose()
}

fn min_requests(number: u32, at: &At<'_>) -> Result<u32, Unsupported> {
    let most = SuccessRate::MAX_REQUESTS;
    match (1..=most).contains(&number) {
        true => Ok(number),
        false => Err(at.refuse(format!("{number} is not 1 to {most}"))),
    }
}

fn interval_of(interval: Option<Duration>, at: &At<'_>) -> Result<Duration, Unsupported> {
    let interval = interval.unwrap_or(SuccessRate::default().interval);
    match Ejection::INTERVALS.contains(&interval) {
        true => Ok(interval),
        false => Err(at.refuse(format!("{interval:?} is not within 1 s and 5 min"))),
    }
}

fn within_an_hour(time: Duration, at: &At<'_>) -> Result<Duration, Unsupported> {
    match time <= Ejection::MAX_TIME {
        true => Ok(time),
        false => Err(at.refuse(format!("{time:?} is more than an hour"))),
    }
}

fn part(whole: Duration, share: Fraction) -> Duration {
    whole.mul_f64(f64::from(share.millionths()) / 1e6)
}

/// Envoy adds the jitter, we go as far to both sides.
fn share_of(part: Duration, whole: Duration) -> Fraction {
    if whole.is_zero() {
        return Fraction::ZERO;
    }
    let millionths = (part.as_secs_f64() / whole.as_secs_f64() * 1e6).min(1e6);
    Fraction::new(millionths as u32, 1_000_000).expect("at most one")
}
