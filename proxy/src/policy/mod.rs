//! What calls are subject to: one file with one type a policy, called by `exchange` and by whoever carries bytes.

pub mod access;
