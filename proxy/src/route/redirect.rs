//! The `Location` a redirecting rule answers with (Gateway API `HTTPRequestRedirectFilter`).

use http::HeaderValue;
use outrigger_config::model::Redirect;

use super::rewrite::{ASTERISK, rewritten};

/// What of the request and its listener stands in a `Location` unless the rule says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// `http` or `https`, as the client speaks to us.
    pub scheme: &'a str,
    /// Without port.
    pub host: &'a str,
    /// The port the client reached us on.
    pub port: u16,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

/// `None` where the rule's words cannot stand in a header.
pub fn location(redirect: &Redirect, seen: Seen<'_>) -> Option<HeaderValue> {
    let scheme = redirect.scheme.as_deref().unwrap_or(seen.scheme);
    let host = redirect.host.as_deref().unwrap_or(seen.host);
    let port = match (redirect.port, redirect.scheme.as_deref().and_then(well_known_port)) {
        (Some(port), _) => port,
        (None, Some(port)) => port,
        (None, None) => seen.port,
    };
    // `OPTIONS *` names no path that could be kept.
    let path = if seen.path == ASTERISK { "/" } else { seen.path };
    let path = redirect.path.as_ref().map_or(path.into(), |rewrite| rewritten(rewrite, path));
    let mut location = format!("{scheme}://{host}");
    // The well-known port of the scheme is left out.
    if well_known_port(scheme) != Some(port) {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(&path);
    if let Some(query) = seen.query {
        location.push('?');
        location.push_str(query);
    }
    HeaderValue::try_from(location).ok()
}

fn well_known_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use outrigger_config::model::PathRewrite;

    use super::*;

    fn redirect(scheme: Option<&str>, host: Option<&str>, port: Option<u16>) -> Redirect {
        Redirect {
            status: StatusCode::FOUND,
            scheme: scheme.map(Into::into),
            host: host.map(Into::into),
            port,
            path: None,
        }
    }

    /// The port rules of `HTTPRequestRedirectFilter.port`, as its conformance tests read them.
    #[test]
    fn the_port_follows_the_rule_then_its_scheme_then_the_listener() {
        for (listener, redirect, want) in [
            (("http", 80), redirect(None, Some("example.org"), None), "http://example.org/p?q=1"),
            (("http", 80), redirect(Some("https"), None, None), "https://a.test/p?q=1"),
            (("http", 80), redirect(None, None, Some(8080)), "http://a.test:8080/p?q=1"),
            (("http", 8080), redirect(None, Some("example.org"), None), "http://example.org:8080/p?q=1"),
            (("http", 8080), redirect(Some("https"), None, None), "https://a.test/p?q=1"), // 443, not 8080
            (("http", 8080), redirect(Some("http"), None, Some(80)), "http://a.test/p?q=1"),
            (("http", 8080), redirect(Some("https"), None, Some(443)), "https://a.test/p?q=1"),
            (("http", 8080), redirect(Some("http"), None, Some(443)), "http://a.test:443/p?q=1"),
            (("https", 443), redirect(None, Some("example.org"), None), "https://example.org/p?q=1"),
            (("https", 443), redirect(Some("http"), None, None), "http://a.test/p?q=1"),
            (("https", 8443), redirect(None, None, None), "https://a.test:8443/p?q=1"),
        ] {
            let (scheme, port) = listener;
            let seen = Seen { scheme, host: "a.test", port, path: "/p", query: Some("q=1") };
            assert_eq!(location(&redirect, seen).unwrap(), want, "{redirect:?} on {listener:?}");
        }
    }

    #[test]
    fn the_path_is_replaced_like_a_rewritten_one() {
        for (path, given, want) in [
            (PathRewrite::Full("/full".into()), "/a/b", "http://a.test/full"),
            (
                PathRewrite::Prefix { matched: "/a".into(), replacement: "/x".into() },
                "/a/b",
                "http://a.test/x/b",
            ),
            (PathRewrite::Prefix { matched: "/a".into(), replacement: "".into() }, "/a", "http://a.test/"),
            (
                PathRewrite::Prefix { matched: "/".into(), replacement: "/x".into() },
                "*", // OPTIONS *
                "http://a.test/x/",
            ),
        ] {
            let redirect = Redirect { path: Some(path), ..redirect(None, None, None) };
            let seen = Seen { scheme: "http", host: "a.test", port: 80, path: given, query: None };
            assert_eq!(location(&redirect, seen).unwrap(), want);
        }
    }
}
