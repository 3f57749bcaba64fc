//! Callers that prove who they are: sidecars with certificates of one authority before clients of every protocol, and a callee that judges them by it.

use outrigger_config::model::Protocol;
use tokio::time::Instant;

use super::super::identity::pki::{Authority, Files};
use super::super::identity::strict::{curl, peers_missing, s_client};
use super::super::identity::{CALLEE, caller_as, has_identity, meshed};
use super::*;

/// Two service accounts of the callee's namespace, and one of another that is called like the first.
const IDS: [&str; 3] = [
    "spiffe://cluster.local/ns/default/sa/page",
    "spiffe://cluster.local/ns/default/sa/batch",
    "spiffe://cluster.local/ns/lab/sa/page",
];

/// A callee with an identity, and a sidecar for each caller of [`IDS`].
struct World {
    callee: Callee,
    callers: Vec<Running>,
}

impl World {
    async fn start(policy: &str) -> Self {
        let authority = Authority::new("root");
        let files = Files::new();
        files.write(&authority.leaf(CALLEE), &[&authority]);
        let callee =
            Callee::with_identity(Some(files.provision()), many_things().await, echoing().await, policy)
                .await;
        has_identity(&callee.running).await;
        let mut callers = Vec::new();
        for id in IDS {
            let files = Files::new();
            files.write(&authority.leaf(id), &[&authority]);
            let http = Service::new("w:80", &[callee.http]);
            let tcp = Service::new("t:81", &[callee.tcp]).protocol(Protocol::Tcp);
            let names = [http.name.clone(), tcp.name.clone()];
            let resources = [meshed(&http, CALLEE), meshed(&tcp, CALLEE)].concat();
            let caller = caller_as(&files, resources, |setup| {
                setup.service_addresses = names.map(|name| ((LOOPBACK, 0).into(), name)).into();
            });
            callers.push(caller.await);
        }
        Self { callee, callers }
    }

    /// Through a caller's sidecar.
    fn through(&self, caller: usize) -> Way {
        let addresses = &self.callers[caller].service_addresses;
        Way { from: FRIEND, http: addresses[0], tcp: addresses[1] }
    }

    /// The three that prove who they are, and one that does not.
    fn ways(&self) -> [Way; 4] {
        [self.through(0), self.through(1), self.through(2), self.callee.from(FRIEND)]
    }

    async fn denials(&self, labels: &[&str]) -> u64 {
        self.callee.metric("outrigger_access_denied_total", labels).await
    }

    /// Replaces the policies and waits until the proxy has them.
    async fn replace(&self, policy: &str) {
        let mut published = self.callee.running.shared.mesh.inbound();
        write(&self.callee.manifests, policy);
        within("the new policy", published.changed()).await.expect("the proxy runs");
    }
}

/// What becomes of a call by each protocol: HTTP/1, HTTP/2, gRPC, bytes. Whoever is refused learns one word.
async fn calls(way: Way) -> [bool; 4] {
    let judged = |answer: &Answer| match answer.status {
        200 => true,
        _ => {
            assert_eq!((answer.status, answer.reason()), (403, "access_denied"), "{answer:?}");
            assert_eq!(answer.body, "access_denied\n", "nothing but the word");
            assert!(!answer.header("proxy-status").contains("details"), "{answer:?}");
            false
        }
    };
    let http1 = judged(&Http1::over(way.http().await).await.get("/x", "w").await);
    let mut client = Http2::over(way.http().await).await;
    let http2 = judged(&client.get("http://w/x").await);
    let (send, body) = frames();
    let request =
        Request::post("http://w/pkg.Chat/Talk").header("content-type", "application/grpc").body(body);
    let mut response = client.send(request.expect("valid")).await;
    let grpc = match response.headers().get("grpc-status") {
        // The stream is open, and what is said comes back.
        None => {
            send.send(Frame::data("hello".into())).await.expect("it is read");
            let frame = within("the frame back", response.body_mut().frame()).await;
            frame.expect("not the end").expect("no reset").into_data().expect("data") == "hello"
        }
        Some(status) => {
            assert_eq!((response.status().as_u16(), status.as_bytes()), (200, &b"7"[..]));
            let answer = Answer::read(response).await;
            assert_eq!(answer.header("grpc-message"), "access_denied");
            assert!(answer.body.is_empty() && answer.trailers.is_none(), "trailers only: {answer:?}");
            false
        }
    };
    let spoken = async {
        // The reset of one who is refused may be there before the client knows that it is connected.
        let mut stream = try_connect(way.from, way.tcp).await?;
        stream.write_all(b"hello").await?;
        let mut back = [0; 5];
        stream.read_exact(&mut back).await
    };
    let bytes = match within("bytes or a reset", spoken).await {
        Ok(_) => true,
        refused => {
            assert!(is_reset(refused), "not an orderly end");
            false
        }
    };
    [http1, http2, grpc, bytes]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_a_caller_proves_to_be_decides_over_every_protocol() {
    let world = World::start(&policy("mtls: {mode: Permissive}")).await;
    // What the rule says, the rule that refuses, and who gets in: page and batch of the callee's namespace, page of lab, and one without identity.
    let rows = [
        ("from: [{serviceAccounts: [page]}]", "none", [true, false, false, false]),
        ("from: [{serviceAccounts: [default/page, lab/page]}]", "none", [true, false, true, false]),
        ("from: [{namespaces: [lab]}]", "none", [false, false, true, false]),
        ("from: [{notNamespaces: [lab]}]", "none", [true, true, false, false]),
        ("from: [{trustDomains: [cluster.local]}]", "none", [true, true, true, false]),
        ("from: [{trustDomains: [elsewhere.test]}]", "none", [false; 4]),
        ("from: [{identities: ['spiffe://cluster.local/ns/*/sa/page']}]", "none", [true, false, true, false]),
        (
            "from: [{identities: ['spiffe://cluster.local/ns/default/**']}]",
            "none",
            [true, true, false, false],
        ),
        ("action: Deny, from: [{serviceAccounts: [batch]}]", "row", [true, false, true, true]),
        ("action: Deny, from: [{notNamespaces: [default]}]", "row", [true, true, false, false]),
        (
            "action: Deny, from: [{identities: ['spiffe://cluster.local/**']}]",
            "row",
            [false, false, false, true],
        ),
    ];
    for (n, (rule, refusing, allowed)) in rows.into_iter().enumerate() {
        let spec = format!("rules: [{{name: row, {rule}}}]");
        world.replace(&policy(&spec).replace("{name: p}", &format!("{{name: p{n}}}"))).await;
        for (who, (way, allowed)) in world.ways().into_iter().zip(allowed).enumerate() {
            assert_eq!(calls(way).await, [allowed; 4], "{rule}: by {who}");
        }
        let refused = 4 * allowed.iter().filter(|allowed| !**allowed).count() as u64;
        let policy = format!("policy=\"default/p{n}\"");
        assert_eq!(world.denials(&[&policy]).await, refused, "{rule}");
        let rule_label = format!("rule=\"{refusing}\"");
        assert_eq!(world.denials(&[&policy, &rule_label, "mode=\"enforce\""]).await, refused, "{rule}");
    }
    world.replace(&policy("mtls: {mode: Permissive}")).await;
    for way in world.ways() {
        assert_eq!(calls(way).await, [true; 4], "nobody is refused where no rule is");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_counts_proven_callers_and_refuses_none() {
    let rules = "rules: [{name: page, from: [{serviceAccounts: [page]}]}]";
    let world = World::start(&policy(&format!("mode: Audit, {rules}"))).await;
    for way in world.ways() {
        assert_eq!(calls(way).await, [true; 4]);
    }
    let audited = ["policy=\"default/p\"", "rule=\"none\"", "mode=\"audit\""];
    assert_eq!(world.denials(&audited).await, 12, "four calls of each that the rule does not name");
    assert_eq!(world.denials(&[]).await, 12, "and nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_caller_loses_everything_it_has_open_and_the_others_nothing() {
    let world = World::start(&policy("rules: [{from: [{trustDomains: [cluster.local]}]}]")).await;
    let mut page = OpenCalls::start(world.through(0)).await;
    let mut batch = OpenCalls::start(world.through(1)).await;
    let lab = OpenCalls::start(world.through(2)).await;

    let begun = Instant::now();
    write(&world.callee.manifests, &policy("rules: [{from: [{namespaces: [default]}]}]"));
    lab.end().await;
    eprintln!("a namespace: everything open was reset after {:?} (promised: 5 s)", begun.elapsed());
    page.works().await;
    batch.works().await;

    let begun = Instant::now();
    let deny = "rules: [{from: [{namespaces: [default]}]}, {name: no-batch, action: Deny, from: [{serviceAccounts: [batch]}]}]";
    write(&world.callee.manifests, &policy(deny));
    batch.end().await;
    eprintln!("a service account: everything open was reset after {:?} (promised: 5 s)", begun.elapsed());
    page.works().await;
    // Two streams, an answer on its way, one that was waited for, a tunnel and a connection.
    assert_eq!(world.denials(&["rule=\"no-batch\""]).await, 6);
    assert_eq!(calls(world.through(1)).await, [false; 4]);
    assert_eq!(calls(world.through(0)).await, [true; 4]);
}

/// Connections of a caller that may do nothing any more are closed, but never under a request: it is answered there or on the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_caller_that_goes_on_asking_is_refused_and_never_cut_off() {
    let world = World::start(&policy("rules: [{from: [{trustDomains: [cluster.local]}]}]")).await;
    let lab = world.through(2);
    let mut http2 = Http2::over(lab.http().await).await;
    assert_eq!(http2.get("http://w/x").await.status, 200);
    let before = world.callee.metric("outrigger_connections_opened_total", &["tls=\"mutual\""]).await;
    world.replace(&policy("rules: [{from: [{namespaces: [default]}]}]")).await;
    let opened =
        async || world.callee.metric("outrigger_connections_opened_total", &["tls=\"mutual\""]).await;
    let mut asked = 0;
    within("another connection", async {
        while opened().await == before || asked < 200 {
            let request = Request::post("http://w/x").body(text("")).expect("valid");
            let answer = Answer::read(http2.send(request).await).await;
            assert_eq!((answer.status, answer.reason()), (403, "access_denied"), "{answer:?}");
            asked += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_permissive_to_strict_nothing_ends_that_is_mtls() {
    let world = World::start(&policy("mtls: {mode: Permissive}")).await;
    let mut proven = OpenCalls::start(world.through(0)).await;
    let plaintext = OpenCalls::start(world.callee.from(FRIEND)).await;
    let begun = Instant::now();
    write(&world.callee.manifests, &policy("mtls: {mode: Strict}"));
    plaintext.end().await;
    eprintln!("plaintext had ended after {:?} (promised: 5 s)", begun.elapsed());
    proven.works().await;
    assert!(bytes_are_reset(FRIEND, world.callee.tcp).await, "and none begins anew");
    let answer = Http1::over(world.callee.from(FRIEND).http().await).await.get("/x", "w").await;
    assert_eq!((answer.status, answer.reason()), (403, "mtls_required"));
}

/// A certificate as it should be opens the connection; what may be done with it is another question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_and_curl_with_the_right_identity_are_refused_a_forbidden_path() {
    if peers_missing(&["openssl", "curl"]) {
        return;
    }
    let spec = "mtls: {mode: Strict}, \
        rules: [{name: page-may-read, from: [{serviceAccounts: [page]}], to: [{paths: [{value: /open}]}]}]";
    let authority = Authority::new("root");
    let files = |id: &str| {
        let files = Files::new();
        files.write(&authority.leaf(id), &[&authority]);
        files
    };
    let own = files(CALLEE);
    let (app, bytes) = (many_things().await, echoing().await);
    let callee = Callee::with_identity(Some(own.provision()), app, bytes, &policy(spec)).await;
    has_identity(&callee.running).await;
    let at = callee.http;
    // Forbidden are another path, one that leads there, and, to another caller, all of them.
    let rows = [
        (0, "/open/x", "200", ""),
        (0, "/closed", "403", "access_denied"),
        (0, "/open/../closed", "403", "access_denied"),
        (0, "/open/%2e%2e/closed", "403", "access_denied"),
        (0, "/open/..%2fclosed", "403", "ambiguous_path"),
        (1, "/open/x", "403", "access_denied"),
    ];
    for (caller, path, status, reason) in rows {
        let files = files(IDS[caller]);
        let both = tokio::task::spawn_blocking(move || {
            let (certificate, key) = (files.path("cert.pem"), files.path("key.pem"));
            [
                s_client(at, path, Some(&certificate), Some(&key)),
                curl(&format!("https://{at}{path}"), Some(&certificate), Some(&key)),
            ]
        });
        for said in both.await.expect("both run").map(|said| said.to_lowercase()) {
            assert!(said.contains(&format!("http/1.1 {status}")), "{path}: {said}");
            assert_eq!(said.contains("proxy-status"), !reason.is_empty(), "{path}: {said}");
            assert!(said.contains(reason), "{path}: {said}");
            assert!(!said.contains("page-may-read") && !said.contains("default/p"), "not whose rule: {said}");
        }
    }
    let denied = "outrigger_access_denied_total";
    assert_eq!(callee.metric(denied, &["rule=\"none\""]).await, 8);
    assert_eq!(callee.metric(denied, &["rule=\"ambiguous-path\""]).await, 2);
}
