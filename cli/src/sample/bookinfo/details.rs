//! `details`: what is printed in the front of the book.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::{PORT, healthy, not_allowed, not_found, not_numeric, product_id};
use crate::sample::body::{self, Body};
use crate::sample::listen::{self, Handler, Listen, Stop};

/// Bookinfo: author, publisher and pages of a book
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    listen: Listen,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    listen::run("details", args.listen.bind(PORT).await?, Details, Stop::on_signal()?).await
}

pub struct Details;

impl Handler for Details {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed();
        }
        match product_id(path, "details") {
            Some(Ok(id)) => body::json(StatusCode::OK, &details(id)),
            Some(Err(_)) => not_numeric(),
            None if path == "/health" => healthy("Details"),
            None => not_found(),
        }
    }
}

/// The shop has one book; every id is a copy of it.
fn details(id: u64) -> serde_json::Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}
