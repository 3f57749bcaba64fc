use std::cell::{Cell, RefCell};

use http::HeaderMap;
use http_body::Frame;
use rand::RngExt as _;

use super::*;
use crate::failure::Reason;
use crate::upstream::http2::SILENCE;

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

/// Reads a request's whole body, giving its room back.
async fn whole(mut body: h2::RecvStream) -> Bytes {
    let mut read = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).expect("it was received");
        read.extend_from_slice(&data);
    }
    read.into()
}

/// A body in pieces.
fn pieces(data: &Bytes, rng: &mut SmallRng) -> Body {
    let mut rest = data.clone();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let piece = rest.split_to(rng.random_range(1..=rest.len()));
        frames.push(Ok(Frame::data(piece)));
    }
    Body::wrapped(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
}

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

/// A connection whose frames are written by hand (RFC 9113 §4.1), past its preface and SETTINGS.
struct Frames(TcpStream);

impl Frames {
    async fn over(mut stream: TcpStream) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.expect("a preface");
        let mut frames = Self(stream);
        frames.write(4, 0, 0, &[]).await;
        frames
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.expect("open");
    }

    /// The next frame's kind, flags, stream and payload; `None` at the end.
    async fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads on until a request's last frame; its stream and body.
    async fn request(&mut self) -> (u32, Vec<u8>) {
        let mut body = Vec::new();
        loop {
            let (kind, flags, stream, payload) = self.read().await.expect("a request comes");
            if kind == 0 {
                body.extend(payload);
            }
            // HEADERS or DATA with END_STREAM.
            if kind <= 1 && flags & 1 == 1 {
                return (stream, body);
            }
        }
    }

    /// `:status: 200`, and the end.
    async fn answer(&mut self, stream: u32) {
        self.write(1, 0x5, stream, &[0x88]).await;
    }

    async fn go_away(&mut self, last: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend([0; 4]);
        self.write(7, 0, 0, &payload).await;
    }
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
