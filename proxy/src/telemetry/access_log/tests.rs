use std::net::Ipv4Addr;
use std::time::UNIX_EPOCH;

use http::{HeaderValue, Request};
use outrigger_config::model::{ClusterName, Origin, ServiceRef};

use super::super::{Direction, Record, Telemetry, Way};
use super::*;
use crate::failure::Reason;
use crate::upstream::Address;

fn address(text: &str) -> Address {
    Address::Socket(text.parse().expect("an address"))
}

/// Passes what is written on to the test; stuck while the test holds `gate`.
struct Reader {
    lines: std::sync::mpsc::Sender<Vec<u8>>,
    gate: Arc<Mutex<()>>,
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _open = self.gate.lock();
        self.lines.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Log {
    telemetry: Arc<Telemetry>,
    service: Arc<ServiceMetrics>,
    written: std::sync::mpsc::Receiver<Vec<u8>>,
    gate: Arc<Mutex<()>>,
}

fn log(mode: AccessLogMode, sampling: Fraction) -> Log {
    let metrics = Metrics::new(1);
    let (lines, written) = std::sync::mpsc::channel();
    let gate = Arc::new(Mutex::new(()));
    let access_log = AccessLog::new(metrics.clone(), Box::new(Reader { lines, gate: gate.clone() }));
    access_log.set(&model::AccessLog { mode, sampling });
    let service = metrics.service(Direction::Outbound, Some(&ServiceRef::new("default", "reviews")));
    Log { telemetry: Arc::new(Telemetry { metrics, access_log }), service, written, gate }
}

impl Log {
    fn exchange(&self, path: &str, failure: Option<Reason>) {
        let request = Request::builder().uri(path).body(()).expect("valid");
        let mut record = Record::http(&self.telemetry, Worker(0), &self.service, &request);
        if let Some(reason) = failure {
            record.fail(&reason.into());
        }
        record.complete();
    }

    /// Ends the log and returns the lines it wrote.
    fn lines(self) -> Vec<serde_json::Value> {
        drop((self.telemetry, self.service));
        let text: Vec<u8> = self.written.iter().flatten().collect();
        let text = String::from_utf8(text).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }
}

#[test]
fn a_line_says_everything_that_is_known() {
    let log = log(AccessLogMode::All, Fraction::ZERO);
    let request = Request::builder()
        .method("POST")
        .uri("http://Reviews/reviews/7?secret=1")
        .version(Version::HTTP_2)
        .body(())
        .expect("valid");
    let mut record = Record::http(&log.telemetry, Worker(0), &log.service, &request);
    record.request_id(|| RequestId::Received(HeaderValue::from_static("abc")));
    record.client((Ipv4Addr::new(10, 0, 0, 9), 5).into());
    record.peer(log.telemetry.metrics.peer("default/productpage"), &"default/productpage".into());
    record.route(
        &log.service.route("reviews"),
        &Arc::new(Origin::new("HTTPRoute", "default", "reviews", "spec.rules[0]")),
    );
    record.attempt(&ClusterName::outbound(9080, "", "reviews"), &address("10.0.0.1:9080"));
    record.attempt(&ClusterName::outbound(9080, "", "reviews"), &address("10.0.0.2:9080"));
    record.bytes(Way::Request, 3);
    record.bytes(Way::Response, 4);
    record.fail(&Failure::new(Reason::UpstreamReset, "after 4 bytes"));
    record.status(StatusCode::BAD_GATEWAY);
    record.grpc_status(14);
    drop(record);
    let lines = log.lines();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let mut line = line.clone();
    let fields = line.as_object_mut().expect("an object");
    let time = fields.remove("time").expect("a time");
    assert_eq!(time.as_str().map(str::len), Some("2026-11-23T09:24:09.123Z".len()));
    assert!(fields.remove("duration_ms").expect("a duration").is_f64());
    assert_eq!(
        line,
        serde_json::json!({
            "direction": "outbound", "method": "POST", "path": "/reviews/7", "host": "Reviews", "protocol": "HTTP/2",
            "status": 502, "grpc_status": 14, "reason": "upstream_reset", "detail": "after 4 bytes",
            "service": "reviews.default", "route": "reviews", "origin": "HTTPRoute/default/reviews spec.rules[0]",
            "cluster": "outbound|9080||reviews", "endpoint": "10.0.0.2:9080", "attempts": 2,
            "bytes_request": 3, "bytes_response": 4, "peer": "default/productpage", "client": "10.0.0.9:5",
            "request_id": "abc",
        })
    );
}

#[test]
fn an_id_that_was_made_here_is_the_one_the_request_goes_on_with() {
    let log = log(AccessLogMode::All, Fraction::ZERO);
    let request = Request::builder().uri("/").body(()).expect("valid");
    let mut record = Record::http(&log.telemetry, Worker(0), &log.service, &request);
    // The example of RFC 9562, appendix A.3.
    record.request_id(|| RequestId::Made(0x919108f7_52d1_4320_9bac_f847db4148a8));
    record.complete();
    drop(record);
    assert_eq!(log.lines()[0]["request_id"], "919108f7-52d1-4320-9bac-f847db4148a8");
}

/// What a limit counts by may be somebody's secret: the hash stands there, and nothing where everything is counted together.
#[test]
fn a_limit_is_named_and_its_key_is_a_hash() {
    let log = log(AccessLogMode::Errors, Fraction::ZERO);
    for (key, observed) in [(0xab, false), (0, false), (0xab, true)] {
        let request = Request::builder().uri("/").body(()).expect("valid");
        let mut record = Record::http(&log.telemetry, Worker(0), &log.service, &request);
        record.limited(&"shop/orders each".into(), key, observed);
        if !observed {
            record.fail(&Reason::RateLimited.into());
        }
        record.complete();
    }
    let told =
        |line: &serde_json::Value| ["limit", "limit_observed", "limit_key"].map(|name| line[name].clone());
    let (name, hash, none) = ("shop/orders each", "00000000000000ab", serde_json::Value::Null);
    let want = [
        [name.into(), none.clone(), hash.into()],
        [name.into(), none.clone(), none.clone()],
        [none, name.into(), hash.into()],
    ];
    assert_eq!(log.lines().iter().map(told).collect::<Vec<_>>(), want, "what is observed has a line, too");
}

#[test]
fn a_tcp_connection_has_a_line_too() {
    let log = log(AccessLogMode::All, Fraction::ZERO);
    let mut record = Record::tcp(&log.telemetry, Worker(0), &log.service);
    record.host("redis");
    record.complete();
    drop(record);
    let lines = log.lines();
    assert_eq!((&lines[0]["protocol"], &lines[0]["host"]), (&"TCP".into(), &"redis".into()));
}

#[test]
fn errors_are_always_logged_and_the_rest_by_sampling() {
    for (mode, sampling, want) in [
        (AccessLogMode::Off, Fraction::ALL, vec![]),
        (AccessLogMode::Errors, Fraction::ZERO, vec!["/failed"]),
        (AccessLogMode::Errors, Fraction::ALL, vec!["/fine", "/failed"]),
        (AccessLogMode::All, Fraction::ZERO, vec!["/fine", "/failed"]),
    ] {
        let log = log(mode, sampling);
        log.exchange("/fine", None);
        log.exchange("/failed", Some(Reason::NoRoute));
        let lines = log.lines();
        let paths: Vec<_> = lines.iter().map(|line| line["path"].as_str().expect("a path")).collect();
        assert_eq!(paths, want, "{mode:?} {sampling:?}");
    }
}

#[test]
fn sampling_takes_about_its_share() {
    let taken = (0..100_000).filter(|_| sampled(10_000)).count();
    assert!((700..1300).contains(&taken), "1 % of 100,000 is not {taken}");
}

#[test]
fn a_reader_that_is_stuck_costs_lines_and_no_time() {
    let log = log(AccessLogMode::All, Fraction::ZERO);
    let gate = log.gate.clone();
    let shut = gate.lock();
    // The writer takes some, its buffer and the queue hold some, and the rest finds no place.
    let offered = 10 * QUEUE;
    for i in 0..offered {
        log.exchange(&format!("/{i}"), None);
    }
    let dropped = log.telemetry.metrics.access_log_dropped.total();
    assert!(dropped > 0, "the queue is bounded");
    drop(shut);
    let lines = log.lines();
    assert_eq!(lines.len() + dropped as usize, offered, "each line is written or counted");
    assert_eq!(lines[0]["path"], "/0");
}

#[test]
fn times_are_rfc_3339() {
    for (seconds, want) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199, "2024-02-29T23:59:59.000Z"),
        (1_795_425_849, "2026-11-23T09:24:09.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), want);
    }
}
