//! `loadBalancing` of a TrafficPolicy.

use crate::manifest::traffic_policy::{
    BalancingAlgorithm, HashKey, HealthCheckSection, LoadBalancingSection as Manifest, SessionSection,
    SlowStartSection, Zones,
};
use crate::manifest::value::Duration;
use crate::model::{
    Algorithm, Balance, HashCookie, HashInput, HashOn, HealthCheck, HealthProbe, SessionCookie, SlowStart,
};
use crate::registry::policy::BalanceSection;

pub(super) fn balance(manifest: &Manifest) -> BalanceSection {
    BalanceSection {
        balance: Balance {
            algorithm: algorithm(manifest),
            hash: manifest.hash.iter().map(hash).collect(),
            slow_start: manifest.slow_start.map(slow_start),
            // Whose zone it is, only whoever resolves it for a caller knows.
            zone: None,
            session: manifest.session.as_ref().map(session),
            health_check: manifest.health_check.as_ref().map(|check| health_check(check).into()),
            // As above.
            origin: None,
        },
        near: manifest.zones.map(|zones| zones == Zones::PreferSameZone),
    }
}

fn algorithm(manifest: &Manifest) -> Algorithm {
    match manifest.algorithm {
        BalancingAlgorithm::PeakEwma => Algorithm::PeakEwma,
        BalancingAlgorithm::LeastRequest => {
            let choices = manifest.least_request.and_then(|settings| settings.choices);
            Algorithm::LeastRequest { choices: choices.map_or(Algorithm::DEFAULT_CHOICES, |c| c.get()) }
        }
        BalancingAlgorithm::RoundRobin => Algorithm::RoundRobin,
        BalancingAlgorithm::Random => Algorithm::Random,
        BalancingAlgorithm::RingHash => {
            let settings = manifest.ring_hash.unwrap_or_default();
            let (default_min, default_max) = Algorithm::DEFAULT_RING;
            match (settings.min_size.map(|size| size.get()), settings.max_size.map(|size| size.get())) {
                (Some(min_size), Some(max_size)) => Algorithm::RingHash { min_size, max_size },
                (Some(min_size), None) => {
                    Algorithm::RingHash { min_size, max_size: default_max.max(min_size) }
                }
                (None, max) => {
                    let max_size = max.unwrap_or(default_max);
                    Algorithm::RingHash { min_size: default_min.min(max_size), max_size }
                }
            }
        }
        BalancingAlgorithm::Maglev => {
            let size = manifest.maglev.and_then(|settings| settings.table_size);
            Algorithm::Maglev { table_size: size.map_or(Algorithm::DEFAULT_TABLE, |size| size.get()) }
        }
    }
}

/// Of several, the first that a request has decides.
fn hash(key: &HashKey) -> HashOn {
    let HashKey { header, cookie, source_address: _, query } = key;
    let input = if let Some(name) = header {
        HashInput::Header(name.parse().expect("a checked name is one"))
    } else if let Some(cookie) = cookie {
        HashInput::Cookie(HashCookie {
            name: cookie.name.shared(),
            ttl: cookie.ttl.map(Duration::get),
            path: cookie.path.as_ref().map(|path| path.shared()),
        })
    } else if let Some(name) = query {
        HashInput::Query(name.shared())
    } else {
        HashInput::Source
    };
    HashOn { input, terminal: true }
}

fn slow_start(manifest: SlowStartSection) -> SlowStart {
    let default = SlowStart::default();
    SlowStart {
        window: manifest.window.map_or(default.window, Duration::get),
        min_percent: manifest.min_percent.map_or(default.min_percent, |percent| percent.get()),
    }
}

fn session(manifest: &SessionSection) -> SessionCookie {
    SessionCookie {
        name: manifest.name.as_ref().map_or_else(|| SessionCookie::DEFAULT_NAME.into(), |name| name.shared()),
        ttl: manifest.ttl.map(Duration::get).unwrap_or_default(),
        path: manifest.path.as_ref().map_or_else(|| "/".into(), |path| path.shared()),
    }
}

fn health_check(manifest: &HealthCheckSection) -> HealthCheck {
    let default = HealthCheck::default();
    let probe = match (&manifest.http, &manifest.grpc) {
        (Some(http), _) => HealthProbe::Http {
            path: http.path.as_str().into(),
            host: http.host.as_ref().map(|host| host.shared()),
            expected: vec![HealthProbe::DEFAULT_EXPECTED],
        },
        (None, Some(grpc)) => HealthProbe::Grpc { service: grpc.service.as_str().into() },
        (None, None) => HealthProbe::Tcp,
    };
    HealthCheck {
        probe,
        interval: manifest.interval.map_or(default.interval, Duration::get),
        timeout: manifest.timeout.map_or(default.timeout, Duration::get),
        unhealthy_threshold: manifest.unhealthy_threshold.map_or(default.unhealthy_threshold, |n| n.get()),
        healthy_threshold: manifest.healthy_threshold.map_or(default.healthy_threshold, |n| n.get()),
    }
}
