//! The four services over loopback, calling each other directly.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::productpage::Productpage;
use super::reviews::{Reviews, Version};
use super::*;
use crate::sample::client::Client;
use crate::sample::listen::{Handler, Stop, serve};

async fn start(handler: impl Handler) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::new(handler), Stop::default()));
    format!("http://{address}").parse().unwrap()
}

/// An address nobody listens on.
async fn nobody() -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
}

fn client() -> Client {
    Client::new(None, None).unwrap()
}

async fn shop(version: Version) -> Uri {
    let ratings = start(ratings::Ratings::default()).await;
    let reviews = start(Reviews::new(version, None, ratings.clone(), client())).await;
    let details = start(details::Details).await;
    start(Productpage { details, reviews, ratings, client: client() }).await
}

async fn send(request: Request<Bytes>) -> Response<String> {
    let response = client().send(request, Duration::from_secs(30)).await.unwrap();
    response.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

async fn fetch(base: &Uri, path: &str) -> Response<String> {
    send(get(base, path, HeaderMap::new()).unwrap()).await
}

async fn fetch_json(base: &Uri, path: &str) -> Value {
    serde_json::from_str(fetch(base, path).await.body()).unwrap()
}

#[tokio::test]
async fn the_page_shows_details_and_reviews_with_the_stars_of_its_version() {
    for (version, name, stars) in [
        (Version::V1, "reviews-v1", None),
        (Version::V2, "reviews-v2", Some("black")),
        (Version::V3, "reviews-v3", Some("red")),
    ] {
        let page = fetch(&shop(version).await, "/productpage").await;
        assert_eq!(page.status(), 200);
        let html = page.body();
        assert!(html.contains("The Comedy of Errors") && html.contains("PublisherA"), "{html}");
        assert!(html.contains(&format!("Reviews served by {name}<")), "{html}");
        match stars {
            None => assert!(!html.contains('★'), "{html}"),
            Some(color) => {
                assert!(html.contains(&format!("<p class=\"stars {color}\" title=\"5 of 5")), "{html}");
                assert!(html.contains("★★★★☆"), "{html}");
            }
        }
        assert!(!html.contains("unavailable"), "{html}");
    }
}

#[tokio::test]
async fn without_reviews_the_page_still_answers_and_says_so() {
    let details = start(details::Details).await;
    let page = Productpage { details, reviews: nobody().await, ratings: nobody().await, client: client() };
    let shop = start(page).await;
    let page = fetch(&shop, "/productpage").await;
    assert_eq!(page.status(), 200);
    assert!(page.body().contains("product reviews are currently unavailable"), "{}", page.body());
    assert!(page.body().contains("PublisherA"), "{}", page.body());
    assert_eq!(fetch(&shop, "/api/v1/products/0/reviews").await.status(), 500);
    assert_eq!(fetch(&shop, "/api/v1/products/0").await.status(), 200);
}

#[tokio::test]
async fn without_ratings_each_review_says_so() {
    let reviews = start(Reviews::new(Version::V3, Some("red-1".into()), nobody().await, client())).await;
    let answer = fetch_json(&reviews, "/reviews/7").await;
    assert_eq!((&answer["podname"], &answer["id"]), (&json!("red-1"), &json!("7")));
    assert_eq!(answer["reviews"][1]["rating"]["error"], "The ratings service is currently unavailable");
}

/// Fails the first `failures` requests and counts them all.
struct Flaky {
    failures: usize,
    seen: Arc<std::sync::Mutex<Vec<HeaderMap>>>,
}

impl Handler for Flaky {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let mut seen = self.seen.lock().unwrap();
        seen.push(request.headers().clone());
        if seen.len() <= self.failures {
            return body::text(StatusCode::SERVICE_UNAVAILABLE, "not now");
        }
        body::json(StatusCode::OK, &json!({"podname": "flaky", "reviews": []}))
    }
}

#[tokio::test]
async fn reviews_are_tried_twice_and_not_more() {
    for (failures, tries, shown) in
        [(0, 1, "served by flaky"), (1, 2, "served by flaky"), (9, 2, "unavailable")]
    {
        let seen = Arc::default();
        let reviews = start(Flaky { failures, seen: Arc::clone(&seen) }).await;
        let details = start(details::Details).await;
        let shop = start(Productpage { details, reviews, ratings: nobody().await, client: client() }).await;
        let page = fetch(&shop, "/productpage").await;
        assert!(page.body().contains(shown), "{failures} failures: {}", page.body());
        assert_eq!(seen.lock().unwrap().len(), tries, "{failures} failures");
    }
}

#[tokio::test]
async fn the_user_of_the_session_and_the_trace_reach_ratings() {
    let seen: Arc<std::sync::Mutex<Vec<HeaderMap>>> = Arc::default();
    let ratings = start(Flaky { failures: 0, seen: seen.clone() }).await;
    let reviews = start(Reviews::new(Version::V2, None, ratings.clone(), client())).await;
    let shop = start(Productpage { details: nobody().await, reviews, ratings, client: client() }).await;

    let login = Request::post(format!("{shop}login")).body(Bytes::from("username=jason&passwd=")).unwrap();
    let login = send(login).await;
    assert_eq!(
        (login.status(), &login.headers()["location"]),
        (StatusCode::FOUND, &"/productpage".parse().unwrap())
    );
    let cookie = login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();

    let mut headers = HeaderMap::new();
    headers.insert("cookie", cookie.parse().unwrap());
    headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    headers.insert("user-agent", "test".parse().unwrap());
    let page = send(get(&shop, "/productpage", headers).unwrap()).await;
    assert!(page.body().contains("jason"), "{}", page.body());
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0]["end-user"], "jason");
    assert!(seen[0].contains_key("traceparent") && !seen[0].contains_key("user-agent"), "{:?}", seen[0]);
}

#[tokio::test]
async fn the_api_answers_json_and_posted_ratings_are_kept() {
    let shop = shop(Version::V2).await;
    assert_eq!(fetch_json(&shop, "/api/v1/products").await[0]["title"], "The Comedy of Errors");
    assert_eq!(fetch_json(&shop, "/api/v1/products/3").await["id"], 3);
    assert_eq!(fetch_json(&shop, "/api/v1/products/0/reviews").await["reviews"][0]["rating"]["stars"], 5);
    assert_eq!(
        fetch_json(&shop, "/api/v1/products/0/ratings").await["ratings"],
        json!({"Reviewer1": 5, "Reviewer2": 4})
    );

    let ratings = start(ratings::Ratings::default()).await;
    for (posted, status) in [
        (r#"{"Reviewer1": 1}"#, 200),
        (r#"{"Reviewer1": 6}"#, 400),
        (r#"{"Reviewer1": -1}"#, 400),
        ("not json", 400),
    ] {
        let request = Request::post(format!("{ratings}ratings/0")).body(Bytes::from(posted)).unwrap();
        assert_eq!(send(request).await.status(), status, "{posted}");
    }
    assert_eq!(fetch_json(&ratings, "/ratings/0").await["ratings"], json!({"Reviewer1": 1}));
    assert_eq!(
        fetch_json(&ratings, "/ratings/1").await["ratings"]["Reviewer1"],
        5,
        "another product keeps its own"
    );
}

#[tokio::test]
async fn every_service_is_healthy_and_refuses_what_it_does_not_know() {
    let reviews = start(Reviews::new(Version::V1, None, nobody().await, client())).await;
    let (details, ratings) = (start(details::Details).await, start(ratings::Ratings::default()).await);
    for (base, noun) in [(&details, "details"), (&reviews, "reviews"), (&ratings, "ratings")] {
        assert_eq!(fetch(base, "/health").await.status(), 200, "{noun}");
        assert_eq!(fetch(base, &format!("/{noun}/0")).await.status(), 200, "{noun}");
        assert_eq!(fetch(base, &format!("/{noun}/x")).await.status(), 400, "{noun}");
        assert_eq!(fetch(base, &format!("/{noun}")).await.status(), 404, "{noun}");
        assert_eq!(fetch(base, "/other/0").await.status(), 404, "{noun}");
        let delete = Request::delete(format!("{base}{noun}/0")).body(Bytes::new()).unwrap();
        assert_eq!(send(delete).await.status(), 405, "{noun}");
    }
    let shop = shop(Version::V1).await;
    for (path, status) in [
        ("/", 200),
        ("/health", 200),
        ("/static/canoe.svg", 200),
        ("/static/x", 404),
        ("/logout", 302),
        ("/login", 405),
    ] {
        assert_eq!(fetch(&shop, path).await.status(), status, "{path}");
    }
}
