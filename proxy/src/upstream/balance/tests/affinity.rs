//! Hashes and sessions as requests bring them.

use http::{Request, Response, header};
use outrigger_config::model::{HashCookie, HashInput, HashOn, SessionCookie};

use super::*;
use crate::upstream::{Affinity, Cluster};

fn hashing(inputs: Vec<HashInput>, terminal: bool) -> Balance {
    let hash = inputs.into_iter().map(|input| HashOn { input, terminal }).collect();
    Balance { hash, ..balance(Algorithm::Maglev { table_size: 251 }) }
}

fn header_input(name: &'static str) -> HashInput {
    HashInput::Header(http::HeaderName::from_static(name))
}

fn cookie_input(name: &str, ttl: Option<u64>) -> HashInput {
    let ttl = ttl.map(Duration::from_secs);
    HashInput::Cookie(HashCookie { name: name.into(), ttl, path: Some("/".into()) })
}

fn hash(balance: &Balance, uri: &str, headers: &[(&str, &str)], client: &str) -> Option<u64> {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("it is valid");
    let client = client.parse().expect("an address");
    Affinity::of(&request, balance, &[], client, &mut seeded()).hash
}

#[test]
fn equal_requests_have_equal_hashes() {
    let user = hashing(vec![header_input("x-user")], true);
    let of = |headers: &[(&str, &str)]| hash(&user, "/", headers, "10.0.0.1");
    assert_eq!(of(&[]), None, "nothing to hash");
    assert_eq!(of(&[("x-user", "a")]), of(&[("x-user", "a"), ("x-other", "b")]));
    assert_ne!(of(&[("x-user", "a")]), of(&[("x-user", "b")]));
    assert_eq!(of(&[("x-user", "a"), ("x-user", "b")]), of(&[("x-user", "b"), ("x-user", "a")]));

    let by_cookie = hashing(vec![cookie_input("id", None)], true);
    let of = |cookie: &str| hash(&by_cookie, "/", &[("cookie", cookie)], "10.0.0.1");
    for (cookie, same) in [
        ("id=a", true),
        ("x=1; id=a", true),
        ("id=a; id=b", true /* the first */),
        ("xid=b; id=a", true),
        ("id=b", false),
        ("id=", false),
        ("id", false),
        ("idx=a", false),
    ] {
        assert_eq!(of(cookie) == of("id=a"), same, "{cookie}");
    }

    let by_query = hashing(vec![HashInput::Query("k".into())], true);
    let of = |uri: &str| hash(&by_query, uri, &[], "10.0.0.1");
    assert_eq!(of("/?k=a"), of("/other?x=1&k=a&k=b"));
    assert_ne!(of("/?k=a"), of("/?k=b"));
    assert_eq!((of("/"), of("/?kk=a")), (None, None));

    let by_source = hashing(vec![HashInput::Source], true);
    let of = |client: &str| hash(&by_source, "/", &[], client);
    assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"), "one client");
    assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    assert_eq!(of("10.0.0.1"), Some(xxhash_rust::xxh64::xxh64(b"10.0.0.1", 0)), "as Envoy hashes it");
}

#[test]
fn the_first_that_is_there_decides_or_all_do() {
    let inputs = || vec![header_input("x-a"), header_input("x-b")];
    let (first, all) = (hashing(inputs(), true), hashing(inputs(), false));
    let of = |balance: &Balance, headers: &[(&str, &str)]| hash(balance, "/", headers, "10.0.0.1");
    let both = |b: &'static str| [("x-a", "1"), ("x-b", b)];
    assert_eq!(of(&first, &both("1")), of(&first, &both("2")));
    assert_ne!(of(&all, &both("1")), of(&all, &both("2")));
    assert_eq!(
        of(&first, &both("1")[1..]),
        of(&all, &both("1")[1..]),
        "with one of them there is no difference"
    );
}

/// A client that keeps its cookie comes to the same endpoint again.
#[tokio::test(start_paused = true)]
async fn a_cookie_is_made_for_who_brings_none() {
    let balance = hashing(vec![cookie_input("id", Some(60))], true);
    let client = "10.0.0.1".parse().expect("an address");
    let affinity = Affinity::of(&Request::new(()), &balance, &[], client, &mut SmallRng::seed_from_u64(9));
    let set_cookie = told(&affinity, &balance);
    let (pair, attributes) = set_cookie.split_once("; ").expect("it has attributes");
    assert_eq!(attributes, "Path=/; Max-Age=60; HttpOnly");
    let again = Request::get("/").header("cookie", pair).body(()).expect("it is valid");
    let again = Affinity::of(&again, &balance, &[], client, &mut seeded());
    assert_eq!(again.hash, affinity.hash);
    assert_eq!(told(&again, &balance), "", "it has one");
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_while_its_endpoint_may_be_picked() {
    let session = SessionCookie { name: "s".into(), ttl: Duration::ZERO, path: "/".into() };
    let balance = Balance { session: Some(session), ..balance(Algorithm::RoundRobin) };
    let client = "10.0.0.1".parse().expect("an address");
    let (mut rng, now) = (seeded(), Instant::now());
    let cluster = Cluster::new(model::Cluster {
        balance: balance.clone().into(),
        ..crate::upstream::tests::settings()
    });
    let endpoints = |draining: Option<SocketAddr>| {
        let of = (0..4).map(|n| match draining == Some(address(n)) {
            true => model::Endpoint { health: Health::Draining, ..one(n) },
            false => one(n),
        });
        model::Endpoints { cluster: cluster.settings().name.clone(), endpoints: of.collect() }
    };
    cluster.set_endpoints(endpoints(None));
    let mut pick = |cookie: &str| {
        let request = Request::get("/").header("cookie", cookie).body(()).expect("it is valid");
        let affinity = Affinity::of(&request, &balance, &[], client, &mut rng);
        let asked = Asked { session: affinity.session, ..Asked::default() };
        let picked = cluster.pick(now, &mut rng, asked).expect("there is one");
        let mut response = Response::new(());
        affinity.tell(&balance, &picked, &mut response);
        let told =
            response.headers().get(header::SET_COOKIE).map(|value| value.to_str().expect("text").to_owned());
        (picked.endpoint().address.to_string(), told)
    };
    let (first, cookie) = pick("");
    let cookie = cookie.expect("it is told where it was");
    assert!(cookie.ends_with("; Path=/; HttpOnly"), "{cookie}");
    let pair = cookie.split(';').next().expect("a pair").to_owned();
    assert!(!cookie.contains("10.0"), "no address in it: {cookie}");
    for _ in 0..20 {
        assert_eq!(pick(&format!("other=1; {pair}")), (first.clone(), None));
    }
    for nonsense in ["s=", "s=xyz", "s=+123456789abcdef", "s=ffffffffffffffffff"] {
        assert!(pick(nonsense).1.is_some(), "{nonsense}");
    }
    cluster.set_endpoints(endpoints(Some(first.parse().expect("an address"))));
    let (second, told) = pick(&pair);
    assert_ne!(second, first, "a draining endpoint gets nothing new");
    let pair = told.expect("the session moved").split(';').next().expect("a pair").to_owned();
    assert_eq!(pick(&pair), (second, None));
}

/// What the client is told.
fn told(affinity: &Affinity, balance: &Balance) -> String {
    let cluster = Cluster::new(crate::upstream::tests::settings());
    let name = cluster.settings().name.clone();
    cluster.set_endpoints(model::Endpoints { cluster: name, endpoints: vec![one(0)] });
    let picked = cluster.pick(Instant::now(), &mut seeded(), Asked::default()).expect("there is one");
    let mut response = Response::new(());
    affinity.tell(balance, &picked, &mut response);
    let value = response.headers().get(header::SET_COOKIE);
    value.map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
}
