//! The chat over loopback, with our client and, where the wire matters, tonic's bare one.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::client::{Client, once, path};
use super::dial::{Connection, connect};
use super::messages::{
    Chunk, FailRequest, HistoryRequest, Message, SayReply, SayRequest, SleepReply, SleepRequest,
};
use super::server::Chat;
use crate::sample::client::Proxies;
use crate::sample::listen::{Stop, serve};

struct Started {
    address: Authority,
    chat: Arc<Chat>,
    stop: Stop,
}

async fn start() -> Started {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let stop = Stop::default();
    let chat = Arc::new(Chat::new("chat-1".into(), stop.clone()));
    tokio::spawn(serve(listener, Arc::new(chat.clone()), stop.clone()));
    Started { address, chat, stop }
}

const LONG: Duration = Duration::from_secs(60);

impl Started {
    async fn connection(&self) -> Connection {
        connect(&self.address, &Proxies::new(None, None).unwrap()).await.unwrap()
    }

    async fn client(&self) -> Client {
        Client::new(self.connection().await, &self.address, LONG).unwrap()
    }

    async fn grpc(&self) -> Grpc<Connection> {
        let origin = format!("http://{}", self.address).parse().unwrap();
        let mut grpc = Grpc::with_origin(self.connection().await, origin);
        grpc.ready().await.unwrap();
        grpc
    }
}

#[tokio::test]
async fn the_client_makes_all_four_kinds_of_calls_and_prints_the_answers() {
    let started = start().await;
    let mut lines = Vec::new();
    let proxies = Proxies::new(None, None).unwrap();
    once(&started.address, &proxies, LONG, |line| lines.push(line.to_owned())).await.unwrap();
    let crc = format!("{:08x}", crc32fast::hash(&[b'x'; 10_000]));
    let upload = format!("Upload   chat-1 took 10000 bytes in 10 messages, CRC-32 {crc}");
    assert_eq!(
        lines,
        [
            "Say      chat-1 #1 outrigger: hello",
            "History  chat-1 #1 outrigger: hello",
            upload.as_str(),
            "Room     chat-1 #2 outrigger: one",
            "Room     chat-1 #3 outrigger: two",
            "Room     chat-1 #4 outrigger: three",
        ]
    );
}

#[tokio::test]
async fn history_gives_the_last_ones_then_their_number_as_trailing_metadata() {
    let started = start().await;
    let mut client = started.client().await;
    for number in 0..300 {
        client.say("a", &number.to_string()).await.unwrap();
    }
    for (last, first, count) in [(0, "44" /* 256 are kept */, 256), (3, "297", 3), (1000, "44", 256)] {
        let request = HistoryRequest { last, ..HistoryRequest::default() };
        let mut history = client.history(request).await.unwrap().into_inner();
        let mut texts = Vec::new();
        while let Some(message) = history.message().await.unwrap() {
            texts.push(message.text);
        }
        assert_eq!((texts.len(), texts[0].as_str(), texts.last().unwrap().as_str()), (count, first, "299"));
        let trailing = history.trailers().await.unwrap().unwrap();
        assert_eq!(trailing.get("chat-messages").unwrap(), count.to_string().as_str());
    }
}

#[tokio::test]
async fn a_follower_hears_what_is_said_later_until_the_server_stops() {
    let started = start().await;
    let mut client = started.client().await;
    let request = HistoryRequest { follow: true, ..HistoryRequest::default() };
    let mut history = client.history(request).await.unwrap().into_inner();
    client.say("a", "news").await.unwrap();
    assert_eq!(history.message().await.unwrap().unwrap().text, "news");
    started.stop.ask();
    assert_eq!(history.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_room_echoes_to_the_sender_and_tells_the_others() {
    let started = start().await;
    let mut client = started.client().await;
    let (alice, heard) = mpsc::channel(4);
    let mut alice_hears = client.room(ReceiverStream::new(heard)).await.unwrap().into_inner();
    let (bob, heard) = mpsc::channel(4);
    let mut bob_hears = client.room(ReceiverStream::new(heard)).await.unwrap().into_inner();
    let text = |text: &str| Message { text: text.into(), ..Message::default() };
    alice.send(text("from alice")).await.unwrap();
    assert_eq!(alice_hears.message().await.unwrap().unwrap().text, "from alice");
    assert_eq!(bob_hears.message().await.unwrap().unwrap().text, "from alice");
    drop(alice);
    assert!(alice_hears.message().await.unwrap().is_none(), "her half-close ends her stream");
    bob.send(text("alone")).await.unwrap();
    assert_eq!(bob_hears.message().await.unwrap().unwrap().text, "alone");
    // A caller who goes away without a word leaves the room, too.
    drop((bob_hears, bob));
    while !started.chat.rooms().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn many_messages_through_a_room_keep_their_order() {
    let started = start().await;
    let mut client = started.client().await;
    let text = "x".repeat(10_000);
    let sent = (0..2000).map(move |number: u32| Message {
        author: number.to_string(),
        text: text.clone(),
        ..Message::default()
    });
    let mut room = client.room(tokio_stream::iter(sent)).await.unwrap().into_inner();
    for number in 0..2000 {
        assert_eq!(room.message().await.unwrap().unwrap().author, number.to_string());
    }
    assert!(room.message().await.unwrap().is_none());
}

#[tokio::test]
async fn metadata_comes_back_and_the_instance_is_named() {
    let mut grpc = start().await.grpc().await;
    let mut request = Request::new(SayRequest::default());
    request.metadata_mut().insert("chat-colour", MetadataValue::from_static("red"));
    request.metadata_mut().insert_bin("chat-seed-bin", MetadataValue::from_bytes(&[0, 255]));
    request.metadata_mut().insert("other", MetadataValue::from_static("no"));
    let reply: tonic::Response<SayReply> =
        grpc.unary(request, path("Say"), ProstCodec::default()).await.unwrap();
    let metadata = reply.metadata();
    assert_eq!(metadata.get("chat-colour").unwrap(), "red");
    assert_eq!(metadata.get_bin("chat-seed-bin").unwrap().to_bytes().unwrap(), [0, 255][..]);
    assert_eq!(metadata.get("chat-instance").unwrap(), "chat-1");
    assert!(metadata.get("other").is_none());
}

/// Makes a call of `Fail` to its end: how many messages came, and the status.
async fn fail(grpc: &mut Grpc<Connection>, request: FailRequest) -> (usize, Option<Status>) {
    grpc.ready().await.unwrap();
    let stream = grpc.server_streaming(Request::new(request), path("Fail"), ProstCodec::default()).await;
    let mut stream: Streaming<Message> = match stream {
        Ok(response) => response.into_inner(),
        Err(status) => return (0, Some(status)),
    };
    let mut messages = 0;
    loop {
        match stream.message().await {
            Ok(Some(_)) => messages += 1,
            Ok(None) => return (messages, None),
            Err(status) => return (messages, Some(status)),
        }
    }
}

#[tokio::test]
async fn a_failure_has_the_status_asked_for_with_trailing_metadata_wherever_it_comes() {
    let mut grpc = start().await.grpc().await;
    for (messages, headers_first) in [(0, false), (0, true), (20, false)] {
        for code in 1..=16 {
            let request = FailRequest { code, message: "nicht gut ✗".into(), messages, headers_first };
            let (came, status) = fail(&mut grpc, request).await;
            let status = status.unwrap();
            assert_eq!((came, status.code()), (messages as usize, Code::from_i32(code)));
            assert_eq!(status.message(), "nicht gut ✗");
            assert_eq!(status.metadata().get("chat-reason").unwrap(), "asked for");
            let bytes = status.metadata().get_bin("chat-reason-bin").unwrap().to_bytes().unwrap();
            assert_eq!(bytes, [0, 1, 254, 255][..]);
        }
    }
    for request in [FailRequest::default(), FailRequest { code: 17, ..FailRequest::default() }] {
        assert_eq!(fail(&mut grpc, request).await.1.unwrap().code(), Code::InvalidArgument);
    }
}

async fn sleep_for(
    grpc: &mut Grpc<Connection>,
    millis: u32,
    deadline: Option<&'static str>,
) -> Result<SleepReply, Status> {
    grpc.ready().await.unwrap();
    let mut request = Request::new(SleepRequest { millis });
    if let Some(deadline) = deadline {
        request.metadata_mut().insert("grpc-timeout", MetadataValue::from_static(deadline));
    }
    Ok(grpc.unary(request, path("Sleep"), ProstCodec::default()).await?.into_inner())
}

#[tokio::test]
async fn a_deadline_and_a_cancellation_cut_a_sleep_short_and_are_counted() {
    let mut grpc = start().await.grpc().await;
    let reply = sleep_for(&mut grpc, 1, Some("90S")).await.unwrap();
    assert_eq!((reply.deadline_millis, reply.cancelled), (90_000, 0));
    assert_eq!(sleep_for(&mut grpc, 600_000, Some("20m")).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(
        sleep_for(&mut grpc, 0, None).await.unwrap(),
        SleepReply { cancelled: 1, instance: "chat-1".into(), ..SleepReply::default() }
    );
    // Dropping the call resets its stream.
    let cancelled =
        tokio::time::timeout(Duration::from_millis(20), sleep_for(&mut grpc, 600_000, None)).await;
    assert!(cancelled.is_err());
    while sleep_for(&mut grpc, 0, None).await.unwrap().cancelled < 2 {}
}

#[tokio::test]
async fn what_is_no_such_call_is_refused() {
    let started = start().await;
    let mut grpc = started.grpc().await;
    let unknown = grpc.unary::<SayRequest, SayReply, _>(
        Request::new(SayRequest::default()),
        path("Shout"),
        ProstCodec::default(),
    );
    assert_eq!(unknown.await.unwrap_err().code(), Code::Unimplemented);
    let mut client = started.client().await;
    assert_eq!(client.say("a", &"x".repeat(5000)).await.unwrap_err().code(), Code::InvalidArgument);
    let plain = crate::sample::client::Client::new(None, None).unwrap();
    let request =
        http::Request::get(format!("http://{}/", started.address)).body(bytes::Bytes::new()).unwrap();
    assert_eq!(plain.send(request, LONG).await.unwrap().status(), 415);
}

/// A proxy for one CONNECT: answers 200 and relays.
async fn connect_proxy(seen: tokio::sync::oneshot::Sender<String>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let mut upstream = tokio::net::TcpStream::connect(&target).await.unwrap();
        seen.send(head).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut upstream).await;
    });
    address
}

#[tokio::test]
async fn the_client_goes_through_a_proxy_by_connect() {
    let started = start().await;
    let (seen, head) = tokio::sync::oneshot::channel();
    let proxies = Proxies::new(Some(&connect_proxy(seen).await), None).unwrap();
    let mut lines = 0;
    once(&started.address, &proxies, LONG, |_| lines += 1).await.unwrap();
    assert_eq!(lines, 6);
    assert!(head.await.unwrap().starts_with(&format!("CONNECT {} HTTP/1.1\r\n", started.address)));
}

#[tokio::test]
async fn big_messages_pass_up_to_the_usual_four_mebibytes() {
    let mut client = start().await.client().await;
    for (length, ok) in [(4 * 1024 * 1024 - 16, true), (4 * 1024 * 1024, false)] {
        let chunk = Chunk { data: vec![7; length].into() };
        let reply = client.upload(vec![chunk]).await;
        assert_eq!(reply.map(|reply| reply.get_ref().bytes).ok(), ok.then_some(length as u64), "{length}");
    }
}
