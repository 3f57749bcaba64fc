//! What a limit counts apart.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::decode::{member_error, nearest, quoted};
use crate::manifest::value::HeaderName;
use crate::model::{self, PathTemplate};

/// One part of a key. Requests that lack it have an empty value, and are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawKeyPart", into = "RawKeyPart")]
pub enum KeyPart {
    Identity,
    Namespace,
    Address { trusted_hops: u8 },
    Header(HeaderName),
    Path(Vec<String>),
    Method,
    GrpcMethod,
}

impl KeyPart {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Namespace => "Namespace",
            Self::Address { .. } => "Address",
            Self::Header(_) => "Header",
            Self::Path(_) => "Path",
            Self::Method => "Method",
            Self::GrpcMethod => "GrpcMethod",
        }
    }

    pub(super) fn described(&self) -> String {
        match self {
            Self::Header(name) => format!("Header {}", name.as_str()),
            _ => self.word().to_owned(),
        }
    }

    /// Whether only a request has it.
    pub(super) fn is_http(&self) -> bool {
        match self {
            Self::Identity | Self::Namespace => false,
            Self::Address { trusted_hops } => *trusted_hops > 0,
            Self::Header(_) | Self::Path(_) | Self::Method | Self::GrpcMethod => true,
        }
    }
}

impl From<&KeyPart> for model::KeyPart {
    fn from(part: &KeyPart) -> Self {
        match part {
            KeyPart::Identity => Self::Identity,
            KeyPart::Namespace => Self::Namespace,
            KeyPart::Address { trusted_hops } => Self::Address { trusted_hops: *trusted_hops },
            KeyPart::Header(name) => Self::Header(
                http::HeaderName::from_bytes(name.as_str().as_bytes())
                    .expect("a manifest's header name is a token"),
            ),
            KeyPart::Path(templates) => {
                let template = |text: &String| PathTemplate::new(text).expect("checked when it was read");
                Self::Path(templates.iter().map(template).collect())
            }
            KeyPart::Method => Self::Method,
            KeyPart::GrpcMethod => Self::GrpcMethod,
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "LimitKeyPart")]
struct RawKeyPart {
    /// Identity (the caller's SPIFFE id), Namespace (the caller's), Address (the client's, an IPv6 one by its /64), Header, Path (the first of `templates` that
    /// fits), Method or GrpcMethod.
    by: String,
    /// Of the header, where `by` is Header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<HeaderName>,
    /// Where `by` is Address: how many proxies before this workload append to `x-forwarded-for` what they see; the address that many from the right counts.
    /// Default 0, the address the connection comes from. At most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trusted_hops: Option<u8>,
    /// Where `by` is Path: `{name}` and `{*}` stand for one segment, `{**}` at the end for the rest; 1 to 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    templates: Vec<String>,
}

const WORDS: [&str; 7] = ["Identity", "Namespace", "Address", "Header", "Path", "Method", "GrpcMethod"];

impl TryFrom<RawKeyPart> for KeyPart {
    type Error = String;

    fn try_from(raw: RawKeyPart) -> Result<KeyPart, String> {
        if raw.by != "Header" && raw.name.is_some() {
            return Err(member_error("name", "is for Header"));
        }
        if raw.by != "Address" && raw.trusted_hops.is_some() {
            return Err(member_error("trustedHops", "is for Address"));
        }
        if raw.by != "Path" && !raw.templates.is_empty() {
            return Err(member_error("templates", "is for Path"));
        }
        Ok(match &*raw.by {
            "Identity" => Self::Identity,
            "Namespace" => Self::Namespace,
            "Address" => match raw.trusted_hops.unwrap_or_default() {
                trusted_hops @ 0..=16 => Self::Address { trusted_hops },
                more => return Err(member_error("trustedHops", format!("{more} is more than 16"))),
            },
            "Header" => {
                Self::Header(raw.name.ok_or_else(|| member_error("name", "is required, and missing"))?)
            }
            "Path" => {
                if !(1..=64).contains(&raw.templates.len()) {
                    return Err(member_error("templates", "1 to 64 of them are required"));
                }
                for text in &raw.templates {
                    let checked = if text.len() > 1024 {
                        Err("it has more than 1024 characters".to_owned())
                    } else {
                        PathTemplate::new(text).map(drop)
                    };
                    let told = |why| format!("{} is not a path template: {why}", quoted(text));
                    checked.map_err(|why| member_error("templates", told(why)))?;
                }
                Self::Path(raw.templates)
            }
            "Method" => Self::Method,
            "GrpcMethod" => Self::GrpcMethod,
            other => {
                let meant =
                    nearest(other, WORDS).map(|word| format!("; did you mean {word}?")).unwrap_or_default();
                let text = format!("{other:?} is none of {}{meant}", WORDS.join(", "));
                return Err(member_error("by", text));
            }
        })
    }
}

impl From<KeyPart> for RawKeyPart {
    fn from(part: KeyPart) -> RawKeyPart {
        let raw =
            RawKeyPart { by: part.word().to_owned(), name: None, trusted_hops: None, templates: Vec::new() };
        match part {
            KeyPart::Header(name) => RawKeyPart { name: Some(name), ..raw },
            KeyPart::Address { trusted_hops: 0 } => raw,
            KeyPart::Address { trusted_hops } => RawKeyPart { trusted_hops: Some(trusted_hops), ..raw },
            KeyPart::Path(templates) => RawKeyPart { templates, ..raw },
            KeyPart::Identity | KeyPart::Namespace | KeyPart::Method | KeyPart::GrpcMethod => raw,
        }
    }
}
