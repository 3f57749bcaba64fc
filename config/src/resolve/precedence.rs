//! The order of routes: which of two matches that both fit a request decides (Gateway API `HTTPRouteRule.matches`,
//! `GRPCRouteRule.matches`).
//!
//! Owns the ranks of matches and objects, and the words for why one comes first. Never looks at a request.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use crate::model::{PathMatch, RouteMatch};

/// Objects of one kind among themselves: the older first, then by `NAMESPACE/NAME`.
///
/// An object without a creation time (one from a file) comes after those that have one. The order has to be total, which "by age where
/// both have one, else by name" is not: three objects can go round in a circle then.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority {
    /// Seconds since 1970; `Reverse` of what is missing sorts it last.
    created: Age,
    /// Compared as one text, as the API says: `a-b/x` stands before `a/x`.
    name: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Created(i64),
    Unknown,
}

impl Seniority {
    /// `created` in seconds since 1970.
    pub fn new(created: Option<i64>, namespace: &str, name: &str) -> Self {
        Self {
            created: created.map_or(Age::Unknown, Age::Created),
            name: format!("{namespace}/{name}").into(),
        }
    }

    /// `NAMESPACE/NAME`
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why the first in order of two is the first.
    pub fn reason(&self, other: &Self) -> Reason {
        if self.created != other.created { Reason::Older } else { Reason::Name }
    }
}

/// Where a match stands in its table; the least is looked at first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteRank {
    specificity: Specificity,
    seniority: Seniority,
    /// The rule and the match within it, by position in the object.
    position: (usize, usize),
}

/// How much a match asks for. A table holds routes of one kind only, so the two never meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Grpc {
        service: Reverse<usize>,
        method: Reverse<usize>,
        headers: Reverse<usize>,
    },
    Http {
        path: PathRank,
        /// A match with a method goes first.
        any_method: bool,
        headers: Reverse<usize>,
        query: Reverse<usize>,
    },
}

/// Exact paths, then expressions (where the API leaves it open: an expression says more than a prefix such as `/`, which
/// would hide it for good), then prefixes; of two, the longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    Regex(Reverse<usize>),
    Prefix(Reverse<usize>),
}

impl RouteRank {
    pub fn http(matches: &RouteMatch, seniority: Seniority, rule: usize, index: usize) -> Self {
        let path = match &matches.path {
            PathMatch::Exact(_) => PathRank::Exact,
            PathMatch::Regex(pattern) => PathRank::Regex(Reverse(pattern.as_str().chars().count())),
            PathMatch::Prefix(prefix) => PathRank::Prefix(Reverse(prefix.chars().count())),
        };
        let specificity = Specificity::Http {
            path,
            any_method: matches.method.is_none(),
            headers: Reverse(matches.headers.len()),
            query: Reverse(matches.query.len()),
        };
        Self { specificity, seniority, position: (rule, index) }
    }

    /// `service` and `method` as the route gives them; `None` matches all.
    pub fn grpc(
        service: Option<&str>,
        method: Option<&str>,
        headers: usize,
        seniority: Seniority,
        rule: usize,
        index: usize,
    ) -> Self {
        let length = |text: Option<&str>| Reverse(text.map_or(0, |text| text.chars().count()));
        let specificity =
            Specificity::Grpc { service: length(service), method: length(method), headers: Reverse(headers) };
        Self { specificity, seniority, position: (rule, index) }
    }

    /// Why the first in order of two is the first.
    pub fn reason(&self, other: &Self) -> Reason {
        use Specificity::{Grpc, Http};
        match (&self.specificity, &other.specificity) {
            (a, b) if a == b && self.seniority == other.seniority => Reason::Position,
            (a, b) if a == b => self.seniority.reason(&other.seniority),
            (Http { path: a, .. }, Http { path: b, .. }) if a != b => match (a.min(b), a.max(b)) {
                (PathRank::Exact, _) => Reason::ExactPath,
                (PathRank::Regex(_), PathRank::Prefix(_)) => Reason::Expression,
                _ => Reason::LongerPath,
            },
            (Http { any_method: a, .. }, Http { any_method: b, .. }) if a != b => Reason::Method,
            (Http { headers: a, .. }, Http { headers: b, .. }) if a != b => Reason::MoreHeaders,
            (Http { .. }, Http { .. }) => Reason::MoreQuery,
            (Grpc { service: a, .. }, Grpc { service: b, .. }) if a != b => Reason::LongerService,
            (Grpc { method: a, .. }, Grpc { method: b, .. }) if a != b => Reason::LongerMethod,
            (Grpc { .. }, Grpc { .. }) => Reason::MoreHeaders,
            (Grpc { .. }, Http { .. }) | (Http { .. }, Grpc { .. }) => Reason::Grpc,
        }
    }
}

/// Why one match, or one object, goes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Grpc,
    ExactPath,
    Expression,
    LongerPath,
    Method,
    MoreHeaders,
    MoreQuery,
    LongerService,
    LongerMethod,
    Older,
    Name,
    Position,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "a GRPCRoute goes before an HTTPRoute",
            Self::ExactPath => "an exact path goes first",
            Self::Expression => "a path expression goes before a prefix",
            Self::LongerPath => "the longer path goes first",
            Self::Method => "a match with a method goes first",
            Self::MoreHeaders => "more header matches go first",
            Self::MoreQuery => "more query matches go first",
            Self::LongerService => "the longer gRPC service goes first",
            Self::LongerMethod => "the longer gRPC method goes first",
            Self::Older => "the older object goes first",
            Self::Name => "the first name in alphabetical order goes first",
            Self::Position => "the earlier rule goes first",
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};

    use super::*;
    use crate::model::{HeaderMatch, Pattern, QueryMatch, StringMatch};

    fn matching(path: PathMatch) -> RouteMatch {
        RouteMatch { path, method: None, headers: vec![], query: vec![] }
    }

    fn with(path: &str, method: bool, headers: usize, query: usize) -> RouteMatch {
        let value = StringMatch::Exact("v".into());
        RouteMatch {
            path: PathMatch::prefix(path),
            method: method.then_some(Method::GET),
            headers: (0..headers)
                .map(|i| HeaderMatch {
                    name: HeaderName::try_from(format!("h{i}")).unwrap(),
                    value: value.clone(),
                })
                .collect(),
            query: (0..query)
                .map(|i| QueryMatch { name: format!("q{i}").into(), value: value.clone() })
                .collect(),
        }
    }

    fn rank(matches: &RouteMatch) -> RouteRank {
        RouteRank::http(matches, Seniority::new(None, "default", "r"), 0, 0)
    }

    #[test]
    fn the_order_of_http_matches() {
        let exact = matching(PathMatch::Exact("/a".into()));
        let regex = matching(PathMatch::Regex(Pattern::new("/a.*").unwrap()));
        for (first, second, why) in [
            (exact.clone(), with("/abcdef", true, 5, 5), Reason::ExactPath),
            (exact, regex.clone(), Reason::ExactPath),
            (regex, with("/abcdef", true, 5, 5), Reason::Expression),
            (with("/ab", false, 0, 0), with("/a", true, 5, 5), Reason::LongerPath),
            (with("/a", true, 0, 0), with("/a", false, 5, 5), Reason::Method),
            (with("/a", false, 2, 0), with("/a", false, 1, 5), Reason::MoreHeaders),
            (with("/a", false, 1, 2), with("/a", false, 1, 1), Reason::MoreQuery),
            // A trailing slash counts for nothing.
            (with("/a/", true, 0, 0), with("/a", false, 0, 0), Reason::Method),
        ] {
            let (a, b) = (rank(&first), rank(&second));
            assert!(a < b, "{first:?} before {second:?}");
            assert_eq!(a.reason(&b), why, "{first:?} before {second:?}");
        }
    }

    #[test]
    fn ties_go_by_age_then_name_then_position() {
        let at = |created, namespace, name, rule, index| {
            RouteRank::http(&with("/", false, 0, 0), Seniority::new(created, namespace, name), rule, index)
        };
        for (first, second, why) in [
            (at(Some(1), "z", "z", 9, 0), at(Some(2), "a", "a", 0, 0), Reason::Older),
            (at(Some(9), "z", "z", 0, 0), at(None, "a", "a", 0, 0), Reason::Older), // one without an age comes last
            (at(None, "a", "x", 0, 0), at(None, "b", "a", 0, 0), Reason::Name),
            (at(Some(1), "a-b", "x", 0, 0), at(Some(1), "a", "x", 0, 0), Reason::Name), // `-` sorts before `/`
            (at(None, "a", "x", 0, 1), at(None, "a", "x", 1, 0), Reason::Position),
            (at(None, "a", "x", 1, 0), at(None, "a", "x", 1, 1), Reason::Position),
        ] {
            assert!(first < second, "{first:?} before {second:?}");
            assert_eq!(first.reason(&second), why);
        }
    }

    #[test]
    fn the_order_of_grpc_matches() {
        let at = |service, method, headers| {
            RouteRank::grpc(service, method, headers, Seniority::new(None, "a", "x"), 0, 0)
        };
        for (first, second, why) in [
            (at(Some("pkg.Long"), None, 0), at(Some("pkg.S"), Some("Method"), 3), Reason::LongerService),
            (at(Some("S"), Some("M"), 0), at(Some("S"), None, 3), Reason::LongerMethod),
            (at(None, None, 1), at(None, None, 0), Reason::MoreHeaders),
        ] {
            assert!(first < second, "{first:?} before {second:?}");
            assert_eq!(first.reason(&second), why);
        }
    }
}
