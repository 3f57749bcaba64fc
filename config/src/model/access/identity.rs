//! Patterns of SPIFFE ids.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::model::SpiffeId;

/// A SPIFFE id in which `*` stands for any characters of one segment (or of the trust domain), and `**` as the last segment for one or more
/// segments: `spiffe://cluster.local/ns/*/sa/web-*`, `spiffe://example.org/**`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityPattern(Arc<str>);

impl IdentityPattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn matches(&self, id: &SpiffeId) -> bool {
        let mut wanted = self.0[SCHEME.len()..].split('/');
        let mut given = id.as_str()[SCHEME.len()..].split('/');
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some("**"), Some(_)) => return true,
                (Some(wanted), Some(given)) if segment(wanted.as_bytes(), given.as_bytes()) => {}
                _ => return false,
            }
        }
    }
}

const SCHEME: &str = "spiffe://";

/// Linear: of several places where a star could end the first is as good as any, since what follows may again begin with one.
fn segment(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, begun)) = star {
            star = Some((after, begun + 1));
            p = after;
            t = begun + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|rest| *rest == b'*')
}

impl FromStr for IdentityPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(SCHEME).ok_or("it does not begin with spiffe://")?;
        if rest.split_once('/').is_some_and(|(_, path)| path.split('/').rev().skip(1).any(|s| s == "**"))
            || rest.starts_with("**")
        {
            return Err("** may only be the last segment".into());
        }
        // Where every star stands for a character an id must remain.
        let id: Result<SpiffeId, _> = text.replace('*', "x").parse();
        id.map_err(|error| error.why().to_owned())?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for IdentityPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_their_segment() {
        for (pattern, id, want) in [
            ("spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/b", true),
            ("spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/bc", false),
            ("spiffe://td/ns/*/sa/b", "spiffe://td/ns/anything/sa/b", true),
            ("spiffe://td/ns/*/sa/b", "spiffe://td/ns/a/sa/c/sa/b", false),
            ("spiffe://*/ns/a/sa/b", "spiffe://other.domain/ns/a/sa/b", true),
            ("spiffe://td/ns/a/sa/web-*", "spiffe://td/ns/a/sa/web-1", true),
            ("spiffe://td/ns/a/sa/web-*", "spiffe://td/ns/a/sa/web-", true),
            ("spiffe://td/ns/a/sa/web-*", "spiffe://td/ns/a/sa/web", false),
            ("spiffe://td/ns/a/sa/*x*y", "spiffe://td/ns/a/sa/axbxcy", true),
            ("spiffe://td/ns/a/sa/*x*y", "spiffe://td/ns/a/sa/ayx", false),
            ("spiffe://td/**", "spiffe://td/ns/a/sa/b", true),
            ("spiffe://td/ns/a/**", "spiffe://td/ns/a/sa/b", true),
            ("spiffe://td/ns/a/**", "spiffe://td/ns/a", false),
            ("spiffe://td/ns/a/**", "spiffe://td/ns/ab/sa/b", false),
            ("spiffe://td/*", "spiffe://td/ns/a", false),
        ] {
            let pattern: IdentityPattern = pattern.parse().expect(pattern);
            assert_eq!(pattern.matches(&id.parse().expect(id)), want, "{pattern} on {id}");
        }
        for text in [
            "",
            "*",
            "**",
            "https://td/a",
            "spiffe://td",
            "spiffe://td/**/a",
            "spiffe://**",
            "spiffe://**/a",
            "spiffe://td//*",
        ] {
            assert!(text.parse::<IdentityPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn many_stars_take_no_more_than_a_moment() {
        let pattern = format!("{}b", "*a".repeat(100));
        assert!(!segment(pattern.as_bytes(), "a".repeat(2_000).as_bytes()));
    }
}
