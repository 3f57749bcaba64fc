//! What calls are subject to: one file with one type a policy, called by `exchange` and by whoever carries bytes.
//!
//! Every type is compiled when configuration is loaded; none opens a connection or holds a body.

pub mod access;
pub mod deadline;
pub mod fault;
pub mod rate_limit;
pub mod retry;
