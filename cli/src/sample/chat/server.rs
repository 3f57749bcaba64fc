//! The chat server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, KeyAndValueRef, MetadataMap, MetadataValue};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::messages::{
    Chunk, FailRequest, HistoryRequest, Message, SayReply, SayRequest, SleepReply, SleepRequest, UploadReply,
};
use super::rooms::{Inbox, Rooms};
use super::wiring::Method;
use super::{PORT, SERVICE};
use crate::sample::body::{self, Body};
use crate::sample::listen::{self, Handler, Listen, Stop};

/// Serve the calls of docs/examples/grpc/chat.proto
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    listen: Listen,

    /// Name of this instance, shown in every answer
    #[arg(long, env = "POD_NAME", default_value = "chat")]
    name: String,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let listener = args.listen.bind(PORT).await?;
    let stop = Stop::on_signal()?;
    let chat = Chat::new(args.name.clone(), stop.clone());
    listen::run(&args.name, listener, Arc::new(chat), stop).await
}

pub struct Chat {
    name: MetadataValue<Ascii>,
    numbers: AtomicU64,
    kept: Mutex<VecDeque<Message>>,
    said: broadcast::Sender<Message>,
    rooms: Rooms,
    cancelled: AtomicU64,
    stop: Stop,
}

/// A stream of answers made by a task of its own, a few ahead of what the caller has read.
type Replies = ReceiverStream<Result<Message, Status>>;

impl Chat {
    pub fn new(name: String, stop: Stop) -> Self {
        Self {
            name: MetadataValue::try_from(name).unwrap_or_else(|_| MetadataValue::from_static("chat")),
            numbers: AtomicU64::new(0),
            kept: Mutex::default(),
            said: broadcast::Sender::new(KEPT),
            rooms: Rooms::default(),
            cancelled: AtomicU64::new(0),
            stop,
        }
    }

    #[cfg(test)]
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    fn instance(&self) -> String {
        self.name.to_str().unwrap_or_default().to_owned()
    }

    /// The next message of this instance.
    fn number(&self, author: String, text: String) -> Message {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        Message { author, text, number, instance: self.instance() }
    }

    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        let metadata = request.metadata().clone();
        let SayRequest { author, text } = request.into_inner();
        if author.len() + text.len() > MAX_TEXT {
            return Err(Status::invalid_argument(format!("author and text have at most {MAX_TEXT} bytes")));
        }
        let message = self.number(author, text);
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(message.clone());
            // Under the lock, so that a follower sees each message once; nobody following is no error.
            let _ = self.said.send(message.clone());
        }
        Ok(self.reply(&metadata, SayReply { message: Some(message) }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<Replies>, Status> {
        let metadata = request.metadata().clone();
        let HistoryRequest { last, follow, interval_millis } = *request.get_ref();
        let (kept, mut news) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let skipped = if last == 0 { 0 } else { kept.len().saturating_sub(last as usize) };
            (kept.iter().skip(skipped).cloned().collect::<Vec<_>>(), self.said.subscribe())
        };
        let (replies, receiver) = mpsc::channel(AHEAD);
        let stop = self.stop.clone();
        self.stop.spawn(async move {
            let count = kept.len();
            for message in kept {
                if replies.send(Ok(message)).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(interval_millis.into())).await;
            }
            if follow {
                return follow_on(&replies, &mut news, &stop).await;
            }
            // A status of OK as the last item is how tonic sends trailing metadata after a success.
            let mut trailing = MetadataMap::new();
            trailing.insert("chat-messages", MetadataValue::from(count));
            let _ = replies.send(Err(Status::with_metadata(Code::Ok, "", trailing))).await;
        });
        Ok(self.reply(&metadata, ReceiverStream::new(receiver)))
    }

    async fn upload(&self, request: Request<Streaming<Chunk>>) -> Result<Response<UploadReply>, Status> {
        let metadata = request.metadata().clone();
        let mut chunks = request.into_inner();
        let mut reply = UploadReply { instance: self.instance(), ..UploadReply::default() };
        let mut crc32 = crc32fast::Hasher::new();
        while let Some(chunk) = chunks.message().await? {
            reply.chunks += 1;
            reply.bytes += chunk.data.len() as u64;
            crc32.update(&chunk.data);
        }
        reply.crc32 = crc32.finalize();
        Ok(self.reply(&metadata, reply))
    }

    async fn room(
        self: &Arc<Self>,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Replies>, Status> {
        let metadata = request.metadata().clone();
        let room = metadata.get("chat-room").and_then(|room| room.to_str().ok()).unwrap_or("lobby");
        let (inbox, receiver) = mpsc::channel(AHEAD);
        let member = self.rooms.enter(room, inbox.clone());
        let (chat, mut heard) = (self.clone(), request.into_inner());
        self.stop.spawn(async move {
            loop {
                let message = tokio::select! {
                    message = heard.message() => message,
                    () = chat.stop.asked() => Err(stopping()),
                    () = inbox.closed() => return,
                };
                let reply = match message {
                    Ok(Some(Message { author, text, .. })) => Ok(chat.number(author, text)),
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                if let Ok(message) = &reply {
                    member.tell_others(message);
                }
                // Waits for space: a sender that does not read its own messages is not read from either.
                let failed = reply.is_err();
                if inbox.send(reply).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(self.reply(&metadata, ReceiverStream::new(receiver)))
    }

    async fn fail(&self, request: Request<FailRequest>) -> Result<Response<Replies>, Status> {
        let metadata = request.metadata().clone();
        let FailRequest { code, message, messages, headers_first } = request.into_inner();
        if !(1..=16).contains(&code) || messages > MAX_FAIL_MESSAGES {
            let limits = format!("a code is 1 to 16, messages at most {MAX_FAIL_MESSAGES}");
            return Err(Status::invalid_argument(limits));
        }
        let mut trailing = MetadataMap::new();
        trailing.insert("chat-reason", MetadataValue::from_static("asked for"));
        trailing.insert_bin("chat-reason-bin", MetadataValue::from_bytes(&[0, 1, 254, 255]));
        let status = Status::with_metadata(Code::from_i32(code), message, trailing);
        if messages == 0 && !headers_first {
            return Err(status);
        }
        let (replies, receiver) = mpsc::channel(AHEAD);
        let instance = self.instance();
        self.stop.spawn(async move {
            for _ in 0..messages {
                let message = Message { instance: instance.clone(), ..Message::default() };
                if replies.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            let _ = replies.send(Err(status)).await;
        });
        Ok(self.reply(&metadata, ReceiverStream::new(receiver)))
    }

    async fn sleep(&self, request: Request<SleepRequest>) -> Result<Response<SleepReply>, Status> {
        /// Counts the sleep as cut short unless it is taken back.
        struct CutShort<'a>(&'a AtomicU64);
        impl Drop for CutShort<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let millis = request.get_ref().millis;
        if millis > MAX_SLEEP {
            return Err(Status::invalid_argument(format!("at most {MAX_SLEEP} ms")));
        }
        let cut_short = CutShort(&self.cancelled);
        sleep(Duration::from_millis(millis.into())).await;
        std::mem::forget(cut_short);
        let deadline = deadline(request.metadata()).map_or(0, |deadline| deadline.as_millis());
        let reply = SleepReply {
            deadline_millis: u32::try_from(deadline).unwrap_or(u32::MAX),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            instance: self.instance(),
        };
        Ok(self.reply(request.metadata(), reply))
    }

    /// An answer whose initial metadata repeats the caller's `chat-` fields and names the instance.
    fn reply<T>(&self, received: &MetadataMap, message: T) -> Response<T> {
        let mut response = Response::new(message);
        let metadata = response.metadata_mut();
        for field in received.iter() {
            match field {
                KeyAndValueRef::Ascii(key, value) if key.as_str().starts_with("chat-") => {
                    metadata.append(key, value.clone());
                }
                KeyAndValueRef::Binary(key, value) if key.as_str().starts_with("chat-") => {
                    metadata.append_bin(key, value.clone());
                }
                _ => {}
            }
        }
        metadata.insert("chat-instance", self.name.clone());
        response
    }
}

impl Handler for Arc<Chat> {
    async fn handle(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let content_type = request.headers().get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        if !content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
            return body::text(http::StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is a gRPC service\n");
        }
        let deadline = deadline(&MetadataMap::from_headers(request.headers().clone()));
        let answer = async { self.dispatch(request).await.unwrap_or_else(Status::into_http) };
        let response = match deadline {
            None => answer.await,
            Some(deadline) => timeout(deadline, answer)
                .await
                .unwrap_or_else(|_| Status::deadline_exceeded("the deadline of the call passed").into_http()),
        };
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    }
}

impl Chat {
    async fn dispatch(
        self: &Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<tonic::body::Body>, Status> {
        let method = request.uri().path().strip_prefix(SERVICE).map(str::to_owned);
        Ok(match method.as_deref() {
            Some("Say") => {
                Grpc::new(ProstCodec::default()).unary(Method(|request| self.say(request)), request).await
            }
            Some("History") => {
                Grpc::new(ProstCodec::default())
                    .server_streaming(Method(|request| self.history(request)), request)
                    .await
            }
            Some("Upload") => {
                Grpc::new(ProstCodec::default())
                    .client_streaming(Method(|request| self.upload(request)), request)
                    .await
            }
            Some("Room") => {
                Grpc::new(ProstCodec::default())
                    .streaming(Method(|request| self.room(request)), request)
                    .await
            }
            Some("Fail") => {
                Grpc::new(ProstCodec::default())
                    .server_streaming(Method(|request| self.fail(request)), request)
                    .await
            }
            Some("Sleep") => {
                Grpc::new(ProstCodec::default()).unary(Method(|request| self.sleep(request)), request).await
            }
            _ => return Err(Status::unimplemented(format!("no method {}", request.uri().path()))),
        })
    }
}

/// Sends what is said from now on, until the caller goes, falls too far behind, or the server stops.
async fn follow_on(replies: &Inbox, news: &mut broadcast::Receiver<Message>, stop: &Stop) {
    loop {
        let next = tokio::select! {
            next = news.recv() => next.map_err(|_| Status::resource_exhausted("the caller fell behind")),
            () = stop.asked() => Err(stopping()),
            () = replies.closed() => return,
        };
        let failed = next.is_err();
        if replies.send(next).await.is_err() || failed {
            return;
        }
    }
}

/// The call's `grpc-timeout`: up to eight digits and a unit.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn stopping() -> Status {
    Status::unavailable("the server stops")
}

/// How many messages are kept.
const KEPT: usize = 256;

/// How many bytes a kept message may have.
const MAX_TEXT: usize = 4096;

/// How many answers of a stream are made before the caller has read them.
const AHEAD: usize = 16;

const MAX_FAIL_MESSAGES: u32 = 1000;

/// Milliseconds.
const MAX_SLEEP: u32 = 600_000;
