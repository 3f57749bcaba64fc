//! The side of a connection's client: accept, find the protocol, read requests.

pub mod accept;
pub mod client_hello;
pub mod detect;
pub mod listen;
pub mod original_dst;
pub mod patience;
pub mod replay;
