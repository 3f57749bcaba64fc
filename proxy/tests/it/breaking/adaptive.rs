//! Caps that find themselves.

use super::*;

/// An app that works on four requests at a time, and how many more wait there: now, and at most since that was last asked.
async fn queueing() -> (SocketAddr, Arc<AtomicUsize>) {
    let places = Arc::new(tokio::sync::Semaphore::new(4));
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let at = app(move |_| {
        let (places, under_way, most) = (places.clone(), under_way.clone(), most.clone());
        async move {
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let place = places.acquire().await.expect("it is open");
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(place);
            under_way.fetch_sub(1, Ordering::SeqCst);
            Response::new(text("ok"))
        }
    })
    .await;
    (at, peak)
}

/// A hundred callers of an app that can work for four: nearly all of what would only wait there is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_cannot_take_is_refused_before_it_queues() {
    for workers in [1, 2] {
        let (at, peak) = queueing().await;
        let adaptive = Adaptive { mode: BreakerMode::Enforce, least: 3, most: 1_000, origin: None };
        let breaker = CircuitBreaker { adaptive: Some(adaptive), ..CircuitBreaker::default() };
        let proxy = caller_under(&Service::new("small:80", &[at]), breaker, workers);
        let ended = Arc::new(AtomicBool::new(false));
        let good = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let (to, ended, good) = (proxy.outbound[0], ended.clone(), good.clone());
                tokio::spawn(async move {
                    let mut client = Http1::connect(to).await;
                    while !ended.load(Ordering::Relaxed) {
                        let answer = client.get("http://small/", "small").await;
                        match answer.status {
                            200 => drop(good.fetch_add(1, Ordering::Relaxed)),
                            503 => {
                                assert_eq!(answer.reason(), "overloaded");
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                            other => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        let served = |count| {
            let (good, want) = (&good, good.load(Ordering::Relaxed) + count);
            within("requests are served", async move {
                while good.load(Ordering::Relaxed) < want {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        served(300).await;
        peak.store(0, Ordering::SeqCst);
        served(300).await;
        let peak = peak.load(Ordering::SeqCst);
        ended.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.expect("every answer was one of the two");
        }
        assert!((3..=50).contains(&peak), "{peak} at a time with {workers} workers");
        assert!(
            metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"adaptive\"", "mode=\"enforce\""]).await
                > 0
        );
        assert_eq!(metric(&proxy, "outrigger_cap_in_use", &["cap=\"adaptive\""]).await, 0);
        assert!(metric(&proxy, "outrigger_cap_limit", &["cap=\"adaptive\""]).await >= 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adaptive_cap_that_observes_refuses_nothing() {
    let (at, gate) = held().await;
    let adaptive = Adaptive { mode: BreakerMode::Observe, least: 1, most: 1, origin: None };
    let breaker = CircuitBreaker { adaptive: Some(adaptive), ..CircuitBreaker::default() };
    let proxy = caller_under(&Service::new("held:80", &[at]), breaker, 1);
    let outbound = proxy.outbound[0];
    let ask = || {
        tokio::spawn(async move { Http1::connect(outbound).await.get("http://held/", "held").await.status })
    };
    let both = [ask(), ask()];
    in_use(&proxy, "adaptive", 2).await;
    gate.add_permits(2);
    for one in both {
        assert_eq!(one.await.expect("it ends"), 200);
    }
    assert_eq!(
        metric(&proxy, "outrigger_cap_overflow_total", &["cap=\"adaptive\"", "mode=\"observe\""]).await,
        1
    );
}
