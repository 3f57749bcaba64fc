//! How many tasks connections and exchanges take: each is memory, and a turn of the event loop.

use std::net::TcpListener;
use std::thread;

use futures_util::future::join_all;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Handle;

use super::*;

/// A server on a thread of its own, so that only the client's tasks are counted here.
fn elsewhere(http: HttpVersionChoice) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("set");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(|_| async {
                    // Long enough for all of them to be under way at a time.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"answered"))))
                });
                let io = TokioIo::new(stream);
                tokio::spawn(async move {
                    let _ = match http {
                        Http1 => {
                            hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await
                        }
                        Http2 => {
                            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                            builder.serve_connection(io, answer).await
                        }
                    };
                });
            }
        });
    });
    address
}

const EXCHANGES: usize = 20;

/// Alive after so many exchanges at a time, that were not before.
async fn tasks(http: HttpVersionChoice) -> usize {
    let client = Client::of(elsewhere(http));
    let metrics = Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let answers = join_all((0..EXCHANGES).map(|_| client.get(http, "/"))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|(status, _)| *status == 200)));
    metrics.num_alive_tasks() - before
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_carries_one_exchange_takes_a_task_at_most() {
    let tasks = tasks(Http1).await;
    // One more closes what is idle.
    assert!(tasks <= EXCHANGES + 1, "{tasks}");
}

#[tokio::test(flavor = "local")]
async fn exchanges_that_share_a_connection_take_none() {
    let tasks = tasks(Http2).await;
    // The connection; who writes it out; who closes what is idle.
    assert!((1..=3).contains(&tasks), "{tasks}");
}
