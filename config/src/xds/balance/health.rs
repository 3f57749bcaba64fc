//! Active health checks: Envoy's `health_checks`, of which there is at most one.

use std::time::Duration;

use super::super::at::{At, Unsupported, take};
use super::super::pb::core as proto;
use super::super::pb::core::health_check::HealthChecker;
use super::super::{fields, pb};
use crate::model::{HealthCheck, HealthProbe};

/// Ours is always this.
const JITTER_PERCENT: u32 = 10;

pub(super) fn encode(check: &HealthCheck) -> proto::HealthCheck {
    use proto::health_check::{GrpcHealthCheck, HttpHealthCheck, TcpHealthCheck};
    let checker = match &check.probe {
        HealthProbe::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
        HealthProbe::Http { path, host, expected } => HealthChecker::HttpHealthCheck(HttpHealthCheck {
            path: path.to_string(),
            host: host.as_deref().unwrap_or_default().to_owned(),
            expected_statuses: expected
                .iter()
                .map(|(from, until)| pb::percent::Int64Range { start: (*from).into(), end: (*until).into() })
                .collect(),
            ..Default::default()
        }),
        HealthProbe::Grpc { service } => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: service.to_string(),
            ..Default::default()
        }),
    };
    proto::HealthCheck {
        timeout: Some(fields::duration(check.timeout)),
        interval: Some(fields::duration(check.interval)),
        interval_jitter_percent: JITTER_PERCENT,
        unhealthy_threshold: fields::uint32(check.unhealthy_threshold.into()),
        healthy_threshold: fields::uint32(check.healthy_threshold.into()),
        health_checker: Some(checker),
        ..Default::default()
    }
}

pub(super) fn decode(
    mut checks: Vec<proto::HealthCheck>,
    at: &At<'_>,
) -> Result<Option<HealthCheck>, Unsupported> {
    let at = at.index("health_checks", checks.len().saturating_sub(1));
    let Some(check) = checks.pop() else { return Ok(None) };
    if !checks.is_empty() {
        return Err(at.refuse("only one is supported"));
    }
    take! { at, check => proto::HealthCheck;
        read { timeout, interval, unhealthy_threshold, healthy_threshold, health_checker }
        // Questions are never asked all at once here, and how an answer is logged changes nothing.
        ignore {
            initial_jitter, interval_jitter, interval_jitter_percent, reuse_connection, event_log_path, event_logger,
            event_service, always_log_health_check_failures, always_log_health_check_success
        }
        refuse {
            alt_port, no_traffic_interval, no_traffic_healthy_interval, unhealthy_interval, unhealthy_edge_interval,
            healthy_edge_interval, tls_options, transport_socket_match_criteria
        }
    };
    let default = HealthCheck::default();
    let threshold = |given: Option<pb::UInt32Value>, default: u8, name: &'static str| match given {
        None => Ok(default),
        Some(given) => u8::try_from(given.value)
            .ok()
            .filter(|number| (1..=100).contains(number))
            .ok_or_else(|| at.field(name).refuse(format!("{} is not within 1 and 100", given.value))),
    };
    let within = |given: Option<pb::Duration>, name: &'static str, (least, most): (u64, u64)| {
        let at = at.field(name);
        let given = fields::optional_duration(given, &at)?.ok_or_else(|| at.missing())?;
        if (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&given) {
            return Ok(given);
        }
        Err(at.refuse(format!("{given:?} is not within {least} ms and {most} ms")))
    };
    Ok(Some(HealthCheck {
        probe: probe(health_checker, &at)?,
        interval: within(interval, "interval", (10, 3_600_000))?,
        timeout: within(timeout, "timeout", (1, 60_000))?,
        unhealthy_threshold: threshold(
            unhealthy_threshold,
            default.unhealthy_threshold,
            "unhealthy_threshold",
        )?,
        healthy_threshold: threshold(healthy_threshold, default.healthy_threshold, "healthy_threshold")?,
    }))
}

fn probe(checker: Option<HealthChecker>, at: &At<'_>) -> Result<HealthProbe, Unsupported> {
    use proto::health_check::{GrpcHealthCheck, HttpHealthCheck, TcpHealthCheck};
    match checker {
        Some(HealthChecker::TcpHealthCheck(check)) => {
            let at = at.field("tcp_health_check");
            take! { at, check => TcpHealthCheck;
                read {}
                ignore {}
                refuse { send, receive, proxy_protocol_config }
            };
            Ok(HealthProbe::Tcp)
        }
        Some(HealthChecker::HttpHealthCheck(check)) => {
            let at = at.field("http_health_check");
            take! { at, check => HttpHealthCheck;
                read { host, path, expected_statuses, method, codec_client_type }
                ignore { response_buffer_size }
                refuse {
                    send, receive, request_headers_to_add, request_headers_to_remove, retriable_statuses,
                    service_name_matcher
                }
            };
            // HTTP/1 or the cluster's own HTTP, and GET.
            if codec_client_type > 1 {
                return Err(at.field("codec_client_type").unsupported());
            }
            if !matches!(method, 0 | 1) {
                return Err(at.field("method").refuse("only GET is supported"));
            }
            let path_at = at.field("path");
            if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(path_at.refuse(format!("{path:?} is not a path")));
            }
            if !host.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(at.field("host").refuse(format!("{host:?} is not a host")));
            }
            let range = |range: &pb::percent::Int64Range| {
                let bound = |number: i64| u16::try_from(number).ok().filter(|n| (100..=600).contains(n));
                bound(range.start).zip(bound(range.end)).filter(|(from, until)| from < until).ok_or_else(
                    || {
                        let text = format!("[{}, {}) is not a range of statuses", range.start, range.end);
                        at.field("expected_statuses").refuse(text)
                    },
                )
            };
            let expected = match expected_statuses.as_slice() {
                // Envoy's own default.
                [] => vec![(200, 201)],
                ranges => ranges.iter().map(range).collect::<Result<_, _>>()?,
            };
            Ok(HealthProbe::Http { path: path.into(), host: fields::some_arc(host), expected })
        }
        Some(HealthChecker::GrpcHealthCheck(check)) => {
            let at = at.field("grpc_health_check");
            take! { at, check => GrpcHealthCheck;
                read { service_name }
                ignore {}
                refuse { authority, initial_metadata }
            };
            Ok(HealthProbe::Grpc { service: service_name.into() })
        }
        Some(HealthChecker::CustomHealthCheck(_)) => Err(at.field("custom_health_check").unsupported()),
        None => Err(at.field("health_checker").missing()),
    }
}
