//! Routing: which rule takes a request, and what the rule changes.
//!
//! Owns the compiled form of a route table ([`Table`]) and one file for each thing a rule may do. The meaning of a match
//! is the model's (`outrigger_config::model::RouteTable::find`), which `explain` uses too: a table here only finds the same route
//! faster, and a property test compares the two. Nothing here does IO, reads a clock or counts.

pub mod cors;
mod headers;
mod redirect;
mod rewrite;
mod split;
mod table;

pub use headers::apply as apply_header_edits;
pub use redirect::{Seen, location};
pub use rewrite::{Rewrite, with_path};
pub use split::Split;
pub use table::{Action, Backend, Forward, Mirror, Route, Table, Target, Upstream};
