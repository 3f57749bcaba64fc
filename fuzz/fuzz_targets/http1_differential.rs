//! Any bytes to hyper's HTTP/1 and to ours; ends where a difference has no explanation.
//!
//! `cargo +nightly fuzz run http1_differential`. A bounded, seeded run of the same is a test of `http1`.
#![no_main]

#[path = "../../http1/tests/differ/mod.rs"]
mod differ;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(complaint) = differ::compare(bytes) {
        panic!("{complaint}");
    }
});
