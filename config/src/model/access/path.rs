//! Paths as rules compare them: in one spelling, whatever the request's.
//!
//! Servers disagree on what a path with an encoded slash, a backslash or `..;` means; whoever calls chooses the spelling. So a path has either one
//! canonical form, or it is ambiguous and no rule can speak of it. What goes on to the app is not touched.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Why a path can be read in more than one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ambiguity {
    /// `%` without two hexadecimal digits.
    InvalidEscape,
    /// `%2F`
    EncodedSlash,
    /// `\` or `%5C`, which some servers take for a slash.
    Backslash,
    /// A NUL or another control character, encoded or not.
    Control,
    /// `%3B`, which begins parameters for whoever decodes first.
    EncodedSemicolon,
    /// What is decoded has an escape again: `%252e`.
    EncodedTwice,
    /// `..;x`: a dot segment for whoever drops parameters, a name for others.
    DotsWithParameters,
    /// More `..` than segments before them.
    AboveRoot,
    /// What is decoded is no UTF-8, an overlong slash for example.
    NotUtf8,
    /// It does not begin with a slash.
    NotAbsolute,
}

impl Ambiguity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidEscape => "it has a percent sign that escapes nothing",
            Self::EncodedSlash => "it has an encoded slash",
            Self::Backslash => "it has a backslash",
            Self::Control => "it has a control character",
            Self::EncodedSemicolon => "it has an encoded semicolon",
            Self::EncodedTwice => "it is encoded twice",
            Self::DotsWithParameters => "it has a dot segment with parameters",
            Self::AboveRoot => "it leads above the root",
            Self::NotUtf8 => "it is not UTF-8 once decoded",
            Self::NotAbsolute => "it does not begin with a slash",
        }
    }
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The one form of a path: escapes decoded, dot segments resolved (RFC 3986 §5.2.4), slashes in a row made one, parameters (`;` to the end of the
/// segment) dropped. A slash at the end stays. Without query; costs nothing for a path that is written plainly.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, Ambiguity> {
    if !path.starts_with('/') {
        return Err(Ambiguity::NotAbsolute);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let mut segments: Vec<Cow<'_, str>> = Vec::new();
    let mut raw = path[1..].split('/').peekable();
    while let Some(segment) = raw.next() {
        let is_last = raw.peek().is_none();
        let decoded = decoded(segment)?;
        match &*decoded {
            "." | ".." if segment.contains(';') => return Err(Ambiguity::DotsWithParameters),
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(Ambiguity::AboveRoot)?;
            }
            _ => {
                segments.push(decoded);
                continue;
            }
        }
        // A directory, as it was asked for.
        if is_last {
            segments.push(Cow::Borrowed(""));
        }
    }
    let mut form = String::with_capacity(path.len());
    for segment in &segments {
        form.push('/');
        form.push_str(segment);
    }
    Ok(Cow::Owned(form))
}

/// Whether there is nothing to do.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let plain = bytes.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'%' | b';' | b'\\'));
    // Dot segments and empty ones all show as a slash and a dot or another slash.
    plain && !bytes.windows(2).any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.'))
}

/// A segment without its parameters, decoded once.
fn decoded(segment: &str) -> Result<Cow<'_, str>, Ambiguity> {
    let name = segment.split(';').next().unwrap_or_default();
    // Parameters are dropped, and still hide nothing.
    let whole = unescape(segment)?;
    if name.len() == segment.len() { Ok(whole) } else { unescape(name) }
}

fn unescape(text: &str) -> Result<Cow<'_, str>, Ambiguity> {
    if !text.bytes().any(|b| b == b'%' || b == b'\\' || b.is_ascii_control()) {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let (byte, encoded) = match byte {
            b'%' => (escape(&bytes[at..]).ok_or(Ambiguity::InvalidEscape)?, true),
            byte => (*byte, false),
        };
        at += if encoded { 3 } else { 1 };
        match byte {
            b'/' => return Err(Ambiguity::EncodedSlash),
            b'\\' => return Err(Ambiguity::Backslash),
            b';' if encoded => return Err(Ambiguity::EncodedSemicolon),
            byte if byte.is_ascii_control() => return Err(Ambiguity::Control),
            byte => out.push(byte),
        }
    }
    if (0..out.len()).any(|at| escape(&out[at..]).is_some()) {
        return Err(Ambiguity::EncodedTwice);
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| Ambiguity::NotUtf8)
}

/// The byte that an escape at the beginning stands for.
fn escape(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |b: &u8| char::from(*b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// A path of a rule, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum AccessPath {
    Exact(Arc<str>),
    /// By whole segments; without a slash at the end, `/` alone excepted.
    Prefix(Arc<str>),
    Template(PathTemplate),
}

impl AccessPath {
    pub fn exact(path: &str) -> Result<Self, String> {
        own(path).map(|path| Self::Exact(path.into()))
    }

    pub fn prefix(path: &str) -> Result<Self, String> {
        let path = own(path)?;
        let trimmed = path.trim_end_matches('/');
        Ok(Self::Prefix(if trimmed.is_empty() { "/".into() } else { trimmed.into() }))
    }

    pub fn template(path: &str) -> Result<Self, String> {
        PathTemplate::new(path).map(Self::Template)
    }

    /// `path` in canonical form.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(want) => **want == *path,
            Self::Prefix(prefix) if &**prefix == "/" => true,
            Self::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Template(template) => template.matches(path),
        }
    }
}

/// A rule's own path, which has one meaning and no parts that are never compared.
fn own(path: &str) -> Result<Cow<'_, str>, String> {
    if path.contains(';') {
        return Err("paths are compared without parameters (`;` and what follows in the segment)".into());
    }
    canonical(path).map_err(|why| format!("a path that can be read in two ways matches nothing: {why}"))
}

/// `/users/{id}/posts`, `/files/{**}`: `{name}` and `{*}` stand for one segment that is not empty, `{**}` at the end for the rest, nothing included.
#[derive(Clone, Debug)]
pub struct PathTemplate {
    source: Arc<str>,
    /// `None` is any segment.
    segments: Vec<Option<Box<str>>>,
    open: bool,
}

impl PathTemplate {
    pub fn new(source: &str) -> Result<Self, String> {
        let path = source.strip_prefix('/').ok_or("it does not begin with a slash")?;
        let (path, open) = match path.strip_suffix("{**}") {
            Some("") => ("", true),
            Some(before) => (before.strip_suffix('/').ok_or("{**} is a segment of its own")?, true),
            None => (path, false),
        };
        let mut segments = Vec::new();
        if !(open && path.is_empty()) {
            for segment in path.split('/') {
                let variable = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                segments.push(match variable {
                    Some("*") => None,
                    Some("**") => return Err("{**} may only be the last segment".into()),
                    Some(name) if is_name(name) => None,
                    Some(_) => return Err(format!("{segment} is not {{*}}, {{**}} or a {{name}}")),
                    None if segment.contains(['{', '}']) => {
                        return Err(format!("{segment} is neither a text nor one {{name}}"));
                    }
                    None => Some(own(&format!("/{segment}"))?[1..].into()),
                });
            }
        }
        // Resolved away by the canonical form, and then the number of segments would not fit.
        if segments.iter().rev().skip(1).any(|segment| segment.as_deref() == Some("")) {
            return Err("it has an empty segment or a dot segment".into());
        }
        Ok(Self { source: source.into(), segments, open })
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }

    pub fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let mut given = path.split('/');
        for wanted in &self.segments {
            let fits = match (wanted, given.next()) {
                (Some(wanted), Some(given)) => **wanted == *given,
                (None, Some(given)) => !given.is_empty(),
                (_, None) => false,
            };
            if !fits {
                return false;
            }
        }
        self.open || given.next().is_none()
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

impl PartialEq for PathTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for PathTemplate {}

impl Serialize for PathTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}
