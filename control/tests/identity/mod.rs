//! The port where proxies say who they are: certificates, and discovery for those entitled to it. Real TLS clients.

mod client;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use outrigger_config::model::{Resource, ResourceKind, TrustBundle};
use outrigger_config::xds::pb;
use outrigger_control::ca::{Authority, CaStore, Directory, State, x509};
use rcgen::{KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::plane::{Client, get, sidecar, soon};
use client::{Asked, Secured, caller, csr};

const SECRET: ResourceKind = ResourceKind::Secret;

fn mesh(lifetime: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: default}}\nspec:\n  trustDomain: example.org\n  \
         certificate: {{lifetime: {lifetime}}}\n"
    )
}

#[tokio::test]
async fn a_proxy_gets_a_certificate_for_its_own_identity_and_nothing_else() {
    let mesh = Secured::start(&[("mesh.yaml", &mesh("1h"))]).await;
    let reviews = caller("reviews-v1", "bookinfo-reviews");
    let key = KeyPair::generate().unwrap();
    let now = SystemTime::now();
    let chain = mesh.ask(&Asked::by(&mesh.token(&reviews), &csr(&key, &[]))).await.unwrap();
    assert_eq!(chain.len(), 2, "leaf and intermediate; the root is the proxy's own");
    let ders: Vec<_> = chain.iter().map(|pem| outrigger_control::ca::certificate(pem).unwrap()).collect();
    x509::verify(&ders[0], &ders[1..], &mesh.roots(), now).unwrap();

    let leaf = x509::parse(&ders[0]).unwrap();
    let names: Vec<_> = leaf
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["URI(spiffe://example.org/ns/default/sa/bookinfo-reviews)"]);
    assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
    assert!(!leaf.is_ca());
    let clock = Duration::from_secs(60);
    let (begin, end) = (x509::not_before(&ders[0]).unwrap(), x509::not_after(&ders[0]).unwrap());
    assert!(begin <= now - Duration::from_secs(240), "a clock behind ours may verify it");
    let hour = Duration::from_secs(3_600);
    assert!((now + hour - clock..now + hour + clock).contains(&end), "{end:?}");

    // The last word is somebody else's.
    let dir = TempDir::new().unwrap();
    let file = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
    file("leaf.pem", &chain[0]);
    file("chain.pem", &chain[1]);
    std::fs::copy(mesh.ca().join("roots.pem"), dir.path().join("roots.pem")).unwrap();
    for purpose in ["sslclient", "sslserver"] {
        let verdict = openssl(
            dir.path(),
            &[
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                "roots.pem",
                "-untrusted",
                "chain.pem",
                "leaf.pem",
            ],
        );
        assert_eq!(verdict.trim(), "leaf.pem: OK");
    }
    let text = openssl(dir.path(), &["x509", "-noout", "-text", "-in", "leaf.pem"]);
    for line in [
        "X509v3 Subject Alternative Name: critical",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "CA:FALSE",
        "Digital Signature",
        "ASN1 OID: prime256v1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

fn openssl(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").current_dir(dir).args(arguments).output();
    let output = output.expect("openssl is needed for this test (Debian: openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn lives_are_as_long_as_was_asked_within_what_the_mesh_says() {
    let mesh = Secured::start(&[("mesh.yaml", &mesh("30m"))]).await;
    let key = KeyPair::generate().unwrap();
    for (asked, want) in [(0, 1_800), (60, 60), (1, 10), (-5, 1_800), (i64::MAX, 1_800)] {
        let token = mesh.token(&caller("reviews-v1", "reviews"));
        let now = SystemTime::now();
        let chain = mesh.ask(&Asked { life: asked, ..Asked::by(&token, &csr(&key, &[])) }).await.unwrap();
        let end = x509::not_after(&outrigger_control::ca::certificate(&chain[0]).unwrap()).unwrap();
        let life = end.duration_since(now).unwrap().as_secs();
        assert!((want - 2..want + 30).contains(&life), "asked for {asked} s, got {life} s");
    }
}

#[tokio::test]
async fn the_ca_refuses_whoever_is_not_entitled_and_says_why() {
    let mesh = Secured::start(&[("mesh.yaml", &mesh("1h"))]).await;
    let reviews = caller("reviews-v1", "reviews");
    let hour = Duration::from_secs(3_600);
    let signed = |audience, at| mesh.signer.sign_for(&reviews, audience, at, hour).unwrap();
    let now = SystemTime::now();
    let good = mesh.token(&reviews);
    let control = client::Caller {
        role: outrigger_config::xds::Role::Sidecar {
            namespace: "outrigger-system".into(),
            workload: "impostor".into(),
        },
        service_account: "outrigger-control".into(),
    };
    let key = KeyPair::generate().unwrap();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let plain = csr(&key, &[]);
    let own = uri("spiffe://example.org/ns/default/sa/reviews");
    let others = csr(&key, &[uri("spiffe://example.org/ns/default/sa/ratings")]);
    let both = csr(&key, &[own.clone(), uri("spiffe://example.org/ns/default/sa/ratings")]);
    let host = csr(&key, &[own.clone(), SanType::DnsName("reviews".try_into().unwrap())]);
    let impersonating = pb::Struct {
        fields: [(
            "ImpersonatedIdentity".into(),
            pb::core_value::string("spiffe://example.org/ns/default/sa/x"),
        )]
        .into(),
    };
    let rows = [
        ("no token", Asked { token: None, ..Asked::by(&good, &plain) }, Code::Unauthenticated, "no_token"),
        ("nonsense", Asked::by("secret", &plain), Code::Unauthenticated, "token_invalid"),
        (
            "wrong audience",
            Asked::by(&signed("istio-ca", now), &plain),
            Code::Unauthenticated,
            "token_audience",
        ),
        (
            "expired token",
            Asked::by(&signed(client::AUDIENCE, now - 2 * hour), &plain),
            Code::Unauthenticated,
            "token_expired",
        ),
        ("another's service account", Asked::by(&good, &others), Code::PermissionDenied, "other_identity"),
        ("one name more", Asked::by(&good, &both), Code::PermissionDenied, "other_identity"),
        ("a host name more", Asked::by(&good, &host), Code::PermissionDenied, "csr_asks_more"),
        (
            "the control plane's",
            Asked::by(&mesh.token(&control), &plain),
            Code::PermissionDenied,
            "reserved_identity",
        ),
        ("no CSR", Asked::by(&good, "hello"), Code::InvalidArgument, "csr_unreadable"),
        ("a CSR too long", Asked::by(&good, &"x".repeat(20_000)), Code::InvalidArgument, "csr_unreadable"),
        (
            "on behalf of another",
            Asked { metadata: Some(impersonating), ..Asked::by(&good, &plain) },
            Code::InvalidArgument,
            "metadata",
        ),
    ];
    for (what, asked, code, reason) in rows {
        let status = mesh.ask(&asked).await.expect_err(what);
        assert_eq!((status.code(), reason_of(&status)), (code, reason), "{what}: {status}");
    }
    // Not even read.
    let status = mesh.ask(&Asked::by(&good, &"x".repeat(100_000))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    // The last of it: what is right is still given.
    mesh.ask(&Asked::by(&good, &csr(&key, &[own]))).await.unwrap();
    let issued = mesh.plane.metric("outrigger_control_certificates_total{result=\"issued\"}").await;
    let refused = mesh.plane.metric("outrigger_control_certificates_total{result=\"other_identity\"}").await;
    assert_eq!((issued, refused), (Some(1.0), Some(2.0)));
}

/// The word before the colon.
fn reason_of(status: &Status) -> &str {
    status.message().split(':').next().unwrap_or_default()
}

#[tokio::test]
async fn one_proxy_that_asks_all_the_time_is_slowed_down_and_others_are_not() {
    let mesh = Secured::start(&[]).await;
    let key = KeyPair::generate().unwrap();
    let token = mesh.token(&caller("reviews-v1", "reviews"));
    let asked = Asked::by(&token, &csr(&key, &[]));
    let mut refused = None;
    // One a second is given back; a minute is more than this takes on any machine that runs it.
    for _ in 0..200 {
        if let Err(status) = mesh.ask(&asked).await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("two hundred at once are too many");
    assert_eq!((status.code(), reason_of(&status)), (Code::ResourceExhausted, "too_many"));
    let token = mesh.token(&caller("reviews-v2", "reviews"));
    mesh.ask(&Asked::by(&token, &csr(&key, &[]))).await.unwrap();
}

#[tokio::test]
async fn discovery_over_tls_is_for_the_proxy_its_token_names() {
    let mesh = Secured::start(&[("mesh.yaml", &mesh("1h"))]).await;
    let token = mesh.token(&caller("reviews-v1", "reviews"));
    let opened = Client::saying(mesh.channel().await, sidecar("reviews-v1"), None).await;
    let status = opened.err().expect("nobody without a token");
    assert_eq!((status.code(), reason_of(&status)), (Code::Unauthenticated, "no_token"));

    let opened = Client::saying(mesh.channel().await, sidecar("ratings-v1"), Some(&token)).await;
    let mut client = opened.unwrap();
    client.subscribe(SECRET, &[TrustBundle::NAME]).await;
    let status = client.end().await.expect_err("not as another");
    assert_eq!((status.code(), reason_of(&status)), (Code::PermissionDenied, "other_workload"));

    let opened = Client::saying(mesh.channel().await, sidecar("reviews-v1"), Some(&token)).await;
    let mut client = opened.unwrap();
    let response = client.ask(SECRET, TrustBundle::NAME).await;
    let Resource::TrustBundle(bundle) = response.only() else { panic!("{response:?}") };
    assert_eq!(&**bundle.trust_domain(), "example.org");
    let roots: Vec<_> =
        bundle.roots().iter().map(|root| CertificateDer::from(root.der()).into_owned()).collect();
    assert_eq!(roots, mesh.roots());
}

#[tokio::test]
async fn the_port_speaks_tls_1_3_as_the_control_plane_and_nothing_else() {
    let mesh = Secured::start(&[("mesh.yaml", &mesh("1h"))]).await;
    let tls = mesh.handshake(&[&rustls::version::TLS13]).await.unwrap();
    let session = tls.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    let group = session.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768));
    let leaf = &session.peer_certificates().unwrap()[0];
    let leaf = x509::parse(leaf).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    let names: Vec<_> = names.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names[0], "URI(spiffe://example.org/ns/outrigger-system/sa/outrigger-control)");

    assert!(mesh.handshake(&[&rustls::version::TLS12]).await.is_err());
    let mut plain = TcpStream::connect(mesh.address()).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert, or a reset: nothing of HTTP.
    let _ = soon("the end", plain.read_to_end(&mut answer)).await;
    assert!(answer.len() <= 7, "{answer:?}");
    // Whoever says nothing keeps nobody waiting.
    let _silent: Vec<_> =
        futures_util::future::join_all((0..50).map(|_| TcpStream::connect(mesh.address()))).await;
    soon("a handshake beside silent ones", mesh.handshake(&[&rustls::version::TLS13])).await.unwrap();
}

#[tokio::test]
async fn a_root_is_replaced_under_a_running_control_plane() {
    let mesh = Secured::start(&[("mesh.yaml", &mesh("1h"))]).await;
    let store = Directory::open(&mesh.ca()).unwrap();
    let token = mesh.token(&caller("reviews-v1", "reviews"));
    let mut client = Client::saying(mesh.channel().await, sidecar("reviews-v1"), Some(&token)).await.unwrap();
    let old = bundle(client.ask(SECRET, TrustBundle::NAME).await.only());
    assert_eq!(old.len(), 1);

    // As `outrigger ca rotate-root` does.
    let now = SystemTime::now();
    let stored = store.load().await.unwrap().unwrap();
    let added = stored.state.add(Authority::make(now).unwrap(), Duration::ZERO, true, now).unwrap();
    assert!(store.replace(Some(&stored.revision), &added).await.unwrap());
    let response = client.hear().await;
    let both = bundle(response.only());
    assert_eq!(both.len(), 2);

    // It has been told and has not said that it took it: the old root goes on signing.
    let signs = async |roots: Vec<CertificateDer<'static>>| {
        let key = KeyPair::generate().unwrap();
        let chain = mesh.ask(&Asked::by(&token, &csr(&key, &[]))).await.unwrap();
        let ders: Vec<_> = chain.iter().map(|pem| outrigger_control::ca::certificate(pem).unwrap()).collect();
        x509::verify(&ders[0], &ders[1..], &roots, SystemTime::now()).is_ok()
    };
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(signs(old.clone()).await);
    client.ack(&response).await;
    let new: Vec<_> = both.iter().filter(|root| !old.contains(root)).cloned().collect();
    soon("the new root's signature", async {
        while store.load().await.unwrap().unwrap().state.signing().unwrap().id
            == stored.state.signing().unwrap().id
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    soon("a leaf of the new root", async {
        while !signs(new.clone()).await {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    // Its own certificate went along, and no connection of those who believe in both was refused.
    mesh.handshake_believing(&new).await.unwrap();

    let stored = store.load().await.unwrap().unwrap();
    let removed = stored.state.remove(true, SystemTime::now()).unwrap();
    assert!(store.replace(Some(&stored.revision), &removed).await.unwrap());
    assert_eq!(bundle(client.take().await.only()), new);
    assert!(signs(new).await);
}

fn bundle(resource: &Resource) -> Vec<CertificateDer<'static>> {
    let Resource::TrustBundle(bundle) = resource else { panic!("{resource:?}") };
    bundle.roots().iter().map(|root| CertificateDer::from(root.der()).into_owned()).collect()
}

#[tokio::test]
async fn a_ca_that_has_expired_is_said_to_be_and_can_be_replaced() {
    let state = TempDir::new().unwrap();
    let store = Directory::open(&state.path().join("ca")).unwrap();
    let long_ago = SystemTime::now() - x509::ROOT_LIFE - Duration::from_secs(86_400);
    let expired = State::new(Authority::make(long_ago).unwrap(), Duration::from_secs(3_600));
    assert!(store.replace(None, &expired).await.unwrap());
    let mesh = Secured::over(&[], state).await;
    let (status, text) = get(mesh.plane.api, "/healthz/ready").await;
    assert_eq!((status, text.as_str().unwrap().contains("CA has expired")), (503, true), "{text}");
    // Discovery in plaintext goes on.
    let mut client = Client::connect(&mesh.plane, sidecar("reviews-v1")).await;
    client.ask(SECRET, TrustBundle::NAME).await;

    let now = SystemTime::now();
    let stored = store.load().await.unwrap().unwrap();
    let new = stored.state.add(Authority::make(now).unwrap(), Duration::ZERO, false, now).unwrap();
    let new = new.sign(true, now).unwrap().remove(true, now).unwrap();
    assert!(store.replace(Some(&stored.revision), &new).await.unwrap());
    client.take().await;
    soon("a CA that signs", async {
        while get(mesh.plane.api, "/healthz/ready").await.0 != 200
            || mesh.handshake_believing(&mesh.roots()).await.is_err()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let token = mesh.token(&caller("reviews-v1", "reviews"));
    mesh.ask(&Asked::by(&token, &csr(&KeyPair::generate().unwrap(), &[]))).await.unwrap();
}

/// Other programs write names, keys and extensions in their own ways.
#[test]
fn an_authority_of_openssls_making_is_taken_in() {
    let dir = TempDir::new().unwrap();
    let run = |line: &str| openssl(dir.path(), &line.split(' ').collect::<Vec<_>>());
    let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    std::fs::write(
        dir.path().join("ext"),
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n",
    )
    .unwrap();
    for (keys, options) in [("rsa", "rsa:3072"), ("p384", "ec -pkeyopt ec_paramgen_curve:P-384")] {
        run(&format!(
            "req -x509 -newkey {options} -nodes -keyout root.key -out root.pem -days 30 -subj /C=SE/O=Åsa/CN=Root -utf8"
        ));
        run(&format!("req -newkey {options} -nodes -keyout ca.key -out ca.csr -subj /O=Example/CN=Mesh"));
        run(
            "x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -days 10 -extfile ext -out ca.pem",
        );
        let now = SystemTime::now();
        let given = Authority::given(&(file("ca.pem") + &file("root.pem")), &file("ca.key"), now);
        let given = given.unwrap_or_else(|error| panic!("{keys}: {error}"));
        let life = Duration::from_secs(3_600);
        let id = SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap());
        let leaf = given.issuer().unwrap().sign(&KeyPair::generate().unwrap(), vec![id], life, now).unwrap();
        std::fs::write(dir.path().join("leaf.pem"), &leaf.pem()[0]).unwrap();
        assert_eq!(
            run("verify -CAfile root.pem -untrusted ca.pem leaf.pem").trim(),
            "leaf.pem: OK",
            "{keys}"
        );
        // Its root signs itself, too.
        assert!(Authority::given(&file("root.pem"), &file("root.key"), now).is_ok(), "{keys}");
    }
}

/// On the TLS port each namespace counts its own; in plaintext, where nobody says who he is, all count together.
#[tokio::test]
async fn limits_are_counted_for_whoever_says_who_he_is() {
    use outrigger_config::xds::certificates::{AUTHORIZATION, authorization};
    use outrigger_config::xds::pb::percent::RateLimitUnit;
    use outrigger_config::xds::pb::ratelimit::RateLimitRequest;
    use outrigger_config::xds::pb::ratelimit::rate_limit_response::Code as Verdict;
    use outrigger_config::xds::pb::ratelimit::rate_limit_service_client::RateLimitServiceClient;
    use outrigger_config::xds::pb::ratelimit_descriptor::RateLimitDescriptor;
    use outrigger_config::xds::pb::ratelimit_descriptor::rate_limit_descriptor::{Entry, RateLimitOverride};

    let mesh = Secured::start(&[("mesh.yaml", &mesh("1h"))]).await;
    let ask = async |channel: tonic::transport::Channel, token: Option<&str>| {
        let limit = RateLimitOverride { requests_per_unit: 2, unit: RateLimitUnit::Day as i32 };
        let entries = vec![Entry { key: "limit".into(), value: "all".into() }];
        let descriptor = RateLimitDescriptor { entries, limit: Some(limit), ..Default::default() };
        let message =
            RateLimitRequest { domain: "outrigger".into(), descriptors: vec![descriptor], hits_addend: 1 };
        let mut request = tonic::Request::new(message);
        if let Some(token) = token {
            request.metadata_mut().insert(AUTHORIZATION, authorization(token).unwrap());
        }
        let answer = RateLimitServiceClient::new(channel).should_rate_limit(request).await;
        answer.map(|answer| answer.into_inner().overall_code() == Verdict::Ok).map_err(|status| status.code())
    };
    let secure = mesh.channel().await;
    for token in [None, Some("nonsense")] {
        assert_eq!(ask(secure.clone(), token).await, Err(Code::Unauthenticated), "{token:?}");
    }
    let one = mesh.token(&caller("a", "a"));
    let sibling = mesh.token(&caller("b", "b"));
    let mut elsewhere = caller("a", "a");
    elsewhere.role = outrigger_config::xds::Role::Sidecar { namespace: "other".into(), workload: "a".into() };
    let elsewhere = mesh.token(&elsewhere);
    let mut passed = Vec::new();
    for token in [&one, &sibling, &one, &elsewhere, &elsewhere, &elsewhere] {
        passed.push(ask(secure.clone(), Some(token)).await.unwrap());
    }
    assert_eq!(passed, [true, true, false, true, true, false]);
    let plain = tonic::transport::Endpoint::new(format!("http://{}", mesh.plane.ads)).unwrap();
    let plain = plain.connect().await.unwrap();
    let mut passed = Vec::new();
    for _ in 0..3 {
        passed.push(ask(plain.clone(), None).await.unwrap());
    }
    assert_eq!(passed, [true, true, false]);
    let counted = |result: &str| format!("outrigger_limit_server_calls_total{{result=\"{result}\"}}");
    for (result, want) in [("ok", 6.0), ("over_limit", 3.0), ("refused", 2.0), ("unavailable", 0.0)] {
        assert_eq!(mesh.plane.metric(&counted(result)).await, Some(want), "{result}");
    }
    assert_eq!(mesh.plane.metric("outrigger_limit_server_keys").await, Some(3.0));
}
