//! Any frames to the h2 crate's server and to ours, one at a time; ends where a difference has no explanation. Any bytes to our server and our client, whose peers read
//! nothing; ends where more is held than documented.
//!
//! `cargo +nightly fuzz run http2_differential`. A bounded, seeded run of the same is a test of `http2`.
#![no_main]

#[path = "../../http2/tests/differ/mod.rs"]
mod differ;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let frames = differ::Frame::all(rest);
    match first % 4 {
        0 => differ::endure(rest),
        1 => {
            let frames = frames.iter().flat_map(differ::Frame::bytes);
            differ::endure(&differ::HELLO.iter().copied().chain(frames).collect::<Vec<_>>());
        }
        _ => {
            if let Err(complaint) = differ::compare(&frames) {
                panic!("{complaint}");
            }
        }
    }
});
