//! What a server may answer.

use super::*;

#[test]
fn requests_go_out_as_they_are() {
    let mut client = Client::new();
    let mut decoder = hpack::Decoder::new(4096);
    let mut headers = http::HeaderMap::new();
    for (name, value) in [("x-one", "1"), ("connection", "close"), ("te", "trailers"), ("keep-alive", "5")] {
        headers.insert(http::HeaderName::from_static(name), value.parse().expect("a value"));
    }
    let uri = "https://app.test/a?b".parse().expect("a URI");
    let _ends = client.sender.send(&http::Method::GET, &uri, None, &headers, true);
    let frames = client.wire.written();
    let [head] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(
        (head.kind, head.flags, head.stream),
        (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1)
    );
    let said = fields(&mut decoder, head).join(" ");
    for part in ["GET", "https", "app.test", "/a?b", "x-one", "trailers"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("close") && !said.contains("keep-alive"), "they mean nothing here: {said}");
}

#[test]
fn an_answer_comes_with_its_body_and_trailers() {
    let mut client = Client::new();
    let (_send, mut recv) = client.send("GET", true);
    assert!(recv.poll_response(&mut cx()).is_pending());
    client.answer(1, false, &[(":status", "103")]);
    client.answer(1, false, &[(":status", "200"), ("x-a", "b")]);
    client.wire.put(kind::DATA, 0, 1, b"data");
    client.answer(1, true, &[("grpc-status", "0")]);
    assert!(client.turn().is_pending());
    let Poll::Ready(Ok(hint)) = recv.poll_response(&mut cx()) else { panic!("it is here") };
    assert_eq!(hint.status().as_u16(), 103);
    let Poll::Ready(Ok(response)) = recv.poll_response(&mut cx()) else { panic!("it is here") };
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-a"]),
        (200, &"b".parse().expect("a value"))
    );
    assert!(!recv.is_end_stream());
    assert!(matches!(read(&mut recv), (data, Some(Ok(()))) if data == b"data"));
    assert_eq!(recv.take_trailers().expect("they came")["grpc-status"], "0");
    assert!(recv.is_end_stream());
}

#[test]
fn interim_responses_have_a_bound() {
    let mut client = Client::new();
    let (_send, mut recv) = client.send("GET", true);
    for _ in 0..64 {
        client.answer(1, false, &[(":status", "103")]);
    }
    assert!(client.turn().is_pending());
    assert!(client.wire.resets().is_empty());
    client.answer(1, false, &[(":status", "103")]);
    assert!(client.turn().is_pending());
    assert_eq!(client.wire.resets(), [(1, Code::ENHANCE_YOUR_CALM)]);
    for _ in 0..64 {
        assert!(matches!(recv.poll_response(&mut cx()), Poll::Ready(Ok(_))), "what came before is true");
    }
    assert!(matches!(recv.poll_response(&mut cx()), Poll::Ready(Err(_))));
    // Of a response that nobody waits for any more nothing is kept.
    let (_send, recv) = client.send("GET", true);
    drop(recv);
    client.answer(3, false, &[(":status", "103")]);
    assert!(client.turn().is_pending());
}

#[test]
fn an_answer_that_is_malformed_ends_its_stream_alone() {
    /// What it is, whether it is all, and what it says.
    type Case = (&'static str, bool, &'static [(&'static str, &'static str)]);
    let cases: &[Case] = &[
        ("no status", true, &[("x-a", "b")]),
        ("a path", true, &[(":status", "200"), (":path", "/")]),
        ("a switch", false, &[(":status", "101")]),
        ("an interim response that is all", true, &[(":status", "103")]),
        ("content that does not come", true, &[(":status", "200"), ("content-length", "3")]),
        ("connection", true, &[(":status", "200"), ("connection", "close")]),
    ];
    let mut client = Client::new();
    for (n, (what, end, said)) in cases.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        let (_send, mut recv) = client.send("GET", true);
        client.answer(stream, *end, said);
        assert!(client.turn().is_pending(), "{what}");
        assert!(
            matches!(recv.poll_response(&mut cx()), Poll::Ready(Err(Error::Refused(Code::PROTOCOL_ERROR)))),
            "{what}"
        );
    }
}

#[test]
fn what_has_no_content_may_say_how_long_it_would_be() {
    for (method, status) in [("HEAD", "200"), ("GET", "304")] {
        let mut client = Client::new();
        let (_send, mut recv) = client.send(method, true);
        client.answer(1, true, &[(":status", status), ("content-length", "10")]);
        assert!(client.turn().is_pending());
        assert!(matches!(recv.poll_response(&mut cx()), Poll::Ready(Ok(_))), "{method} {status}");
        assert!(recv.is_end_stream());
    }
}

/// Answered in full, and the rest of the request is of no use (RFC 9113 §8.1).
#[test]
fn a_reset_behind_the_end_takes_nothing_back() {
    let mut client = Client::new();
    let (mut send, mut recv) = client.send("POST", false);
    client.answer(1, false, &[(":status", "200")]);
    client.wire.put(kind::DATA, flag::END_STREAM, 1, b"too large");
    client.wire.put(kind::RST_STREAM, 0, 1, &[0; 4]);
    assert!(client.turn().is_pending());
    assert!(matches!(send.poll_reset(&mut cx()), Poll::Ready(Error::Reset(Code::NO_ERROR))));
    assert!(matches!(recv.poll_response(&mut cx()), Poll::Ready(Ok(_))));
    assert!(matches!(read(&mut recv), (data, Some(Ok(()))) if data == b"too large"));
}

#[test]
fn a_reset_within_the_body_is_no_end() {
    let mut client = Client::new();
    let (_send, mut recv) = client.send("GET", true);
    client.answer(1, false, &[(":status", "200")]);
    client.wire.put(kind::DATA, 0, 1, b"half");
    client.wire.put(kind::RST_STREAM, 0, 1, &[0; 4]);
    assert!(client.turn().is_pending());
    assert!(matches!(read(&mut recv), (data, Some(Err(Error::Reset(Code::NO_ERROR)))) if data == b"half"));
}

#[test]
fn a_goaway_leaves_out_what_it_says() {
    let mut client = Client::new();
    let (_one, mut first) = client.send("GET", true);
    let (_two, mut second) = client.send("GET", true);
    client.wire.put(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(client.turn().is_pending());
    let Poll::Ready(Err(error)) = second.poll_response(&mut cx()) else { panic!("it is left out") };
    assert!(matches!(error, Error::GoneAway(_)) && error.is_unprocessed());
    assert!(matches!(client.sender.poll_ready(&mut cx()), Poll::Ready(Err(_))), "nothing new");
    assert!(first.poll_response(&mut cx()).is_pending());
    client.answer(1, true, &[(":status", "200")]);
    assert!(matches!(client.turn(), Poll::Ready(Ok(()))), "its last stream is over");
    assert!(matches!(first.poll_response(&mut cx()), Poll::Ready(Ok(_))));
}

#[test]
fn the_end_of_the_connection_is_that_of_its_streams() {
    let mut client = Client::new();
    let (_send, mut recv) = client.send("GET", true);
    client.wire.0.borrow_mut().ended = true;
    assert!(client.turn().is_ready());
    assert!(matches!(recv.poll_response(&mut cx()), Poll::Ready(Err(Error::Closed))));
    assert!(matches!(client.sender.poll_ready(&mut cx()), Poll::Ready(Err(Error::Closed))));
}

#[test]
fn no_more_streams_are_opened_than_the_server_allows() {
    let mut client = Client::new();
    client.wire.put(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]);
    assert!(client.turn().is_pending());
    let ends = client.send("GET", true);
    assert!(client.sender.poll_ready(&mut cx()).is_pending());
    drop(ends);
    assert_eq!(client.wire.resets(), [(1, Code::CANCEL)]);
    assert!(client.sender.poll_ready(&mut cx()).is_ready());
}

#[test]
fn a_connection_that_nobody_uses_any_more_ends() {
    let Client { wire, mut connection, sender, .. } = Client::new();
    assert!(connection.poll(&mut cx()).is_pending());
    drop(sender);
    assert!(connection.poll(&mut cx()).is_ready());
    assert_eq!(wire.gone(), Some(Code::NO_ERROR));
}
