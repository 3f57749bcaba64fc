use std::collections::BTreeMap;
use std::pin::pin;

use outrigger_config::model::{
    self, AccessAction, AccessMode, AccessPolicy, AccessRule, Among, Mtls, MtlsMode, Origin, PeerMatch,
    ProxySettings, SpiffeId, WorkloadRef,
};

use super::*;
use crate::telemetry::{Direction, Telemetry};

struct World {
    telemetry: Arc<Telemetry>,
    inbound: watch::Sender<Option<Arc<Inbound>>>,
    access: Rc<Access>,
}

/// A rule for the callers of a namespace.
fn rule(action: AccessAction, namespace: &str) -> AccessRule {
    let from = PeerMatch {
        home: vec!["td".into()],
        namespaces: Among { is: vec![namespace.into()], is_not: Vec::new() },
        ..PeerMatch::default()
    };
    AccessRule {
        name: namespace.into(),
        action,
        from: vec![from],
        to: Vec::new(),
        origin: Origin::new("AccessPolicy", "default", "p", "spec.rules[0]"),
    }
}

impl World {
    fn new() -> Self {
        let telemetry = Telemetry::new(1);
        let inbound = watch::Sender::new(None);
        let access = Access::new(inbound.subscribe(), telemetry::Worker(0));
        Self { telemetry, inbound, access }
    }

    fn set(&self, mode: AccessMode, rules: Vec<AccessRule>, mtls: MtlsMode) {
        let origin = Origin::new("AccessPolicy", "default", "p", "");
        let policies = if rules.is_empty() { Vec::new() } else { vec![AccessPolicy { mode, rules, origin }] };
        let workload =
            WorkloadRef { namespace: "default".into(), name: "w".into(), service_account: "default".into() };
        let model = model::Inbound {
            workload: workload.clone(),
            ports: Vec::new(),
            mtls: Mtls { mode: mtls, origin: None },
            access: Arc::new(model::Access { policies, ..model::Access::default() }),
            settings: ProxySettings::default(),
        };
        self.inbound.send_replace(Some(Arc::new(Inbound {
            workload,
            ports: BTreeMap::new(),
            mtls: model.mtls.clone(),
            access: Arc::new(Ports::new(&model, &self.telemetry.metrics)),
            settings: model.settings.clone(),
        })));
    }

    fn record(&self) -> Record {
        let service = self.telemetry.metrics.service(Direction::Inbound, None);
        Record::tcp(&self.telemetry, telemetry::Worker(0), &service)
    }

    fn bytes(&self, peer: &Peer) -> Result<Admitted, Failure> {
        self.access.admit_bytes(peer, 80, &mut self.record())
    }

    fn request(&self, peer: &Peer, path: &'static str) -> Result<Admitted, Failure> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static(path);
        self.access.admit(peer, 80, &request, &mut self.record())
    }
}

fn peer(namespace: Option<&str>) -> Peer {
    let identity = namespace.map(|namespace| SpiffeId::new("td", namespace, "x").expect("an id"));
    Peer { identity, address: "10.0.0.9:1000".parse().expect("an address") }
}

fn reason(judged: Result<Admitted, Failure>) -> Option<Reason> {
    judged.err().map(|failure| failure.reason)
}

#[test]
fn nobody_is_let_in_before_the_rules_are_known() {
    let world = World::new();
    assert_eq!(reason(world.bytes(&peer(Some("a")))), Some(Reason::ConfigUnavailable));
    world.set(AccessMode::Enforce, Vec::new(), MtlsMode::Permissive);
    assert_eq!(reason(world.bytes(&peer(None))), None);
}

#[tokio::test]
async fn who_was_let_in_is_judged_again_by_who_it_is() {
    let world = World::new();
    world.set(AccessMode::Enforce, Vec::new(), MtlsMode::Permissive);
    let (a, b, nobody) = (peer(Some("a")), peer(Some("b")), peer(None));
    let open: Vec<_> = [&a, &b, &nobody]
        .into_iter()
        .map(|peer| {
            let connection = world.access.watch(peer, 80);
            [world.bytes(peer).unwrap(), world.request(peer, "/x").unwrap(), connection]
        })
        .collect();
    let following = world.access.clone().follow();
    let changed = async {
        world.set(AccessMode::Enforce, vec![rule(AccessAction::Allow, "a")], MtlsMode::Permissive);
        for admitted in open[1].iter().chain(&open[2]) {
            assert_eq!(admitted.revoked().await.reason, Reason::AccessDenied);
        }
        for admitted in &open[0] {
            assert!(futures_util::poll!(std::pin::pin!(admitted.revoked())).is_pending());
        }
    };
    tokio::select! {
        () = following => panic!("nobody tells of changes any more"),
        () = changed => {}
    }
    assert_eq!(reason(world.request(&nobody, "/x")), Some(Reason::AccessDenied));
    drop(open);
    assert_eq!(world.access.open.borrow().len(), 0, "what ended is forgotten");
}

#[tokio::test]
async fn what_becomes_strict_ends_for_those_who_prove_nothing() {
    let world = World::new();
    world.set(AccessMode::Enforce, Vec::new(), MtlsMode::Permissive);
    let (proven, plaintext) = (world.bytes(&peer(Some("a"))).unwrap(), world.bytes(&peer(None)).unwrap());
    world.set(AccessMode::Enforce, Vec::new(), MtlsMode::Strict);
    assert_eq!(reason(world.bytes(&peer(None))), Some(Reason::MtlsRequired));
    assert_eq!(plaintext.revoked().await.reason, Reason::MtlsRequired);
    assert!(futures_util::poll!(std::pin::pin!(proven.revoked())).is_pending());
}

#[tokio::test]
async fn work_goes_on_until_it_may_not() {
    let world = World::new();
    world.set(AccessMode::Enforce, Vec::new(), MtlsMode::Permissive);
    let admitted = world.request(&peer(Some("a")), "/x").unwrap();
    let done = Admitted::bound(Some(&admitted), pin!(async { Ok(7) })).await;
    assert_eq!(done, Ok(7));
    let forever = pin!(std::future::pending::<Result<(), _>>());
    let mut waiting = pin!(Admitted::bound(Some(&admitted), forever));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    world.set(AccessMode::Enforce, vec![rule(AccessAction::Deny, "a")], MtlsMode::Permissive);
    world.access.refresh();
    assert_eq!(waiting.await.unwrap_err().reason, Reason::AccessDenied);
}

#[test]
fn an_audited_policy_ends_nothing() {
    let world = World::new();
    world.set(AccessMode::Audit, vec![rule(AccessAction::Deny, "a")], MtlsMode::Permissive);
    let admitted = world.bytes(&peer(Some("a"))).unwrap();
    world.set(AccessMode::Audit, vec![rule(AccessAction::Allow, "b")], MtlsMode::Permissive);
    world.access.refresh();
    assert!(world.access.open.borrow()[admitted.key].revoked.is_none());
}
