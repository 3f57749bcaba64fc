//! HTTP/1 for a proxy: [`server`] towards clients, [`client`] towards endpoints.
//!
//! **Why our own.** A connection at rest holds neither parser nor buffer, a message costs one read and one write, interim responses go on, and what is
//! refused is refused by a closed [`Refusal`] that the proxy answers in its own words. It also refuses what can be read in two ways; all decisions
//! of that kind are in `framing`, and `docs/http1.md` lists them.
//!
//! **Shape.** No task, no channel, no future in a box. The server is asked for a request ([`server::Connection::poll_request`]) and given its
//! response ([`server::Connection::answer`]); between the two its owner does what it likes and polls [`server::Connection::poll_watch`]
//! beside it. The client is given a request and returns the response when its head is here ([`client::Connection::send`]), writing the
//! request's body meanwhile. Should an answer come before all of that is written, the rest comes back as a future of its own
//! ([`client::Rest`]), because both have to go on side by side then. A connection belongs to one thread; it and the body that is being
//! read from it share one `Channel`, borrowed for one poll at a time and never while a body of somebody else is polled.
//!
//! **Reading.** Into space the connections of a worker share ([`Spare`]); what was read becomes the message's own memory by being split off, never
//! copied. A read that did not fill its room is not repeated: the runtime knows then that the socket is empty, and asking again costs no system call.
//! **Writing.** The head, and what of the body is there at once, leave in one write; small pieces are copied behind the head, larger ones are
//! slices of the same write. **Heads** are `http`'s; how they were spelled travels with them ([`Spelling`]).
//!
//! **What it never does.** It has no clock (but for `Date`) and no timers: how long a peer may take is its owner's business, who sees when a head has
//! begun. It opens and keeps no connections, strips no fields of its hop but those of framing, and decides nothing about authorities.

mod body;
mod channel;
pub mod client;
mod decode;
mod encode;
mod framing;
mod head;
mod input;
mod output;
mod refusal;
mod send;
pub mod server;
mod spare;
mod spelling;

pub use body::{BodyError, Incoming};
pub use refusal::Refusal;
pub use spare::Spare;
pub use spelling::Spelling;

/// How much a peer may send as a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, and of trailers.
    pub head: usize,
    /// Fields of a head, and of trailers; 128 at most.
    pub fields: usize,
}
