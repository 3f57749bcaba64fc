//! How a cluster spreads requests: Envoy's `lb_policy` and what belongs to it, and our own words beside it for the rest.
//!
//! What Envoy does not get: peak EWMA (it chooses by fewest requests instead), the caller's own zone (it has its own), session
//! cookies, and which endpoints nobody watches (it checks them all). Another control plane may also ask by `load_balancing_policy`.

mod extension;
pub(super) mod hash;
mod health;

use std::time::Duration;

use super::at::{At, Unsupported, take};
use super::pb::cluster::cluster as proto;
use super::pb::cluster::cluster::common_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig};
use super::pb::cluster::cluster::{LbConfig, LbPolicy};
use super::pb::{self};
use super::{fields, own};
use crate::model::{Algorithm, Balance, SessionCookie, SlowStart};

/// Fields of a cluster that say how it balances.
#[derive(Default)]
pub(super) struct Fields {
    pub lb_policy: i32,
    pub lb_config: Option<LbConfig>,
    pub load_balancing_policy: Option<pb::cluster::LoadBalancingPolicy>,
    pub common_lb_config: Option<proto::CommonLbConfig>,
    pub health_checks: Vec<pb::core::HealthCheck>,
}

pub(super) fn encode(balance: &Balance) -> Fields {
    let (policy, config) = policy(balance);
    Fields {
        lb_policy: policy as i32,
        lb_config: config,
        load_balancing_policy: None,
        common_lb_config: balance.zone.as_ref().map(|_| proto::CommonLbConfig {
            locality_config_specifier: Some(LocalityConfigSpecifier::ZoneAwareLbConfig(
                ZoneAwareLbConfig::default(),
            )),
            ..Default::default()
        }),
        health_checks: balance.health_check.iter().map(|check| health::encode(check)).collect(),
    }
}

fn policy(balance: &Balance) -> (LbPolicy, Option<LbConfig>) {
    let slow_start_config = balance.slow_start.map(slow_start);
    let least_request = |choices: u8| {
        (
            LbPolicy::LeastRequest,
            Some(LbConfig::LeastRequestLbConfig(proto::LeastRequestLbConfig {
                choice_count: fields::uint32(choices.into()),
                slow_start_config: slow_start_config.clone(),
                ..Default::default()
            })),
        )
    };
    match balance.algorithm {
        Algorithm::PeakEwma => least_request(Algorithm::DEFAULT_CHOICES),
        Algorithm::LeastRequest { choices } => least_request(choices),
        Algorithm::RoundRobin => (
            LbPolicy::RoundRobin,
            Some(LbConfig::RoundRobinLbConfig(proto::RoundRobinLbConfig { slow_start_config })),
        ),
        Algorithm::Random => (LbPolicy::Random, None),
        Algorithm::RingHash { min_size, max_size } => (
            LbPolicy::RingHash,
            Some(LbConfig::RingHashLbConfig(proto::RingHashLbConfig {
                minimum_ring_size: uint64(min_size),
                maximum_ring_size: uint64(max_size),
                ..Default::default()
            })),
        ),
        Algorithm::Maglev { table_size } => (
            LbPolicy::Maglev,
            Some(LbConfig::MaglevLbConfig(proto::MaglevLbConfig { table_size: uint64(table_size) })),
        ),
    }
}

fn slow_start(slow_start: SlowStart) -> proto::SlowStartConfig {
    proto::SlowStartConfig {
        slow_start_window: Some(fields::duration(slow_start.window)),
        aggression: None,
        min_weight_percent: Some(pb::percent::Percent { value: slow_start.min_percent.into() }),
    }
}

fn uint64(value: u32) -> Option<pb::UInt64Value> {
    Some(pb::UInt64Value { value: value.into() })
}

/// `None` where all of it is as by default.
pub(super) fn own(balance: &Balance) -> Option<own::Balance> {
    let said_by_envoy = Balance { health_check: balance.health_check.clone(), ..Balance::default() };
    (*balance != said_by_envoy).then(|| own::Balance {
        peak_ewma: balance.algorithm == Algorithm::PeakEwma,
        hash: balance.hash.iter().map(hash::encode).collect(),
        slow_start_window: balance.slow_start.map(|slow_start| fields::duration(slow_start.window)),
        slow_start_percent: balance.slow_start.map_or(0, |slow_start| slow_start.min_percent.into()),
        zone: balance.zone.as_deref().map(Into::into),
        session: balance.session.as_ref().map(|session| own::SessionCookie {
            name: session.name.to_string(),
            ttl: Some(fields::duration(session.ttl)),
            path: session.path.to_string(),
        }),
        origin: balance.origin.as_ref().map(Into::into),
    })
}

/// `own` is `None` where another control plane made the cluster; its content is where all is as by default.
pub(super) fn decode(
    said: Fields,
    own: Option<(Option<own::Balance>, &At<'_>)>,
    at: &At<'_>,
) -> Result<Balance, Unsupported> {
    let health_check = health::decode(said.health_checks, at)?.map(Into::into);
    let Some((own, own_at)) = own else {
        let common_at = at.field("common_lb_config");
        take! { common_at, said.common_lb_config.unwrap_or_default() => proto::CommonLbConfig;
            read {}
            // Updates are merged where they are made.
            ignore { update_merge_window }
            refuse {
                healthy_panic_threshold, ignore_new_hosts_until_first_hc, close_connections_on_host_set_change,
                consistent_hashing_lb_config, override_host_status, locality_config_specifier
            }
        };
        let (algorithm, slow_start) = match said.load_balancing_policy {
            Some(policy) => extension::decode(policy, &at.field("load_balancing_policy"))?,
            None => algorithm(said.lb_policy, said.lb_config, at)?,
        };
        return Ok(Balance { algorithm, slow_start, health_check, ..Balance::default() });
    };
    let Some(own) = own else { return Ok(Balance { health_check, ..Balance::default() }) };
    let algorithm = match own.peak_ewma {
        true => Algorithm::PeakEwma,
        false => algorithm(said.lb_policy, said.lb_config, at)?.0,
    };
    let window = fields::optional_duration(own.slow_start_window, &own_at.field("slow_start_window"))?;
    let slow_start = match window {
        Some(window) => {
            Some(slow_start_of(window, own.slow_start_percent, &own_at.field("slow_start_percent"))?)
        }
        None => None,
    };
    Ok(Balance {
        algorithm,
        hash: hash::decode(own.hash, "hash", own_at)?,
        slow_start,
        zone: own.zone.map(Into::into),
        session: own.session.map(|session| session_cookie(session, &own_at.field("session"))).transpose()?,
        health_check,
        origin: own.origin.map(Into::into),
    })
}

fn session_cookie(session: own::SessionCookie, at: &At<'_>) -> Result<SessionCookie, Unsupported> {
    hash::cookie_name(&session.name, &at.field("name"))?;
    hash::cookie_path(&session.path, &at.field("path"))?;
    Ok(SessionCookie {
        name: session.name.into(),
        ttl: fields::optional_duration(session.ttl, &at.field("ttl"))?.unwrap_or_default(),
        path: session.path.into(),
    })
}

fn algorithm(
    policy: i32,
    config: Option<LbConfig>,
    at: &At<'_>,
) -> Result<(Algorithm, Option<SlowStart>), Unsupported> {
    match (LbPolicy::try_from(policy), config) {
        (Ok(LbPolicy::RoundRobin), None) => Ok((Algorithm::RoundRobin, None)),
        (Ok(LbPolicy::RoundRobin), Some(LbConfig::RoundRobinLbConfig(config))) => {
            let at = at.field("round_robin_lb_config");
            Ok((Algorithm::RoundRobin, decode_slow_start(config.slow_start_config, &at)?))
        }
        (Ok(LbPolicy::LeastRequest), None) => Ok((choices(None, at)?, None)),
        (Ok(LbPolicy::LeastRequest), Some(LbConfig::LeastRequestLbConfig(config))) => {
            let at = at.field("least_request_lb_config");
            take! { at, config => proto::LeastRequestLbConfig;
                read { choice_count, slow_start_config }
                ignore {}
                refuse { active_request_bias }
            };
            Ok((choices(choice_count, &at)?, decode_slow_start(slow_start_config, &at)?))
        }
        (Ok(LbPolicy::Random), None) => Ok((Algorithm::Random, None)),
        (Ok(LbPolicy::RingHash), None) => Ok((ring(None, None, at)?, None)),
        (Ok(LbPolicy::RingHash), Some(LbConfig::RingHashLbConfig(config))) => {
            let at = at.field("ring_hash_lb_config");
            take! { at, config => proto::RingHashLbConfig;
                read { minimum_ring_size, maximum_ring_size }
                ignore {}
                refuse { hash_function }
            };
            Ok((ring(minimum_ring_size, maximum_ring_size, &at)?, None))
        }
        (Ok(LbPolicy::Maglev), None) => Ok((maglev(None, at)?, None)),
        (Ok(LbPolicy::Maglev), Some(LbConfig::MaglevLbConfig(config))) => {
            Ok((maglev(config.table_size, &at.field("maglev_lb_config"))?, None))
        }
        (Ok(LbPolicy::RoundRobin | LbPolicy::LeastRequest | LbPolicy::Random), Some(_))
        | (Ok(LbPolicy::RingHash | LbPolicy::Maglev), Some(_)) => {
            Err(at.field("lb_config").refuse("is another policy's"))
        }
        (Ok(LbPolicy::ClusterProvided | LbPolicy::LoadBalancingPolicyConfig) | Err(_), _) => {
            Err(at.field("lb_policy").unsupported())
        }
    }
}

fn choices(count: Option<pb::UInt32Value>, at: &At<'_>) -> Result<Algorithm, Unsupported> {
    let count = count.map_or(Algorithm::DEFAULT_CHOICES.into(), |count| count.value);
    match u8::try_from(count) {
        Ok(choices @ 2..=Algorithm::MAX_CHOICES) => Ok(Algorithm::LeastRequest { choices }),
        _ => Err(at
            .field("choice_count")
            .refuse(format!("{count} is not within 2 and {}", Algorithm::MAX_CHOICES))),
    }
}

fn ring(
    min: Option<pb::UInt64Value>,
    max: Option<pb::UInt64Value>,
    at: &At<'_>,
) -> Result<Algorithm, Unsupported> {
    let size = |given: Option<pb::UInt64Value>, name: &'static str, default: u32| match given {
        None => Ok(default),
        Some(given) => u32::try_from(given.value)
            .ok()
            .filter(|size| (1..=Algorithm::LARGEST_RING).contains(size))
            .ok_or_else(|| {
                let text = format!("{} is not within 1 and {}", given.value, Algorithm::LARGEST_RING);
                at.field(name).refuse(text)
            }),
    };
    let (default_min, default_max) = Algorithm::DEFAULT_RING;
    let max_given = size(max, "maximum_ring_size", default_max)?;
    let min_size = size(min, "minimum_ring_size", default_min.min(max_given))?;
    let max_size = if max.is_none() { max_given.max(min_size) } else { max_given };
    if min_size > max_size {
        return Err(at.field("minimum_ring_size").refuse("is over maximum_ring_size"));
    }
    Ok(Algorithm::RingHash { min_size, max_size })
}

fn maglev(size: Option<pb::UInt64Value>, at: &At<'_>) -> Result<Algorithm, Unsupported> {
    let size = size.map_or(Algorithm::DEFAULT_TABLE.into(), |size| size.value);
    match u32::try_from(size) {
        Ok(table_size) if Algorithm::is_table_size(table_size) => Ok(Algorithm::Maglev { table_size }),
        _ => Err(at
            .field("table_size")
            .refuse(format!("{size} is not a prime up to {}", Algorithm::LARGEST_TABLE))),
    }
}

fn decode_slow_start(
    config: Option<proto::SlowStartConfig>,
    at: &At<'_>,
) -> Result<Option<SlowStart>, Unsupported> {
    let Some(config) = config else { return Ok(None) };
    let at = at.field("slow_start_config");
    slow_start_parts(config.slow_start_window, config.aggression, config.min_weight_percent, &at)
}

fn slow_start_parts(
    window: Option<pb::Duration>,
    aggression: Option<pb::core::RuntimeDouble>,
    percent: Option<pb::percent::Percent>,
    at: &At<'_>,
) -> Result<Option<SlowStart>, Unsupported> {
    let Some(window) = fields::optional_duration(window, &at.field("slow_start_window"))? else {
        return Ok(None);
    };
    if aggression.is_some_and(|aggression| aggression.default_value != 1.0) {
        return Err(at.field("aggression").refuse("only 1, an even rise, is supported"));
    }
    let percent = percent.map_or(SlowStart::default().min_percent.into(), |percent| percent.value);
    let at = at.field("min_weight_percent");
    // A whole percentage is exact enough for a ramp; Envoy's 0 is never less than one part of the weight either.
    slow_start_of(window, percent.round().clamp(1.0, 101.0) as u32, &at).map(Some)
}

fn slow_start_of(window: Duration, percent: u32, at: &At<'_>) -> Result<SlowStart, Unsupported> {
    match u8::try_from(percent) {
        Ok(min_percent @ 1..=100) => Ok(SlowStart { window, min_percent }),
        _ => Err(at.refuse(format!("{percent} is not within 1 and 100"))),
    }
}
