//! What a server of the rate limit call counts about itself.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

#[derive(Clone, Debug)]
pub struct Counts {
    pub ok: IntCounter,
    pub over_limit: IntCounter,
    pub unavailable: IntCounter,
    /// Not understood, or not allowed.
    pub refused: IntCounter,
    pub keys: IntGauge,
}

impl Counts {
    /// Registered where a page shows them.
    pub fn new(registry: &Registry) -> Self {
        let calls = Opts::new(
            "outrigger_limit_server_calls_total",
            "Calls to the rate limit server: ok, over_limit, unavailable (the store does not answer) or refused (not valid, or not allowed).",
        );
        let calls = IntCounterVec::new(calls, &["result"]).expect(FIXED);
        let keys =
            IntGauge::new("outrigger_limit_server_keys", "Keys that are counted in this process' memory.")
                .expect(FIXED);
        registry.register(Box::new(calls.clone())).expect(FIXED);
        registry.register(Box::new(keys.clone())).expect(FIXED);
        let of = |result: &str| calls.with_label_values(&[result]);
        Self {
            ok: of("ok"),
            over_limit: of("over_limit"),
            unavailable: of("unavailable"),
            refused: of("refused"),
            keys,
        }
    }
}

/// Prometheus' text format.
pub(super) fn page(registry: &Registry) -> String {
    let mut page = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut page).expect("writing to memory never fails");
    String::from_utf8_lossy(&page).into_owned()
}

const FIXED: &str = "names and labels are fixed, valid and registered once";
