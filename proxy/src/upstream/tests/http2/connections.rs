//! How many connections an endpoint gets, what each of them carries, and when it is over.

use super::*;

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

#[tokio::test(flavor = "local")]
async fn cancelling_resets_the_stream_and_frees_its_slot() {
    let (reset, mut resets) = tokio::sync::mpsc::unbounded_channel();
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let address = http2_server(
        |builder| {
            builder.max_concurrent_streams(1);
        },
        move |number, request, mut respond| {
            let (reset, arrived) = (reset.clone(), arrived.clone());
            async move {
                if request.uri().path() == "/quick" {
                    return reply(respond, number.to_string());
                }
                if request.uri().path() == "/begun" {
                    let mut stream = respond.send_response(Response::new(()), false).expect("open");
                    stream.send_data(Bytes::from_static(b"begun"), false).expect("open");
                    let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.expect("open");
                    reset.send(reason).expect("the test waits");
                    return;
                }
                arrived.send(()).expect("the test waits");
                let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.expect("open");
                reset.send(reason).expect("the test waits");
            }
        },
    )
    .await;
    let client = Client::of(address);
    for _ in 0..3 {
        // Before the response,
        tokio::select! {
            result = client.send(Http2, get("/never")) => panic!("nobody answers: {result:?}"),
            arrived = arrivals.recv() => arrived.expect("the server runs"),
        }
        assert_eq!(resets.recv().await, Some(h2::Reason::CANCEL));
        // within its body,
        drop(client.send(Http2, get("/begun")).await.expect("it answers"));
        assert_eq!(resets.recv().await, Some(h2::Reason::CANCEL));
        // and while the request's body is still being sent.
        let (body, feed) = body_of_hand();
        tokio::select! {
            result = client.send(Http2, post("/never", body)) => panic!("nobody answers: {result:?}"),
            arrived = arrivals.recv() => arrived.expect("the server runs"),
        }
        feed.closed().await;
        assert_eq!(resets.recv().await, Some(h2::Reason::CANCEL));
        // The one stream there is can be used again.
        assert_eq!(client.get(Http2, "/quick").await.expect("it answers").1, "1");
    }
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_of_one_stream_a_connection_serves_many() {
    let address = http2_server(
        |builder| {
            builder.max_concurrent_streams(1);
        },
        |_, _, respond| async move {
            settle().await;
            reply(respond, "ok");
        },
    )
    .await;
    let client = Client::of(address);
    for result in futures_util::future::join_all((0..200).map(|_| client.get(Http2, "/"))).await {
        assert_eq!(result.expect("it answers").1, "ok");
    }
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_allows_no_stream_is_given_up() {
    let address = scripted(|_, mut stream| async move {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.expect("a preface");
        let mut frames = Frames(stream);
        // SETTINGS_MAX_CONCURRENT_STREAMS = 0
        frames.write(4, 0, 0, &[0, 3, 0, 0, 0, 0]).await;
        while frames.read().await.is_some() {}
    })
    .await;
    let settings = model::Cluster { connect_timeout: Duration::from_millis(50), ..settings() };
    let error = Client::with(settings, address).send(Http2, get("/")).await.expect_err("there is no stream");
    assert!(error.unsent.is_some(), "{error:?}");
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_without_http2_is_found_out_before_anything_is_sent() {
    let http1 = http1_server(|_, _| async { ok("HTTP/1") }).await;
    let silent = scripted(|_, stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let closing = scripted(|_, stream| async move { drop(stream) }).await;
    let settings = model::Cluster { connect_timeout: Duration::from_millis(100), ..settings() };
    for address in [http1, silent, closing] {
        let client = Client::with(settings.clone(), address);
        let error = client.send(Http2, get("/")).await.expect_err("it does not speak HTTP/2");
        assert_eq!(error.reason, Reason::UpstreamProtocolError, "{error}");
        assert!(error.unsent.is_some() && error.detail.contains("does not speak HTTP/2"), "{error:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn too_large_headers_end_their_stream_alone() {
    let address = http2_server(
        |_| {},
        |number, request, mut respond| async move {
            let (count, size) = match request.uri().path() {
                "/fits" => (100, 400),
                "/many" => (129, 1),
                "/large" => (100, 1000),
                "/huge" => (100, 2600),
                _ => {
                    settle().await;
                    return reply(respond, number.to_string());
                }
            };
            let mut response = Response::new(());
            for n in 0..count {
                let name = http::HeaderName::try_from(format!("h{n}")).expect("valid");
                response.headers_mut().insert(name, "x".repeat(size).parse().expect("valid"));
            }
            respond.send_response(response, true).expect("open");
        },
    )
    .await;
    let client = Client::of(address);
    let sibling = client.get(Http2, "/sibling");
    let others = async {
        for (path, want) in [
            ("/fits", None),
            ("/many", Some(Reason::ResponseHeadersTooLarge)),
            ("/large", Some(Reason::ResponseHeadersTooLarge)),
            ("/huge", Some(Reason::UpstreamProtocolError /* the codec does not say what it refused */)),
        ] {
            let got = client.get(Http2, path).await.map_err(|error| error.reason).err();
            assert_eq!(got, want, "{path}");
        }
    };
    let (sibling, ()) = tokio::join!(sibling, others);
    assert_eq!(sibling.expect("it is not disturbed").1, "1");
    assert_eq!(client.get(Http2, "/").await.expect("the connection goes on").1, "1");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_idle_http2_connection_is_closed_when_its_time_is_over() {
    let (ended, end) = tokio::sync::oneshot::channel();
    let ended = RefCell::new(Some(ended));
    let address = scripted(move |_, stream| {
        let ended = ended.take();
        async move {
            let mut frames = Frames::over(stream).await;
            let (stream, _) = frames.request().await;
            frames.answer(stream).await;
            while let Some((kind, flags, _, payload)) = frames.read().await {
                if kind == 6 && flags == 0 {
                    frames.write(6, 1, 0, &payload).await;
                }
            }
            ended.expect("there is one connection").send(Instant::now()).expect("the test waits");
        }
    })
    .await;
    let client = Client::of(address);
    client.get(Http2, "/").await.expect("it answers");
    let begun = Instant::now();
    let kept = end.await.expect("the server sees the end").duration_since(begun);
    assert!((60..=62).contains(&kept.as_secs()), "{kept:?}");
}

#[tokio::test(flavor = "local")]
async fn many_cancelled_at_once_cost_nobody_else_a_stream() {
    let chunk = Bytes::from(vec![b'x'; 2_000]);
    let address = http2_server(
        |builder| {
            builder.max_concurrent_streams(1000);
        },
        move |number, request, mut respond| {
            let chunk = chunk.clone();
            async move {
                let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
                let _ = stream.send_data(number.to_string().into(), false);
                match request.uri().path() {
                    "/long" => {
                        let heard = whole(request.into_body()).await;
                        let _ = stream.send_data(heard, true);
                    }
                    // Still sending when the reset is already on its way.
                    "/big" => {
                        for _ in 0..30 {
                            let _ = stream.send_data(chunk.clone(), false);
                            tokio::task::yield_now().await;
                        }
                    }
                    _ => {
                        let _ = stream.send_data(Bytes::new(), true);
                    }
                }
            }
        },
    )
    .await;
    let client = Client::of(address);
    let (body, feed) = body_of_hand();
    let long = client.send(Http2, post("/long", body)).await.expect("it answers");
    for _ in 0..10 {
        let responses =
            futures_util::future::join_all((0..500).map(|_| client.send(Http2, get("/big")))).await;
        assert!(responses.iter().all(Result::is_ok));
        drop(responses);
        assert_eq!(client.get(Http2, "/").await.expect("it answers").1, "1", "the same connection");
    }
    feed.send(Bytes::from_static(b" still here")).await.expect("the long stream is open");
    drop(feed);
    assert_eq!(long.into_body().collect().await.expect("whole").to_bytes(), "1 still here");
}

/// A peer that stopped reading: the reset of a cancelled stream cannot go out, so that its place is not free either.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_that_opens_no_stream_is_left() {
    let address = scripted(|number, mut stream| async move {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.expect("a preface");
        let mut frames = Frames(stream);
        // One stream, and room for more than any socket buffer holds.
        frames.write(4, 0, 0, &[0, 3, 0, 0, 0, 1, 0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
        frames.write(8, 0, 0, &[0x7f, 0, 0, 0]).await;
        if number == 1 {
            return std::future::pending().await;
        }
        let (stream, body) = frames.request().await;
        assert_eq!(body, b"kept");
        frames.answer(stream).await;
        while frames.read().await.is_some() {}
    })
    .await;
    let client = Client::of(address);
    let (body, feed) = body_of_hand();
    let full = async {
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        while tokio::time::timeout(Duration::from_secs(1), feed.send(chunk.clone())).await.is_ok() {}
    };
    tokio::select! {
        result = client.send(Http2, post("/", body)) => panic!("nobody answers: {result:?}"),
        () = full => {}
    }
    let begun = Instant::now();
    let response = client.send(Http2, post("/", "kept".to_owned())).await.expect("it is sent elsewhere");
    assert_eq!((response.status().as_u16(), begun.elapsed().as_secs()), (200, 10));
}
