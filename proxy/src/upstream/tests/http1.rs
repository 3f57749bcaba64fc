use super::*;

#[tokio::test(flavor = "local")]
async fn a_connection_is_used_again_after_a_whole_response() {
    let address = http1_server(|number, _| async move { ok(number.to_string()) }).await;
    let client = Client::of(address);
    for _ in 0..10 {
        let (status, body) = client.get(Http1, "/").await.expect("it answers");
        assert_eq!((status, &body[..]), (200, &b"1"[..]));
    }
    // Also after requests with bodies, and responses without.
    for _ in 0..10 {
        let response = client.send(Http1, post("/", "hello".to_owned())).await.expect("it answers");
        assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "1");
        let head = Request::head("/").header("host", "a").body(Body::empty()).expect("valid");
        assert_eq!(client.send(Http1, head).await.expect("it answers").status(), 200);
    }
}

#[tokio::test(flavor = "local")]
async fn a_response_dropped_half_way_closes_its_connection() {
    let big = Bytes::from(vec![b'x'; 4 * 1024 * 1024]);
    let address = http1_server(move |number, request| {
        let body = if request.uri() == "/big" { big.clone() } else { number.to_string().into() };
        async move { ok(body) }
    })
    .await;
    let client = Client::of(address);
    drop(client.send(Http1, get("/big")).await.expect("it answers"));
    assert_eq!(client.get(Http1, "/").await.expect("it answers").1, "2");
}
