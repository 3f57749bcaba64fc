//! A misfit on its way up from the value where it was found.

use std::fmt;

use serde::de::{self, Unexpected};

use crate::diagnostic::Position;
use crate::manifest::path::{FieldPath, Segment, find};
use crate::manifest::tree::Node;

use super::Misfit;
use super::words::{nearest, one_of, quoted};

/// The text of an error about a member of the value being read, for conversions (`TryFrom`) that find one.
/// serde hands errors of conversions on as text alone, so the member's path travels in front of it.
pub fn member_error(path: &str, message: impl fmt::Display) -> String {
    format!("{MEMBER_MARK}{path}{MEMBER_MARK}{message}")
}

/// The same error, seen from what holds the value under `member`.
pub fn inside(member: &str, error: &str) -> String {
    match error.strip_prefix(MEMBER_MARK).and_then(|rest| rest.split_once(MEMBER_MARK)) {
        Some((path, message)) if path.starts_with('[') => member_error(&format!("{member}{path}"), message),
        Some((path, message)) => member_error(&format!("{member}.{path}"), message),
        None => member_error(member, error),
    }
}

const MEMBER_MARK: char = '\u{1f}';

#[derive(Debug)]
pub struct Error {
    /// From the innermost outwards.
    path: Vec<Segment>,
    /// Set for a key that should not be there; everything else is found by its path.
    pub key_at: Option<Position>,
    /// The known field that a misspelt one was taken for.
    pub meant: Option<&'static str>,
    message: String,
}

impl Error {
    pub fn new(message: impl Into<String>) -> Error {
        Error { path: Vec::new(), key_at: None, meant: None, message: message.into() }
    }

    pub fn inside(mut self, segment: Segment) -> Error {
        self.path.push(segment);
        self
    }

    pub fn into_misfit(mut self, root: &Node) -> Misfit {
        self.path.reverse();
        let path = FieldPath::from(self.path);
        Misfit { at: self.key_at.or_else(|| find(root, &path)), path, message: self.message }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        let message = message.to_string();
        if let Some((member, text)) =
            message.strip_prefix(MEMBER_MARK).and_then(|m| m.split_once(MEMBER_MARK))
        {
            let mut error = Error::new(text);
            error.path = FieldPath::parse(member).segments().iter().rev().cloned().collect();
            return error;
        }
        Error::new(message)
    }

    fn invalid_type(found: Unexpected<'_>, accepted: &dyn de::Expected) -> Error {
        Error::new(misfit_text(&described(found), &accepted.to_string()))
    }

    fn invalid_value(found: Unexpected<'_>, accepted: &dyn de::Expected) -> Error {
        Error::invalid_type(found, accepted)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Error {
        let nearest = nearest(variant, expected.iter().copied());
        let meant = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        Error::new(format!("{variant:?} is not {}{meant}", one_of(expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Error {
        let meant = nearest(field, expected.iter().copied());
        let mut error = Error::new(match meant {
            Some(name) => format!("unknown field; did you mean `{name}`?"),
            None if expected.is_empty() => "unknown field; none is known here".to_owned(),
            None => format!("unknown field; known here: {}", expected.join(", ")),
        });
        error.meant = meant;
        error
    }

    fn missing_field(field: &'static str) -> Error {
        let mut error = Error::new("is required, and missing");
        error.path.push(Segment::Key(field.to_owned()));
        error
    }
}

fn misfit_text(found: &str, accepted: &str) -> String {
    let accepted = match accepted {
        "a boolean" => "true or false".to_owned(),
        "u8" => "a whole number (0 to 255)".to_owned(),
        "u16" => "a whole number (0 to 65535)".to_owned(),
        "u32" => "a whole number (0 to 4294967295)".to_owned(),
        "u64" | "usize" => "a whole number (0 or more)".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        text if text.starts_with("struct ") => "a mapping".to_owned(),
        text => text.to_owned(),
    };
    format!("{found} is not {accepted}")
}

fn described(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Unsigned(n) => n.to_string(),
        Unexpected::Signed(n) => n.to_string(),
        Unexpected::Float(n) => n.to_string(),
        Unexpected::Str(text) => quoted(text),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Other(text) => text.to_owned(),
        other => other.to_string(),
    }
}
