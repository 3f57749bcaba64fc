//! An endpoint that takes leave of every connection after a hundred requests, under a load that does not wait for it (requirements 2.6).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use outrigger_config::model::UpstreamHttp;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use super::harness::*;

/// An app that echoes bodies over HTTP/2 after a moment, and says GOAWAY on each connection after 100 requests; how many connections it had.
async fn fickle() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                for number in 1.. {
                    let Some(Ok((request, mut respond))) = connection.accept().await else { return };
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut whole = Vec::new();
                        while let Some(data) = body.data().await {
                            let data = data.expect("streams under way are not cut");
                            body.flow_control().release_capacity(data.len()).expect("it was received");
                            whole.extend_from_slice(&data);
                        }
                        // So that the leave is taken with streams under way.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        let mut send = respond.send_response(Response::new(()), false).expect("it is open");
                        send.send_data(Bytes::from(whole), true).expect("it is open");
                    });
                    if number == 100 {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    (at, connections)
}

/// 1,000 requests a second for three seconds, half of them with bodies, sent when their time has come whatever became of those before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_every_hundred_requests_at_a_thousand_a_second_is_not_noticed() {
    const REQUESTS: usize = 3_000;
    let (app, connections) = fickle().await;
    let proxy = caller(&[Service::new("app:80", &[app]).http(UpstreamHttp::Http2)]);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Http2::connect(proxy.outbound[0]).await);
    }
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = Vec::new();
    for number in 0..REQUESTS {
        ticks.tick().await;
        let mut client = clients[number % clients.len()].clone();
        calls.push(tokio::spawn(async move {
            let said = if number % 2 == 0 { String::new() } else { format!("body {number}") };
            let method = if said.is_empty() { "GET" } else { "POST" };
            let request = Request::builder().method(method).uri("http://app/").body(text(said.clone()));
            let response = client.send(request.expect("valid")).await;
            let (head, body) = response.into_parts();
            let heard = body.collect().await.map(|body| body.to_bytes());
            (head.status.as_u16(), heard.is_ok_and(|heard| heard == said), head.headers)
        }));
    }
    for call in calls {
        let (status, whole, headers) = call.await.expect("a response");
        assert!(status == 200 && whole, "{status} {headers:?}");
    }
    // A few more come over each between the two steps of its leave, and on a slow machine more than a few.
    let connections = connections.load(Ordering::Relaxed);
    assert!(connections >= REQUESTS / 100 / 3, "{connections} connections: it did take leave");
}
