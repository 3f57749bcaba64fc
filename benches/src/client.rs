//! HTTP/1.1 clients: one request, and steady load whose every answer is remembered with its moment.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::ground::PATIENCE;

/// One request on a connection of its own. `uri` may be absolute, as it is said to a proxy.
pub async fn get(server: SocketAddr, uri: &str) -> anyhow::Result<(u16, Bytes)> {
    Client::connect(server).await?.get(uri).await
}

/// A keep-alive connection.
pub struct Client {
    sender: SendRequest<Empty<Bytes>>,
}

impl Client {
    pub async fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Its errors come back with the request.
            let _ = connection.await;
        });
        Ok(Self { sender })
    }

    /// Whether it can be asked again.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub async fn get(&mut self, uri: &str) -> anyhow::Result<(u16, Bytes)> {
        let uri: http::Uri = uri.parse()?;
        let host = uri.authority().map_or("outrigger-bench", |authority| authority.as_str()).to_owned();
        let request = Request::builder().uri(uri).header("host", host).body(Empty::new())?;
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status().as_u16();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        timeout(PATIENCE, exchange).await.context("no answer")?
    }
}

/// One answer of the load, a refusal or a broken connection included.
#[derive(Clone, Debug)]
pub struct Answer {
    pub begun: Instant,
    /// The body of a 200, or what went wrong.
    pub result: Result<Bytes, String>,
}

/// Requests one after the other on each of many connections, until it is finished.
pub struct Load {
    answers: Arc<Mutex<Vec<Answer>>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// `pause` lies between two requests of a connection.
    pub fn start(server: SocketAddr, uri: &str, connections: usize, pause: Duration) -> Self {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (stop, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (answers, stopped, uri) = (answers.clone(), stop.subscribe(), uri.to_owned());
            tasks.spawn(async move {
                let mut client = None;
                while !*stopped.borrow() {
                    let begun = Instant::now();
                    let result = once(&mut client, server, &uri).await.map_err(|error| format!("{error:#}"));
                    let answer = Answer { begun, result };
                    answers.lock().expect("nobody panics with it").push(answer);
                    sleep(pause).await;
                }
            });
        }
        Self { answers, stop, tasks }
    }

    /// Waits for `enough` answers, since the start of the load.
    pub async fn flows(&self, enough: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.so_far(|answers| answers.len()) < enough {
            ensure!(begun.elapsed() < PATIENCE, "the load does not flow");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// A look at the answers.
    pub fn so_far<T>(&self, look: impl FnOnce(&[Answer]) -> T) -> T {
        look(&self.answers.lock().expect("nobody panics with it"))
    }

    /// All answers; a failed request is an error.
    pub async fn finish(mut self) -> anyhow::Result<Vec<Answer>> {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        let answers = std::mem::take(&mut *self.answers.lock().expect("nobody panics with it"));
        let failures: Vec<_> = answers.iter().filter_map(|answer| answer.result.as_ref().err()).collect();
        if let Some(first) = failures.first() {
            bail!("{} of {} requests failed, the first: {first}", failures.len(), answers.len());
        }
        Ok(answers)
    }
}

/// Takes a new connection where the last one is over.
async fn once(client: &mut Option<Client>, server: SocketAddr, uri: &str) -> anyhow::Result<Bytes> {
    if client.as_ref().is_none_or(|client| client.sender.is_closed()) {
        *client = Some(Client::connect(server).await?);
    }
    let connected = client.as_mut().context("connected above")?;
    let answer = connected.get(uri).await;
    match answer {
        Ok((200, body)) => Ok(body),
        Ok((status, body)) => bail!("{status} {}", String::from_utf8_lossy(&body)),
        Err(error) => {
            *client = None;
            Err(error)
        }
    }
}
