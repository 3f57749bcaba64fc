//! Connections that are not HTTP, or not known to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outrigger_config::model::{
    HostPattern, Origin, Protocol, ProxySettings, TcpForward, TlsRoute, WeightedCluster,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;

/// A proxy with one service address, for `service`.
fn before(service: Service) -> (outrigger_proxy::app::Running, std::net::SocketAddr) {
    let name = service.name.clone();
    let caller = caller_with(&[service], ProxySettings::default(), |setup| {
        setup.service_addresses = vec![((LOOPBACK, 0).into(), name)];
    });
    let at = caller.service_addresses[0];
    (caller, at)
}

/// Reads to the client's end, then answers and ends.
async fn after_the_end() -> std::net::SocketAddr {
    bytes_app(|mut stream: TcpStream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let _ = stream.write_all(format!("{} bytes", all.len()).as_bytes()).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_carried_with_half_close_through_two_sidecars() {
    let (_callee, at) = callee(Protocol::Tcp, after_the_end().await).await;
    let (_caller, at) = before(Service::new("db:6379", &[at]).protocol(Protocol::Tcp));
    let mut stream = TcpStream::connect(at).await.unwrap();
    let data = vec![7; 3 << 20];
    stream.write_all(&data).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, format!("{} bytes", data.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_ends_its_side_first_still_hears_its_client() {
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let app = bytes_app(move |mut stream: TcpStream| {
        let heard = heard.clone();
        async move {
            let _ = stream.write_all(b"all I had to say").await;
            let _ = stream.shutdown().await;
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = heard.send(all.len());
        }
    })
    .await;
    let (_callee, at) = callee(Protocol::Tcp, app).await;
    let (_caller, at) = before(Service::new("db:6379", &[at]).protocol(Protocol::Tcp));
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut said = String::new();
    within("the app's end", stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "all I had to say");
    let data = vec![7; 3 << 20];
    stream.write_all(&data).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(within("what the app heard", hears.recv()).await, Some(data.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_carries_nothing_for_too_long_is_ended() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let app = bytes_app(move |mut stream: TcpStream| {
        let ended = ended.clone();
        async move {
            let _ = stream.write_all(b"hello").await;
            let _ = ended.send(stream.read_to_end(&mut Vec::new()).await.is_ok());
        }
    })
    .await;
    let (_callee, at) = callee(Protocol::Tcp, app).await;
    let mut service = Service::new("db:6379", &[at]).protocol(Protocol::Tcp);
    service.idle = Some(std::time::Duration::from_millis(300));
    let (_caller, at) = before(service);
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut said = String::new();
    within("the end", stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "hello");
    assert_eq!(within("the app's end", ends.recv()).await, Some(true), "in good order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_one_side_resets_the_other() {
    let app = bytes_app(|mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (_callee, at) = callee(Protocol::Tcp, app).await;
    let (_caller, at) = before(Service::new("db:6379", &[at]).protocol(Protocol::Tcp));
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let ended = within("its end", stream.read(&mut [0; 16])).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_a_reset() {
    let nobody = (LOOPBACK, ports::free()).into();
    let (_caller, at) = before(Service::new("db:6379", &[nobody]).protocol(Protocol::Tcp));
    let read = async { TcpStream::connect(at).await?.read(&mut [0; 16]).await };
    let ended: std::io::Result<usize> = within("its end", read).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_refuses_connections_is_replaced_by_another() {
    let nobody = std::net::SocketAddr::new(LOOPBACK, ports::free());
    let app = bytes_app(|mut stream: TcpStream| async move {
        let _ = stream.write_all(b"here").await;
    })
    .await;
    let (_caller, at) = before(Service::new("db:6379", &[nobody, app]).protocol(Protocol::Tcp));
    for _ in 0..20 {
        assert_eq!(exchange_bytes(at, b"").await, "here");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_first_is_heard_on_an_undeclared_port_and_remembered() {
    let (dialled, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = dialled.clone();
    let app = bytes_app(move |mut stream: TcpStream| {
        seen.fetch_add(1, Ordering::Relaxed);
        async move {
            let _ = stream.write_all(b"220 ready\r\n").await;
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said).await;
            let _ = stream.write_all(&said).await;
        }
    })
    .await;
    let (_callee, at) = callee(Protocol::Detect, app).await;
    let (_caller, at) = before(Service::new("mail:25000", &[at]).protocol(Protocol::Detect));
    let mut first = None;
    for _ in 0..3 {
        let begun = std::time::SystemTime::now();
        let mut stream = TcpStream::connect(at).await.unwrap();
        let mut banner = [0; 11];
        within("the banner", stream.read_exact(&mut banner)).await.unwrap();
        assert_eq!(&banner, b"220 ready\r\n");
        let took = begun.elapsed().unwrap();
        println!("banner after {took:?}");
        first.get_or_insert(took);
        stream.write_all(b"QUIT").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        within("the rest", stream.read_to_string(&mut rest)).await.unwrap();
        assert_eq!(rest, "QUIT");
        count.fetch_add(1, Ordering::Relaxed);
    }
    // Each connection reached the app once: the one that was opened to find out is the one that is used.
    assert_eq!(dialled.load(Ordering::Relaxed), count.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_speaks_late_on_an_undeclared_port_is_still_understood() {
    let (_callee, at) = callee(Protocol::Detect, echo().await).await;
    let (_caller, at) = before(Service::new("web:8000", &[at]).protocol(Protocol::Detect));
    let mut stream = TcpStream::connect(at).await.unwrap();
    // Silent past the first wait, in which both sidecars open a connection to whoever might speak first.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    stream.write_all(b"GET /late HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("x-request-id: "), "it was carried as HTTP: {answer}");
    // And another one at once: silence was not remembered.
    let answer = Http1::connect(at).await.get("/soon", "web").await;
    assert!(answer.body.contains("x-request-id: "), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_nothing_known_are_carried() {
    let app = bytes_app(|mut stream: TcpStream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let (_callee, at) = callee(Protocol::Detect, app).await;
    let (_caller, at) = before(Service::new("redis:6379", &[at]).protocol(Protocol::Detect));
    for said in [&b"*1\r\n$4\r\nPING\r\n"[..], b"GET key\r\n", b"\x00\x01\x02\x03", b"SSH-2.0-test\r\n", b"G"]
    {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(said).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        within("the echo", stream.read_to_end(&mut back)).await.unwrap();
        assert_eq!(back, said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_of_the_apps_own_goes_unopened_by_its_server_name() {
    let say = |what: &'static str| {
        bytes_app(move |mut stream: TcpStream| async move {
            let mut record = [0; 5];
            let _ = stream.read_exact(&mut record).await;
            let _ = stream.write_all(what.as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
    };
    let (named, other) = (Service::new("named:443", &[say("named").await]), say("other").await);
    let mut service = Service::new("secure:443", &[other]).protocol(Protocol::Tls);
    service.tls = vec![TlsRoute {
        sni: HostPattern::parse("*.named.test").unwrap(),
        forward: TcpForward {
            backends: vec![WeightedCluster { cluster: named.cluster(), weight: 1 }],
            idle: None,
            faults: None,
        },
        origin: Origin::new("TLSRoute", "default", "test", ""),
    }];
    let name = service.name.clone();
    let caller = caller_with(&[service, named], ProxySettings::default(), |setup| {
        setup.service_addresses = vec![((LOOPBACK, 0).into(), name)];
    });
    for (sni, want) in [("a.named.test", "named"), ("b.test", "other")] {
        let hello = client_hello(sni);
        let mut stream = TcpStream::connect(caller.service_addresses[0]).await.unwrap();
        // Byte by byte: a ClientHello spans segments as it likes.
        for byte in &hello {
            stream.write_all(&[*byte]).await.unwrap();
        }
        let mut answer = String::new();
        within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, want, "{sni}");
    }
}
