//! Identity: the certification authority of the mesh, and who may have what of it.
//!
//! ```text
//! token ─► Entrance, Admission (who calls) ─► Certificates (what it gets) ─► Ca (signs) ◄── CaStore (the state, shared by all control planes)
//!                                                                             └─► roots ─► View ─► every proxy, over ADS
//! ```
//! Owns the roots, the intermediates and their replacement, the judgement of tokens and of requests. Never holds the key of a workload:
//! those are made in the proxies and do not leave them.

mod admission;
mod authority;
mod certificates;
mod csr;
mod entrance;
mod keeper;
pub(crate) mod limit;
mod own;
mod refusal;
mod state;
mod store;
mod token;
pub mod x509;

pub use admission::Admission;
pub use authority::{Authority, Issuer, Leaf, certificate, fingerprint, pem_of, sorted};
pub use certificates::Certificates;
pub use entrance::Entrance;
pub use keeper::Ca;
pub use own::Own;
pub use refusal::Refusal;
pub(crate) use state::seconds;
pub use state::{NotNow, Phase, Rotation, State, Step};
pub use store::{CaStore, Directory, Revision, Stored};
pub use token::{Caller, SignedTokens, TokenReviewer, TokenSigner};
