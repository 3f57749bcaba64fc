//! `productpage`: the page a visitor sees, made from what `details` and `reviews` answer, and the same as JSON.
//!
//! The page always answers 200: a part that could not be had is replaced by a sentence saying so.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{PORT, base_url, get, not_allowed, not_found, not_numeric};
use crate::sample::body::{self, Body};
use crate::sample::client::Client;
use crate::sample::headers::{self, END_USER};
use crate::sample::listen::{self, Handler, Listen, Stop};

mod page;
mod session;

/// Bookinfo: the page that visitors see
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    listen: Listen,

    /// Where the details service is
    #[arg(long, value_name = "URL", value_parser = base_url, default_value = "http://details:9080")]
    details: Uri,

    /// Where the reviews service is
    #[arg(long, value_name = "URL", value_parser = base_url, default_value = "http://reviews:9080")]
    reviews: Uri,

    /// Where the ratings service is; only /api/v1/products/ID/ratings asks it
    #[arg(long, value_name = "URL", value_parser = base_url, default_value = "http://ratings:9080")]
    ratings: Uri,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { listen, details, reviews, ratings } = args;
    let page = Productpage { details, reviews, ratings, client: Client::from_env()? };
    listen::run("productpage", listen.bind(PORT).await?, page, Stop::on_signal()?).await
}

pub struct Productpage {
    pub details: Uri,
    pub reviews: Uri,
    pub ratings: Uri,
    pub client: Client,
}

impl Handler for Productpage {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if path == "/login" {
            return match *request.method() {
                Method::POST => session::login(request.into_body()).await,
                _ => not_allowed(),
            };
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed();
        }
        match path.as_str() {
            "/" | "/index.html" => body::html(StatusCode::OK, page::index()),
            "/productpage" => self.page(request.headers()).await,
            "/health" => body::text(StatusCode::OK, "Product page is healthy"),
            "/logout" => session::logout(),
            "/static/canoe.svg" => body::with_type(StatusCode::OK, "image/svg+xml", page::CANOE),
            "/api/v1/products" => body::json(StatusCode::OK, &json!([product()])),
            _ => match path.strip_prefix("/api/v1/products/") {
                Some(rest) => self.api(rest, request.headers()).await,
                None => not_found(),
            },
        }
    }
}

impl Productpage {
    async fn page(&self, received: &HeaderMap) -> Response<Body> {
        let headers = headers_onwards(received);
        let (details, reviews) = tokio::join!(self.details(0, &headers), self.reviews(0, &headers));
        let page = page::Page {
            user: session::user(received),
            details: details.as_ref().ok(),
            reviews: reviews.as_ref().ok(),
        };
        body::html(StatusCode::OK, page.render(&product()))
    }

    /// `ID`, `ID/reviews` or `ID/ratings`.
    async fn api(&self, rest: &str, received: &HeaderMap) -> Response<Body> {
        let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
        let Ok(id) = id.parse::<u64>() else { return not_numeric() };
        let headers = headers_onwards(received);
        let (what, answer) = match part {
            "" => ("details", self.details(id, &headers).await),
            "reviews" => ("reviews", self.reviews(id, &headers).await),
            "ratings" => ("ratings", self.call(&self.ratings, &format!("/ratings/{id}"), &headers).await),
            _ => return not_found(),
        };
        match answer {
            Ok(value) => body::json(StatusCode::OK, &value),
            Err(status) => {
                let error = format!("The product {what} are currently unavailable for this book.");
                body::json(status, &json!({"error": error}))
            }
        }
    }

    async fn details(&self, id: u64, headers: &HeaderMap) -> Result<Value, StatusCode> {
        self.call(&self.details, &format!("/details/{id}"), headers).await
    }

    /// Two tries of 3 s: with a ratings service that takes 7 s this ends without reviews, as the sample is known to.
    async fn reviews(&self, id: u64, headers: &HeaderMap) -> Result<Value, StatusCode> {
        let path = format!("/reviews/{id}");
        match self.call(&self.reviews, &path, headers).await {
            Err(_) => self.call(&self.reviews, &path, headers).await,
            answered => answered,
        }
    }

    /// The JSON of a 200, or the status to answer with: the callee's own, 500 if there was none.
    async fn call(&self, base: &Uri, path: &str, headers: &HeaderMap) -> Result<Value, StatusCode> {
        const NONE: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
        let request = get(base, path, headers.clone()).map_err(|_| NONE)?;
        match self.client.send(request, PATIENCE).await {
            Ok(response) if response.status() == StatusCode::OK => {
                serde_json::from_slice(response.body()).map_err(|_| NONE)
            }
            Ok(response) => Err(response.status()),
            Err(error) => {
                listen::complain(&format!("productpage: {base}: {error}"));
                Err(NONE)
            }
        }
    }
}

fn headers_onwards(received: &HeaderMap) -> HeaderMap {
    let mut headers = headers::passed_on(received);
    if let Some(user) = session::user(received).and_then(|user| HeaderValue::from_str(&user).ok()) {
        headers.insert(END_USER, user);
    }
    headers
}

fn product() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "One of Shakespeare's earliest and shortest plays: two pairs of identical twins, parted at \
            birth, meet in one town without knowing it, and everybody takes everybody for somebody else.",
    })
}

const PATIENCE: Duration = Duration::from_secs(3);
