use std::cell::RefCell;

use super::*;
use crate::failure::Reason::{
    self, ResponseHeadersTooLarge as TooLarge, UpstreamProtocolError as ProtocolError, UpstreamReset as Reset,
};

#[tokio::test(flavor = "local")]
async fn a_connection_is_used_again_after_a_whole_response() {
    let address = http1_server(|number, _| async move { ok(number.to_string()) }).await;
    let client = Client::of(address);
    for _ in 0..10 {
        let (status, body) = client.get(Http1, "/").await.expect("it answers");
        assert_eq!((status, &body[..]), (200, &b"1"[..]));
    }
    // Also after requests with bodies, and responses without.
    for _ in 0..10 {
        let response = client.send(Http1, post("/", "hello".to_owned())).await.expect("it answers");
        assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "1");
        let head = Request::head("/").header("host", "a").body(Body::empty()).expect("valid");
        assert_eq!(client.send(Http1, head).await.expect("it answers").status(), 200);
    }
}

#[tokio::test(flavor = "local")]
async fn a_response_dropped_half_way_closes_its_connection() {
    let big = Bytes::from(vec![b'x'; 4 * 1024 * 1024]);
    let address = http1_server(move |number, request| {
        let body = if request.uri() == "/big" { big.clone() } else { number.to_string().into() };
        async move { ok(body) }
    })
    .await;
    let client = Client::of(address);
    drop(client.send(Http1, get("/big")).await.expect("it answers"));
    assert_eq!(client.get(Http1, "/").await.expect("it answers").1, "2");
}

/// The race of a reused connection: the FIN is here, but the event loop has not heard of it.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_server_that_closes_idle_connections_costs_no_request() {
    // What the server has answered on, for the test to close.
    let idle = Rc::new(RefCell::new(None));
    let held = Rc::clone(&idle);
    let address = scripted(move |_, mut stream| {
        let held = Rc::clone(&held);
        async move {
            while read_request(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("open");
                let socket = stream.into_std().expect("a socket");
                let another = socket.try_clone().expect("a descriptor is free");
                *held.borrow_mut() = Some(socket);
                stream = TcpStream::from_std(another).expect("a socket");
            }
        }
    })
    .await;
    let client = Client::of(address);
    for round in 0..1000 {
        // A few on one connection, which has shown by that that it is kept.
        for _ in 0..round % 4 + 1 {
            assert_eq!(client.get(Http1, "/").await.expect("it answers").0, 200, "round {round}");
        }
        tokio::time::advance(Duration::from_millis(200)).await;
        // No await between this and the next request.
        let socket = idle.borrow_mut().take().expect("it has answered");
        socket.shutdown(std::net::Shutdown::Both).expect("it was open");
    }
}

#[tokio::test(flavor = "local")]
async fn a_post_that_was_read_is_not_sent_again() {
    let copies = Rc::new(std::cell::Cell::new(0));
    let seen = Rc::clone(&copies);
    let address = scripted(move |_, mut stream| {
        let seen = Rc::clone(&seen);
        async move {
            loop {
                match read_request(&mut stream).await {
                    None => return,
                    Some(request) if request.starts_with("POST") => {
                        seen.set(seen.get() + 1);
                        stream.set_zero_linger().expect("it can be set");
                        return;
                    }
                    Some(_) => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("open"),
                }
            }
        }
    })
    .await;
    let client = Client::of(address);
    for warm in [false, true] {
        if warm {
            client.get(Http1, "/").await.expect("it answers");
        }
        copies.set(0);
        let error = client.send(Http1, post("/pay", "100".to_owned())).await.expect_err("it is reset");
        assert_eq!(error.reason, Reason::UpstreamReset, "{error}");
        assert!(error.unsent.is_none() && !error.unprocessed, "{error:?}");
        assert!(
            error.detail.contains(if warm { "a reused connection" } else { "a new connection" }),
            "{error}"
        );
        assert_eq!(copies.get(), 1);
    }
}

#[tokio::test(flavor = "local")]
async fn what_an_endpoint_may_answer_is_limited() {
    let headers = |count: usize, size: usize| {
        let value = "x".repeat(size);
        (0..count).map(|n| format!("h{n}: {value}\r\n")).collect::<String>()
    };
    for (what, answer, want) in [
        ("few headers", format!("HTTP/1.1 204 No Content\r\n{}\r\n", headers(100, 10)), None),
        ("large headers", format!("HTTP/1.1 204 No Content\r\n{}\r\n", headers(4, 15_000)), None),
        ("too many headers", format!("HTTP/1.1 204 No Content\r\n{}\r\n", headers(129, 10)), Some(TooLarge)),
        (
            "too large headers",
            format!("HTTP/1.1 204 No Content\r\n{}\r\n", headers(5, 15_000)),
            Some(TooLarge),
        ),
        (
            "an endless header",
            format!("HTTP/1.1 204 No Content\r\n{}", headers(1, 1_000_000)),
            Some(TooLarge),
        ),
        ("another protocol", "SSH-2.0-OpenSSH_9.6\r\n\r\n".into(), Some(ProtocolError)),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".into(),
            Some(ProtocolError),
        ),
        ("nothing", String::new(), Some(Reset)),
    ] {
        let address = scripted(move |_, mut stream| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await;
                // The client may hang up before it has read all of it.
                let _ = stream.write_all(answer.as_bytes()).await;
                stream.shutdown().await.ok();
                while read_request(&mut stream).await.is_some() {}
            }
        })
        .await;
        let result = Client::of(address).get(Http1, "/").await;
        assert_eq!(result.map_err(|error| error.reason).err(), want, "{what}");
    }
}

#[tokio::test(flavor = "local")]
async fn informational_responses_pass_by() {
    let address = scripted(|_, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer.as_bytes()).await.expect("open");
        }
    })
    .await;
    let client = Client::of(address);
    for _ in 0..3 {
        assert_eq!(client.get(Http1, "/").await.expect("it answers"), (200, "ok".into()));
    }
}

/// Answers, with its headers, on each connection; tells how many connections there were.
async fn keeping(headers: &'static str) -> (Client, Rc<std::cell::Cell<usize>>) {
    let connections = Rc::new(std::cell::Cell::new(0));
    let counted = Rc::clone(&connections);
    let address = scripted(move |number, mut stream| {
        counted.set(number);
        async move {
            while read_request(&mut stream).await.is_some() {
                let answer = format!("HTTP/1.{headers}content-length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.expect("open");
            }
        }
    })
    .await;
    (Client::of(address), connections)
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_is_kept_no_longer_than_was_agreed() {
    for (headers, seconds, kept) in [
        ("1 200 OK\r\n", 59, true),
        ("1 200 OK\r\n", 61, false /* the cluster's 60 s */),
        ("1 200 OK\r\nkeep-alive: timeout=5, max=100\r\n", 3, true),
        (
            "1 200 OK\r\nkeep-alive: timeout=5, max=100\r\n",
            4,
            false, /* a second before the endpoint closes it */
        ),
        ("1 200 OK\r\nkeep-alive: timeout=600\r\n", 61, false),
        ("1 200 OK\r\nkeep-alive: timeout=0\r\n", 0, false),
        ("1 200 OK\r\nkeep-alive: nonsense\r\n", 59, true),
        ("1 200 OK\r\nconnection: close\r\n", 0, false),
        ("0 200 OK\r\n", 0, false),
        ("0 200 OK\r\nconnection: keep-alive\r\n", 59, true),
    ] {
        let (client, connections) = keeping(headers).await;
        client.get(Http1, "/").await.expect("it answers");
        tokio::time::advance(Duration::from_secs(seconds)).await;
        client.get(Http1, "/").await.expect("it answers");
        assert_eq!(connections.get() == 1, kept, "{headers:?} after {seconds} s");
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let (ended, end) = tokio::sync::oneshot::channel();
    let ended = std::cell::RefCell::new(Some(ended));
    let address = scripted(move |_, mut stream| {
        let ended = ended.take();
        async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("open");
            assert!(read_request(&mut stream).await.is_none(), "nothing more is sent");
            ended.expect("there is one connection").send(Instant::now()).expect("the test waits");
        }
    })
    .await;
    let settings = model::Cluster { idle_timeout: Duration::from_secs(4), ..settings() };
    let client = Client::with(settings, address);
    client.get(Http1, "/").await.expect("it answers");
    let begun = Instant::now();
    let ended = end.await.expect("the server sees the end");
    let kept = ended.duration_since(begun);
    assert!(kept >= Duration::from_secs(4) && kept <= Duration::from_secs(6), "{kept:?}");
}

/// The upload of whoever is answered early is of no use to anyone.
#[tokio::test(flavor = "local")]
async fn an_answer_before_the_request_was_read_ends_the_connection() {
    let (ended, end) = tokio::sync::oneshot::channel();
    let ended = std::cell::RefCell::new(Some(ended));
    let address = scripted(move |_, mut stream| {
        let ended = ended.take();
        async move {
            let mut head = [0; 64];
            assert!(stream.read(&mut head).await.expect("open") > 0, "a request comes");
            stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await.expect("open");
            while matches!(stream.read(&mut head).await, Ok(n) if n > 0) {}
            ended.expect("there is one connection").send(()).expect("the test waits");
        }
    })
    .await;
    let client = Client::of(address);
    let (body, feed) = body_of_hand();
    let response = client.send(Http1, post("/", body)).await.expect("it answers");
    assert_eq!(response.status(), 413);
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "big");
    end.await.expect("the connection is closed");
    feed.closed().await;
}

#[tokio::test(flavor = "local")]
async fn a_body_may_take_its_time_in_both_directions() {
    let address = http1_server(|_, request| async move {
        let body = request.into_body().collect().await.expect("whole").to_bytes();
        ok(body)
    })
    .await;
    let client = Client::of(address);
    let (body, feed) = body_of_hand();
    let fed = async {
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            feed.send(Bytes::from_static(b"0123456789")).await.expect("it is read");
        }
        drop(feed);
    };
    let (response, ()) = tokio::join!(client.send(Http1, post("/", body)), fed);
    let body = response.expect("it answers").into_body().collect().await.expect("whole").to_bytes();
    assert_eq!(body, "0123456789".repeat(50));
}

#[tokio::test(flavor = "local")]
async fn a_failing_request_body_says_whose_fault_it_is() {
    let address =
        scripted(|_, mut stream| async move { while read_request(&mut stream).await.is_some() {} }).await;
    let stalled = || crate::body::BodyError::Stalled(Duration::from_secs(60));
    for http in [Http1, Http2] {
        let address = if http == Http1 { address } else { super::http2::silent().await };
        let frames = futures_util::stream::iter([
            Ok(http_body::Frame::data(Bytes::from_static(b"x"))),
            Err(stalled()),
        ]);
        let body = Body::wrapped(http_body_util::StreamBody::new(frames));
        let error = Client::of(address).send(http, post("/", body)).await.expect_err("the body fails");
        assert_eq!(error.reason, Reason::RequestBodyStalled, "{http:?}: {error}");
        assert!(error.unsent.is_none());
    }
}

#[tokio::test(flavor = "local")]
async fn a_switch_of_protocols_hands_over_the_connection() {
    let address = scripted(|_, mut stream| async move {
        let request = read_request(&mut stream).await.expect("a request");
        assert!(request.to_lowercase().contains("\r\nupgrade: echo\r\n"), "{request}");
        // The first bytes of the new protocol come with the head.
        let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\nhello ";
        stream.write_all(answer.as_bytes()).await.expect("open");
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.expect("open");
    })
    .await;
    let client = Client::of(address);
    let mut request = get("/");
    request.headers_mut().insert("upgrade", "echo".parse().expect("valid"));
    request.headers_mut().insert("connection", "upgrade".parse().expect("valid"));
    let mut response = client.send(Http1, request).await.expect("it answers");
    assert_eq!(response.status(), 101);
    let mut tunnel =
        crate::upgrade::take(&mut response).expect("a tunnel").established().await.expect("it stands");
    assert!(crate::upgrade::take(&mut response).is_none());
    tunnel.write_all(b"world").await.expect("open");
    tunnel.shutdown().await.expect("open");
    let mut echoed = String::new();
    tunnel.read_to_string(&mut echoed).await.expect("it ends in order");
    assert_eq!(echoed, "hello world");
}

#[tokio::test(flavor = "local")]
async fn the_target_and_the_host_are_as_http1_wants_them() {
    let address = http1_server(|_, request| async move {
        let host = request.headers()["host"].to_str().expect("text").to_owned();
        ok(format!("{} {host}", request.uri()))
    })
    .await;
    let client = Client::of(address);
    for (uri, host, want) in [
        ("/a?b", Some("x.test"), "/a?b x.test"),
        ("http://y.test/a?b", None, "/a?b y.test"),
        ("http://y.test/a?b", Some("x.test"), "/a?b x.test"),
        ("http://y.test", None, "/ y.test"),
        ("*", Some("x.test"), "* x.test"),
    ] {
        let method = if uri == "*" { http::Method::OPTIONS } else { http::Method::GET };
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Body::empty()).expect("valid");
        let response = client.send(Http1, request).await.expect("it answers");
        let body = response.into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(body, want, "{uri} {host:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn cookies_become_one() {
    let address = http1_server(|_, request| async move {
        let cookies: Vec<_> =
            request.headers().get_all("cookie").iter().map(|c| c.to_str().expect("text")).collect();
        ok(cookies.join("|"))
    })
    .await;
    let mut request = get("/");
    for cookie in ["a=1", "b=2", "c=3; d=4"] {
        request.headers_mut().append("cookie", cookie.parse().expect("valid"));
    }
    let response = Client::of(address).send(Http1, request).await.expect("it answers");
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "a=1; b=2; c=3; d=4");
}

#[tokio::test(flavor = "local")]
async fn names_without_a_case_get_the_usual_one() {
    let (heard, hear) = tokio::sync::oneshot::channel();
    let heard = RefCell::new(Some(heard));
    let address = scripted(move |_, mut stream| {
        let heard = heard.take();
        async move {
            let request = read_request(&mut stream).await.expect("a request comes");
            heard.expect("there is one connection").send(request).expect("the test waits");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("open");
        }
    })
    .await;
    Client::of(address).send(Http1, post("/", "hello".to_owned())).await.expect("it answers");
    let request = hear.await.expect("it was heard");
    assert_eq!(request, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello");
}

/// Each request in flight costs this much, and each step of it moves that much.
#[tokio::test(flavor = "local")]
async fn an_attempt_in_flight_is_small() {
    let client = Client::of(listen().await.1);
    for http in [Http1, Http2] {
        let size =
            std::mem::size_of_val(&client.pools.send(&client.cluster, &client.endpoint, http, get("/")));
        assert!(size <= 2048, "{size} bytes");
    }
}
