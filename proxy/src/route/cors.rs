//! Cross-origin resource sharing, answered by the proxy (Gateway API `HTTPCORSFilter`, Fetch standard §3.2).
//!
//! Owns which `Access-Control-*` fields an answer gets. A preflight never reaches the app; an origin that is not allowed gets no
//! field, which is what a browser refuses on, and its actual request goes on as it is: CORS protects readers, not servers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use outrigger_config::model;

/// A CORS rule with its header values made at load.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
    methods: List,
    headers: List,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// What the answer to a request of one origin says.
#[derive(Clone, Debug)]
pub struct Allowed(HeaderValue);

#[derive(Clone, Debug)]
enum Origin {
    Any,
    /// Scheme, host and port are compared without regard to case (they are case-insensitive in a URI).
    Exact(Box<str>),
    /// `https://*.example.com:8443`: what stands before and behind the star.
    Below {
        scheme: Box<str>,
        suffix: Box<str>,
    },
}

#[derive(Clone, Debug)]
enum List {
    Any,
    These(Option<HeaderValue>),
}

impl Cors {
    pub fn compile(model: &model::Cors) -> Self {
        Self {
            origins: model.allow_origins.iter().map(|origin| Origin::parse(origin)).collect(),
            credentials: model.allow_credentials,
            methods: List::new(&model.allow_methods),
            headers: List::new(&model.allow_headers),
            expose: joined(&model.expose_headers),
            max_age: HeaderValue::from(model.max_age.as_secs()),
        }
    }

    /// Whether the request asks for permission only, and so is answered here.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// `None` where the request names no origin or one that is not allowed.
    pub fn allows(&self, request: &HeaderMap) -> Option<Allowed> {
        let origin = request.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|allowed| allowed.matches(text)).then(|| Allowed(origin.clone()))
    }

    /// The fields of the answer to a preflight. `headers` is empty before.
    pub fn answer_preflight(&self, allowed: Option<&Allowed>, request: &HeaderMap, headers: &mut HeaderMap) {
        let Some(allowed) = allowed else {
            headers.insert(VARY, HeaderValue::from_static("Origin"));
            return;
        };
        self.allow_origin(allowed, headers);
        let asked = |name| request.get(name).cloned();
        if let Some(methods) = self.methods.answer(self.credentials, || asked(ACCESS_CONTROL_REQUEST_METHOD))
        {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        if let Some(names) = self.headers.answer(self.credentials, || asked(ACCESS_CONTROL_REQUEST_HEADERS)) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }

    /// The fields of the answer to the request itself; the app's own are replaced.
    pub fn answer(&self, allowed: &Allowed, headers: &mut HeaderMap) {
        self.allow_origin(allowed, headers);
        if let Some(expose) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn allow_origin(&self, allowed: &Allowed, headers: &mut HeaderMap) {
        // A wildcard is not accepted by browsers together with credentials (Fetch §3.2.5).
        let any = !self.credentials && self.origins.iter().any(|origin| matches!(origin, Origin::Any));
        if any {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed.0.clone());
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        } else {
            headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        }
    }
}

impl Origin {
    fn parse(text: &str) -> Self {
        if text == "*" {
            return Self::Any;
        }
        match text.split_once("://*") {
            Some((scheme, suffix)) => Self::Below { scheme: scheme.into(), suffix: suffix.into() },
            None => Self::Exact(text.into()),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(want) => want.eq_ignore_ascii_case(origin),
            Self::Below { scheme, suffix } => origin.split_once("://").is_some_and(|(given, host)| {
                // The star stands for at least one character.
                given.eq_ignore_ascii_case(scheme)
                    && host.len() > suffix.len()
                    && host.is_char_boundary(host.len() - suffix.len())
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }),
        }
    }
}

impl List {
    fn new(names: &[std::sync::Arc<str>]) -> Self {
        if names.iter().any(|name| &**name == "*") { Self::Any } else { Self::These(joined(names)) }
    }

    /// With credentials `*` would be a name like any other (Fetch §3.2.5), so what was asked for is named.
    fn answer(&self, credentials: bool, asked: impl FnOnce() -> Option<HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::Any if credentials => asked(),
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::These(names) => names.clone(),
        }
    }
}

fn joined(names: &[std::sync::Arc<str>]) -> Option<HeaderValue> {
    if names.is_empty() {
        return None;
    }
    HeaderValue::from_str(&names.join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cors(origins: &[&str], credentials: bool, methods: &[&str], headers: &[&str]) -> Cors {
        let list = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        Cors::compile(&model::Cors {
            allow_origins: list(origins),
            allow_credentials: credentials,
            allow_methods: list(methods),
            allow_headers: list(headers),
            expose_headers: list(&["x-seen"]),
            max_age: Duration::from_secs(5),
        })
    }

    fn asking(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (ORIGIN, HeaderValue::from_static(origin)),
            (ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
            (ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-a,x-b")),
        ])
    }

    #[test]
    fn origins_are_compared_as_a_whole_or_below_a_star() {
        for (pattern, origin, want) in [
            ("*", "https://a.test", true),
            ("https://a.test", "https://a.test", true),
            ("https://a.test", "HTTPS://A.test", true),
            ("https://a.test", "http://a.test", false),
            ("https://a.test", "https://a.test:8443", false), // another port is another origin
            ("https://*.a.test", "https://x.a.test", true),
            ("https://*.a.test", "https://x.y.a.test", true),
            ("https://*.a.test", "https://a.test", false),
            ("https://*.a.test", "https://evil-a.test", false),
            ("https://*.a.test", "http://x.a.test", false),
            ("https://*", "https://b.test:1", true),
            ("https://a.test", "null", false),
        ] {
            let allowed = cors(&[pattern], false, &[], &[]).allows(&asking(origin)).is_some();
            assert_eq!(allowed, want, "{pattern} on {origin}");
        }
    }

    #[test]
    fn a_preflight_is_answered_with_what_is_allowed() {
        let request = asking("https://a.test");
        assert!(Cors::is_preflight(&Method::OPTIONS, &request));
        assert!(!Cors::is_preflight(&Method::GET, &request));
        for (rule, want_origin, want_methods, want_headers) in [
            (
                cors(&["https://a.test"], false, &["GET", "PUT"], &["x-a"]),
                "https://a.test",
                "GET, PUT",
                "x-a",
            ),
            (cors(&["*"], false, &["*"], &["*"]), "*", "*", "*"),
            (cors(&["*"], true, &["*"], &["*"]), "https://a.test", "PUT", "x-a,x-b"),
        ] {
            let mut headers = HeaderMap::new();
            rule.answer_preflight(rule.allows(&request).as_ref(), &request, &mut headers);
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], want_origin);
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], want_methods);
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], want_headers);
            assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "5");
            assert_eq!(headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), rule.credentials);
        }
    }

    #[test]
    fn an_origin_that_is_not_allowed_gets_no_field() {
        let rule = cors(&["https://a.test"], true, &["GET"], &[]);
        let request = asking("https://b.test");
        let mut headers = HeaderMap::new();
        rule.answer_preflight(rule.allows(&request).as_ref(), &request, &mut headers);
        assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{headers:?}");
    }

    #[test]
    fn the_answer_itself_replaces_what_the_app_said() {
        let rule = cors(&["https://a.test"], false, &[], &[]);
        let request = asking("https://a.test");
        let mut headers = HeaderMap::from_iter([
            (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://other.test")),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
        ]);
        rule.answer(&rule.allows(&request).unwrap(), &mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.test");
        assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], "x-seen");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}
