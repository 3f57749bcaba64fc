//! Who the proxy is, and who its peers are.

pub mod peer;

pub use peer::Peer;
