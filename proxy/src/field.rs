//! A field of a message, found by comparing names.
//!
//! A map finds a name by hashing it letter by letter, which for `x-forwarded-for` costs as much as comparing it with the names of a whole usual head:
//! a name of another length is dismissed at once. For names that most messages do not have; never for one that a policy gives.

use http::header::{self, HeaderMap, HeaderValue};

use crate::failure::says_grpc;

/// The first value of `name`, which is in lower case.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    headers.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value)
}

/// Which fields a message has of those a proxy has to do with. To look once at each name it has costs less than to search for each of these, most of
/// which are never there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known(u32);

impl Known {
    pub const CONNECTION: u32 = 1;
    /// One of those that concern one hop and have no meaning beyond it, but for `Connection` and `TE`.
    pub const HOP: u32 = 1 << 1;
    pub const TE: u32 = 1 << 2;
    pub const EXPECT: u32 = 1 << 3;
    pub const FORWARDED_FOR: u32 = 1 << 4;
    pub const FORWARDED_PROTO: u32 = 1 << 5;
    pub const CLIENT_CERTIFICATE: u32 = 1 << 6;
    pub const ATTEMPT: u32 = 1 << 7;
    pub const REQUEST_ID: u32 = 1 << 8;
    pub const PROXY_STATUS: u32 = 1 << 9;
    pub const HOST: u32 = 1 << 10;
    /// It has more than one `Host`.
    pub const HOSTS: u32 = 1 << 11;
    pub const CONTENT_LENGTH: u32 = 1 << 12;
    /// It is of gRPC, as its `Content-Type` says.
    pub const GRPC: u32 = 1 << 13;
    pub const GRPC_STATUS: u32 = 1 << 14;
    /// One of the two fields of a deadline.
    pub const DEADLINE: u32 = 1 << 15;

    pub fn of(headers: &HeaderMap) -> Self {
        let mut known = 0;
        for (name, value) in headers {
            known |= match *name {
                header::HOST if known & Self::HOST != 0 => Self::HOSTS,
                header::HOST => Self::HOST,
                // The first one counts, as everywhere.
                header::CONTENT_TYPE if known & CONTENT_TYPE == 0 => {
                    CONTENT_TYPE | if says_grpc(value) { Self::GRPC } else { 0 }
                }
                header::CONTENT_LENGTH => Self::CONTENT_LENGTH,
                header::CONNECTION => Self::CONNECTION,
                header::TE => Self::TE,
                header::EXPECT => Self::EXPECT,
                header::UPGRADE
                | header::TRANSFER_ENCODING
                | header::PROXY_AUTHENTICATE
                | header::PROXY_AUTHORIZATION => Self::HOP,
                header::ACCEPT
                | header::ACCEPT_ENCODING
                | header::ACCEPT_RANGES
                | header::CACHE_CONTROL
                | header::CONTENT_TYPE
                | header::DATE
                | header::ETAG
                | header::LAST_MODIFIED
                | header::SERVER
                | header::USER_AGENT => 0,
                _ => match name.as_str() {
                    "keep-alive" | "proxy-connection" => Self::HOP,
                    "x-forwarded-for" => Self::FORWARDED_FOR,
                    "x-forwarded-proto" => Self::FORWARDED_PROTO,
                    "x-forwarded-client-cert" => Self::CLIENT_CERTIFICATE,
                    "x-outrigger-attempt" => Self::ATTEMPT,
                    "x-request-id" => Self::REQUEST_ID,
                    "proxy-status" => Self::PROXY_STATUS,
                    "grpc-status" => Self::GRPC_STATUS,
                    "grpc-timeout" | "x-outrigger-timeout-ms" => Self::DEADLINE,
                    _ => 0,
                },
            };
        }
        Self(known)
    }

    pub fn has(self, fields: u32) -> bool {
        self.0 & fields != 0
    }
}

const CONTENT_TYPE: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::is_grpc;

    #[test]
    fn it_finds_what_the_map_finds() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("te", "trailers"), ("x-one", "1"), ("X-One", "2"), ("content-type", "a/b")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        for name in ["te", "x-one", "content-type", "x-on", "x-one-more", "tf", ""] {
            assert_eq!(find(&headers, name), headers.get(name), "{name}");
        }
    }

    #[test]
    fn each_field_is_known_by_its_name_and_no_other() {
        for (name, fields) in [
            ("connection", Known::CONNECTION),
            ("keep-alive", Known::HOP),
            ("proxy-connection", Known::HOP),
            ("proxy-authenticate", Known::HOP),
            ("proxy-authorization", Known::HOP),
            ("transfer-encoding", Known::HOP),
            ("upgrade", Known::HOP),
            ("te", Known::TE),
            ("expect", Known::EXPECT),
            ("x-forwarded-for", Known::FORWARDED_FOR),
            ("x-forwarded-proto", Known::FORWARDED_PROTO),
            ("x-forwarded-client-cert", Known::CLIENT_CERTIFICATE),
            ("x-outrigger-attempt", Known::ATTEMPT),
            ("x-request-id", Known::REQUEST_ID),
            ("proxy-status", Known::PROXY_STATUS),
            ("host", Known::HOST),
            ("content-length", Known::CONTENT_LENGTH),
            ("grpc-status", Known::GRPC_STATUS),
            ("grpc-timeout", Known::DEADLINE),
            ("x-outrigger-timeout-ms", Known::DEADLINE),
            ("accept", 0),
            ("x-forwarded-fox", 0),
        ] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static("1"))]);
            assert_eq!(Known::of(&headers), Known(fields), "{name}");
        }
        let mut hosts = HeaderMap::new();
        hosts.append(header::HOST, HeaderValue::from_static("a"));
        assert!(!Known::of(&hosts).has(Known::HOSTS));
        hosts.append(header::HOST, HeaderValue::from_static("a"));
        assert!(Known::of(&hosts).has(Known::HOSTS));
    }

    #[test]
    fn grpc_is_what_the_first_content_type_says() {
        for types in
            [&["application/grpc"][..], &["application/grpc+proto", "a/b"], &["a/b", "application/grpc"]]
        {
            let mut headers = HeaderMap::new();
            for kind in types {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            assert_eq!(Known::of(&headers).has(Known::GRPC), is_grpc(&headers), "{types:?}");
        }
    }
}
