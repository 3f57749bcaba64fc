//! The model as Envoy v3 protobuf, and back.
//!
//! Owns how each resource looks on the wire, what of a foreign resource we can honour, and how a proxy names itself. What
//! Envoy's messages can say stands in their own fields, so that an Envoy could use the resource; the rest travels as our own messages in
//! its metadata ([`own`]). `decode(encode(r)) == r` for every resource. A resource that asks for something we do not do is refused
//! whole, with the path of the field; fields this release of the messages does not know are skipped, as protobuf has it.
//! Never opens a connection and never panics on what it is given.

pub mod access;
mod at;
mod balance;
pub mod certificates;
mod circuit_breaker;
mod cluster;
mod endpoints;
mod faults;
mod fields;
mod foreign;
mod limits;
mod listener;
mod lost;
pub mod names;
pub mod own;
pub mod pb;
pub mod rate_limit;
pub mod refusal;
mod route;
mod secret;
#[cfg(test)]
pub(crate) mod strategies;
#[cfg(test)]
mod tests;

pub use at::Unsupported;
pub use foreign::{Client, encode_for};
pub use lost::lost;
pub use names::{Node, Role};
pub use refusal::Refusal;

use crate::model::{Resource, ResourceKind};
use at::At;

/// The resource as an Envoy message. Its `type_url` is [`names::type_url`] of its kind.
pub fn encode(resource: &Resource) -> pb::Any {
    match resource {
        Resource::Listener(listener) => fields::pack(&listener::encode(listener)),
        Resource::RouteTable(table) => fields::pack(&route::encode(table)),
        Resource::Cluster(cluster) => fields::pack(&cluster::encode(cluster)),
        Resource::Endpoints(endpoints) => fields::pack(&endpoints::encode(endpoints)),
        Resource::Secret(secret) => fields::pack(&secret::encode(secret)),
        Resource::TrustBundle(bundle) => fields::pack(&secret::encode_bundle(bundle)),
    }
}

/// The reverse of [`encode`], and whatever of other control planes' resources the model can say. All or nothing.
pub fn decode(any: &pb::Any) -> Result<Resource, Unsupported> {
    let at = At::ROOT;
    match names::kind(&any.type_url) {
        Some(ResourceKind::Listener) => listener::decode(fields::unpack(any, &at)?).map(Resource::Listener),
        Some(ResourceKind::RouteTable) => route::decode(fields::unpack(any, &at)?).map(Resource::RouteTable),
        Some(ResourceKind::Cluster) => cluster::decode(fields::unpack(any, &at)?).map(Resource::Cluster),
        Some(ResourceKind::Endpoints) => {
            endpoints::decode(fields::unpack(any, &at)?).map(Resource::Endpoints)
        }
        Some(ResourceKind::Secret) => secret::decode(fields::unpack(any, &at)?),
        None => Err(at.refuse(format!("{:?} is not a kind of resource we know", any.type_url))),
    }
}
