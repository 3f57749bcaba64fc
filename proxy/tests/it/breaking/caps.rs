//! How much may be under way: connections, what waits for one, requests, retries.

use super::*;

/// An app that takes its time, and the most connections it ever had at once.
async fn counted(pause: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let at = bytes_app(move |mut stream| {
        let (open, most) = (open.clone(), most.clone());
        async move {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let mut request = [0; 4096];
            while stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                tokio::time::sleep(pause).await;
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                    break;
                }
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (at, peak)
}

/// As `fortio load -c CONNECTIONS -n REQUESTS`, each connection asking `each` times and resting in between: how many were refused.
async fn fortio(proxy: &Running, connections: usize, each: usize, rest: Duration) -> usize {
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let at = proxy.outbound[0];
            tokio::spawn(async move {
                let mut client = Http1::connect(at).await;
                let mut refused = 0;
                for _ in 0..each {
                    let answer = client.get("http://httpbin/", "httpbin").await;
                    match answer.status {
                        200 => {}
                        503 => {
                            assert_eq!(answer.reason(), "overloaded");
                            refused += 1;
                        }
                        other => panic!("{other}"),
                    }
                    if !rest.is_zero() {
                        tokio::time::sleep(rest).await;
                    }
                }
                refused
            })
        })
        .collect();
    let mut refused = 0;
    for client in clients {
        refused += client.await.expect("it ends");
    }
    refused
}

/// The circuit-breaking task of the field: one connection, one pending request, one request a connection. Of two connections nearly all requests come through (85 % there), of
/// three a half to a third (36.7 % there).
///
/// Here two are never more than there is room for, without any rest between their calls: whoever is answered finds that the one who waited has been let in. Three that rest
/// for three quarters of the time of service lose one call in two, whoever comes first: of each two who want the one place to wait, the later is refused
/// once, for its next call comes when the place is free again. (Without a rest the share would be how often one can be refused while another is served.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_and_one_pending_request_shed_what_comes_on_top() {
    const SERVICE: Duration = Duration::from_millis(40);
    for workers in [1, 2] {
        let (at, peak) = counted(SERVICE).await;
        let caps = Caps {
            connections: Some(1),
            pending: Some(1),
            requests_per_connection: Some(1),
            ..Caps::default()
        };
        let proxy = caller_under(&Service::new("httpbin:80", &[at]), capped(caps), workers);
        assert_eq!(fortio(&proxy, 2, 20, Duration::ZERO).await, 0, "of two connections, {workers} workers");
        let refused = fortio(&proxy, 3, 20, SERVICE * 3 / 4).await;
        assert!((22..=38).contains(&refused), "{refused} of 60 of three connections, {workers} workers");
        let overflow =
            metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"pending\"", "mode=\"enforce\""]);
        assert_eq!(overflow.await, refused as u64);
        assert_eq!(metric(&proxy, "outrigger_cap_limit", &["cap=\"pending\""]).await, 1);
        // The app may see the next one a moment before the end of the last.
        assert!(peak.load(Ordering::SeqCst) <= 2, "one connection at a time");
    }
}

/// Whoever waits gets the connection in turn, whichever worker has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capped_connection_goes_round_among_endpoints_and_workers() {
    for workers in [1, 2] {
        let (one, peak) = counted(Duration::ZERO).await;
        let (other, _) = counted(Duration::ZERO).await;
        let caps = Caps { connections: Some(1), pending: Some(100), ..Caps::default() };
        let proxy = caller_under(&Service::new("httpbin:80", &[one, other]), capped(caps), workers);
        assert_eq!(fortio(&proxy, 6, 50, Duration::ZERO).await, 0, "{workers} workers");
        assert!(peak.load(Ordering::SeqCst) <= 2);
        assert_eq!(metric(&proxy, "outrigger_cap_in_use", &["cap=\"pending\""]).await, 0);
        assert!(metric(&proxy, "outrigger_cap_in_use", &["cap=\"connections\""]).await <= 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_http2_is_capped_too_and_ends_after_its_requests() {
    let at = app(|_| async { Response::new(text("ok")) }).await;
    let caps = Caps {
        connections: Some(1),
        pending: Some(100),
        requests_per_connection: Some(3),
        ..Caps::default()
    };
    let proxy = caller_under(&Service::new("httpbin:80", &[at]), capped(caps), 1);
    let mut client = Http2::connect(proxy.outbound[0]).await;
    for _ in 0..10 {
        assert_eq!(client.get("http://httpbin/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_the_cap_are_refused_with_its_name_and_grpc_hears_unavailable() {
    let (at, gate) = held().await;
    let caps = Caps { requests: Some(1), ..Caps::default() };
    let proxy = caller_under(&Service::new("held:80", &[at]), capped(caps), 1);
    let outbound = proxy.outbound[0];
    let first = tokio::spawn(async move { Http1::connect(outbound).await.get("http://held/", "held").await });
    in_use(&proxy, "requests", 1).await;

    let answer = Http1::connect(outbound).await.get("http://held/", "held").await;
    assert_eq!((answer.status, answer.reason()), (503, "overloaded"));
    assert!(answer.body.contains("maxRequests is 1"), "{}", answer.body);
    let call = Request::post("http://held/svc/Method").header("content-type", "application/grpc");
    let call = call.body(http_body_util::Empty::new().boxed()).expect("valid");
    let answer = Answer::read(Http2::connect(outbound).await.send(call).await).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "14"));

    gate.add_permits(1);
    assert_eq!(first.await.expect("it ends").status, 200);
    in_use(&proxy, "requests", 0).await;
    gate.add_permits(1);
    assert_eq!(Http1::connect(outbound).await.get("http://held/", "held").await.status, 200);
    assert_eq!(metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"requests\""]).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_has_caps_of_its_own() {
    let (at, gate) = held().await;
    let service = Service::new("held:80", &[at]);
    let mut narrow = route("/narrow", &service.cluster());
    let caps = RouteCaps {
        mode: BreakerMode::Enforce,
        pending: None,
        requests: Some(1),
        retries: None,
        origin: None,
    };
    narrow.caps = Some(Arc::new(caps));
    let service = service.clone().routes(vec![narrow, route("/", &service.cluster())]);
    let proxy = caller_under(&service, CircuitBreaker::default(), 1);
    let outbound = proxy.outbound[0];
    let ask = |path: &'static str| async move {
        Http1::connect(outbound).await.get(&format!("http://held{path}"), "held").await
    };
    let first = tokio::spawn(ask("/narrow"));
    within("the second is refused", async {
        loop {
            // Until the first one is under way, the second may be it; then it waits.
            let asked = tokio::time::timeout(Duration::from_millis(200), ask("/narrow")).await;
            if asked.is_ok_and(|answer| answer.reason() == "overloaded") {
                return;
            }
        }
    })
    .await;
    gate.add_permits(100);
    assert_eq!(ask("/wide").await.status, 200);
    first.await.expect("it ends");
    assert!(metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"route_requests\""]).await >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observed_caps_refuse_nothing() {
    let (at, peak) = counted(Duration::from_millis(5)).await;
    let caps = Caps {
        mode: BreakerMode::Observe,
        connections: Some(1),
        pending: Some(1),
        requests: Some(1),
        ..Caps::default()
    };
    let proxy = caller_under(&Service::new("httpbin:80", &[at]), capped(caps), 1);
    assert_eq!(fortio(&proxy, 4, 20, Duration::ZERO).await, 0);
    assert!(peak.load(Ordering::SeqCst) > 1);
    assert!(
        metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"requests\"", "mode=\"observe\""]).await > 0
    );
    assert_eq!(metric(&proxy, "outrigger_cap_in_use", &["cap=\"requests\""]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_over_the_cap_are_not_made() {
    let at = app(|_| async {
        let mut response = Response::new(text("no"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let service = Service::new("flaky:80", &[at]);
    let mut rule = route("/", &service.cluster());
    rule.retry = Some(Arc::new(Retry::default()));
    let caps = Caps { retries: Some(0), ..Caps::default() };
    let proxy = caller_under(&service.routes(vec![rule]), capped(caps), 1);
    let answer = Http1::connect(proxy.outbound[0]).await.get("http://flaky/", "flaky").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "no"));
    assert_eq!(crate::retries::suppressed(&proxy, "cap").await, 1);
    assert_eq!(metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"retries\""]).await, 1);
}

/// TCP counts, too, and waits like everybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_bytes_wait_for_each_other() {
    use outrigger_config::model::Protocol;
    let (at, peak) = counted(Duration::ZERO).await;
    let caps = Caps { connections: Some(1), pending: Some(1), ..Caps::default() };
    let mut service = Service::new("bytes:80", &[at]);
    service.protocol = Protocol::Tcp;
    let mut resources = vec![inbound(&[], ProxySettings::default())];
    resources.extend(service.resources().into_iter().map(|resource| match resource {
        Resource::Cluster(mut cluster) => {
            cluster.circuit_breaker = Arc::new(capped(caps));
            Resource::Cluster(cluster)
        }
        other => other,
    }));
    let name = service.name.clone();
    let mut setup = Setup::new(Own::Sidecar);
    setup.workers = Some(1);
    setup.service_addresses = vec![((LOOPBACK, 0).into(), name)];
    let proxy = app::start(setup, |_| Ok((Source::fixed(resources), None))).expect("it starts");
    let entrance = proxy.service_addresses[0];
    let mut first = TcpStream::connect(entrance).await.expect("it listens");
    first.write_all(b"x").await.expect("it reads");
    let mut answer = [0; 8];
    within("an answer", first.read_exact(&mut answer)).await.expect("it answers");
    let mut second = TcpStream::connect(entrance).await.expect("it listens");
    second.write_all(b"x").await.expect("it reads");
    in_use(&proxy, "pending", 1).await;
    // Nobody else may wait.
    let third = async {
        // It may be reset before it can be written to, or as soon as it stands.
        let mut third = TcpStream::connect(entrance).await?;
        third.write_all(b"x").await?;
        third.read(&mut answer).await
    };
    let ended = within("it is refused", third).await;
    assert!(ended.is_err() || ended.is_ok_and(|n| n == 0));
    drop(first);
    within("its turn", second.read_exact(&mut answer)).await.expect("it answers");
    assert!(peak.load(Ordering::SeqCst) <= 2);
}
