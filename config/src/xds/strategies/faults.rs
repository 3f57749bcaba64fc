//! Faults on purpose.

use super::*;

pub(super) fn faults() -> impl Strategy<Value = Arc<Faults>> {
    let at = prop::sample::select(vec![FaultAt::Caller, FaultAt::CallerBehindRetries, FaultAt::Callee]);
    let stop = (fraction(), 1_u64..300, 1_u32..10_000).prop_map(|(below, interval, min_requests)| StopIf {
        below,
        interval: Duration::from_secs(interval),
        min_requests,
    });
    let fault = (
        name(),
        vec(peer_match(), 0..2),
        vec(call_match(), 0..2),
        fraction(),
        option::of(1..=u32::MAX),
        fault_effect(),
    );
    let fault = fault.prop_map(|(name, from, matches, share, at_most, effect)| Fault {
        name,
        from,
        matches,
        share,
        at_most,
        effect,
    });
    let parts = (
        at,
        vec(fault, 0..3),
        option::of(any::<u64>()),
        option::of(duration()),
        option::of(any::<u64>()),
        option::of(stop),
        origin(),
    );
    parts
        .prop_map(|(at, faults, seed, active_for, since, stop_if, origin)| {
            Arc::new(Faults { at, faults, seed, active_for, since, stop_if, origin })
        })
        // Boxed, as the next: what is made of it is as large as all of its parts, on the stack.
        .boxed()
}

fn fault_effect() -> impl Strategy<Value = FaultEffect> {
    let short = || (1_u64..3_600_000).prop_map(Duration::from_millis);
    let delay = || {
        (short(), short(), 0..3).prop_map(|(a, b, shape)| match shape {
            0 => FaultDelay::Fixed(a),
            1 => FaultDelay::Uniform { min: a.min(b), max: a.max(b) },
            _ => FaultDelay::Exponential { mean: a.min(b), max: a.max(b) },
        })
    };
    let end = prop_oneof![
        (200_u16..600).prop_map(|status| FaultEnd::Http(StatusCode::from_u16(status).expect("a status"))),
        (1_u16..=16).prop_map(FaultEnd::Grpc),
        Just(FaultEnd::Reset),
        Just(FaultEnd::Refuse),
    ];
    let rate = || option::of(prop_oneof![1..=u64::MAX, Just(2048)]);
    let given = (option::of(delay()), option::of(end), rate(), option::of(any::<u64>()), any::<bool>());
    let given = given.prop_map(|(delay, end, throttle, cut, corrupt_trailers)| {
        FaultEffect::Given(GivenFault { delay, end, throttle, cut, corrupt_trailers })
    });
    let by_headers = (option::of(short()), any::<bool>(), rate())
        .prop_map(|(delay, abort, throttle)| FaultEffect::ByHeaders(FaultCeiling { delay, abort, throttle }));
    prop_oneof![3 => given, 1 => by_headers, 1 => delay().prop_map(FaultEffect::SlowAccept)].boxed()
}
