//! Over real loopback sockets, but for the counting of answers.

use std::cell::RefCell;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use outrigger_config::model::{self, Balance, HealthProbe};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::upstream::tests::{endpoint, endpoints, http1_server, ok, pools, settings};
use crate::upstream::{Asked as Wanted, Usable};

#[test]
fn thresholds_count_answers_in_a_row() {
    let check = HealthCheck { unhealthy_threshold: 3, healthy_threshold: 2, ..HealthCheck::default() };
    // + an answer that is well, - one that is not; below it what changes: p passed, f failed.
    for (answers, changes) in [
        ("+++", "p  "),
        ("-", "f"),
        ("+--+---", "p     f"),
        ("+--+--+--", "p        "),
        ("-+-++", "f   p"),
        ("-++---+-++", "f p  f   p"),
    ] {
        let mut streak = Streak::default();
        let got: String = answers
            .chars()
            .map(|answer| match streak.after(answer == '+', &check) {
                Some(Checks::Passed) => 'p',
                Some(Checks::Failed) => 'f',
                Some(Checks::None) => '?',
                None => ' ',
            })
            .collect();
        assert_eq!(got, changes, "{answers}");
    }
}

/// A cluster that asks its endpoints in this way, every 20 ms.
fn cluster(probe: HealthProbe, of: Vec<model::Endpoint>) -> Arc<Cluster> {
    let check = HealthCheck {
        probe,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        unhealthy_threshold: 2,
        healthy_threshold: 2,
    };
    let balance = Balance { health_check: Some(check.into()), ..Balance::default() };
    let cluster = Cluster::new(model::Cluster { balance: balance.into(), ..settings() });
    cluster.set_endpoints(endpoints(of));
    cluster
}

fn unknown(address: SocketAddr) -> model::Endpoint {
    model::Endpoint { health: Health::Unknown, ..endpoint(address) }
}

/// Whoever is checked while it is held.
fn checking(clusters: &[&Arc<Cluster>]) -> watch::Sender<Vec<Weak<Cluster>>> {
    let (watched, receiver) = watch::channel(clusters.iter().map(|one| Arc::downgrade(one)).collect());
    let checker = Checker {
        pools: pools(crate::dns::Resolver::system(tokio::runtime::Handle::current())),
        metrics: Metrics::new(1),
        worker: telemetry::Worker::default(),
        asked: HashMap::new(),
    };
    tokio::task::spawn_local(checker.run(receiver));
    watched
}

/// Until the endpoints are in these states, in their order.
async fn until(cluster: &Cluster, want: &[Usable]) {
    let states = || cluster.endpoints().iter().map(|one| one.usable()).collect::<Vec<_>>();
    for _ in 0..3_000 {
        if states() == want {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} did not become {want:?}", states());
}

fn picked(cluster: &Cluster) -> Result<SocketAddr, String> {
    let picked = cluster.pick(Instant::now(), &mut SmallRng::seed_from_u64(1), Wanted::default());
    match picked.map_err(|why| why.to_string())?.endpoint().address {
        crate::upstream::Address::Socket(address) => Ok(address),
        crate::upstream::Address::Name { .. } => panic!("it has an address"),
    }
}

/// An app that answers its health checks with a status that can be set.
async fn app(status: &Rc<RefCell<u16>>) -> SocketAddr {
    let status = status.clone();
    http1_server(move |_, request: Request<Incoming>| {
        let status = status.clone();
        async move {
            let asked = (request.method().as_str(), request.uri().to_string());
            assert_eq!(asked, ("GET", "/ready?deep=1".to_owned()));
            let host = request.headers()["host"].to_str().expect("text");
            assert_eq!(host, "app.default.svc.cluster.local");
            let mut response = ok("how it is");
            *response.status_mut() = (*status.borrow()).try_into().expect("a status");
            response
        }
    })
    .await
}

#[tokio::test(flavor = "local")]
async fn what_fails_its_checks_gets_nothing_until_it_passes_them_again() {
    let (a, b) = (Rc::new(RefCell::new(200)), Rc::new(RefCell::new(200)));
    let (first, second) = (app(&a).await, app(&b).await);
    let probe = HealthProbe::Http {
        path: "/ready?deep=1".into(),
        host: None,
        expected: vec![HealthProbe::DEFAULT_EXPECTED],
    };
    let cluster = cluster(probe, vec![unknown(first), unknown(second)]);
    let addresses: Vec<String> =
        cluster.endpoints().iter().map(|endpoint| endpoint.address.to_string()).collect();
    let state = |of: SocketAddr, own: Usable, other: Usable| match addresses[0] == of.to_string() {
        true => [own, other],
        false => [other, own],
    };
    let _checking = checking(&[&cluster]);
    until(&cluster, &[Usable::Yes, Usable::Yes]).await;

    *a.borrow_mut() = 503;
    until(&cluster, &state(first, Usable::FailsChecks, Usable::Yes)).await;
    assert_eq!(picked(&cluster), Ok(second));
    let endpoints = cluster.endpoints();
    let failed = endpoints.iter().find(|one| one.usable() == Usable::FailsChecks).expect("one fails");
    assert_eq!(failed.check_failure().as_deref().map(String::as_str), Some("it answered 503"));

    // That there is no other is no reason to use one that fails.
    *b.borrow_mut() = 404;
    until(&cluster, &[Usable::FailsChecks, Usable::FailsChecks]).await;
    let why = picked(&cluster).expect_err("none is usable");
    assert!(
        why.contains("none of its 2 endpoints is usable") && why.contains("fails its health checks"),
        "{why}"
    );

    *a.borrow_mut() = 302;
    cluster.ready(Instant::now() + Duration::from_secs(30)).await.expect("one heals, and who waits is told");
    assert_eq!(picked(&cluster), Ok(first));
}

/// Whose readiness somebody else watches is not asked, and one that is not asked any more is taken to be well.
#[tokio::test(flavor = "local")]
async fn only_the_unwatched_are_asked_and_only_while_it_is_wanted() {
    let dead = {
        let (listener, address) = crate::upstream::tests::listen().await;
        drop(listener);
        address
    };
    let watched = cluster(HealthProbe::Tcp, vec![endpoint(dead)]);
    let unwatched = cluster(HealthProbe::Tcp, vec![unknown(dead)]);
    let clusters = checking(&[&watched, &unwatched]);
    until(&unwatched, &[Usable::FailsChecks]).await;
    assert_eq!(picked(&watched), Ok(dead), "it was not asked");
    let all = unwatched.endpoints();
    let failure = all.iter().next().expect("there is one").check_failure().expect("it failed");
    assert!(failure.contains("connect"), "{failure}");

    unwatched.update(settings());
    clusters.send_replace(vec![Arc::downgrade(&unwatched)]);
    until(&unwatched, &[Usable::Yes]).await;
}

#[tokio::test(flavor = "local")]
async fn a_connection_is_enough_for_tcp() {
    let (listener, address) = crate::upstream::tests::listen().await;
    let cluster = cluster(HealthProbe::Tcp, vec![unknown(address)]);
    let _checking = checking(&[&cluster]);
    // It is accepted by the kernel; the app may be slow.
    for _ in 0..3 {
        listener.accept().await.expect("a check connects");
    }
    assert_eq!(picked(&cluster), Ok(address));
    drop(listener);
    until(&cluster, &[Usable::FailsChecks]).await;
}

/// A gRPC server that says of service `a` that it serves and of others what it likes.
async fn grpc_server() -> SocketAddr {
    let (listener, address) = crate::upstream::tests::listen().await;
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("it accepts");
            tokio::task::spawn_local(async move {
                let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                    assert_eq!(request.uri().path(), crate::grpc_health::PATH);
                    let body = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
                    let status = if body.ends_with(b"a") { 1 } else { 2 };
                    let response = Response::builder().header("content-type", "application/grpc");
                    let answer: &'static [u8] = match status {
                        1 => &[0, 0, 0, 0, 2, 8, 1],
                        _ => &[0, 0, 0, 0, 2, 8, 2],
                    };
                    let response =
                        response.header("grpc-status", "0").body(Full::new(Bytes::from_static(answer)));
                    Ok::<_, hyper::Error>(response.expect("it is valid"))
                });
                let _ = hyper::server::conn::http2::Builder::new(Local)
                    .timer(hyper_util::rt::TokioTimer::new())
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// Runs streams as tasks of the test.
#[derive(Clone)]
struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[tokio::test(flavor = "local")]
async fn a_grpc_service_has_to_say_that_it_serves() {
    let address = grpc_server().await;
    let serving = cluster(HealthProbe::Grpc { service: "a".into() }, vec![unknown(address)]);
    let busy = cluster(HealthProbe::Grpc { service: "b".into() }, vec![unknown(address)]);
    let _checking = checking(&[&serving, &busy]);
    until(&busy, &[Usable::FailsChecks]).await;
    let all = busy.endpoints();
    let failure = all.iter().next().expect("there is one").check_failure().expect("it failed");
    assert_eq!(*failure, "it says \"NOT_SERVING\" of itself");
    for _ in 0..300 {
        if serving.endpoints().iter().all(|one| one.checks() == Checks::Passed) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("it did not pass");
}
