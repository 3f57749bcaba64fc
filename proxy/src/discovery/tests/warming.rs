//! When something received takes effect.

use super::*;

#[tokio::test(start_paused = true)]
async fn new_routes_wait_for_the_endpoints_they_need() {
    let mut script = Script::start();
    script.connect().await;
    let slot = script.known("reviews", &["10.0.0.1:80"]).await;
    let before = slot.current().expect("known");
    script.say(vec![table("reviews", &[("reviews", 9), ("canary", 1)])]).await;
    script.wants("outbound|80||canary").await;
    script.say(vec![cluster("canary")]).await;
    assert!(Arc::ptr_eq(&before.routes, &slot.current().expect("known").routes), "not yet: no endpoints");
    script.say(vec![endpoints("canary", &["10.0.0.9:80"])]).await;
    assert_eq!(backends_of(&slot), ["outbound|80||reviews", "outbound|80||canary"]);
}

#[tokio::test(start_paused = true)]
async fn they_do_not_wait_longer_than_five_seconds() {
    let mut script = Script::start();
    script.connect().await;
    let slot = script.known("reviews", &["10.0.0.1:80"]).await;
    script.say(vec![table("reviews", &[("canary", 1)])]).await;
    sleep(Duration::from_millis(4_900)).await;
    assert_eq!(backends_of(&slot), ["outbound|80||reviews"]);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(backends_of(&slot), ["outbound|80||canary"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_force_gets_updates_until_it_is_replaced() {
    let mut script = Script::start();
    script.connect().await;
    let slot = script.known("reviews", &["10.0.0.1:80"]).await;
    let mut moved = service("reviews", &[]);
    moved.retain(|resource| matches!(resource.kind(), ResourceKind::Listener));
    // The new listener and table do not name the cluster any more.
    script.say(vec![listener_to("reviews", "canary"), table("canary", &[("canary", 1)])]).await;
    script.say(vec![table("canary", &[("canary", 1)])]).await;
    script.say(vec![endpoints("reviews", &["10.0.0.2:80"])]).await;
    assert_eq!(endpoints_of(&slot), ["10.0.0.2:80"], "still in force, so still followed");
    script.say(vec![cluster("canary"), endpoints("canary", &["10.0.0.9:80"])]).await;
    script.say(vec![cluster("canary")]).await;
    script.say(vec![endpoints("canary", &["10.0.0.9:80"])]).await;
    assert_eq!(endpoints_of(&slot), ["10.0.0.9:80"]);
    let wanted = script.wanted();
    assert!(
        !wanted.iter().any(|(_, name)| name.contains("reviews") && !name.contains("outbound|reviews:80")),
        "{wanted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_routes_wait_a_little_less_than_their_caller() {
    let mut script = Script::start();
    script.connect().await;
    let asked = script.ask("reviews");
    script.wants("outbound|reviews:80").await;
    let mut all = service("reviews", &[]);
    all.retain(|resource| resource.kind() != ResourceKind::Endpoints);
    script.say(all).await;
    let begun = Instant::now();
    let Lookup::Known(slot) = asked.await.unwrap() else { panic!("not known") };
    assert!(begun.elapsed() < crate::mesh::FIRST_ANSWER);
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let cluster = slot.current().unwrap().tcp.iter().next().unwrap().cluster.clone();
    assert!(!cluster.has_endpoints(), "a request waits for them where it is routed");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_exist_keeps_nobody_waiting() {
    let mut script = Script::start();
    script.connect().await;
    let slot = script.known("reviews", &["10.0.0.1:80"]).await;
    script.say(vec![table("reviews", &[("nobody", 1)])]).await;
    script.wants("outbound|80||nobody").await;
    script.absent(ResourceKind::Cluster, "outbound|80||nobody").await;
    assert_eq!(backends_of(&slot), ["outbound|80||nobody"]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_taken_away_keeps_its_endpoints_until_its_routes_had_time_to_follow() {
    let mut script = Script::start();
    script.connect().await;
    let slot = script.known("reviews", &["10.0.0.1:80"]).await;
    script.absent(ResourceKind::Cluster, "outbound|80||reviews").await;
    assert_eq!(endpoints_of(&slot), ["10.0.0.1:80"]);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(endpoints_of(&slot), [""; 0]);
    // It comes back before anyone noticed.
    script.say(vec![cluster("reviews"), endpoints("reviews", &["10.0.0.1:80"])]).await;
    script.say(vec![endpoints("reviews", &["10.0.0.1:80"])]).await;
    assert_eq!(endpoints_of(&slot), ["10.0.0.1:80"]);
}
