//! The chat client: makes all four kinds of calls and prints what came.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use tokio::time::{sleep, timeout};
use tonic::client::Grpc;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::dial::{self, Connection};
use super::messages::{Chunk, HistoryRequest, Message, SayReply, SayRequest, UploadReply};
use super::{PORT, SERVICE};
use crate::sample::client::Proxies;
use crate::sample::listen::{Stop, complain, say};

/// Make every kind of call and print the answers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the server is
    #[arg(long, value_name = "HOST:PORT", default_value_t = format!("127.0.0.1:{PORT}"))]
    address: String,

    /// Go on, with a pause of this many seconds
    #[arg(long, value_name = "SECONDS")]
    every: Option<u64>,

    /// Deadline of each call, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    deadline: u64,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let address: Authority = args.address.parse().with_context(|| format!("--address {}", args.address))?;
    ensure!(address.port_u16().is_some(), "--address {address}: no port");
    let (proxies, deadline) = (dial::proxies_from_env()?, Duration::from_secs(args.deadline));
    let Some(pause) = args.every.map(Duration::from_secs) else {
        return once(&address, &proxies, deadline, say).await;
    };
    let stop = Stop::on_signal()?;
    loop {
        tokio::select! {
            round = once(&address, &proxies, deadline, say) => if let Err(error) = round {
                complain(&format!("{error:#}"));
            },
            () = stop.asked() => return Ok(()),
        }
        tokio::select! { () = sleep(pause) => {}, () = stop.asked() => return Ok(()) }
    }
}

/// One connection, the four kinds of calls over it, a line for each answer.
pub async fn once(
    address: &Authority,
    proxies: &Proxies,
    deadline: Duration,
    mut print: impl FnMut(&str),
) -> anyhow::Result<()> {
    let connection =
        timeout(deadline, dial::connect(address, proxies)).await.context("no connection in time")??;
    let mut chat = Client::new(connection, address, deadline)?;

    let said = chat.say("outrigger", "hello").await.context("Say")?;
    let Some(message) = said.get_ref().message.as_ref() else { bail!("Say: an answer without a message") };
    print(&format!("Say      {}", line(message)));

    let mut history =
        chat.history(HistoryRequest { last: 3, ..HistoryRequest::default() }).await.context("History")?;
    while let Some(message) = history.get_mut().message().await.context("History")? {
        print(&format!("History  {}", line(&message)));
    }

    let data = Bytes::from_static(&[b'x'; 1000]);
    let chunks = vec![Chunk { data }; 10];
    let UploadReply { chunks, bytes, crc32, instance } =
        chat.upload(chunks).await.context("Upload")?.into_inner();
    print(&format!("Upload   {instance} took {bytes} bytes in {chunks} messages, CRC-32 {crc32:08x}"));

    let words = ["one", "two", "three"];
    let messages =
        words.map(|text| Message { author: "outrigger".into(), text: text.into(), ..Message::default() });
    let mut room = chat.room(tokio_stream::iter(messages)).await.context("Room")?;
    while let Some(message) = room.get_mut().message().await.context("Room")? {
        print(&format!("Room     {}", line(&message)));
    }
    Ok(())
}

fn line(message: &Message) -> String {
    let Message { author, text, number, instance } = message;
    format!("{instance} #{number} {author}: {text}")
}

/// The calls of `chat.proto`, one method each.
pub struct Client {
    grpc: Grpc<Connection>,
    deadline: Duration,
}

type Answer<T> = Result<Response<T>, Status>;

impl Client {
    pub fn new(connection: Connection, address: &Authority, deadline: Duration) -> anyhow::Result<Self> {
        let origin =
            http::Uri::builder().scheme("http").authority(address.clone()).path_and_query("/").build()?;
        Ok(Self { grpc: Grpc::with_origin(connection, origin), deadline })
    }

    pub async fn say(&mut self, author: &str, text: &str) -> Answer<SayReply> {
        let request = self.request(SayRequest { author: author.into(), text: text.into() });
        self.ready().await?.unary(request, path("Say"), ProstCodec::default()).await
    }

    pub async fn history(&mut self, request: HistoryRequest) -> Answer<Streaming<Message>> {
        let request = self.request(request);
        self.ready().await?.server_streaming(request, path("History"), ProstCodec::default()).await
    }

    pub async fn upload(&mut self, chunks: Vec<Chunk>) -> Answer<UploadReply> {
        let request = self.request(tokio_stream::iter(chunks));
        self.ready().await?.client_streaming(request, path("Upload"), ProstCodec::default()).await
    }

    pub async fn room<S>(&mut self, messages: S) -> Answer<Streaming<Message>>
    where
        S: tokio_stream::Stream<Item = Message> + Send + 'static,
    {
        let request = self.request(messages);
        self.ready().await?.streaming(request, path("Room"), ProstCodec::default()).await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    async fn ready(&mut self) -> Result<&mut Grpc<Connection>, Status> {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(&mut self.grpc)
    }
}

/// `/chat.v1.Chat/METHOD`.
pub(super) fn path(method: &str) -> PathAndQuery {
    format!("{SERVICE}{method}").parse().expect("a service and a method name are a path")
}
