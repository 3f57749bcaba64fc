//! What a port was declared to speak: `appProtocol`, then the port's name, then numbers on which the server speaks first.
//!
//! What none of them says is left to the bytes ([`Protocol::Detect`]).

use crate::model::Protocol;

/// Ports of protocols in which the server speaks first, so that waiting for the client's first bytes would stall them: SMTP, MySQL,
/// its replication, PostgreSQL, Redis, Elasticsearch's transport, memcached, MongoDB.
pub const SERVER_FIRST: [u16; 9] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211, 27017];

/// `numbers` are the port as callers see it and, where it is known, the app's.
pub fn declared(app_protocol: Option<&str>, name: Option<&str>, numbers: &[u16]) -> Protocol {
    app_protocol
        .and_then(by_app_protocol)
        .or_else(|| name.and_then(by_name))
        .unwrap_or_else(|| by_number(numbers))
}

/// The standard names of KEP-3726, IANA's service names and the words the other meshes take, in any case.
fn by_app_protocol(word: &str) -> Option<Protocol> {
    let word = word.to_ascii_lowercase();
    // `kubernetes.io/h2c`; a vendor's own prefix says nothing that we know.
    match word.split_once('/') {
        Some(("kubernetes.io", standard)) => by_word(standard),
        Some(_) => None,
        None => by_word(&word),
    }
}

/// `PROTOCOL` or `PROTOCOL-ANYTHING`, as Istio reads port names.
fn by_name(name: &str) -> Option<Protocol> {
    let name = name.to_ascii_lowercase();
    // The one protocol with a dash in its own name.
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return by_word("grpc-web");
    }
    by_word(name.split('-').next().unwrap_or_default())
}

fn by_word(word: &str) -> Option<Protocol> {
    Some(match word {
        "http" | "http1" | "ws" | "grpc-web" => Protocol::Http,
        "http2" | "h2c" | "grpc" => Protocol::Http2,
        "https" | "wss" | "tls" => Protocol::Tls,
        "tcp" | "mongo" | "mongodb" | "mysql" | "postgres" | "postgresql" | "redis" | "smtp"
        | "memcached" | "kafka" | "amqp" => Protocol::Tcp,
        _ => return None,
    })
}

fn by_number(numbers: &[u16]) -> Protocol {
    if numbers.iter().any(|number| SERVER_FIRST.contains(number)) { Protocol::Tcp } else { Protocol::Detect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_port_is_declared_to_speak() {
        use Protocol::{Detect, Http, Http2, Tcp, Tls};
        for (app_protocol, name, numbers, want) in [
            (Some("http"), Some("tcp"), &[80][..], Http), // appProtocol before the name
            (Some("kubernetes.io/h2c"), None, &[80], Http2),
            (Some("kubernetes.io/ws"), None, &[80], Http),
            (Some("kubernetes.io/wss"), None, &[80], Tls),
            (Some("HTTPS"), None, &[80], Tls),
            (Some("example.com/http"), None, &[80], Detect), // a vendor's word
            (Some("made-up"), Some("grpc-api"), &[80], Http2), // an unknown word leaves it to the name
            (None, Some("http-web"), &[3306], Http),         // the name before the number
            (None, Some("grpc-web"), &[80], Http),
            (None, Some("httpx"), &[80], Detect), // not `http-x`
            (None, Some("web"), &[80, 5432], Tcp),
            (None, None, &[8080], Detect),
        ] {
            assert_eq!(declared(app_protocol, name, numbers), want, "{app_protocol:?} {name:?} {numbers:?}");
        }
    }
}
