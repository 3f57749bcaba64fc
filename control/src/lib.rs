//! The control plane: manifests in, configuration out to every proxy that asks for it.
//!
//! ```text
//! source (directories, watched) ──► View (registry of one generation, resolved pieces) ──► ads: a Session a stream ──► proxies
//!                                        └──► api: status, synced          metrics
//! ```
//! Owns who has been told what. Never keeps anything of its own but which experiments were stopped (`experiments`): all else it knows is in the sources, in the store of
//! the CA or was said by a proxy that is connected, so that a restart loses nothing and any number may run side by side. What a resource says is resolved and encoded in
//! `outrigger-config`.

pub mod ads;
pub mod api;
pub mod ca;
pub mod experiments;
pub mod file;
pub mod inject;
pub mod metrics;
pub mod proxies;
pub mod rate_limit;
pub mod server;
pub mod source;
mod tls;
pub mod view;

pub use server::{CaOrigin, Config, Control, Identity};
