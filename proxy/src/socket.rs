//! A TCP connection, accepted or opened, whose peer may vanish: its options, and how long the kernel waits for an answer to what was sent.
//!
//! Linux gives up what is not acknowledged TCP_USER_TIMEOUT after it was first sent again, and an idle connection at the first keepalive probe by which that time
//! has passed since anything came (tcp_timer.c: `tcp_write_timeout`, `tcp_keepalive_timer`; with the option the number of probes means nothing). While anything is
//! unacknowledged no probe is sent. So a connection that is used the moment before a probe would have ended it lives for both times together, and each may be
//! half of the 30 s that are promised. But the same option ends a connection whose peer is well and reads nothing (`tcp_probe_timer`), and a reader may pause for
//! longer than that. A peer that was sent no more than it has room for cannot be such a one: only from then on it gets the whole time, until something comes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::upstream::relay::Resettable;

/// First probe 8 s after anything came, the second one at 13 s ends it. Timers of the kernel run late by up to an eighth: at most 15 s.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(8))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// How long what was sent may be unacknowledged (design.md section 5: a dead peer is found in 30 s, whenever it died).
pub const UNANSWERED: Duration = Duration::from_secs(13);

/// The same where the peer may be well and its buffers full.
pub const STALLED: Duration = Duration::from_secs(30);

/// More than this, and its buffers may be full: half of what Linux begins with (`tcp_rmem`), and what others do.
const ROOM: usize = 64 * 1024;

/// Sets the options; accepted connections have those of their listening socket.
pub fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_user_timeout(Some(UNANSWERED))
}

/// A connection with these options.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Bytes written since anything was read; from [`ROOM`] on `STALLED` is set.
    unheard: usize,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, unheard: 0 }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn written(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &result {
            let before = self.unheard;
            self.unheard = before.saturating_add(*written);
            if before < ROOM && self.unheard >= ROOM {
                self.wait(STALLED);
            }
        }
        result
    }

    fn heard(&mut self) {
        if std::mem::take(&mut self.unheard) >= ROOM {
            self.wait(UNANSWERED);
        }
    }

    #[cold]
    fn wait(&self, time: Duration) {
        // Not on a socket that lives; of one that does not, reading and writing will tell.
        let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(time));
    }
}

impl Resettable for Socket {
    fn reset(&mut self) {
        self.stream.reset();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if result.is_ready() {
            self.heard();
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_may_be_full_is_given_the_whole_time_until_it_is_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(at), listener.accept());
        let (stream, (mut peer, _)) = (stream.unwrap(), accepted.unwrap());
        set_options(&SockRef::from(&stream)).unwrap();
        let mut socket = Socket::new(stream);
        let timeout = |socket: &Socket| SockRef::from(socket.stream()).tcp_user_timeout().unwrap().unwrap();
        let (mut read, chunk) = (vec![0; ROOM], vec![0; ROOM / 2]);
        for _ in 0..2 {
            assert_eq!(timeout(&socket), UNANSWERED);
            socket.write_all(&chunk).await.unwrap();
            assert_eq!(timeout(&socket), UNANSWERED, "there is room for that");
            socket.write_all(&chunk).await.unwrap();
            assert_eq!(timeout(&socket), STALLED);
            peer.read_exact(&mut read).await.unwrap();
            assert_eq!(timeout(&socket), STALLED, "nobody knows that it read");
            peer.write_all(b"x").await.unwrap();
            socket.read_exact(&mut read[..1]).await.unwrap();
        }
        assert_eq!(timeout(&socket), UNANSWERED);
    }
}
