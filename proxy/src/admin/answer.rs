//! A question to one of the proxy's own ports, and the answer to it.
//!
//! Owns what holds for every endpoint: HEAD, 404, 405, and that a page in somebody's browser changes nothing.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Endpoint, State};

pub type Answer = Response<Full<Bytes>>;

/// The head of a request; a body is never needed.
#[derive(Debug)]
pub struct Asked<'a> {
    head: &'a Parts,
}

impl Asked<'_> {
    /// The first value of a parameter of the query. `None`: it is not there; an error where it is not UTF-8.
    pub fn parameter(&self, name: &str) -> Option<Result<Cow<'_, str>, std::str::Utf8Error>> {
        let query = self.head.uri.query()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| percent_decode_str(value).decode_utf8())
        })
    }
}

/// The answer of the one of `endpoints` that is asked for.
pub fn answer(head: &Parts, endpoints: &[Endpoint], state: &State) -> Answer {
    let path = head.uri.path();
    let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.path == path) else {
        return plain(StatusCode::NOT_FOUND, listing(endpoints));
    };
    let at_path = || endpoints.iter().filter(|endpoint| endpoint.path == path);
    // The codec sends no body in answer to HEAD.
    let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
    let Some(endpoint) = at_path().find(|endpoint| endpoint.method == *method) else {
        let allowed: Vec<_> = at_path().flat_map(|endpoint| allowed(&endpoint.method)).copied().collect();
        let allowed = allowed.join(", ");
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("{}: by {allowed}\n", endpoint.path));
        let allowed = HeaderValue::from_str(&allowed).expect("methods are made of letters");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    };
    // A browser names the page that sends a POST, whichever site it is from; tools do not (Fetch, "Origin header").
    if !method.is_safe() && head.headers.contains_key(ORIGIN) {
        return plain(StatusCode::FORBIDDEN, "not from a page in a browser\n");
    }
    (endpoint.answer)(&Asked { head }, state)
}

fn allowed(method: &Method) -> &'static [&'static str] {
    if method == Method::GET { &["GET", "HEAD"] } else { &["POST"] }
}

fn listing(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(|Endpoint { method, path, does, .. }| format!("{method} {path}: {does}\n")).collect()
}

pub fn json(value: &Value) -> Answer {
    text(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

pub fn plain(status: StatusCode, body: impl Into<String>) -> Answer {
    text(status, "text/plain; charset=utf-8", body.into())
}

pub fn text(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
