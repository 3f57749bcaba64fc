//! What a response says of the limits it met: the fields `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers, lists of structured
//! fields), `Retry-After` (RFC 9110 §10.2.3) and, to gRPC callers, `grpc-retry-pushback-ms` (gRPC proposal A6).

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Response};
use outrigger_config::model::{LimitHeaders, Limits, Rate};

use super::{Counted, gcra};

/// The parts of the fields that do not change.
#[derive(Debug)]
pub(super) struct Advice(Vec<Policy>);

#[derive(Debug)]
struct Policy {
    headers: LimitHeaders,
    /// `"NAME"`
    name: Box<str>,
    /// `"NAME";q=50;w=1` of the limit and of each of its overrides, the unlimited ones left empty.
    items: Vec<HeaderValue>,
}

impl Advice {
    pub(super) fn new(limits: &Limits) -> Self {
        let policy = |rate: &outrigger_config::model::RateLimit| {
            let limit = &rate.limit;
            // A limit's name is printable ASCII: in a String (RFC 9651 §3.3.3) two of these characters are escaped.
            let name = format!("\"{}\"", limit.name.replace('\\', "\\\\").replace('"', "\\\""));
            let item = |rate: Option<Rate>| {
                let item = rate.map(|rate| format!("{name};q={};w={}", rate.tokens, rate.per.as_secs()));
                HeaderValue::try_from(item.unwrap_or_default()).expect("a limit's name is printable ASCII")
            };
            let given = limit.overrides.iter().map(|given| item(given.allowed));
            let items = std::iter::once(item(Some(limit.allowed))).chain(given).collect();
            Policy { headers: rate.headers, name: name.into(), items }
        };
        Self(limits.rates.iter().map(policy).collect())
    }

    pub(super) fn headers(&self, index: usize) -> LimitHeaders {
        self.0[index].headers
    }

    pub(super) fn tell<B>(&self, counted: &Counted, response: &mut Response<B>) {
        let headers = response.headers_mut();
        if let Some(wait) = counted.wait {
            if headers.contains_key("grpc-status") {
                let ms = wait.div_ceil(1_000_000).max(1);
                headers.insert(PUSHBACK, HeaderValue::from(ms));
            } else {
                headers.insert(RETRY_AFTER, HeaderValue::from(gcra::seconds(wait).max(1)));
            }
        }
        let mut said = Vec::new();
        for taken in counted.taken.iter().filter(|taken| counted.headers(taken)) {
            let policy = &self.0[taken.index];
            let item = &policy.items[taken.place.given.map_or(0, |given| given + 1)];
            // The app behind may have limits, and fields, of its own: one line each is one list (RFC 9651 §3.1).
            headers.append(POLICY, item.clone());
            if said.is_empty() {
                said.reserve_exact(counted.taken.len() * (policy.name.len() + NUMBERS));
            } else {
                said.extend(b", ");
            }
            said.extend(policy.name.as_bytes());
            said.extend(b";r=");
            decimal(&mut said, taken.level.left.into());
            said.extend(b";t=");
            decimal(&mut said, gcra::seconds(taken.level.full_in));
        }
        if !said.is_empty() {
            let said = HeaderValue::from_maybe_shared(Bytes::from(said));
            headers.append(LIMIT, said.expect("names and numbers are printable ASCII"));
        }
    }
}

const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// What stands behind a limit's name at most, but for numbers that nobody has: `;r=4294967295;t=31536000, `.
const NUMBERS: usize = 32;

/// As `write!` does, which takes some hundred instructions more for each number, on each response.
fn decimal(text: &mut Vec<u8>, mut number: u64) {
    let (mut digits, mut from) = ([0; 20], 20);
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return text.extend_from_slice(&digits[from..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_everywhere() {
        for number in [0, 1, 9, 10, 4_294_967_295, 10_000_000_000, u64::MAX] {
            let mut text = b"t=".to_vec();
            decimal(&mut text, number);
            assert_eq!(text, format!("t={number}").into_bytes());
        }
    }
}
