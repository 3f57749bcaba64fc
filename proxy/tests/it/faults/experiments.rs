//! How experiments end, and how far they go.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_experiment_that_does_harm_ends_by_itself() {
    let (app, _) = counting().await;
    // What is held up does not come in time: its failures are real ones.
    let spec = "timeout: {request: 100ms}, \
                fault: {stopIf: {successRateBelow: 80, minRequests: 10}, faults: [{percent: 60, delay: {fixed: 10s}}]}";
    let mesh = Mesh::caller(app, app, spec).await;
    let begun = Instant::now();
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = mesh.client().await;
        load.spawn(async move {
            let (mut good, mut failed) = (0, 0);
            // A row of successes that would be no accident while six of ten fail.
            while good < 30 {
                match client.get("http://s/", "s").await.status {
                    200 => good += 1,
                    _ => (good, failed) = (0, failed + 1),
                }
            }
            failed
        });
    }
    let mut failed = 0;
    while let Some(one) = within("the experiment's end", load.join_next()).await {
        failed += one.expect("an answer");
    }
    println!("over after {:?} and {failed} failures", begun.elapsed());
    assert!(failed >= 3, "{failed} failed before it ended");

    // An abort is no harm: it is made up.
    let spec = "fault: {stopIf: {successRateBelow: 80, minRequests: 10}, faults: [{percent: 90, abort: {httpStatus: 503}}]}";
    let mesh = Mesh::caller(app, app, spec).await;
    let failed = statuses(&mesh, 100).await.iter().filter(|status| **status == 503).count();
    assert!(failed >= 70, "{failed} of 100 at 90 %");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_experiment_ends_when_its_time_is_over() {
    let (app, _) = counting().await;
    let mesh = Mesh::caller(app, app, "fault: {activeFor: 1s, faults: [{abort: {httpStatus: 503}}]}").await;
    let mut client = mesh.client().await;
    assert_eq!(client.get("http://s/", "s").await.status, 503);
    within("its end", async {
        while client.get("http://s/", "s").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(statuses(&mesh, 20).await, [200; 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_has_its_hand_in_so_many_calls_at_a_time() {
    let (app, _) = counting().await;
    let mesh = Mesh::caller(app, app, "fault: {faults: [{atMost: 2, delay: {fixed: 1h}}]}").await;
    let mut held = Vec::new();
    for n in 1..=2 {
        let mut client = Http2::connect(mesh.http).await;
        held.push(tokio::spawn(async move { client.get("http://s/").await.status }));
        within("it is held up", async {
            while mesh.done("kind=\"delay\"").await < n {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    assert_eq!(statuses(&mesh, 10).await, [200; 10], "two are enough");
    assert_eq!(mesh.done("kind=\"delay\"").await, 2);
    // Whoever goes away makes room for another.
    held.pop().expect("two").abort();
    let mut client = Http2::connect(mesh.http).await;
    let mut another = tokio::spawn(async move {
        loop {
            client.get("http://s/").await;
        }
    });
    within("another is held up", async {
        while mesh.done("kind=\"delay\"").await < 3 {
            assert!(!another.is_finished(), "{:?}", (&mut another).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    another.abort();
}
