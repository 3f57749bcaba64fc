//! The same bytes to hyper's HTTP/1 server and to ours, and every difference explained.
//!
//! Ours may stop earlier, for a reason it states; it never reads on where hyper does not, and never reads anything else. Shared by the test beside it and by
//! the fuzz target.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use outrigger_http1::server::{After, Connection, Next};
use outrigger_http1::{Limits, Refusal, Spare};
use tokio::io::AsyncWriteExt;

const LIMITS: Limits = Limits { head: 64 * 1024, fields: 128 };

/// A request as its reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    line: String,
    fields: Vec<(String, Vec<u8>)>,
    /// `None` if it broke off.
    body: Option<Bytes>,
}

/// Why ours read no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    End,
    Refused(Refusal),
    /// It said that the connection ends.
    Closed,
}

async fn seen<B>(request: Request<B>) -> Seen
where
    B: http_body::Body<Data = Bytes>,
{
    let line = format!("{} {} {:?}", request.method(), request.uri(), request.version());
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let body = request.into_body().collect().await.ok().map(|body| body.to_bytes());
    Seen { line, fields, body }
}

/// Nothing that would be a tunnel is granted.
fn answer(connect: bool) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    if connect {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}

async fn by_hyper(bytes: &[u8]) -> Vec<Seen> {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    far.write_all(bytes).await.expect("it fits");
    far.shutdown().await.expect("it is open");
    let requests = Rc::new(RefCell::new(Vec::new()));
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
        let requests = requests.clone();
        async move {
            let connect = request.method() == http::Method::CONNECT;
            let seen = seen(request).await;
            let whole = seen.body.is_some();
            requests.borrow_mut().push(seen);
            // One whose body broke off has no answer.
            if whole { Ok(answer(connect)) } else { Err("broken") }
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.half_close(true).max_headers(LIMITS.fields).max_header_size(LIMITS.head).max_buf_size(1 << 20);
    builder.header_read_timeout(None);
    let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(near), service).await;
    drop(builder);
    requests.take()
}

async fn by_ours(bytes: &[u8]) -> (Vec<Seen>, Stop) {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    far.write_all(bytes).await.expect("it fits");
    far.shutdown().await.expect("it is open");
    let mut server = Connection::new(near, Spare::new(), LIMITS);
    let mut requests = Vec::new();
    loop {
        let request = match server.request().await {
            Next::Request(request) => request,
            Next::Refused(refusal) => return (requests, Stop::Refused(refusal)),
            Next::End | Next::Broken(_) => return (requests, Stop::End),
        };
        let connect = request.method() == http::Method::CONNECT;
        let seen = seen(request).await;
        let whole = seen.body.is_some();
        requests.push(seen);
        if !whole {
            return (requests, Stop::Closed);
        }
        let answered: Result<_, outrigger_http1::server::Broken<Infallible>> =
            server.answer(answer(connect)).await;
        if !matches!(answered, Ok(After::Next)) {
            return (requests, Stop::Closed);
        }
    }
}

/// What ours refuses and hyper takes, on purpose (docs/http1.md has the reasons).
fn is_stricter(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::LineEnd
            | Refusal::HostMissing
            | Refusal::HostTwice
            | Refusal::HostInvalid
            | Refusal::TargetForm
            | Refusal::LengthAndCoding
            | Refusal::LengthsDiffer
            | Refusal::LengthInvalid
            | Refusal::CodingUnknown
            | Refusal::ConnectWithBody
    )
}

/// What differs, or a complaint that nothing explains it.
pub fn compare(bytes: &[u8]) -> Result<&'static str, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (hyper, (ours, stop)) = runtime.block_on(async { (by_hyper(bytes).await, by_ours(bytes).await) });
    let complaint = |what: &str| {
        let bytes = String::from_utf8_lossy(bytes);
        Err(format!("{what}\n{bytes:?}\nhyper: {hyper:#?}\nours: {ours:#?}, {stop:?}"))
    };
    if ours.len() > hyper.len() {
        return complaint("ours took a request that hyper did not take");
    }
    for (at, (theirs, mine)) in hyper.iter().zip(&ours).enumerate() {
        if theirs.line != mine.line {
            return complaint("the request lines differ");
        }
        if by_name(&theirs.fields) != by_name(&mine.fields) {
            return complaint("the fields differ");
        }
        match (&theirs.body, &mine.body) {
            (theirs, mine) if theirs == mine => {}
            (None, Some(_)) => return complaint("ours took a body that hyper did not take"),
            (Some(_), None) if at + 1 == ours.len() => return Ok("ours refused a body"),
            _ => return complaint("the bodies differ"),
        }
    }
    if ours.len() == hyper.len() {
        return Ok("the same");
    }
    match stop {
        Stop::Refused(refusal) if is_stricter(refusal) => Ok("ours is stricter"),
        // Behind a request to leave HTTP that was not granted nothing is read.
        Stop::Closed if leaves(ours.last()) => Ok("ours reads nothing that was meant for a tunnel"),
        _ => complaint("hyper took a request that ours did not take"),
    }
}

/// A map keeps the order of each name's lines, and has a name where its first line stood: which of them that is may differ.
fn by_name(fields: &[(String, Vec<u8>)]) -> Vec<&(String, Vec<u8>)> {
    let mut fields: Vec<_> = fields.iter().filter(|field| !only_says_what_follows(field)).collect();
    fields.sort_by_key(|(name, _)| name);
    fields
}

/// Whether a connection goes on is told by ours in its own way, not by a field.
fn only_says_what_follows((name, value): &(String, Vec<u8>)) -> bool {
    let known = |token: &[u8]| {
        [&b"close"[..], b"keep-alive"].iter().any(|known| token.trim_ascii().eq_ignore_ascii_case(known))
    };
    name == "connection" && value.split(|byte| *byte == b',').all(known)
}

fn leaves(seen: Option<&Seen>) -> bool {
    let upgrade = |seen: &Seen| seen.fields.iter().any(|(name, _)| name == "upgrade");
    seen.is_some_and(|seen| seen.line.starts_with("CONNECT ") || upgrade(seen))
}
