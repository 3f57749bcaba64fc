//! The one vocabulary of failure: every answer the proxy makes itself has one of these reasons.
//!
//! Owns the reason words and what each one means on the wire. The same word stands in `Proxy-Status` (RFC 9209), in the
//! `reason` label of metrics, in the access log and in `docs/errors.md`, which a test compares with this file.
//! Never decides that something failed: that is done where it is seen.

mod response;

use std::fmt;

use http::StatusCode;

pub use response::{Asker, forwarded, grpc_status, is_grpc, proxys_own, says_grpc};

/// gRPC status codes as numbers (gRPC core, `status.proto`).
pub mod grpc {
    pub const CANCELLED: u16 = 1;
    pub const UNKNOWN: u16 = 2;
    pub const DEADLINE_EXCEEDED: u16 = 4;
    pub const PERMISSION_DENIED: u16 = 7;
    pub const RESOURCE_EXHAUSTED: u16 = 8;
    pub const UNIMPLEMENTED: u16 = 12;
    pub const INTERNAL: u16 = 13;
    pub const UNAVAILABLE: u16 = 14;
    pub const DATA_LOSS: u16 = 15;
    pub const UNAUTHENTICATED: u16 = 16;
}

macro_rules! failures {
    ($($(#[doc = $doc:literal])+ $variant:ident $word:literal $status:literal $grpc:ident $proxy_status:literal $flag:literal;)*) => {
        /// Why the proxy answered by itself. Closed: a new failure chooses its word here, once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)* }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Stable: scripts, alerts and dashboards match on it.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// What it means, in a sentence or two.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)* }
            }

            pub fn status(self) -> StatusCode {
                let code: u16 = match self { $(Self::$variant => $status,)* };
                StatusCode::from_u16(code).expect("the table holds valid status codes; a test reads them all")
            }

            pub const fn grpc_status(self) -> u16 {
                match self { $(Self::$variant => grpc::$grpc,)* }
            }

            /// The proxy error type of RFC 9209 §2.3.
            pub const fn proxy_error(self) -> &'static str {
                match self { $(Self::$variant => $proxy_status,)* }
            }

            /// Envoy's response flag of the same meaning, for those who know it.
            pub const fn envoy_flag(self) -> &'static str {
                match self { $(Self::$variant => $flag,)* }
            }
        }
    };
}

failures! {
    /// No rule of the destination's routes matches the request.
    NoRoute "no_route" 404 UNIMPLEMENTED "destination_not_found" "NR";
    /// The matching rule names no backend, or all of its weights are 0.
    NoBackend "no_backend" 500 UNAVAILABLE "proxy_configuration_error" "NR";
    /// The backend drawn refers to something that does not exist or may not be used.
    BackendInvalid "backend_invalid" 500 UNAVAILABLE "proxy_configuration_error" "NC";
    /// The mesh is closed (`egress: RegistryOnly`) and does not know this destination.
    UnknownDestination "unknown_destination" 502 UNAVAILABLE "destination_not_found" "NC";
    /// The control plane could not be asked what this destination is.
    ConfigUnavailable "config_unavailable" 503 UNAVAILABLE "proxy_configuration_error" "NC";
    /// No endpoint became ready within the wait.
    NoEndpoint "no_endpoint" 503 UNAVAILABLE "destination_unavailable" "UH";
    /// The name could not be resolved.
    DnsFailed "dns_failed" 503 UNAVAILABLE "dns_error" "DF";
    /// The endpoint refused the connection, or the network said it cannot be reached.
    ConnectFailed "connect_failed" 503 UNAVAILABLE "connection_refused" "UF";
    /// No connection within the connect timeout.
    ConnectTimeout "connect_timeout" 503 UNAVAILABLE "connection_timeout" "UF";
    /// TLS towards the endpoint failed.
    UpstreamTlsFailed "upstream_tls_failed" 503 UNAVAILABLE "tls_protocol_error" "UF";
    /// The endpoint closed or reset after it was sent (part of) the request and before its response's headers.
    UpstreamReset "upstream_reset" 502 UNAVAILABLE "connection_terminated" "UC";
    /// The endpoint's answer is not valid HTTP.
    UpstreamProtocolError "upstream_protocol_error" 502 INTERNAL "http_protocol_error" "UPE";
    /// The response's header section is over the limit.
    ResponseHeadersTooLarge "response_headers_too_large" 502 INTERNAL "http_response_header_section_size" "UPE";
    /// The endpoint did not switch to the protocol the client asked for in the way it has to.
    UpgradeFailed "upgrade_failed" 502 INTERNAL "http_upgrade_failed" "UPE";
    /// gRPC needs HTTP/2 and this endpoint speaks HTTP/1 only.
    GrpcNeedsHttp2 "grpc_needs_http2" 502 UNAVAILABLE "http_protocol_error" "UPE";
    /// The request's timeout passed, all attempts included.
    RequestTimeout "request_timeout" 504 DEADLINE_EXCEEDED "http_response_timeout" "UT";
    /// The time the caller had left passed (`grpc-timeout`, `x-outrigger-timeout-ms`).
    DeadlineExceeded "deadline_exceeded" 504 DEADLINE_EXCEEDED "http_response_timeout" "UT";
    /// The exchange as a whole, a stream or tunnel above all, lived as long as it may.
    StreamTimeout "stream_timeout" 504 DEADLINE_EXCEEDED "http_response_timeout" "UMSDR";
    /// One attempt took longer than it may.
    AttemptTimeout "attempt_timeout" 504 DEADLINE_EXCEEDED "http_response_timeout" "UT";
    /// A cap of the destination was reached.
    Overloaded "overloaded" 503 UNAVAILABLE "connection_limit_reached" "UO";
    /// The proxy is shutting down and takes nothing new.
    Draining "draining" 503 UNAVAILABLE "destination_unavailable" "LH";
    /// The request came back to the proxy that sent it.
    LoopDetected "loop_detected" 502 INTERNAL "proxy_loop_detected" "LR";
    /// The port takes mTLS of the mesh only (`Strict`), and the caller came without.
    MtlsRequired "mtls_required" 403 PERMISSION_DENIED "http_request_denied" "NR";
    /// An AccessPolicy of the workload, or the Mesh's default, does not let this caller do this.
    AccessDenied "access_denied" 403 PERMISSION_DENIED "http_request_denied" "UAEX";
    /// The path can be read in two ways, and a rule of an AccessPolicy would have to compare it.
    AmbiguousPath "ambiguous_path" 403 PERMISSION_DENIED "http_request_denied" "UAEX";
    /// A rate limit of the workload has no room for the request; `Retry-After` says when it will have.
    RateLimited "rate_limited" 429 RESOURCE_EXHAUSTED "http_request_denied" "RL";
    /// As many requests are being answered as a concurrency limit of the workload allows.
    ConcurrencyLimited "concurrency_limited" 429 RESOURCE_EXHAUSTED "http_request_denied" "RL";
    /// A rate limit that instances share could not be asked for in time, and its policy refuses requests then (`failureMode: Closed`).
    LimitUndecided "limit_undecided" 503 UNAVAILABLE "http_request_denied" "RLSE";
    /// A fault of a TrafficPolicy answered, on purpose; the status is the policy's.
    FaultAbort "fault_abort" 503 UNAVAILABLE "proxy_internal_response" "FI";
    /// A fault of a TrafficPolicy reset the connection or stream, on purpose.
    FaultReset "fault_reset" 503 UNAVAILABLE "connection_terminated" "FI";
    /// A fault of a TrafficPolicy broke the answer off, on purpose.
    FaultCut "fault_cut" 503 UNAVAILABLE "connection_terminated" "FI";
    /// A fault of a TrafficPolicy made the answer's trailers unusable, on purpose.
    FaultTrailers "fault_trailers" 503 UNAVAILABLE "http_protocol_error" "FI";
    /// A fault of a TrafficPolicy refused the connection, on purpose.
    FaultRefused "fault_refused" 503 UNAVAILABLE "connection_refused" "FI";
    /// The request is not valid HTTP, or lacks what it needs (a host, a target).
    BadRequest "bad_request" 400 INTERNAL "http_request_error" "DPE";
    /// Where the body ends can be read in two ways (RFC 9112 §6.3, §11.2).
    AmbiguousFraming "ambiguous_framing" 400 INTERNAL "http_request_error" "DPE";
    /// The request's header section is over the limit.
    RequestHeadersTooLarge "request_headers_too_large" 431 RESOURCE_EXHAUSTED "http_request_error" "DPE";
    /// The client did not finish its headers in time.
    RequestHeadersTimeout "request_headers_timeout" 408 DEADLINE_EXCEEDED "http_request_error" "SI";
    /// The client stopped sending its body.
    RequestBodyStalled "request_body_stalled" 408 DEADLINE_EXCEEDED "http_request_error" "SI";
    /// The client went away before it had its answer. Logged and counted; nobody is left to be told.
    ClientClosed "client_closed" 499 CANCELLED "http_request_error" "DC";
    /// A bug of ours.
    Internal "internal" 500 INTERNAL "proxy_internal_error" "LR";
}

impl Reason {
    /// Whether it is the end of somebody's patience.
    pub const fn is_timeout(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout | Self::DeadlineExceeded | Self::StreamTimeout | Self::AttemptTimeout
        )
    }

    /// Whether a fault that a policy asks for made it up.
    pub const fn is_injected(self) -> bool {
        matches!(
            self,
            Self::FaultAbort | Self::FaultReset | Self::FaultCut | Self::FaultTrailers | Self::FaultRefused
        )
    }

    /// Whether a proxy that answers with it, on behalf of its app, spares the app something: its instance is well.
    pub const fn sheds(self) -> bool {
        matches!(self, Self::Overloaded | Self::LimitUndecided)
    }

    /// Whether the one who asked is told this word and nothing else.
    pub const fn is_confidential(self) -> bool {
        matches!(self, Self::AccessDenied | Self::AmbiguousPath)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A reason, and a sentence on this one case: who closed, which endpoint, how many are known and why none can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    /// For operators and verified mesh peers; may name endpoints and policies. Never sent by a gateway.
    pub detail: Option<Box<str>>,
}

impl Failure {
    pub fn new(reason: Reason, detail: impl Into<Box<str>>) -> Self {
        Self { reason, detail: Some(detail.into()) }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.reason),
            None => fmt::Display::fmt(&self.reason, f),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_and_a_valid_status() {
        let words: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.status().as_u16() >= 400, "{reason}");
            assert!((1..=16).contains(&reason.grpc_status()), "{reason}");
        }
    }

    /// The page promises each word to operators: nothing may stand in it that the code does not say, nor the reverse.
    #[test]
    fn the_page_lists_what_the_table_says() {
        let page = include_str!("../../docs/errors.md");
        let mut rows: BTreeMap<&str, Vec<&str>> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|row| row.split_once("` | "))
            .map(|(word, rest)| (word, rest.trim_end_matches(" |").split(" | ").collect()))
            .collect();
        for reason in Reason::ALL {
            let word = reason.word();
            let row = rows.remove(word).unwrap_or_else(|| panic!("docs/errors.md lacks `{word}`"));
            let [status, grpc, proxy_error, flag, meaning, look_at] = row[..] else {
                panic!("the row of `{word}` has {} cells, not 7", row.len() + 1)
            };
            assert_eq!(status, reason.status().as_str(), "{word}");
            assert_eq!(grpc, reason.grpc_status().to_string(), "{word}");
            assert_eq!(proxy_error, format!("`{}`", reason.proxy_error()), "{word}");
            assert_eq!(flag, reason.envoy_flag(), "{word}");
            assert_eq!(meaning, reason.meaning(), "{word}");
            assert!(look_at.len() > 10, "{word} says nothing to look at");
        }
        assert!(rows.is_empty(), "docs/errors.md lists words the proxy never says: {:?}", rows.keys());
    }
}
