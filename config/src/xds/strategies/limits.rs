//! Rate limits and caps on requests at a time.

use super::*;

pub(super) fn limits() -> impl Strategy<Value = Limits> {
    let own = (1_u32..1_000_000, 1_u64..3_600, 1_u32..1_000)
        .prop_map(|(tokens, per, burst)| Rate::new(tokens, Duration::from_secs(per), burst).expect("a rate"));
    let counted = (1_u32..1_000_000, prop::sample::select(vec![1_u64, 60, 3_600, 86_400]))
        .prop_map(|(tokens, per)| Rate::new(tokens, Duration::from_secs(per), tokens).expect("a rate"));
    let rate = prop_oneof![
        rate_limit(own.boxed(), Just(None).boxed()),
        rate_limit(counted.boxed(), shared_limit().prop_map(Some).boxed())
    ];
    (vec(rate, 0..3), vec(limit((1_u32..1_000).boxed()), 0..3), option::weighted(0.3, adaptive()))
        .prop_map(|(rates, concurrency, adaptive)| Limits { rates, concurrency, adaptive })
}

fn rate_limit(
    rate: BoxedStrategy<Rate>,
    shared: BoxedStrategy<Option<SharedLimit>>,
) -> impl Strategy<Value = RateLimit> {
    let headers =
        prop::sample::select(vec![LimitHeaders::Always, LimitHeaders::Refused, LimitHeaders::Never]);
    (limit(rate), any::<bool>(), option::of(header_name()), any::<[u32; 2]>(), headers, shared).prop_map(
        |(limit, connections, header, [most, fixed], headers, shared)| {
            let bursts = limit.overrides.iter().filter_map(|given| given.allowed).map(|rate| rate.burst);
            let most = most % bursts.fold(limit.allowed.burst, u32::min) + 1;
            let unit = if connections { LimitUnit::Connections } else { LimitUnit::Requests };
            RateLimit { limit, unit, cost: Cost { fixed: fixed % most + 1, header, most }, headers, shared }
        },
    )
}

fn shared_limit() -> impl Strategy<Value = SharedLimit> {
    let address = option::of(shared(&["limits:8081", "[::1]:1", "10.0.0.1:65535"]));
    let server =
        (address, shared(&["outrigger", "d"])).prop_map(|(address, domain)| LimitServer { address, domain });
    let timeout = (1_u64..=5_000).prop_map(Duration::from_millis);
    (service(), server, any::<bool>(), option::of(1_u32..100), timeout, any::<bool>()).prop_map(
        |(service, server, strict, batch, timeout, open)| SharedLimit {
            service,
            server,
            strict,
            batch,
            timeout,
            open,
        },
    )
}

fn limit<A: Clone + std::fmt::Debug + 'static>(allowed: BoxedStrategy<A>) -> impl Strategy<Value = Limit<A>> {
    let template = || {
        shared(&["/{**}", "/a/{id}/b", "/a/{*}/{**}"])
            .prop_map(|path| PathTemplate::new(&path).expect("a template"))
    };
    let part = prop_oneof![
        Just(KeyPart::Identity),
        Just(KeyPart::Namespace),
        any::<u8>().prop_map(|trusted_hops| KeyPart::Address { trusted_hops }),
        header_name().prop_map(KeyPart::Header),
        vec(template(), 0..3).prop_map(KeyPart::Path),
        Just(KeyPart::Method),
        Just(KeyPart::GrpcMethod),
    ];
    let mode = prop::sample::select(vec![LimitMode::Enforce, LimitMode::Observe]);
    let overrides = vec((vec(option::of(text()), 3), option::of(allowed.clone())), 0..3);
    (name(), mode, vec(call_match(), 0..2), vec(part, 0..3), allowed, overrides, 1_u32..1_000_000, origin())
        .prop_map(|(name, mode, matches, key, allowed, overrides, max_keys, origin)| {
            let fitting = |(values, allowed): (Vec<_>, _)| LimitOverride {
                key: values.into_iter().take(key.len()).collect(),
                allowed,
            };
            let overrides = overrides.into_iter().map(fitting).collect();
            Limit { name, mode, matches, key, allowed, overrides, max_keys, origin }
        })
}
