use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::input::Input;
use crate::spelling::write_fields;

const LIMITS: Limits = Limits { head: 64 * 1024, fields: 128 };

/// Fed in these pieces; the head, and how much is left of the input.
fn in_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let (mut input, spare) = (Input::default(), Spare::new());
    let mut head = None;
    for piece in pieces {
        feed(&mut input, &spare, piece);
        if head.is_none() {
            head = request(&mut input, &LIMITS, &spare)?;
        }
    }
    Ok(head.map(|head| (head, input.bytes().len())))
}

fn feed(input: &mut Input, spare: &Rc<Spare>, mut piece: &[u8]) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    while !piece.is_empty() {
        assert!(input.poll_fill(&mut piece, &mut cx, spare, 0).is_ready());
    }
}

fn whole(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
    in_pieces([bytes])
}

fn shown(head: &RequestHead) -> String {
    let request = &head.request;
    let mut fields = Vec::new();
    write_fields(&mut fields, request.headers(), request.extensions().get::<Spelling>(), |_| false);
    let fields = String::from_utf8_lossy(&fields).into_owned();
    format!("{} {} {:?}\r\n{fields}{:?}", request.method(), request.uri(), request.version(), head.framing)
}

#[test]
fn what_is_no_head_is_refused_with_its_reason() {
    for (bytes, want) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nA b: 1\r\n\r\n", Refusal::FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nA : 1\r\n\r\n", Refusal::FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", Refusal::FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", Refusal::FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: \x01\r\n\r\n", Refusal::FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n", Refusal::FieldValue),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Refusal::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Refusal::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Refusal::LineEnd),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n", Refusal::FieldValue),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Method),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refusal::Version),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refusal::Version),
        ("GET /\r\n\r\n", Refusal::Target),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Version),
        ("GET a:b:c HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Target),
        ("GET a.test HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("GET / HTTP/1.1\r\n\r\n", Refusal::HostMissing),
    ] {
        match whole(bytes.as_bytes()) {
            Err(refusal) => assert_eq!(refusal, want, "{bytes:?}"),
            Ok(head) => panic!("{bytes:?} was taken: {:?}", head.map(|(head, _)| shown(&head))),
        }
    }
}

#[test]
fn all_forms_of_targets_are_read() {
    for (line, want) in [
        ("GET /a?b HTTP/1.1", "/a?b"),
        ("GET http://a.test/x HTTP/1.1", "http://a.test/x"),
        ("CONNECT a.test:443 HTTP/1.1", "a.test:443"),
        ("OPTIONS * HTTP/1.1", "*"),
        ("M-SEARCH / HTTP/1.0", "/"),
        ("\r\n\r\nGET / HTTP/1.1", "/"),
    ] {
        let (head, left) = whole(format!("{line}\r\nHost: a\r\n\r\nrest").as_bytes()).unwrap().unwrap();
        assert_eq!((head.request.uri().to_string().as_str(), left), (want, 4), "{line}");
    }
}

#[test]
fn a_head_has_limits() {
    let fields = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-A: 1\r\n".repeat(count));
    assert!(whole(fields(127).as_bytes()).unwrap().is_some());
    assert_eq!(whole(fields(128).as_bytes()).err(), Some(Refusal::TooManyFields));
    let long = |count| format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(count));
    assert!(whole(long(65_000).as_bytes()).unwrap().is_some());
    assert_eq!(whole(long(65_600).as_bytes()).err(), Some(Refusal::HeadTooLarge));
    // One that never ends is refused when it is too large, however small its pieces are.
    let endless = long(70_000);
    let pieces = endless.as_bytes().chunks(100);
    assert_eq!(in_pieces(pieces).err(), Some(Refusal::HeadTooLarge));
}

#[test]
fn names_keep_their_case_and_order_also_when_some_are_gone_and_some_came() {
    let head = "GET / HTTP/1.1\r\nx-first: 1\r\nHost: a\r\nConnection: close\r\nX-LIST: 1\r\nSOAPAction: s\r\nx-list: 2\r\n\r\n";
    let (head, _) = whole(head.as_bytes()).unwrap().unwrap();
    let (mut parts, ()) = head.request.into_parts();
    parts.headers.remove("connection");
    parts.headers.insert("x-first", HeaderValue::from_static("changed"));
    parts.headers.insert("x-added-id", HeaderValue::from_static("new"));
    let mut written = Vec::new();
    write_fields(&mut written, &parts.headers, parts.extensions.get::<Spelling>(), |_| false);
    assert_eq!(
        String::from_utf8(written).unwrap(),
        "x-first: changed\r\nHost: a\r\nX-LIST: 1\r\nSOAPAction: s\r\nx-list: 2\r\nX-Added-Id: new\r\n"
    );
}

#[test]
fn a_response_keeps_its_reason_and_an_ambiguous_length_does_not_go_on() {
    let (mut input, spare) = (Input::default(), Spare::new());
    let bytes = b"HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n";
    feed(&mut input, &spare, bytes);
    let head = response(&mut input, &LIMITS, &spare, To::Other).unwrap().unwrap();
    assert_eq!((head.framing, head.keeps), (Framing::Chunked, false));
    assert_eq!(head.response.headers().len(), 1);
    let spelling = head.response.extensions().get::<Spelling>().unwrap();
    assert_eq!(spelling.reason(), Some(&b"Fine"[..]));
    // Old apps end their lines with LF alone; what goes on does not.
    feed(&mut input, &spare, b"HTTP/1.0 204 No Content\nX-A: 1\n\n");
    let head = response(&mut input, &LIMITS, &spare, To::Other).unwrap().unwrap();
    assert_eq!(head.response.headers()["x-a"], "1");
}

fn some_head() -> impl Strategy<Value = String> {
    let name = "[A-Za-z][A-Za-z0-9-]{0,12}";
    let value = "[ -~]{0,30}";
    let fields = prop::collection::vec((name, value), 0..20);
    ("(GET|POST|PUT)", "/[a-z0-9/?&=%-]{0,30}", fields).prop_map(|(method, target, fields)| {
        let reserved = |name: &str| {
            ["host", "content-length", "transfer-encoding", "te"]
                .contains(&name.to_ascii_lowercase().as_str())
        };
        let fields: String = fields
            .iter()
            .filter(|(name, _)| !reserved(name))
            .map(|(name, value)| format!("{name}: {}\r\n", value.trim()))
            .collect();
        format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
    })
}

proptest! {
    /// How the bytes come makes no difference.
    #[test]
    fn any_split_gives_the_same_head(head in some_head(), cuts in prop::collection::vec(0usize..400, 0..6)) {
        let (bytes, mut cuts) = (head.as_bytes(), cuts);
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
        cuts.push(0);
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        let split = in_pieces(pieces).map(|head| head.map(|(head, left)| (shown(&head), left)));
        let once = whole(bytes).map(|head| head.map(|(head, left)| (shown(&head), left)));
        prop_assert_eq!(split, once);
    }

    /// What is read and written again is the same, byte by byte.
    #[test]
    fn a_head_is_written_as_it_was_read(head in some_head()) {
        if let Some((read, _)) = whole(head.as_bytes()).unwrap() {
            let request = &read.request;
            let mut fields = Vec::new();
            write_fields(&mut fields, request.headers(), request.extensions().get::<Spelling>(), |_| false);
            let line = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri());
            prop_assert_eq!(line + &String::from_utf8(fields).unwrap() + "\r\n", head);
        }
    }

    /// Nothing from outside panics.
    #[test]
    fn any_bytes_are_a_head_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = whole(&bytes);
    }
}
