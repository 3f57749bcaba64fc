use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::sample::body::text;

/// Answers `/slow` once it is told to, everything else at once.
#[derive(Default)]
struct Slow {
    begun: Notify,
    may_end: Notify,
}

impl Handler for Slow {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/slow" {
            self.begun.notify_one();
            self.may_end.notified().await;
        }
        text(http::StatusCode::OK, "done\n")
    }
}

struct Started {
    address: SocketAddr,
    handler: Arc<Slow>,
    stop: Stop,
    server: tokio::task::JoinHandle<()>,
}

async fn start() -> Started {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (handler, stop) = (Arc::new(Slow::default()), Stop::default());
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, handler.clone(), stop.clone()));
    Started { address, handler, stop, server }
}

/// Writes a request and reads what comes up to the end of the body `done\n`.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    while !got.ends_with(b"done\n") {
        assert_ne!(
            stream.read_buf(&mut got).await.unwrap(),
            0,
            "closed after {:?}",
            String::from_utf8_lossy(&got)
        );
    }
    String::from_utf8(got).unwrap().to_lowercase()
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_what_still_comes_then_closes() {
    let started = start().await;
    let mut busy = TcpStream::connect(started.address).await.unwrap();
    let mut idle = TcpStream::connect(started.address).await.unwrap();
    let mut silent = TcpStream::connect(started.address).await.unwrap();
    assert!(!ask(&mut idle, "/").await.contains("connection: close"), "kept alive before the stop");
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    started.handler.begun.notified().await;

    started.stop.ask();

    assert!(
        ask(&mut idle, "/").await.contains("connection: close"),
        "the kept-alive connection got one more answer"
    );
    let mut late = TcpStream::connect(started.address).await.unwrap();
    assert!(ask(&mut late, "/").await.contains("connection: close"), "a new connection is still served");
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "one that never spoke is closed");
    started.handler.may_end.notify_one();
    assert!(answer(&mut busy).await.contains("connection: close"), "what was in flight is finished");
    started.server.await.unwrap();
    assert!(TcpStream::connect(started.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_same_port_speaks_http2_and_stops_with_goaway() {
    let started = start().await;
    let stream = TcpStream::connect(started.address).await.unwrap();
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        Request::get(format!("http://a{path}")).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap()
    };
    assert_eq!(send.send_request(request("/")).await.unwrap().version(), Version::HTTP_2);
    let slow = tokio::spawn(send.send_request(request("/slow")));
    started.handler.begun.notified().await;
    started.stop.ask();
    started.stop.lingered.cancelled().await;
    started.handler.may_end.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    connection.await.unwrap().expect("GOAWAY after the last stream is a clean end");
    started.server.await.unwrap();
}
