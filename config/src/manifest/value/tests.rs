//! Tables of what each value accepts.

use super::*;
use proptest::prelude::*;

fn table<T>(rows: &[(&str, bool)])
where
    T: for<'a> TryFrom<&'a str, Error = Rejected> + fmt::Display,
{
    for (text, want) in rows {
        let read = T::try_from(*text);
        assert_eq!(read.is_ok(), *want, "{text:?}: {:?}", read.err());
    }
}

#[test]
fn durations_follow_gep_2257() {
    for (text, ms) in [
        ("0s", Some(0)),
        ("10s", Some(10_000)),
        ("500ms", Some(500)),
        ("1h30m", Some(5_400_000)),
        ("1h2m3s4ms", Some(3_723_004)),
        ("99999h", Some(99_999 * 3_600_000)),
        ("1s1s", Some(2_000)), // the grammar does not ask for order or once each
        ("", None),
        ("10", None),
        ("s", None),
        ("1.5s", None),
        ("-1s", None),
        ("1d", None),
        ("100000s", None),    // five digits
        ("1s1s1s1s1s", None), // four parts
        ("1 s", None),
        ("1µs", None),
        ("99999h99999h", None), // could not be written again
    ] {
        let read = Duration::try_from(text).ok();
        assert_eq!(read.map(|d| d.get().as_millis()), ms, "{text}");
        if let Some(read) = read {
            assert_eq!(Duration::try_from(&*read.to_string()), Ok(read), "{text} written as {read}");
        }
    }
}

#[test]
fn a_server_has_a_host_and_a_port() {
    table::<HostPort>(&[
        ("limits:8081", true),
        ("limits.shop.svc.cluster.local:8081", true),
        ("10.1.2.3:1", true),
        ("[2001:db8::1]:65535", true),
        ("2001:db8::1:80", false), // which part would be the port
        ("limits", false),
        (":8081", false),
        ("limits:0", false),
        ("limits:65536", false),
        ("limits:+1", false),
        ("http://limits:80", false),
        ("a b:80", false),
    ]);
}

#[test]
fn names_follow_rfc_1123() {
    let long = "a".repeat(63);
    let too_long = "a".repeat(64);
    table::<Label>(&[
        ("reviews", true),
        ("1a-b", true),
        (&long, true),
        (&too_long, false),
        ("", false),
        ("-a", false),
        ("a-", false),
        ("a.b", false),
        ("Reviews", false),
        ("a_b", false),
        ("é", false),
    ]);
    let whole = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    table::<Name>(&[
        ("reviews.v1", true),
        (&whole, true),
        (&format!("{whole}d"), false),
        ("a..b", false),
        (".a", false),
        ("a.", false),
        ("a.-b", false),
    ]);
    table::<LabelKey>(&[
        ("app", true),
        ("app.kubernetes.io/name", true),
        ("App_Name.v1", true),
        ("/name", false),
        ("example.com/", false),
        ("a/b/c", false),
        ("Example.com/name", false),
        ("-app", false),
    ]);
    table::<LabelValue>(&[
        ("", true),
        ("v1", true),
        ("A_b.c", true),
        ("a b", false),
        ("-a", false),
        (&too_long, false),
    ]);
    table::<EnvName>(&[
        ("PATH", true),
        ("_a.b-c", true),
        ("1A", false),
        ("", false),
        ("A B", false),
        ("A=B", false),
    ]);
}

#[test]
fn host_names_may_begin_with_a_star() {
    table::<Hostname>(&[
        ("example.com", true),
        ("*.example.com", true),
        ("localhost", true),
        ("*", false),
        ("*.", false),
        ("*example.com", false),
        ("a.*.com", false),
        ("**.com", false),
        ("Example.com", false),
        ("example.com.", false),
        ("example.com:80", false),
        ("10.0.0.1", false),
        ("*.10.0.0.1", false),
        ("::1", false),
        ("", false),
        ("a_b.com", false),
        (&format!("{}.com", "a".repeat(64)), false), // a label of a host name has 63 characters at most
    ]);
    table::<PreciseHostname>(&[("example.com", true), ("*.example.com", false)]);
    assert_eq!(Hostname::try_from("*.example.com").expect("valid").wildcard_suffix(), Some("example.com"));
}

#[test]
fn paths_are_absolute_and_unambiguous() {
    let long = format!("/{}", "a".repeat(1023));
    table::<RequestPath>(&[
        ("/", true),
        ("/api/v1", true),
        ("/api/", true),
        ("/a;b=c,d:e@f", true),
        ("/%C3%A4", true),
        ("/...", true),
        ("/.a/..b", true),
        (&long, true),
        (&format!("{long}a"), false),
        ("", false),
        ("api", false),
        ("//", false),
        ("/a/./b", false),
        ("/a/../b", false),
        ("/..", false),
        ("/a%2fb", false),
        ("/%", false),
        ("/%4", false),
        ("/%é0", false),
        ("/a b", false),
        ("/a?b", false),
        ("/a#b", false),
        ("/ä", false),
    ]);
    table::<PathReplacement>(&[("", true), ("/", true), ("/a", true), ("a", false)]);
}

#[test]
fn header_names_lose_their_case_and_values_keep_it() {
    assert_eq!(HeaderName::try_from("X-Request-ID").expect("valid").as_str(), "x-request-id");
    table::<HeaderName>(&[
        ("a", true),
        ("*", true),
        ("a b", false),
        (":path", false),
        ("", false),
        ("a:", false),
    ]);
    table::<HeaderValue>(&[
        ("a", true),
        ("no-store,  max-age=0", true),
        ("a\tb", true),
        ("", false),
        (" a", false),
        ("a ", false),
        ("a\r\nb: c", false),
        ("ä", false),
        ("\0", false),
    ]);
    table::<QueryName>(&[("page", true), ("filter[x]", false), ("", false)]);
}

#[test]
fn origins_are_those_of_http() {
    table::<Origin>(&[
        ("*", true),
        ("https://example.com", true),
        ("http://localhost:3000", true),
        ("https://*.example.com", true),
        ("https://*", true),
        ("https://Example.com", true),
        ("example.com", false),
        ("ftp://example.com", false),
        ("https://example.com/", false),
        ("https://example.com:0", false),
        ("https://example.com:99999", false),
        ("https://", false),
        ("https://a*.example.com", false),
        ("null", false),
    ]);
}

#[test]
fn grpc_names_are_identifiers() {
    table::<GrpcServiceName>(&[
        ("chat.v1.Chat", true),
        ("Chat", true),
        ("chat..Chat", false),
        ("chat/Chat", false),
        ("1chat", false),
        ("", false),
    ]);
    table::<GrpcMethodName>(&[("Say", true), ("_x1", true), ("a.b", false), ("", false), ("é", false)]);
}

#[test]
fn a_pattern_stands_alone_before_it_is_anchored() {
    for (text, want) in [
        ("/v[0-9]+", true),
        ("a|b", true),
        ("", false),
        ("(", false),
        ("a)(b", false),   // would be two groups once anchored
        ("(?=a)", false),  // no look-around: time would not be linear
        (r"(a)\1", false), // nor back-references
        ("(a{1000}){1000}", false),
        (&*"a".repeat(4097), false),
    ] {
        assert_eq!(pattern(text).is_ok(), want, "{text}");
    }
    let both = pattern("a|b").expect("valid");
    assert!(both.matches("a") && both.matches("b") && !both.matches("ab") && !both.matches("xb"));
}

#[test]
fn times_are_those_of_rfc_3339() {
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2026-10-01T08:30:00Z", Some(1_790_843_400)),
        ("2024-02-29T23:59:59Z", Some(1_709_251_199)),
        ("2026-01-02T03:04:05.678+02:00", Some(1_767_315_845)),
        ("1969-12-31T23:59:59Z", Some(-1)),
        ("2023-02-29T00:00:00Z", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-04-31T00:00:00Z", None),
        ("2026-10-01 08:30:00Z", None),
        ("2026-10-01T24:00:00Z", None),
        ("2026-10-01T08:30:00", None),
        ("2026-10-01T08:30:00.Z", None),
        ("2026-10-01", None),
        ("é026-10-01T08:30:00Z", None),
        ("", None),
    ] {
        let read = Timestamp::try_from(text).ok();
        assert_eq!(read.map(Timestamp::unix_seconds), seconds, "{text}");
    }
}

#[test]
fn a_percentage_of_events_is_exact() {
    for (percent, per_million) in
        [(0.0, Some(0)), (0.0001, Some(1)), (0.5, Some(5_000)), (100.0, Some(1_000_000))]
    {
        assert_eq!(Sampling::try_from(percent).ok().map(Sampling::per_million), per_million, "{percent}");
    }
    for percent in [-0.1, 100.1, 0.000_01, f64::NAN, f64::INFINITY] {
        assert!(Sampling::try_from(percent).is_err(), "{percent}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(ms in 0u64..=99_999 * 3_600_000, seconds in -62_167_219_200i64..253_402_300_800) {
        let (hours, minutes, s, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        let text = format!("{hours}h{minutes}m{s}s{rest}ms");
        let duration = Duration::try_from(&*text).unwrap();
        prop_assert_eq!(u128::from(ms), duration.get().as_millis());
        prop_assert_eq!(Duration::try_from(&*duration.to_string()), Ok(duration));

        let time = Timestamp::from_unix_seconds(seconds);
        prop_assert_eq!(Timestamp::try_from(&*time.to_string()), Ok(time));
    }

    #[test]
    fn no_text_is_too_much(text in ".{0,80}") {
        let _ = (Label::try_from(&*text), Hostname::try_from(&*text), RequestPath::try_from(&*text));
        let _ = (Duration::try_from(&*text), Timestamp::try_from(&*text), Origin::try_from(&*text));
        let _ = (Ip::try_from(&*text), HeaderName::try_from(&*text), pattern(&text));
    }
}
