//! `load_balancing_policy`: the same choice as an extension, which newer control planes make instead of `lb_policy`.

use super::super::at::{At, Unsupported, take};
use super::super::pb::lb;
use super::super::{fields, pb};
use super::{choices, maglev, ring, slow_start_parts};
use crate::model::{Algorithm, SlowStart};

/// The first policy that is known decides (Envoy `LoadBalancingPolicy.policies`).
pub(super) fn decode(
    policy: pb::cluster::LoadBalancingPolicy,
    at: &At<'_>,
) -> Result<(Algorithm, Option<SlowStart>), Unsupported> {
    for (i, policy) in policy.policies.into_iter().enumerate() {
        let at = at.index("policies", i);
        let Some(extension) = policy.typed_extension_config else { continue };
        let Some(any) = extension.typed_config else { continue };
        if let Some(decoded) = one(&any, &at.field("typed_extension_config").field("typed_config")) {
            return decoded;
        }
    }
    Err(at.refuse("none of its policies is supported"))
}

/// `None` where it is a policy of another kind.
fn one(any: &pb::Any, at: &At<'_>) -> Option<Result<(Algorithm, Option<SlowStart>), Unsupported>> {
    use prost::Name;
    let url = any.type_url.as_str();
    Some(if url == lb::round_robin::RoundRobin::type_url() {
        round_robin(any, at)
    } else if url == lb::least_request::LeastRequest::type_url() {
        least_request(any, at)
    } else if url == lb::random::Random::type_url() {
        random(any, at)
    } else if url == lb::ring_hash::RingHash::type_url() {
        ring_hash(any, at)
    } else if url == lb::maglev::Maglev::type_url() {
        maglev_table(any, at)
    } else {
        return None;
    })
}

type Decoded = Result<(Algorithm, Option<SlowStart>), Unsupported>;

fn round_robin(any: &pb::Any, at: &At<'_>) -> Decoded {
    take! { at, fields::unpack(any, at)? => lb::round_robin::RoundRobin;
        read { slow_start_config }
        ignore {}
        refuse { locality_lb_config }
    };
    Ok((Algorithm::RoundRobin, slow_start(slow_start_config, at)?))
}

fn least_request(any: &pb::Any, at: &At<'_>) -> Decoded {
    take! { at, fields::unpack(any, at)? => lb::least_request::LeastRequest;
        read { choice_count, slow_start_config }
        ignore {}
        refuse { active_request_bias, locality_lb_config, enable_full_scan, selection_method }
    };
    Ok((choices(choice_count, at)?, slow_start(slow_start_config, at)?))
}

fn random(any: &pb::Any, at: &At<'_>) -> Decoded {
    take! { at, fields::unpack(any, at)? => lb::random::Random;
        read {}
        ignore {}
        refuse { locality_lb_config }
    };
    Ok((Algorithm::Random, None))
}

fn ring_hash(any: &pb::Any, at: &At<'_>) -> Decoded {
    use lb::ring_hash::ring_hash::HashFunction;
    take! { at, fields::unpack(any, at)? => lb::ring_hash::RingHash;
        read { hash_function, minimum_ring_size, maximum_ring_size }
        ignore {}
        refuse {
            use_hostname_for_hashing, hash_balance_factor, consistent_hashing_lb_config, locality_weighted_lb_config
        }
    };
    match HashFunction::try_from(hash_function) {
        Ok(HashFunction::DefaultHash | HashFunction::XxHash) => {
            Ok((ring(minimum_ring_size, maximum_ring_size, at)?, None))
        }
        Ok(HashFunction::MurmurHash2) | Err(_) => Err(at.field("hash_function").unsupported()),
    }
}

fn maglev_table(any: &pb::Any, at: &At<'_>) -> Decoded {
    take! { at, fields::unpack(any, at)? => lb::maglev::Maglev;
        read { table_size }
        ignore {}
        refuse { consistent_hashing_lb_config, locality_weighted_lb_config }
    };
    Ok((maglev(table_size, at)?, None))
}

fn slow_start(
    config: Option<lb::common::SlowStartConfig>,
    at: &At<'_>,
) -> Result<Option<SlowStart>, Unsupported> {
    let Some(config) = config else { return Ok(None) };
    let at = at.field("slow_start_config");
    slow_start_parts(config.slow_start_window, config.aggression, config.min_weight_percent, &at)
}
