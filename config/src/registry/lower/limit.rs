//! `rateLimit` and `concurrency` of a TrafficPolicy.

use std::sync::Arc;

use crate::manifest::access_policy::ToMatch;
use crate::manifest::traffic_policy::{
    ConcurrencyLimit, ConcurrencySection, FailureMode, KeyPart as ManifestKey,
    LimitHeaders as ManifestHeaders, LimitMode as ManifestMode, LimitScope, LimitServerSection,
    RateLimit as ManifestRate, RateLimitSection,
};
use crate::manifest::value::{Duration, MaxKeys, Name};
use crate::model::{
    Adaptive, BreakerMode, CallMatch, Cost, KeyPart, Limit, LimitHeaders, LimitMode, LimitOverride,
    LimitUnit, Rate, RateLimit, SharedLimit,
};
use crate::registry::policy::{PolicyLimit, Sharing};

use super::Identity;
use super::access::call;

pub(super) fn rates(id: &Identity<'_>, section: &RateLimitSection) -> Arc<[PolicyLimit]> {
    let server = section.server.as_ref().map(LimitServerSection::lowered);
    let limit = |(i, manifest): (usize, &ManifestRate)| {
        let written = manifest.written().expect("checked: every limit says what it counts");
        let get = |written: crate::manifest::traffic_policy::WrittenRate| -> Rate {
            written.get().expect("checked: every rate is within its bounds")
        };
        let overrides = manifest.overrides.iter().map(|given| LimitOverride {
            key: key_values(&given.key),
            allowed: given.written(written).map(get),
        });
        let most = manifest.least_burst(written);
        let cost = manifest.cost.clone().unwrap_or_default();
        let rate = RateLimit {
            limit: Limit {
                name: name(manifest.name.as_ref(), "limit", i),
                mode: mode(section.mode),
                matches: matches(manifest.matches.as_deref()),
                key: key(&manifest.key),
                allowed: get(written),
                overrides: overrides.collect(),
                max_keys: max_keys(manifest.max_keys),
                origin: id.origin().at(&format!("spec.rateLimit.limits[{i}]")),
            },
            unit: match manifest.connections {
                Some(_) => LimitUnit::Connections,
                None => LimitUnit::Requests,
            },
            cost: Cost {
                fixed: cost.fixed.map_or(1, |fixed| fixed.get()),
                header: cost.header.map(|name| {
                    http::HeaderName::from_bytes(name.as_str().as_bytes())
                        .expect("a manifest's header name is a token")
                }),
                most: cost.max.map_or(most, |max| max.get()),
            },
            headers: match section.headers {
                ManifestHeaders::Always => LimitHeaders::Always,
                ManifestHeaders::Refused => LimitHeaders::Refused,
                ManifestHeaders::Never => LimitHeaders::Never,
            },
            shared: None,
        };
        let sharing = (manifest.scope == LimitScope::Service).then(|| {
            let given = manifest.shared.unwrap_or_default();
            Sharing {
                server: server.clone(),
                strict: given.strict,
                batch: given.batch.map(|batch| batch.get()),
                timeout: given.timeout.map_or(SharedLimit::DEFAULT_TIMEOUT, Duration::get),
                open: given.failure_mode == FailureMode::Open,
            }
        });
        PolicyLimit::new(rate, sharing)
    };
    section.limits.iter().enumerate().map(limit).collect()
}

pub(super) fn concurrency(id: &Identity<'_>, section: &ConcurrencySection) -> Arc<[Limit<u32>]> {
    let limit = |(i, manifest): (usize, &ConcurrencyLimit)| Limit {
        name: name(manifest.name.as_ref(), "concurrency", i),
        mode: mode(section.mode),
        matches: matches(manifest.matches.as_deref()),
        key: key(&manifest.key),
        allowed: manifest.requests.get(),
        overrides: manifest
            .overrides
            .iter()
            .map(|given| LimitOverride {
                key: key_values(&given.key),
                allowed: given.requests.map(|requests| requests.get()),
            })
            .collect(),
        max_keys: max_keys(manifest.max_keys),
        origin: id.origin().at(&format!("spec.concurrency.limits[{i}]")),
    };
    section.limits.iter().enumerate().map(limit).collect()
}

pub(super) fn adaptive(id: &Identity<'_>, section: &ConcurrencySection) -> Option<Adaptive> {
    let mode = match mode(section.mode) {
        LimitMode::Enforce => BreakerMode::Enforce,
        LimitMode::Observe => BreakerMode::Observe,
    };
    let origin = id.origin().at("spec.concurrency");
    section.adaptive.map(|manifest| super::adaptive::adaptive(manifest, mode, &origin))
}

fn name(given: Option<&Name>, what: &str, index: usize) -> Arc<str> {
    given.map_or_else(|| format!("{what}-{index}").into(), |name| name.shared())
}

fn mode(manifest: ManifestMode) -> LimitMode {
    match manifest {
        ManifestMode::Enforce => LimitMode::Enforce,
        ManifestMode::Observe => LimitMode::Observe,
    }
}

fn matches(manifest: Option<&[ToMatch]>) -> Vec<CallMatch> {
    manifest.into_iter().flatten().map(call).collect()
}

fn key(manifest: &[ManifestKey]) -> Vec<KeyPart> {
    manifest.iter().map(KeyPart::from).collect()
}

/// `*` is any value.
fn key_values(manifest: &[String]) -> Vec<Option<Arc<str>>> {
    manifest.iter().map(|value| (value != "*").then(|| value.as_str().into())).collect()
}

fn max_keys(manifest: Option<MaxKeys>) -> u32 {
    manifest.map_or(Limit::<()>::DEFAULT_MAX_KEYS, MaxKeys::get)
}
