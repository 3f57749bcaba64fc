//! The least HTTP/1.1 client that can tell whether an answer is right: what it costs is taken from the proxies' neighbour core.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates;
use super::scenario::Body;

/// A connection, and what has come over it.
pub struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Wire<TcpStream> {
    pub async fn plain(at: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(at).await.with_context(|| format!("connecting to {at}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }
}

impl Wire<TlsStream<TcpStream>> {
    pub async fn tls(at: SocketAddr, connector: &TlsConnector) -> anyhow::Result<Self> {
        let tcp = Wire::plain(at).await?.stream;
        let stream = connector.connect(certificates::server_name(), tcp).await.context("TLS handshake")?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Whether the session began anew or went on from an earlier one.
    pub fn resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// GET of the small body on a connection that stays open.
    pub async fn keep(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(KEEP).await?;
        self.answer().await
    }

    /// The same as the last one on its connection; over when the other side has closed it.
    pub async fn last(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(LAST).await?;
        self.answer().await?;
        // Whether the close comes with a goodbye of TLS is the server's affair.
        let rest = self.stream.read(&mut [0; 1]).await.unwrap_or(0);
        ensure!(rest == 0, "more than the answer");
        Ok(())
    }

    async fn answer(&mut self) -> anyhow::Result<()> {
        self.buffer.clear();
        loop {
            if let Some(whole) = whole(&self.buffer)? {
                ensure!(self.buffer.len() == whole, "more than the answer");
                return Ok(());
            }
            self.buffer.reserve(4096);
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "closed before the answer was whole");
        }
    }
}

/// How long the answer is, once it is all there. Anything but a 200 with a body of the right length is an error.
fn whole(text: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = text.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let fields = std::str::from_utf8(&text[..head]).context("a head that is no text")?;
    let mut lines = fields.split("\r\n");
    let status = lines.next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "{fields}");
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().to_owned())
    });
    let Some(length) = length else { bail!("no length: {fields}") };
    ensure!(length.parse() == Ok(Body::Small.answered()), "a body of {length} bytes");
    let whole = head + 4 + Body::Small.answered() as usize;
    Ok((text.len() >= whole).then_some(whole))
}

const KEEP: &[u8] = b"GET /1k HTTP/1.1\r\nhost: callee.test\r\n\r\n";
const LAST: &[u8] = b"GET /1k HTTP/1.1\r\nhost: callee.test\r\nconnection: close\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_right_or_refused() {
        let right = [&b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n"[..], &[b'x'; 1024]].concat();
        assert_eq!(whole(&right).unwrap(), Some(right.len()));
        assert_eq!(whole(&right[..right.len() - 1]).unwrap(), None);
        assert_eq!(whole(b"HTTP/1.1 2").unwrap(), None);
        for wrong in [
            "HTTP/1.1 503 no\r\ncontent-length: 1024\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        ] {
            assert!(whole(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
