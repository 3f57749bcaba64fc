use http::HeaderValue;
use outrigger_config::model::{Pattern, Retry, RetryMethods, StringMatch};
use rand::SeedableRng;

use super::*;

fn policy(retry: Retry) -> RetryPolicy {
    RetryPolicy::compile(Arc::new(retry))
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn error(reason: Reason, unprocessed: bool) -> SendError {
    SendError { unprocessed, ..SendError::lost(reason, "") }
}

#[test]
fn each_condition_names_its_failures_and_no_others() {
    let reasons = [
        error(Reason::ConnectFailed, true),
        error(Reason::UpstreamReset, false),
        error(Reason::UpstreamReset, true),
        error(Reason::AttemptTimeout, false),
        error(Reason::UpstreamProtocolError, false),
    ];
    let cases: [(RetryOn, [bool; 5], std::ops::Range<u16>); 5] = [
        (RetryOn::ServerError, [true, true, true, true, true], 500..600),
        (RetryOn::GatewayError, [true, true, true, true, true], 502..505),
        (RetryOn::ConnectFailure, [true, false, false, false, false], 0..0),
        (RetryOn::Reset, [false, true, true, false, false], 0..0),
        (RetryOn::RefusedStream, [true, false, true, false, false], 0..0),
    ];
    for (on, errors, statuses) in cases {
        let policy = policy(Retry { on: vec![on], ..Retry::default() });
        for (error, want) in reasons.iter().zip(errors) {
            assert_eq!(policy.judge_error(error).is_some(), want, "{on:?}: {error:?}");
        }
        for status in 200..600u16 {
            let found = policy.judge_head(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
            assert_eq!(found.is_some(), statuses.contains(&status), "{on:?}: {status}");
        }
    }
}

#[test]
fn listed_statuses_and_headers_are_failures_too() {
    let value = StringMatch::Regex(Pattern::new("over.*").unwrap());
    let policy = policy(Retry {
        on: vec![],
        statuses: vec![StatusCode::CONFLICT],
        headers: vec![HeaderMatch { name: HeaderName::from_static("x-state"), value }],
        ..Retry::default()
    });
    let judge = |status: u16, of: &[(&'static str, &'static str)]| {
        policy.judge_head(StatusCode::from_u16(status).unwrap(), &headers(of)).is_some()
    };
    assert!(judge(409, &[]) && judge(200, &[("x-state", "overloaded")]));
    assert!(!judge(503, &[]) && !judge(200, &[("x-state", "fine")]));
}

#[test]
fn grpc_statuses_are_read_from_headers_and_trailers() {
    let policy = policy(Retry { on: vec![RetryOn::Unavailable], ..Retry::default() });
    assert!(policy.judge_grpc(&headers(&[("grpc-status", "14")])).is_some());
    assert!(policy.judge_grpc(&headers(&[("grpc-status", "4")])).is_none());
    let call = headers(&[("content-type", "application/grpc")]);
    assert!(policy.waits_for_trailers(StatusCode::OK, &call));
    assert!(!policy.waits_for_trailers(StatusCode::OK, &headers(&[("content-type", "text/html")])));
    let judged = policy.judge_grpc(&headers(&[("grpc-status", "14")])).unwrap();
    let eligible = policy.eligible(&Method::POST, &call, Known::of(&call));
    assert!(eligible.check(judged).is_ok(), "a call is POST, and its status says what happened");
    let by_status = Failed { after: None, grpc: false };
    assert_eq!(eligible.check(by_status), Err(Suppressed::NotIdempotent));
}

#[test]
fn only_idempotent_methods_are_repeated_unless_listed() {
    let failed = Failed { after: None, grpc: false };
    let allowed = |retry: Retry, method: Method| {
        policy(retry).eligible(&method, &HeaderMap::new(), Known::default()).check(failed).is_ok()
    };
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert!(allowed(Retry::default(), method));
    }
    assert!(!allowed(Retry::default(), Method::POST) && !allowed(Retry::default(), Method::PATCH));
    let listed = Retry { methods: RetryMethods::Listed(vec![Method::POST]), ..Retry::default() };
    assert!(allowed(listed.clone(), Method::POST) && !allowed(listed, Method::GET));
}

#[test]
fn a_retry_of_the_hop_before_is_not_retried_unless_asked() {
    let failed = Failed { after: None, grpc: false };
    let second = headers(&[("x-outrigger-attempt", "2")]);
    let check = |of_retries: bool, headers: &HeaderMap| {
        let policy = policy(Retry { of_retries, ..Retry::default() });
        policy.eligible(&Method::GET, headers, Known::of(headers)).check(failed)
    };
    assert_eq!(check(false, &second), Err(Suppressed::RetryOfRetry));
    assert_eq!(check(true, &second), Ok(()));
    assert_eq!(check(false, &headers(&[("x-outrigger-attempt", "1")])), Ok(()));
    assert_eq!(check(false, &headers(&[("x-outrigger-attempt", "many")])), Ok(()));
}

#[test]
fn waits_are_full_jitter_within_their_bounds() {
    let mut rng = SmallRng::seed_from_u64(7);
    let policy = policy(Retry::default());
    let failed = Failed { after: None, grpc: false };
    for (n, most) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (10, 250), (64, 250)] {
        let waits: Vec<_> = (0..400).map(|_| policy.wait(n, failed, &mut rng).unwrap()).collect();
        let most = Duration::from_millis(most);
        assert!(waits.iter().all(|wait| *wait <= most), "{n}");
        let (least, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least < most / 10 && *longest > most * 9 / 10, "{n}: {least:?} to {longest:?}");
    }
}

#[test]
fn the_endpoints_word_is_obeyed_or_ends_the_retries() {
    let mut rng = SmallRng::seed_from_u64(7);
    let policy = policy(Retry::default());
    let mut wait = |pairs: &[(&'static str, &'static str)]| {
        let failed = policy.judge_head(StatusCode::SERVICE_UNAVAILABLE, &headers(pairs)).unwrap();
        policy.wait(1, failed, &mut rng)
    };
    let near = |wait: Duration, want: Duration| wait >= want && wait <= want + Duration::from_millis(25);
    assert!(near(wait(&[("retry-after", "2")]).unwrap(), Duration::from_secs(2)));
    assert!(near(wait(&[("grpc-retry-pushback-ms", "40")]).unwrap(), Duration::from_millis(40)));
    assert_eq!(wait(&[("retry-after", "6")]), Err(Suppressed::RetryAfter));
    assert_eq!(wait(&[("grpc-retry-pushback-ms", "-1")]), Err(Suppressed::RetryAfter));
    // A date that has passed, and a word nobody understands.
    assert!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]).unwrap() <= Duration::from_millis(25));
    assert!(wait(&[("retry-after", "soon")]).unwrap() <= Duration::from_millis(25));
}
