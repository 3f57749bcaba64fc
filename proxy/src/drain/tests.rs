use super::*;

const TIMING: Timing = Timing { window: Duration::from_secs(5), deadline: Duration::from_secs(25) };

/// A drain with its driver running; the phases it passes, with the second each began.
async fn phases(drain: &Arc<Drain>) -> Vec<(u64, Phase)> {
    let begun = Instant::now();
    let mut watch = drain.watch();
    let mut seen = Vec::new();
    for phase in [Phase::Announcing, Phase::Draining, Phase::Ended] {
        watch.reached(phase).await;
        seen.push((begun.elapsed().as_secs(), phase));
    }
    seen
}

fn started(timing: Timing) -> (Arc<Drain>, tokio::task::JoinHandle<()>) {
    let drain = Drain::new(timing);
    let driver = tokio::spawn({
        let drain = drain.clone();
        async move { drain.run().await }
    });
    (drain, driver)
}

#[tokio::test(start_paused = true)]
async fn an_idle_proxy_ends_after_the_window() {
    let (drain, driver) = started(TIMING);
    drain.end();
    assert_eq!(phases(&drain).await, [(0, Phase::Announcing), (5, Phase::Draining), (5, Phase::Ended)]);
    driver.await.expect("the driver returns");
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_what_is_active() {
    let (drain, driver) = started(TIMING);
    let active = drain.enter();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(12)).await;
        drop(active);
    });
    drain.end();
    assert_eq!(phases(&drain).await, [(0, Phase::Announcing), (5, Phase::Draining), (12, Phase::Ended)]);
    driver.await.expect("the driver returns");
}

#[tokio::test(start_paused = true)]
async fn what_never_ends_is_cut_off_at_the_deadline() {
    let (drain, driver) = started(TIMING);
    let _stuck = drain.enter();
    drain.end();
    assert_eq!(phases(&drain).await, [(0, Phase::Announcing), (5, Phase::Draining), (25, Phase::Ended)]);
    driver.await.expect("the driver returns");
}

#[tokio::test(start_paused = true)]
async fn the_window_never_outlasts_the_deadline() {
    let (drain, _driver) =
        started(Timing { window: Duration::from_secs(60), deadline: Duration::from_secs(3) });
    drain.end();
    assert_eq!(phases(&drain).await, [(0, Phase::Announcing), (3, Phase::Draining), (3, Phase::Ended)]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_two_requests_is_not_the_end() {
    let (drain, _driver) = started(TIMING);
    let mut watch = drain.watch();
    drain.end();
    watch.reached(Phase::Draining).await;
    let begun = Instant::now();
    for _ in 0..10 {
        let active = drain.enter();
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(active);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(drain.phase(), Phase::Draining);
    }
    watch.reached(Phase::Ended).await;
    assert!(begun.elapsed() < TIMING.deadline);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_at_once() {
    let (drain, driver) = started(TIMING);
    let _stuck = drain.enter();
    drain.end();
    drain.watch().reached(Phase::Announcing).await;
    drain.end();
    let begun = Instant::now();
    driver.await.expect("the driver returns");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(drain.phase(), Phase::Ended);
}

#[tokio::test(start_paused = true)]
async fn one_that_only_leaves_goes_on_until_it_is_ended() {
    let (drain, mut driver) = started(TIMING);
    drain.leave();
    drain.leave();
    assert_eq!(phases(&drain).await.last(), Some(&(5, Phase::Ended)));
    let goes_on = tokio::time::timeout(Duration::from_secs(3600), &mut driver).await;
    assert!(goes_on.is_err(), "leaving does not end the process");
    drain.shut_down();
    driver.await.expect("the driver returns");
}

#[tokio::test(start_paused = true)]
async fn shutting_down_twice_still_drains() {
    let (drain, _driver) = started(TIMING);
    drain.shut_down();
    drain.shut_down();
    assert_eq!(phases(&drain).await[1], (5, Phase::Draining));
}

#[tokio::test]
async fn signals_start_it() {
    let (drain, driver) = started(Timing { window: Duration::ZERO, deadline: Duration::from_secs(60) });
    drain.on_signals().expect("handlers can be set");
    let _stuck = drain.enter();
    let this = nix::unistd::Pid::this();
    nix::sys::signal::kill(this, nix::sys::signal::Signal::SIGTERM).expect("sent");
    drain.watch().reached(Phase::Draining).await;
    nix::sys::signal::kill(this, nix::sys::signal::Signal::SIGINT).expect("sent");
    driver.await.expect("the driver returns");
}
