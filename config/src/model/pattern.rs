//! What a request is compared with: host patterns, paths and strings.

use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde::{Serialize, Serializer};

/// A host name of a virtual host or an SNI: all, one, or all below a domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    Any,
    /// In lower case, without port and trailing dot.
    Exact(Arc<str>),
    /// `*.example.com` is kept as `.example.com`; matches one or more labels in front (Gateway API `Hostname`).
    Suffix(Arc<str>),
}

impl HostPattern {
    /// `*`, `*.example.com` or a host name. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let named = |host: &str| {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|b| {
                    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']')
                })
        };
        if text == "*" {
            return Some(Self::Any);
        }
        if let Some(rest) = text.strip_prefix("*.") {
            return named(rest).then(|| Self::Suffix(format!(".{}", rest.to_ascii_lowercase()).into()));
        }
        named(text).then(|| Self::Exact(text.to_ascii_lowercase().into()))
    }

    /// `host` without a port; compared without regard to case.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.eq_ignore_ascii_case(host),
            Self::Suffix(suffix) => {
                host.len() > suffix.len()
                    && host.is_char_boundary(host.len() - suffix.len())
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
        }
    }

    /// The hosts both match; `None` where there are none. Of two that overlap one always covers the other.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, narrow) | (narrow, Self::Any) => Some(narrow.clone()),
            (Self::Exact(name), wide) | (wide, Self::Exact(name)) => {
                wide.matches(name).then(|| Self::Exact(name.clone()))
            }
            (Self::Suffix(a), Self::Suffix(b)) if a.ends_with(&**b) => Some(self.clone()),
            (Self::Suffix(a), Self::Suffix(b)) => b.ends_with(&**a).then(|| other.clone()),
        }
    }

    /// More specific patterns are greater: exact over suffix over any, then the longer (Gateway API `hostnames`).
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Suffix(suffix) => (1, suffix.len()),
            Self::Exact(name) => (2, name.len()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A regular expression that has to match the whole text. Linear time; its program is held below 64 KiB.
#[derive(Clone)]
pub struct Pattern {
    source: Arc<str>,
    compiled: Regex,
}

/// Largest compiled program and lazy automaton of one expression, in bytes.
pub const PATTERN_LIMIT: usize = 64 * 1024;

impl Pattern {
    /// The error is the reason the expression was refused, fit to show.
    pub fn new(source: &str) -> Result<Self, String> {
        let compiled = RegexBuilder::new(&format!("^(?:{source})$"))
            .size_limit(PATTERN_LIMIT)
            .dfa_size_limit(PATTERN_LIMIT)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self { source: source.into(), compiled })
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }

    pub fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

/// How a path is compared (Gateway API `HTTPPathMatch`); the query is no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum PathMatch {
    Exact(Arc<str>),
    /// By whole segments: `/api` matches `/api` and `/api/v1`, never `/apiary`. Kept without a trailing slash, `/` alone excepted.
    Prefix(Arc<str>),
    Regex(Pattern),
}

impl PathMatch {
    pub fn prefix(prefix: &str) -> Self {
        let trimmed = prefix.trim_end_matches('/');
        Self::Prefix(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
    }

    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(want) => **want == *path,
            // `OPTIONS *` asks about the server as a whole (RFC 9110 §9.3.7); the rule for everything takes it.
            Self::Prefix(prefix) if &**prefix == "/" => path.starts_with('/') || path == "*",
            Self::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(pattern) => pattern.matches(path),
        }
    }
}

/// How a header or query value is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum StringMatch {
    Exact(Arc<str>),
    Regex(Pattern),
}

impl StringMatch {
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(want) => **want == *text,
            Self::Regex(pattern) => pattern.matches(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_segments() {
        for (prefix, path, want) in [
            ("/api", "/api", true),
            ("/api", "/api/v1", true),
            ("/api", "/api/", true),
            ("/api", "/apiary", false), // whole segments
            ("/api/", "/api", true),    // a trailing slash says nothing
            ("/", "/anything", true),
            ("/", "*", true), // OPTIONS *
            ("/api", "*", false),
        ] {
            assert_eq!(PathMatch::prefix(prefix).matches(path), want, "{prefix} on {path}");
        }
    }

    #[test]
    fn a_leading_star_stands_for_one_or_more_labels() {
        let pattern = HostPattern::parse("*.Example.com").expect("a pattern");
        for (host, want) in [
            ("a.example.com", true),
            ("a.b.EXAMPLE.com", true),
            ("example.com", false),
            ("aexample.com", false),
        ] {
            assert_eq!(pattern.matches(host), want, "{host}");
        }
        assert_eq!(HostPattern::parse("a*.example.com"), None);
        assert!(!pattern.matches("é.com"));
    }

    #[test]
    fn the_hosts_two_patterns_share() {
        for (a, b, want) in [
            ("*", "*", Some("*")),
            ("*", "a.example.com", Some("a.example.com")),
            ("*.example.com", "*", Some("*.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "example.com", None), // one label at least
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.example.org", None),
            ("*.ample.com", "*.example.com", None), // whole labels
            ("a.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "b.example.com", None),
        ] {
            let pattern = |text| HostPattern::parse(text).expect("a pattern");
            let want = want.map(pattern);
            assert_eq!(pattern(a).intersection(&pattern(b)), want, "{a} and {b}");
            assert_eq!(pattern(b).intersection(&pattern(a)), want, "{b} and {a}");
        }
    }

    #[test]
    fn patterns_match_the_whole_text_and_are_bounded() {
        let pattern = Pattern::new("a|b").expect("valid");
        assert!(pattern.matches("a") && !pattern.matches("ab"));
        assert!(Pattern::new("(").is_err());
        assert!(Pattern::new("(a{1000}){1000}").is_err());
    }
}
