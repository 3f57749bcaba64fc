use std::sync::Arc;

use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::*;
use crate::sample::body::{Body, text};
use crate::sample::listen::{Handler, Peer, Stop, serve};

/// Answers with the request target as received, the Host field and the caller's port.
struct Target;

impl Handler for Target {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let host = request.headers()[header::HOST].to_str().unwrap();
        let Peer(peer) = request.extensions().get().unwrap();
        text(http::StatusCode::OK, format!("{} {host} {}", request.uri(), peer.port()))
    }
}

async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener, Arc::new(Target), Stop::default()));
    address
}

async fn get(client: &Client, url: &str) -> Vec<String> {
    let response =
        client.send(Request::get(url).body(Bytes::new()).unwrap(), Duration::from_secs(10)).await.unwrap();
    String::from_utf8(response.into_body().to_vec()).unwrap().split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn requests_go_through_the_proxy_in_absolute_form_on_one_kept_connection() {
    let proxy = server().await;
    let client = Client::new(Some(&format!("http://{proxy}/")), Some("localhost,127.0.0.1")).unwrap();
    let first = get(&client, "http://reviews:9080/reviews/0?a=b").await;
    assert_eq!(first[..2], ["http://reviews:9080/reviews/0?a=b", "reviews:9080"]);
    let second = get(&client, "http://ratings:9080/ratings/0").await;
    assert_eq!(second[..2], ["http://ratings:9080/ratings/0", "ratings:9080"]);
    assert_eq!(first[2], second[2], "the same connection carried both");
}

#[tokio::test]
async fn a_host_in_no_proxy_is_called_directly_in_origin_form() {
    let origin = server().await;
    let client = Client::new(Some("http://127.0.0.1:1"), Some("localhost,127.0.0.1")).unwrap();
    assert_eq!(get(&client, &format!("http://{origin}/a?b")).await[..2], ["/a?b", origin.as_str()]);
}

#[tokio::test]
async fn a_server_that_never_answers_ends_at_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(None, None).unwrap();
    let request =
        Request::get(format!("http://{}/", silent.local_addr().unwrap())).body(Bytes::new()).unwrap();
    let limit = Duration::from_millis(20);
    assert!(matches!(client.send(request, limit).await, Err(CallError::Timeout(_))));
}
