use http::Request;
use outrigger_config::model::{AccessLogMode, Fraction, ServiceRef};

use super::super::{Direction, Text};
use super::*;

fn telemetry() -> Arc<Telemetry> {
    Telemetry::new(2)
}

fn reviews(telemetry: &Telemetry) -> Arc<ServiceMetrics> {
    telemetry.metrics.service(Direction::Outbound, Some(&ServiceRef::new("default", "reviews")))
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin::new("HTTPRoute", "default", "reviews", "spec.rules[0]"))
}

fn text(telemetry: &Telemetry) -> String {
    let mut text = Text::default();
    text.metrics(&telemetry.metrics);
    text.into_string()
}

fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no line {line}\n{text}");
}

#[test]
fn an_exchange_is_counted_once_when_its_record_is_dropped() {
    let telemetry = telemetry();
    let service = reviews(&telemetry);
    let route = service.route("reviews/canary");
    for worker in 0..3 {
        let mut record = Record::http(&telemetry, Worker(worker), &service, &Request::new(()));
        record.route(&route, &origin());
        record.bytes(Way::Request, 5);
        record.count(Way::Response).add(7);
        record.status(StatusCode::OK);
        record.complete();
    }
    let text = text(&telemetry);
    assert_line(
        &text,
        r#"outrigger_requests_total{direction="outbound",service="reviews.default",route="reviews/canary",peer="unknown",code="200",grpc_code="",reason=""} 3"#,
    );
    assert_line(
        &text,
        r#"outrigger_bytes_total{direction="outbound",service="reviews.default",way="request"} 15"#,
    );
    assert_line(
        &text,
        r#"outrigger_bytes_total{direction="outbound",service="reviews.default",way="response"} 21"#,
    );
    assert_line(
        &text,
        r#"outrigger_request_duration_seconds_count{direction="outbound",service="reviews.default",route="reviews/canary"} 3"#,
    );
}

#[test]
fn a_forgotten_ending_is_a_client_that_closed() {
    let telemetry = telemetry();
    let service = reviews(&telemetry);
    drop(Record::http(&telemetry, Worker(0), &service, &Request::new(())));
    let mut half_sent = Record::http(&telemetry, Worker(0), &service, &Request::new(()));
    half_sent.status(StatusCode::OK);
    drop(half_sent);
    let text = text(&telemetry);
    for code in ["499", "200"] {
        assert_line(
            &text,
            &format!(
                r#"outrigger_requests_total{{direction="outbound",service="reviews.default",route="",peer="unknown",code="{code}",grpc_code="",reason="client_closed"}} 1"#
            ),
        );
    }
}

#[test]
fn the_first_failure_stands() {
    let telemetry = telemetry();
    let service = reviews(&telemetry);
    let mut record = Record::http(&telemetry, Worker(0), &service, &Request::new(()));
    record.fail(&Reason::NoRoute.into());
    record.fail(&Reason::Internal.into());
    record.status(StatusCode::NOT_FOUND);
    record.grpc_status(12);
    drop(record);
    assert_line(
        &text(&telemetry),
        r#"outrigger_requests_total{direction="outbound",service="reviews.default",route="",peer="unknown",code="404",grpc_code="12",reason="no_route"} 1"#,
    );
}

#[test]
fn a_connection_counts_bytes_and_no_request() {
    let telemetry = telemetry();
    let service = telemetry.metrics.service(Direction::Inbound, None);
    let mut record = Record::tcp(&telemetry, Worker(0), &service);
    record.count(Way::Request).add(3);
    assert_line(
        &text(&telemetry),
        r#"outrigger_bytes_total{direction="inbound",service="passthrough",way="request"} 3"#,
    );
    record.complete();
    drop(record);
    assert!(!text(&telemetry).contains("outrigger_requests_total{"));
}

#[test]
fn names_are_copied_only_while_the_log_is_on() {
    let telemetry = telemetry();
    let service = reviews(&telemetry);
    let record = Record::http(&telemetry, Worker(0), &service, &Request::new(()));
    assert!(record.noted.is_none());
    telemetry
        .access_log
        .set(&outrigger_config::model::AccessLog { mode: AccessLogMode::Errors, sampling: Fraction::ZERO });
    let mut record = Record::http(&telemetry, Worker(0), &service, &Request::new(()));
    assert!(record.noted.is_some());
    record.complete();
}

/// It stands in the future of every exchange.
#[test]
fn a_record_is_small() {
    assert!(size_of::<Record>() <= 192, "{}", size_of::<Record>());
}
