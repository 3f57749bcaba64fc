//! What HTTPRoute, GRPCRoute, TCPRoute and TLSRoute have in common: parents, backends, header rules, mirrors.

mod backend;
mod header;
mod mirror;
mod parent;

pub use backend::{BackendKind, BackendRef, FilteredBackend};
pub use header::{HeaderField, HeaderMatch, HeaderModifier, ValueMatch};
pub use mirror::{Mirror, MirrorShare};
pub use parent::{ParentKind, ParentRef};

pub(super) use backend::check_backends;
pub(super) use header::{ValueMatchType, value_match};
pub(super) use parent::check_parents;

/// The API group of Gateway, HTTPRoute and their kin.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
