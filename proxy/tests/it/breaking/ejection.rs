//! Endpoints that fail in every way, and come back.

use super::*;

/// How an app of bytes behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum Mode {
    Well,
    /// As a process under SIGSTOP: the kernel goes on accepting for it.
    Stopped,
    Resets,
    Unavailable,
    Slow,
}

impl Mode {
    const ALL: [Self; 5] = [Self::Well, Self::Stopped, Self::Resets, Self::Unavailable, Self::Slow];
}

const SLOW: Duration = Duration::from_secs(2);

/// An app whose behaviour can be changed, and how many requests it got.
async fn moody() -> (SocketAddr, Arc<AtomicU8>, Arc<AtomicUsize>) {
    let mode = Arc::new(AtomicU8::new(Mode::Well as u8));
    let served = Arc::new(AtomicUsize::new(0));
    let (now, count) = (mode.clone(), served.clone());
    let at = bytes_app(move |mut stream| {
        let (now, count) = (now.clone(), count.clone());
        async move {
            let mut read = Vec::new();
            loop {
                let mut some = [0; 1024];
                match stream.read(&mut some).await {
                    Ok(n @ 1..) => read.extend_from_slice(&some[..n]),
                    _ => return,
                }
                let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                read.drain(..end + 4);
                count.fetch_add(1, Ordering::Relaxed);
                let status = match Mode::ALL[now.load(Ordering::Relaxed) as usize] {
                    Mode::Well => "200 OK",
                    Mode::Stopped => std::future::pending().await,
                    Mode::Resets => return stream.set_zero_linger().expect("it is open"),
                    Mode::Unavailable => "503 Service Unavailable",
                    Mode::Slow => {
                        tokio::time::sleep(SLOW).await;
                        "200 OK"
                    }
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (at, mode, served)
}

/// The rules of design.md section 5 with short times, and retries as a policy would ask for them.
fn with_rules(endpoints: &[SocketAddr]) -> (Service, CircuitBreaker) {
    let service = Service::new("three:80", endpoints);
    let mut rule = route("/", &service.cluster());
    rule.timeouts = Timeouts { backend_request: Some(Duration::from_secs(3)), ..Timeouts::default() };
    rule.retry = Some(Arc::new(Retry { on: vec![RetryOn::ServerError], ..Retry::default() }));
    let ejection = Ejection {
        base: Duration::from_millis(400),
        max: Duration::from_millis(800),
        ramp: Duration::from_millis(600),
        // It looks at ten seconds, in which there may be few calls on a busy machine: then it is first now and then.
        success_rate: None,
        slow_calls: Some(SlowCalls {
            longer_than: SLOW / 2,
            share: Fraction::new(1, 2).expect("a half"),
            interval: Duration::from_secs(10),
            min_requests: 5,
        }),
        ..Ejection::default()
    };
    (service.routes(vec![rule]), CircuitBreaker { ejection: Some(ejection), ..CircuitBreaker::default() })
}

/// Requests without a pause over several connections, until it is dropped.
struct Load {
    sent: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Load {
    fn begin(at: SocketAddr, connections: usize) -> Self {
        let load = Self { sent: Default::default(), failed: Default::default(), ended: Default::default() };
        for _ in 0..connections {
            let (sent, failed, ended) = (load.sent.clone(), load.failed.clone(), load.ended.clone());
            tokio::spawn(async move {
                let mut client = Http1::connect(at).await;
                while !ended.load(Ordering::Relaxed) {
                    let answer = client.get("http://three/", "three").await;
                    failed.fetch_add(usize::from(answer.status != 200), Ordering::Relaxed);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Of the next requests, how many fail.
    async fn of_the_next(&self, count: usize) -> usize {
        let (sent, failed) = (self.sent.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        within("the requests are answered", async {
            while self.sent.load(Ordering::Relaxed) < sent + count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.failed.load(Ordering::Relaxed) - failed
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// One of three endpoints fails in each way; it is out, the others carry on, and it returns when it is well.
async fn one_of_three(workers: usize) {
    let (well, _, _) = moody().await;
    let (other, _, _) = moody().await;
    let (moody, mode, served) = moody().await;
    let (service, breaker) = with_rules(&[well, moody, other]);
    let proxy = caller_under(&service, breaker, workers);
    let load = Load::begin(proxy.outbound[0], 16);
    assert_eq!(load.of_the_next(100).await, 0);
    for (bad, reason) in [
        (Mode::Stopped, "consecutive_errors"),
        (Mode::Resets, "consecutive_errors"),
        (Mode::Unavailable, "consecutive_errors"),
        (Mode::Slow, "slow_calls"),
    ] {
        mode.store(bad as u8, Ordering::Relaxed);
        let out = until("it is ejected", &proxy, moody, |now| now["state"] == "ejected").await;
        assert_eq!(out["reason"], reason, "{bad:?}: {out}");
        assert!(out["next_probe_ms"].as_u64().is_some_and(|wait| wait <= 800), "{out}");
        assert!(
            metric(&proxy, "outrigger_ejections_total", &["service=\"three.default\"", reason]).await >= 1
        );
        let failed = load.of_the_next(1_000).await;
        assert!(failed <= 1, "{bad:?}: {failed} of 1000 failed after the ejection");
        // What was asked of it meanwhile are probes.
        let states = ["ejected", "probing"];
        let now = ejection(&proxy, moody).await;
        assert!(states.iter().any(|state| now["state"] == *state), "{bad:?}: {now}");

        mode.store(Mode::Well as u8, Ordering::Relaxed);
        let back = until("it is back", &proxy, moody, |now| now["state"] == "ramping" || now.is_null()).await;
        assert!(back.is_null() || back["reason"].is_null(), "{back}");
        until("it has its whole share", &proxy, moody, Value::is_null).await;
        let before = served.load(Ordering::Relaxed);
        assert_eq!(load.of_the_next(200).await, 0, "after {bad:?}");
        assert!(served.load(Ordering::Relaxed) > before, "it gets requests again after {bad:?}");
    }
    assert!(metric(&proxy, "outrigger_probes_total", &["result=\"success\""]).await >= 4);
    assert_eq!(metric(&proxy, "outrigger_endpoints", &["state=\"healthy\""]).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_endpoint_of_three_is_left_alone_until_it_is_well() {
    one_of_three(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_what_they_know_of_a_bad_endpoint() {
    one_of_three(2).await;
}

/// Connections that end before they took anything are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_resets_whoever_connects_is_soon_out() {
    let met = Arc::new(AtomicUsize::new(0));
    let count = met.clone();
    let bad = bytes_app(move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { stream.set_zero_linger().expect("it is open") }
    })
    .await;
    let (well, _, _) = moody().await;
    let (service, mut breaker) = with_rules(&[well, bad]);
    breaker.ejection = Some(Ejection::default());
    let proxy = caller_under(&service, breaker, 1);
    let mut client = Http1::connect(proxy.outbound[0]).await;
    for _ in 0..40 {
        assert_eq!(client.get("http://three/", "three").await.status, 200);
    }
    // Whether a reset comes before or behind the first bytes of a request the kernel decides.
    let out = ejection(&proxy, bad).await;
    assert!(["connect_failures", "consecutive_errors"].iter().any(|why| out["reason"] == *why), "{out}");
    assert!((3..=5).contains(&met.load(Ordering::SeqCst)), "{met:?} requests until it was out");
}

/// Twenty idle connections to an endpoint, each of which ends under its next request: a reset each is a failing endpoint, an orderly end each one
/// that keeps none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_are_reset_count_and_those_that_are_closed_do_not() {
    for resets in [true, false] {
        let (open, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, counted) = (open.clone(), ended.clone());
        let bad = bytes_app(move |mut stream| {
            let (opened, counted) = (opened.clone(), counted.clone());
            async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                opened.fetch_add(1, Ordering::SeqCst);
                while opened.load(Ordering::SeqCst) < 20 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                if stream.read(&mut head).await.is_ok_and(|n| n > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    if resets {
                        stream.set_zero_linger().expect("it is open");
                    }
                }
            }
        })
        .await;
        let (well, _, _) = moody().await;
        let service = Service::new("three:80", &[well, bad]);
        let proxy = caller_under(&service, CircuitBreaker::default(), 1);
        let at = proxy.outbound[0];
        let clients: Vec<_> = (0..40)
            .map(|_| {
                tokio::spawn(
                    async move { Http1::connect(at).await.get("http://three/", "three").await.status },
                )
            })
            .collect();
        for client in clients {
            assert_eq!(within("it is answered", client).await.expect("no panic"), 200);
        }
        // Longer than a connection has to be idle to be suspected.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut client = Http1::connect(at).await;
        // Fewer than there are connections: a new one would end when it was idle for a moment only, which is a failure.
        for _ in 0..15 {
            let answer = client.get("http://three/", "three").await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let (met, out) = (ended.load(Ordering::SeqCst), ejection(&proxy, bad).await);
        if resets {
            assert_eq!((met, &out["reason"]), (5, &Value::from("consecutive_errors")), "{out}");
        } else {
            assert!(met > 5 && out.is_null(), "{met} requests met an end, {out}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_three_are_bad_two_of_them_stay() {
    let apps = [moody().await, moody().await, moody().await];
    let (service, breaker) = with_rules(&apps.each_ref().map(|(at, _, _)| *at));
    let proxy = caller_under(&service, breaker, 2);
    for bad in [Mode::Resets, Mode::Unavailable] {
        apps.iter().for_each(|(_, mode, _)| mode.store(bad as u8, Ordering::Relaxed));
        let load = Load::begin(proxy.outbound[0], 4);
        for _ in 0..20 {
            load.of_the_next(10).await;
            let clusters = json(proxy.admin, "/clusters").await;
            let endpoints = clusters["clusters"][0]["endpoints"].as_array().expect("a list");
            let out = endpoints.iter().filter(|one| one["ejection"]["state"] == "ejected").count();
            assert!(out <= 1, "{clusters}");
        }
    }
    // Each request met an app: nothing was answered for want of an endpoint.
    assert_eq!(metric(&proxy, "outrigger_requests_total", &["reason=\"no_endpoint\""]).await, 0);
    assert!(metric(&proxy, "outrigger_ejections_total", &["mode=\"spared\""]).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observing_counts_what_it_would_have_ejected() {
    let (well, _, _) = moody().await;
    let (bad, mode, served) = moody().await;
    mode.store(Mode::Unavailable as u8, Ordering::Relaxed);
    let (service, mut breaker) = with_rules(&[well, bad]);
    breaker.ejection.as_mut().expect("it has rules").mode = BreakerMode::Observe;
    let proxy = caller_under(&service, breaker, 1);
    let load = Load::begin(proxy.outbound[0], 2);
    until("it would be ejected", &proxy, bad, |now| now["mode"] == "observe").await;
    let before = served.load(Ordering::Relaxed);
    within("it gets requests all the same", async {
        while served.load(Ordering::Relaxed) < before + 20 {
            load.of_the_next(10).await;
        }
    })
    .await;
    assert!(metric(&proxy, "outrigger_ejections_total", &["mode=\"observe\""]).await > 0);
    assert_eq!(metric(&proxy, "outrigger_endpoints", &["state=\"healthy\""]).await, 2);
}
