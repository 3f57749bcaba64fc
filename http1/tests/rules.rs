//! What is refused, normalised and passed: each row of docs/http1.md, through a proxy made of nothing but the codec.

use std::collections::BTreeSet;

use http::{Response, StatusCode};
use http_body_util::Full;
use outrigger_http1::server::{self, Next};
use outrigger_http1::{BodyError, Limits, Refusal, Spare, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMITS: Limits = Limits { head: 64 * 1024, fields: 128 };

/// What becomes of a message. `Passed` is what comes out, if it is what went in; `Normalised` if it is something else.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    Normalised(String),
    Refused(Refusal),
}

use Fate::{Normalised, Passed, Refused};

/// A request's head behind its first line, with a host.
fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")
}

fn requests() -> Vec<(&'static str, String, Fate)> {
    let large = "a".repeat(70_000);
    let hello = "Transfer-Encoding: chunked\r\n";
    vec![
        ("case and order of fields", get("x-B: 1\r\nX-a: 2\r\nx-b: 3\r\n"), Passed),
        ("a method nobody knows", "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n".into(), Passed),
        ("a target in absolute form", "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n".into(), Passed),
        ("a field without a value", get("X-A: \r\n"), Passed),
        ("a value beyond ASCII", get("X-A: \u{e9}\r\n"), Passed),
        ("a body with a length", post("Content-Length: 5\r\n", "hello"), Passed),
        ("a chunked body", chunked("5\r\nhello\r\n0\r\n\r\n"), Passed),
        ("trailers", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), Passed),
        ("empty lines before a request", format!("\r\n\r\n{}", get("")), Normalised(get(""))),
        ("space around a value", get("X-A:  \t1 \r\n"), Normalised(get("X-A: 1\r\n"))),
        (
            "HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n".into(),
            Normalised("GET / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ),
        (
            "a fragment in the target",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            Normalised("GET /a HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ),
        (
            "two equal lengths",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            Normalised(post("Content-Length: 5\r\n", "hello")),
        ),
        ("zeros before a length", post("Content-Length: 005\r\n", "hello"), Passed),
        (
            "extensions of chunks",
            chunked("5;a=b\r\nhello\r\n0;c\r\n\r\n"),
            Normalised(chunked("5\r\nhello\r\n0\r\n\r\n")),
        ),
        (
            "zeros before a chunk's size, space behind it",
            chunked("005  \r\nhello\r\n0\r\n\r\n"),
            Normalised(chunked("5\r\nhello\r\n0\r\n\r\n")),
        ),
        (
            "trailers that frame or route",
            chunked("5\r\nhello\r\n0\r\nContent-Length: 7\r\nX-Sum: 1\r\nHost: b\r\n\r\n"),
            Normalised(chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")),
        ),
        (
            "chunked, spelled otherwise",
            post("Transfer-Encoding:\tCHUNKED \r\n", "0\r\n\r\n"),
            Normalised(post(hello, "0\r\n\r\n")),
        ),
        ("a head over 64 KiB", get(&format!("X-A: {large}\r\n")), Refused(Refusal::HeadTooLarge)),
        ("more than 128 fields", get(&"X-A: 1\r\n".repeat(128)), Refused(Refusal::TooManyFields)),
        ("a method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Refused(Refusal::Method)),
        ("another version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), Refused(Refusal::Version)),
        ("a target that is none", "GET a:b:c HTTP/1.1\r\nHost: a\r\n\r\n".into(), Refused(Refusal::Target)),
        (
            "a target of another method's form",
            "GET a.test:80 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            Refused(Refusal::TargetForm),
        ),
        ("space before a colon", get("X-A : 1\r\n"), Refused(Refusal::FieldName)),
        ("a folded line", get("X-A: 1\r\n 2\r\n"), Refused(Refusal::FieldName)),
        ("a control character in a value", get("X-A: \x01\r\n"), Refused(Refusal::FieldValue)),
        ("a line that ends with LF alone", get("X-A: 1\n"), Refused(Refusal::LineEnd)),
        ("no Host", "GET / HTTP/1.1\r\n\r\n".into(), Refused(Refusal::HostMissing)),
        ("two Hosts", get("Host: a\r\n"), Refused(Refusal::HostTwice)),
        ("a Host that is none", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), Refused(Refusal::HostInvalid)),
        (
            "a length that is no number",
            post("Content-Length: +5\r\n", "hello"),
            Refused(Refusal::LengthInvalid),
        ),
        (
            "two different lengths",
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
            Refused(Refusal::LengthsDiffer),
        ),
        (
            "a length and a coding",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused(Refusal::LengthAndCoding),
        ),
        (
            "any coding but chunked, or chunked twice",
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            Refused(Refusal::CodingUnknown),
        ),
        (
            "a coding in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            Refused(Refusal::CodingInHttp10),
        ),
        (
            "CONNECT with a body",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\nhello".into(),
            Refused(Refusal::ConnectWithBody),
        ),
        (
            "a chunk's size that is no number",
            chunked("0x5\r\nhello\r\n0\r\n\r\n"),
            Refused(Refusal::ChunkSize),
        ),
        (
            "a line end, or too much, in a chunk's extension",
            chunked("5;\nhello\r\n0\r\n\r\n"),
            Refused(Refusal::ChunkExtension),
        ),
        ("data beyond a chunk's size", chunked("5\r\nhello!\r\n0\r\n\r\n"), Refused(Refusal::ChunkEnd)),
        (
            "trailers over the limits of a head",
            chunked(&format!("0\r\nX-A: {large}\r\n\r\n")),
            Refused(Refusal::TrailersTooLarge),
        ),
        ("trailers that are no fields", chunked("0\r\nA b: 1\r\n\r\n"), Refused(Refusal::Trailers)),
    ]
}

fn responses() -> Vec<(&'static str, String, Fate)> {
    let length = "Content-Length: 2\r\n";
    let large = "a".repeat(70_000);
    let interim = "HTTP/1.1 103 Early Hints\r\nLINK: </a>\r\n\r\n";
    vec![
        ("answer: case and order of fields", ok("x-B: 1\r\nX-a: 2\r\nContent-LENGTH: 2\r\n", "ok"), Passed),
        ("answer: a reason of its own", format!("HTTP/1.1 200 Fine\r\n{length}\r\nok"), Passed),
        ("answer: a status nobody knows", format!("HTTP/1.1 299 X\r\n{length}\r\nok"), Passed),
        ("answer: interim responses", format!("{interim}{}", ok(length, "ok")), Passed),
        (
            "answer: 100 Continue",
            format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok(length, "ok")),
            Normalised(ok(length, "ok")),
        ),
        ("answer: HTTP/1.0", format!("HTTP/1.0 200 OK\r\n{length}\r\nok"), Normalised(ok(length, "ok"))),
        (
            "answer: a body that ends with its connection",
            ok("", "ok"),
            Normalised(ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
        ),
        (
            "answer: lines that end with LF alone",
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok".into(),
            Normalised(ok(length, "ok")),
        ),
        (
            "answer: a length and a coding",
            ok("Content-Length: 9\r\nTransfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
            Normalised(ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
        ),
        (
            "answer: the coding identity",
            ok("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "ok"),
            Normalised(ok(length, "ok")),
        ),
        (
            "answer: a length of 204",
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n".into(),
            Normalised("HTTP/1.1 204 No Content\r\n\r\n".into()),
        ),
        ("answer: a status line that is none", "HTTP/1.1 20 OK\r\n\r\n".into(), Refused(Refusal::Status)),
        ("answer: another protocol", "SSH-2.0-x\r\n\r\n".into(), Refused(Refusal::Version)),
        ("answer: a head over 64 KiB", ok(&format!("X-A: {large}\r\n"), ""), Refused(Refusal::HeadTooLarge)),
        (
            "answer: two different lengths",
            ok("Content-Length: 1\r\nContent-Length: 2\r\n", "ok"),
            Refused(Refusal::LengthsDiffer),
        ),
        (
            "answer: any coding but chunked",
            ok("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            Refused(Refusal::CodingUnknown),
        ),
        (
            "answer: more than 64 interim responses",
            "HTTP/1.1 102 Processing\r\n\r\n".repeat(65),
            Refused(Refusal::TooManyInterim),
        ),
    ]
}

/// What an endpoint reads of what a client sends through a proxy, which asks it over a connection of its own.
async fn through(request: &str) -> Result<String, Refusal> {
    let spare = Spare::new();
    let (near, mut browser) = tokio::io::duplex(256 * 1024);
    let mut server = server::Connection::new(near, spare.clone(), LIMITS);
    browser.write_all(request.as_bytes()).await.unwrap();
    browser.shutdown().await.unwrap();
    let request = match server.request().await {
        Next::Request(request) => request,
        Next::Refused(refusal) => return Err(refusal),
        other => panic!("{other:?}"),
    };
    let (near, mut app) = tokio::io::duplex(256 * 1024);
    let client = client::Connection::new(near, spare, LIMITS);
    let asking = async {
        let sent = client.send(Box::new(request), b"", None, &|_| ()).await;
        drop(client.take());
        match sent.map_err(|failed| failed.why) {
            Err(client::Why::Body(BodyError::Refused(refusal))) => Err(refusal),
            // The app answers nothing.
            Err(client::Why::Closed) => Ok(()),
            other => panic!("{other:?}"),
        }
    };
    let app = async {
        let mut read = vec![0; 128 * 1024];
        let mut count = 0;
        // To the end of the request, or of the connection where the request has no valid one.
        loop {
            let more = app.read(&mut read[count..]).await.unwrap();
            count += more;
            let text = String::from_utf8_lossy(&read[..count]);
            let chunked = text.contains("chunked");
            let ends = if chunked { text.contains("\r\n0\r\n") && text.ends_with("\r\n\r\n") } else { true };
            if more == 0 || ends {
                break;
            }
        }
        drop(app);
        read.truncate(count);
        String::from_utf8(read).unwrap()
    };
    let (asked, read) = tokio::join!(asking, app);
    asked.map(|()| read)
}

/// What a client reads of what an endpoint sends through a proxy. Without what the proxy says for itself.
async fn back(response: &str) -> Result<String, Refusal> {
    let spare = Spare::new();
    let (near, mut browser) = tokio::io::duplex(256 * 1024);
    let mut server = server::Connection::new(near, spare.clone(), LIMITS);
    browser.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let Next::Request(request) = server.request().await else { panic!("it is one") };
    let (near, mut app) = tokio::io::duplex(256 * 1024);
    let client = client::Connection::new(near, spare, LIMITS);
    app.write_all(response.as_bytes()).await.unwrap();
    app.shutdown().await.unwrap();
    let interim = server.interim().unwrap();
    let pass = |response| interim.pass(&response);
    let answer =
        client.send(Box::new(request), b"", None, &pass).await.map_err(|failed| match failed.why {
            client::Why::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        })?;
    server.answer(answer.response).await.unwrap();
    drop((server, client));
    let mut read = String::new();
    browser.read_to_string(&mut read).await.unwrap();
    let ours = |line: &&str| !line.starts_with("Date: ");
    Ok(read.split_inclusive("\r\n").filter(ours).collect())
}

fn fate(sent: &str, came: Result<String, Refusal>) -> Fate {
    match came {
        Ok(came) if came == sent => Passed,
        Ok(came) => Normalised(came),
        Err(refusal) => Refused(refusal),
    }
}

#[tokio::test]
async fn requests_go_through_as_the_page_says() {
    for (what, sent, want) in requests() {
        assert_eq!(fate(&sent, through(&sent).await), want, "{what}");
    }
}

#[tokio::test]
async fn responses_come_back_as_the_page_says() {
    for (what, sent, want) in responses() {
        assert_eq!(fate(&sent, back(&sent).await), want, "{what}");
    }
}

#[test]
fn every_reason_to_refuse_has_a_row() {
    let rows = requests().into_iter().chain(responses());
    let refused: BTreeSet<_> = rows
        .filter_map(|(_, _, fate)| match fate {
            Refused(refusal) => Some(refusal.sentence()),
            Passed | Normalised(_) => None,
        })
        .collect();
    let all: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.sentence()).collect();
    assert_eq!(refused, all);
}

#[test]
fn the_page_has_these_rows_and_no_others() {
    let page = include_str!("../../docs/http1.md");
    let written: BTreeSet<(String, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split_once('|'))
        .filter_map(|(what, rest)| Some((what.trim().to_owned(), rest.split_once('|')?.0.trim())))
        .filter(|(_, fate)| ["passed", "normalised", "refused"].contains(fate))
        .collect();
    let tested: BTreeSet<(String, &str)> = requests()
        .into_iter()
        .chain(responses())
        .map(|(what, _, fate)| {
            let fate = match fate {
                Passed => "passed",
                Normalised(_) => "normalised",
                Refused(_) => "refused",
            };
            (what.to_owned(), fate)
        })
        .collect();
    assert_eq!(written, tested);
}

/// One that was refused is told so, and nothing of what comes behind it is read.
#[tokio::test]
async fn a_refused_request_is_the_last_one() {
    for (what, sent, want) in requests() {
        let Refused(refusal) = want else { continue };
        let (near, mut browser) = tokio::io::duplex(256 * 1024);
        let mut server = server::Connection::new(near, Spare::new(), LIMITS);
        browser.write_all(sent.as_bytes()).await.unwrap();
        browser.write_all(get("X-Smuggled: 1\r\n").as_bytes()).await.unwrap();
        let mut response = Response::new(Full::<bytes::Bytes>::from(refusal.sentence()));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        match server.request().await {
            Next::Refused(got) => assert_eq!(got, refusal, "{what}"),
            // It is its body that is none.
            Next::Request(request) => {
                let body = http_body_util::BodyExt::collect(request.into_body()).await;
                assert!(matches!(body, Err(BodyError::Refused(got)) if got == refusal), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        let after = server.answer(response).await.unwrap();
        assert_eq!(after, server::After::Close { unread: true }, "{what}");
    }
}
