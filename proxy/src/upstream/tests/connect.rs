use socket2::{Domain, Socket, Type};

use super::*;
use crate::dns::tests::Server;
use crate::failure::Reason;
use crate::upstream::connect;

/// A port nothing listens on.
async fn closed_port() -> SocketAddr {
    listen().await.1
}

/// A listener whose queue is full, so that no connection to it comes about. Open for as long as the guard lives.
fn full_listener() -> (SocketAddr, impl Sized) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port is free");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            client.set_nonblocking(true).expect("it can be");
            let _ = client.connect(&address.into());
            client
        })
        .collect();
    (address, (listener, waiting))
}

#[tokio::test(flavor = "local")]
async fn a_refused_connection_gives_the_request_back() {
    let address = closed_port().await;
    for http in [Http1, Http2] {
        let client = Client::of(address);
        let error = client.send(http, post("/", "hello".to_owned())).await.expect_err("nothing listens");
        assert_eq!(error.reason, Reason::ConnectFailed);
        assert!(error.unprocessed);
        assert!(error.detail.contains(&format!("nothing listens on port {}", address.port())), "{error}");
        let unsent = error.unsent.expect("it was not sent").into_body().collect().await.expect("whole");
        assert_eq!(unsent.to_bytes(), "hello");
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_does_not_come_about_ends_at_the_timeout() {
    let (address, _full) = full_listener();
    let settings = model::Cluster { connect_timeout: Duration::from_millis(100), ..settings() };
    for http in [Http1, Http2] {
        let client = Client::with(settings.clone(), address);
        let error = client.send(http, get("/")).await.expect_err("it cannot connect");
        assert_eq!(error.reason, Reason::ConnectTimeout, "{error}");
        assert!(error.detail.contains("within 100ms"), "{error}");
        assert!(error.unsent.is_some());
    }
}

#[tokio::test]
async fn sockets_have_their_options() {
    let (listener, address) = listen().await;
    let stream = connect::open_tcp(address, Duration::from_secs(1)).await.expect("it listens");
    drop(listener);
    let socket = socket2::SockRef::from(&stream);
    assert!(socket.tcp_nodelay().expect("readable"));
    assert!(socket.keepalive().expect("readable"));
    assert_eq!(socket.tcp_keepalive_time().expect("readable"), Duration::from_secs(8));
    assert_eq!(socket.tcp_keepalive_interval().expect("readable"), Duration::from_secs(5));
    assert_eq!(socket.tcp_keepalive_retries().expect("readable"), 3);
    assert_eq!(socket.tcp_user_timeout().expect("readable"), Some(crate::socket::UNANSWERED));
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_fails_or_hangs() {
    let (full, _guard) = full_listener();
    let refused = closed_port().await;
    let (_listener, good) = listen().await;
    for addresses in [&[refused, good][..], &[full, good], &[refused, full, refused, good]] {
        let stream = connect::open_any(addresses, Duration::from_secs(5)).await.expect("one of them answers");
        assert_eq!(stream.peer_addr().expect("connected"), good);
    }
    let failure = connect::open_any(&[refused, refused], Duration::from_secs(5)).await.expect_err("none");
    assert_eq!(failure.reason, Reason::ConnectFailed);
}

#[tokio::test(flavor = "local")]
async fn a_name_outside_the_mesh_is_resolved_and_reached() {
    let address = http1_server(|_, _| async { ok("found") }).await;
    // The IPv6 address leads nowhere: nothing listens there.
    let dns = Server::start(&["::1", "127.0.0.1"]).await;
    let named = |host: &str| model::Cluster {
        discovery: Discovery::Dns { host: host.into(), port: address.port() },
        ..settings()
    };
    let pools = super::pools(dns.resolver());
    let cluster = Cluster::new(named("web.example.com"));
    let picked = cluster.pick(Instant::now(), &mut SmallRng::seed_from_u64(1), &[]).expect("it has one");
    let response = pools.send(&cluster, picked.endpoint(), Http1, get("/")).await.expect("it is reached");
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "found");

    dns.addresses.borrow_mut().clear();
    let cluster = Cluster::new(named("gone.example.com"));
    let picked = cluster.pick(Instant::now(), &mut SmallRng::seed_from_u64(1), &[]).expect("it has one");
    let error = pools.send(&cluster, picked.endpoint(), Http1, get("/")).await.expect_err("no address");
    assert_eq!(error.reason, Reason::DnsFailed);
    assert!(error.unsent.is_some() && error.detail.contains("gone.example.com"), "{error}");
}
