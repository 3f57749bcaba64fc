//! Listeners: destinations of an app, a workload's inbound side, a gateway. Which of them one is, its name says.

use super::at::{At, Unsupported, take};
use super::fields;
use super::pb::{self, listener as proto};
use crate::model::{DestinationName, Gateway, Listener};

mod chain;
mod destination;
mod gateway;
mod inbound;

pub(super) fn encode(listener: &Listener) -> proto::Listener {
    match listener {
        Listener::Destination(destination) => destination::encode(destination),
        Listener::Inbound(inbound) => inbound::encode(inbound),
        Listener::Gateway(gateway) => gateway::encode(gateway),
    }
}

pub(super) fn decode(message: proto::Listener) -> Result<Listener, Unsupported> {
    let at = At::ROOT;
    take! { at, message => proto::Listener;
        read {
            name, address, additional_addresses, filter_chains, default_filter_chain, metadata, listener_filters,
            api_listener
        }
        ignore {
            stat_prefix, stats_matcher, traffic_direction, per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout, drain_type, bind_to_port, reuse_port, enable_reuse_port,
            use_original_dst, tcp_backlog_size, max_connections_to_accept_per_socket_event, connection_balance_config,
            freebind, transparent, deprecated_v1
        }
        refuse {
            fcds_config, filter_chain_matcher, listener_filters_timeout, continue_on_listener_filters_timeout,
            socket_options, tcp_fast_open_queue_length, udp_listener_config, access_log, enable_mptcp,
            ignore_global_conn_limit, bypass_overload_manager, tcp_keepalive, listener_specifier
        }
    };
    for (i, filter) in listener_filters.iter().enumerate() {
        listener_filter(filter, &at.index("listener_filters", i))?;
    }
    let parts =
        Parts { address, additional_addresses, filter_chains, default_filter_chain, metadata, api_listener };
    if name == Listener::INBOUND {
        return inbound::decode(parts).map(Listener::Inbound);
    }
    if let Some(destination) = DestinationName::from_resource_name(&name) {
        if destination.resource_name() != name {
            return Err(at.field("name").refuse(format!("write it {:?}", destination.resource_name())));
        }
        return destination::decode(destination, parts).map(Listener::Destination);
    }
    if let Some((namespace, gateway)) = name.strip_prefix("gateway|").and_then(|rest| rest.split_once('/')) {
        return gateway::decode(namespace, gateway, parts).map(Listener::Gateway);
    }
    Err(at.field("name").refuse(format!(
        "{name:?} is none of outbound|HOST:PORT, inbound, {}",
        Gateway::resource_name("NAMESPACE", "NAME")
    )))
}

/// What of a listener means something to its kind.
struct Parts {
    address: Option<pb::core::Address>,
    additional_addresses: Vec<proto::AdditionalAddress>,
    filter_chains: Vec<proto::FilterChain>,
    default_filter_chain: Option<proto::FilterChain>,
    metadata: Option<pb::core::Metadata>,
    api_listener: Option<proto::ApiListener>,
}

/// Listener filters find out what our proxy always finds out: TLS, HTTP, the original destination.
fn listener_filter(filter: &proto::ListenerFilter, at: &At<'_>) -> Result<(), Unsupported> {
    let Some(proto::listener_filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(at.refuse("has no typed_config"));
    };
    let known = [TLS_INSPECTOR.1, HTTP_INSPECTOR.1, ORIGINAL_DST.1];
    if known.iter().any(|known| any.type_url.strip_prefix("type.googleapis.com/") == Some(known)) {
        Ok(())
    } else {
        Err(at.field("typed_config").refuse(format!("{:?} is not supported", any.type_url)))
    }
}

const TLS_INSPECTOR: (&str, &str) = (
    "envoy.filters.listener.tls_inspector",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
);
const HTTP_INSPECTOR: (&str, &str) = (
    "envoy.filters.listener.http_inspector",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
);
const ORIGINAL_DST: (&str, &str) =
    ("envoy.filters.listener.original_dst", "envoy.extensions.filters.listener.original_dst.v3.OriginalDst");

/// A listener filter with its default configuration: an empty message.
fn inspector((name, message): (&str, &str)) -> proto::ListenerFilter {
    let any = pb::Any { type_url: format!("type.googleapis.com/{message}"), value: Vec::new() };
    proto::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(proto::listener_filter::ConfigType::TypedConfig(any)),
        filter_disabled: None,
    }
}

/// All addresses of the host, for a port the proxy itself opens.
fn any_address(port: u16) -> Option<pb::core::Address> {
    fields::address("0.0.0.0", port)
}
