//! The objects people write: YAML or JSON in, typed manifests out.
//!
//! `read` walks the whole way: `split` (a file's documents) → `tree` (values with their places) → `kind` (what an object is)
//! → `decode` (typed, or what does not fit) → `check` (rules beyond one field). What comes out holds only valid
//! values and is never checked again; whether references lead anywhere is the registry's to say.
//! Objects from the Kubernetes API arrive as JSON and take the same way from `kind` on.
//! Never reads a file: it is given text.

pub mod access_policy;
mod check;
mod decode;
pub mod endpoint_slice;
pub mod field;
pub mod gateway;
pub mod grpc_route;
pub mod http_route;
mod kind;
pub mod mesh;
pub mod metadata;
mod object;
pub mod path;
mod read;
pub mod reference_grant;
pub mod route;
mod schema;
pub mod secret;
pub mod service;
pub mod split;
pub mod stream_route;
pub mod traffic_policy;
pub mod tree;
mod union;
pub mod value;
pub mod workload;

pub use access_policy::AccessPolicy;
pub use decode::nearest;
pub use endpoint_slice::EndpointSlice;
pub use gateway::Gateway;
pub use grpc_route::GrpcRoute;
pub use http_route::HttpRoute;
pub use kind::Kind;
pub use mesh::Mesh;
pub use metadata::Metadata;
pub use object::{Manifest, Object, ObjectKey, Source};
pub use read::{DEFAULT_NAMESPACE, MAX_DOCUMENTS, MAX_FILE_BYTES, Parsed, from_json, parse};
pub use reference_grant::ReferenceGrant;
pub use schema::schema;
pub use secret::Secret;
pub use service::Service;
pub use stream_route::{TcpRoute, TlsRoute};
pub use traffic_policy::TrafficPolicy;
pub use workload::Workload;

#[cfg(test)]
mod tests;
