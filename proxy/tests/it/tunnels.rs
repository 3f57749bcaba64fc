//! Upgrades and CONNECT.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use outrigger_config::model::{Protocol, UpstreamHttp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::floods::gateway;
use super::harness::*;
use super::http1::read_message;

/// Switches to whatever it is asked for and sends every byte back.
pub async fn upgrading() -> std::net::SocketAddr {
    app(|mut request: Request<Incoming>| async move {
        let Some(protocol) = request.headers().get("upgrade").cloned() else {
            return Response::new(text("no upgrade asked for"));
        };
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = io.read(&mut buffer).await {
                if io.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            let _ = io.shutdown().await;
        });
        let response =
            Response::builder().status(101).header("connection", "upgrade").header("upgrade", protocol);
        response.header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").body(text("")).unwrap()
    })
    .await
}

pub const ASK: &str = "GET /chat HTTP/1.1\r\nHost: chat:80\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_two_sidecars_with_large_frames_and_both_ends() {
    let (callee, at) = callee(Protocol::Http, upgrading().await).await;
    let caller = caller(&[Service::new("chat:80", &[at])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    // Sent before the answer: held until the app agreed, then forwarded.
    stream.write_all(format!("{ASK}early").as_bytes()).await.unwrap();
    let (head, _) = read_message(&mut stream).await;
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    assert!(head.contains("sec-websocket-accept:"), "{head}");
    let mut early = [0; 5];
    within("early bytes", stream.read_exact(&mut early)).await.unwrap();
    assert_eq!(&early, b"early");

    let sent: Vec<u8> = (0..1024 * 1024).map(|n| (n % 251) as u8).collect();
    let (mut read, mut write) = stream.into_split();
    let (copy, got) = (sent.clone(), sent.len());
    let writing = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::with_capacity(got);
    within("the echo's end", read.read_to_end(&mut back)).await.unwrap();
    assert!(back == sent, "{} bytes back", back.len());
    writing.await.unwrap();
    drop((caller, callee));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_means_nothing_between_hops_is_dropped_and_others_pass() {
    let (_callee, at) = callee(Protocol::Http, upgrading().await).await;
    let caller = caller(&[Service::new("chat:80", &[at])]);
    for (upgrade, want) in [
        ("TLS/1.2", "HTTP/1.1 200"),
        ("h2c", "HTTP/1.1 200"),
        ("h2c, TLS/1.3", "HTTP/1.1 200"),
        ("tcp", "HTTP/1.1 101"),
        ("SPDY/3.1", "HTTP/1.1 101"),
        ("h2c, websocket", "HTTP/1.1 101"),
    ] {
        let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
        let ask =
            format!("GET / HTTP/1.1\r\nHost: chat:80\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let (head, _) = read_message(&mut stream).await;
        assert!(head.starts_with(want), "{upgrade}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_the_app_declines_is_an_ordinary_answer() {
    let caller = caller(&[Service::new("chat:80", &[echo().await])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    for _ in 0..2 {
        stream.write_all(ASK.as_bytes()).await.unwrap();
        let (head, _) = read_message(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_to_a_mesh_service_is_looked_into() {
    let (_callee, at) = callee(Protocol::Http, echo().await).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"CONNECT reviews:9080 HTTP/1.1\r\nHost: reviews:9080\r\n\r\n").await.unwrap();
    let (head, _) = read_message(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200") && !head.to_lowercase().contains("content-length"), "{head}");
    let answer = Http1::over(stream).await.get("/inside", "anything").await;
    assert!(answer.body.starts_with("GET /inside HTTP/1.1\n"), "{}", answer.body);
    assert!(answer.body.contains("x-request-id: "), "it went through as HTTP: {}", answer.body);

    // And HTTP/2 within it, as grpc_proxy makes clients do.
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"CONNECT reviews:9080 HTTP/1.1\r\nHost: reviews:9080\r\n\r\n").await.unwrap();
    read_message(&mut stream).await;
    let answer = Http2::over(stream).await.get("http://reviews:9080/two").await;
    assert!(answer.body.contains("HTTP/2.0"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_within_connect_works() {
    let (_callee, at) = callee(Protocol::Http, upgrading().await).await;
    let caller = caller(&[Service::new("chat:80", &[at])]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"CONNECT chat:80 HTTP/1.1\r\nHost: chat:80\r\n\r\n").await.unwrap();
    read_message(&mut stream).await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    assert!(read_message(&mut stream).await.0.starts_with("HTTP/1.1 101"));
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    within("the echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_to_somewhere_else_is_a_tunnel() {
    let at = bytes_app(|mut stream| async move {
        let _ = stream.write_all(b"220 not http\r\n").await;
        let mut said = [0; 4];
        let _ = stream.read_exact(&mut said).await;
        let _ = stream.write_all(&said).await;
    })
    .await;
    let caller = caller(&[]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(read_message(&mut stream).await.0.starts_with("HTTP/1.1 200"));
    stream.write_all(b"QUIT").await.unwrap();
    let mut all = String::new();
    within("its end", stream.read_to_string(&mut all)).await.unwrap();
    assert_eq!(all, "220 not http\r\nQUIT");
    // Where nobody is, the client is told so and why, and its connection serves on.
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    let nobody = std::net::SocketAddr::new(LOOPBACK, ports::free());
    for (name, reason) in
        [(nobody.to_string(), "connect_failed"), ("nowhere.invalid:443".into(), "dns_failed")]
    {
        stream
            .write_all(format!("CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let (head, _) = read_message(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains(reason), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extended_connect_carries_a_websocket_over_http2() {
    let app = h2_tunnel_app().await;
    let (_callee, at) = callee(Protocol::Http2, app).await;
    let caller = caller(&[Service::new("chat:80", &[at]).http(UpstreamHttp::AsReceived)]);
    let mut client = Http2::connect(caller.outbound[0]).await;
    // The peer's SETTINGS have to be here first (RFC 8441 §3): a first exchange makes sure of it.
    let _ = client.get("http://chat/").await;
    let mut request = Request::connect("http://chat/ws").body(text("")).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let mut response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    within("the echo", io.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"ping");
}

/// What a tunnel takes whose client never reads, so that the echo cannot go on. Kernel buffers are most of it, of six sockets a way.
async fn taken(mut io: impl tokio::io::AsyncWrite + Unpin) -> usize {
    let (chunk, mut taken) = (vec![0; 64 * 1024], 0);
    let full = std::time::Duration::from_secs(2);
    while taken < UNBOUNDED
        && let Ok(written) = tokio::time::timeout(full, io.write(&chunk)).await
    {
        taken += written.expect("it is not broken off");
    }
    taken
}

const UNBOUNDED: usize = 512 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_not_read_takes_no_more() {
    let (_callee, at) = callee(Protocol::Http, upgrading().await).await;
    let (_other, http2) = callee(Protocol::Http2, h2_tunnel_app().await).await;
    let services = [
        Service::new("chat:80", &[at]),
        Service::new("two:80", &[http2]).http(UpstreamHttp::AsReceived),
        Service::new("bytes:81", &[at]).protocol(Protocol::Tcp),
    ];
    let caller = caller_with(&services, Default::default(), |setup| {
        setup.service_addresses = vec![((LOOPBACK, 0).into(), "bytes:81".parse().unwrap())];
    });
    let upgraded = async {
        let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
        stream.write_all(ASK.as_bytes()).await.unwrap();
        assert!(read_message(&mut stream).await.0.starts_with("HTTP/1.1 101"));
        taken(stream).await
    };
    let extended = async {
        let mut client = Http2::connect(caller.outbound[0]).await;
        let _ = client.get("http://two/").await;
        let mut request = Request::connect("http://two/ws").body(text("")).unwrap();
        request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        let mut response = client.send(request).await;
        taken(TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap())).await
    };
    // The same app behind bytes: it is asked for the upgrade by its client alone.
    let bytes = async {
        let mut stream = TcpStream::connect(caller.service_addresses[0]).await.unwrap();
        stream.write_all(ASK.as_bytes()).await.unwrap();
        assert!(read_message(&mut stream).await.0.starts_with("HTTP/1.1 101"));
        taken(stream).await
    };
    let (upgraded, extended, bytes) = tokio::join!(upgraded, extended, bytes);
    for (what, taken) in [("upgrade", upgraded), ("extended CONNECT", extended), ("bytes", bytes)] {
        println!("{what}: {} MB", taken >> 20);
        assert!(taken < UNBOUNDED, "{what} took {taken} bytes");
    }
}

/// Dropped with data in it that nobody read, over and over: what that took of the connection's window is given back, or the twenty-third would be the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_reset_gives_back_what_nobody_read() {
    // Takes tunnels, reads nothing of them, and resets each when it is told to; echoes everything else.
    let (reset, resets) = tokio::sync::watch::channel(0);
    let app = bytes_app(move |stream| {
        let resets = resets.clone();
        async move {
            let mut builder = h2::server::Builder::new();
            let mut connection =
                builder.enable_connect_protocol().handshake::<_, bytes::Bytes>(stream).await.unwrap();
            let mut tunnels = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if request.method() == http::Method::CONNECT {
                    tunnels += 1;
                    let (nth, mut resets) = (tunnels, resets.clone());
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    tokio::spawn(async move {
                        let _unread = request;
                        let _ = resets.wait_for(|resets| *resets >= nth).await;
                        send.send_reset(h2::Reason::CANCEL);
                    });
                } else {
                    tokio::spawn(async move {
                        let mut send = respond.send_response(Response::new(()), false).unwrap();
                        let mut body = request.into_body();
                        let mut count = 0;
                        while let Some(Ok(data)) = body.data().await {
                            count += data.len();
                            body.flow_control().release_capacity(data.len()).unwrap();
                        }
                        send.send_data(count.to_string().into(), true).unwrap();
                    });
                }
            }
        }
    })
    .await;
    let (_gateway, at) = gateway(app, UpstreamHttp::Http2).await;
    let stream = TcpStream::connect(at).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let upload = async |bytes: usize, connect: bool| {
        let mut client = client.clone().ready().await.unwrap();
        let mut request = Request::post("http://chat/").body(()).unwrap();
        if connect {
            *request.method_mut() = http::Method::CONNECT;
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        }
        let (response, mut send) = client.send_request(request, false).unwrap();
        let mut left = bytes;
        send.reserve_capacity(left);
        while left > 0 {
            let room =
                std::future::poll_fn(|cx| send.poll_capacity(cx)).await.expect("open").unwrap().min(left);
            send.send_data(vec![b'x'; room].into(), room == left && !connect).unwrap();
            left -= room;
        }
        (response.await.unwrap().into_body(), send)
    };
    let (mut body, _) = within("what tells that there are tunnels", upload(1, false)).await;
    while within("its end", body.data()).await.is_some() {}
    // 65,535 bytes reach the app, and the rest does not: in all more than the window of the connection, 4 MiB.
    for nth in 1..=40 {
        let (_body, mut send) = within("a tunnel takes them", upload(250_000, true)).await;
        reset.send_replace(nth);
        let why = within("its reset", std::future::poll_fn(|cx| send.poll_reset(cx))).await.unwrap();
        assert_eq!(why, h2::Reason::CANCEL);
    }
    let (mut body, _) = within("an upload goes on", upload(8 << 20, false)).await;
    let mut said = Vec::new();
    while let Some(data) = within("its end", body.data()).await {
        said.extend_from_slice(&data.unwrap());
    }
    assert_eq!(said, (8 << 20).to_string().as_bytes());
}

/// Answers CONNECT over HTTP/2 with a tunnel that sends everything back.
async fn h2_tunnel_app() -> std::net::SocketAddr {
    bytes_app(|stream| async move {
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| async move {
            if request.method() != http::Method::CONNECT {
                return Ok::<_, std::convert::Infallible>(Response::new(text("plain")));
            }
            assert_eq!(
                request.extensions().get::<hyper::ext::Protocol>().map(|p| p.as_str()),
                Some("websocket")
            );
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.unwrap());
                let (mut read, mut write) = tokio::io::split(io);
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            Ok(Response::new(text("")))
        });
        let mut builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        builder.enable_connect_protocol();
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    })
    .await
}
