//! How requests and connections find where they go, and what becomes of those the mesh does not know.

use hyper_util::rt::TokioIo;
use outrigger_config::model::{Egress, Protocol, ProxySettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;

fn registry_only() -> ProxySettings {
    ProxySettings { egress: Egress::RegistryOnly, ..ProxySettings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_address_stands_for_one_service_whatever_the_host() {
    let (_callee, at) = callee(Protocol::Http, echo().await).await;
    let caller = caller_with(&[Service::new("reviews:9080", &[at])], ProxySettings::default(), |setup| {
        setup.service_addresses = vec![((LOOPBACK, 0).into(), "reviews:9080".parse().unwrap())];
    });
    let answer = Http1::connect(caller.service_addresses[0]).await.get("/x", "any.host").await;
    assert!(answer.body.contains("host: any.host\n"), "{}", answer.body);
    let answer = Http2::connect(caller.service_addresses[0]).await.get("http://any.host/x").await;
    assert!(answer.body.starts_with("GET http://any.host/x HTTP/2.0"), "{}", answer.body);

    // A client that takes the proxy for everything names the service by that address, to ask it or to tunnel there.
    let own = caller.service_addresses[0];
    let mut client = Http1::connect(caller.outbound[0]).await;
    let answer = client.get(&format!("http://{own}/y"), "-").await;
    assert!(answer.body.starts_with("GET /y HTTP/1.1\n"), "{answer:?}");
    let tunnel = http::Request::connect(own.to_string()).body(text("")).unwrap();
    let response = client.send(tunnel).await;
    assert_eq!(response.status(), 200);
    let inside = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let answer = Http1::over(inside).await.get("/z", "any.host").await;
    assert!(answer.body.starts_with("GET /z HTTP/1.1\n"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_proxy_connection_serves_many_destinations() {
    let (one, two) = (echo().await, echo().await);
    let caller = caller(&[Service::new("one:80", &[one]), Service::new("two:8080", &[two])]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    for (uri, host) in
        [("http://one/", "one"), ("http://two:8080/", "two:8080"), ("http://ONE:80/", "ONE:80")]
    {
        let answer = client.get(uri, "replaced").await;
        assert!(answer.body.contains(&format!("host: {host}\n")), "{uri}: {}", answer.body);
    }
    // Without a proxy's form the Host names a service of the mesh all the same.
    assert_eq!(client.get("/", "two:8080").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_mesh_does_not_know_is_passed_on_by_address_and_by_name() {
    let app = echo().await;
    let caller = caller(&[]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    let answer = client.get(&format!("http://{app}/a"), "-").await;
    assert!(answer.body.starts_with("GET /a HTTP/1.1\n"), "{answer:?}");
    let answer = client.get(&format!("http://localhost:{}/b", app.port()), "-").await;
    assert!(answer.body.starts_with("GET /b HTTP/1.1\n"), "{answer:?}");
    let answer = client.get("http://no-such-name.invalid/", "-").await;
    assert_eq!((answer.status, answer.reason()), (503, "dns_failed"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_mesh_refuses_what_it_does_not_know() {
    let (app, known) = (echo().await, echo().await);
    let services = [Service::new("known:80", &[known])];
    let caller = caller_with(&services, registry_only(), |setup| {
        setup.service_addresses = vec![((LOOPBACK, 0).into(), "unknown:80".parse().unwrap())];
    });
    let mut client = Http1::connect(caller.outbound[0]).await;
    let answer = client.get(&format!("http://{app}/"), "-").await;
    assert_eq!((answer.status, answer.reason()), (502, "unknown_destination"), "{answer:?}");
    assert!(answer.body.contains("RegistryOnly"), "its own app is told why: {}", answer.body);
    assert_eq!(client.get("http://known/", "-").await.status, 200, "the connection lives on");

    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(format!("CONNECT {app} HTTP/1.1\r\nHost: {app}\r\n\r\n").as_bytes()).await.unwrap();
    let (head, _) = super::http1::read_message(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 502") && head.contains("unknown_destination"), "{head}");

    let answer = Http1::connect(caller.service_addresses[0]).await.get("/", "unknown").await;
    assert_eq!(answer.reason(), "unknown_destination");
    let mut stream = TcpStream::connect(caller.service_addresses[0]).await.unwrap();
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let refused = within("its end", stream.read(&mut [0; 16])).await;
    assert!(refused.is_err(), "anything but HTTP is reset: {refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_leads_back_to_the_proxy_is_refused() {
    let caller = caller(&[]);
    let own = caller.outbound[0];
    let mut client = Http1::connect(own).await;
    let answer = client.get(&format!("http://{own}/"), "-").await;
    assert_eq!((answer.status, answer.reason()), (502, "loop_detected"), "{answer:?}");
    // By a name it is found one hop later: what comes back has no proxy's form any more.
    let answer = client.get(&format!("http://localhost:{}/", own.port()), "-").await;
    assert_eq!(answer.reason(), "unknown_destination", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outbound_port_takes_only_http_directly() {
    let caller = caller(&[]);
    let mut stream = TcpStream::connect(caller.outbound[0]).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x00\x01\x00 no hello").await.unwrap();
    assert!(within("its end", stream.read(&mut [0; 16])).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_spread_over_two_workers() {
    let app = echo().await;
    let caller = caller_with(&[Service::new("one:80", &[app])], ProxySettings::default(), |setup| {
        setup.workers = Some(2);
    });
    let mut clients = Vec::new();
    for _ in 0..32 {
        let mut client = Http1::connect(caller.outbound[0]).await;
        assert_eq!(client.get("http://one/", "-").await.status, 200);
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.get("http://one/", "-").await.status, 200);
    }
}
