//! The server name and the protocols in a TLS ClientHello, read without taking part in the handshake (RFC 8446 §4.1.2, RFC 6066 §3,
//! RFC 7301 §3.1).
//!
//! Owns parsing only: whoever reads the bytes keeps and replays them. A ClientHello may span several records and, with a
//! post-quantum key share, several segments; it is collected up to [`LIMIT`]. What cannot be read is not refused here: it is
//! TLS without a name.

use std::sync::Arc;

use crate::identity::{Offered, PLAIN_HTTP, Token};

/// Most bytes of a connection that are looked at to find the end of its ClientHello.
pub const LIMIT: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The ClientHello goes on behind what is there.
    Incomplete,
    /// `None` where the client named no server (or an address, which SNI does not allow).
    Complete { sni: Option<Arc<str>>, offered: Offered },
    /// These bytes are no ClientHello.
    Invalid,
}

/// Whether a connection that begins with these bytes may be TLS: a handshake record of version 3.x.
pub fn looks_like_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [HANDSHAKE, 3, ..])
}

pub fn parse(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(message) => {
            let (sni, offered) = read(&message).unwrap_or_default();
            Hello::Complete { sni, offered }
        }
        Err(Stop::Incomplete) if bytes.len() >= LIMIT => Hello::Invalid,
        Err(Stop::Incomplete) => Hello::Incomplete,
        Err(Stop::Invalid) => Hello::Invalid,
    }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// RFC 8446 §5.1.
const RECORD_LIMIT: usize = 16 * 1024 + 256;

enum Stop {
    Incomplete,
    Invalid,
}

/// The handshake message in the records, without its header.
fn message(mut bytes: &[u8]) -> Result<Vec<u8>, Stop> {
    let mut message = Vec::new();
    loop {
        let Some((header, rest)) = bytes.split_at_checked(5) else { return Err(Stop::Incomplete) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE || header[1] != 3 || length == 0 || length > RECORD_LIMIT {
            return Err(Stop::Invalid);
        }
        let record = &rest[..length.min(rest.len())];
        message.extend_from_slice(record);
        if let [kind, a, b, c, ..] = message[..] {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind != CLIENT_HELLO || length > LIMIT {
                return Err(Stop::Invalid);
            }
            if message.len() >= 4 + length {
                return Ok(message.drain(4..4 + length).collect());
            }
        }
        bytes = rest.get(length..).ok_or(Stop::Incomplete)?;
    }
}

/// The name and the protocols; what cannot be read is missing.
fn read(message: &[u8]) -> Option<(Option<Arc<str>>, Offered)> {
    let mut at = Reader(message);
    at.take(2 + 32)?; // version, random
    at.vector8()?; // session id
    at.vector16()?; // cipher suites
    at.vector8()?; // compression methods
    let (mut name, mut protocols) = (None, Offered::default());
    let mut extensions = at.vector16().map(Reader)?;
    while let (Some(kind), Some(body)) = (extensions.u16(), extensions.vector16()) {
        match kind {
            SERVER_NAME => name = server_name(body),
            PROTOCOLS => protocols = offered(body),
            _ => {}
        }
    }
    Some((name, protocols))
}

const SERVER_NAME: u16 = 0;
const PROTOCOLS: u16 = 16;

fn server_name(extension: &[u8]) -> Option<Arc<str>> {
    let mut names = Reader(Reader(extension).vector16()?);
    loop {
        let kind = names.take(1)?[0];
        let name = names.vector16()?;
        if kind == 0 {
            return host_name(name);
        }
    }
}

fn offered(extension: &[u8]) -> Offered {
    let mut offered = Offered::default();
    let mut names = Reader(Reader(extension).vector16().unwrap_or_default());
    while let Some(name) = names.vector8() {
        offered.mesh |= Token::of(name).is_some();
        offered.http |= PLAIN_HTTP.contains(&name);
    }
    offered
}

/// In lower case, without a trailing dot.
fn host_name(bytes: &[u8]) -> Option<Arc<str>> {
    let name = str::from_utf8(bytes).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let valid = (1..=253).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    valid.then(|| name.to_ascii_lowercase().into())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls_pki_types::ServerName;

    use super::*;

    /// The first flight of a real client.
    fn client_hello(name: &'static str) -> Vec<u8> {
        offering(name, &[])
    }

    fn offering(name: &'static str, protocols: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(name).expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("into memory");
        bytes
    }

    fn complete(sni: Option<&str>) -> Hello {
        Hello::Complete { sni: sni.map(Into::into), offered: Offered::default() }
    }

    #[test]
    fn the_protocols_tell_the_mesh_from_others() {
        for (protocols, mesh, http) in [
            (&[][..], false, false),
            (&[&b"h2"[..], b"http/1.1"], false, true),
            (&[b"istio"], true, false),
            (&[b"istio-peer-exchange", b"istio"], true, false),
            (&[b"istio-h2"], true, false),
            (&[b"istio-http/1.0"], true, false),
            (&[b"istio-http/1.1", b"istio", b"http/1.1"], true, true),
            (&[b"istio2", b"xistio", b"mqtt"], false, false), // whole names only
        ] {
            let Hello::Complete { offered, .. } = parse(&offering("a.test", protocols)) else {
                panic!("{protocols:?} cannot be read")
            };
            assert_eq!(offered, Offered { mesh, http }, "{protocols:?}");
        }
    }

    #[test]
    fn the_name_is_found_once_the_last_byte_is_there_and_not_before() {
        let bytes = client_hello("Reviews.Example.com");
        assert!(bytes.len() > 1_200, "with a post-quantum key share it spans segments");
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Hello::Incomplete, "{end} of {}", bytes.len());
        }
        let want = complete(Some("reviews.example.com"));
        assert_eq!(parse(&bytes), want);
        assert_eq!(parse(&[&bytes[..], b"early data"].concat()), want);
    }

    #[test]
    fn a_message_in_many_small_records_is_put_together() {
        let bytes = client_hello("a.test");
        let records: Vec<u8> = bytes[5..]
            .chunks(7)
            .flat_map(|part| [&[HANDSHAKE, 3, 1, 0, part.len() as u8][..], part].concat())
            .collect();
        assert_eq!(parse(&records), complete(Some("a.test")));
    }

    #[test]
    fn an_address_is_no_name() {
        assert_eq!(parse(&client_hello("127.0.0.1")), complete(None));
    }

    #[test]
    fn what_is_not_tls_is_told_apart() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], &[HANDSHAKE, 3, 1, 0, 0], &[HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0]]
        {
            assert_eq!(parse(bytes), Hello::Invalid, "{bytes:?}");
        }
        // A hello that never ends is not waited for beyond the limit.
        let mut endless = vec![HANDSHAKE, 3, 1, 0x40, 0x00, CLIENT_HELLO, 0, 0x3f, 0xff];
        endless.resize(LIMIT, 0);
        assert_eq!(parse(&endless), Hello::Invalid);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            parse(&bytes);
            read(&bytes);
        }
    }
}
