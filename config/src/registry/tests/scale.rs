use super::*;
use crate::model::ResourceKind;
use crate::resolve::Subscriber;

/// A mesh of 5,000 services with two instances each. No limits in time here, since other work shares the machine; `--nocapture` prints
/// how long each step took.
#[test]
fn five_thousand_services() {
    const SERVICES: usize = 5_000;
    let mut files = Files::default();
    for group in 0..SERVICES / 100 {
        let mut text = String::new();
        for n in group * 100..(group + 1) * 100 {
            text += &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: n{group}}}\n\
                 spec: {{selector: {{app: s{n}, tier: all}}, clusterIP: 10.{}.{}.{}, ports: [{{name: http, port: 80}}]}}\n---\n",
                n / 65536,
                n / 256 % 256,
                n % 256
            );
            for i in 0..2 {
                text += &format!(
                    "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\n\
                     metadata: {{name: s{n}-{i}, namespace: n{group}, labels: {{app: s{n}, tier: all}}}}\n\
                     spec: {{address: 127.{}.{}.{}, ports: [{{port: 80}}]}}\n---\n",
                    64 + i,
                    n / 256,
                    n % 256
                );
            }
        }
        files.insert(format!("{group}.yaml"), crate::source::Content::Text(text.into()));
    }
    let mut store = Store::new();
    let registry = timed("parse and build", || store.update(&files));
    assert_eq!(registry.findings(), [""; 0]);
    assert_eq!(registry.services().count(), SERVICES);
    let objects = registry.objects().map(|(key, object)| (key.clone(), object.clone())).collect();
    timed("build alone", || Registry::new(objects, vec![]));

    let who = Subscriber::sidecar("n7", "s700-0");
    timed("resolve 1,000 destinations whole", || {
        for n in 0..1_000 {
            let host = format!("s{n}.n{}.svc.cluster.local", n / 100);
            for (kind, name) in [
                (ResourceKind::Listener, format!("outbound|{host}:80")),
                (ResourceKind::RouteTable, format!("outbound|80|{host}")),
                (ResourceKind::Cluster, format!("outbound|80||{host}")),
                (ResourceKind::Endpoints, format!("outbound|80||{host}")),
            ] {
                registry.resolve(&who, kind, &name).expect("all of them exist").version();
            }
        }
    });

    let Some(crate::source::Content::Text(text)) = files.get("7.yaml") else { panic!() };
    let text = text.replacen("ports: [{port: 80}]}", "ports: [{port: 80}]}\nstatus: {state: Draining}", 1);
    files.insert("7.yaml", crate::source::Content::Text(text.into()));
    let next = timed("take over a change of one instance", || store.update(&files));
    let changes = timed("compare", || next.changes_since(&registry));
    assert!(changes.is_endpoints_only());
    assert_eq!(changes.clusters().count(), 1, "of {SERVICES}");
}

#[expect(clippy::disallowed_types, reason = "prints how long pure work took; decides nothing")]
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    let done = work();
    println!("{what}: {:?}", begun.elapsed());
    done
}
