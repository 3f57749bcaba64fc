use std::cell::RefCell;

use super::*;

/// An HTTP/2 server; `answer` is told the number of the connection (from 1).
async fn http2_server<F, R>(build: impl Fn(&mut h2::server::Builder) + 'static, answer: F) -> SocketAddr
where
    F: Fn(usize, Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) -> R + Clone + 'static,
    R: Future<Output = ()> + 'static,
{
    let (listener, address) = listen().await;
    tokio::task::spawn_local(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.expect("it accepts");
            let answer = answer.clone();
            let mut builder = h2::server::Builder::new();
            build(&mut builder);
            tokio::task::spawn_local(async move {
                let Ok(mut connection) = builder.handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(answer(number, request, respond));
                }
            });
        }
    });
    address
}

fn reply(mut respond: h2::server::SendResponse<Bytes>, body: impl Into<Bytes>) {
    let mut stream = respond.send_response(Response::new(()), false).expect("the stream is open");
    stream.send_data(body.into(), true).expect("the stream is open");
}

#[tokio::test(flavor = "local")]
async fn requests_share_a_connection() {
    let address = http2_server(
        |_| {},
        |number, request, respond| async move {
            assert_eq!(request.uri().authority().map(http::uri::Authority::as_str), Some("app.test"));
            reply(respond, number.to_string());
        },
    )
    .await;
    let client = Client::of(address);
    let gets = (0..50).map(|_| client.get(Http2, "/"));
    for result in futures_util::future::join_all(gets).await {
        assert_eq!(result.expect("it answers"), (200, "1".into()));
    }
}

#[tokio::test(flavor = "local")]
async fn a_thousand_requests_at_once_open_as_many_connections_as_they_need() {
    let used = Rc::new(RefCell::new(std::collections::BTreeMap::<usize, usize>::new()));
    let seen = Rc::clone(&used);
    let address = http2_server(
        |builder| {
            builder.max_concurrent_streams(100);
        },
        move |number, _, respond| {
            *seen.borrow_mut().entry(number).or_default() += 1;
            async move {
                // Nobody is answered before all are here.
                settle().await;
                reply(respond, "ok");
            }
        },
    )
    .await;
    let client = Client::of(address);
    let gets = (0..1000).map(|_| client.get(Http2, "/"));
    for result in futures_util::future::join_all(gets).await {
        assert_eq!(result.expect("it answers"), (200, "ok".into()));
    }
    assert!(used.borrow().len() >= 10, "{used:?}");
    assert_eq!(used.borrow().values().sum::<usize>(), 1000, "{used:?}");
}

/// A server that never answers.
pub(super) async fn silent() -> SocketAddr {
    http2_server(
        |_| {},
        |_, request, respond| async move {
            let _held = (request, respond);
            std::future::pending().await
        },
    )
    .await
}
