//! `outrigger capture`: redirects a pod's TCP traffic to the proxy beside it, and takes that back.
//!
//! Owns the rules of one network namespace: what they say (`rules`), how nftables and iptables spell it (`nft`,
//! `iptables`), and what is loaded right now (`Loaded`). Runs in an init container that holds this binary and either
//! tool, needs CAP_NET_ADMIN there and nothing else. Never touches a table or chain it did not make, and never
//! starts the proxy.

mod command;
mod iptables;
mod loaded;
mod nft;
mod rules;
mod tool;

pub use command::{Args, run};
