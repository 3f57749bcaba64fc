//! Requests of every HTTP version through two sidecars.

use http::Request;
use outrigger_config::model::Protocol;

use super::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_pass_two_sidecars_in_the_version_they_came_in() {
    let (_callee, at) = callee(Protocol::Http, echo().await).await;
    let caller = caller(&[Service::new("reviews:9080", &[at])]);

    let answer = Http1::connect(caller.outbound[0]).await.get("http://reviews:9080/a?b=c", "ignored").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.starts_with("GET /a?b=c HTTP/1.1\n"), "{}", answer.body);
    assert!(answer.body.contains("host: reviews:9080\n"), "{}", answer.body);

    let mut http2 = Http2::connect(caller.outbound[0]).await;
    let answer = http2.get("http://reviews:9080/a?b=c").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.starts_with("GET http://reviews:9080/a?b=c HTTP/2.0\n"), "{}", answer.body);
    let post = Request::post("http://reviews:9080/p").body(text("hello")).unwrap();
    let answer = Answer::read(http2.send(post).await).await;
    assert!(answer.body.ends_with("\n\nhello"), "{}", answer.body);
}
