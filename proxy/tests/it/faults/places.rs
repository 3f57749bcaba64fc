//! Where it happens, and to whom: before and behind retries, at the callee, by identity, by header.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_heal_what_is_behind_them_and_nothing_before() {
    let faults = |at: &str| {
        format!(
            "retry: {{attempts: 10, backoff: {{base: 1ms, max: 1ms}}}}, circuitBreaker: {{ejection: {{consecutiveErrors: 2}}}}, \
             fault: {{at: {at}, seed: 1, faults: [{{percent: 50, abort: {{httpStatus: 503}}}}]}}"
        )
    };
    let (app, asked) = counting().await;
    let mesh = Mesh::caller(app, app, &faults("CallerBehindRetries")).await;
    assert_eq!(statuses(&mesh, 60).await, [200; 60]);
    assert_eq!(asked.load(Ordering::Relaxed), 60, "an attempt that is hit is not sent");
    let hit = mesh.done("kind=\"abort\"").await;
    assert!(hit >= 30, "{hit} of about 120 attempts");
    let counted_apart = counted(&mesh.running, "outrigger_attempts_total", "reason=\"fault_abort\"").await;
    assert_eq!(counted_apart, hit);
    assert_eq!(counted(&mesh.running, "outrigger_ejections_total", "").await, 0, "nobody is blamed for it");

    let (app, asked) = counting().await;
    let mesh = Mesh::caller(app, app, &faults("Caller")).await;
    let failed = statuses(&mesh, 60).await.iter().filter(|status| **status == 503).count();
    assert!((10..=50).contains(&failed), "{failed} of 60 at 50 %");
    assert_eq!(asked.load(Ordering::Relaxed), 60 - failed);
    assert_eq!(
        counted(&mesh.running, "outrigger_attempts_total", "reason=\"fault_").await,
        0,
        "no attempt was hit"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_and_reset_attempts_are_what_their_conditions_name() {
    for (fault, on) in [("refuse: {}", "connect-failure"), ("abort: {reset: {}}", "reset")] {
        let (app, asked) = counting().await;
        let spec = |on: &str| {
            format!(
                "retry: {{attempts: 10, on: [{on}], backoff: {{base: 1ms, max: 1ms}}}}, \
                 fault: {{at: CallerBehindRetries, seed: 3, faults: [{{percent: 50, {fault}}}]}}"
            )
        };
        let mesh = Mesh::caller(app, app, &spec(on)).await;
        assert_eq!(statuses(&mesh, 30).await, [200; 30], "{fault}");
        assert_eq!(asked.load(Ordering::Relaxed), 30);
        assert!(mesh.done("").await > 5, "{fault}");
    }
    // Where no condition names it the caller is told.
    let (app, _) = counting().await;
    let spec = "retry: {on: [cancelled]}, fault: {at: CallerBehindRetries, faults: [{abort: {reset: {}}}]}";
    let answer = Mesh::caller(app, app, spec).await.client().await.get("http://s/", "s").await;
    assert_eq!((answer.status, answer.reason()), (503, "fault_reset"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callee_s_proxy_does_it_before_its_app() {
    let (app, asked) = counting().await;
    let spec = "fault: {at: Callee, faults: [{match: [{paths: [{value: /bad}]}], abort: {httpStatus: 503}}]}";
    let callee = Mesh::callee(app, app, spec).await;
    let mut client = callee.client().await;
    let answer = client.get("/bad", "s").await;
    assert_eq!((answer.status, answer.reason(), answer.body.as_str()), (503, "fault_abort", "fault_abort\n"));
    assert_eq!(client.get("/good", "s").await.status, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    // Callers do not blame the endpoint for it.
    let spec = "circuitBreaker: {ejection: {consecutiveErrors: 2}}, retry: {attempts: 0}";
    let caller = Mesh::caller(callee.http, callee.tcp, spec).await;
    for _ in 0..10 {
        assert_eq!(caller.client().await.get("http://s/bad", "s").await.status, 503);
    }
    assert_eq!(counted(&caller.running, "outrigger_ejections_total", "").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_known_by_its_own_identity() {
    let (app, _) = counting().await;
    for (account, status) in [("web", 418), ("other", 200)] {
        let spec = format!(
            "fault: {{faults: [{{from: [{{serviceAccounts: [{account}]}}], abort: {{httpStatus: 418}}}}]}}"
        );
        let mesh = Mesh::caller(app, app, &spec).await;
        assert_eq!(statuses(&mesh, 1).await, [status], "{account}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_ask_for_what_the_policy_allows() {
    let (app, _) = counting().await;
    let mesh = Mesh::caller(app, app, "fault: {faults: [{byHeaders: {maxDelay: 200ms, abort: true}}]}").await;
    let asking = |name: &str, value: &str| {
        Request::get("http://s/").header("host", "s").header(name, value).body(text("")).expect("valid")
    };
    let mut client = mesh.client().await;
    assert_eq!(client.get("http://s/", "s").await.status, 200, "nothing is asked for");
    let answer = Answer::read(client.send(asking("x-envoy-fault-abort-request", "555")).await).await;
    assert_eq!((answer.status, answer.reason()), (555, "fault_abort"));
    let begun = Instant::now();
    let answer = Answer::read(client.send(asking("x-envoy-fault-delay-request", "3600000")).await).await;
    assert_eq!(answer.status, 200, "an hour would have been too long");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let slow = Answer::read(client.send(asking("x-envoy-fault-throughput-response", "1")).await).await;
    assert_eq!(slow.status, 200);
    assert_eq!(mesh.done("kind=\"throttle\"").await, 0, "the policy says nothing of it");
}

/// What a request may carry that asks for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_headers_ask_in_vain() {
    let (app, _) = counting().await;
    let mesh = Mesh::caller(app, app, "timeout: {request: 20s}").await;
    let request = Request::get("http://s/").header("host", "s").header("x-envoy-fault-abort-request", "500");
    let answer = Answer::read(mesh.client().await.send(request.body(text("")).expect("valid")).await).await;
    assert_eq!(answer.status, 200);
}
