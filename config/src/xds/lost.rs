//! What of a TrafficPolicy a client that is not our proxy is told nothing of, by field.
//!
//! Owns the list, which says in the words of manifests what the encoding (`foreign`) leaves out; limits, which the callee enforces, concern no caller.

use super::foreign::Client;
use super::route::fault;
use crate::manifest::traffic_policy::{
    BalancingAlgorithm, BreakerMode, CircuitBreakerSection, EjectionSection, LoadBalancingSection,
    MultiplexHttp1, RetrySection, TargetRef, TimeoutSection, TrafficPolicy, Zones,
};
use crate::model::FaultAt;
use crate::registry::faults_of_policy;

/// Fields of the policy that are set and have no effect on such a client, `spec` left out.
pub fn lost(object: &TrafficPolicy, client: Client) -> Vec<&'static str> {
    let grpc = match client {
        Client::Outrigger => return Vec::new(),
        Client::Envoy => false,
        Client::Grpc => true,
    };
    let policy = &object.spec;
    let mut lost = Vec::new();
    let mut note = |field, is_lost: bool| {
        if is_lost {
            lost.push(field);
        }
    };
    if let Some(TimeoutSection { request, per_try, connect, idle, .. }) = &policy.timeout {
        note("timeout.request", grpc && request.is_some());
        note("timeout.perTry", grpc && per_try.is_some());
        note("timeout.connect", grpc && connect.is_some());
        note("timeout.idle", grpc && idle.is_some());
    }
    if let Some(retry) = &policy.retry {
        let RetrySection {
            status_codes, headers, methods, budget, max_retry_after, of_retries, hedge, ..
        } = retry;
        note("retry.statusCodes", grpc && !status_codes.is_empty());
        note("retry.headers", grpc && !headers.is_empty());
        note("retry.methods", grpc && methods.is_some());
        note("retry.budget", budget.is_some());
        note("retry.maxRetryAfter", max_retry_after.is_some());
        note("retry.ofRetries", *of_retries);
        note("retry.hedge", hedge.is_some());
    }
    if let Some(breaker) = &policy.circuit_breaker {
        let on_route =
            |target: &TargetRef| matches!(target, TargetRef::HttpRoute { .. } | TargetRef::GrpcRoute { .. });
        let CircuitBreakerSection { mode, max_connections, max_pending_requests, max_requests, .. } = breaker;
        let CircuitBreakerSection { max_retries, max_requests_per_connection, ejection, adaptive, .. } =
            breaker;
        note("circuitBreaker.mode", *mode == BreakerMode::Observe);
        let of_route = policy.target_refs.iter().all(on_route);
        note("circuitBreaker.maxConnections", grpc && max_connections.is_some());
        note("circuitBreaker.maxPendingRequests", (grpc || of_route) && max_pending_requests.is_some());
        note("circuitBreaker.maxRequests", of_route && max_requests.is_some());
        note("circuitBreaker.maxRetries", (grpc || of_route) && max_retries.is_some());
        note("circuitBreaker.maxRequestsPerConnection", grpc && max_requests_per_connection.is_some());
        note("circuitBreaker.adaptive", adaptive.is_some());
        if let Some(EjectionSection { consecutive_errors, connect_failures, slow_calls, ramp, .. }) = ejection
        {
            note("circuitBreaker.ejection.consecutiveErrors", grpc && consecutive_errors.is_some());
            note("circuitBreaker.ejection.connectFailures", grpc && connect_failures.is_some());
            note("circuitBreaker.ejection.slowCalls", slow_calls.is_some());
            note("circuitBreaker.ejection.ramp", ramp.is_some());
        }
    }
    if let Some(balancing) = &policy.load_balancing {
        let LoadBalancingSection { algorithm, zones, slow_start, session, health_check, .. } = balancing;
        let known = match algorithm {
            BalancingAlgorithm::PeakEwma => false,
            BalancingAlgorithm::RoundRobin | BalancingAlgorithm::RingHash => true,
            _ => !grpc,
        };
        note("loadBalancing.algorithm", !known);
        note("loadBalancing.zones", grpc && *zones == Some(Zones::PreferSameZone));
        note("loadBalancing.slowStart", grpc && slow_start.is_some());
        note("loadBalancing.session", session.is_some());
        note("loadBalancing.healthCheck", grpc && health_check.is_some());
    }
    // What it says is about proxies of ours; to others the default is all there is.
    note(
        "connection",
        policy.connection.is_some_and(|section| section.multiplex_http1 != MultiplexHttp1::Never),
    );
    if let Some(faults) = faults_of_policy(object).filter(|faults| !faults.faults.is_empty()) {
        note("fault", faults.at != FaultAt::Callee && (grpc || !fault::says_all(&faults)));
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn policy(sections: serde_json::Value) -> TrafficPolicy {
        let mut spec = serde_json::json!({"targetRefs": [{"kind": "Service", "name": "s"}]});
        spec.as_object_mut().unwrap().extend(sections.as_object().unwrap().clone());
        let (api, kind) = ("outrigger.dev/v1alpha1", "TrafficPolicy");
        let object =
            serde_json::json!({"apiVersion": api, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
        let parsed = crate::manifest::parse(object.to_string().as_bytes(), "p.json");
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        match parsed.objects.into_iter().next().map(|object| object.manifest) {
            Some(Manifest::TrafficPolicy(policy)) => *policy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_set_and_cannot_be_said_is_named() {
        for (sections, envoy, grpc) in [
            (
                serde_json::json!({"timeout": {"request": "1s", "stream": "1h"}}),
                &[][..],
                &["timeout.request"][..],
            ),
            (
                serde_json::json!({"retry": {"hedge": {"percentile": 95}, "statusCodes": [409]}}),
                &["retry.hedge"],
                &["retry.statusCodes", "retry.hedge"],
            ),
            (
                serde_json::json!({"circuitBreaker": {"maxRequests": 9, "adaptive": {}, "ejection": {"slowCalls": {"longerThan": "1s"}}}}),
                &["circuitBreaker.adaptive", "circuitBreaker.ejection.slowCalls"],
                &["circuitBreaker.adaptive", "circuitBreaker.ejection.slowCalls"],
            ),
            (
                serde_json::json!({"loadBalancing": {"algorithm": "Maglev", "hash": [{"header": "x-user"}], "session": {}}}),
                &["loadBalancing.session"],
                &["loadBalancing.algorithm", "loadBalancing.session"],
            ),
            (serde_json::json!({"connection": {}}), &[], &[]),
            (
                serde_json::json!({"connection": {"multiplexHttp1": "WhenBusy"}}),
                &["connection"],
                &["connection"],
            ),
            (serde_json::json!({"fault": {"faults": [{"delay": {"fixed": "1s"}}]}}), &[], &["fault"]),
            (
                serde_json::json!({"fault": {"activeFor": "1m", "faults": [{"delay": {"fixed": "1s"}}]}}),
                &["fault"],
                &["fault"],
            ),
            (
                serde_json::json!({"fault": {"faults": [{"atMost": 3, "abort": {"httpStatus": 503}}]}}),
                &[],
                &["fault"],
            ),
            // What its filter has, and not in this form.
            (
                serde_json::json!({"fault": {"faults": [{"delay": {"uniform": {"min": "1s", "max": "2s"}}}]}}),
                &["fault"],
                &["fault"],
            ),
            (
                serde_json::json!({"fault": {"faults": [{"delay": {"fixed": "1s"}}, {"delay": {"fixed": "2s"}}]}}),
                &["fault"],
                &["fault"],
            ),
            (
                serde_json::json!({"fault": {"faults": [{"throttle": {"bytesPerSecond": 1000}}]}}),
                &["fault"],
                &["fault"],
            ),
            (
                serde_json::json!({"fault": {"faults": [{"match": [{"paths": [{"value": "/a"}]}], "delay": {"fixed": "1s"}}]}}),
                &["fault"],
                &["fault"],
            ),
            (
                serde_json::json!({"fault": {"at": "Callee", "faults": [{"slowAccept": {"fixed": "1s"}}]}}),
                &[],
                &[],
            ),
        ] {
            let policy = policy(sections.clone());
            assert_eq!(lost(&policy, Client::Outrigger), [""; 0], "{sections}");
            assert_eq!(lost(&policy, Client::Envoy), envoy, "{sections}");
            assert_eq!(lost(&policy, Client::Grpc), grpc, "{sections}");
        }
    }
}
