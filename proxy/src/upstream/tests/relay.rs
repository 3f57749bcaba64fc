use std::pin::Pin;
use std::task::{Context, Poll};

use super::*;
use crate::upstream::relay::{Relayed, relay};

/// Two sockets with a relay between them, and what becomes of the relay.
async fn tied()
-> (TcpStream, TcpStream, tokio::task::JoinHandle<Result<Relayed, crate::upstream::relay::Broken>>) {
    let (client, one) = pair().await;
    let (other, server) = pair().await;
    let relay = tokio::task::spawn_local(relay(one, other));
    (client, server, relay)
}

async fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen().await;
    let connected = TcpStream::connect(address).await.expect("it listens");
    (connected, listener.accept().await.expect("it accepts").0)
}

#[tokio::test(flavor = "local")]
async fn an_end_in_one_direction_leaves_the_other_open() {
    let (mut client, mut server, relay) = tied().await;
    client.write_all(b"question").await.expect("open");
    client.shutdown().await.expect("open");
    let mut question = String::new();
    server.read_to_string(&mut question).await.expect("it ends in order");
    assert_eq!(question, "question");
    // The client has ended its side; the answer still comes through.
    server.write_all(b"the answer").await.expect("open");
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("it ends in order");
    assert_eq!(answer, "the answer");
    let relayed = relay.await.expect("no panic").expect("nothing broke");
    assert_eq!(relayed, Relayed { sent: 8, received: 10 });
}

#[tokio::test(flavor = "local")]
async fn a_reset_of_one_side_resets_the_other() {
    for first in [true, false] {
        let (mut client, mut server, relay) = tied().await;
        client.write_all(b"x").await.expect("open");
        server.read_u8().await.expect("it came through");
        let (mut left, gone) = if first { (server, client) } else { (client, server) };
        gone.set_zero_linger().expect("it can be set");
        drop(gone);
        let error = left.read_u8().await.expect_err("it is reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let broken = relay.await.expect("no panic").expect_err("it broke");
        assert_eq!((broken.first, broken.relayed.sent), (first, 1), "{broken:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn what_is_much_arrives_whole_both_ways_through_a_slow_reader() {
    let (client, server, relay) = tied().await;
    let data: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let exchange = |stream: TcpStream, data: Vec<u8>| async move {
        let (mut read, mut write) = stream.into_split();
        let writer = tokio::task::spawn_local(async move {
            write.write_all(&data).await.expect("open");
            write.shutdown().await.expect("open");
        });
        let mut got = Vec::new();
        let mut chunk = vec![0; 1500];
        loop {
            match read.read(&mut chunk).await.expect("open") {
                0 => break,
                n => got.extend_from_slice(&chunk[..n]),
            }
            tokio::task::yield_now().await;
        }
        writer.await.expect("no panic");
        got
    };
    let (one, other) = tokio::join!(exchange(client, data.clone()), exchange(server, data.clone()));
    assert!(one == data && other == data);
    let relayed = relay.await.expect("no panic").expect("nothing broke");
    assert_eq!(relayed, Relayed { sent: 4_000_000, received: 4_000_000 });
}

#[tokio::test(flavor = "local")]
async fn a_tunnel_at_rest_costs_little() {
    let ((_client, one), (other, _server)) = (pair().await, pair().await);
    let size = std::mem::size_of_val(&relay(one, other));
    assert!(size <= 512, "{size} bytes");
}

/// A tunnel that is always ready leaves the others their turns.
#[tokio::test(flavor = "local")]
async fn a_busy_tunnel_lets_others_run() {
    struct Endless;
    impl tokio::io::AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            buf.put_slice(b"more");
            Poll::Ready(Ok(()))
        }
    }
    impl tokio::io::AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    impl crate::upstream::relay::Resettable for Endless {
        fn reset(&mut self) {}
    }
    let busy = tokio::task::spawn_local(relay(Endless, Endless));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    busy.abort();
}
