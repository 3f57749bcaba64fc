//! Retries. Envoy's policy stands beside our own words, which say more; of another control plane's only Envoy's are there.
//!
//! What Envoy does not get: the budget, which belongs to its clusters, hedging, and `of_retries`. It does not tell apart why a request may be repeated, so
//! that with idempotent methods it repeats no gRPC call.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Method, StatusCode};

use super::super::at::{At, Unsupported, take};
use super::super::pb::{self, route as proto};
use super::super::{fields, own};
use super::matches::{header_matcher, header_value};
use crate::model::{
    Backoff, Fraction, HeaderMatch, Hedge, Pattern, Retry, RetryBudget, RetryMethods, RetryOn, StringMatch,
};

/// Beside the conditions, Envoy's words for what its lists hold.
const BY_STATUS: &str = "retriable-status-codes";
const BY_HEADER: &str = "retriable-headers";

/// Istio asks for it everywhere; our balancer avoids endpoints that failed by itself.
const AVOIDS_PREVIOUS: [&str; 2] =
    ["envoy.retry_host_predicates.previous_hosts", "envoy.retry_host_predicates.omit_canary_hosts"];

pub(super) fn encode(retry: Option<&Retry>, attempt: Option<Duration>) -> Option<proto::RetryPolicy> {
    let per_try_timeout = attempt.map(fields::duration);
    let Some(retry) = retry else {
        return per_try_timeout.is_some().then(|| proto::RetryPolicy {
            per_try_timeout,
            num_retries: fields::uint32(0),
            ..Default::default()
        });
    };
    let by_status = (!retry.statuses.is_empty()).then_some(BY_STATUS);
    let by_header = (!retry.headers.is_empty()).then_some(BY_HEADER);
    let words: Vec<_> =
        retry.on.iter().map(|condition| condition.word()).chain(by_status).chain(by_header).collect();
    Some(proto::RetryPolicy {
        retry_on: words.join(","),
        num_retries: fields::uint32(retry.attempts.into()),
        per_try_timeout,
        retriable_status_codes: retry.statuses.iter().map(|status| status.as_u16().into()).collect(),
        retry_back_off: Some(proto::retry_policy::RetryBackOff {
            base_interval: Some(fields::duration(retry.backoff.base)),
            max_interval: Some(fields::duration(retry.backoff.max)),
        }),
        retriable_headers: headers(retry),
        retriable_request_headers: methods(&retry.methods).into_iter().collect(),
        ..Default::default()
    })
}

fn headers(retry: &Retry) -> Vec<proto::HeaderMatcher> {
    retry.headers.iter().map(|header| header_matcher(header.name.as_str(), &header.value)).collect()
}

fn methods(methods: &RetryMethods) -> Option<proto::HeaderMatcher> {
    let names: Vec<&str> = match methods {
        RetryMethods::Any => return None,
        RetryMethods::Idempotent => vec!["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"],
        RetryMethods::Listed(methods) => methods.iter().map(Method::as_str).collect(),
    };
    let escaped: Vec<_> = names.into_iter().map(regex::escape).collect();
    let pattern = Pattern::new(&escaped.join("|")).expect("escaped tokens make a valid expression");
    Some(header_matcher(":method", &StringMatch::Regex(pattern)))
}

pub(super) fn own(retry: &Retry) -> own::Retry {
    use own::RetryMethods::{Any, Idempotent, Listed};
    let (methods, listed) = match &retry.methods {
        RetryMethods::Idempotent => (Idempotent, vec![]),
        RetryMethods::Any => (Any, vec![]),
        RetryMethods::Listed(methods) => (Listed, methods.iter().map(ToString::to_string).collect()),
    };
    own::Retry {
        attempts: retry.attempts.into(),
        on: retry.on.iter().map(|condition| condition.word().into()).collect(),
        statuses: retry.statuses.iter().map(|status| status.as_u16().into()).collect(),
        headers: headers(retry),
        methods: methods as i32,
        listed_methods: listed,
        backoff_base: Some(fields::duration(retry.backoff.base)),
        backoff_max: Some(fields::duration(retry.backoff.max)),
        budget_share: retry.budget.share.millionths(),
        budget_per_second: retry.budget.per_second,
        budget_interval: Some(fields::duration(retry.budget.interval)),
        max_retry_after: Some(fields::duration(retry.max_retry_after)),
        of_retries: retry.of_retries,
        hedge_after: retry.hedge.map(|hedge| fields::duration(hedge.after)),
        hedge_percentile: retry.hedge.and_then(|hedge| hedge.percentile).map_or(0, Fraction::millionths),
    }
}

pub(super) fn decode_own(retry: own::Retry, at: &At<'_>) -> Result<Retry, Unsupported> {
    use own::RetryMethods::{Any, Idempotent, Listed};
    let default = Retry::default();
    let duration = |given, name| fields::optional_duration(given, &at.field(name));
    Ok(Retry {
        attempts: attempts(retry.attempts, &at.field("attempts"))?,
        on: conditions(retry.on.iter().map(String::as_str), &at.field("on"))?,
        statuses: statuses(retry.statuses, &at.field("statuses"))?,
        headers: response_headers(retry.headers, "headers", at)?,
        methods: match own::RetryMethods::try_from(retry.methods) {
            Ok(Idempotent) => RetryMethods::Idempotent,
            Ok(Any) => RetryMethods::Any,
            Ok(Listed) => RetryMethods::Listed(listed(&retry.listed_methods, &at.field("listed_methods"))?),
            Err(_) => return Err(at.field("methods").refuse(format!("{} is not known", retry.methods))),
        },
        backoff: backoff(
            duration(retry.backoff_base, "backoff_base")?,
            duration(retry.backoff_max, "backoff_max")?,
            &at.field("backoff_base"),
        )?,
        budget: RetryBudget {
            share: Fraction::new(retry.budget_share, 1_000_000)
                .ok_or_else(|| at.field("budget_share").refuse("more than 1000000 millionths"))?,
            per_second: retry.budget_per_second,
            interval: duration(retry.budget_interval, "budget_interval")?
                .filter(|interval| !interval.is_zero())
                .unwrap_or(default.budget.interval),
        },
        max_retry_after: duration(retry.max_retry_after, "max_retry_after")?
            .unwrap_or(default.max_retry_after),
        of_retries: retry.of_retries,
        hedge: hedge(retry.hedge_after, retry.hedge_percentile, at)?,
    })
}

fn hedge(after: Option<pb::Duration>, percentile: u32, at: &At<'_>) -> Result<Option<Hedge>, Unsupported> {
    let Some(after) = fields::optional_duration(after, &at.field("hedge_after"))? else { return Ok(None) };
    let share = Fraction::new(percentile, 1_000_000)
        .ok_or_else(|| at.field("hedge_percentile").refuse("more than 1000000 millionths"))?;
    Ok(Some(Hedge { after, percentile: (percentile > 0).then_some(share) }))
}

/// The timeout of an attempt and, where it is another control plane's, what it asks for.
pub(super) fn decode(
    policy: proto::RetryPolicy,
    foreign: bool,
    at: &At<'_>,
) -> Result<(Option<Duration>, Option<Retry>), Unsupported> {
    take! { at, policy => proto::RetryPolicy;
        read {
            per_try_timeout, retry_on, num_retries, retriable_status_codes, retry_back_off, retriable_headers,
            retriable_request_headers, retry_host_predicate
        }
        // Our balancer always looks for another endpoint; how often is its own business.
        ignore { host_selection_retry_max_attempts }
        refuse {
            per_try_idle_timeout, retry_priority, retry_options_predicates, rate_limited_retry_back_off,
            refresh_cluster_on_retry
        }
    };
    let attempt = fields::optional_duration(per_try_timeout, &at.field("per_try_timeout"))?;
    if !foreign || retry_on.is_empty() {
        return Ok((attempt, None));
    }
    if let Some(other) = retry_host_predicate.iter().find(|p| !AVOIDS_PREVIOUS.contains(&p.name.as_str())) {
        return Err(at.field("retry_host_predicate").refuse(format!("{:?} is not supported", other.name)));
    }
    let words = retry_on.split(',').map(str::trim).filter(|word| ![BY_STATUS, BY_HEADER].contains(word));
    let request_headers = at.field("retriable_request_headers");
    if !retriable_request_headers.is_empty() {
        return Err(request_headers.unsupported());
    }
    let back_off = at.field("retry_back_off");
    let given = retry_back_off.unwrap_or_default();
    let interval = |given, name| fields::optional_duration(given, &back_off.field(name));
    let base = interval(given.base_interval, "base_interval")?;
    let retry = Retry {
        // Envoy's own default.
        attempts: attempts(num_retries.map_or(1, |n| n.value), &at.field("num_retries"))?,
        on: conditions(words, &at.field("retry_on"))?,
        statuses: statuses(retriable_status_codes, &at.field("retriable_status_codes"))?,
        headers: response_headers(retriable_headers, "retriable_headers", at)?,
        methods: RetryMethods::Any,
        backoff: backoff(base, interval(given.max_interval, "max_interval")?, &back_off)?,
        ..Retry::default()
    };
    Ok((attempt, Some(retry)))
}

fn attempts(number: u32, at: &At<'_>) -> Result<u8, Unsupported> {
    u8::try_from(number)
        .ok()
        .filter(|number| *number <= Retry::MAX_ATTEMPTS)
        .ok_or_else(|| at.refuse(format!("{number} is more than {}", Retry::MAX_ATTEMPTS)))
}

fn conditions<'a>(words: impl Iterator<Item = &'a str>, at: &At<'_>) -> Result<Vec<RetryOn>, Unsupported> {
    let condition =
        |word: &str| RetryOn::from_word(word).ok_or_else(|| at.refuse(format!("{word:?} is not supported")));
    let conditions: Result<BTreeSet<_>, _> = words.map(condition).collect();
    Ok(conditions?.into_iter().collect())
}

fn statuses(numbers: Vec<u32>, at: &At<'_>) -> Result<Vec<StatusCode>, Unsupported> {
    let status = |number: u32| {
        let status = u16::try_from(number).ok().and_then(|number| StatusCode::from_u16(number).ok());
        status.ok_or_else(|| at.refuse(format!("{number} is not a status code")))
    };
    numbers.into_iter().map(status).collect()
}

fn listed(names: &[String], at: &At<'_>) -> Result<Vec<Method>, Unsupported> {
    let method = |name: &String| {
        Method::from_bytes(name.as_bytes()).map_err(|_| at.refuse(format!("{name:?} is not a method")))
    };
    names.iter().map(method).collect()
}

fn response_headers(
    matchers: Vec<proto::HeaderMatcher>,
    field: &'static str,
    at: &At<'_>,
) -> Result<Vec<HeaderMatch>, Unsupported> {
    let mut decoded = Vec::with_capacity(matchers.len());
    for (i, matcher) in matchers.into_iter().enumerate() {
        let at = at.index(field, i);
        let name = fields::header_name(&matcher.name, &at.field("name"))?;
        decoded.push(HeaderMatch { name, value: header_value(matcher, &at)? });
    }
    Ok(decoded)
}

fn backoff(base: Option<Duration>, max: Option<Duration>, at: &At<'_>) -> Result<Backoff, Unsupported> {
    let default = Backoff::default();
    let base = base.unwrap_or(default.base);
    // Envoy's rule for the upper bound that is not given.
    let max = max.unwrap_or(base.saturating_mul(10));
    if base.is_zero() || max < base {
        return Err(at.refuse(format!("{base:?} to {max:?} is not a backoff")));
    }
    Ok(Backoff { base, max })
}
