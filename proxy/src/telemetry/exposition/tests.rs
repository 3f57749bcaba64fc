use std::fs::OpenOptions;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use http::{Request, StatusCode};
use outrigger_config::model::ServiceRef;

use super::super::{Direction, Record, Telemetry, Tls, Worker};
use super::*;
use crate::failure::Reason;

/// A proxy that has seen one of everything.
fn text() -> String {
    let telemetry = Telemetry::new(2);
    let metrics = &telemetry.metrics;
    let service = metrics.service(Direction::Gateway, Some(&ServiceRef::new("default", "productpage")));
    let mut record = Record::http(&telemetry, Worker(0), &service, &Request::new(()));
    record.status(StatusCode::OK);
    record.complete();
    drop(record);
    let attempts = metrics.attempts(None);
    attempts.count(Worker(0), None);
    attempts.count(Worker(1), Some(Reason::ConnectFailed));
    let _open = metrics.connection(Worker(0), Direction::Gateway, Tls::Server);
    drop(metrics.connection(Worker(1), Direction::Gateway, Tls::Server));
    metrics.passed_without_config(Worker(0));
    let mut text = Text::default();
    text.metrics(metrics);
    text.gauges(
        "outrigger_endpoints",
        "Known endpoints.",
        &[Gauge { labels: vec![("service", "a\"b\\c\nd".into()), ("state", "healthy".into())], value: 3.0 }],
    );
    text.gauge("outrigger_config_age_seconds", "Age.", 1.5);
    text.into_string()
}

#[test]
fn promtool_has_nothing_to_say() {
    let found = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match found {
        Ok(promtool) => promtool,
        Err(_) if std::env::var_os("OUTRIGGER_SKIP_PEERS").is_some_and(|skip| skip == "1") => {
            let test = "promtool_has_nothing_to_say: promtool is not installed\n";
            eprint!("SKIPPED {test}");
            // Where `cargo xtask test` counts what was left out.
            if let Some(log) = std::env::var_os("OUTRIGGER_SKIP_LOG") {
                let mut log = OpenOptions::new().append(true).open(log).expect("xtask made the file");
                log.write_all(test.as_bytes()).expect("the file takes a line");
            }
            return;
        }
        Err(error) => panic!("promtool (Debian package prometheus) cannot be started: {error}"),
    };
    promtool.stdin.take().expect("piped").write_all(text().as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned());
    assert_eq!(said, ["", ""]);
    assert!(output.status.success());
}

#[test]
fn levels_go_down_and_counters_do_not() {
    let text = text();
    for line in [
        r#"outrigger_connections{direction="gateway",tls="server"} 1"#,
        r#"outrigger_connections_opened_total{direction="gateway",tls="server"} 2"#,
        r#"outrigger_attempts_total{service="passthrough",reason=""} 1"#,
        r#"outrigger_attempts_total{service="passthrough",reason="connect_failed"} 1"#,
        r#"outrigger_passthrough_no_config_total 1"#,
        r#"outrigger_endpoints{service="a\"b\\c\nd",state="healthy"} 3"#,
        r#"outrigger_config_age_seconds 1.5"#,
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line}\n{text}");
    }
}

#[test]
fn a_thousand_series_and_the_rest_is_other() {
    let telemetry = Telemetry::new(1);
    for i in 0..1_500 {
        let service: Arc<_> = telemetry
            .metrics
            .service(Direction::Outbound, Some(&ServiceRef::new("default", &format!("s{i}"))));
        let mut record = Record::http(&telemetry, Worker(0), &service, &Request::new(()));
        record.status(StatusCode::OK);
        record.complete();
    }
    let mut text = Text::default();
    text.metrics(&telemetry.metrics);
    let text = text.into_string();
    let requests: Vec<_> = text.lines().filter(|l| l.starts_with("outrigger_requests_total{")).collect();
    assert_eq!(requests.len(), 1_001);
    let total: u64 = requests
        .iter()
        .map(|l| l.rsplit_once(' ').expect("a value").1.parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(total, 1_500, "nothing is lost");
    assert!(text.contains(r#"{direction="outbound",service="other",route="other",peer="other","#));
}
