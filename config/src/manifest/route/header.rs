//! How headers are compared and changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::decode::{member_error, quoted};
use crate::manifest::path::FieldPath;
use crate::manifest::value::{HeaderName, HeaderValue, is_field_value, pattern};
use crate::model::Pattern;

/// How a header or query value is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Exact(String),
    Regex(Pattern),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawHeaderMatch", into = "RawHeaderMatch")]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
}

/// Changes to the header fields of a message (Gateway API `HTTPHeaderFilter`). No name stands in two of the lists,
/// since the API leaves their order open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// Replaces all fields of the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HeaderField>,
    /// Adds a field beside those that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HeaderField>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderField {
    pub name: HeaderName,
    pub value: HeaderValue,
}

impl Check for HeaderModifier {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        for (list, len) in [("set", self.set.len()), ("add", self.add.len()), ("remove", self.remove.len())] {
            findings.at_most(&at.key(list), len, 16);
        }
        let mut seen: Vec<(&HeaderName, &str)> = Vec::new();
        let set = self.set.iter().enumerate().map(|(i, field)| (&field.name, "set", i));
        let add = self.add.iter().enumerate().map(|(i, field)| (&field.name, "add", i));
        let remove = self.remove.iter().enumerate().map(|(i, name)| (name, "remove", i));
        for (name, list, i) in set.chain(add).chain(remove) {
            match seen.iter().find(|(earlier, _)| *earlier == name) {
                Some((_, earlier)) => findings.error(
                    at.key(list).index(i),
                    format!("{name} is already in `{earlier}`; give each header once"),
                ),
                None => seen.push((name, list)),
            }
        }
    }
}

/// Exact: byte by byte. RegularExpression: as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ValueMatchType {
    #[default]
    Exact,
    RegularExpression,
}

pub fn value_match(kind: ValueMatchType, value: String) -> Result<ValueMatch, String> {
    match kind {
        ValueMatchType::Exact => Ok(ValueMatch::Exact(value)),
        ValueMatchType::RegularExpression => {
            pattern(&value).map(ValueMatch::Regex).map_err(|error| member_error("value", error))
        }
    }
}

impl ValueMatch {
    pub fn into_raw(self) -> (ValueMatchType, String) {
        match self {
            ValueMatch::Exact(value) => (ValueMatchType::Exact, value),
            ValueMatch::Regex(pattern) => (ValueMatchType::RegularExpression, pattern.as_str().to_owned()),
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HeaderMatch")]
struct RawHeaderMatch {
    #[serde(rename = "type", default)]
    kind: ValueMatchType,
    name: HeaderName,
    #[schemars(length(min = 1, max = 4096))]
    value: String,
}

impl TryFrom<RawHeaderMatch> for HeaderMatch {
    type Error = String;

    fn try_from(raw: RawHeaderMatch) -> Result<HeaderMatch, String> {
        if raw.value.is_empty() || raw.value.len() > 4096 || !is_field_value(&raw.value) {
            let text = format!("{} is not {}", quoted(&raw.value), HeaderValue::ACCEPTED);
            return Err(member_error("value", text));
        }
        Ok(HeaderMatch { name: raw.name, value: value_match(raw.kind, raw.value)? })
    }
}

impl From<HeaderMatch> for RawHeaderMatch {
    fn from(typed: HeaderMatch) -> RawHeaderMatch {
        let (kind, value) = typed.value.into_raw();
        RawHeaderMatch { kind, name: typed.name, value }
    }
}
