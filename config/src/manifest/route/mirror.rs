//! Copies of requests whose answers are thrown away.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::decode::{inside, member_error};
use crate::manifest::value::{Percent, Weight};

use super::backend::{BackendRef, RawReference};

/// A copy of the request whose answer is thrown away (Gateway API `HTTPRequestMirrorFilter`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawMirror", into = "RawMirror")]
pub struct Mirror {
    pub backend: BackendRef,
    pub share: MirrorShare,
}

/// Of how many requests a copy is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MirrorShare {
    All,
    Percent(Percent),
    /// At most one; the denominator is at least 1.
    Fraction {
        numerator: u32,
        denominator: u32,
    },
}

impl MirrorShare {
    /// As numerator and denominator; the denominator is never 0 and the numerator never larger.
    pub fn as_fraction(self) -> (u32, u32) {
        match self {
            MirrorShare::All => (1, 1),
            MirrorShare::Percent(percent) => (u32::from(percent.get()), 100),
            MirrorShare::Fraction { numerator, denominator } => (numerator, denominator),
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Mirror")]
struct RawMirror {
    backend_ref: RawReference,
    /// Of the requests; default 100. Excludes `fraction`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<Percent>,
    /// Excludes `percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fraction: Option<RawFraction>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Fraction")]
struct RawFraction {
    numerator: u32,
    /// Default 100.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1))]
    denominator: u32,
}

fn hundred() -> u32 {
    100
}

impl TryFrom<RawMirror> for Mirror {
    type Error = String;

    fn try_from(raw: RawMirror) -> Result<Mirror, String> {
        let share = match (raw.percent, raw.fraction) {
            (None, None) => MirrorShare::All,
            (Some(percent), None) => MirrorShare::Percent(percent),
            (None, Some(RawFraction { denominator: 0, .. })) => {
                return Err(member_error("fraction.denominator", "0 is not a denominator (1 or more)"));
            }
            (None, Some(RawFraction { numerator, denominator })) if numerator > denominator => {
                let text = format!("{numerator} is more than the denominator, {denominator}");
                return Err(member_error("fraction.numerator", text));
            }
            (None, Some(RawFraction { numerator, denominator })) => {
                MirrorShare::Fraction { numerator, denominator }
            }
            (Some(_), Some(_)) => {
                return Err(member_error("fraction", "cannot be set together with `percent`"));
            }
        };
        let backend =
            raw.backend_ref.typed(Weight::default()).map_err(|error| inside("backendRef", &error))?;
        Ok(Mirror { backend, share })
    }
}

impl From<Mirror> for RawMirror {
    fn from(typed: Mirror) -> RawMirror {
        let (percent, fraction) = match typed.share {
            MirrorShare::All => (None, None),
            MirrorShare::Percent(percent) => (Some(percent), None),
            MirrorShare::Fraction { numerator, denominator } => {
                (None, Some(RawFraction { numerator, denominator }))
            }
        };
        RawMirror { backend_ref: typed.backend.into(), percent, fraction }
    }
}
