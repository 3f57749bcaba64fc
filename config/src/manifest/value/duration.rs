//! Durations as the Gateway API writes them (GEP-2257).

use std::fmt;

use super::{Rejected, text_serde};

/// A duration from 0 to 99999 h, in whole milliseconds: `10s`, `1h30m`, `500ms`. Written in its shortest form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

impl Duration {
    pub const ACCEPTED: &'static str =
        "a duration such as 10s, 500ms or 1h30m (up to four whole numbers, each with h, m, s or ms)";

    pub const fn from_secs(seconds: u32) -> Duration {
        Duration(std::time::Duration::from_secs(seconds as u64))
    }

    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> std::time::Duration {
        duration.0
    }
}

impl TryFrom<&str> for Duration {
    type Error = Rejected;

    fn try_from(text: &str) -> Result<Duration, Rejected> {
        milliseconds(text)
            .map(|ms| Duration(std::time::Duration::from_millis(ms)))
            .ok_or_else(|| Rejected::text(text, Duration::ACCEPTED, String::new()))
    }
}

/// Shortest form, with every unit at most once and in falling order, so that it is read back by the same rule.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in UNITS {
            let count = rest / u128::from(length);
            rest %= u128::from(length);
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// 99999h59m59s999ms, the most that can be written with each unit once.
const MAX_MS: u64 = 99_999 * 3_600_000 + 3_599_999;

/// `^([0-9]{1,5}(h|m|s|ms)){1,4}$`
fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return None;
        }
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, length) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        sum += count * length;
        rest = &rest[letters..];
        if rest.is_empty() {
            return (sum <= MAX_MS).then_some(sum);
        }
    }
    None
}

text_serde!(Duration, Duration::ACCEPTED, { "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" });
