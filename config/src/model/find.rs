//! Which route takes a request. The one evaluation of route tables: the proxy routes with it and `explain` explains with it.

use std::borrow::Cow;

use http::{HeaderMap, Method};

use super::{HeaderMatch, QueryMatch, Route, RouteMatch, RouteTable, VirtualHost};

/// What of a request decides its route.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    pub method: &'a Method,
    /// Without port.
    pub host: &'a str,
    /// Without query; as received.
    pub path: &'a str,
    /// Without `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

impl RouteTable {
    /// The virtual host whose most specific domain matches.
    pub fn host(&self, host: &str) -> Option<&VirtualHost> {
        self.hosts
            .iter()
            .flat_map(|virtual_host| virtual_host.domains.iter().map(move |domain| (domain, virtual_host)))
            .filter(|(domain, _)| domain.matches(host))
            .max_by_key(|(domain, _)| domain.specificity())
            .map(|(_, virtual_host)| virtual_host)
    }

    pub fn find(&self, request: &RequestHead<'_>) -> Option<&Route> {
        self.host(request.host)?.routes.iter().find(|route| route.matches.matches(request))
    }
}

impl RouteMatch {
    pub fn matches(&self, request: &RequestHead<'_>) -> bool {
        self.path.matches(request.path)
            && self.method.as_ref().is_none_or(|method| method == request.method)
            && self.headers.iter().all(|header| header.matches(request.headers))
            && self.query.iter().all(|query| query.matches(request.query.unwrap_or_default()))
    }
}

impl HeaderMatch {
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(&self.name).iter();
        let Some(first) = lines.next() else { return false };
        let Ok(first) = first.to_str() else { return false };
        match lines.next() {
            None => self.value.matches(first),
            Some(second) => {
                let mut joined = first.to_owned();
                for line in std::iter::once(second).chain(lines) {
                    let Ok(line) = line.to_str() else { return false };
                    joined.push(',');
                    joined.push_str(line);
                }
                self.value.matches(&joined)
            }
        }
    }
}

impl QueryMatch {
    /// Names and values are compared decoded (`application/x-www-form-urlencoded`).
    pub fn matches(&self, query: &str) -> bool {
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(name, _)| *decoded(name) == *self.name)
            .is_some_and(|(_, value)| self.value.matches(&decoded(value)))
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::super::StringMatch;
    use super::*;

    #[test]
    fn a_query_parameter_is_compared_decoded_and_by_its_first_value() {
        let query = QueryMatch { name: "a b".into(), value: StringMatch::Exact("x&y".into()) };
        for (given, want) in [
            ("a+b=x%26y", true),
            ("a%20b=x%26y&a+b=z", true),
            ("a+b=z&a+b=x%26y", false),
            ("", false),
            ("a+b", false),
        ] {
            assert_eq!(query.matches(given), want, "{given}");
        }
    }

    #[test]
    fn repeated_header_lines_are_one_value() {
        let header =
            HeaderMatch { name: HeaderName::from_static("x-a"), value: StringMatch::Exact("1,2".into()) };
        let mut headers = HeaderMap::new();
        assert!(!header.matches(&headers));
        headers.append("x-a", HeaderValue::from_static("1"));
        assert!(!header.matches(&headers));
        headers.append("x-a", HeaderValue::from_static("2"));
        assert!(header.matches(&headers));
    }
}
