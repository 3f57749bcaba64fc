//! The scalar values of manifests: a value of one of these types is one the rest of the mesh need not check again.
//!
//! Each type says in one phrase what it accepts; that phrase ends every message about a value that does not fit, and
//! describes the value in the JSON Schema.

use std::fmt;

use super::decode::quoted;

mod access;
mod address;
mod duration;
mod http;
mod name;
mod number;
mod timestamp;

pub use access::{AccountName, Cidr, IdentityGlob, RuleHost};
pub use address::{HostPort, Ip, TrustDomain};
pub use duration::Duration;
pub use http::{
    CookieName, GrpcMethodName, GrpcServiceName, HeaderName, HeaderValue, Hostname, HttpMethod, Origin,
    PathReplacement, PreciseHostname, QueryName, RequestPath, is_field_value, pattern,
};
pub use name::{AnnotationKey, AppProtocol, EnvName, Label, LabelKey, LabelValue, Name};
pub use number::{
    Cap, Consecutive, CorsMaxAge, LimitAmount, MaxKeys, MinRequests, PerSecond, Percent, Port,
    RedirectStatus, RetryAttempts, RetryStatus, Sampling, Weight,
};
pub use timestamp::Timestamp;

/// A text or number that a type of this module does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    found: String,
    accepted: &'static str,
    why: String,
}

impl Rejected {
    fn text(found: &str, accepted: &'static str, why: String) -> Rejected {
        Rejected { found: quoted(found), accepted, why }
    }

    pub(super) fn number(found: impl fmt::Display, accepted: &'static str) -> Rejected {
        Rejected { found: found.to_string(), accepted, why: String::new() }
    }

    /// For a text that must not be shown.
    pub(super) fn hidden(accepted: &'static str, why: String) -> Rejected {
        Rejected { found: "this".to_owned(), accepted, why }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not {}", self.found, self.accepted)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejected {}

/// What a check of a text says: fine, or why not; an empty reason when the accepted form says it all.
type Checked = Result<(), String>;

fn fits(condition: bool) -> Checked {
    if condition { Ok(()) } else { Err(String::new()) }
}

/// A checked text: cheap to clone, compares and hashes as the text.
macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident, $accepted:literal, $schema:tt, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// What is accepted, in words.
            pub const ACCEPTED: &'static str = $accepted;

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text itself.
            pub fn shared(&self) -> std::sync::Arc<str> {
                self.0.clone()
            }
        }

        impl TryFrom<&str> for $name {
            type Error = crate::manifest::value::Rejected;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                let check: fn(&str) -> crate::manifest::value::Checked = $check;
                match check(text) {
                    Ok(()) => Ok($name(text.into())),
                    Err(why) => Err(crate::manifest::value::Rejected::text(text, $accepted, why)),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::manifest::value::Rejected;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $name::try_from(text)
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&*self.0, f)
            }
        }

        crate::manifest::value::text_serde!($name, $accepted, $schema);
    };
}

/// Serde and schema for a type that is read from a text by `TryFrom<&str>` and written by `Display`.
macro_rules! text_serde {
    ($name:ident, $accepted:expr, $schema:tt) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($accepted)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::try_from(text).map_err(E::custom)
                    }

                    fn visit_bool<E: serde::de::Error>(self, found: bool) -> Result<$name, E> {
                        Err(E::custom(crate::manifest::value::unquoted(&found, $accepted, |t| {
                            $name::try_from(t).is_ok()
                        })))
                    }

                    fn visit_u64<E: serde::de::Error>(self, found: u64) -> Result<$name, E> {
                        Err(E::custom(crate::manifest::value::unquoted(&found, $accepted, |t| {
                            $name::try_from(t).is_ok()
                        })))
                    }

                    fn visit_i64<E: serde::de::Error>(self, found: i64) -> Result<$name, E> {
                        Err(E::custom(crate::manifest::value::unquoted(&found, $accepted, |t| {
                            $name::try_from(t).is_ok()
                        })))
                    }

                    fn visit_f64<E: serde::de::Error>(self, found: f64) -> Result<$name, E> {
                        Err(E::custom(crate::manifest::value::unquoted(&found, $accepted, |t| {
                            $name::try_from(t).is_ok()
                        })))
                    }
                }

                deserializer.deserialize_any(Text)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut schema = schemars::json_schema!($schema);
                schema.insert("type".to_owned(), "string".into());
                schema.insert("title".to_owned(), $accepted.into());
                schema
            }
        }
    };
}

/// The message for a bare number or boolean where a text is wanted.
pub(super) fn unquoted(found: &dyn fmt::Display, accepted: &str, fits: fn(&str) -> bool) -> String {
    if fits(&found.to_string()) {
        return format!("{found} is not a text; put it in quotes to make it one");
    }
    format!("{found} is not {accepted}")
}

/// A whole number within bounds.
macro_rules! number_value {
    ($(#[$doc:meta])* $name:ident($inner:ty), $accepted:literal, $range:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// What is accepted, in words.
            pub const ACCEPTED: &'static str = $accepted;

            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = crate::manifest::value::Rejected;

            fn try_from(found: u64) -> Result<Self, Self::Error> {
                match <$inner>::try_from(found) {
                    Ok(value) if ($range).contains(&value) => Ok($name(value)),
                    _ => Err(crate::manifest::value::Rejected::number(found, $accepted)),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Number;

                impl serde::de::Visitor<'_> for Number {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($accepted)
                    }

                    fn visit_u64<E: serde::de::Error>(self, found: u64) -> Result<$name, E> {
                        $name::try_from(found).map_err(E::custom)
                    }

                    fn visit_str<E: serde::de::Error>(self, found: &str) -> Result<$name, E> {
                        match found.parse::<u64>().map($name::try_from) {
                            Ok(Ok(_)) => Err(E::custom(format!("{found:?} is a text; write it without quotes"))),
                            _ => Err(E::invalid_value(serde::de::Unexpected::Str(found), &self)),
                        }
                    }

                    fn visit_i64<E: serde::de::Error>(self, found: i64) -> Result<$name, E> {
                        match u64::try_from(found) {
                            Ok(found) => self.visit_u64(found),
                            Err(_) => Err(E::invalid_value(serde::de::Unexpected::Signed(found), &self)),
                        }
                    }
                }

                deserializer.deserialize_any(Number)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "integer",
                    "minimum": ($range).start(),
                    "maximum": ($range).end(),
                    "title": $accepted,
                })
            }
        }
    };
}

use text_value;
pub(super) use {number_value, text_serde};

#[cfg(test)]
mod tests;
