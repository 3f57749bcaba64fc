use http::header::CONTENT_TYPE;

use super::*;

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
}

fn call(timeout: &str) -> HeaderMap {
    headers(&[(CONTENT_TYPE, "application/grpc"), (GRPC_TIMEOUT, timeout)])
}

fn of(headers: &HeaderMap, begun: Instant, limits: Timeouts) -> Deadline {
    Deadline::of(headers, Known::of(headers), begun, limits)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| value.to_str().expect("text").to_owned())
}

#[test]
fn the_time_a_call_has_is_read_in_every_unit() {
    for (text, limit) in [
        ("1H", Some(ms(3_600_000))),
        ("2M", Some(ms(120_000))),
        ("3S", Some(ms(3_000))),
        ("99999999m", Some(ms(99_999_999))),
        ("1500u", Some(Duration::from_micros(1_500))),
        ("7n", Some(Duration::from_nanos(7))),
        ("0m", Some(ms(0))),
        ("99999999H", None),  // Years are no limit.
        ("999999999m", None), // At most 8 digits.
        ("m", None),
        ("5", None),
        ("-5m", None),
        ("5 m", None),
        ("5x", None),
        ("", None),
    ] {
        assert_eq!(parse_grpc(&text.parse().expect("a value")), limit, "{text:?}");
    }
}

#[test]
fn what_is_written_is_read_as_the_same_and_never_more() {
    for nanos in (0..62).map(|bits| 1u64 << bits) {
        let left = Duration::from_nanos(nanos).min(LONGEST);
        let read = parse_grpc(&grpc(left)).expect("it is valid");
        assert!(read <= left, "{left:?} became {read:?}");
        assert!(left - read <= left / 10_000 + Duration::from_micros(1), "{left:?} became {read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_shortest_limit_holds_and_says_whose_it_is() {
    let begun = Instant::now();
    let limits = Timeouts { request: Some(ms(500)), stream: Some(ms(900)), ..Timeouts::default() };
    let of = |headers: HeaderMap| of(&headers, begun, limits);
    let reason = |bound: Option<Bound>| {
        bound.map(|bound| ((bound.at - begun).as_millis(), bound.failure("response").reason))
    };
    let none = of(HeaderMap::new());
    assert_eq!(reason(none.of_response()), Some((500, Reason::RequestTimeout)));
    assert_eq!(reason(none.of_body(true)), Some((900, Reason::StreamTimeout)));
    assert_eq!(reason(none.of_body(false)), Some((500, Reason::RequestTimeout)));
    let told = of(headers(&[(TIMEOUT, "200")]));
    assert_eq!(reason(told.of_response()), Some((200, Reason::DeadlineExceeded)));
    assert_eq!(reason(told.of_body(true)), Some((900, Reason::StreamTimeout)), "a stream goes on");
    let called = of(call("300m"));
    assert_eq!(reason(called.of_response()), Some((300, Reason::DeadlineExceeded)));
    assert_eq!(
        reason(called.of_body(true)),
        Some((300, Reason::DeadlineExceeded)),
        "a call is one, stream or not"
    );
    let longer = of(headers(&[(TIMEOUT, "5000")]));
    assert_eq!(
        reason(longer.of_response()),
        Some((500, Reason::RequestTimeout)),
        "no caller makes it longer"
    );
    for nonsense in ["", "-1", "soon", "1e9", "99999999999"] {
        assert_eq!(
            reason(of(headers(&[(TIMEOUT, nonsense)])).of_response()),
            Some((500, Reason::RequestTimeout))
        );
    }
    let plain = of(headers(&[(GRPC_TIMEOUT, "1m")]));
    assert_eq!(reason(plain.of_response()), Some((500, Reason::RequestTimeout)), "it is not gRPC");
}

#[tokio::test(start_paused = true)]
async fn the_next_hop_is_told_what_is_left() {
    let begun = Instant::now();
    let write = |received: HeaderMap, limits: Timeouts, later: u64, attempt: Option<Duration>| {
        let mut headers = received;
        let written = Written::default();
        let known = Known::of(&headers);
        let deadline = Deadline::of(&headers, known, begun, limits);
        let told = deadline.write(&mut headers, known, begun + ms(later), attempt, &written);
        if let Some(told) = told {
            assert!(!headers.contains_key(TIMEOUT), "it would be there twice");
            let (name, value) = (TIMEOUT, told.0.milliseconds);
            let line = String::from_utf8(told.line().to_vec()).expect("text").to_ascii_lowercase();
            assert_eq!(line, format!("{name}: {value}\r\n"));
            told.insert(&mut headers);
        }
        (text(&headers, &TIMEOUT), text(&headers, &GRPC_TIMEOUT))
    };
    let (no, limits) = (Timeouts::default(), Timeouts { request: Some(ms(500)), ..Timeouts::default() });
    assert_eq!(
        write(HeaderMap::new(), no, 0, None),
        (None, None),
        "nothing is said where nothing is limited"
    );
    assert_eq!(write(HeaderMap::new(), limits, 120, None), (Some("380".into()), None));
    assert_eq!(write(HeaderMap::new(), limits, 120, Some(ms(100))), (Some("100".into()), None));
    assert_eq!(write(HeaderMap::new(), limits, 450, Some(ms(100))), (Some("50".into()), None));
    assert_eq!(write(headers(&[(TIMEOUT, "200")]), limits, 120, None), (Some("80".into()), None));
    assert_eq!(write(call("1S"), no, 250, None), (Some("750".into()), Some("750000u".into())));
    assert_eq!(
        write(call("1S"), limits, 250, None),
        (Some("250".into()), Some("750000u".into())),
        "the answer has to begin earlier than the call has to end"
    );
    assert_eq!(write(call("1S"), no, 2_000, None), (Some("0".into()), Some("0u".into())));
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_in_the_last_millisecond() {
    let begun = Instant::now();
    let deadline = of(&headers(&[(TIMEOUT, "10")]), begun, Timeouts::default());
    let bound = deadline.of_response().expect("a limit");
    assert!(!bound.forbids(begun + ms(9)));
    assert!(bound.forbids(begun + Duration::from_micros(9_001)));
    assert!(bound.forbids(begun + ms(50)));
}
