//! Numbers within bounds.

use std::fmt;

use super::{Rejected, number_value};

number_value! {
    /// A TCP port.
    Port(u16), "a port (1 to 65535)", 1..=65535
}

number_value! {
    /// A backend's share of its rule's requests, relative to the others; 0 sends it none.
    Weight(u32), "a weight (0 to 1000000)", 0..=1_000_000
}

number_value! {
    /// A whole percentage.
    Percent(u8), "a percentage (0 to 100)", 0..=100
}

number_value! {
    /// How often a request is sent again after its first attempt.
    RetryAttempts(u8), "a number of attempts (0 to 10)", 0..=10
}

number_value! {
    /// The status of a response that may be asked for again.
    RetryStatus(u16), "the status of an error (400 to 599)", 400..=599
}

number_value! {
    /// How many may be under way at a time.
    Cap(u32), "a cap (1 to 1000000)", 1..=1_000_000
}

number_value! {
    /// How many failures in a row mean something; 0 for no number of them.
    Consecutive(u8), "a number of failures (0 to 100)", 0..=100
}

number_value! {
    /// How many calls a share is worth computing of.
    MinRequests(u32), "a number of requests (1 to 10000)", 1..=10_000
}

number_value! {
    /// A rate, per second.
    PerSecond(u32), "a number per second (0 to 100000)", 0..=100_000
}

number_value! {
    /// What a limit counts up to.
    LimitAmount(u32), "a number (1 to 1000000000)", 1..=1_000_000_000
}

number_value! {
    /// How many keys a limit remembers.
    MaxKeys(u32), "a number of keys (1 to 1000000)", 1..=1_000_000
}

number_value! {
    /// For how long a browser may keep the answer to a preflight; seconds.
    CorsMaxAge(u32), "a number of seconds (1 to 2147483647)", 1..=2_147_483_647
}

impl Default for CorsMaxAge {
    /// 5 s, as in the Gateway API.
    fn default() -> CorsMaxAge {
        CorsMaxAge(5)
    }
}

/// The status of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RedirectStatus(u16);

impl RedirectStatus {
    pub const ACCEPTED: &'static str = "the status of a redirect (301, 302, 303, 307 or 308)";

    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for RedirectStatus {
    /// 302, as in the Gateway API.
    fn default() -> RedirectStatus {
        RedirectStatus(302)
    }
}

impl serde::Serialize for RedirectStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for RedirectStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl serde::de::Visitor<'_> for Number {
            type Value = RedirectStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(RedirectStatus::ACCEPTED)
            }

            fn visit_u64<E: serde::de::Error>(self, found: u64) -> Result<RedirectStatus, E> {
                match found {
                    301 | 302 | 303 | 307 | 308 => Ok(RedirectStatus(found as u16)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Unsigned(found), &self)),
                }
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl schemars::JsonSchema for RedirectStatus {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RedirectStatus".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "enum": [301, 302, 303, 307, 308], "title": RedirectStatus::ACCEPTED })
    }
}

impl Port {
    /// Port 80, HTTP's own (RFC 9110 section 4.2.1).
    pub const HTTP: Port = Port(80);
}

impl TryFrom<u16> for Port {
    type Error = Rejected;

    fn try_from(port: u16) -> Result<Port, Rejected> {
        Port::try_from(u64::from(port))
    }
}

impl Default for Weight {
    /// 1, as in the Gateway API.
    fn default() -> Weight {
        Weight(1)
    }
}

impl Weight {
    pub const ZERO: Weight = Weight(0);
}

/// A percentage of events to record, to four decimals: kept in millionths, so that it compares and hashes exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sampling {
    per_million: u32,
}

impl Sampling {
    pub const ACCEPTED: &'static str = "a percentage (0 to 100, at most four decimals)";
    pub const NONE: Sampling = Sampling { per_million: 0 };

    /// Of a million events, how many are recorded; 0 to 1,000,000.
    pub const fn per_million(self) -> u32 {
        self.per_million
    }

    fn percent(self) -> f64 {
        f64::from(self.per_million) / 10_000.0
    }
}

impl TryFrom<f64> for Sampling {
    type Error = Rejected;

    fn try_from(percent: f64) -> Result<Sampling, Rejected> {
        let scaled = percent * 10_000.0;
        if (0.0..=1_000_000.0).contains(&scaled) && (scaled - scaled.round()).abs() < 1e-6 {
            // In range by the check above, so the conversion loses nothing.
            return Ok(Sampling { per_million: scaled.round() as u32 });
        }
        Err(Rejected::number(percent, Sampling::ACCEPTED))
    }
}

impl serde::Serialize for Sampling {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.per_million % 10_000 {
            0 => (self.per_million / 10_000).serialize(serializer),
            _ => self.percent().serialize(serializer),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Sampling {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl serde::de::Visitor<'_> for Number {
            type Value = Sampling;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Sampling::ACCEPTED)
            }

            fn visit_f64<E: serde::de::Error>(self, found: f64) -> Result<Sampling, E> {
                Sampling::try_from(found).map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, found: u64) -> Result<Sampling, E> {
                self.visit_f64(found as f64)
            }

            fn visit_i64<E: serde::de::Error>(self, found: i64) -> Result<Sampling, E> {
                self.visit_f64(found as f64)
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl schemars::JsonSchema for Sampling {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sampling".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.0001, "title": Sampling::ACCEPTED,
        })
    }
}
