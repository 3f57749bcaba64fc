//! The client against a control plane that does what the test says, over loopback.

mod server;

use std::collections::BTreeMap;
use std::path::Path;

use outrigger_config::model::{DestinationName, Egress, ResourceKind};
use outrigger_config::registry::{Registry, Store};
use outrigger_config::resolve::Subscriber;
use outrigger_config::source::Directory;
use outrigger_config::xds::{Role, pb};

use super::*;
use crate::discovery::tests::script::{cluster, endpoints, endpoints_of, inbound, name, service, table};
use crate::discovery::{Around, Own, run};
use crate::dns::Resolver;
use crate::mesh::{Lookup, Slot};
use server::{Asked, Server, resolved};

fn node() -> Node {
    Node::new(Role::Sidecar { namespace: "default".into(), workload: "productpage-1".into() }, None)
}

fn sidecar(addresses: Vec<Arc<str>>) -> Arc<Mesh> {
    let (mesh, asks) = Mesh::new();
    let dns = Resolver::system(tokio::runtime::Handle::current());
    let source = Source::control_plane(addresses, &node(), mesh.clone(), Dial { dns, secure: None })
        .expect("valid addresses");
    tokio::spawn(run(Own::Sidecar, mesh.clone(), asks, Around::nothing(), source, None));
    mesh
}

/// A sidecar that has its own listener, and the stream it got it by.
async fn started() -> (Arc<Mesh>, Server, Asked) {
    let mut server = Server::start().await;
    let mesh = sidecar(vec![server.address()]);
    let mut asked = server.stream().await;
    asked.expect(ResourceKind::Listener, &["inbound"]).await;
    asked.say(vec![inbound(&[(9080, "127.0.0.1:8080")], Egress::AllowAny)]).await;
    mesh.inbound().wait_for(Option::is_some).await.expect("configured");
    (mesh, server, asked)
}

fn ask(mesh: &Arc<Mesh>, host: &str) -> tokio::task::JoinHandle<Lookup> {
    let (mesh, name) = (mesh.clone(), name(host));
    tokio::spawn(async move { mesh.destination(&name).await })
}

async fn known(mesh: &Arc<Mesh>, asked: &mut Asked, host: &str, addresses: &[&str]) -> Arc<Slot> {
    let lookup = ask(mesh, host);
    asked.serve(&service(host, addresses), 4).await;
    match lookup.await.expect("no panic") {
        Lookup::Known(slot) => slot,
        other => panic!("{host}: {other:?}"),
    }
}

#[tokio::test]
async fn it_asks_by_name_and_for_nothing_else() {
    let mut server = Server::start().await;
    let mesh = sidecar(vec![server.address()]);
    let mut asked = server.stream().await;
    let first = asked.request().await;
    assert_eq!(first.type_url, names::type_url(ResourceKind::Listener));
    assert_eq!(first.resource_names_subscribe, ["inbound"]);
    assert_eq!(Node::from_message(&first.node.expect("a node")), Ok(node()));

    let lookup = ask(&mesh, "reviews");
    let seen = asked.serve(&service("reviews", &["10.0.0.1:80"]), 4).await;
    assert!(matches!(lookup.await.expect("no panic"), Lookup::Known(_)));
    assert_eq!(seen[0], (ResourceKind::Listener, "outbound|reviews:80".into()));
    assert_eq!(seen[3], (ResourceKind::Endpoints, "outbound|80||reviews".into()));
}

#[tokio::test]
async fn an_answer_is_acknowledged_when_it_is_in_force() {
    let (mesh, _server, mut asked) = started().await;
    let slot = known(&mesh, &mut asked, "reviews", &["10.0.0.1:80"]).await;
    asked.say(vec![endpoints("reviews", &["10.0.0.2:80"])]).await;
    assert_eq!(endpoints_of(&slot), ["10.0.0.2:80"], "acknowledged, so in force");
}

#[tokio::test]
async fn the_good_resources_of_a_response_apply_and_the_nack_names_the_bad() {
    let (mesh, _server, mut asked) = started().await;
    let slot = known(&mesh, &mut asked, "reviews", &["10.0.0.1:80"]).await;
    let other = known(&mesh, &mut asked, "details", &["10.0.0.2:80"]).await;
    let timeout = || slot.current().unwrap().tcp.iter().next().unwrap().cluster.settings().connect_timeout;
    let before = timeout();

    let Resource::Cluster(mut good) = cluster("details") else { unreachable!() };
    good.connect_timeout = Duration::from_millis(250);
    let mut any = xds::encode(&cluster("reviews"));
    let mut bad: pb::cluster::Cluster = prost::Message::decode(&any.value[..]).expect("our own");
    bad.lrs_report_endpoint_metrics = vec!["any".into()];
    bad.connect_timeout = Some(pb::Duration { seconds: 2, nanos: 0 });
    any.value = prost::Message::encode_to_vec(&bad);
    let good = server::wire(&Resource::Cluster(good));
    let bad = wire::Resource {
        name: "outbound|80||reviews".into(),
        version: "bad".into(),
        resource: Some(any),
        ..Default::default()
    };
    let answer = asked.send(ResourceKind::Cluster, vec![bad, good], vec![]).await;
    let refused = refusal::from_status(&answer.error_detail.expect("a NACK"), std::iter::empty());
    let [refused] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((&*refused.name, &*refused.path), ("outbound|80||reviews", "lrs_report_endpoint_metrics"));
    let applied = other.current().unwrap().tcp.iter().next().unwrap().cluster.settings().connect_timeout;
    assert_eq!(applied, Duration::from_millis(250));
    assert_eq!(timeout(), before, "what was before the bad one stays");
}

#[tokio::test]
async fn resources_that_are_not_what_they_say_are_refused() {
    let (mesh, _server, mut asked) = started().await;
    let _slot = known(&mesh, &mut asked, "reviews", &["10.0.0.1:80"]).await;
    let misnamed = wire::Resource { name: "outbound|80||other".into(), ..server::wire(&cluster("reviews")) };
    let of_other_kind = server::wire(&endpoints("reviews", &[]));
    let empty = wire::Resource { name: "outbound|80||reviews".into(), ..Default::default() };
    let secret = outrigger_config::model::Secret {
        name: "default/web".into(),
        certificate_chain: "nothing".into(),
        private_key: "nothing".into(),
    };
    for (kind, resource) in [
        (ResourceKind::Cluster, misnamed),
        (ResourceKind::Cluster, of_other_kind),
        (ResourceKind::Cluster, empty),
        (ResourceKind::Secret, server::wire(&Resource::Secret(secret))),
    ] {
        let name = resource.name.clone();
        let answer = asked.send(kind, vec![resource], vec![]).await;
        let status = answer.error_detail.unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(status.message.contains(&name), "{status:?}");
        assert!(!status.message.contains("nothing"), "no part of a key is told: {status:?}");
    }
}

#[tokio::test]
async fn a_name_nobody_knows_is_answered_at_once() {
    let (mesh, _server, mut asked) = started().await;
    let lookup = ask(&mesh, "nobody");
    asked.expect(ResourceKind::Listener, &["outbound|nobody:80"]).await;
    asked.send(ResourceKind::Listener, vec![], vec!["outbound|nobody:80".into()]).await;
    assert!(matches!(lookup.await.expect("no panic"), Lookup::Unknown));
}

#[tokio::test]
async fn a_new_stream_states_what_is_held() {
    let (mesh, mut server, mut asked) = started().await;
    let _slot = known(&mesh, &mut asked, "reviews", &["10.0.0.1:80"]).await;
    let lookup = ask(&mesh, "nobody");
    asked.expect(ResourceKind::Listener, &["outbound|nobody:80"]).await;
    asked.send(ResourceKind::Listener, vec![], vec!["outbound|nobody:80".into()]).await;
    lookup.await.expect("no panic");
    drop(asked);

    let mut again = server.stream().await;
    let mut requests = BTreeMap::new();
    for _ in 0..4 {
        let request = again.request().await;
        requests.insert(names::kind(&request.type_url).expect("a kind"), request);
    }
    let mut listeners = requests[&ResourceKind::Listener].clone();
    listeners.resource_names_subscribe.sort();
    assert_eq!(listeners.resource_names_subscribe, ["inbound", "outbound|nobody:80", "outbound|reviews:80"]);
    let mut stated: Vec<_> = listeners.initial_resource_versions.into_keys().collect();
    stated.sort();
    assert_eq!(stated, ["inbound", "outbound|reviews:80"], "of what does not exist there is no version");
    let table = table("reviews", &[("reviews", 1)]);
    let stated = &requests[&ResourceKind::RouteTable].initial_resource_versions[&table.name()];
    assert_eq!(*stated, table.version().to_string(), "as the control plane called it");
}

#[tokio::test]
async fn a_control_plane_that_dies_costs_nothing_and_is_found_when_it_returns() {
    let (mesh, mut server, mut asked) = started().await;
    let slot = known(&mesh, &mut asked, "reviews", &["10.0.0.1:80"]).await;
    drop(asked);
    server.kill().await;
    // Once it counts as away, nobody waits for it any more.
    loop {
        let begun = tokio::time::Instant::now();
        let lookup = mesh.destination(&name("details")).await;
        assert!(matches!(lookup, Lookup::Unavailable), "{lookup:?}");
        if begun.elapsed() < crate::mesh::FIRST_ANSWER / 2 {
            break;
        }
    }
    assert_eq!(endpoints_of(&slot), ["10.0.0.1:80"]);
    assert!(matches!(mesh.destination(&name("reviews")).await, Lookup::Known(_)));
    assert!(!mesh.inventory().lock().link.connected);

    server.restart().await;
    let mut asked = server.stream().await;
    let mut all = service("reviews", &["10.0.0.9:80"]);
    all.extend(service("details", &["10.0.0.2:80"]));
    all.push(inbound(&[(9080, "127.0.0.1:8080")], Egress::AllowAny));
    let count = all.len();
    asked.serve(&all, count).await;
    assert_eq!(endpoints_of(&slot), ["10.0.0.9:80"]);
    assert!(
        matches!(mesh.destination(&name("details")).await, Lookup::Known(_)),
        "what was asked meanwhile, too"
    );
}

#[tokio::test]
async fn of_several_control_planes_one_that_answers_is_asked() {
    let gone = Server::start().await;
    let dead = gone.address();
    let mut gone = gone;
    gone.kill().await;
    for _ in 0..3 {
        let mut server = Server::start().await;
        let _mesh = sidecar(vec![dead.clone(), server.address()]);
        server.stream().await.expect(ResourceKind::Listener, &["inbound"]).await;
    }
}

#[tokio::test]
async fn addresses_are_host_and_port() {
    let (mesh, _asks) = Mesh::new();
    for address in ["control", "control:port", "http://control:15010", "control:15010/path", ":15010", ""] {
        let dns = Resolver::system(tokio::runtime::Handle::current());
        let result =
            Source::control_plane(vec![address.into()], &node(), mesh.clone(), Dial { dns, secure: None });
        assert!(result.is_err(), "{address}");
    }
}

/// The same mesh, once resolved by the proxy and once by a control plane.
#[tokio::test]
async fn both_sources_give_the_same_state() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/bookinfo");
    let instances = tempfile::tempdir().expect("a directory");
    std::fs::write(instances.path().join("instances.yaml"), INSTANCES).expect("written");
    let manifests = vec![example, instances.path().to_owned()];
    let registry = Store::new().update(&Directory::new(manifests.clone()).read());
    let who = Subscriber::sidecar("default", "productpage-7");

    let (from_files, asks) = Mesh::new();
    let source = Source::files(manifests, who.clone()).expect("the example is there");
    tokio::spawn(run(Own::Sidecar, from_files.clone(), asks, Around::nothing(), source, None));

    let mut server = Server::start().await;
    let (from_control, asks) = Mesh::new();
    let node =
        Node::new(Role::Sidecar { namespace: "default".into(), workload: "productpage-7".into() }, None);
    let dns = Resolver::system(tokio::runtime::Handle::current());
    let source = Source::control_plane(
        vec![server.address()],
        &node,
        from_control.clone(),
        Dial { dns, secure: None },
    );
    tokio::spawn(run(
        Own::Sidecar,
        from_control.clone(),
        asks,
        Around::nothing(),
        source.expect("valid"),
        None,
    ));
    let asked = server.stream().await;
    tokio::spawn(resolved(asked, registry, who.clone()));

    for mesh in [&from_files, &from_control] {
        mesh.inbound().wait_for(Option::is_some).await.expect("configured");
        for (host, there) in
            [("reviews", true), ("ratings.default.svc.cluster.local", true), ("nobody", false)]
        {
            let lookup = mesh.destination(&DestinationName::new(host, 9080).expect("valid")).await;
            assert_eq!(matches!(lookup, Lookup::Known(_)), there, "{host}: {lookup:?}");
        }
    }
    let state = |mesh: &Mesh| -> Vec<String> {
        let content = mesh.inventory().lock();
        content.resources.iter().map(|(key, known)| format!("{key:?} {known:?}")).collect()
    };
    let (a, b) = (state(&from_files), state(&from_control));
    assert!(a.len() > 8, "{a:#?}");
    assert_eq!(a, b);
}

const INSTANCES: &str = "
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: productpage-7, labels: {app: productpage, version: v1}}
spec: {address: 127.0.0.7, ports: [{name: http, port: 9080, appPort: 8080}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: reviews-7, labels: {app: reviews, version: v1}}
spec: {address: 127.0.0.8, ports: [{name: http, port: 9080, appPort: 8080}]}
";
