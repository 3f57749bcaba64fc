//! Whatever `changes_since` does not name resolves to an equal version: over random worlds and random changes to them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::ResourceKind;
use crate::registry::Changes;
use crate::resolve::Subscriber;

/// A generator small enough to be told by its seed (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

const NAMESPACES: [&str; 2] = ["n", "m"];
const SERVICES: [&str; 3] = ["a", "b", "c"];
const ADDRESSES: [&str; 4] = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"];
const CLUSTER_IPS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const PORTS: [&str; 2] = ["80", "90"];

/// One object of a random kind with a name from a small pool, so that objects replace and refer to each other.
fn object(rng: &mut Rng) -> (String, String) {
    let (namespace, other) = (rng.pick(&NAMESPACES), rng.pick(&NAMESPACES));
    let (service, backend) = (rng.pick(&SERVICES), rng.pick(&SERVICES));
    let (port, address) = (rng.pick(&PORTS), rng.pick(&ADDRESSES));
    let n = rng.below(2);
    let parent = match rng.below(3) {
        0 => format!("{{name: gate, namespace: {other}}}"),
        1 => format!("{{group: '', kind: Service, name: {service}, namespace: {other}, port: {port}}}"),
        _ => format!("{{group: '', kind: Service, name: {service}, namespace: {other}}}"),
    };
    let backends = format!("[{{name: {backend}, namespace: {other}, port: {port}, weight: {n}}}]");
    let gateway_api = "gateway.networking.k8s.io";
    let (version, kind, name, labels, rest) = match rng.below(13) {
        0 | 1 => {
            let backing = match rng.below(4) {
                0 => "selector: {app: x}".to_owned(),
                1 => "selector: {app: y}".to_owned(),
                2 if rng.chance(50) => "type: ExternalName, externalName: example.com".to_owned(),
                2 => format!("type: ExternalName, externalName: {backend}.{other}.svc.cluster.local"),
                _ => "type: ClusterIP".to_owned(),
            };
            let ip = if rng.chance(50) {
                format!(", clusterIP: {}", rng.pick(&CLUSTER_IPS))
            } else {
                String::new()
            };
            let near = rng.pick(&["", "", "trafficDistribution: PreferClose, "]);
            let target = rng.pick(&["80", "p", "90"]);
            let protocol = rng.pick(&["http", "tcp", "kubernetes.io/h2c"]);
            let spec = format!(
                "spec: {{{near}{backing}{ip}, ports: [{{name: p, port: {port}, targetPort: {target}, appProtocol: {protocol}}}]}}"
            );
            ("v1", "Service", service.to_owned(), String::new(), spec)
        }
        2 => {
            let ready = rng.chance(50);
            let rest = format!(
                "addressType: IPv4\nports: [{{name: p, port: {port}}}]\n\
                 endpoints: [{{addresses: [{address}], conditions: {{ready: {ready}}}}}]"
            );
            let labels = format!("kubernetes.io/service-name: {service}");
            ("discovery.k8s.io/v1", "EndpointSlice", format!("s{n}"), labels, rest)
        }
        3 | 4 => {
            let state = rng.pick(&["Ready", "NotReady", "Draining"]);
            let zone = rng.pick(&["", "zone: z1, ", "zone: z2, weight: 2, "]);
            let spec = format!(
                "spec: {{{zone}address: {address}, ports: [{{name: p, port: {port}}}]}}\nstatus: {{state: {state}}}"
            );
            let labels = format!("app: {}", rng.pick(&["x", "y"]));
            ("outrigger.dev/v1alpha1", "Workload", format!("w{n}"), labels, spec)
        }
        5 => {
            let host = rng.pick(&["", "hostnames: [a.example.com], "]);
            let spec = format!(
                "spec: {{parentRefs: [{parent}], {host}rules: [{{name: one, timeouts: {{request: {n}s}}, backendRefs: {backends}}}]}}"
            );
            ("gateway.networking.k8s.io/v1", "HTTPRoute", format!("r{n}"), String::new(), spec)
        }
        6 => {
            let spec = format!("spec: {{parentRefs: [{parent}], rules: [{{backendRefs: {backends}}}]}}");
            ("gateway.networking.k8s.io/v1", "GRPCRoute", format!("r{n}"), String::new(), spec)
        }
        7 => {
            let kind = rng.pick(&["TCPRoute", "TLSRoute"]);
            let spec = format!("spec: {{parentRefs: [{parent}], rules: [{{backendRefs: {backends}}}]}}");
            ("gateway.networking.k8s.io/v1alpha2", kind, format!("r{n}"), String::new(), spec)
        }
        8 => {
            let spec = format!(
                "spec:\n  gatewayClassName: outrigger\n  listeners:\n  \
                 - {{name: http, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}\n  \
                 - {{name: tcp, port: 90, protocol: TCP}}\n  \
                 - {{name: tls, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert, namespace: {other}}}]}}}}"
            );
            ("gateway.networking.k8s.io/v1", "Gateway", "gate".to_owned(), String::new(), spec)
        }
        9 => {
            let rest = format!(
                "type: kubernetes.io/tls\nstringData: {{tls.crt: '-----BEGIN CERTIFICATE-----{n}', \
                 tls.key: '-----BEGIN PRIVATE KEY-----'}}"
            );
            ("v1", "Secret", "cert".to_owned(), String::new(), rest)
        }
        10 => {
            let from = rng.pick(&["Gateway", "HTTPRoute", "TCPRoute"]);
            let to = rng.pick(&["Secret", "Service"]);
            let spec = format!(
                "spec: {{from: [{{group: {gateway_api}, kind: {from}, namespace: {other}}}], to: [{{group: '', kind: {to}}}]}}"
            );
            ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", format!("g{n}"), String::new(), spec)
        }
        11 => {
            let mode = rng.pick(&["Strict", "Permissive", "Disabled"]);
            let selector =
                rng.pick(&["", "selector: {matchLabels: {app: x}}, ", "selector: {matchLabels: {app: y}}, "]);
            let rule = rng.pick(&["{}", "{action: Deny}", "{from: [{namespaces: [n]}]}"]);
            let what = match rng.below(2) {
                0 => format!("mtls: {{ports: [{{port: {port}, mode: {mode}}}]}}"),
                _ => format!("rules: [{rule}]"),
            };
            let spec = format!("spec: {{{selector}{what}}}");
            ("outrigger.dev/v1alpha1", "AccessPolicy", format!("a{n}"), String::new(), spec)
        }
        _ if rng.chance(10) => {
            let mode = rng.pick(&["Strict", "Permissive"]);
            let spec = format!("spec: {{trustDomain: td{n}.local, mtls: {{mode: {mode}}}}}");
            let mesh = format!(
                "apiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: default}}\n{spec}\n"
            );
            return ("Mesh".to_owned(), mesh);
        }
        _ => {
            let target = match rng.below(6) {
                0 => format!("{{kind: Namespace, name: {other}}}"),
                1 => "{kind: HTTPRoute, name: r0}".to_owned(),
                2 => "{kind: HTTPRoute, name: r0, sectionName: one}".to_owned(),
                3 if rng.chance(20) => "{kind: Mesh, name: default}".to_owned(),
                4 => format!("{{kind: Service, name: {service}, namespace: {other}, port: {port}}}"),
                _ => format!("{{kind: Service, name: {service}, namespace: {other}}}"),
            };
            let section = match rng.below(4) {
                0 => "loadBalancing: {algorithm: Maglev, hash: [{header: x-a}]}".to_owned(),
                1 => "loadBalancing: {zones: PreferSameZone}".to_owned(),
                _ => format!("timeout: {{request: {n}s, connect: 2s}}"),
            };
            let spec = format!("spec: {{targetRefs: [{target}], {section}}}");
            ("outrigger.dev/v1alpha1", "TrafficPolicy", format!("p{n}"), String::new(), spec)
        }
    };
    // Endpoints of such Workloads follow from the mode of their ports.
    let annotations = if kind == "Workload" { "outrigger.dev/meshed: 'true'" } else { "" };
    let text = format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}, annotations: {{{annotations}}}}}\n{rest}\n"
    );
    (format!("{kind}/{namespace}/{name}"), text)
}

type World = BTreeMap<String, String>;

fn built(world: &World) -> Arc<Registry> {
    let text: Vec<_> = world.values().map(String::as_str).collect();
    registry(&text.join("---\n"))
}

/// Everything anyone could ask for in these worlds.
fn questions() -> Vec<(Subscriber, ResourceKind, String)> {
    let subscribers: Vec<_> = NAMESPACES
        .iter()
        .flat_map(|namespace| {
            [
                Subscriber::sidecar(namespace, "w0"),
                Subscriber::sidecar(namespace, "w1"),
                Subscriber::gateway(namespace, "gate"),
            ]
        })
        .collect();
    let mut names: BTreeSet<(ResourceKind, String)> = BTreeSet::new();
    names.insert((ResourceKind::Listener, "inbound".to_owned()));
    for namespace in NAMESPACES {
        names.insert((ResourceKind::Listener, format!("gateway|{namespace}/gate")));
        names.insert((ResourceKind::Secret, format!("{namespace}/cert")));
        for listener in ["80|http", "90|tcp", "443|tls"] {
            names.insert((ResourceKind::RouteTable, format!("gateway|{namespace}/gate|{listener}")));
        }
        for (service, port) in SERVICES.iter().flat_map(|service| PORTS.map(|port| (service, port))) {
            for host in [service.to_string(), format!("{service}.{namespace}.svc")] {
                names.insert((ResourceKind::Listener, format!("outbound|{host}:{port}")));
            }
            let host = format!("{service}.{namespace}.svc.cluster.local");
            names.insert((ResourceKind::RouteTable, format!("outbound|{port}|{host}")));
            names.insert((ResourceKind::Cluster, format!("outbound|{port}||{host}")));
            names.insert((ResourceKind::Endpoints, format!("outbound|{port}||{host}")));
        }
    }
    for (address, port) in ADDRESSES.iter().chain(&CLUSTER_IPS).flat_map(|a| PORTS.map(|port| (a, port))) {
        names.insert((ResourceKind::Listener, format!("outbound|{address}:{port}")));
        names.insert((ResourceKind::RouteTable, format!("outbound|{port}|{address}")));
        names.insert((ResourceKind::Cluster, format!("outbound|{port}||{address}")));
        names.insert((ResourceKind::Endpoints, format!("outbound|{port}||{address}")));
    }
    let all = |who: &Subscriber| {
        names.iter().map(|(kind, name)| (who.clone(), *kind, name.clone())).collect::<Vec<_>>()
    };
    subscribers.iter().flat_map(all).collect()
}

#[test]
fn what_is_not_named_resolves_to_an_equal_version() {
    let questions = questions();
    let (mut differing, mut named) = (0usize, 0usize);
    for seed in 0..50 {
        let mut rng = Rng(seed);
        let mut world: World = (0..5 + rng.below(20)).map(|_| object(&mut rng)).collect();
        let mut old = built(&world);
        for _ in 0..4 {
            for _ in 0..=rng.below(3) {
                if rng.chance(30) && !world.is_empty() {
                    let key = world.keys().nth(rng.below(world.len())).cloned().unwrap();
                    world.remove(&key);
                } else {
                    world.extend([object(&mut rng)]);
                }
            }
            let new = built(&world);
            let changes = new.changes_since(&old);
            for (who, kind, name) in &questions {
                let version = |registry: &Registry| {
                    registry.resolve(who, *kind, name).map(|resource| resource.version())
                };
                let differs = version(&old) != version(&new);
                let affected = changes.may_affect(who, *kind, name);
                assert!(affected || !differs, "seed {seed}: {who:?} {kind:?} {name}\n{changes:#?}");
                differing += usize::from(differs);
                named += usize::from(affected);
                endpoints_alone(&changes, *kind, differs, name);
            }
            old = new;
        }
    }
    // Both happen, and naming everything always would not be an answer.
    assert!(differing > 1_000 && named < 10 * differing, "{named} named, {differing} differ");
}

/// In a change of endpoints alone nothing of a Service differs but its endpoints.
fn endpoints_alone(changes: &Changes, kind: ResourceKind, differs: bool, name: &str) {
    let of_service = name.contains(".svc");
    if changes.is_endpoints_only() && differs && of_service {
        assert_eq!(kind, ResourceKind::Endpoints, "{name}");
        assert!(changes.clusters().any(|cluster| cluster.as_str() == name), "{name}: {changes:#?}");
    }
}

#[test]
fn comments_and_places_change_nothing() {
    let text = services(&["default/a", "default/b"]);
    let before = registry(&text);
    let moved = "# a comment\n\n".to_owned() + &text.replace("port: 80}]}", "port:   80}]} # http");
    let after = Store::new().update(&Files::from_iter([("other/place.yaml", moved.as_str())]));
    assert!(after.changes_since(&before).is_empty());
    let who = Subscriber::sidecar("default", "x");
    for (kind, name) in [
        (ResourceKind::Listener, "outbound|a:80"),
        (ResourceKind::RouteTable, "outbound|80|a.default.svc.cluster.local"),
        (ResourceKind::Cluster, "outbound|80||a.default.svc.cluster.local"),
    ] {
        let version = |registry: &Registry| registry.resolve(&who, kind, name).expect(name).version();
        assert_eq!(version(&before), version(&after), "{name}");
    }
}

#[test]
fn an_instance_that_changes_its_state_is_a_change_of_endpoints_alone() {
    let text = |state: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, ports: [{{port: 80}}]}}\n\
             ---\napiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w, labels: {{app: a}}}}\n\
             spec: {{address: {address}, ports: [{{port: 80}}]}}\nstatus: {{state: {state}}}\n"
        )
    };
    let ready = registry(&text("Ready", "10.1.0.1"));
    let draining = registry(&text("Draining", "10.1.0.1"));
    let changes = draining.changes_since(&ready);
    assert!(changes.is_endpoints_only() && !changes.is_empty());
    let clusters: Vec<_> = changes.clusters().map(ToString::to_string).collect();
    assert_eq!(clusters, ["outbound|80||a.default.svc.cluster.local"]);
    let who = Subscriber::sidecar("default", "w");
    assert!(!changes.may_affect(&who, ResourceKind::Listener, "inbound"));
    let moved = registry(&text("Ready", "10.1.0.2")).changes_since(&ready);
    assert!(moved.may_affect(&who, ResourceKind::Listener, "outbound|10.1.0.1:80"));
    assert!(moved.may_affect(&who, ResourceKind::Listener, "outbound|10.1.0.2:80"));
}
