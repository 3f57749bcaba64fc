//! Writes of one turn in one: what the frames of many HTTP/2 streams leave in.
//!
//! An HTTP/2 codec flushes whenever its task has run, which is once a stream where streams end one by one. A [`Coalesced`] connection takes what
//! it is given into a buffer and marks itself; the [`Flusher`], one task a worker, runs behind everything else of the turn and writes
//! each marked connection out once. Above TLS, so that one record carries it all. Never for HTTP/1, tunnels and TCP, which write whole messages.
//!
//! Exact about the rest: a full buffer is written at once and then makes its writer wait; large writes pass it by; an error is kept and
//! returned by the next call; a shutdown comes after the last byte; a connection that is dropped leaves its bytes to the flusher, for a moment.

mod flusher;
mod stream;

pub use flusher::Flusher;
pub use stream::Coalesced;

#[cfg(test)]
mod tests;
