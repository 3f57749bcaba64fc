use http::{HeaderMap, HeaderValue, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const LIMITS: Limits = Limits { head: 64 * 1024, fields: 128 };

type Client = Connection<DuplexStream>;

fn client() -> (Client, DuplexStream) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    (Connection::new(near, Spare::new(), LIMITS), far)
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("/").header("host", "a").body(Empty::new()).unwrap()
}

fn post<B>(body: B) -> Request<B> {
    Request::post("/").header("host", "a").body(body).unwrap()
}

fn full(text: &'static str) -> Full<Bytes> {
    Full::new(Bytes::from_static(text.as_bytes()))
}

/// The head, and the whole body.
type Whole = (Response<()>, Result<(Bytes, Option<HeaderMap>), crate::BodyError>);

/// What a client makes of these bytes, sent by an endpoint that has read its request and then ends its side; and the connection.
async fn answered(
    request: Request<Empty<Bytes>>,
    bytes: &[u8],
) -> (Client, Result<Whole, Why<std::convert::Infallible>>) {
    let (client, mut far) = client();
    far.write_all(bytes).await.unwrap();
    let talk = async {
        let answer = client.send(Box::new(request), b"", None, &|_| ()).await.map_err(|failed| failed.why)?;
        let (head, body) = answer.response.into_parts();
        let body = body.collect().await.map(|body| (body.trailers().cloned(), body.to_bytes()));
        Ok((Response::from_parts(head, ()), body.map(|(trailers, bytes)| (bytes, trailers))))
    };
    let far = async {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(far.read_u8().await.unwrap());
        }
        far.shutdown().await.unwrap();
        far
    };
    let (answer, _far) = tokio::join!(talk, far);
    (client, answer)
}

#[tokio::test]
async fn bodies_end_where_their_heads_say() {
    for (answer, body, reusable) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Some("hello"), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some(""), true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Some("hello"), true),
        ("HTTP/1.1 204 No Content\r\n\r\n", Some(""), true),
        ("HTTP/1.1 200 OK\r\n\r\nhello", Some("hello"), false),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", Some("hello"), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", Some("hello"), false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", Some("hello"), true),
        // More than was asked for: whoever sends it cannot be trusted with another request.
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, you", Some("hello"), false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            Some("hi"),
            false,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", None, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", None, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!", None, false),
    ] {
        let (client, got) = answered(get(), answer.as_bytes()).await;
        let (_, got) = got.expect(answer);
        assert_eq!(got.ok().map(|(bytes, _)| bytes), body.map(Bytes::from_static_str), "{answer:?}");
        assert_eq!(client.is_reusable(), reusable, "{answer:?}");
    }
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Self;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Self::from_static(text.as_bytes())
    }
}

#[tokio::test]
async fn trailers_and_interim_responses_are_read() {
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
        HTTP/1.1 200 Fine\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n";
    let (client, got) = answered(get(), answer.as_bytes()).await;
    let (head, body) = got.unwrap();
    let (bytes, trailers) = body.unwrap();
    assert_eq!((head.status(), head.version()), (StatusCode::OK, Version::HTTP_11));
    assert_eq!(head.extensions().get::<Spelling>().unwrap().reason(), Some(&b"Fine"[..]));
    assert_eq!((bytes, trailers.unwrap()["x-sum"].to_str().unwrap()), (Bytes::from_static(b"ok"), "1"));
    assert!(client.is_reusable());
    let endless = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
    let (_, got) = answered(get(), endless.as_bytes()).await;
    assert!(matches!(got, Err(Why::Refused(Refusal::TooManyInterim))));
}

#[tokio::test]
async fn responses_to_head_have_no_body() {
    let head = Request::head("/").header("host", "a").body(Empty::new()).unwrap();
    let (client, got) = answered(head, b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    let (head, body) = got.unwrap();
    assert_eq!((head.headers()["content-length"].to_str().unwrap(), body.unwrap().0.len()), ("1234", 0));
    assert!(client.is_reusable());
}

#[tokio::test]
async fn what_is_no_response_is_refused_with_its_reason() {
    let large = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: 1\r\n".repeat(129));
    for (answer, want) in [
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", Refusal::Version),
        ("HTTP/1.1 20 OK\r\n\r\n", Refusal::Status),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Refusal::LengthsDiffer),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Refusal::LengthInvalid),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Refusal::CodingUnknown),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::CodingInHttp10),
        ("HTTP/1.1 200 OK\r\nA b: 1\r\n\r\n", Refusal::FieldName),
        (&many, Refusal::TooManyFields),
        (&large[..60_000], Refusal::HeadTooLarge),
    ] {
        let limits = if answer.len() == 60_000 { 50_000 } else { LIMITS.head };
        let (near, mut far) = tokio::io::duplex(128 * 1024);
        let client = Connection::new(near, Spare::new(), Limits { head: limits, ..LIMITS });
        let (got, ()) = tokio::join!(client.send(Box::new(get()), b"", None, &|_| ()), async {
            far.write_all(answer.as_bytes()).await.unwrap();
        });
        match got.map_err(|failed| failed.why) {
            Err(Why::Refused(refusal)) => assert_eq!(refusal, want, "{:?}", &answer[..40.min(answer.len())]),
            other => panic!("{:?}: {other:?}", &answer[..40.min(answer.len())]),
        }
    }
}

/// What an endpoint reads of a request.
async fn written<B>(request: Request<B>) -> String
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let (client, mut far) = client();
    let far = async {
        far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let mut all = String::new();
        far.read_to_string(&mut all).await.unwrap();
        all
    };
    let sending = async {
        let answer =
            client.send(Box::new(request), b"", None, &|_| ()).await.map_err(|failed| failed.why).unwrap();
        if let Some(rest) = answer.rest {
            rest.await;
        }
        drop(client);
    };
    tokio::join!(far, sending).0
}

#[tokio::test]
async fn requests_are_framed_by_what_is_known_of_their_bodies() {
    let stream = |trailers: Option<HeaderMap>| {
        let data = Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"hello")));
        let frames = std::iter::once(data).chain(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()))
    };
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(written(get()).await, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(written(post(full("hello"))).await, format!("{head}Content-Length: 5\r\n\r\nhello"));
    assert_eq!(written(post(Empty::new())).await, format!("{head}Content-Length: 0\r\n\r\n"));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n");
    assert_eq!(written(post(stream(None))).await, format!("{chunked}\r\n"));
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from(1))]);
    assert_eq!(written(post(stream(Some(trailers)))).await, format!("{chunked}X-Sum: 1\r\n\r\n"));
    let mut lying = post(full("hello"));
    lying.headers_mut().insert("transfer-encoding", HeaderValue::from_static("gzip"));
    lying.headers_mut().insert("content-length", HeaderValue::from_static("nonsense"));
    assert_eq!(written(lying).await, format!("{head}Content-Length: 5\r\n\r\nhello"));
    let connect = Request::connect("a.test:443").header("host", "a.test:443").body(Empty::new()).unwrap();
    assert_eq!(written(connect).await, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
    let absolute = Request::get("http://a.test/x?y").header("host", "b").body(Empty::new()).unwrap();
    assert_eq!(written(absolute).await, "GET http://a.test/x?y HTTP/1.1\r\nHost: b\r\n\r\n");
}

#[tokio::test]
async fn an_idle_connection_that_ended_or_speaks_is_not_open() {
    let (client, mut far) = client();
    assert!(client.is_open());
    far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    assert!(!client.is_open());
    let (client, far) = self::client();
    drop(far);
    assert!(!client.is_open());
}

#[tokio::test]
async fn a_request_of_which_nothing_was_written_comes_back_whole() {
    let (client, far) = client();
    drop(far);
    let failed = client.send(Box::new(post(full("hello"))), b"", None, &|_| ()).await.unwrap_err();
    assert!(!failed.begun, "{failed:?}");
    let unsent = failed.unsent.unwrap();
    assert_eq!(unsent.request.headers()["host"], "a");
    assert_eq!(unsent.taken.concat(), b"hello");
}

#[tokio::test]
async fn a_request_that_was_written_does_not_come_back() {
    let (client, far) = client();
    let far = async {
        let mut far = far;
        far.read_u8().await.unwrap();
    };
    let (failed, ()) = tokio::join!(client.send(Box::new(post(full("hello"))), b"", None, &|_| ()), far);
    let failed = failed.unwrap_err();
    assert!(failed.begun && failed.unsent.is_none(), "{failed:?}");
    assert!(matches!(failed.why, Why::Closed | Why::Io(_)), "{failed:?}");
    assert!(!client.is_reusable());
}

/// A body fed by hand.
fn by_hand() -> (
    tokio::sync::mpsc::UnboundedSender<Frame<Bytes>>,
    impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin,
) {
    let (feed, mut fed) = tokio::sync::mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| fed.poll_recv(cx).map(|frame| frame.map(Ok)));
    (feed, StreamBody::new(stream))
}

#[tokio::test]
async fn an_early_answer_and_the_rest_of_its_request_go_side_by_side() {
    let (client, mut far) = client();
    let (feed, body) = by_hand();
    feed.send(Frame::data(Bytes::from_static(b"one"))).unwrap();
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nyes").await.unwrap();
    let answer =
        client.send(Box::new(post(body)), b"", None, &|_| ()).await.map_err(|failed| failed.why).unwrap();
    let rest = answer.rest.expect("the body has not ended");
    let mut body = answer.response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "yes");
    feed.send(Frame::data(Bytes::from_static(b"two"))).unwrap();
    drop(feed);
    rest.await;
    far.write_all(b"yes").await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "yes");
    assert!(client.is_reusable());
    drop(client);
    drop(body);
    let mut all = String::new();
    far.read_to_string(&mut all).await.unwrap();
    assert!(all.ends_with("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), "{all}");
}

#[tokio::test]
async fn the_rest_of_a_request_ends_with_its_connection() {
    let (client, mut far) = client();
    let (feed, body) = by_hand();
    far.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let answer =
        client.send(Box::new(post(body)), b"", None, &|_| ()).await.map_err(|failed| failed.why).unwrap();
    assert!(!client.is_reusable(), "the request was not sent whole");
    let rest = answer.rest.expect("the body has not ended");
    let ((), ()) = tokio::join!(rest, async { drop(client.take()) });
    feed.closed().await;
}

#[tokio::test]
async fn an_answer_is_read_even_if_the_request_could_not_be_written() {
    let (near, mut far) = tokio::io::duplex(1024);
    let client = Connection::new(near, Spare::new(), LIMITS);
    let far = async move {
        far.read_u8().await.unwrap();
        far.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
    };
    let large = Full::new(Bytes::from(vec![b'x'; 100_000]));
    let (answer, ()) = tokio::join!(client.send(Box::new(post(large)), b"", None, &|_| ()), far);
    let answer = answer.unwrap();
    assert_eq!(answer.response.status(), 413);
    assert_eq!(answer.response.into_body().collect().await.unwrap().to_bytes(), "big");
    assert!(!client.is_reusable());
}

#[tokio::test]
async fn a_switch_hands_the_connection_over() {
    let (client, mut far) = client();
    far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst").await.unwrap();
    let answer = client.send(Box::new(get()), b"", None, &|_| ()).await.unwrap();
    assert!(answer.tunnel && !client.is_reusable());
    let (mut io, unread) = client.take().unwrap();
    assert_eq!(unread, "first");
    io.write_all(b"x").await.unwrap();
    assert!(client.take().is_none());
}

#[tokio::test]
async fn a_failing_request_body_is_its_owners_failure() {
    let (client, _far) = client();
    let body = StreamBody::new(futures_util::stream::iter([
        Ok(Frame::data(Bytes::from_static(b"x"))),
        Err("stalled"),
    ]));
    let failed = client.send(Box::new(post(body)), b"", None, &|_| ()).await.unwrap_err();
    assert!(matches!(failed.why, Why::Body("stalled")), "{failed:?}");
}

#[tokio::test]
async fn an_interim_response_goes_on_as_it_was_written() {
    let spare = Spare::new();
    let (near, mut browser) = tokio::io::duplex(4096);
    let mut server = crate::server::Connection::new(near, spare.clone(), LIMITS);
    let (near, mut app) = tokio::io::duplex(4096);
    let client = Connection::new(near, spare, LIMITS);
    browser.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let crate::server::Next::Request(request) = server.request().await else { panic!("it is one") };
    app.write_all(b"HTTP/1.1 103 Early Hints\r\nLINK: </a>\r\nConnection: x\r\nX: 1\r\n\r\n").await.unwrap();
    app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let interim = server.interim().unwrap();
    let pass = |response| interim.pass(&response);
    let answer =
        client.send(Box::new(request.map(|_| Empty::<Bytes>::new())), b"", None, &pass).await.unwrap();
    server.answer(answer.response).await.unwrap();
    let mut read = vec![0; 1000];
    let count = browser.read(&mut read).await.unwrap();
    let read = std::str::from_utf8(&read[..count]).unwrap();
    assert!(read.starts_with("HTTP/1.1 103 Early Hints\r\nLINK: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"), "{read}");
}
