//! Endpoints that go away or refuse streams: what was not processed is sent again, whole.

use super::*;

#[tokio::test(flavor = "local")]
async fn a_refused_request_comes_back_whole() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let size = [0, 1, 1000, 64 * 1024, 64 * 1024 + 1, 200_000][seed as usize % 6];
        let sent: Bytes = (0..size).map(|_| rng.random::<u8>()).collect();
        let refused_after = rng.random_range(0..=size);
        let (refusals, accepted) = (Rc::new(Cell::new(2)), Rc::new(RefCell::new(Vec::new())));
        let (left, got) = (Rc::clone(&refusals), Rc::clone(&accepted));
        let address = http2_server(
            |_| {},
            move |_, request, mut respond| {
                let (left, got) = (Rc::clone(&left), Rc::clone(&got));
                async move {
                    let mut body = request.into_body();
                    if left.get() == 0 {
                        let body = whole(body).await;
                        got.borrow_mut().push(body);
                        return reply(respond, "ok");
                    }
                    left.set(left.get() - 1);
                    let mut read = 0;
                    while read < refused_after
                        && let Some(Ok(data)) = body.data().await
                    {
                        body.flow_control().release_capacity(data.len()).expect("it was received");
                        read += data.len();
                    }
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
            },
        )
        .await;
        let client = Client::of(address);
        let mut request = post("/", pieces(&sent, &mut rng));
        let result = loop {
            match client.send(Http2, request).await {
                Err(SendError { unsent: Some(unsent), reason, unprocessed, .. }) => {
                    assert!(unprocessed && reason == Reason::UpstreamReset, "seed {seed}");
                    request = *unsent;
                }
                result => break result,
            }
        };
        match result {
            Ok(response) => {
                assert_eq!(response.status(), 200);
                assert_eq!(*accepted.borrow(), [sent], "seed {seed}");
            }
            // What is too long to keep is lost, and that is said.
            Err(error) => {
                assert!(
                    size > 64 * 1024 && error.unprocessed && error.unsent.is_none(),
                    "seed {seed}: {error:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "local")]
async fn goaway_every_hundred_requests_is_not_noticed() {
    let (listener, address) = listen().await;
    let connections = Rc::new(Cell::new(0));
    let counted = Rc::clone(&connections);
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("it accepts");
            counted.set(counted.get() + 1);
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                for number in 1.. {
                    let Some(Ok((request, respond))) = connection.accept().await else { return };
                    tokio::task::spawn_local(async move {
                        let body = whole(request.into_body()).await;
                        tokio::task::yield_now().await;
                        reply(respond, body);
                    });
                    if number == 100 {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    let client = Rc::new(Client::of(address));
    let callers = (0..20).map(|caller| {
        let client = Rc::clone(&client);
        tokio::task::spawn_local(async move {
            for number in 0..150 {
                let text = format!("{caller} {number}");
                let request = if number % 2 == 0 { post("/", text.clone()) } else { get("/") };
                let response =
                    client.send(Http2, request).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
                let body = response.into_body().collect().await.expect("streams finish").to_bytes();
                assert_eq!(body, if number % 2 == 0 { text } else { String::new() });
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no request failed");
    }
    assert!((29..=60).contains(&connections.get()), "{} connections", connections.get());
}

#[tokio::test(flavor = "local")]
async fn what_a_goaway_leaves_out_moves_to_another_connection() {
    let bodies = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&bodies);
    let address = scripted(move |number, stream| {
        let seen = Rc::clone(&seen);
        async move {
            let mut frames = Frames::over(stream).await;
            if number == 1 {
                let (first, _) = frames.request().await;
                let (second, body) = frames.request().await;
                assert_eq!((first, second, &body[..]), (1, 3, &b"hello"[..]));
                frames.go_away(1).await;
                settle().await;
                frames.answer(1).await;
            } else {
                let (stream, body) = frames.request().await;
                seen.borrow_mut().push(body);
                frames.answer(stream).await;
            }
            while frames.read().await.is_some() {}
        }
    })
    .await;
    let client = Client::of(address);
    let (first, second) = futures_util::future::join(
        client.send(Http2, get("/")),
        client.send(Http2, post("/", "hello".to_owned())),
    )
    .await;
    assert_eq!(first.expect("it was within the last stream").status(), 200);
    assert_eq!(second.expect("it is sent again").status(), 200);
    assert_eq!(*bodies.borrow(), [b"hello"]);
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_always_goes_away_is_given_up() {
    let address = scripted(|_, stream| async move {
        let mut frames = Frames::over(stream).await;
        frames.request().await;
        frames.go_away(0).await;
        while frames.read().await.is_some() {}
    })
    .await;
    let error = Client::of(address).send(Http2, get("/")).await.expect_err("it never answers");
    assert_eq!(error.reason, Reason::UpstreamReset);
    assert!(error.unsent.is_some() && error.unprocessed, "{error:?}");
}
