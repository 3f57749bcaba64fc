//! Windows of both directions (RFC 9113 §5.2, §6.9).

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

/// The DATA frames among these: stream, length, whether it ends.
fn data(frames: &[Written]) -> Vec<(u32, usize, bool)> {
    let data = frames.iter().filter(|frame| frame.kind == kind::DATA);
    data.map(|frame| (frame.stream, frame.payload.len(), frame.flags & flag::END_STREAM != 0)).collect()
}

#[test]
fn a_body_goes_as_far_as_the_windows_do() {
    let mut client = Client::new();
    let (mut send, _recv) = client.send("POST", false);
    let mut body = Bytes::from(vec![b'x'; 100_000]);
    assert!(send.poll_send(&mut cx(), &mut body, true).is_pending());
    let sent = data(&client.wire.written());
    assert_eq!(sent.iter().map(|(_, bytes, _)| bytes).sum::<usize>(), 65_535);
    assert!(sent.iter().all(|(_, bytes, end)| *bytes <= 16_384 && !end));
    // The stream's alone is of no use, and neither is the connection's.
    client.wire.put(kind::WINDOW_UPDATE, 0, 1, &100_000_u32.to_be_bytes());
    assert!(client.turn().is_pending());
    assert!(send.poll_send(&mut cx(), &mut body, true).is_pending());
    assert_eq!(data(&client.wire.written()), []);
    client.wire.put(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    assert!(client.turn().is_pending());
    assert!(send.poll_send(&mut cx(), &mut body, true).is_pending());
    assert_eq!(data(&client.wire.written()), [(1, 1, false)]);
    client.wire.put(kind::WINDOW_UPDATE, 0, 0, &100_000_u32.to_be_bytes());
    assert!(client.turn().is_pending());
    assert!(matches!(send.poll_send(&mut cx(), &mut body, true), Poll::Ready(Ok(()))));
    let sent = data(&client.wire.written());
    assert_eq!(sent.iter().map(|(_, bytes, _)| bytes).sum::<usize>(), 100_000 - 65_536);
    assert!(sent.last().expect("some").2 && sent.iter().filter(|(_, _, end)| *end).count() == 1);
}

#[test]
fn a_window_made_smaller_has_to_be_worked_off() {
    let mut client = Client::new();
    let (mut send, _recv) = client.send("POST", false);
    let mut body = Bytes::from(vec![b'x'; 60_000]);
    assert!(send.poll_send(&mut cx(), &mut body, false).is_ready());
    client.wire.written();
    // By 64,535: what is left are 5,535 less than nothing.
    client.wire.put(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0x03, 0xe8]);
    client.wire.put(kind::WINDOW_UPDATE, 0, 1, &59_000_u32.to_be_bytes());
    client.wire.put(kind::WINDOW_UPDATE, 0, 0, &59_000_u32.to_be_bytes());
    assert!(client.turn().is_pending());
    let mut more = Bytes::from_static(b"xx");
    assert!(send.poll_send(&mut cx(), &mut more, false).is_pending());
    client.wire.put(kind::WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
    assert!(client.turn().is_pending());
    assert!(send.poll_send(&mut cx(), &mut more, false).is_pending());
    assert_eq!((more.len(), data(&client.wire.written())), (1, vec![(1, 1, false)]));
}

#[test]
fn who_sends_more_than_he_may_is_stopped() {
    for (stream_window, code) in [(65_536, None), (1 << 20, Some(Code::FLOW_CONTROL_ERROR))] {
        let mut server = Server::with(Limits { stream_window, connection_window: 100_000, ..LIMITS });
        server.request(1, false, &POST);
        for _ in 0..8 {
            server.wire.put(kind::DATA, 0, 1, &[0; 16_384]);
        }
        let requests = server.turn();
        match code {
            // Of the stream alone; what is beyond its window is not kept.
            None => {
                assert!(server.end.is_none());
                assert_eq!(server.wire.resets(), [(1, Code::FLOW_CONTROL_ERROR)]);
            }
            Some(code) => assert_eq!(server.wire.gone(), Some(code)),
        }
        drop(requests);
    }
}

/// Whatever comes in which order, and is read or thrown away: what the peer may send is always what was announced, less what it has sent.
#[test]
fn windows_add_up() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let limits = Limits { connection_window: 200_000, ..LIMITS };
        let mut server = Server::with(limits);
        let mut streams = Vec::new();
        for n in 0..4_u32 {
            server.request(2 * n + 1, false, &POST);
            let request = server.turn().pop().expect("a request");
            streams.push((Some(request), 65_536_i64, 0_usize));
        }
        let mut connection = 200_000_i64;
        let mut account = |server: &Server, streams: &mut Vec<(Option<_>, i64, usize)>, sent: i64| {
            connection -= sent;
            for frame in server.wire.written() {
                if frame.kind == kind::WINDOW_UPDATE {
                    let by = i64::from(frame::bits(&frame.payload));
                    match frame.stream {
                        // The one that makes the connection's window what it is.
                        0 if by == 200_000 - 65_535 => {}
                        0 => connection += by,
                        stream => streams[stream as usize / 2].1 += by,
                    }
                }
            }
            assert!((0..=200_000).contains(&connection), "seed {seed}");
            connection
        };
        account(&server, &mut streams, 0);
        for _ in 0..200 {
            let at = rng.random_range(0..4);
            let room = streams[at].1.min(account(&server, &mut streams, 0)).min(16_384);
            match rng.random_range(0..10) {
                0..6 if room > 1 => {
                    let length = rng.random_range(1..room as usize);
                    let padding = rng.random_range(0..length.min(200)) as u8;
                    let mut payload = vec![0; length];
                    payload[0] = padding;
                    server.wire.put(kind::DATA, flag::PADDED, 2 * at as u32 + 1, &payload);
                    streams[at].1 -= length as i64;
                    streams[at].2 += length - 1 - usize::from(padding);
                    server.turn();
                    account(&server, &mut streams, length as i64);
                }
                6..9 => {
                    if let Some((request, _)) = &mut streams[at].0 {
                        let (data, end) = read(http::Request::body_mut(request));
                        assert!(data.len() == streams[at].2 && end.is_none(), "seed {seed}");
                        streams[at].2 = 0;
                    }
                }
                _ if rng.random_range(0..20) == 0 => streams[at].0 = None,
                _ => {}
            }
        }
        // All is read or dropped: the window is what it was, but for less than what an update is worth.
        streams.iter_mut().for_each(|(request, ..)| {
            if let Some((request, _)) = request {
                read(http::Request::body_mut(request));
            }
        });
        let left = account(&server, &mut streams, 0);
        assert!(left > 200_000 / 2, "seed {seed}: {left}");
    }
}

#[test]
fn small_pieces_are_put_together() {
    let mut server = Server::new();
    server.request(1, false, &POST);
    let mut requests = server.turn();
    for n in 0..60_000_u32 {
        server.wire.put(kind::DATA, 0, 1, &[n as u8]);
    }
    server.turn();
    let recv = requests[0].0.body_mut();
    let mut pieces = 0;
    let mut all = Vec::new();
    while let Poll::Ready(Some(Ok(data))) = recv.poll_data(&mut cx()) {
        pieces += 1;
        all.extend_from_slice(&data);
    }
    assert!(pieces <= 6, "{pieces}");
    assert!(all.len() == 60_000 && all.iter().enumerate().all(|(n, byte)| *byte == n as u8));
}

/// The body of one that nobody reads does not take the others' room.
#[test]
fn what_nobody_reads_is_given_back() {
    let mut server = Server::with(Limits { connection_window: 65_536, ..LIMITS });
    server.request(1, false, &POST);
    let (request, _send) = server.turn().pop().expect("a request");
    drop(request);
    server.wire.written();
    for _ in 0..4 {
        server.wire.put(kind::DATA, 0, 1, &[0; 16_384]);
    }
    server.turn();
    let updates = server.wire.written();
    let connection: u32 =
        updates.iter().filter(|frame| frame.stream == 0).map(|frame| frame::bits(&frame.payload)).sum();
    assert!(connection >= 32_768, "{updates:?}");
    assert!(updates.iter().all(|frame| frame.stream == 0), "its own stays closed: {updates:?}");
}

/// One that is not read holds most of the connection's window: what was taken of the others before that is still told, or they would wait for its reader.
#[test]
fn what_was_taken_is_told_when_the_window_closes() {
    let mut server = Server::with(Limits { stream_window: 100_000, connection_window: 100_000, ..LIMITS });
    server.request(1, false, &POST);
    server.request(3, false, &POST);
    let mut requests = server.turn();
    server.wire.written();
    server.wire.put(kind::DATA, 0, 1, &[0; 10_000]);
    server.turn();
    assert_eq!(read(requests[0].0.body_mut()).0.len(), 10_000);
    assert_eq!(server.wire.written(), [], "too little to be worth an update yet");
    for _ in 0..9 {
        server.wire.put(kind::DATA, 0, 3, &[0; 10_000]);
    }
    server.turn();
    let updates = server.wire.written();
    let of = |update: &&Written| (update.kind, update.stream) == (kind::WINDOW_UPDATE, 0);
    let told: u32 = updates.iter().filter(of).map(|frame| frame::bits(&frame.payload)).sum();
    assert_eq!(told, 10_000, "{updates:?}");
}

/// Streams that nobody reads hold more than the connection's window was: who is read goes on, as long as there is something to lend, and all of it is paid back.
#[test]
fn unread_streams_leave_the_others_a_window() {
    for (lent, unread, goes_on) in [(0, 1, true), (0, 2, false), (400_000, 6, true), (400_000, 9, false)] {
        let limits = Limits { stream_window: 65_536, connection_window: 131_072, lent, ..LIMITS };
        let mut server = Server::with(limits);
        let (mut window, mut held) = (65_535_i64, 0);
        let mut send = |server: &mut Server, stream: u32, bytes: usize| {
            for frame in server.wire.written() {
                if (frame.kind, frame.stream) == (kind::WINDOW_UPDATE, 0) {
                    window += i64::from(frame::bits(&frame.payload));
                }
            }
            let bytes = bytes.min(window as usize);
            if bytes > 0 {
                window -= bytes as i64;
                server.wire.put(kind::DATA, 0, stream, &vec![0; bytes]);
                server.turn();
            }
            bytes
        };
        let mut requests = Vec::new();
        for n in 0..=unread {
            server.request(2 * n + 1, false, &POST);
            requests.extend(server.turn());
            for _ in 0..if n < unread { 4 } else { 0 } {
                held += send(&mut server, 2 * n + 1, 16_384);
            }
        }
        assert!(held <= 131_072 + lent as usize, "{held} bytes are held");
        let (last, _) = requests.last_mut().expect("some");
        let mut passed = 0;
        for _ in 0..40 {
            let sent = send(&mut server, 2 * unread + 1, 10_000);
            assert_eq!(read(last.body_mut()).0.len(), sent);
            passed += sent;
        }
        assert_eq!(passed == 400_000, goes_on, "{unread} unread, {lent} lent: {passed} bytes passed");
        drop(requests);
        let shared = server.connection.pings().0;
        let core = shared.borrow();
        assert_eq!((core.lent, core.receive_window + i64::from(core.taken)), (0, 131_072));
    }
}

/// A hundred wait for the connection's window: each gets its share, nobody is forgotten, whoever is cancelled meanwhile.
#[test]
fn the_line_for_the_connections_window_moves() {
    let mut client = Client::new();
    let mut senders: Vec<_> = (0..100).map(|_| client.send("POST", false)).collect();
    let mut bodies: Vec<_> = (0..100).map(|_| Bytes::from(vec![b'x'; 20_000])).collect();
    let mut done = vec![false; 100];
    for round in 0..2000 {
        for n in 0..100 {
            if n % 7 != 3 && !done[n] {
                done[n] = senders[n].0.poll_send(&mut cx(), &mut bodies[n], true).is_ready();
            }
        }
        if round == 3 {
            senders[3] = client.send("GET", true);
        }
        client.wire.put(kind::WINDOW_UPDATE, 0, 0, &5_000_u32.to_be_bytes());
        assert!(client.turn().is_pending());
    }
    assert!((0..100).all(|n| n % 7 == 3 || done[n]), "{done:?}");
}

/// Woken for room, and nothing to send any more, or no window of its own: the next in line is woken instead.
#[test]
fn who_does_not_use_the_room_hands_it_on() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    #[derive(Debug, PartialEq)]
    enum Way {
        Trailers,
        NoWindow,
        /// Its end was woken, and is let go of.
        Dropped,
        /// Let go of while it waits.
        DroppedBefore,
    }
    for way in [Way::Trailers, Way::NoWindow, Way::Dropped, Way::DroppedBefore] {
        let mut client = Client::new();
        let (mut filler, _filled) = client.send("POST", false);
        assert!(filler.poll_send(&mut cx(), &mut Bytes::from(vec![0; 65_535]), false).is_ready());
        let (first, _one) = client.send("POST", false);
        let (mut second, _two) = client.send("POST", false);
        let mut first = Some(first);
        let (mut a, mut b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        assert!(first.as_mut().expect("held").poll_send(&mut cx(), &mut a, false).is_pending());
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        assert!(second.poll_send(&mut Context::from_waker(&waker), &mut b, false).is_pending());
        if way == Way::NoWindow {
            client.wire.put(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
            assert!(client.turn().is_pending());
            client.wire.put(kind::WINDOW_UPDATE, 0, 5, &[0, 0, 0, 9]);
            assert!(client.turn().is_pending());
            assert!(second.poll_send(&mut Context::from_waker(&waker), &mut b, false).is_pending());
            count.0.store(0, Ordering::Relaxed);
        }
        if way == Way::DroppedBefore {
            first = None;
        }
        client.wire.put(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
        assert!(client.turn().is_pending());
        if let Some(mut first) = first {
            assert_eq!(count.0.load(Ordering::Relaxed), 0, "it is the first one's turn");
            match way {
                Way::Trailers => first.end().expect("open"),
                Way::NoWindow => assert!(first.poll_room(&mut cx()).is_pending()),
                Way::Dropped | Way::DroppedBefore => drop(first),
            }
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "{way:?}");
        assert!(second.poll_send(&mut cx(), &mut b, false).is_ready());
    }
}
