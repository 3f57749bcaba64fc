//! Tables of what each value accepts.

use super::*;

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
