//! Endpoints of which nothing is heard.

use super::*;

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_proxy_that_does_not_answer_pings_is_dead() {
    let address = scripted(|_, stream| async move {
        let mut frames = Frames::over(stream).await;
        while frames.read().await.is_some() {}
    })
    .await;
    let client = Client::of_proxy(address);
    let begun = Instant::now();
    let error = client.send(Http2, get("/")).await.expect_err("it never answers");
    assert_eq!(error.reason, Reason::UpstreamReset, "{error}");
    assert!(error.unsent.is_none() && !error.unprocessed);
    let took = begun.elapsed();
    assert!((30..=31).contains(&took.as_secs()), "{took:?}");
}

/// What grpcio's server answers to pings that come sooner than every five minutes.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_app_is_not_pinged() {
    let address = scripted(|_, stream| async move {
        let mut frames = Frames::over(stream).await;
        let (stream, _) = frames.request().await;
        let answer = tokio::time::sleep(Duration::from_secs(3600));
        tokio::pin!(answer);
        loop {
            tokio::select! {
                () = &mut answer => return frames.answer(stream).await,
                Some((kind, ..)) = frames.read() => assert_ne!(kind, 6, "a ping"),
            }
        }
    })
    .await;
    let client = Client::of(address);
    client.get(Http2, "/").await.expect("a call may take an hour");
}

/// Requirements 2.9: packets to an endpoint are lost. What comes now does not wait behind what waits already.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_gone_silent_gets_no_request_until_it_speaks() {
    gone_silent(settings()).await;
}

/// It is of no use to anybody: one that works may be opened in its place.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_gone_silent_takes_no_place_under_a_cap() {
    let caps = model::Caps { connections: Some(1), pending: Some(1), ..Default::default() };
    let breaker = model::CircuitBreaker { caps, ..Default::default() };
    gone_silent(model::Cluster { circuit_breaker: Arc::new(breaker), ..settings() }).await;
}

async fn gone_silent(settings: model::Cluster) {
    let carried = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&carried);
    let address = scripted(move |number, stream| {
        let log = Rc::clone(&log);
        async move {
            let mut frames = Frames::over(stream).await;
            while let Some((kind, _, stream, _)) = frames.read().await {
                if kind != 1 {
                    continue;
                }
                log.borrow_mut().push(number);
                if log.borrow().len() == 2 {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                }
                frames.answer(stream).await;
            }
        }
    })
    .await;
    let client = Rc::new(Client::with(settings, address));
    let open = || client.cluster.circuit().in_use.sockets.taken();
    client.get(Http2, "/").await.expect("it answers");
    let waiting = tokio::task::spawn_local({
        let client = Rc::clone(&client);
        async move { client.get(Http2, "/").await }
    });
    // It is looked at twice within that time.
    tokio::time::sleep(2 * SILENCE).await;
    client.get(Http2, "/").await.expect("another connection answers");
    assert_eq!((waiting.is_finished(), open()), (false, 1), "the silent one does not count");
    waiting.await.expect("no panic").expect("it was only slow");
    client.get(Http2, "/").await.expect("it answers again");
    assert_eq!(open(), 2, "it counts again");
    assert_eq!(*carried.borrow(), [1, 1, 2, 1], "by connection");
}
