//! HTTP/2 for a proxy: [`server`] towards clients, [`client`] towards endpoints.
//!
//! **Why our own.** One thread uses a connection, so that its state needs no lock; a stream's task writes its frames itself, so that nobody is woken
//! for them; fields go from one connection's table to the other's without being copied; and frames of streams that are over cost nobody else his.
//!
//! **Shape.** No task and no channel. A connection's owner polls it, which reads all that is there and takes all whole frames of it. A stream has
//! two ends, [`RecvStream`] and [`SendStream`]; all of them and the connection share one `Core`, borrowed for one call at a time. What is written
//! goes to an [`Outlet`], which gathers the frames of a turn and writes them as one.
//!
//! **Bounds.** Bodies wait for the peer's windows and for room in the outlet, new streams for room; what else is written answers something that was
//! read, and nothing is read while the outlet is far too full. What comes is bounded by the windows we announce, by [`Limits`], and in small pieces by
//! being put together. Requests reset before anybody saw them, streams that break the protocol and frames that bring nothing are counted; CONTINUATION is bounded in bytes
//! and frames.
//!
//! **What it never does.** It has no timers: how long a peer may take is its owner's business. It opens and keeps no connections, strips no fields but those
//! HTTP/2 does not have, never pushes and has no priorities.

pub mod client;
mod connection;
mod core;
mod ends;
mod error;
mod frame;
mod head;
mod hpack;
mod receive;
pub mod server;
mod settings;
mod space;
mod stream;

pub use connection::Pings;
pub use core::{FULL, Outlet};
pub use ends::{Interim, RecvStream, SendStream};
pub use error::{Code, Error};
pub use head::Protocol;
pub use settings::Limits;
pub use space::Space;

#[cfg(test)]
mod tests;
