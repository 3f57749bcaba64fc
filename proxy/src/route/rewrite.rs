//! What a rule puts in place of a request's host and path (Gateway API `HTTPURLRewriteFilter`, `HTTPPathModifier`).

use std::borrow::Cow;

use http::HeaderValue;
use http::uri::{Authority, InvalidUri, PathAndQuery, Uri};
use outrigger_config::model::{self, PathRewrite};

/// A rewrite whose host was parsed at load.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    pub host: Option<Host>,
    pub path: Option<PathRewrite>,
}

/// The new authority in the two forms it is sent in.
#[derive(Clone, Debug)]
pub struct Host {
    pub authority: Authority,
    pub header: HeaderValue,
}

impl Rewrite {
    pub fn compile(model: &model::Rewrite) -> Self {
        let host = model.host.as_deref().and_then(|host| {
            Some(Host { authority: host.parse().ok()?, header: HeaderValue::from_str(host).ok()? })
        });
        Self { host, path: model.path.clone() }
    }

    pub fn is_empty(&self) -> bool {
        self.host.is_none() && self.path.is_none()
    }
}

/// The URI with the path that `rewrite` gives it; its query stays, and so does `*`, which is no path. Fails where the new path cannot
/// stand in a URI.
pub fn with_path(uri: &Uri, rewrite: &PathRewrite) -> Result<Uri, InvalidUri> {
    if uri.path() == ASTERISK {
        return Ok(uri.clone());
    }
    let path = rewritten(rewrite, uri.path());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(match uri.query() {
        None => PathAndQuery::try_from(&*path)?,
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}"))?,
    });
    Ok(Uri::from_parts(parts).expect("a path was replaced by a path, so scheme and authority still fit"))
}

pub fn rewritten<'a>(rewrite: &'a PathRewrite, path: &'a str) -> Cow<'a, str> {
    match rewrite {
        PathRewrite::Full(full) if full.is_empty() => Cow::Borrowed("/"),
        PathRewrite::Full(full) => Cow::Borrowed(full),
        PathRewrite::Prefix { matched, replacement } => {
            let matched = matched.trim_end_matches('/');
            // What is left is empty or begins with `/`: prefixes match whole segments.
            let rest = path.strip_prefix(matched).unwrap_or(path);
            let replacement = if rest.is_empty() { replacement } else { replacement.trim_end_matches('/') };
            match (replacement.is_empty(), rest.is_empty()) {
                (true, true) => Cow::Borrowed("/"),
                (true, false) => Cow::Borrowed(rest),
                (false, true) => Cow::Borrowed(replacement),
                (false, false) => Cow::Owned(format!("{replacement}{rest}")),
            }
        }
    }
}

/// The target of a request about the server as a whole (RFC 9112 §3.2.4).
pub const ASTERISK: &str = "*";

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Gateway API `HTTPPathModifier.replacePrefixMatch`.
    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        for (path, matched, replacement, want) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "/", "/xyz", "/xyz/bar"), // the prefix of every path
            ("/", "/", "/xyz", "/xyz/"),
        ] {
            let rewrite = PathRewrite::Prefix { matched: matched.into(), replacement: replacement.into() };
            assert_eq!(rewritten(&rewrite, path), want, "{path}: {matched} by {replacement}");
        }
    }

    #[test]
    fn the_query_and_the_authority_stay() {
        let rewrite = PathRewrite::Full("/new".into());
        for (given, want) in [
            ("/old?a=b%20c&d", "/new?a=b%20c&d"),
            ("/old", "/new"),
            ("http://example.com/old?a", "http://example.com/new?a"),
            ("*", "*"),
        ] {
            let uri: Uri = given.parse().unwrap();
            assert_eq!(with_path(&uri, &rewrite).unwrap().to_string(), want, "{given}");
        }
        assert!(with_path(&Uri::from_static("/"), &PathRewrite::Full("/a b".into())).is_err());
    }
}
