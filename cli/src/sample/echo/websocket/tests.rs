use tokio::io::DuplexStream;

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn client(stop: &Stop) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1024);
    let stop = stop.clone();
    tokio::spawn(async move { serve(theirs, &stop).await });
    ours
}

fn frame(fin: bool, opcode: Opcode, payload: impl Into<Bytes>) -> Frame {
    Frame { fin, opcode, payload: payload.into() }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: Frame) {
    frame::write(stream, Sender::Client { mask: MASK }, &frame).await.unwrap();
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Frame {
    frame::read(stream, false, MAX_MESSAGE).await.unwrap().expect("a frame")
}

/// The code of the close frame that comes next, after which the stream ends.
async fn close_code(stream: &mut DuplexStream) -> u16 {
    let close = receive(stream).await;
    assert_eq!(close.opcode, Opcode::Close);
    assert!(frame::read(stream, false, MAX_MESSAGE).await.unwrap().is_none(), "nothing after a close");
    u16::from_be_bytes([close.payload[0], close.payload[1]])
}

/// The worked example of RFC 6455 §1.3.
#[test]
fn the_accept_value_is_the_one_of_the_specification() {
    assert_eq!(
        accept_value(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==")),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

/// The worked examples of RFC 6455 §5.7: "Hello" masked and not.
#[tokio::test]
async fn frames_are_written_as_in_the_specification() {
    let mut wire = Vec::new();
    frame::write(&mut wire, Sender::Server, &frame(true, Opcode::Text, "Hello")).await.unwrap();
    assert_eq!(wire, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    wire.clear();
    send(&mut wire, frame(true, Opcode::Text, "Hello")).await;
    assert_eq!(wire, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    assert_eq!(
        frame::read(&mut wire.as_slice(), true, 5).await.unwrap(),
        Some(frame(true, Opcode::Text, "Hello"))
    );
}

#[tokio::test]
async fn frames_of_every_length_are_read_back() {
    for length in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 200_001] {
        let sent = frame(true, Opcode::Binary, (0..length).map(|at| at as u8).collect::<Bytes>());
        let mut wire = Vec::new();
        send(&mut wire, sent.clone()).await;
        assert_eq!(frame::read(&mut wire.as_slice(), true, length).await.unwrap(), Some(sent), "{length}");
        if length > 0 {
            let over = frame::read(&mut wire.as_slice(), true, length - 1).await;
            assert!(matches!(over, Err(FrameError::TooBig)), "{length}");
            let cut = frame::read(&mut &wire[..wire.len() - 1], true, length).await;
            assert!(matches!(cut, Err(FrameError::Gone)), "{length}");
        }
    }
}

#[tokio::test]
async fn messages_come_back_whole_and_pings_are_answered_within_them() {
    let mut stream = client(&Stop::default());
    send(&mut stream, frame(true, Opcode::Text, "grüß dich")).await;
    assert_eq!(receive(&mut stream).await, frame(true, Opcode::Text, "grüß dich"));

    let (left, right) = "ü".as_bytes().split_at(1);
    send(&mut stream, frame(false, Opcode::Text, Bytes::copy_from_slice(left))).await;
    send(&mut stream, frame(true, Opcode::Ping, "are you there")).await;
    assert_eq!(receive(&mut stream).await, frame(true, Opcode::Pong, "are you there"));
    send(&mut stream, frame(true, Opcode::Pong, "unasked")).await;
    send(&mut stream, frame(false, Opcode::Continuation, Bytes::copy_from_slice(right))).await;
    send(&mut stream, frame(true, Opcode::Continuation, "ber")).await;
    assert_eq!(receive(&mut stream).await, frame(true, Opcode::Text, "über"));

    let big = Bytes::from(vec![0xa5; MAX_MESSAGE]);
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = big.clone();
    let writer = tokio::spawn(async move {
        send(&mut write, frame(true, Opcode::Binary, sent)).await;
        write
    });
    assert!(receive(&mut read).await == frame(true, Opcode::Binary, big), "16 MiB come back");
    let mut stream = read.unsplit(writer.await.unwrap());

    send(&mut stream, frame(true, Opcode::Close, &[0x0f, 0xa0, b'b', b'y', b'e'][..])).await;
    assert_eq!(close_code(&mut stream).await, 4000, "the peer's own code");
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_how() {
    let begun = [0x01, 0x80, 0, 0, 0, 0];
    let rows: &[(&str, &[u8], u16)] = &[
        ("a reserved bit", &[0xc1, 0x80, 0, 0, 0, 0], 1002),
        ("an unknown opcode", &[0x83, 0x80, 0, 0, 0, 0], 1002),
        ("no mask", &[0x81, 0x00], 1002),
        ("a fragmented ping", &[0x09, 0x80, 0, 0, 0, 0], 1002),
        ("a long ping", &[0x89, 0xfe, 0, 126], 1002),
        ("5 bytes in a 16-bit length", &[0x82, 0xfe, 0, 5], 1002),
        ("5 bytes in a 64-bit length", &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5], 1002),
        ("a negative length", &[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("2^62 bytes", &[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0], 1009),
        ("a continuation of nothing", &[0x80, 0x80, 0, 0, 0, 0], 1002),
        ("a message within a message", &[begun, begun].concat(), 1002),
        ("text that is not UTF-8", &[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        ("half a close code", &[0x88, 0x81, 0, 0, 0, 0, 3], 1002),
        ("close code 1006", &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xee], 1002),
        ("a reason that is not UTF-8", &[0x88, 0x83, 0, 0, 0, 0, 0x03, 0xe8, 0xff], 1007),
    ];
    for (what, bytes, code) in rows {
        let mut stream = client(&Stop::default());
        stream.write_all(bytes).await.unwrap();
        assert_eq!(close_code(&mut stream).await, *code, "{what}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_in_many_frames_is_refused() {
    let (mut read, mut write) = tokio::io::split(client(&Stop::default()));
    tokio::spawn(async move {
        let half = Bytes::from(vec![0; MAX_MESSAGE / 2 + 1]);
        for (fin, opcode) in [(false, Opcode::Binary), (true, Opcode::Continuation)] {
            send(&mut write, frame(fin, opcode, half.clone())).await;
        }
    });
    let close = receive(&mut read).await;
    assert_eq!((close.opcode, &close.payload[..2]), (Opcode::Close, &1009_u16.to_be_bytes()[..]));
}

#[tokio::test]
async fn a_stopping_server_says_that_it_goes() {
    let stop = Stop::default();
    let mut stream = client(&stop);
    send(&mut stream, frame(true, Opcode::Text, "hello")).await;
    receive(&mut stream).await;
    stop.ask();
    assert_eq!(close_code(&mut stream).await, 1001);
}
