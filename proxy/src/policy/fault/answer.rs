//! Answers that are invented, and what a request's own headers ask for.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use outrigger_config::model::{FaultCeiling, FaultEnd, Fraction, GivenFault};

use crate::body::Body;
use crate::failure::{Asker, Failure, Reason, grpc};

/// Stands in the extensions of an answer that no endpoint gave.
#[derive(Clone, Debug)]
pub struct Injected(pub Failure);

/// Stands there where the caller's connection or stream is to be reset instead of answered.
#[derive(Clone, Copy, Debug)]
pub struct Reset;

/// The answer of status `status`, with its reason; to a gRPC call as trailers-only.
pub fn http(status: StatusCode, failure: Failure, asker: Asker) -> Response<Body> {
    injected(failure.injected(asker, status, grpc_for(status)), failure)
}

/// The answer to a gRPC call.
pub fn grpc(status: u16, failure: Failure, asker: Asker) -> Response<Body> {
    injected(failure.injected(asker, StatusCode::OK, status), failure)
}

/// Makes whoever is to write it break off instead.
pub fn reset(failure: Failure) -> Response<Body> {
    let mut response = injected(Response::new(Body::empty()), failure);
    *response.status_mut() = Reason::FaultReset.status();
    response.extensions_mut().insert(Reset);
    response
}

fn injected(mut response: Response<Body>, failure: Failure) -> Response<Body> {
    response.extensions_mut().insert(Injected(failure));
    response
}

/// What a gRPC client takes an answer of this status for (gRPC, `http-grpc-status-mapping.md`); a success without a status is none.
fn grpc_for(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => grpc::INTERNAL,
        401 => grpc::UNAUTHENTICATED,
        403 => grpc::PERMISSION_DENIED,
        404 => grpc::UNIMPLEMENTED,
        429 | 502..=504 => grpc::UNAVAILABLE,
        _ => grpc::UNKNOWN,
    }
}

/// What a request asks for, as far as `ceiling` and `share` allow it. The names are those of Envoy's fault filter.
pub fn asked(headers: &HeaderMap, ceiling: &FaultCeiling, share: Fraction) -> Vec<(Fraction, GivenFault)> {
    let number = |name: &HeaderName| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
    let of = |percentage: &HeaderName| {
        let percent = number(percentage).map_or(100, |percent| percent.min(100));
        Fraction::new(percent as u32, 100).expect("at most all").min(share)
    };
    let mut found = Vec::new();
    if let (Some(longest), Some(delay)) = (ceiling.delay, number(&DELAY).filter(|delay| *delay > 0)) {
        let delay = outrigger_config::model::FaultDelay::Fixed(Duration::from_millis(delay).min(longest));
        found.push((of(&DELAY_PERCENTAGE), GivenFault { delay: Some(delay), ..GivenFault::default() }));
    }
    if let (Some(least), Some(kib)) = (ceiling.throttle, number(&THROUGHPUT).filter(|kib| *kib > 0)) {
        let throttle = Some(kib.saturating_mul(1024).max(least));
        found.push((of(&THROUGHPUT_PERCENTAGE), GivenFault { throttle, ..GivenFault::default() }));
    }
    if ceiling.abort {
        let http = number(&ABORT).and_then(|status| {
            let status = u16::try_from(status).ok().filter(|status| (200..=599).contains(status))?;
            Some(FaultEnd::Http(StatusCode::from_u16(status).ok()?))
        });
        let grpc = || {
            let status = number(&ABORT_GRPC)?;
            Some(FaultEnd::Grpc(u16::try_from(status).ok().filter(|status| (1..=16).contains(status))?))
        };
        if let Some(end) = http.or_else(grpc) {
            found.push((of(&ABORT_PERCENTAGE), GivenFault { end: Some(end), ..GivenFault::default() }));
        }
    }
    found
}

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const THROUGHPUT: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const THROUGHPUT_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-throughput-response-percentage");

/// The gRPC status of headers or trailers.
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status").map(HeaderValue::as_bytes).and_then(|value| {
        let text = str::from_utf8(value).ok()?;
        text.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use outrigger_config::model::FaultDelay;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn headers_ask_and_the_policy_says_how_far_they_get() {
        let ceiling = FaultCeiling { delay: Some(Duration::from_secs(1)), abort: true, throttle: Some(4096) };
        let all = headers(&[
            ("x-envoy-fault-delay-request", "5000"),
            ("x-envoy-fault-delay-request-percentage", "20"),
            ("x-envoy-fault-abort-request", "555"),
            ("x-envoy-fault-throughput-response", "1"),
            ("x-envoy-fault-throughput-response-percentage", "900"),
        ]);
        let found = asked(&all, &ceiling, Fraction::HALF);
        let shares: Vec<_> = found.iter().map(|(share, _)| share.millionths()).collect();
        assert_eq!(shares, [200_000, 500_000, 500_000], "asked for, or at most the policy's");
        assert_eq!(found[0].1.delay, Some(FaultDelay::Fixed(Duration::from_secs(1))), "not five");
        assert_eq!(found[1].1.throttle, Some(4096), "not a KiB");
        assert_eq!(found[2].1.end, Some(FaultEnd::Http(StatusCode::from_u16(555).expect("a status"))));
        assert!(asked(&all, &FaultCeiling::default(), Fraction::ALL).is_empty(), "nothing is allowed");
        assert!(asked(&HeaderMap::new(), &ceiling, Fraction::ALL).is_empty(), "nothing is asked for");
    }

    #[test]
    fn what_is_nonsense_is_not_asked_for() {
        let ceiling = FaultCeiling { delay: Some(Duration::from_secs(1)), abort: true, throttle: Some(1) };
        for (name, value) in [
            ("x-envoy-fault-delay-request", "-1"),
            ("x-envoy-fault-delay-request", "0"),
            ("x-envoy-fault-delay-request", "1s"),
            ("x-envoy-fault-abort-request", "199"),
            ("x-envoy-fault-abort-request", "600"),
            ("x-envoy-fault-abort-request", "99999999999999999999"),
            ("x-envoy-fault-abort-grpc-request", "0"),
            ("x-envoy-fault-abort-grpc-request", "17"),
            ("x-envoy-fault-throughput-response", "0"),
        ] {
            assert!(asked(&headers(&[(name, value)]), &ceiling, Fraction::ALL).is_empty(), "{name}: {value}");
        }
        let grpc = headers(&[("x-envoy-fault-abort-grpc-request", "14")]);
        assert_eq!(asked(&grpc, &ceiling, Fraction::ALL)[0].1.end, Some(FaultEnd::Grpc(14)));
    }
}
