//! The words that proxies and servers of Envoy's rate limit call have for a shared limit.
//!
//! Owns how a limit is named in a descriptor, and what our own server says beyond the call. Never counts.

use std::borrow::Cow;

use super::pb::percent::RateLimitUnit;
use super::pb::ratelimit_descriptor::rate_limit_descriptor::{Entry, RateLimitOverride};
use crate::model::{KeyPart, LimitPer, Rate, RateLimit, SharedLimit};

/// In the metadata of an answer: negative hits are taken back, a refusal counts nothing, `limit_remaining` is what is left, and `duration_until_reset` of a
/// refusal is when what was asked for will be there. Other servers may mean something else by each of them.
pub const TAKES_BACK: &str = "outrigger-takes-back";

/// Stands for the value of all keys that a proxy has no place for.
pub const OVERFLOW: &str = "overflow";

/// What the descriptors of a limit begin with: whose it is. The parts of its key follow, each under [`part`].
pub fn entries(limit: &RateLimit, shared: &SharedLimit) -> Vec<Entry> {
    let limit = &limit.limit;
    vec![
        entry("service", shared.service.to_string()),
        entry("policy", limit.policy()),
        entry("limit", limit.name.to_string()),
    ]
}

pub fn entry(key: &str, value: impl Into<String>) -> Entry {
    Entry { key: key.to_owned(), value: value.into() }
}

/// The key of an entry for a part of a limit's key.
pub fn part(part: &KeyPart) -> Cow<'static, str> {
    match part {
        KeyPart::Identity => "identity".into(),
        KeyPart::Namespace => "namespace".into(),
        KeyPart::Address { .. } => "address".into(),
        KeyPart::Header(name) => format!("header:{name}").into(),
        KeyPart::Path(_) => "path".into(),
        KeyPart::Method => "method".into(),
        KeyPart::GrpcMethod => "grpc-method".into(),
    }
}

/// What the call counts up to. `None` for a rate whose period is none of its units.
pub fn allowed(rate: Rate) -> Option<RateLimitOverride> {
    Some(RateLimitOverride { requests_per_unit: rate.tokens, unit: unit(rate.unit()?) as i32 })
}

pub fn unit(per: LimitPer) -> RateLimitUnit {
    match per {
        LimitPer::Second => RateLimitUnit::Second,
        LimitPer::Minute => RateLimitUnit::Minute,
        LimitPer::Hour => RateLimitUnit::Hour,
        LimitPer::Day => RateLimitUnit::Day,
    }
}
