//! `ratings`: how many stars each reviewer gave. Ratings that are posted live in memory, of at most 1,000 products.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::{PORT, healthy, not_allowed, not_found, not_numeric, product_id};
use crate::sample::body::{self, Body};
use crate::sample::listen::{self, Handler, Listen, Stop};

/// Bookinfo: the stars each reviewer gave
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    listen: Listen,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    listen::run("ratings", args.listen.bind(PORT).await?, Ratings::default(), Stop::on_signal()?).await
}

/// Stars by reviewer.
type Stars = BTreeMap<String, u8>;

#[derive(Default)]
pub struct Ratings {
    posted: Mutex<BTreeMap<u64, Stars>>,
}

impl Handler for Ratings {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        match product_id(request.uri().path(), "ratings") {
            Some(Ok(id)) => match *request.method() {
                Method::GET | Method::HEAD => self.answer(id),
                Method::POST => self.post(id, request.into_body()).await,
                _ => not_allowed(),
            },
            Some(Err(_)) => not_numeric(),
            None if request.uri().path() == "/health" => healthy("Ratings"),
            None => not_found(),
        }
    }
}

impl Ratings {
    fn answer(&self, id: u64) -> Response<Body> {
        let posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        let stars = posted.get(&id).cloned().unwrap_or_else(usual);
        body::json(StatusCode::OK, &json!({"id": id, "ratings": stars}))
    }

    async fn post(&self, id: u64, received: Incoming) -> Response<Body> {
        let refuse = |status, why: String| body::json(status, &json!({"error": why}));
        let Ok(bytes) = body::collect(received, MAX_POST).await else {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_POST} bytes"));
        };
        let stars = match serde_json::from_slice::<Stars>(&bytes) {
            Ok(stars) if stars.values().all(|&stars| stars <= 5) => stars,
            Ok(_) => return refuse(StatusCode::BAD_REQUEST, "a rating is 0 to 5 stars".to_owned()),
            Err(error) => {
                return refuse(StatusCode::BAD_REQUEST, format!("please provide stars by reviewer: {error}"));
            }
        };
        {
            let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
            if posted.len() >= MAX_PRODUCTS && !posted.contains_key(&id) {
                return refuse(
                    StatusCode::INSUFFICIENT_STORAGE,
                    format!("at most {MAX_PRODUCTS} products are kept"),
                );
            }
            posted.insert(id, stars);
        }
        self.answer(id)
    }
}

fn usual() -> Stars {
    [("Reviewer1".to_owned(), 5), ("Reviewer2".to_owned(), 4)].into()
}

const MAX_POST: usize = 64 * 1024;
const MAX_PRODUCTS: usize = 1000;
