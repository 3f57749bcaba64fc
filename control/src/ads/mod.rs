//! The aggregated discovery service (xDS v3): delta streams over gRPC.
//!
//! Read `session` first: what one proxy was told, without IO. `stream` drives one over the wire, `service` accepts them.

mod service;
pub mod session;
mod stream;

pub use service::Ads;
