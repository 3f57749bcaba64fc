//! What the canary says. That it meets itself through real rules is tested in network namespaces (cli/tests/netns).

use tokio::net::TcpListener;

use super::*;
use crate::admin::Readiness;

#[tokio::test]
async fn only_our_own_nonce_proves_anything() {
    let canary = Canary::default();
    let to: SocketAddr = "127.0.0.1:15019".parse().unwrap();
    let (caller, mut met) = oneshot::channel();
    canary.0.lock().insert([7; 16], caller);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for said in [
        &b""[..],
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"outrigger-canary ",
        b"outrigger-canary 0000000000000000",
        b"SSH-2.0-OpenSSH_9.9 and much more than the canary reads at all\r\n",
    ] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (arrived, _) = listener.accept().await.unwrap();
        client.write_all(said).await.unwrap();
        client.shutdown().await.unwrap();
        canary.meet(arrived, Direction::Outbound, to).await;
        let mut answer = Vec::new();
        // A reset, where more was said than was read.
        let _ = client.read_to_end(&mut answer).await;
        assert!(answer.is_empty() && met.try_recv().is_err(), "{said:?}");
    }
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (arrived, _) = listener.accept().await.unwrap();
    client.write_all(&[&GREETING[..], &[7; 16]].concat()).await.unwrap();
    canary.meet(arrived, Direction::Outbound, to).await;
    assert_eq!(met.try_recv(), Ok(Met { at: Direction::Outbound, original: to }));
    assert!(canary.0.lock().is_empty());
}

#[test]
fn only_the_pods_own_port_15019_is_the_canary() {
    for (arrived, original, want) in [
        (Direction::Outbound, "127.0.0.1:15019", true),
        (Direction::Outbound, "[::1]:15019", true),
        (Direction::Outbound, "203.0.113.7:15019", false /* some other host's */),
        (Direction::Outbound, "127.0.0.1:15018", false),
        (Direction::Inbound, "10.0.0.7:15019", true),
        (Direction::Inbound, "[fd00::7]:15019", true),
        (Direction::Inbound, "10.0.0.7:8080", false),
    ] {
        assert_eq!(Canary::is_called(arrived, original.parse().unwrap()), want, "{arrived:?} {original}");
    }
}

#[tokio::test]
async fn without_rules_it_says_what_is_missing_and_what_to_run() {
    // Nothing redirects here, unless somebody listens on 15019 of this machine's loopback: then nobody of ours does.
    let pod = addresses::Pod { v4: None, v6: Some(Ipv6Addr::LOCALHOST) };
    let canary = Arc::new(Canary::default());
    let missing = canary.missing(&Addresses::Fixed(pod)).await;
    let [v4, v6] = missing.as_slice() else { panic!("{missing:?}") };
    assert!(v4.starts_with("IPv4 connections of the app are not redirected: "), "{v4}");
    assert!(v6.starts_with("IPv6 connections are not redirected: "), "{v6}");
    assert!(
        missing.iter().all(|missing| missing.ends_with("; run `outrigger capture apply`")),
        "{missing:?}"
    );

    let readiness = Readiness::default();
    let condition = readiness.require("not looked yet");
    let watching = tokio::spawn(canary.watch(condition, Addresses::Fixed(pod), Duration::from_secs(30)));
    let told = async {
        while readiness.missing() == ["not looked yet"] {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), told).await.expect("it says what it found");
    assert_eq!(readiness.missing().join("\n").lines().count(), 2);
    watching.abort();
}

#[test]
fn interfaces_have_no_loopback_or_link_local_address() {
    let pod = Addresses::OfInterfaces { given: None }.now().unwrap();
    assert!(pod.v4.is_none_or(|ip| !ip.is_loopback() && !ip.is_link_local()), "{pod:?}");
    assert!(pod.v6.is_none_or(|ip| !ip.is_loopback() && !ip.is_unicast_link_local()), "{pod:?}");
}
