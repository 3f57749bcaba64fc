//! Tests in network namespaces: pods with addresses of their own, and traffic that is captured on its way.
//!
//! One program for all of them, since they share `network`. Run it with `cargo test -p outrigger --test netns`, as root.

mod capture;
mod dropped;
#[path = "../support/load.rs"]
#[expect(dead_code, reason = "what became of the load matters to other tests")]
mod load;
mod network;
mod sidecar;
mod through;
mod witness;
