//! What a client may do, and what becomes of its connection or stream if it does anything else (RFC 9113 §5, §6, §8).

use super::*;

#[test]
fn a_request_comes_and_its_answer_goes() {
    let mut server = Server::new();
    server.request(
        1,
        false,
        &[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "a.test:1"),
            (":path", "/a?b"),
            ("x-one", "1"),
        ],
    );
    server.wire.put(kind::DATA, 0, 1, b"hel");
    server.wire.put(kind::DATA, flag::END_STREAM, 1, b"lo");
    let mut requests = server.turn();
    let (request, mut send) = requests.pop().expect("a request");
    assert_eq!(request.uri(), "https://a.test:1/a?b");
    assert_eq!(
        (request.method().as_str(), &request.headers()["x-one"]),
        ("POST", &"1".parse().expect("a value"))
    );
    let mut recv = request.into_body();
    let (body, end) = read(&mut recv);
    assert!(body == b"hello" && matches!(end, Some(Ok(()))) && recv.is_end_stream());
    server.wire.written();

    let mut head = http::Response::builder().header("x-two", "2").body(()).expect("valid").into_parts().0;
    send.respond(&mut head, false).expect("open");
    let mut data = Bytes::from_static(b"answer");
    assert!(matches!(send.poll_send(&mut cx(), &mut data, true), Poll::Ready(Ok(()))));
    let frames = server.wire.written();
    let [head, data] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((head.kind, head.flags, head.stream), (kind::HEADERS, flag::END_HEADERS, 1));
    let said = fields(&mut hpack::Decoder::new(4096), head);
    assert!(said[0].contains("200") && said.iter().any(|field| field.contains("x-two")), "{said:?}");
    assert!(said.iter().any(|field| field.contains("date")), "{said:?}");
    assert_eq!((data.kind, data.flags, &data.payload[..]), (kind::DATA, flag::END_STREAM, &b"answer"[..]));
    drop((send, recv));
    assert_eq!(server.wire.written(), [], "it is over, and nothing is to be said about it");
}

/// Frame by frame: what is wrong with the connection, and the code it ends with.
#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let put = |kind, flags, stream, payload: &'static [u8]| {
        move |server: &mut Server| server.wire.put(kind, flags, stream, payload)
    };
    type Act = Box<dyn Fn(&mut Server)>;
    let opened = |then: Act| -> Act {
        Box::new(move |server: &mut Server| {
            server.request(1, false, &POST);
            then(server);
        })
    };
    let get = |stream| -> Act { Box::new(move |server: &mut Server| server.request(stream, true, &GET)) };
    let cases: Vec<(&str, Code, Act)> = vec![
        ("DATA of the connection", Code::PROTOCOL_ERROR, Box::new(put(kind::DATA, 0, 0, b"x"))),
        ("HEADERS of the connection", Code::PROTOCOL_ERROR, get(0)),
        ("a request with a server's number", Code::PROTOCOL_ERROR, get(2)),
        ("DATA before HEADERS", Code::PROTOCOL_ERROR, Box::new(put(kind::DATA, 0, 1, b"x"))),
        ("RST_STREAM before HEADERS", Code::PROTOCOL_ERROR, Box::new(put(kind::RST_STREAM, 0, 1, &[0; 4]))),
        (
            "RST_STREAM of the connection",
            Code::PROTOCOL_ERROR,
            Box::new(put(kind::RST_STREAM, 0, 0, &[0; 4])),
        ),
        (
            "RST_STREAM of five bytes",
            Code::FRAME_SIZE_ERROR,
            opened(Box::new(put(kind::RST_STREAM, 0, 1, &[0; 5]))),
        ),
        (
            "WINDOW_UPDATE before HEADERS",
            Code::PROTOCOL_ERROR,
            Box::new(put(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ),
        ("WINDOW_UPDATE by nothing", Code::PROTOCOL_ERROR, Box::new(put(kind::WINDOW_UPDATE, 0, 0, &[0; 4]))),
        (
            "WINDOW_UPDATE of three bytes",
            Code::FRAME_SIZE_ERROR,
            Box::new(put(kind::WINDOW_UPDATE, 0, 0, &[0; 3])),
        ),
        (
            "a window beyond 2^31",
            Code::FLOW_CONTROL_ERROR,
            Box::new(put(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ),
        ("SETTINGS of a stream", Code::PROTOCOL_ERROR, Box::new(put(kind::SETTINGS, 0, 1, &[]))),
        ("SETTINGS of five bytes", Code::FRAME_SIZE_ERROR, Box::new(put(kind::SETTINGS, 0, 0, &[0; 5]))),
        (
            "an ACK that says something",
            Code::FRAME_SIZE_ERROR,
            Box::new(put(kind::SETTINGS, flag::ACK, 0, &[0; 6])),
        ),
        ("ENABLE_PUSH = 2", Code::PROTOCOL_ERROR, Box::new(put(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]))),
        (
            "a window of 2^31",
            Code::FLOW_CONTROL_ERROR,
            Box::new(put(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
        ),
        ("frames of 1 KiB", Code::PROTOCOL_ERROR, Box::new(put(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 4, 0]))),
        ("frames of 16 MiB", Code::PROTOCOL_ERROR, Box::new(put(kind::SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]))),
        ("PING of a stream", Code::PROTOCOL_ERROR, Box::new(put(kind::PING, 0, 1, &[0; 8]))),
        ("PING of seven bytes", Code::FRAME_SIZE_ERROR, Box::new(put(kind::PING, 0, 0, &[0; 7]))),
        ("GOAWAY of a stream", Code::PROTOCOL_ERROR, Box::new(put(kind::GOAWAY, 0, 1, &[0; 8]))),
        ("GOAWAY of four bytes", Code::FRAME_SIZE_ERROR, Box::new(put(kind::GOAWAY, 0, 0, &[0; 4]))),
        ("PUSH_PROMISE", Code::PROTOCOL_ERROR, opened(Box::new(put(kind::PUSH_PROMISE, 0, 1, &[0; 4])))),
        ("CONTINUATION alone", Code::PROTOCOL_ERROR, opened(Box::new(put(kind::CONTINUATION, 4, 1, &[])))),
        (
            "a block interrupted",
            Code::PROTOCOL_ERROR,
            Box::new(|server| {
                server.wire.put(kind::HEADERS, 0, 1, &[]);
                server.wire.put(kind::PING, 0, 0, &[0; 8]);
            }),
        ),
        (
            "a block that goes on in another stream",
            Code::PROTOCOL_ERROR,
            Box::new(|server| {
                server.wire.put(kind::HEADERS, 0, 1, &[]);
                server.wire.put(kind::CONTINUATION, 4, 3, &[]);
            }),
        ),
        (
            "a block that cannot be decoded",
            Code::COMPRESSION_ERROR,
            Box::new(put(kind::HEADERS, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ),
        (
            "more padding than payload",
            Code::PROTOCOL_ERROR,
            opened(Box::new(put(kind::DATA, flag::PADDED, 1, &[5, 0, 0, 0]))),
        ),
        (
            "a frame that is too large",
            Code::FRAME_SIZE_ERROR,
            opened(Box::new(|server| server.wire.put(kind::DATA, 0, 1, &[0; 16_385]))),
        ),
    ];
    for (what, code, act) in cases {
        let mut server = Server::new();
        act(&mut server);
        let _requests = server.turn();
        assert!(
            matches!(server.end, Some(Err(Error::Connection(got, _))) if got == code),
            "{what}: {:?}",
            server.end
        );
        assert_eq!(server.wire.gone(), Some(code), "{what}");
        assert!(server.wire.0.borrow().shut, "{what}");
    }
}

#[test]
fn nothing_comes_before_the_preface_and_settings() {
    for (hello, frame) in
        [(&b"GET / HTTP/1.1\r\n\r\n      "[..], kind::SETTINGS), (&frame::PREFACE[..], kind::PING)]
    {
        let mut server = Server::raw(LIMITS);
        server.wire.0.borrow_mut().incoming.extend(hello);
        server.wire.put(frame, 0, 0, &[0; 8][..if frame == kind::PING { 8 } else { 0 }]);
        assert!(server.turn().is_empty());
        assert_eq!(server.wire.gone(), Some(Code::PROTOCOL_ERROR));
    }
}

/// One stream's fault; the connection and its table go on.
#[test]
fn what_is_malformed_ends_its_stream_alone() {
    let base = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
    let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
    let without = |name: &str| base.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let cases = vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("two paths", with(&[(":path", "/b")])),
        ("a status", with(&[(":status", "200")])),
        ("a pseudo-header field behind others", [&[("x-a", "b")][..], &base].concat()),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te", with(&[("te", "gzip")])),
        (":protocol without CONNECT", with(&[(":protocol", "websocket")])),
        (
            "CONNECT with a path",
            vec![(":method", "CONNECT"), (":authority", "a:1"), (":path", "/"), (":scheme", "http")],
        ),
        ("an authority that is none", vec![base[0], base[1], base[2], (":authority", "a b")]),
        ("an empty path", vec![base[0], base[1], (":path", ""), base[3]]),
        ("a path that does not begin", vec![base[0], base[1], (":path", "a"), base[3]]),
        ("a query alone", vec![base[0], base[1], (":path", "?a"), base[3]]),
        ("a fragment", vec![base[0], base[1], (":path", "/#a"), base[3]]),
        ("the asterisk of OPTIONS", vec![base[0], base[1], (":path", "*"), base[3]]),
        ("content that does not come", with(&[("content-length", "5")])),
        ("a length that is none", with(&[("content-length", "x")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "1")])),
    ];
    let mut server = Server::new();
    let mut stream = 1;
    for (what, fields) in &cases {
        server.request(stream, true, fields);
        assert!(server.turn().is_empty(), "{what}");
        assert_eq!(server.wire.resets(), [(stream, Code::PROTOCOL_ERROR)], "{what}");
        stream += 2;
    }
    server.request(stream, true, &with(&[("te", "trailers")]));
    assert_eq!(server.turn().len(), 1, "and what is right is still understood");
}

#[test]
fn a_body_is_as_long_as_it_said() {
    let post = [&POST[..], &[("content-length", "5")]].concat();
    for (pieces, fits) in [(&[&b"hel"[..], b"lo"][..], true), (&[b"hell"], false), (&[b"hello", b"!"], false)]
    {
        let mut server = Server::new();
        server.request(1, false, &post);
        for (n, piece) in pieces.iter().enumerate() {
            let end = if n + 1 == pieces.len() { flag::END_STREAM } else { 0 };
            server.wire.put(kind::DATA, end, 1, piece);
        }
        let mut requests = server.turn();
        let (_, end) = read(requests[0].0.body_mut());
        assert_eq!(matches!(end, Some(Ok(()))), fits, "{pieces:?}");
        let resets = server.wire.resets();
        assert_eq!(resets, if fits { vec![] } else { vec![(1, Code::PROTOCOL_ERROR)] }, "{pieces:?}");
    }
}

#[test]
fn nothing_comes_behind_the_end_of_a_request() {
    for trailers in [false, true] {
        let mut server = Server::new();
        server.request(1, true, &GET);
        let requests = server.turn();
        if trailers {
            server.request(1, true, &[("x-late", "trailers")]);
        } else {
            server.wire.put(kind::DATA, 0, 1, b"late");
        }
        assert!(server.turn().is_empty());
        assert_eq!(server.wire.resets(), [(1, Code::STREAM_CLOSED)]);
        drop(requests);
    }
}

#[test]
fn padding_and_priority_are_read_over() {
    let mut server = Server::new();
    let fields = block(&mut server.encoder, &POST);
    let mut payload = vec![3, 0, 0, 0, 0, 7];
    payload.extend_from_slice(&fields);
    payload.extend_from_slice(&[0; 3]);
    server.wire.put(kind::HEADERS, flag::END_HEADERS | flag::PADDED | flag::PRIORITY, 1, &payload);
    server.wire.put(kind::PRIORITY, 0, 1, &[0; 5]);
    server.wire.put(99, 0xff, 1, b"of a kind that nobody knows");
    server.wire.put(kind::DATA, flag::PADDED | flag::END_STREAM, 1, b"\x02data\0\0");
    let mut requests = server.turn();
    assert_eq!(read(requests[0].0.body_mut()).0, b"data");
}

#[test]
fn trailers_come_behind_the_body_and_end_it() {
    for (end, fields, fits) in [
        (true, ("grpc-status", "0"), true),
        (false, ("grpc-status", "0"), false),
        (true, (":path", "/"), false),
    ] {
        let mut server = Server::new();
        server.request(1, false, &POST);
        server.wire.put(kind::DATA, 0, 1, b"data");
        server.request(1, end, &[fields]);
        let mut requests = server.turn();
        let recv = requests[0].0.body_mut();
        let (data, ended) = read(recv);
        assert_eq!(data, b"data");
        assert_eq!(matches!(ended, Some(Ok(()))), fits, "{fields:?} {end}");
        assert_eq!(recv.take_trailers().is_some(), fits, "{fields:?} {end}");
    }
}

#[test]
fn a_cancelled_request_is_told_and_its_unread_body_gone() {
    let mut server = Server::new();
    server.request(1, false, &POST);
    let (request, mut send) = server.turn().pop().expect("a request");
    assert!(send.poll_reset(&mut cx()).is_pending());
    server.wire.put(kind::RST_STREAM, 0, 1, &Code::CANCEL.0.to_be_bytes());
    server.turn();
    assert!(matches!(send.poll_reset(&mut cx()), Poll::Ready(Error::Reset(Code::CANCEL))));
    let mut data = Bytes::from_static(b"x");
    assert!(matches!(
        send.poll_send(&mut cx(), &mut data, true),
        Poll::Ready(Err(Error::Reset(Code::CANCEL)))
    ));
    drop((request, send));
    assert_eq!(server.wire.resets(), [], "a reset is not answered");
}

#[test]
fn giving_up_resets_and_answering_early_says_that_nothing_is_wrong() {
    let mut server = Server::new();
    server.request(1, false, &POST);
    server.request(3, false, &POST);
    let mut requests = server.turn();
    drop(requests.remove(0));
    assert_eq!(server.wire.resets(), [(1, Code::CANCEL)]);
    let (request, mut send) = requests.remove(0);
    let mut head = http::Response::new(()).into_parts().0;
    send.respond(&mut head, true).expect("open");
    drop((request, send));
    assert_eq!(server.wire.resets(), [(3, Code::NO_ERROR)]);
}

#[test]
fn leaving_takes_two_steps() {
    let mut server = Server::new();
    server.request(1, true, &GET);
    let first = server.turn().pop().expect("a request");
    server.connection.leave();
    let frames = server.wire.written();
    let (away, ping) = (&frames[frames.len() - 2], &frames[frames.len() - 1]);
    assert_eq!((away.kind, &away.payload[..]), (kind::GOAWAY, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0][..]));
    assert_eq!(ping.kind, kind::PING);
    // Sent before the client knew.
    server.request(3, true, &GET);
    server.wire.put(kind::PING, flag::ACK, 0, &ping.payload);
    server.request(5, true, &GET);
    let second = server.turn();
    assert_eq!(second.len(), 1, "what came behind the answer was told that nobody looks at it");
    let away = server.wire.written().into_iter().find(|frame| frame.kind == kind::GOAWAY).expect("told");
    assert_eq!(&away.payload[..], &[0, 0, 0, 3, 0, 0, 0, 0]);
    for (request, mut send) in second.into_iter().chain([first]) {
        assert!(server.turn().is_empty() && server.end.is_none());
        send.respond(&mut http::Response::new(()).into_parts().0, true).expect("open");
        drop((request, send));
    }
    server.turn();
    assert!(matches!(server.end, Some(Ok(()))), "and then it ends");
}

#[test]
fn a_client_that_goes_away_is_answered_first() {
    let mut server = Server::new();
    server.request(1, true, &GET);
    server.wire.put(kind::GOAWAY, 0, 0, &[0; 8]);
    let (_request, mut send) = server.turn().pop().expect("a request");
    assert!(server.end.is_none());
    send.respond(&mut http::Response::new(()).into_parts().0, true).expect("open");
    server.turn();
    assert!(matches!(server.end, Some(Ok(()))));
}

#[test]
fn extended_connect_names_its_protocol() {
    let mut server = Server::new();
    server.request(
        1,
        false,
        &[
            (":method", "CONNECT"),
            (":scheme", "http"),
            (":authority", "a:1"),
            (":path", "/chat"),
            (":protocol", "websocket"),
        ],
    );
    server.request(3, false, &[(":method", "CONNECT"), (":authority", "a:1")]);
    let requests = server.turn();
    let protocols: Vec<_> =
        requests.iter().map(|(request, _)| request.extensions().get::<crate::Protocol>()).collect();
    assert_eq!(protocols, [Some(&crate::Protocol(Bytes::from_static(b"websocket"))), None]);
    assert_eq!(requests[1].0.uri(), "a:1");
}

#[test]
fn interim_responses_go_out_before_the_answer_and_not_after_it() {
    let mut server = Server::new();
    server.request(1, true, &GET);
    let (request, mut send) = server.turn().pop().expect("a request");
    let interim = send.interim();
    let hint = http::Response::builder().status(103).header("link", "</a>").body(()).expect("a response");
    server.wire.written();
    interim.pass(&hint);
    server.wire.0.borrow_mut().stuck = FULL;
    interim.pass(&hint);
    server.wire.0.borrow_mut().stuck = 0;
    let mut head = http::Response::new(()).into_parts().0;
    send.respond(&mut head, true).expect("it is open");
    interim.pass(&hint);
    drop((request, send));
    interim.pass(&hint);
    let frames = server.wire.written();
    let [first, last] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((first.kind, first.flags), (kind::HEADERS, flag::END_HEADERS));
    assert_eq!((last.kind, last.flags), (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM));
    let mut decoder = hpack::Decoder::new(4096);
    let (first, last) = (fields(&mut decoder, first).join(" "), fields(&mut decoder, last).join(" "));
    assert!(first.contains("103") && first.contains("</a>") && last.contains("200"), "{first} {last}");
    // Another stream that has its place is another's.
    server.request(3, true, &GET);
    let _other = server.turn();
    interim.pass(&hint);
    assert!(server.wire.written().is_empty());
}

#[test]
fn a_100_is_said_once_and_only_to_who_waits_for_it() {
    for (expect, before, want) in
        [("100-continue", false, 1), ("100-Continue", true, 0), ("200-ok", false, 0)]
    {
        let mut server = Server::new();
        server.request(1, false, &[&POST[..], &[("expect", expect)]].concat());
        if before {
            server.wire.put(kind::DATA, 0, 1, b"data");
        }
        let (mut request, _send) = server.turn().pop().expect("a request");
        let headers = |wire: &Wire| wire.written().iter().filter(|frame| frame.kind == kind::HEADERS).count();
        assert_eq!(headers(&server.wire), 0, "nobody wants it yet");
        for _ in 0..3 {
            let _ = read(request.body_mut());
        }
        assert_eq!(headers(&server.wire), want, "{expect}, {before}");
    }
}
