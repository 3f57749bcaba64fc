//! The aggregated discovery service (xDS v3) over gRPC: delta streams, and those that say the whole state each time.
//!
//! Read `session` first: what one proxy was told, without IO. `stream` drives one over the wire, `service` accepts them, `whole` translates
//! for clients that do not speak the delta form.

mod service;
pub mod session;
mod stream;
mod whole;

pub use service::Ads;
