//! `reviews`: what readers said; version 1 without stars, 2 with black ones, 3 with red ones.
//!
//! Every answer names the instance it came from, so that a split by weight can be seen.

use std::time::Duration;

use clap::ValueEnum;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{PORT, base_url, get, healthy, json_of, not_allowed, not_found, not_numeric, product_id};
use crate::sample::body::{self, Body};
use crate::sample::client::Client;
use crate::sample::headers;
use crate::sample::listen::{self, Handler, Listen, Stop};

/// Bookinfo: what readers say, with or without stars
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    listen: Listen,

    /// v1 shows no stars, v2 black ones, v3 red ones
    #[arg(long, env = "SERVICE_VERSION", value_enum, default_value = "v1")]
    version: Version,

    /// Name of this instance, shown in every answer [default: reviews-VERSION]
    #[arg(long, env = "POD_NAME")]
    name: Option<String>,

    /// Where the ratings service is
    #[arg(long, value_name = "URL", value_parser = base_url, default_value = "http://ratings:9080")]
    ratings: Uri,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    V1,
    V2,
    V3,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }

    fn color(self) -> Option<&'static str> {
        match self {
            Self::V1 => None,
            Self::V2 => Some("black"),
            Self::V3 => Some("red"),
        }
    }

    /// How long an answer of the ratings service is waited for. Black stars wait longer than the product page waits
    /// for the reviews: the bug that the sample's fault injection is there to find.
    fn patience(self) -> Duration {
        match self {
            Self::V2 => Duration::from_secs(10),
            Self::V1 | Self::V3 => Duration::from_millis(2500),
        }
    }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let reviews = Reviews::new(args.version, args.name, args.ratings, Client::from_env()?);
    listen::run(
        &format!("reviews {}", args.version.name()),
        args.listen.bind(PORT).await?,
        reviews,
        Stop::on_signal()?,
    )
    .await
}

pub struct Reviews {
    version: Version,
    name: String,
    ratings: Uri,
    client: Client,
}

impl Reviews {
    pub fn new(version: Version, name: Option<String>, ratings: Uri, client: Client) -> Self {
        let name = name.unwrap_or_else(|| format!("reviews-{}", version.name()));
        Self { version, name, ratings, client }
    }

    async fn reviews(&self, id: u64, received: &HeaderMap) -> Value {
        let mut reviews = [
            json!({"reviewer": "Reviewer1", "text": "Two pairs of twins, one long day, and I laughed at every mix-up."}),
            json!({"reviewer": "Reviewer2", "text": "Light, quick and funny, though the later comedies go deeper."}),
        ];
        if let Some(color) = self.version.color() {
            let stars = self.stars(id, received).await;
            for review in &mut reviews {
                let given =
                    stars.as_ref().and_then(|stars| stars.get(review["reviewer"].as_str()?)?.as_u64());
                review["rating"] = match given {
                    Some(given) => json!({"stars": given, "color": color}),
                    None => json!({"error": "The ratings service is currently unavailable"}),
                };
            }
        }
        json!({
            "id": id.to_string(),
            "podname": self.name,
            "clustername": "null",
            "version": self.version.name(),
            "reviews": reviews,
        })
    }

    async fn stars(&self, id: u64, received: &HeaderMap) -> Option<Value> {
        let request = get(&self.ratings, &format!("/ratings/{id}"), headers::passed_on(received)).ok()?;
        match self.client.send(request, self.version.patience()).await {
            Ok(response) => Some(json_of(&response)?.get("ratings")?.clone()),
            Err(error) => {
                listen::complain(&format!("ratings: {error}"));
                None
            }
        }
    }
}

impl Handler for Reviews {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed();
        }
        match product_id(path, "reviews") {
            Some(Ok(id)) => body::json(StatusCode::OK, &self.reviews(id, request.headers()).await),
            Some(Err(_)) => not_numeric(),
            None if path == "/health" => healthy("Reviews"),
            None => not_found(),
        }
    }
}
