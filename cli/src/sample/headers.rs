//! The request headers an app passes on to the apps it calls, so that a trace stays one trace and a route may look at
//! the user at any depth.

use http::HeaderMap;

/// W3C trace context, Zipkin's B3 in both forms, the request id, and Bookinfo's own `end-user`.
const PASSED_ON: &[&str] = &[
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    END_USER,
];

/// Who is logged in; Bookinfo's routes match on it.
pub const END_USER: &str = "end-user";

pub fn passed_on(received: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for &name in PASSED_ON {
        for value in received.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn trace_headers_and_the_user_go_on_and_nothing_else_does() {
        let mut received = HeaderMap::new();
        for name in ["x-b3-traceid", "traceparent", "end-user", "user-agent", "cookie", "authorization"] {
            received.insert(name, HeaderValue::from_static("v"));
        }
        received.append("tracestate", HeaderValue::from_static("a=1"));
        received.append("tracestate", HeaderValue::from_static("b=2"));
        let sent = passed_on(&received);
        assert_eq!(sent.get_all("tracestate").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
        let mut names: Vec<_> = sent.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["end-user", "traceparent", "tracestate", "x-b3-traceid"]);
    }
}
