//! `retry` of a TrafficPolicy and of an HTTPRoute's rule.

use http::{Method, StatusCode};

use crate::manifest::http_route::HttpRetry;
use crate::manifest::traffic_policy::{BackoffSection, BudgetSection, HedgeSection, RetrySection};
use crate::manifest::value::{Duration, HttpMethod, PerSecond, Percent, RetryAttempts, RetryStatus};
use crate::model::{Backoff, Fraction, Hedge, Retry, RetryBudget, RetryMethods, RetryOn};

use super::route::header_matches;

pub(super) fn retry(manifest: &RetrySection) -> Retry {
    let default = Retry::default();
    let says_otherwise = !manifest.status_codes.is_empty() || !manifest.headers.is_empty();
    let mut on = match &manifest.on {
        Some(on) => on.iter().map(|condition| RetryOn::from(*condition)).collect(),
        None if says_otherwise => Vec::new(),
        None => default.on,
    };
    on.sort_unstable();
    let listed = |methods: &Vec<HttpMethod>| RetryMethods::Listed(methods.iter().map(method).collect());
    Retry {
        attempts: manifest.attempts.map_or(default.attempts, RetryAttempts::get),
        on,
        statuses: manifest.status_codes.iter().map(status).collect(),
        headers: header_matches(&manifest.headers),
        methods: manifest.methods.as_ref().map_or(default.methods, listed),
        backoff: manifest.backoff.map_or(default.backoff, backoff),
        budget: manifest.budget.map_or(default.budget, budget),
        max_retry_after: manifest.max_retry_after.map_or(default.max_retry_after, Duration::get),
        of_retries: manifest.of_retries,
        hedge: manifest.hedge.map(hedge),
    }
}

/// Connection errors are always retried, responses by their status (GEP-1731).
pub(super) fn inline(manifest: &HttpRetry) -> Retry {
    let default = Retry::default();
    let on = match manifest.codes.is_empty() {
        true => default.on,
        false => vec![RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::RefusedStream],
    };
    Retry {
        attempts: manifest.attempts.map_or(default.attempts, RetryAttempts::get),
        on,
        statuses: manifest.codes.iter().map(status).collect(),
        backoff: backoff(BackoffSection { base: manifest.backoff, max: None }),
        ..Retry::default()
    }
}

fn backoff(manifest: BackoffSection) -> Backoff {
    let default = Backoff::default();
    let (base, max) = (manifest.base.map(Duration::get), manifest.max.map(Duration::get));
    match (base, max) {
        (Some(base), max) => Backoff { base, max: max.unwrap_or(default.max.max(base)) },
        (None, Some(max)) => Backoff { base: default.base.min(max), max },
        (None, None) => default,
    }
}

fn hedge(manifest: HedgeSection) -> Hedge {
    let share =
        |percent: Percent| Fraction::new(percent.get().into(), 100).expect("a percentage is at most 100");
    Hedge {
        after: manifest.after.map_or(Hedge::LEAST, Duration::get),
        percentile: manifest.percentile.map(share),
    }
}

fn budget(manifest: BudgetSection) -> RetryBudget {
    let default = RetryBudget::default();
    let share =
        |percent: Percent| Fraction::new(percent.get().into(), 100).expect("a percentage is at most 100");
    RetryBudget {
        share: manifest.percent.map_or(default.share, share),
        per_second: manifest.min_per_second.map_or(default.per_second, PerSecond::get),
        interval: manifest.interval.map_or(default.interval, Duration::get),
    }
}

fn status(status: &RetryStatus) -> StatusCode {
    StatusCode::from_u16(status.get()).expect("400 to 599 are status codes")
}

fn method(method: &HttpMethod) -> Method {
    Method::from_bytes(method.as_str().as_bytes()).expect("the methods of the API are tokens")
}
