//! Filter chains: what a connection has to look like, and what then becomes of it.
//!
//! Owns the two network filters we have words for, the HTTP connection manager and the TCP proxy. What a chain means in
//! its listener is decided by the listener's kind.

use std::time::Duration;

use super::super::at::{At, Unsupported, take};
use super::super::pb::hcm::http_connection_manager::{CodecType, RouteSpecifier};
use super::super::pb::hcm::http_filter;
use super::super::pb::listener::filter::ConfigType;
use super::super::pb::tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight;
use super::super::pb::tcp_proxy::tcp_proxy::{ClusterSpecifier, WeightedCluster as Weighted};
use super::super::pb::{self, listener as proto};
use super::super::{faults, fields, own, route};
use crate::model::{
    HostPattern, Origin, RouteTable, RouteTableName, SecretName, TcpForward, WeightedCluster,
};

/// A filter chain taken apart.
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) port: Option<u16>,
    pub(super) sni: Vec<HostPattern>,
    /// Only connections that begin with a ClientHello.
    pub(super) tls: bool,
    /// Only connections that begin like HTTP.
    pub(super) sniffed_http: bool,
    /// TLS ends here, with one of these certificates.
    pub(super) certificates: Option<Vec<SecretName>>,
    pub(super) content: Content,
}

pub(super) enum Content {
    Http(RouteTableName),
    /// A route table that stands in the chain itself.
    HttpInline(RouteTable),
    Tcp(TcpForward),
    /// The connection is closed.
    Close,
}

impl Chain {
    /// A chain that takes every connection.
    pub(super) fn new(name: impl Into<String>, content: Content) -> Self {
        let name = name.into();
        Self {
            name,
            port: None,
            sni: Vec::new(),
            tls: false,
            sniffed_http: false,
            certificates: None,
            content,
        }
    }

    pub(super) fn for_sni(mut self, sni: &HostPattern) -> Self {
        self.tls = true;
        self.sni = vec![sni.clone()];
        self
    }

    pub(super) fn into_message(self) -> proto::FilterChain {
        // Envoy has no pattern for "any name": the condition is left out.
        let server_names: Vec<_> =
            self.sni.iter().filter(|sni| **sni != HostPattern::Any).map(ToString::to_string).collect();
        let conditions = proto::FilterChainMatch {
            destination_port: self.port.and_then(|port| fields::uint32(port.into())),
            server_names,
            transport_protocol: if self.tls { "tls".into() } else { String::new() },
            application_protocols: if self.sniffed_http {
                HTTP_PROTOCOLS.map(str::to_owned).to_vec()
            } else {
                Vec::new()
            },
            ..Default::default()
        };
        let filters = match self.content {
            Content::Http(routes) => vec![http(RouteSpecifier::Rds(pb::hcm::Rds {
                config_source: fields::ads(),
                route_config_name: routes.to_string(),
            }))],
            Content::HttpInline(table) => {
                vec![http(RouteSpecifier::RouteConfig(route::encode(&table)))]
            }
            Content::Tcp(forward) => tcp(&forward),
            Content::Close => Vec::new(),
        };
        proto::FilterChain {
            name: self.name,
            filter_chain_match: (conditions != Default::default()).then_some(conditions),
            filters,
            transport_socket: self.certificates.as_deref().map(terminate_tls),
            ..Default::default()
        }
    }

    pub(super) fn from_message(chain: proto::FilterChain, at: &At<'_>) -> Result<Self, Unsupported> {
        take! { at, chain => proto::FilterChain;
            read { name, filter_chain_match, filters, transport_socket }
            ignore { metadata }
            refuse { use_proxy_proto, transport_socket_connect_timeout }
        };
        let match_at = at.field("filter_chain_match");
        take! { match_at, filter_chain_match.unwrap_or_default() => proto::FilterChainMatch;
            read { destination_port, server_names, transport_protocol, application_protocols }
            ignore {}
            refuse {
                prefix_ranges, address_suffix, suffix_len, direct_source_prefix_ranges, source_type,
                source_prefix_ranges, source_ports
            }
        };
        let port = destination_port
            .map(|port| fields::port(port.value, &match_at.field("destination_port")))
            .transpose()?;
        let tls = match transport_protocol.as_str() {
            "tls" => true,
            "" | "raw_buffer" => !server_names.is_empty(),
            _ => return Err(match_at.field("transport_protocol").unsupported()),
        };
        let mut sni = Vec::new();
        for (i, name) in server_names.iter().enumerate() {
            let at = match_at.index("server_names", i);
            sni.push(
                HostPattern::parse(name)
                    .ok_or_else(|| at.refuse(format!("{name:?} is not a host pattern")))?,
            );
        }
        if let Some(i) = application_protocols.iter().position(|p| !HTTP_PROTOCOLS.contains(&p.as_str())) {
            return Err(match_at.index("application_protocols", i).unsupported());
        }
        let socket_at = at.field("transport_socket");
        let certificates = match transport_socket {
            None => None,
            Some(socket) => certificates(socket, &socket_at)?,
        };
        Ok(Self {
            name,
            port,
            sni,
            tls,
            sniffed_http: !application_protocols.is_empty(),
            certificates,
            content: content(filters, at)?,
        })
    }
}

/// What Envoy's HTTP inspector finds.
const HTTP_PROTOCOLS: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// One TCP proxy for what it can say: backends with a weight. None that has one: an empty chain, which closes.
fn tcp(forward: &TcpForward) -> Vec<proto::Filter> {
    let weighted: Vec<_> = forward.backends.iter().filter(|backend| backend.weight > 0).collect();
    let specifier = match weighted.as_slice() {
        [] => return Vec::new(),
        [only] if only.weight == 1 => ClusterSpecifier::Cluster(only.cluster.to_string()),
        several => ClusterSpecifier::WeightedClusters(Weighted {
            clusters: several
                .iter()
                .map(|backend| ClusterWeight {
                    name: backend.cluster.to_string(),
                    weight: backend.weight,
                    metadata_match: None,
                })
                .collect(),
        }),
    };
    let proxy = pb::tcp_proxy::TcpProxy {
        stat_prefix: "tcp".into(),
        cluster_specifier: Some(specifier),
        // Absent would be an hour, zero is no limit.
        idle_timeout: Some(fields::duration(forward.idle.unwrap_or_default())),
        ..Default::default()
    };
    vec![filter("envoy.filters.network.tcp_proxy", fields::pack(&proxy))]
}

/// What the chain says of `forward`, where it does not say all.
pub(super) fn unsaid(forward: &TcpForward) -> Option<own::TcpForward> {
    let weighted = !forward.backends.is_empty() && forward.backends.iter().all(|backend| backend.weight > 0);
    let said = weighted && forward.faults.is_none();
    (!said).then(|| own::TcpForward {
        clusters: forward
            .backends
            .iter()
            .map(|backend| own::WeightedCluster {
                cluster: backend.cluster.to_string(),
                weight: backend.weight,
            })
            .collect(),
        idle: forward.idle.map(fields::duration),
        faults: forward.faults.as_deref().map(faults::encode),
    })
}

pub(super) fn forward(own: own::TcpForward, at: &At<'_>) -> Result<TcpForward, Unsupported> {
    let weighted = own.clusters.into_iter().enumerate().map(|(i, backend)| {
        Ok(WeightedCluster {
            cluster: backend.cluster.as_str().into(),
            weight: weight(backend.weight, &at.index("clusters", i))?,
        })
    });
    Ok(TcpForward {
        backends: weighted.collect::<Result<_, _>>()?,
        idle: idle(own.idle, &at.field("idle"))?,
        faults: faults::decode_some(own.faults, &at.field("faults"))?,
    })
}

fn idle(given: Option<pb::Duration>, at: &At<'_>) -> Result<Option<Duration>, Unsupported> {
    Ok(fields::optional_duration(given, at)?.filter(|idle| !idle.is_zero()))
}

fn weight(weight: u32, at: &At<'_>) -> Result<u32, Unsupported> {
    if weight <= route::LARGEST_WEIGHT {
        Ok(weight)
    } else {
        Err(at.field("weight").refuse(format!("{weight} is over {}", route::LARGEST_WEIGHT)))
    }
}

fn http(routes: RouteSpecifier) -> proto::Filter {
    // Whoever does not know the one in the middle may go on without it; what it does stands in the routes.
    let filters = [
        ("envoy.filters.http.cors", fields::pack(&pb::cors::Cors::default()), false),
        ("envoy.filters.http.fault", fields::pack(&pb::fault::HttpFault::default()), true),
        ("envoy.filters.http.router", fields::pack(&pb::router::Router::default()), false),
    ];
    let manager = pb::hcm::HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: "http".into(),
        http_filters: filters
            .into_iter()
            .map(|(name, config, is_optional)| pb::hcm::HttpFilter {
                name: name.into(),
                is_optional,
                config_type: Some(http_filter::ConfigType::TypedConfig(config)),
                ..Default::default()
            })
            .collect(),
        use_remote_address: fields::bool_value(true),
        upgrade_configs: vec![pb::hcm::http_connection_manager::UpgradeConfig {
            upgrade_type: "websocket".into(),
            ..Default::default()
        }],
        route_specifier: Some(routes),
        ..Default::default()
    };
    filter("envoy.filters.network.http_connection_manager", fields::pack(&manager))
}

fn filter(name: &str, config: pb::Any) -> proto::Filter {
    proto::Filter { name: name.into(), config_type: Some(ConfigType::TypedConfig(config)) }
}

fn content(filters: Vec<proto::Filter>, at: &At<'_>) -> Result<Content, Unsupported> {
    let mut filters = filters.into_iter();
    let Some(first) = filters.next() else { return Ok(Content::Close) };
    if filters.next().is_some() {
        return Err(at
            .index("filters", 1)
            .refuse("not supported; one filter decides what becomes of a connection"));
    }
    let at = at.index("filters", 0);
    let Some(ConfigType::TypedConfig(any)) = first.config_type else {
        return Err(at.refuse("has no typed_config"));
    };
    let at = at.field("typed_config");
    if any.type_url == <pb::tcp_proxy::TcpProxy as prost::Name>::type_url() {
        return tcp_proxy(fields::unpack(&any, &at)?, &at).map(Content::Tcp);
    }
    if any.type_url == <pb::hcm::HttpConnectionManager as prost::Name>::type_url() {
        return http_manager(fields::unpack(&any, &at)?, &at);
    }
    Err(at.refuse(format!("{:?} is not supported", any.type_url)))
}

/// No `idle_timeout` is no limit here: an app's connection is not ours to end unless somebody says so.
fn tcp_proxy(proxy: pb::tcp_proxy::TcpProxy, at: &At<'_>) -> Result<TcpForward, Unsupported> {
    take! { at, proxy => pb::tcp_proxy::TcpProxy;
        read { cluster_specifier, idle_timeout }
        ignore { stat_prefix }
        refuse {
            on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, access_log,
            max_connect_attempts, backoff_options, hash_policy, tunneling_config, max_downstream_connection_duration,
            max_downstream_connection_duration_jitter_percentage, access_log_flush_interval,
            flush_access_log_on_connected, access_log_options, proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy,
            upstream_connect_mode, max_early_data_bytes, check_drain_close
        }
    };
    let idle = idle(idle_timeout, &at.field("idle_timeout"))?;
    let backends = match cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            vec![WeightedCluster { cluster: name.as_str().into(), weight: 1 }]
        }
        Some(ClusterSpecifier::WeightedClusters(Weighted { clusters })) => {
            let at = at.field("weighted_clusters");
            let mut backends = Vec::with_capacity(clusters.len());
            for (i, cluster) in clusters.into_iter().enumerate() {
                let at = at.index("clusters", i);
                if cluster.metadata_match.is_some() {
                    return Err(at.field("metadata_match").unsupported());
                }
                let weight = weight(cluster.weight, &at)?;
                backends.push(WeightedCluster { cluster: cluster.name.as_str().into(), weight });
            }
            backends
        }
        None => return Err(at.field("cluster_specifier").missing()),
    };
    Ok(TcpForward { backends, idle, faults: None })
}

fn http_manager(manager: pb::hcm::HttpConnectionManager, at: &At<'_>) -> Result<Content, Unsupported> {
    take! { at, manager => pb::hcm::HttpConnectionManager;
        read { http_filters, route_specifier }
        // Our proxy detects the protocol, sets x-forwarded-* and x-request-id, keeps trailers and passes upgrades on in any case.
        ignore {
            codec_type, stat_prefix, use_remote_address, upgrade_configs, generate_request_id, http_protocol_options,
            http2_protocol_options, server_name, server_header_transformation
        }
        refuse {
            add_user_agent, tracing, common_http_protocol_options, http1_safe_max_connection_duration,
            http3_protocol_options, scheme_header_transformation, max_request_headers_kb, stream_idle_timeout,
            stream_flush_timeout, request_timeout, request_headers_timeout, drain_timeout, drain_timeout_jitter,
            delayed_close_timeout, access_log, access_log_flush_interval, flush_access_log_on_new_request,
            access_log_options, xff_num_trusted_hops, original_ip_detection_extensions,
            early_header_mutation_extensions, internal_address_config, skip_xff_append, via,
            preserve_external_request_id, always_set_request_id_in_response, forward_client_cert_details,
            set_current_client_cert_details, forward_client_cert_matcher, proxy_100_continue,
            represent_ipv4_remote_address_as_ipv4_mapped_ipv6, normalize_path, merge_slashes,
            path_with_escaped_slashes_action, request_id_extension, local_reply_config, strip_matching_host_port,
            stream_error_on_invalid_http_message, path_normalization_options, strip_trailing_host_dot,
            proxy_status_config, typed_header_validation_config, append_x_forwarded_port, append_local_overload,
            add_proxy_protocol_connection_state, forward_proto_config, strip_port_mode
        }
    };
    for (i, filter) in http_filters.into_iter().enumerate() {
        http_filter(filter, &at.index("http_filters", i))?;
    }
    match route_specifier {
        Some(RouteSpecifier::Rds(rds)) => {
            let at = at.field("rds");
            fields::from_ads(rds.config_source, &at.field("config_source"))?;
            if rds.route_config_name.is_empty() {
                return Err(at.field("route_config_name").missing());
            }
            Ok(Content::Http(rds.route_config_name.as_str().into()))
        }
        Some(RouteSpecifier::RouteConfig(table)) => {
            route::decode_at(table, &at.field("route_config")).map(Content::HttpInline)
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(at.field("scoped_routes").unsupported()),
        None => Err(at.field("route_specifier").missing()),
    }
}

fn http_filter(filter: pb::hcm::HttpFilter, at: &At<'_>) -> Result<(), Unsupported> {
    if filter.disabled || filter.is_optional {
        return Ok(());
    }
    let Some(http_filter::ConfigType::TypedConfig(any)) = filter.config_type else {
        return Err(at.refuse("has no typed_config"));
    };
    let at = at.field("typed_config");
    if any.type_url == <pb::cors::Cors as prost::Name>::type_url() {
        return Ok(());
    }
    if any.type_url == <pb::fault::HttpFault as prost::Name>::type_url() {
        let origin = Origin::new("Listener", "", "", &at.to_string());
        return match route::fault::decode(fields::unpack(&any, &at)?, &origin, &at)? {
            None => Ok(()),
            Some(_) => Err(at.refuse("faults for all routes are not supported; configure the routes")),
        };
    }
    if any.type_url != <pb::router::Router as prost::Name>::type_url() {
        return Err(at.refuse(format!("{:?} is not supported", any.type_url)));
    }
    let router: pb::router::Router = fields::unpack(&any, &at)?;
    take! { at, router => pb::router::Router;
        read {}
        ignore { dynamic_stats, start_child_span, suppress_envoy_headers, suppress_grpc_request_failure_code_stats }
        refuse {
            upstream_log, upstream_log_options, strict_check_headers, respect_expected_rq_timeout,
            upstream_http_filters, reject_connect_request_early_data
        }
    };
    Ok(())
}

fn terminate_tls(certificates: &[SecretName]) -> pb::core::TransportSocket {
    let context = pb::tls::DownstreamTlsContext {
        common_tls_context: Some(pb::tls::CommonTlsContext {
            tls_certificate_sds_secret_configs: certificates
                .iter()
                .map(|name| pb::tls::SdsSecretConfig { name: name.to_string(), sds_config: fields::ads() })
                .collect(),
            alpn_protocols: vec!["h2".into(), "http/1.1".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    pb::core::TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(pb::core::transport_socket::ConfigType::TypedConfig(fields::pack(&context))),
    }
}

/// `None` for the socket that does nothing.
fn certificates(
    socket: pb::core::TransportSocket,
    at: &At<'_>,
) -> Result<Option<Vec<SecretName>>, Unsupported> {
    let Some(pb::core::transport_socket::ConfigType::TypedConfig(any)) = socket.config_type else {
        return Err(at.refuse("has no typed_config"));
    };
    let at = at.field("typed_config");
    if any.type_url == "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" {
        return Ok(None);
    }
    let context: pb::tls::DownstreamTlsContext = fields::unpack(&any, &at)?;
    take! { at, context => pb::tls::DownstreamTlsContext;
        read { common_tls_context, require_client_certificate }
        ignore {
            disable_stateful_session_resumption, session_timeout, full_scan_certs_on_sni_mismatch, prefer_client_ciphers
        }
        refuse { require_sni, ocsp_staple_policy, session_ticket_keys_type }
    };
    if require_client_certificate.is_some_and(|required| required.value) {
        return Err(at.field("require_client_certificate").unsupported());
    }
    let at = at.field("common_tls_context");
    take! { at, common_tls_context.unwrap_or_default() => pb::tls::CommonTlsContext;
        read { tls_certificate_sds_secret_configs }
        ignore { alpn_protocols }
        refuse {
            tls_params, tls_certificates, tls_certificate_provider_instance, custom_tls_certificate_selector,
            tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance, custom_handshaker,
            key_log, validation_context_type
        }
    };
    let mut names = Vec::new();
    for (i, secret) in tls_certificate_sds_secret_configs.into_iter().enumerate() {
        let at = at.index("tls_certificate_sds_secret_configs", i);
        fields::from_ads(secret.sds_config, &at.field("sds_config"))?;
        names.push(secret.name.as_str().into());
    }
    Ok(Some(names))
}
