//! The Envoy v3 messages used here, under short names. The one place that names the crate they come from.

pub use envoy_types::pb::envoy::config::cluster::v3 as cluster;
pub use envoy_types::pb::envoy::config::core::v3 as core;
pub use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
pub use envoy_types::pb::envoy::config::listener::v3 as listener;
pub use envoy_types::pb::envoy::config::route::v3 as route;
pub use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as ratelimit_descriptor;
pub use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as fault_common;
pub use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
pub use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
pub use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
pub use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3 as http_inspector;
pub use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3 as original_dst;
pub use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector;
pub use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;
pub use envoy_types::pb::envoy::service::discovery::v3 as discovery;
pub use envoy_types::pb::envoy::service::ratelimit::v3 as ratelimit;
pub use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub use envoy_types::pb::envoy::r#type::v3 as percent;
pub use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, Struct, UInt32Value, UInt64Value};
pub use envoy_types::pb::google::rpc::Status;

/// Load balancing policies as extensions.
pub mod lb {
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3 as common;
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3 as least_request;
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::maglev::v3 as maglev;
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3 as random;
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::ring_hash::v3 as ring_hash;
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3 as round_robin;
}

/// Values of a [`Struct`].
pub mod core_value {
    use envoy_types::pb::google::protobuf::{Value, value::Kind};

    pub fn string(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    pub fn text(value: &Value) -> Option<&str> {
        match &value.kind {
            Some(Kind::StringValue(text)) => Some(text),
            _ => None,
        }
    }
}
