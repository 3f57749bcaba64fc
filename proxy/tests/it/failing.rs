//! Endpoints and clients that do not do what they should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use outrigger_config::model::{Protocol, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;

fn with_timeouts(service: &Service, timeouts: Timeouts) -> Service {
    let mut rule = route("/", &service.cluster());
    rule.timeouts = timeouts;
    service.clone().routes(vec![rule])
}

/// Reads requests and never answers.
async fn silent() -> std::net::SocketAddr {
    bytes_app(|mut stream: TcpStream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_ends_at_its_timeout() {
    let limit = Some(Duration::from_millis(200));
    let service = Service::new("slow:80", &[silent().await]);
    for (timeouts, reason) in [
        (Timeouts { request: limit, ..Timeouts::default() }, "request_timeout"),
        (Timeouts { backend_request: limit, ..Timeouts::default() }, "attempt_timeout"),
    ] {
        let caller = caller(&[with_timeouts(&service, timeouts)]);
        let answer = Http1::connect(caller.outbound[0]).await.get("http://slow/", "-").await;
        assert_eq!((answer.status, answer.reason()), (504, reason), "{answer:?}");
        let answer = Http2::connect(caller.outbound[0]).await.get("http://slow/").await;
        assert_eq!((answer.status, answer.reason()), (504, reason), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_ends_at_the_head_of_a_stream_and_covers_a_whole_answer() {
    let app = app(|request: Request<hyper::body::Incoming>| async move {
        let (send, body) = frames();
        let whole = request.uri().path() == "/whole";
        tokio::spawn(async move {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let _ = send.send(http_body::Frame::data("tick".into())).await;
            }
        });
        let mut response = http::Response::new(body);
        if whole {
            response.headers_mut().insert("content-length", 32.into());
        }
        response
    })
    .await;
    let limit = Timeouts { request: Some(Duration::from_millis(300)), ..Timeouts::default() };
    let caller = caller(&[with_timeouts(&Service::new("slow:80", &[app]), limit)]);
    let answer = Http1::connect(caller.outbound[0]).await.get("http://slow/stream", "-").await;
    assert_eq!(answer.body, "tick".repeat(8), "a stream may take as long as it likes");

    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"GET http://slow/whole HTTP/1.1\r\nHost: slow\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("its end", stream.read_to_end(&mut answer)).await;
    let ticks = String::from_utf8_lossy(&answer).matches("tick").count();
    assert!(ticks < 8, "an answer of known length is cut at the limit: {ticks} ticks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_pauses_longer_than_it_may_is_ended() {
    let app = app(|_| async {
        let (send, body) = frames();
        tokio::spawn(async move {
            let _ = send.send(http_body::Frame::data("one".into())).await;
            std::future::pending::<()>().await;
        });
        http::Response::new(body)
    })
    .await;
    let limit = Timeouts { stream_idle: Some(Duration::from_millis(200)), ..Timeouts::default() };
    let caller = caller(&[with_timeouts(&Service::new("slow:80", &[app]), limit)]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"GET http://slow/ HTTP/1.1\r\nHost: slow\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("its end", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("one") && !answer.ends_with("0\r\n\r\n"), "cut, not ended: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_cannot_be_reached_is_replaced_by_another() {
    let nobody = (LOOPBACK, ports::free()).into();
    let caller = caller(&[Service::new("some:80", &[nobody, echo().await])]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    for n in 0..50 {
        let post = Request::post("http://some/").body(text(format!("post {n}"))).unwrap();
        let answer = Answer::read(client.send(post).await).await;
        assert!(answer.status == 200 && answer.body.ends_with(&format!("post {n}")), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_the_endpoint_read_is_never_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let resets = move |counted: Arc<AtomicUsize>| {
        bytes_app(move |mut stream: TcpStream| {
            let counted = counted.clone();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                counted.fetch_add(1, Ordering::Relaxed);
                stream.set_zero_linger().unwrap();
            }
        })
    };
    let caller = caller(&[Service::new("some:80", &[resets(counted.clone()).await, resets(counted).await])]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    for n in 1..=20 {
        let post = Request::post("http://some/").body(text("pay")).unwrap();
        let answer = Answer::read(client.send(post).await).await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"), "{answer:?}");
        assert_eq!(seen.load(Ordering::Relaxed), n);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_no_valid_http_are_named() {
    for (said, reason) in [
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: 1\r\n".repeat(200)), "response_headers_too_large"),
        (format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(70_000)), "response_headers_too_large"),
        ("SSH-2.0-OpenSSH_9.9\r\n".into(), "upstream_protocol_error"),
        (String::new(), "upstream_reset"),
    ] {
        let app = bytes_app({
            let said = said.clone();
            move |mut stream: TcpStream| {
                let said = said.clone();
                async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(said.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    let _ = stream.read(&mut [0; 4096]).await;
                }
            }
        })
        .await;
        let caller = caller(&[Service::new("some:80", &[app])]);
        let answer = Http1::connect(caller.outbound[0]).await.get("http://some/", "-").await;
        assert_eq!((answer.status, answer.reason()), (502, reason), "{:?}", &said[..said.len().min(60)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_broken_off() {
    let app = bytes_app(|mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    })
    .await;
    let (_callee, at) = callee(Protocol::Http, app).await;
    let caller = caller(&[Service::new("some:80", &[at])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"GET http://some/ HTTP/1.1\r\nHost: some\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("its end", stream.read_to_end(&mut answer)).await;
    assert!(String::from_utf8_lossy(&answer).ends_with("\r\n\r\nhalf"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateways_and_an_inbound_sides_callers_read_the_word_alone() {
    let nobody = (LOOPBACK, ports::free()).into();
    let (_callee, at) = callee(Protocol::Http, nobody).await;
    let answer = Http1::connect(at).await.get("/", "callee").await;
    assert_eq!((answer.status, answer.reason()), (503, "connect_failed"));
    assert!(!format!("{answer:?}").contains(&nobody.port().to_string()), "{answer:?}");
}

/// The limit is 10 s and cannot be set: so long takes this test, once for all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_finish_their_heads_are_ended_and_others_served() {
    let (_callee, at) = callee(Protocol::Http, echo().await).await;
    let caller = caller(&[Service::new("app:80", &[at])]);
    let address = caller.outbound[0];
    // Half a head, then a byte now and then: each one moves, and still it never comes to an end.
    let trickling = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET http://app/ HTTP/1.1\r\nHost: app\r\nX-Slow: ").await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let trickle = tokio::spawn(async move {
            while write.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let mut answer = String::new();
        let _ = within("the end of a trickle", read.read_to_string(&mut answer)).await;
        trickle.abort();
        answer
    };
    // The second head of a connection has the same time as the first.
    let second = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET http://app/ HTTP/1.1\r\nHost: app\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let (head, _) = super::http1::read_message(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stream.write_all(&request[..30]).await.unwrap();
        let mut answer = String::new();
        within("the end of half a head", stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    // A crowd of them, which does not keep others from being served.
    let mute = async {
        let mut crowd = Vec::new();
        for _ in 0..500 {
            crowd.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(Http1::connect(address).await.get("http://app/", "-").await.status, 200);
        let mut answers = String::new();
        for stream in &mut crowd {
            within("the end of silence", stream.read_to_string(&mut answers)).await.unwrap();
        }
        answers
    };
    // Whoever only rests between two requests is late with nothing.
    let resting = async {
        let mut client = Http1::connect(address).await;
        assert_eq!(client.get("http://app/", "-").await.status, 200);
        tokio::time::sleep(Duration::from_secs(11)).await;
        client.get("http://app/", "-").await.status
    };
    let (trickling, second, mute, resting) = tokio::join!(trickling, second, mute, resting);
    for answer in [trickling, second] {
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_headers_timeout"),
            "{answer}"
        );
    }
    assert_eq!(mute, "", "nothing was asked, so nothing is answered");
    assert_eq!(resting, 200);
}
