//! Bodies: framed as they were, both ways at a time, and none of them in another one's way.

use outrigger_config::model::Multiplex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::harness::*;
use super::scene::Step::{End, Send, Until};
use super::scene::{Mesh, files, same_both_ways};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_and_trailers_pass_both_ways() {
    let (asked, answer) = same_both_ways(
        &[
            Send("POST / HTTP/1.1\r\nHost: app:80\r\nX-Request-Id: r\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Send("5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"),
            Until("\r\n\r\n0\r\nX-Sum: 5\r\n\r\n"),
        ],
        &[
            Until("\r\n0\r\nX-Sum: 5\r\n\r\n"),
            // Nothing but trailers, so that its end is not that of another chunk.
            Send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 5\r\n\r\n"),
            End,
        ],
    )
    .await;
    assert!(
        asked.contains("hello\r\n0\r\nX-Sum: 5\r\n\r\n") && asked.contains("Transfer-Encoding: chunked"),
        "{asked}"
    );
    assert!(answer.contains("Transfer-Encoding: chunked") && answer.contains("Trailer: X-Sum"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_stays_one() {
    let (asked, answer) = same_both_ways(
        &[
            Send("PUT / HTTP/1.1\r\nHost: app:80\r\nX-Request-Id: r\r\nContent-Length: 5\r\n\r\nhello"),
            Until("\r\n\r\nback"),
        ],
        &[Until("hello"), Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback"), End],
    )
    .await;
    assert!(asked.contains("Content-Length: 5\r\n") && !asked.contains("chunked"), "{asked}");
    assert!(answer.contains("Content-Length: 4\r\n") && !answer.contains("chunked"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_come_before_the_request_has_ended() {
    let (asked, answer) = same_both_ways(
        &[
            Send("POST / HTTP/1.1\r\nHost: app:80\r\nX-Request-Id: r\r\nContent-Length: 1000\r\n\r\nbegun"),
            Until("\r\n\r\nno"),
            End,
        ],
        &[
            Until("begun"),
            Send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"),
            // What is left of the request comes to no end.
            End,
        ],
    )
    .await;
    assert!(asked.ends_with("begun"), "{asked}");
    assert!(answer.starts_with("HTTP/1.1 413 Too Large\r\n") && answer.ends_with("\r\n\r\nno"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_may_be_under_way_at_once() {
    let (asked, answer) = same_both_ways(
        &[
            Send("POST / HTTP/1.1\r\nHost: app:80\r\nX-Request-Id: r\r\nContent-Length: 6\r\n\r\none"),
            Until("\r\n\r\nfirst"),
            Send("two"),
            Until("last"),
        ],
        &[
            Until("one"),
            Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst"),
            Until("two"),
            Send("last"),
            End,
        ],
    )
    .await;
    assert!(asked.ends_with("onetwo") && answer.ends_with("firstlast"), "{asked}{answer}");
}

/// An app that sends back what it is sent, as it comes.
async fn echoing() -> std::net::SocketAddr {
    bytes_app(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

/// Much larger than the window of a stream.
const LARGE: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_come_whole_and_who_does_not_read_is_in_nobodys_way() {
    let files = files();
    let mesh = Mesh::start(&files, Multiplex::Always, echoing().await).await;
    let head = format!("POST / HTTP/1.1\r\nHost: app:80\r\nContent-Length: {LARGE}\r\n\r\n");
    // More of them than would fill the window HTTP/2 begins with.
    let mut silent = Vec::new();
    for _ in 0..24 {
        let mut stream = TcpStream::connect(mesh.at()).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        let (read, mut write) = stream.into_split();
        // Sends and never reads: what comes back fills everything between.
        let writing = tokio::spawn(async move { write.write_all(&vec![b'x'; LARGE]).await.map(|()| write) });
        silent.push((read, writing));
    }
    let sent: Vec<u8> = (0..LARGE).map(|n| (n % 251) as u8).collect();
    let mut stream = TcpStream::connect(mesh.at()).await.expect("it listens");
    let (mut read, mut write) = stream.split();
    let sending = async {
        write.write_all(head.as_bytes()).await.expect("it reads");
        write.write_all(&sent).await.expect("it reads");
    };
    let reading = async {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(read.read_u8().await.expect("a head"));
        }
        let mut body = vec![0; LARGE];
        read.read_exact(&mut body).await.expect("a body");
        body
    };
    let ((), body) = within("it comes back", async { tokio::join!(sending, reading) }).await;
    assert!(body == sent, "it is what it was");
    for (_, writing) in silent {
        writing.abort();
    }
}
