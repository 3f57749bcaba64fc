//! What a rule does to a request and its answer.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, StatusCode};
use outrigger_config::model::{
    Action, BackendTarget, Cors, Forward, Fraction, HeaderEdits, Mirror, PathRewrite, Protocol, Redirect,
    Rewrite, Route,
};

use super::harness::*;

fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

async fn named(name: &'static str) -> std::net::SocketAddr {
    app(move |_| async move { http::Response::new(text(name)) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_split_by_weight() {
    let one = Service::new("one:80", &[named("one").await]);
    let two = Service::new("two:80", &[named("two").await]);
    let front = Service::new("front:80", &[])
        .routes(vec![forward("/", vec![backend(&one.cluster(), 3), backend(&two.cluster(), 1)])]);
    // The proxy asks for the clusters a table names; the harness has them with their services.
    let caller = caller(&[front, one, two]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..800 {
        *seen.entry(client.get("http://front/", "-").await.body).or_default() += 1;
    }
    // 200 expected; ten standard deviations to either side.
    assert!((80..320).contains(&seen["two"]), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_tried_in_order_and_a_request_none_takes_is_refused() {
    let (one, two) =
        (Service::new("one:80", &[named("one").await]), Service::new("two:80", &[named("two").await]));
    let mut invalid = forward("/invalid", vec![backend(&one.cluster(), 1)]);
    if let Action::Forward(Forward { backends, .. }) = &mut invalid.action {
        backends[0].target = BackendTarget::Invalid("no Service default/three".into());
    }
    let routes = vec![
        route("/one", &one.cluster()),
        route("/two", &two.cluster()),
        forward("/none", Vec::new()),
        forward("/zero", vec![backend(&one.cluster(), 0)]),
        invalid,
    ];
    let caller = caller(&[Service::new("front:80", &[]).routes(routes), one, two]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    for (path, status, want) in [
        ("/one/x", 200, "one"),
        ("/two", 200, "two"),
        ("/other", 404, "no_route"),
        ("/none", 500, "no_backend"),
        ("/zero", 500, "no_backend"),
        ("/invalid", 500, "backend_invalid"),
    ] {
        let answer = client.get(&format!("http://front{path}"), "-").await;
        let got = if status == 200 { &answer.body } else { answer.reason() };
        assert_eq!((answer.status, got), (status, want), "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_edited_and_rewritten_in_both_versions() {
    let back = Service::new("back:80", &[echo().await]);
    let mut rule = route("/api", &back.cluster());
    rule.request_headers = HeaderEdits {
        remove: vec![HeaderName::from_static("x-gone")],
        set: vec![pair("x-set", "rule")],
        add: Vec::new(),
    };
    rule.response_headers = HeaderEdits { set: vec![pair("x-answer", "rule")], ..HeaderEdits::default() };
    if let Action::Forward(Forward { backends, rewrite }) = &mut rule.action {
        backends[0].request_headers.add = vec![pair("x-set", "backend")];
        *rewrite = Rewrite {
            host: Some("rewritten.test".into()),
            path: Some(PathRewrite::Prefix { matched: "/api".into(), replacement: "/v2".into() }),
        };
    }
    let caller = caller(&[Service::new("front:80", &[]).routes(vec![rule]), back]);
    let request =
        |uri: &str| Request::get(uri).header("x-gone", "1").header("x-set", "client").body(text(""));
    let http1 = {
        let request = request("http://front/api/x?q=1").unwrap();
        Answer::read(Http1::connect(caller.outbound[0]).await.send(request).await).await
    };
    let http2 = {
        let request = request("http://front/api/x?q=1").unwrap();
        Answer::read(Http2::connect(caller.outbound[0]).await.send(request).await).await
    };
    assert!(http1.body.starts_with("GET /v2/x?q=1 HTTP/1.1\n"), "{}", http1.body);
    assert!(http1.body.contains("host: rewritten.test\n"), "{}", http1.body);
    assert!(http2.body.starts_with("GET http://rewritten.test/v2/x?q=1 HTTP/2.0\n"), "{}", http2.body);
    for answer in [http1, http2] {
        assert!(answer.body.contains("x-set: rule\nx-set: backend\n"), "{}", answer.body);
        assert!(!answer.body.contains("x-gone"), "{}", answer.body);
        assert_eq!(answer.header("x-answer"), "rule");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_about_the_whole_server_goes_where_everything_goes() {
    let (_callee, at) = callee(Protocol::Http, echo().await).await;
    let all = Service::new("all:80", &[at]);
    let mut moved = route("/", &all.cluster());
    if let Action::Forward(Forward { rewrite, .. }) = &mut moved.action {
        rewrite.path = Some(PathRewrite::Prefix { matched: "/".into(), replacement: "/v2".into() });
    }
    let some = Service::new("some:80", &[]).routes(vec![route("/api", &all.cluster())]);
    let rewritten = Service::new("moved:80", &[]).routes(vec![moved]);
    let caller = caller_with(&[all.clone(), some.clone(), rewritten.clone()], Default::default(), |setup| {
        setup.service_addresses =
            [all, some, rewritten].map(|service| ((LOOPBACK, 0).into(), service.name)).to_vec();
    });
    for (at, status) in caller.service_addresses.iter().zip([200, 404, 200]) {
        let request = b"OPTIONS * HTTP/1.1\r\nHost: all\r\nConnection: close\r\n\r\n";
        let answer = exchange_bytes(*at, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        // A path is rewritten; this is none.
        assert_eq!(answer.contains("\r\n\r\nOPTIONS * HTTP/1.1\n"), status == 200, "{answer}");
    }
    let mut client = Http2::connect(caller.service_addresses[0]).await;
    let mut target = http::Uri::from_static("http://all/").into_parts();
    target.path_and_query = Some(http::uri::PathAndQuery::from_static("*"));
    let request = Request::options(http::Uri::from_parts(target).unwrap()).body(text("")).unwrap();
    let answer = Answer::read(client.send(request).await).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.starts_with("OPTIONS http://all* HTTP/2.0\n"), "{}", answer.body);
}

fn redirect(prefix: &str, redirect: Redirect) -> Route {
    Route { action: Action::Redirect(redirect), ..forward(prefix, Vec::new()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_answered_here() {
    let to = Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        scheme: Some("https".into()),
        host: Some("example.org".into()),
        port: None,
        path: Some(PathRewrite::Full("/new".into())),
    };
    let caller = caller(&[Service::new("front:80", &[]).routes(vec![redirect("/", to)])]);
    let answer = Http1::connect(caller.outbound[0]).await.get("http://front/old?q=1", "-").await;
    assert_eq!((answer.status, answer.header("location")), (301, "https://example.org/new?q=1"));
    assert_eq!(answer.reason(), "", "a redirect is no failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cross_origin_questions_are_answered_here_and_answers_carry_the_rule() {
    let back = Service::new("back:80", &[echo().await]);
    let mut rule = route("/", &back.cluster());
    rule.cors = Some(Cors {
        allow_origins: vec!["https://a.test".into()],
        allow_credentials: true,
        allow_methods: vec!["GET".into()],
        allow_headers: Vec::new(),
        expose_headers: Vec::new(),
        max_age: Duration::from_secs(5),
    });
    let caller = caller(&[Service::new("front:80", &[]).routes(vec![rule]), back]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    let ask = |origin: &str| {
        let request = Request::options("http://front/").header("origin", origin);
        request.header("access-control-request-method", "GET").body(text("")).unwrap()
    };
    let answer = Answer::read(client.send(ask("https://a.test")).await).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("access-control-allow-origin"), "https://a.test");
    let answer = Answer::read(client.send(ask("https://b.test")).await).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
    let get = Request::get("http://front/").header("origin", "https://a.test").body(text("")).unwrap();
    let answer = Answer::read(client.send(get).await).await;
    assert_eq!((answer.status, answer.header("access-control-allow-credentials")), (200, "true"));
    assert!(answer.body.starts_with("GET / "), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_gets_a_copy_and_never_a_say() {
    let (seen, mut copies) = tokio::sync::mpsc::unbounded_channel();
    let mirror = app(move |request: Request<hyper::body::Incoming>| {
        let seen = seen.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
            let _ = seen.send((path, body.len()));
            // Slower than any test waits, and failing.
            std::future::pending::<http::Response<AppBody>>().await
        }
    })
    .await;
    let (back, mirror) = (Service::new("back:80", &[echo().await]), Service::new("mirror:80", &[mirror]));
    let mut rule = route("/", &back.cluster());
    rule.mirrors = vec![Mirror { cluster: mirror.cluster(), fraction: Fraction::ALL }];
    let mut never = route("/never", &back.cluster());
    never.mirrors = vec![Mirror { cluster: mirror.cluster(), fraction: Fraction::ZERO }];
    let caller = caller(&[Service::new("front:80", &[]).routes(vec![never, rule]), back, mirror]);
    let mut client = Http1::connect(caller.outbound[0]).await;
    assert_eq!(client.get("http://front/never", "-").await.status, 200);
    assert_eq!(client.get("http://front/get", "-").await.status, 200);
    // Awaited before the next one is sent: each has a connection of its own.
    assert_eq!(within("the copy", copies.recv()).await.unwrap(), ("/get".to_owned(), 0));
    let post = |size: usize| Request::post("http://front/post").body(text(vec![b'x'; size])).unwrap();
    for (size, mirrored) in [(10, true), (1 << 20, false /* over the bound */), (60_000, true)] {
        let answer = Answer::read(client.send(post(size)).await).await;
        assert!(answer.body.ends_with(&"x".repeat(size.min(100))), "{size}: the app got it whole");
        if mirrored {
            assert_eq!(within("the copy", copies.recv()).await.unwrap(), ("/post".to_owned(), size));
        }
    }
}
