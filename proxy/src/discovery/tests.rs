//! Apply, told by a scripted source on a paused clock.

pub(super) mod script;
mod warming;

use std::time::SystemTime;

use outrigger_config::model::{DestinationName, Egress, Health};
use tokio::time::{advance, sleep};

use super::*;
use crate::mesh::{Destination, Lookup, Slot};
use crate::route::{Action, Target};
use script::*;

#[tokio::test(start_paused = true)]
async fn a_destination_is_asked_for_on_first_use_and_shared() {
    let mut script = Script::start();
    script.connect().await;
    let (a, b) = (script.ask("reviews"), script.ask("reviews"));
    script.wants("outbound|reviews:80").await;
    script.say(service("reviews", &["10.0.0.1:80"])).await;
    let (Lookup::Known(a), Lookup::Known(b)) = (a.await.unwrap(), b.await.unwrap()) else {
        panic!("not known")
    };
    assert!(Arc::ptr_eq(&a, &b));
    assert_eq!(endpoints_of(&a), ["10.0.0.1:80"]);
    // Known now: no wait, no question.
    let begun = Instant::now();
    assert!(matches!(script.lookup("reviews").await, Lookup::Known(c) if Arc::ptr_eq(&a, &c)));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_known_not_to_and_may_come() {
    let mut script = Script::start();
    script.connect().await;
    let asked = script.ask("nobody");
    script.wants("outbound|nobody:80").await;
    script.absent(ResourceKind::Listener, "outbound|nobody:80").await;
    assert!(matches!(asked.await.unwrap(), Lookup::Unknown));
    assert!(
        script.wanted().contains(&(ResourceKind::Listener, "outbound|nobody:80".into())),
        "the negative stays"
    );
    script.say(service("nobody", &["10.0.0.1:80"])).await;
    assert!(matches!(script.lookup("nobody").await, Lookup::Known(_)));
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_awaited_for_a_second() {
    let mut script = Script::start();
    script.connect().await;
    let begun = Instant::now();
    assert!(matches!(script.lookup("slow").await, Lookup::Unavailable));
    assert_eq!(begun.elapsed(), crate::mesh::FIRST_ANSWER);
    // The source is there and may answer any time: the next caller waits again, and gets it.
    let again = script.ask("slow");
    script.say(service("slow", &["10.0.0.1:80"])).await;
    assert!(matches!(again.await.unwrap(), Lookup::Known(_)));
}

#[tokio::test(start_paused = true)]
async fn while_the_source_is_away_nobody_waits_for_it() {
    let mut script = Script::start();
    script.connect().await;
    script.known("reviews", &["10.0.0.1:80"]).await;
    script.disconnect().await;
    sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    assert!(matches!(script.lookup("new").await, Lookup::Unavailable));
    assert!(matches!(script.lookup("new").await, Lookup::Unavailable));
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    assert!(matches!(script.lookup("reviews").await, Lookup::Known(_)), "what is known stays");
    // And when it is back, it is asked.
    script.connect().await;
    let asked = script.ask("new");
    script.say(service("new", &["10.0.0.1:80"])).await;
    assert!(matches!(asked.await.unwrap(), Lookup::Known(_)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_sees_updates_through_the_slot_it_holds() {
    let mut script = Script::start();
    script.connect().await;
    let slot = script.known("reviews", &["10.0.0.1:80"]).await;
    let before = slot.current().expect("known");
    script.say(vec![endpoints("reviews", &["10.0.0.2:80"])]).await;
    assert_eq!(endpoints_of(&slot), ["10.0.0.2:80"]);
    assert!(
        Arc::ptr_eq(&before, &slot.current().expect("known")),
        "endpoints do not replace the destination"
    );
    script.say(vec![table("reviews", &[("reviews", 1), ("reviews", 1)])]).await;
    assert!(!Arc::ptr_eq(&before, &slot.current().expect("known")));
    script.absent(ResourceKind::Listener, "outbound|reviews:80").await;
    assert!(slot.current().is_none(), "a Service that was deleted takes no new exchanges");
    assert!(matches!(script.lookup("reviews").await, Lookup::Unknown));
}

#[tokio::test(start_paused = true)]
async fn aliases_share_routes_and_clusters() {
    let mut script = Script::start();
    script.connect().await;
    let short = script.known("reviews", &["10.0.0.1:80"]).await;
    let asked = script.ask("10.96.0.1");
    script.wants("outbound|10.96.0.1:80").await;
    script.say(vec![listener("10.96.0.1", "reviews")]).await;
    let Lookup::Known(address) = asked.await.unwrap() else { panic!("not known") };
    let (short, address) = (short.current().expect("known"), address.current().expect("known"));
    assert!(Arc::ptr_eq(&short.routes, &address.routes));
    let cluster = |d: &Destination| d.tcp.iter().next().expect("one").cluster.clone();
    assert!(Arc::ptr_eq(&cluster(&short), &cluster(&address)));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_expires_and_only_while_connected() {
    let mut script = Script::start();
    script.connect().await;
    drop(script.known("reviews", &["10.0.0.1:80"]).await);
    let held = script.known("details", &["10.0.0.2:80"]).await;
    script.disconnect().await;
    advance(Duration::from_secs(3600)).await;
    assert!(matches!(script.lookup("reviews").await, Lookup::Known(_)), "kept while the source is away");
    script.connect().await;
    sleep(Duration::from_secs(660)).await;
    let wanted = script.wanted();
    assert!(!wanted.iter().any(|(_, name)| name.contains("reviews")), "{wanted:?}");
    assert!(
        wanted.contains(&(ResourceKind::Endpoints, "outbound|80||details".into())),
        "a connection holds it"
    );
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_expired_destination_is_used_while_the_source_is_away() {
    let mut script = Script::start();
    script.connect().await;
    drop(script.known("reviews", &["10.0.0.1:80"]).await);
    sleep(Duration::from_secs(660)).await;
    assert!(script.mesh.inventory().lock().resources.is_empty());
    script.disconnect().await;
    sleep(Duration::from_secs(1)).await;
    let Lookup::Known(slot) = script.lookup("reviews").await else { panic!("not known") };
    assert!(slot.current().expect("known").stale);
    assert_eq!(endpoints_of(&slot), ["10.0.0.1:80"]);
    // The source comes back and says the same: no longer stale.
    script.connect().await;
    script.say(service("reviews", &["10.0.0.1:80"])).await;
    assert!(!slot.current().expect("known").stale);
}

#[tokio::test(start_paused = true)]
async fn what_is_shelved_is_forgotten_after_a_day() {
    let mut script = Script::start();
    script.connect().await;
    drop(script.known("reviews", &["10.0.0.1:80"]).await);
    sleep(Duration::from_secs(660)).await;
    let mut content = script.mesh.inventory().lock();
    assert_eq!(content.shelf.len(), 1);
    shelf::expire(&mut content, SystemTime::now() + shelf::KEPT - Duration::from_secs(60));
    assert_eq!(content.shelf.len(), 1);
    shelf::expire(&mut content, SystemTime::now() + shelf::KEPT);
    assert!(content.shelf.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_most_names_are_two_thousand() {
    let mut script = Script::start();
    script.connect().await;
    for i in 0..2_100 {
        let asked = script.ask(&format!("s{i}"));
        script.wants(&format!("outbound|s{i}:80")).await;
        script.absent(ResourceKind::Listener, &format!("outbound|s{i}:80")).await;
        assert!(matches!(asked.await.unwrap(), Lookup::Unknown), "{i}");
        if i == 0 {
            advance(Duration::from_secs(1)).await;
        }
    }
    assert_eq!(script.wanted().len(), 2_001, "and the sidecar's own");
    assert!(!script.wanted().contains(&(ResourceKind::Listener, "outbound|s0:80".into())));
}

#[tokio::test(start_paused = true)]
async fn the_workloads_own_ports() {
    let mut script = Script::start();
    let mut watch = script.mesh.inbound();
    assert!(!script.mesh.is_configured());
    script.connect().await;
    script.say(vec![inbound(&[(9080, "127.0.0.1:8080"), (9090, "127.0.0.1:8090")], Egress::AllowAny)]).await;
    let first = watch.wait_for(Option::is_some).await.unwrap().clone().expect("some");
    assert!(script.mesh.is_configured());
    let kept = first.ports[&9080].destination.clone();
    let gone = first.ports[&9090].destination.clone();
    assert_eq!(endpoints_of(&kept), ["127.0.0.1:8080"]);
    let cluster = kept.current().unwrap().tcp.iter().next().unwrap().cluster.clone();

    script.say(vec![inbound(&[(9080, "127.0.0.1:8081")], Egress::RegistryOnly)]).await;
    watch.changed().await.unwrap();
    let second = watch.borrow_and_update().clone().expect("some");
    assert!(
        Arc::ptr_eq(&kept, &second.ports[&9080].destination),
        "connections go on with the slot they hold"
    );
    assert_eq!(endpoints_of(&kept), ["127.0.0.1:8081"]);
    let now = kept.current().unwrap().tcp.iter().next().unwrap().cluster.clone();
    assert!(Arc::ptr_eq(&cluster, &now), "and with the pool of its cluster");
    assert!(gone.current().is_none());
    assert_eq!(script.mesh.settings().egress, Egress::RegistryOnly);
    // A workload the source does not know any more is served as it was.
    script.absent(ResourceKind::Listener, "inbound").await;
    assert!(script.mesh.is_configured() && kept.current().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_changes() {
    let (mesh, asks) = Mesh::new();
    let mut resources = service("reviews", &["10.0.0.1:80"]);
    resources.push(inbound(&[], Egress::AllowAny));
    tokio::spawn(run(Own::Sidecar, mesh.clone(), asks, Around::nothing(), Source::fixed(resources), None));
    assert!(matches!(mesh.destination(&name("reviews")).await, Lookup::Known(_)));
    assert!(matches!(mesh.destination(&name("nobody")).await, Lookup::Unknown));
}
