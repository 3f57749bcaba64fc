//! Certificates and roots change while traffic flows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use outrigger_config::model::{MtlsMode, Protocol};

use super::super::harness::*;
use super::*;

/// Asks until told to stop: each time over a new connection to the endpoint (HTTP/1, closed after each answer), and over one that stays (HTTP/2).
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(at: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = {
            let (stop, answered) = (stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut client = Http1::connect(at).await;
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.get("http://closing:80/", "closing:80").await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let two = {
            let (stop, answered) = (stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut client = Http2::connect(at).await;
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.get("http://reviews:9080/").await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        Self { stop, answered, tasks: vec![one, two] }
    }

    /// Until `more` requests were answered from now on.
    async fn goes_on(&self, more: u64) {
        let want = self.answered.load(Ordering::SeqCst) + more;
        until("requests go on", || {
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "the load failed");
            self.answered.load(Ordering::SeqCst) >= want
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            within("the load's end", task).await.expect("no request failed");
        }
    }
}

/// Two sidecars; `reviews` keeps its connections, `closing` is a port of its own whose every connection ends after one answer.
async fn two(caller: &Files, callee: &Files) -> (Running, Vec<Running>) {
    let (keeping, at) = callee_as(callee, MtlsMode::Strict, Protocol::Http, echo().await).await;
    let (closing, closing_at) = callee_as(callee, MtlsMode::Strict, Protocol::Http, counting().await.0).await;
    let mut resources = meshed(&Service::new("reviews:9080", &[at]), CALLEE);
    resources.extend(never_kept(meshed(&Service::new("closing:80", &[closing_at]), CALLEE)));
    (caller_as(caller, resources, |_| {}).await, vec![keeping, closing])
}

/// Connections to it carry one request each.
fn never_kept(mut resources: Vec<Resource>) -> Vec<Resource> {
    for resource in &mut resources {
        if let Resource::Cluster(cluster) = resource {
            cluster.idle_timeout = std::time::Duration::ZERO;
        }
    }
    resources
}

fn serial(running: &Running) -> String {
    running.shared.identity.svid().map(|svid| svid.leaf.serial.to_string()).unwrap_or_default()
}

fn resumed(running: &Running) -> u64 {
    running.shared.identity.edges.all().iter().map(|(_, seen)| seen.resumed).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leaf_on_either_side_costs_no_request_and_no_session() {
    let (authority, caller_files, callee_files) = mesh();
    let (caller, callees) = two(&caller_files, &callee_files).await;
    let load = Load::start(caller.outbound[0]);
    load.goes_on(50).await;
    until("sessions are resumed", || resumed(&caller) > 0).await;
    for _ in 0..2 {
        let before = (serial(&caller), serial(&callees[1]));
        caller_files.write(&authority.leaf(CALLER), &[&authority]);
        callee_files.write(&authority.leaf(CALLEE), &[&authority]);
        until("new certificates", || serial(&caller) != before.0 && serial(&callees[1]) != before.1).await;
        let (full, kept) = full_and_resumed(&caller);
        load.goes_on(50).await;
        let (now_full, now_kept) = full_and_resumed(&caller);
        assert!(now_kept > kept, "sessions are resumed as before");
        assert_eq!(now_full, full, "and no handshake had to be whole");
    }
    load.end().await;
    assert_eq!(resumed(&callees[1]), resumed(&caller));
}

fn full_and_resumed(running: &Running) -> (u64, u64) {
    let all: u64 = running.shared.identity.edges.all().iter().map(|(_, seen)| seen.connections).sum();
    (all - resumed(running), resumed(running))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_replaced_without_a_failed_request() {
    let (old, caller_files, callee_files) = mesh();
    let new = Authority::new("new root");
    let (caller, callees) = two(&caller_files, &callee_files).await;
    let load = Load::start(caller.outbound[0]);
    load.goes_on(20).await;
    let all = || std::iter::once(&caller).chain(&callees);
    let believing = |count: usize| {
        all().all(|proxy| proxy.shared.identity.trust_bundle().is_some_and(|bundle| bundle.len() == count))
    };
    // The new root is believed before anyone shows a certificate of it, the old one until nobody does any more.
    caller_files.roots(&[&old, &new]);
    callee_files.roots(&[&old, &new]);
    until("both roots", || believing(2)).await;
    load.goes_on(20).await;
    let before: Vec<_> = all().map(serial).collect();
    callee_files.write(&new.leaf(CALLEE), &[&old, &new]);
    load.goes_on(20).await;
    caller_files.write(&new.leaf(CALLER), &[&old, &new]);
    until("certificates of the new root", || {
        all().map(serial).zip(&before).all(|(now, before)| now != *before)
    })
    .await;
    load.goes_on(20).await;
    caller_files.roots(&[&new]);
    callee_files.roots(&[&new]);
    until("one root", || believing(1)).await;
    load.goes_on(20).await;
    load.end().await;
    let issuer = caller.shared.identity.svid().expect("one").leaf.issuer.clone();
    assert!(issuer.contains("new root"), "{issuer}");
}
