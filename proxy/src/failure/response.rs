//! What a failure looks like to whoever asked: an HTTP response with `Proxy-Status`, or a gRPC status.
//!
//! Owns the wire form only. How much may be told is decided by who asks: an outsider behind a gateway gets the word alone, a
//! sidecar's app and a verified mesh peer also get the sentence about this one case.

use std::fmt::Write;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Failure, Reason};
use crate::body::Body;
use crate::field::{self, Known};

/// Who is told of a failure, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Told by a gRPC status, trailers-only (gRPC over HTTP/2, "Responses").
    grpc: bool,
    /// A response to HEAD has no body (RFC 9110 §9.3.2).
    head: bool,
    details: bool,
}

impl Asker {
    /// `details`: whether it may read about endpoints and policies. Never true for a gateway's clients.
    pub fn new(method: &Method, headers: &HeaderMap, details: bool) -> Self {
        Self { grpc: is_grpc(headers), head: method == Method::HEAD, details }
    }

    /// The same, of a request whose fields were looked at.
    pub fn known(method: &Method, known: Known, details: bool) -> Self {
        Self { grpc: known.has(Known::GRPC), head: method == Method::HEAD, details }
    }
}

impl Failure {
    pub fn response(&self, asker: Asker) -> Response<Body> {
        self.injected(asker, self.reason.status(), self.reason.grpc_status())
    }

    /// The same with another status than the reason's: somebody wants to see what becomes of it.
    pub fn injected(&self, asker: Asker, status: StatusCode, grpc: u16) -> Response<Body> {
        let reason = self.reason;
        // Who is refused by a policy learns nothing about it, whoever that is.
        let asker = Asker { details: asker.details && !reason.is_confidential(), ..asker };
        let detail = self.detail.as_deref().filter(|_| asker.details);
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(PROXY_STATUS, proxy_status(self, detail));
        if asker.grpc {
            let message = detail.map_or_else(|| reason.word().into(), |d| format!("{reason}: {d}"));
            let message = utf8_percent_encode(&message, GRPC_MESSAGE).to_string();
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(grpc));
            headers.insert(GRPC_MESSAGE_NAME, ascii(message));
            return response;
        }
        let text = match detail {
            Some(detail) => format!("{reason}: {detail}\n"),
            None if asker.details => format!("{reason}: {}\n", reason.meaning()),
            None => format!("{reason}\n"),
        };
        *response.status_mut() = status;
        // These have no body, whatever is said of it (RFC 9110 §6.4.1, §15.3.6).
        if matches!(status.as_u16(), 204 | 205 | 304) {
            return response;
        }
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        if !asker.head {
            *response.body_mut() = text.into();
        }
        response
    }

    /// How a gRPC call ends that has begun to be answered.
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert(GRPC_STATUS, HeaderValue::from(self.reason.grpc_status()));
        trailers.insert(GRPC_MESSAGE_NAME, HeaderValue::from_static(self.reason.word()));
        trailers
    }
}

/// `application/grpc` and its kin (`application/grpc+proto`), but not gRPC-Web, whose callers read HTTP.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(says_grpc)
}

/// Of a `Content-Type`.
pub fn says_grpc(kind: &HeaderValue) -> bool {
    kind.as_bytes()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';' | b' '))
}

/// How a gRPC call ended, if these headers or trailers say so.
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    field::find(headers, GRPC_STATUS.as_str())?.to_str().ok()?.parse().ok()
}

/// What the proxy next to us on the way to the app answered by itself, if it did.
///
/// It is the last member of `Proxy-Status` (RFC 9209 §2: who is closer to the user writes behind the others), in a field line of its own: an inbound proxy puts
/// [`forwarded`] behind whatever its app wrote, so that no app speaks for the proxy in front of it.
pub fn proxys_own(headers: &HeaderMap) -> Option<Reason> {
    let last = headers.get_all(PROXY_STATUS).iter().next_back()?.to_str().ok()?;
    let (_, behind) = last.strip_prefix("outrigger; ")?.split_once("; reason=\"")?;
    let (word, _) = behind.split_once('"')?;
    Reason::ALL.iter().copied().find(|reason| reason.word() == word)
}

/// Says behind what stands in `Proxy-Status` that it was passed on.
pub fn forwarded(headers: &mut HeaderMap) {
    headers.append(PROXY_STATUS, HeaderValue::from_static("outrigger"));
}

/// `outrigger; error=TYPE; reason="WORD"; details="SENTENCE"`: the type is RFC 9209's, the word, finer than the types, is a
/// parameter of our own (§2.1.5 lets a proxy add some).
fn proxy_status(failure: &Failure, detail: Option<&str>) -> HeaderValue {
    let reason = failure.reason;
    let mut text = format!("outrigger; error={}; reason=\"{reason}\"", reason.proxy_error());
    if let Some(detail) = detail {
        text.push_str("; details=\"");
        for c in detail.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                ' '..='~' => text.push(c),
                // A String of RFC 8941 §3.3.3 is printable ASCII.
                _ => text.push('?'),
            }
        }
        let _ = text.write_char('"');
    }
    ascii(text)
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("everything outside printable ASCII was replaced")
}

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE_NAME: HeaderName = HeaderName::from_static("grpc-message");
/// gRPC over HTTP/2, `Percent-Byte-Unencoded`: printable ASCII without `%`.
const GRPC_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    fn asked(method: Method, content_type: Option<&'static str>, details: bool) -> Asker {
        let mut headers = HeaderMap::new();
        if let Some(kind) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Asker::new(&method, &headers, details)
    }

    fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    #[test]
    fn an_app_reads_the_details_and_an_outsider_the_word() {
        let failure = Failure::new(Reason::ConnectFailed, "10.0.0.1:9080 said \"no\" – twice");
        let inside = failure.response(asked(Method::GET, None, true));
        assert_eq!(inside.status(), 503);
        assert_eq!(
            header(&inside, "proxy-status"),
            r#"outrigger; error=connection_refused; reason="connect_failed"; details="10.0.0.1:9080 said \"no\" ? twice""#
        );
        let length: u64 = header(&inside, "content-length").parse().expect("a number");
        assert_eq!(inside.body().size_hint().exact(), Some(length));

        let outside = failure.response(asked(Method::GET, None, false));
        assert_eq!(
            header(&outside, "proxy-status"),
            r#"outrigger; error=connection_refused; reason="connect_failed""#
        );
        assert_eq!(header(&outside, "content-length"), "connect_failed\n".len().to_string());
    }

    #[test]
    fn who_is_denied_access_reads_the_word_whoever_it_is() {
        let failure = Failure::new(Reason::AccessDenied, "AccessPolicy/default/secret spec.rules[0]");
        for kind in [None, Some("application/grpc")] {
            let response = failure.response(asked(Method::GET, kind, true));
            assert!(!format!("{response:?}").contains("secret"), "{response:?}");
        }
        let response = failure.response(asked(Method::GET, None, true));
        assert_eq!(header(&response, "content-length"), "access_denied\n".len().to_string());
    }

    #[test]
    fn head_gets_the_length_without_the_body() {
        let response = Failure::from(Reason::NoRoute).response(asked(Method::HEAD, None, true));
        assert_eq!(response.status(), 404);
        assert!(response.body().is_end_stream());
        assert_ne!(header(&response, "content-length"), "0");
    }

    #[test]
    fn a_grpc_caller_gets_a_status_and_nothing_else() {
        let failure = Failure::new(Reason::NoEndpoint, "0 of 3 ready (100%)\nmore é");
        let response = failure.response(asked(Method::POST, Some("application/grpc+proto"), true));
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "application/grpc");
        assert_eq!(header(&response, "grpc-status"), "14");
        assert_eq!(header(&response, "grpc-message"), "no_endpoint: 0 of 3 ready (100%25)%0Amore %C3%A9");
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (kind, want) in [
            ("application/grpc", true),
            ("application/grpc+json", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("text/plain", false),
        ] {
            assert_eq!(asked(Method::POST, Some(kind), true).grpc, want, "{kind}");
        }
    }

    #[test]
    fn what_a_proxy_says_of_itself_is_known_from_what_it_passes_on() {
        let said = |lines: &[&'static str]| {
            let line = |line: &&'static str| (PROXY_STATUS, HeaderValue::from_static(line));
            proxys_own(&lines.iter().map(line).collect())
        };
        let shed = "outrigger; error=connection_limit_reached; reason=\"overloaded\"";
        assert_eq!(said(&[shed]), Some(Reason::Overloaded));
        assert_eq!(said(&["cache; hit", shed]), Some(Reason::Overloaded), "it is the last word that counts");
        for lines in [
            &[shed, "outrigger"][..],
            &["outrigger"],
            &["other; error=connection_limit_reached; reason=\"overloaded\""],
            &["outrigger; error=connection_refused; details=\"; reason=\\\"overloaded\\\"\""],
            &["outrigger; error=connection_refused; reason=\"nonsense\""],
            &[],
        ] {
            assert_eq!(said(lines), None, "{lines:?}");
        }
        let mut headers: HeaderMap = [(PROXY_STATUS, HeaderValue::from_static(shed))].into_iter().collect();
        forwarded(&mut headers);
        assert_eq!(proxys_own(&headers), None);
        assert_eq!(headers.get(PROXY_STATUS).map(HeaderValue::as_bytes), Some(shed.as_bytes()), "and stays");
        for reason in Reason::ALL {
            let answer = Failure::new(*reason, "a \"word\"").response(asked(Method::GET, None, true));
            assert_eq!(proxys_own(answer.headers()), Some(*reason));
        }
    }

    #[test]
    fn every_reason_can_be_told() {
        for reason in Reason::ALL {
            for kind in [None, Some("application/grpc")] {
                Failure::new(*reason, "\u{0}\t\u{7f}").response(asked(Method::GET, kind, true));
            }
        }
    }
}
