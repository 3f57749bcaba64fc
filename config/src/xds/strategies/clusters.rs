//! Clusters and their endpoints, balancing, breaking and health.

use super::*;

pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    let discovery = prop_oneof![
        Just(Discovery::Endpoints),
        (name(), port()).prop_map(|(host, port)| Discovery::Dns { host, port }),
    ];
    let http = prop::sample::select(vec![UpstreamHttp::AsReceived, UpstreamHttp::Http1, UpstreamHttp::Http2]);
    let multiplex = prop::sample::select(vec![Multiplex::Never, Multiplex::WhenBusy, Multiplex::Always]);
    let connect = (1..=60_000u64).prop_map(Duration::from_millis);
    let idle = prop_oneof![Just(Duration::ZERO), duration()];
    let parts = (
        cluster_name(),
        option::of(service()),
        discovery,
        (http, multiplex),
        connect,
        idle,
        (circuit_breaker().prop_map(Arc::new), balance().prop_map(Arc::new)),
        option::of(origin()),
    );
    parts.prop_map(
        |(
            name,
            service,
            discovery,
            (http, multiplex),
            connect_timeout,
            idle_timeout,
            (circuit_breaker, balance),
            origin,
        )| {
            Cluster {
                name,
                service,
                discovery,
                http,
                connect_timeout,
                idle_timeout,
                multiplex,
                circuit_breaker,
                balance,
                origin,
            }
        },
    )
}

pub(super) fn hash() -> impl Strategy<Value = Vec<HashOn>> {
    let cookie = (name(), option::of(prop_oneof![Just(Duration::ZERO), duration()]), option::of(path()))
        .prop_map(|(name, ttl, path)| HashCookie { name, ttl, path });
    let input = prop_oneof![
        header_name().prop_map(HashInput::Header),
        cookie.prop_map(HashInput::Cookie),
        Just(HashInput::Source),
        name().prop_map(HashInput::Query),
    ];
    vec((input, any::<bool>()).prop_map(|(input, terminal)| HashOn { input, terminal }), 0..3)
}

fn balance() -> impl Strategy<Value = Balance> {
    let algorithm = prop_oneof![
        3 => Just(Algorithm::PeakEwma),
        1 => (2..=Algorithm::MAX_CHOICES).prop_map(|choices| Algorithm::LeastRequest { choices }),
        1 => Just(Algorithm::RoundRobin),
        1 => Just(Algorithm::Random),
        1 => (1..=2_000u32, 0..=10_000u32)
            .prop_map(|(min_size, more)| Algorithm::RingHash { min_size, max_size: min_size + more }),
        1 => prop::sample::select(vec![2, 251, 65_537]).prop_map(|table_size| Algorithm::Maglev { table_size }),
    ];
    let slow_start =
        (duration(), 1..=100u8).prop_map(|(window, min_percent)| SlowStart { window, min_percent });
    let session = (name(), prop_oneof![Just(Duration::ZERO), duration()], path())
        .prop_map(|(name, ttl, path)| SessionCookie { name, ttl, path });
    let parts = (
        algorithm,
        hash(),
        option::weighted(0.3, slow_start),
        option::weighted(0.3, name()),
        option::weighted(0.3, session),
        option::weighted(0.3, health_check().prop_map(Into::into)),
        option::of(origin()),
    );
    prop_oneof![
        1 => Just(Balance::default()),
        3 => parts.prop_map(|(algorithm, hash, slow_start, zone, session, health_check, origin)| Balance {
            algorithm,
            hash,
            slow_start,
            zone,
            session,
            health_check,
            origin,
        }),
    ]
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    let range = (100..=599u16, 1..=10u16).prop_map(|(from, length)| (from, (from + length).min(600)));
    let probe =
        prop_oneof![
            Just(HealthProbe::Tcp),
            (path(), option::of(name()), vec(range, 1..3))
                .prop_map(|(path, host, expected)| HealthProbe::Http { path, host, expected }),
            prop_oneof![Just(String::new()), word()]
                .prop_map(|service| HealthProbe::Grpc { service: service.into() }),
        ];
    (probe, 10..3_600_000u64, 1..60_000u64, 1..=100u8, 1..=100u8).prop_map(
        |(probe, interval, timeout, unhealthy_threshold, healthy_threshold)| HealthCheck {
            probe,
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            unhealthy_threshold,
            healthy_threshold,
        },
    )
}

fn breaker_mode() -> impl Strategy<Value = BreakerMode> {
    prop::sample::select(vec![BreakerMode::Enforce, BreakerMode::Observe])
}

/// A cap of 0 makes sense where something goes on without what it counts.
fn cap(from: u32) -> impl Strategy<Value = Option<u32>> {
    option::of(prop_oneof![4 => from..5_000, 1 => Just(u32::MAX)])
}

fn circuit_breaker() -> impl Strategy<Value = CircuitBreaker> {
    let caps = (breaker_mode(), cap(1), cap(1), cap(0), cap(0), cap(1)).prop_map(
        |(mode, connections, pending, requests, retries, requests_per_connection)| Caps {
            mode,
            connections,
            pending,
            requests,
            retries,
            requests_per_connection,
        },
    );
    (caps, option::of(ejection()), option::weighted(0.3, adaptive()), option::of(origin()))
        .prop_map(|(caps, ejection, adaptive, origin)| CircuitBreaker { caps, ejection, adaptive, origin })
}

pub(super) fn adaptive() -> impl Strategy<Value = Adaptive> {
    (breaker_mode(), 1..1_000u32, 0..10_000u32, option::of(origin()))
        .prop_map(|(mode, least, more, origin)| Adaptive { mode, least, most: least + more, origin })
}

pub(super) fn route_caps() -> impl Strategy<Value = RouteCaps> {
    (breaker_mode(), cap(1), cap(0), cap(0), option::of(origin())).prop_map(
        |(mode, pending, requests, retries, origin)| RouteCaps { mode, pending, requests, retries, origin },
    )
}

fn ejection() -> impl Strategy<Value = Ejection> {
    let consecutive = || option::of(1..=Ejection::MAX_CONSECUTIVE);
    let time = || (0..=3_600_000u64).prop_map(Duration::from_millis);
    let interval = || (1_000..=300_000u64).prop_map(Duration::from_millis);
    let requests = || 1..=SuccessRate::MAX_REQUESTS;
    let rate = (fraction(), interval(), requests()).prop_map(|(below, interval, min_requests)| SuccessRate {
        below,
        interval,
        min_requests,
    });
    let slow = (time(), fraction(), interval(), requests()).prop_map(
        |(longer_than, share, interval, min_requests)| SlowCalls {
            longer_than,
            share,
            interval,
            min_requests,
        },
    );
    let errors = prop::sample::select(vec![EjectionErrors::Gateway, EjectionErrors::Server]);
    let rules = (breaker_mode(), errors, consecutive(), consecutive(), option::of(rate), option::of(slow));
    let times = (time(), time(), fraction(), fraction(), time());
    (rules, times).prop_map(|(rules, (base, max, jitter, max_ejected, ramp))| {
        let (mode, errors, consecutive_errors, connect_failures, success_rate, slow_calls) = rules;
        Ejection {
            mode,
            errors,
            consecutive_errors,
            connect_failures,
            success_rate,
            slow_calls,
            base,
            max,
            jitter,
            max_ejected,
            ramp,
        }
    })
}

pub(crate) fn endpoints() -> impl Strategy<Value = Endpoints> {
    let health =
        prop::sample::select(vec![Health::Healthy, Health::Unknown, Health::Draining, Health::Unhealthy]);
    let identity = prop_oneof![
        Just((None, false)),
        spiffe_id().prop_map(|id| (Some(id), true)),
        spiffe_id().prop_map(|id| (Some(id), false)),
    ];
    let zone = option::of(prop::sample::select(vec!["a", "b"]).prop_map(Into::into));
    let for_zones = btree_set(prop::sample::select(vec!["a", "b"]), 0..3)
        .prop_map(|zones| zones.into_iter().map(Into::into).collect());
    let endpoint = (health, 1..=1_000_000u32, some_name(), zone, for_zones, identity);
    (cluster_name(), btree_map(socket(), endpoint, 0..6)).prop_map(|(cluster, endpoints)| Endpoints {
        cluster,
        endpoints: endpoints
            .into_iter()
            .map(|(address, (health, weight, workload, zone, for_zones, (identity, meshed)))| Endpoint {
                address,
                health,
                weight,
                workload,
                zone,
                for_zones,
                identity,
                meshed,
            })
            .collect(),
    })
}
