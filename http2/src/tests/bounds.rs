//! What a peer who means harm can cost.

use super::*;

#[test]
fn requests_reset_before_anybody_saw_them_end_the_connection() {
    for (pairs, ends) in [(20, false), (21, true)] {
        let mut server = Server::new();
        server.turn();
        for n in 0..pairs {
            server.request(2 * n + 1, true, &GET);
            server.wire.put(kind::RST_STREAM, 0, 2 * n + 1, &Code::CANCEL.0.to_be_bytes());
        }
        assert!(server.turn().is_empty(), "nobody is asked");
        assert_eq!(server.wire.gone(), ends.then_some(Code::ENHANCE_YOUR_CALM), "{pairs}");
    }
}

#[test]
fn streams_beyond_the_limit_are_refused_and_nothing_else_happens() {
    let mut server = Server::with(Limits { streams: 2, ..LIMITS });
    for stream in [1, 3, 5, 7] {
        server.request(stream, true, &GET);
    }
    let requests = server.turn();
    assert_eq!(requests.len(), 2);
    assert_eq!(server.wire.resets(), [(5, Code::REFUSED_STREAM), (7, Code::REFUSED_STREAM)]);
    drop(requests);
    server.request(9, true, &[("x-a", "b")]);
    server.request(11, true, &GET);
    assert_eq!(server.turn().len(), 1, "the tables agree");
}

/// CVE-2024-27316.
#[test]
fn a_header_block_ends() {
    for (payload, frames) in [(0, 65), (16_384, 9)] {
        let mut server = Server::new();
        server.wire.put(kind::HEADERS, 0, 1, &[]);
        for _ in 0..frames {
            server.wire.put(kind::CONTINUATION, 0, 1, &vec![0; payload]);
        }
        assert!(server.turn().is_empty());
        assert_eq!(server.wire.gone(), Some(Code::ENHANCE_YOUR_CALM), "{payload}");
    }
}

#[test]
fn a_block_in_many_frames_is_one() {
    let mut server = Server::new();
    let long = "v".repeat(40_000);
    let block = block(&mut server.encoder, &[&GET[..], &[("x-long", &long)]].concat());
    let mut parts = block.chunks(1000);
    server.wire.put(kind::HEADERS, flag::END_STREAM, 1, parts.next().expect("some"));
    let last = parts.len() - 1;
    for (n, part) in parts.enumerate() {
        server.wire.put(kind::CONTINUATION, if n == last { flag::END_HEADERS } else { 0 }, 1, part);
    }
    let requests = server.turn();
    assert_eq!(requests[0].0.headers()["x-long"].len(), 40_000);
}

#[test]
fn a_head_too_large_is_answered_and_the_tables_agree() {
    let mut server = Server::new();
    let long = "v".repeat(8_000);
    let names: Vec<_> = (0..9).map(|n| format!("x-{n}")).collect();
    let mut fields = GET.to_vec();
    fields.extend(names.iter().map(|name| (&name[..], &long[..])));
    let block = block(&mut server.encoder, &fields);
    let (head, rest) = block.split_at(16_000);
    server.wire.put(kind::HEADERS, flag::END_STREAM, 1, head);
    let parts: Vec<_> = rest.chunks(16_000).collect();
    for (n, part) in parts.iter().enumerate() {
        let end = if n + 1 == parts.len() { flag::END_HEADERS } else { 0 };
        server.wire.put(kind::CONTINUATION, end, 1, part);
    }
    server.request(3, true, &GET);
    assert_eq!(server.turn().len(), 1);
    let frames = server.wire.written();
    let answer = frames.iter().find(|frame| frame.kind == kind::HEADERS).expect("an answer");
    assert_eq!((answer.stream, answer.flags & flag::END_STREAM), (1, flag::END_STREAM));
    assert!(self::fields(&mut hpack::Decoder::new(4096), answer)[0].contains("431"));
}

/// CVE-2025-8671: whoever breaks the protocol so that we reset his streams opens new ones all the time.
#[test]
fn streams_that_break_the_protocol_are_counted() {
    let mut server = Server::new();
    for n in 0..101 {
        server.request(2 * n + 1, true, &GET);
        server.wire.put(kind::WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4]);
        server.turn();
    }
    assert_eq!(server.wire.gone(), Some(Code::ENHANCE_YOUR_CALM));
}

/// Resets cross with what is under way: none of it is counted, however much.
#[test]
fn frames_of_streams_that_are_over_cost_nobody_anything() {
    let mut server = Server::new();
    server.request(1, false, &POST);
    drop(server.turn());
    for _ in 0..5_000 {
        server.wire.put(kind::DATA, 0, 1, &[0; 100]);
        server.wire.put(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    }
    server.request(1, true, &[("x-late", "trailers")]);
    server.wire.put(kind::RST_STREAM, 0, 1, &[0; 4]);
    server.request(3, true, &[&GET[..], &[("x-late", "trailers")]].concat());
    assert_eq!(server.turn().len(), 1);
    let frames = server.wire.written();
    let update: u32 = frames
        .iter()
        .filter(|frame| frame.kind == kind::WINDOW_UPDATE && frame.stream == 0)
        .map(|frame| frame::bits(&frame.payload))
        .sum();
    assert!(update > 400_000, "all of it is given back");
    assert!(frames.iter().all(|frame| frame.kind != kind::GOAWAY));
}

/// Each asks for an answer; while those do not leave, nothing is read.
#[test]
fn a_peer_that_does_not_read_is_not_read() {
    for (kind, payload) in [(kind::PING, &[0; 8][..]), (kind::SETTINGS, &[])] {
        let mut server = Server::new();
        server.turn();
        server.wire.0.borrow_mut().stuck = 1;
        for _ in 0..50_000 {
            server.wire.put(kind, 0, 0, payload);
        }
        server.turn();
        let ends = server.wire.0.borrow();
        assert!(!ends.incoming.is_empty() && ends.out.len() < 512 * 1024, "{} bytes", ends.out.len());
    }
}

#[test]
fn bodies_and_new_streams_wait_for_room() {
    let mut client = Client::new();
    let (mut send, _recv) = client.send("POST", false);
    client.wire.0.borrow_mut().stuck = FULL;
    let mut body = Bytes::from_static(b"body");
    assert!(send.poll_send(&mut cx(), &mut body, true).is_pending());
    assert!(client.sender.poll_ready(&mut cx()).is_pending());
    client.wire.0.borrow_mut().stuck = 0;
    assert!(client.turn().is_pending());
    assert!(client.sender.poll_ready(&mut cx()).is_ready());
    assert!(send.poll_send(&mut cx(), &mut body, true).is_ready());
}

#[test]
fn ten_thousand_streams_come_and_go() {
    let mut server = Server::with(Limits { streams: 20_000, ..LIMITS });
    for n in 0..10_000 {
        server.request(2 * n + 1, true, &GET);
    }
    let mut requests = server.turn();
    assert_eq!(requests.len(), 10_000);
    for (_, send) in &mut requests {
        send.respond(&mut http::Response::new(()).into_parts().0, true).expect("open");
    }
    let answers = server.wire.written().into_iter().filter(|frame| frame.kind == kind::HEADERS).count();
    assert_eq!(answers, 10_000);
    drop(requests);
    server.request(20_001, true, &GET);
    assert_eq!(server.turn().len(), 1);
}

/// Nothing moves that would pass them over: what is left of those that ended while they waited for the connection's window is not kept.
#[test]
fn streams_that_end_in_line_leave_nothing_behind() {
    let mut server = Server::new();
    server.request(1, true, &GET);
    let (_filled, mut filler) = server.turn().pop().expect("a request");
    filler.respond(&mut http::Response::new(()).into_parts().0, false).expect("open");
    assert!(filler.poll_send(&mut cx(), &mut Bytes::from(vec![0; 65_535]), false).is_ready());
    for n in 1..5_000 {
        let stream = 2 * n + 1;
        server.request(stream, true, &GET);
        let (_recv, mut send) = server.turn().pop().expect("a request");
        send.respond(&mut http::Response::new(()).into_parts().0, false).expect("open");
        assert!(send.poll_send(&mut cx(), &mut Bytes::from_static(b"late"), true).is_pending());
        server.wire.put(kind::RST_STREAM, 0, stream, &Code::CANCEL.0.to_be_bytes());
        server.turn();
    }
    let shared = server.connection.pings().0;
    let waiting = shared.borrow().line();
    assert!(waiting < 50, "{waiting}");
}

/// Nobody will ever hold those that were not handed out.
#[test]
fn requests_nobody_saw_end_with_their_connection() {
    let mut server = Server::new();
    let shared = server.connection.pings().0;
    server.request(1, false, &POST);
    server.request(3, true, &GET);
    // Refused before anybody saw it.
    server.wire.put(kind::WINDOW_UPDATE, 0, 1, &[0; 4]);
    server.wire.0.borrow_mut().incoming.extend(b"\0\0\x01\x06\0\0\0\0\0\0");
    assert!(server.turn().is_empty());
    assert_eq!(server.wire.gone(), Some(Code::FRAME_SIZE_ERROR));
    assert!(shared.borrow().streams.keys().is_empty());
}

/// CVE-2019-9512, -9513, -9515 and -9518, and the like: what costs nothing to send and brings nothing is bounded in each turn, whatever it is.
#[test]
fn frames_that_bring_nothing_end_the_connection_where_there_are_too_many() {
    /// What it is, its kind, flags, stream and payload.
    type Case = (&'static str, u8, u8, u32, &'static [u8]);
    let cases: &[Case] = &[
        ("pings", kind::PING, 0, 0, &[0; 8]),
        ("answers to pings", kind::PING, flag::ACK, 0, &[0; 8]),
        ("settings", kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]),
        ("answers to settings", kind::SETTINGS, flag::ACK, 0, &[]),
        ("priorities", kind::PRIORITY, 0, 1, &[0; 5]),
        ("empty data", kind::DATA, 0, 1, &[]),
        ("padding alone", kind::DATA, flag::PADDED, 1, &[2, 0, 0]),
        ("windows nobody needs", kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        ("the connection's", kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ("the end of what is over", kind::RST_STREAM, 0, 3, &[0; 4]),
        ("goodbyes", kind::GOAWAY, 0, 0, &[0; 8]),
        ("frames nobody knows", 0x20, 0, 1, &[1, 2, 3]),
    ];
    for (what, kind, flags, stream, payload) in cases {
        for (frames, ends) in [(100, false), (101, true)] {
            let mut server = Server::with(Limits { idle_frames: 100, ..LIMITS });
            server.request(1, false, &POST);
            server.request(3, true, &GET);
            let mut requests = server.turn();
            requests.truncate(1);
            server.turn();
            for _ in 0..frames {
                server.wire.put(*kind, *flags, *stream, payload);
            }
            server.turn();
            let gone = server.wire.gone();
            assert_eq!(gone, ends.then_some(Code::ENHANCE_YOUR_CALM), "{frames} {what}");
        }
    }
}

/// Whoever is sent much may say much of his windows.
#[test]
fn updates_of_windows_that_are_used_are_not_counted() {
    let mut client = Client::with(Limits { idle_frames: 100, ..LIMITS });
    let (mut send, _recv) = client.send("POST", false);
    for _ in 0..200 {
        for _ in 0..5 {
            assert!(send.poll_send(&mut cx(), &mut Bytes::from_static(b"data"), false).is_ready());
        }
        for _ in 0..5 {
            client.wire.put(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 2]);
            client.wire.put(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 2]);
        }
    }
    assert!(client.turn().is_pending());
}

/// None of them is looked at, and still they come.
#[test]
fn streams_that_are_refused_on_and_on_end_the_connection() {
    let mut server = Server::with(Limits { streams: 1, idle_frames: 100, ..LIMITS });
    for n in 0..102 {
        server.request(2 * n + 1, true, &GET);
    }
    server.turn();
    assert_eq!(server.wire.gone(), Some(Code::ENHANCE_YOUR_CALM));
}
