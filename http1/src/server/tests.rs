use std::convert::Infallible;
use std::future::Future;

use http::HeaderValue;
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const LIMITS: Limits = Limits { head: 64 * 1024, fields: 128 };

type Server = Connection<DuplexStream>;

fn server() -> (Server, DuplexStream) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    (Connection::new(near, Spare::new(), LIMITS), far)
}

fn full(text: &str) -> Full<Bytes> {
    Full::new(Bytes::copy_from_slice(text.as_bytes()))
}

fn frames(
    frames: Vec<Result<Frame<Bytes>, Infallible>>,
) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
    StreamBody::new(tokio_stream(frames))
}

/// A stream of what is there.
fn tokio_stream<I>(items: Vec<I>) -> impl futures_core::Stream<Item = I> + Unpin {
    futures_util::stream::iter(items)
}

/// Answers every request with what it saw of it, until the connection ends. Returns how it ended.
async fn echo(mut server: Server) -> (String, Vec<After>) {
    let mut afters = Vec::new();
    loop {
        let request = match server.request().await {
            Next::Request(request) => request,
            Next::Refused(refusal) => {
                let mut response = Response::new(full(refusal.sentence()));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                let after = server.answer(response).await.unwrap();
                afters.push(after);
                return ("refused".into(), afters);
            }
            Next::End => return ("end".into(), afters),
            Next::Broken(error) => return (error.to_string(), afters),
        };
        let line = format!("{} {} ", request.method(), request.uri());
        let body = match request.into_body().collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(error) => format!("<{error}>"),
        };
        let after = server.answer(Response::new(full(&(line + &body)))).await.unwrap();
        afters.push(after);
        if after != After::Next {
            return ("closed".into(), afters);
        }
    }
}

/// What a client reads that sends these bytes and ends its side.
async fn said(bytes: &[u8]) -> String {
    let (server, mut client) = server();
    let talk = async {
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::join!(echo(server), talk).1
}

/// Without the date, which changes.
fn undated(answer: &str) -> String {
    answer.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

/// One exchange over a new connection: what `serve` does with the request that `bytes` are, and what the client reads of it.
async fn one<F>(bytes: &[u8], serve: impl FnOnce(Server, Request<Incoming<DuplexStream>>) -> F) -> String
where
    F: Future<Output = ()>,
{
    let (mut server, mut client) = server();
    client.write_all(bytes).await.unwrap();
    let Next::Request(request) = server.request().await else { panic!("it is a request") };
    let mut answer = String::new();
    let read = client.read_to_string(&mut answer);
    let (read, ()) = tokio::join!(read, serve(server, request));
    read.unwrap();
    undated(&answer)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_request_is_answered_in_one_write() {
    let (mut server, mut client) = server();
    client.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    let Next::Request(request) = server.request().await else { panic!("it is one") };
    assert_eq!(request.body().size_hint().exact(), Some(5));
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(server.answer(Response::new(full("fine"))).await.unwrap(), After::Next);
    let mut answer = vec![0; 1000];
    let count = client.read(&mut answer).await.unwrap();
    let answer = undated(std::str::from_utf8(&answer[..count]).unwrap());
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
    assert!(!server.has_begun(), "nothing is kept at rest");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let requests = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n";
    let answer = said(requests.as_bytes()).await;
    let at = |text| answer.find(text).unwrap_or_else(|| panic!("{text} in {answer}"));
    assert!(at("POST /1 one") < at("GET /2 ") && at("GET /2 ") < at("POST /3 three"));
}

#[tokio::test]
async fn a_client_that_ended_its_side_is_answered() {
    let answer = said(GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("GET / "), "{answer}");
}

#[tokio::test]
async fn connections_go_on_as_the_client_wants() {
    for (request, goes_on, header) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false, "Connection: close\r\n"),
        ("GET / HTTP/1.0\r\n\r\n", false, "Connection: close\r\n"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, "Connection: keep-alive\r\n"),
    ] {
        let version = &request[6..14];
        let answer = one(request.as_bytes(), |mut server, _| async move {
            let after = server.answer(Response::new(full("x"))).await.unwrap();
            assert_eq!(after == After::Next, goes_on, "{request:?}");
        })
        .await;
        assert_eq!(answer, format!("{version} 200 OK\r\nContent-Length: 1\r\n{header}\r\nx"), "{request:?}");
    }
    let answer = one(GET, |mut server, _| async move {
        let mut response = Response::new(full("x"));
        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
        assert_eq!(server.answer(response).await.unwrap(), After::Close { unread: false });
    })
    .await;
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_is_framed_as_its_reader_understands() {
    let data = || Ok(Frame::data(Bytes::from_static(b"data")));
    let trailers = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        trailers.insert("content-length", HeaderValue::from_static("7"));
        Ok(Frame::trailers(trailers))
    };
    for (request, want) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\n\r\n"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\nX-Sum: 1\r\n\r\n",
        ),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "Connection: close\r\n\r\ndata"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n"),
    ] {
        let answer = one(request.as_bytes(), |mut server, _| async move {
            server.answer(Response::new(frames(vec![data(), trailers()]))).await.unwrap();
        })
        .await;
        let (_, rest) = answer.split_once("200 OK\r\n").unwrap();
        assert_eq!(rest, want, "{request:?}");
    }
}

#[tokio::test]
async fn responses_without_a_body_say_no_more_than_they_may() {
    for (method, status, length, want) in [
        ("HEAD", 200, Some("5"), "Content-Length: 5\r\n"),
        ("HEAD", 200, None, ""),
        ("GET", 304, Some("5"), "Content-Length: 5\r\n"),
        ("GET", 204, Some("5"), ""),
        ("GET", 204, None, ""),
        ("GET", 200, None, "Content-Length: 0\r\n"),
        ("GET", 200, Some("nonsense"), "Content-Length: 0\r\n"),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = one(request.as_bytes(), |mut server, _| async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("transfer-encoding", HeaderValue::from_static("x"));
            if let Some(length) = length {
                response.headers_mut().insert("content-length", HeaderValue::from_static(length));
            }
            server.answer(response).await.unwrap();
        })
        .await;
        let (_, rest) = answer.split_once("\r\n").unwrap();
        assert_eq!(rest, format!("{want}\r\n"), "{method} {status} {length:?}");
    }
}

#[tokio::test]
async fn a_large_body_goes_out_uncopied_and_whole() {
    let body = "0123456789".repeat(20_000);
    let frames_of = |body: &str| {
        let pieces = body.as_bytes().chunks(7001);
        frames(pieces.map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect())
    };
    let wanted = body.clone();
    let answer = one(GET, |mut server, _| async move {
        server.answer(Response::new(frames_of(&body))).await.unwrap();
    })
    .await;
    let (_, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    let mut got = String::new();
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        got.push_str(&behind[..size]);
        rest = behind[size..].strip_prefix("\r\n").unwrap();
    }
    assert!(got == wanted, "{} bytes", got.len());
}

#[tokio::test]
async fn a_client_that_expects_a_100_gets_it_when_its_body_is_wanted() {
    let ask = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let (mut server, mut client) = server();
    client.write_all(ask).await.unwrap();
    let Next::Request(request) = server.request().await else { panic!("it is one") };
    let client = async {
        let mut interim = [0; 25];
        client.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hello").await.unwrap();
        client
    };
    let (body, mut client) = tokio::join!(request.into_body().collect(), client);
    assert_eq!(body.unwrap().to_bytes(), "hello");
    assert_eq!(server.answer(Response::new(full("x"))).await.unwrap(), After::Next);
    // One that is refused sends nothing, or does: its connection ends.
    client.write_all(ask).await.unwrap();
    let Next::Request(request) = server.request().await else { panic!("it is one") };
    drop(request);
    assert_eq!(server.answer(Response::new(full("no"))).await.unwrap(), After::Close { unread: true });
    drop(server);
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(!rest.contains("100 Continue") && rest.ends_with("Connection: close\r\n\r\nno"), "{rest}");
}

#[tokio::test]
async fn a_body_nobody_wanted_is_discarded_if_it_is_there_and_else_ends_the_connection() {
    for (sent, after) in [
        ("Content-Length: 5\r\n\r\nhello", After::Next),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", After::Next),
        ("Content-Length: 6\r\n\r\nhello", After::Close { unread: true }),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello", After::Close { unread: true }),
        ("Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", After::Close { unread: true }),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{sent}");
        let answer = one(request.as_bytes(), |mut server, request| async move {
            drop(request);
            assert_eq!(server.answer(Response::new(full("x"))).await.unwrap(), after, "{sent:?}");
        })
        .await;
        assert_eq!(answer.contains("Connection: close"), after != After::Next, "{answer}");
    }
}

#[tokio::test]
async fn a_request_to_leave_is_held_until_it_is_granted() {
    let ask = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
    let answer = one(ask, |mut server, request| async move {
        assert!(request.body().is_end_stream());
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
        assert_eq!(server.answer(response).await.unwrap(), After::Tunnel);
        let (mut io, unread) = server.take().unwrap();
        assert_eq!(unread, "early");
        io.write_all(b"bytes").await.unwrap();
    })
    .await;
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(answer, format!("{head}bytes"));
    // Not granted: what was sent for the tunnel is no request.
    let smuggled = [&ask[..ask.len() - 5], b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let (server, mut client) = server();
    client.write_all(&smuggled).await.unwrap();
    let (how, afters) = echo(server).await;
    assert_eq!((how.as_str(), &afters[..]), ("closed", &[After::Close { unread: true }][..]));
    // One that sent nothing goes on.
    let answer = one(&ask[..ask.len() - 5], |mut server, _| async move {
        assert_eq!(server.answer(Response::new(full("no"))).await.unwrap(), After::Next);
    })
    .await;
    assert!(answer.ends_with("no"), "{answer}");
}

#[tokio::test]
async fn a_connect_becomes_a_tunnel() {
    let answer = one(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03", |mut server, _| async move {
        let after = server.answer(Response::new(Empty::<Bytes>::new())).await.unwrap();
        assert_eq!(after, After::Tunnel);
        assert_eq!(server.take().unwrap().1, &b"\x16\x03"[..]);
    })
    .await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\n");
}

#[tokio::test]
async fn what_cannot_be_parsed_is_answered() {
    let answer =
        said(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("Connection: close") && answer.ends_with(Refusal::LengthAndCoding.sentence()));
}

#[tokio::test]
async fn a_broken_body_is_an_error_to_who_reads_it() {
    for (sent, want) in [
        ("Content-Length: 6\r\n\r\nhello", "the connection ended before the body did"),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "the connection ended before the body did"),
        ("Transfer-Encoding: chunked\r\n\r\n5;\nhello\r\n", Refusal::ChunkExtension.sentence()),
    ] {
        let answer = said(format!("POST / HTTP/1.1\r\nHost: a\r\n{sent}").as_bytes()).await;
        assert!(answer.contains(&format!("<{want}>")), "{answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_response_of_the_wrong_length_is_broken_off() {
    for (length, body) in [("5", "hell"), ("3", "hell")] {
        let answer = one(GET, |mut server, _| async move {
            let mut response = Response::new(full(body));
            response.headers_mut().insert("content-length", HeaderValue::from_static(length));
            assert!(matches!(server.answer(response).await, Err(Broken::Length)), "{length}");
        })
        .await;
        assert!(answer.len() < "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".len(), "{answer}");
    }
}

#[tokio::test]
async fn a_failing_body_breaks_its_response_off() {
    for (request, looks_whole) in [(GET, false), (b"GET / HTTP/1.0\r\n\r\n", true)] {
        let answer = one(request, |mut server, _| async move {
            let body =
                StreamBody::new(tokio_stream(vec![Ok(Frame::data(Bytes::from_static(b"x"))), Err("gone")]));
            match server.answer(Response::new(body)).await {
                Err(Broken::Body { error: "gone", looks_whole: looks }) => assert_eq!(looks, looks_whole),
                other => panic!("{other:?}"),
            }
        })
        .await;
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_kept_beyond_its_exchange_reads_nothing_of_the_next_one() {
    let (mut server, mut client) = server();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await.unwrap();
    let Next::Request(request) = server.request().await else { panic!("it is one") };
    let mut body = request.into_body();
    let after = server.answer(Response::new(full("early"))).await.unwrap();
    assert_eq!(after, After::Close { unread: true });
    client.write_all(b"lo").await.unwrap();
    assert!(matches!(body.frame().await, Some(Err(crate::BodyError::Over))));
    assert!(!body.is_end_stream());
}

#[tokio::test]
async fn a_body_read_while_its_answer_goes_out_lets_the_connection_go_on() {
    let (mut server, mut client) = server();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await.unwrap();
    let Next::Request(request) = server.request().await else { panic!("it is one") };
    // An echo: the answer's body is the request's.
    let answering = server.answer(Response::new(request.into_body()));
    let talking = async {
        let mut answer = vec![0; 1000];
        let count = client.read(&mut answer).await.unwrap();
        assert!(answer[..count].ends_with(b"hel"));
        client.write_all(b"loGET /next HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let count = client.read(&mut answer).await.unwrap();
        assert_eq!(&answer[..count], b"lo");
    };
    let (answered, ()) = tokio::join!(answering, talking);
    assert_eq!(answered.unwrap(), After::Next);
    let Next::Request(request) = server.request().await else { panic!("it is one") };
    assert_eq!(request.uri(), "/next");
}

#[tokio::test]
async fn interim_responses_go_out_before_the_answer_and_not_after_it() {
    let (mut server, mut client) = server();
    client.write_all(GET).await.unwrap();
    let Next::Request(_) = server.request().await else { panic!("it is one") };
    let interim = server.interim().unwrap();
    let hint = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
    interim.pass(&hint);
    let watched = poll_fn(|cx| Poll::Ready(server.poll_watch(cx).is_pending())).await;
    assert!(watched);
    let mut hints = vec![0; 100];
    let count = client.read(&mut hints).await.unwrap();
    assert_eq!(&hints[..count], b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    server.answer(Response::new(full("x"))).await.unwrap();
    interim.pass(&hint);
    drop(server);
    interim.pass(&hint);
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 OK") && !rest.contains("103"), "{rest}");
}

#[tokio::test]
async fn who_begins_a_head_is_seen_to_have_begun() {
    let (mut server, mut client) = server();
    client.write_all(b"GE").await.unwrap();
    assert!(poll_fn(|cx| Poll::Ready(server.poll_request(cx).is_pending())).await);
    assert!(server.has_begun());
    client.shutdown().await.unwrap();
    assert!(matches!(server.request().await, Next::End), "nobody is left to be told");
}

/// One that waits for its next request costs this much beside its stream.
#[test]
fn a_connection_at_rest_is_small() {
    let bytes = size_of::<Channel<()>>() + size_of::<Connection<()>>();
    assert!(bytes <= 512, "{bytes} bytes");
}

/// Who counts by the end of a response's body has counted when the client sees that end.
#[tokio::test]
async fn a_body_is_let_go_of_before_its_last_bytes_are_written() {
    use futures_util::StreamExt as _;
    let (near, mut client) = tokio::io::duplex(64);
    let mut server = Connection::new(near, Spare::new(), LIMITS);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let Next::Request(_) = server.request().await else { panic!("it is a request") };
    let counts = Rc::new(());
    let held = counts.clone();
    let data = [Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; 100])))];
    let body = StreamBody::new(futures_util::stream::iter(data).map(move |frame| {
        let _ = &held;
        frame
    }));
    let mut answer = std::pin::pin!(server.answer(Response::new(body)));
    assert!(futures_util::poll!(answer.as_mut()).is_pending(), "the client does not read yet");
    assert_eq!(Rc::strong_count(&counts), 1);
    let read = async { while client.read(&mut [0; 64]).await.unwrap() > 0 {} };
    tokio::select! {
        after = answer => assert_eq!(after.unwrap(), After::Next),
        () = read => panic!("nobody closed it"),
    }
}
