//! Fields that are part of a schema without having a value here.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, Visitor};
use serde::{Serialize, Serializer};

/// A field that real objects carry and that has no meaning to a mesh: status, book-keeping, what kube-proxy does.
/// Anything is accepted and nothing is kept. Each use says why at its field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ignored, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Ignored)
    }
}

impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl JsonSchema for Ignored {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Ignored".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The mark is for those who write pages from schemas.
        json_schema!({ "description": "accepted; has no meaning to the mesh", "x-outrigger-ignored": true })
    }
}

/// A field whose behaviour this version does not have: refused wherever it is set. Has no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotYet {}

/// What is said about such a field; also of enum values that are known and have no behaviour yet.
pub const NOT_YET: &str = "is not available yet";

impl<'de> Deserialize<'de> for NotYet {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<NotYet, D::Error> {
        Err(de::Error::custom(NOT_YET))
    }
}

impl Serialize for NotYet {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match *self {}
    }
}

impl JsonSchema for NotYet {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NotYet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "not available yet", "not": {} })
    }
}

/// A number or a text where Kubernetes accepts both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IntOrString, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a name")
            }

            fn visit_i64<E: de::Error>(self, found: i64) -> Result<IntOrString, E> {
                i32::try_from(found)
                    .map(IntOrString::Int)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(found), &self))
            }

            fn visit_u64<E: de::Error>(self, found: u64) -> Result<IntOrString, E> {
                i32::try_from(found)
                    .map(IntOrString::Int)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(found), &self))
            }

            fn visit_str<E: de::Error>(self, found: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(found.to_owned()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Serialize for IntOrString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            IntOrString::Int(n) => serializer.serialize_i32(*n),
            IntOrString::String(text) => serializer.serialize_str(text),
        }
    }
}

impl JsonSchema for IntOrString {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "IntOrString".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"] })
    }
}
