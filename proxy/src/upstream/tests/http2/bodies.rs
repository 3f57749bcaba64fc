//! Bodies and tunnels: both ways at the same time, slow readers, early and broken ends.

use super::*;

/// The response begins before the request has ended, and each message waits for the one before.
#[tokio::test(flavor = "local")]
async fn both_directions_stream_at_the_same_time() {
    let address = http2_server(
        |_| {},
        |_, request, mut respond| async move {
            let mut send = respond.send_response(Response::new(()), false).expect("open");
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                send.send_data(data.expect("open"), false).expect("open");
            }
            let trailers = body.trailers().await.expect("open").expect("there are trailers");
            send.send_trailers(trailers).expect("open");
        },
    )
    .await;
    let (feed, mut fed) = tokio::sync::mpsc::channel(1);
    let frames = futures_util::stream::poll_fn(move |cx| fed.poll_recv(cx).map(|frame| frame.map(Ok)));
    let body = Body::wrapped(http_body_util::StreamBody::new(frames));
    let client = Client::of(address);
    let mut body = client.send(Http2, post("/", body)).await.expect("it answers").into_body();
    for n in 0..100 {
        let message = Bytes::from(format!("message {n}"));
        feed.send(Frame::data(message.clone())).await.expect("it is read");
        let echoed = body.frame().await.expect("more").expect("open").into_data().expect("data");
        assert_eq!(echoed, message);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("valid"));
    feed.send(Frame::trailers(trailers.clone())).await.expect("it is read");
    let echoed = body.frame().await.expect("more").expect("open").into_trailers().expect("trailers");
    assert_eq!(echoed, trailers);
    assert!(body.frame().await.is_none());
}

#[tokio::test(flavor = "local")]
async fn a_connect_becomes_a_tunnel() {
    let address = http2_server(
        |builder| {
            builder.enable_connect_protocol();
        },
        |_, request, mut respond| async move {
            let protocol = request.extensions().get::<h2::ext::Protocol>().map(|p| p.as_str().to_owned());
            let authority = request.uri().authority().map(ToString::to_string);
            assert_eq!(authority.as_deref(), Some("db.test:5432"));
            let mut send = respond.send_response(Response::new(()), false).expect("open");
            send.send_data(Bytes::from(protocol.unwrap_or_else(|| "plain".into())), false).expect("open");
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let data = data.expect("open");
                body.flow_control().release_capacity(data.len()).expect("it was received");
                send.send_data(data, false).expect("open");
            }
            send.send_data(Bytes::new(), true).expect("open");
        },
    )
    .await;
    let client = Client::of(address);
    for protocol in [None, Some("websocket")] {
        let uri = if protocol.is_some() { "http://db.test:5432/chat" } else { "db.test:5432" };
        let mut request = Request::connect(uri).body(Body::empty()).expect("valid");
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(hyper::ext::Protocol::from_static(protocol));
        }
        let mut response = client.send(Http2, request).await.expect("it answers");
        let mut tunnel =
            crate::upgrade::take(&mut response).expect("a tunnel").established().await.expect("it stands");
        let sent = "0123456789".repeat(50_000);
        let (mut got, mut buffer) = (Vec::new(), vec![0; 10_000]);
        let mut left = sent.as_bytes();
        // Written and read by turns: half a megabyte is more than the windows hold.
        while !left.is_empty() {
            let n = tunnel.write(&left[..left.len().min(10_000)]).await.expect("open");
            left = &left[n..];
            let n = tunnel.read(&mut buffer).await.expect("open");
            got.extend_from_slice(&buffer[..n]);
        }
        tunnel.shutdown().await.expect("open");
        tunnel.read_to_end(&mut got).await.expect("it ends in order");
        assert_eq!(String::from_utf8(got).expect("text"), protocol.unwrap_or("plain").to_owned() + &sent);
    }
}

#[tokio::test(flavor = "local")]
async fn extended_connect_needs_the_endpoints_consent() {
    let client = Client::of(silent().await);
    let mut request = Request::connect("http://db.test/chat").body(Body::empty()).expect("valid");
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let error = client.send(Http2, request).await.expect_err("it does not offer it");
    assert_eq!(error.reason, Reason::UpgradeFailed);
    assert!(error.unsent.is_some());
}

/// Fifteen readers that do not read leave room for the sixteenth (64 KiB of 1 MiB each).
#[tokio::test(flavor = "local")]
async fn stalled_streams_do_not_stop_the_others() {
    let big = Bytes::from(vec![b'x'; 300_000]);
    let address = http2_server(
        |_| {},
        move |number, _, mut respond| {
            let mut rest = big.clone();
            async move {
                assert_eq!(number, 1, "all on one connection");
                let mut stream = respond.send_response(Response::new(()), false).expect("open");
                while !rest.is_empty() {
                    stream.reserve_capacity(rest.len().min(16_384));
                    let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                        return;
                    };
                    let data = rest.split_to(room.min(rest.len()));
                    stream.send_data(data, rest.is_empty()).expect("open");
                }
            }
        },
    )
    .await;
    let client = Client::of(address);
    let mut stalled = Vec::new();
    for _ in 0..15 {
        stalled.push(client.send(Http2, get("/")).await.expect("it answers"));
    }
    settle().await;
    assert_eq!(client.get(Http2, "/").await.expect("it answers").1.len(), 300_000);
    for response in stalled {
        assert_eq!(response.into_body().collect().await.expect("whole").to_bytes().len(), 300_000);
    }
}

/// What the codec's guard against tiny frames took for an attack in some releases.
#[tokio::test(flavor = "local")]
async fn small_messages_to_slow_readers_are_no_attack() {
    let address = http2_server(
        |builder| {
            builder.max_concurrent_streams(3000);
        },
        |_, _, mut respond| async move {
            let mut stream = respond.send_response(Response::new(()), false).expect("open");
            for _ in 0..5 {
                stream.send_data(Bytes::from(vec![b'm'; 20]), false).expect("open");
                tokio::task::yield_now().await;
            }
            stream.send_data(Bytes::new(), true).expect("open");
        },
    )
    .await;
    let client = Client::of(address);
    client.get(Http2, "/").await.expect("it answers");
    let responses = futures_util::future::join_all((0..2000).map(|_| client.send(Http2, get("/")))).await;
    settle().await;
    for response in responses {
        let body = response.expect("it answers").into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(body.len(), 100);
    }
}

/// It answers in full, and says that the rest of the request is of no use to it (RFC 9113 §8.1).
#[tokio::test(flavor = "local")]
async fn an_answer_before_the_request_was_read_is_whole() {
    let address = http2_server(
        |_| {},
        |number, request, respond| async move {
            if request.method() == http::Method::POST {
                drop(request);
                return reply(respond, "too large");
            }
            reply(respond, number.to_string());
        },
    )
    .await;
    let client = Client::of(address);
    for slow_reader in [false, true] {
        let (body, feed) = body_of_hand();
        let (response, _) =
            tokio::join!(client.send(Http2, post("/", body)), feed.send(Bytes::from(vec![b'x'; 200_000])));
        let response = response.expect("it answers");
        if slow_reader {
            // The reset is here before the body is read.
            settle().await;
        }
        assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "too large");
        feed.closed().await;
    }
    assert_eq!(client.get(Http2, "/").await.expect("it answers").1, "1", "the same connection");
}

/// A reset within the body must not look like its end, or what comes after the proxy takes half of it for all.
#[tokio::test(flavor = "local")]
async fn a_body_cut_short_is_an_error() {
    for reason in [h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR, h2::Reason::NO_ERROR] {
        let address = http2_server(
            |_| {},
            move |_, _, mut respond| async move {
                let response = Response::builder().header("content-length", 10).body(()).expect("valid");
                let mut stream = respond.send_response(response, false).expect("open");
                stream.send_data(Bytes::from_static(b"half"), false).expect("open");
                settle().await;
                stream.send_reset(reason);
            },
        )
        .await;
        let response = Client::of(address).send(Http2, get("/")).await.expect("it answers");
        assert!(response.into_body().collect().await.is_err(), "{reason:?}");
    }
}
