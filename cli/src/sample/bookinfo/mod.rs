//! Bookinfo: a book shop's page made of four services, with the endpoints and timeouts of the well-known sample.
//!
//! `productpage` calls `details` and `reviews`; `reviews` v2 and v3 call `ratings`. Each answers `/health`.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::body::{self, Body};

pub mod details;
pub mod productpage;
pub mod ratings;
pub mod reviews;

#[cfg(test)]
mod tests;

/// The usual port of all four.
const PORT: u16 = 9080;

/// `/NOUN/ID` where the id is a number; what follows the noun, else.
fn product_id<'a>(path: &'a str, noun: &str) -> Option<Result<u64, &'a str>> {
    let rest = path.strip_prefix('/')?.strip_prefix(noun)?.strip_prefix('/')?;
    Some(rest.parse().map_err(|_| rest))
}

fn healthy(app: &str) -> Response<Body> {
    body::json(StatusCode::OK, &json!({"status": format!("{app} is healthy")}))
}

fn not_numeric() -> Response<Body> {
    body::json(StatusCode::BAD_REQUEST, &json!({"error": "please provide a numeric product id"}))
}

fn not_found() -> Response<Body> {
    body::json(StatusCode::NOT_FOUND, &json!({"error": "no such resource"}))
}

fn not_allowed() -> Response<Body> {
    body::json(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "method not allowed"}))
}

/// A GET of `path` below the service's base address, with `headers`.
fn get(base: &Uri, path: &str, headers: HeaderMap) -> Result<Request<Bytes>, http::Error> {
    let base = base.to_string();
    let mut request = Request::get(format!("{}{path}", base.trim_end_matches('/'))).body(Bytes::new())?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The answer as JSON if it is a 200 with JSON.
fn json_of(response: &Response<Bytes>) -> Option<Value> {
    (response.status() == StatusCode::OK).then(|| serde_json::from_slice(response.body()).ok()).flatten()
}

/// A base address given on the command line.
fn base_url(text: &str) -> Result<Uri, String> {
    match text.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.authority().is_some() && uri.query().is_none() => {
            Ok(uri)
        }
        _ => Err("expected http://HOST:PORT".to_owned()),
    }
}
