//! Clusters: endpoints by EDS, or one name that the proxy resolves.

use std::time::Duration;

use super::at::{At, Unsupported, take};
use super::pb::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig};
use super::pb::upstream_http::HttpProtocolOptions;
use super::pb::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use super::pb::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use super::pb::{self, cluster as proto};
use super::{balance, circuit_breaker, endpoints, fields, own};
use crate::model::{CircuitBreaker, Cluster, ClusterName, Discovery, Multiplex, UpstreamHttp};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Envoy's own, where a cluster says nothing.
const ENVOY_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn encode(cluster: &Cluster) -> proto::Cluster {
    let own = own::Cluster {
        service: cluster.service.as_ref().map(Into::into),
        origin: cluster.origin.as_ref().map(Into::into),
        http: own::UpstreamHttp::from(cluster.http) as i32,
        circuit_breaker: Some(circuit_breaker::own(&cluster.circuit_breaker)),
        balance: balance::own(&cluster.balance),
        multiplex: own::Multiplex::from(cluster.multiplex) as i32,
    };
    let balance::Fields { lb_policy, lb_config, load_balancing_policy, common_lb_config, health_checks } =
        balance::encode(&cluster.balance);
    let discovered = match &cluster.discovery {
        Discovery::Endpoints => proto::Cluster {
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: fields::ads(),
                service_name: String::new(),
            }),
            ..Default::default()
        },
        #[allow(deprecated)] // `respect_dns_ttl` has a successor in an extension; this one every Envoy knows.
        Discovery::Dns { host, port } => proto::Cluster {
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::LogicalDns as i32)),
            load_assignment: Some(endpoints::of_name(cluster.name.as_str(), host, *port)),
            dns_lookup_family: DnsLookupFamily::All as i32,
            respect_dns_ttl: true,
            ..Default::default()
        },
    };
    proto::Cluster {
        name: cluster.name.to_string(),
        connect_timeout: Some(fields::duration(cluster.connect_timeout)),
        lb_policy,
        lb_config,
        load_balancing_policy,
        common_lb_config,
        health_checks,
        typed_extension_protocol_options: [(HTTP_OPTIONS.to_owned(), fields::pack(&http_options(cluster)))]
            .into(),
        circuit_breakers: Some(circuit_breaker::thresholds(&cluster.circuit_breaker.caps)),
        outlier_detection: cluster.circuit_breaker.ejection.as_ref().map(circuit_breaker::outlier_detection),
        metadata: own::metadata(&own),
        ..discovered
    }
}

fn http_options(cluster: &Cluster) -> HttpProtocolOptions {
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let mut common = pb::core::HttpProtocolOptions::default();
    if cluster.idle_timeout.is_zero() {
        // To Envoy an idle timeout of 0 is none at all; a connection for each request keeps none.
        common.max_requests_per_connection = fields::uint32(1);
    } else {
        common.idle_timeout = Some(fields::duration(cluster.idle_timeout));
        let caps = &cluster.circuit_breaker.caps;
        common.max_requests_per_connection = caps.requests_per_connection.and_then(fields::uint32);
    }
    HttpProtocolOptions {
        common_http_protocol_options: Some(common),
        upstream_protocol_options: Some(match cluster.http {
            UpstreamHttp::AsReceived => {
                UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                    http_protocol_options: Some(Default::default()),
                    http2_protocol_options: Some(Default::default()),
                    ..Default::default()
                })
            }
            UpstreamHttp::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(Default::default())),
            UpstreamHttp::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(Default::default())),
        }),
        ..Default::default()
    }
}

pub(super) fn decode(message: proto::Cluster) -> Result<Cluster, Unsupported> {
    let at = At::ROOT;
    take! { at, message => proto::Cluster;
        read {
            name, eds_cluster_config, connect_timeout, lb_policy, load_assignment, typed_extension_protocol_options,
            http2_protocol_options, metadata, cluster_discovery_type, circuit_breakers, outlier_detection,
            health_checks, common_lb_config, load_balancing_policy, lb_config
        }
        ignore {
            alt_stat_name, stats_matcher, per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout, dns_refresh_rate, dns_jitter, dns_failure_refresh_rate,
            respect_dns_ttl, dns_lookup_family, wait_for_warm_on_init, cleanup_interval, track_timeout_budgets,
            track_cluster_stats
        }
        refuse {
            transport_socket_matches, transport_socket_matcher, max_requests_per_connection,
            upstream_http_protocol_options, common_http_protocol_options, http_protocol_options,
            dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config,
            upstream_bind_config, lb_subset_config, transport_socket,
            protocol_selection, upstream_connection_options, close_connections_on_host_health_failure,
            ignore_health_on_host_removal, filters, lrs_server, lrs_report_endpoint_metrics,
            upstream_config, preconnect_policy, connection_pool_per_downstream_connection, queuing_policies
        }
    };
    let discovery = match cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(number)) => {
            let at = at.field("type");
            match DiscoveryType::try_from(number) {
                Ok(DiscoveryType::Eds) => {
                    eds(&name, eds_cluster_config)?;
                    Discovery::Endpoints
                }
                // One address is resolved to itself.
                Ok(DiscoveryType::StrictDns | DiscoveryType::LogicalDns | DiscoveryType::Static) => {
                    let (host, port) =
                        endpoints::single_name(load_assignment, &At::ROOT.field("load_assignment"))?;
                    Discovery::Dns { host: host.into(), port }
                }
                _ => return Err(at.unsupported()),
            }
        }
        Some(ClusterDiscoveryType::ClusterType(_)) => return Err(at.field("cluster_type").unsupported()),
        None => return Err(at.field("type").missing()),
    };
    let connect_timeout = fields::optional_duration(connect_timeout, &at.field("connect_timeout"))?
        .unwrap_or(ENVOY_CONNECT_TIMEOUT);
    if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&connect_timeout) {
        return Err(at
            .field("connect_timeout")
            .refuse(format!("{connect_timeout:?} is not within 1 ms and 60 s")));
    }
    let said = http(typed_extension_protocol_options, http2_protocol_options.is_some())?;
    let own: Option<own::Cluster> = own::unpack(metadata, &at)?;
    let metadata = at.field("metadata");
    let own_at = own::at(&metadata);
    let balance_at = own_at.field("balance");
    let (service, origin, http, multiplex, circuit_breaker, own_balance) = match own {
        Some(own) => {
            let http = own::enumeration::<own::UpstreamHttp, _>(own.http, &own_at.field("http"))?;
            let multiplex_at = own_at.field("multiplex");
            let multiplex = own::enumeration::<own::Multiplex, _>(own.multiplex, &multiplex_at)?;
            let breaker = match own.circuit_breaker {
                Some(breaker) => circuit_breaker::decode_own(breaker, &own_at.field("circuit_breaker"))?,
                None => CircuitBreaker::default(),
            };
            let balance = Some((own.balance, &balance_at));
            (own.service.map(Into::into), own.origin.map(Into::into), http, multiplex, breaker, balance)
        }
        None => {
            let breaker =
                circuit_breaker::decode(circuit_breakers, outlier_detection, said.requests_per_connection)?;
            (None, None, said.http, Multiplex::Never, breaker, None)
        }
    };
    let balancing =
        balance::Fields { lb_policy, lb_config, load_balancing_policy, common_lb_config, health_checks };
    let balance = balance::decode(balancing, own_balance, &at)?;
    Ok(Cluster {
        name: ClusterName::new(name),
        service,
        discovery,
        http,
        connect_timeout,
        idle_timeout: said.idle_timeout,
        multiplex,
        circuit_breaker: circuit_breaker.into(),
        balance: balance.into(),
        origin,
    })
}

fn eds(name: &str, config: Option<EdsClusterConfig>) -> Result<(), Unsupported> {
    let at = At::ROOT;
    let at = at.field("eds_cluster_config");
    let config = config.ok_or_else(|| at.missing())?;
    fields::from_ads(config.eds_config, &at.field("eds_config"))?;
    if config.service_name.is_empty() || config.service_name == name {
        Ok(())
    } else {
        Err(at.field("service_name").refuse("not supported; endpoints have the name of their cluster"))
    }
}

/// What Envoy's own options say.
struct Said {
    http: UpstreamHttp,
    idle_timeout: Duration,
    requests_per_connection: Option<u32>,
}

fn http(options: std::collections::HashMap<String, pb::Any>, http2: bool) -> Result<Said, Unsupported> {
    let at = At::ROOT;
    let mut decoded = Said {
        http: if http2 { UpstreamHttp::Http2 } else { UpstreamHttp::Http1 },
        idle_timeout: Cluster::DEFAULT_IDLE_TIMEOUT,
        requests_per_connection: None,
    };
    for (name, any) in options {
        let at = at.key("typed_extension_protocol_options", &name);
        decoded = decode_options(fields::unpack(&any, &at)?, &at)?;
    }
    Ok(decoded)
}

fn decode_options(options: HttpProtocolOptions, at: &At<'_>) -> Result<Said, Unsupported> {
    take! { at, options => HttpProtocolOptions;
        read { common_http_protocol_options, upstream_protocol_options }
        ignore {}
        refuse {
            upstream_http_protocol_options, http_filters, header_validation_config, outlier_detection,
            request_mirror_policies, hash_policy, retry_policy
        }
    };
    let common_at = at.field("common_http_protocol_options");
    take! { common_at, common_http_protocol_options.unwrap_or_default() => pb::core::HttpProtocolOptions;
        read { idle_timeout, max_requests_per_connection }
        ignore {}
        refuse {
            max_connection_duration, max_connection_duration_jitter, max_headers_count, max_response_headers_kb,
            max_stream_duration, headers_with_underscores_action
        }
    };
    let idle_at = common_at.field("idle_timeout");
    let requests_per_connection = max_requests_per_connection.map(|max| max.value).filter(|max| *max != 0);
    let idle_timeout = match fields::optional_duration(idle_timeout, &idle_at)? {
        Some(Duration::ZERO) => return Err(idle_at.refuse("0 (never) is not supported")),
        Some(idle) => idle,
        // That is how `encode` says that no connection is kept.
        None if requests_per_connection == Some(1) => Duration::ZERO,
        None => Cluster::DEFAULT_IDLE_TIMEOUT,
    };
    let http = match upstream_protocol_options {
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => UpstreamHttp::AsReceived,
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => UpstreamHttp::Http2,
            Some(ProtocolConfig::HttpProtocolOptions(_)) | None => UpstreamHttp::Http1,
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return Err(at.field("explicit_http_config").field("http3_protocol_options").unsupported());
            }
        },
        Some(UpstreamProtocolOptions::AutoConfig(_)) => return Err(at.field("auto_config").unsupported()),
        None => UpstreamHttp::Http1,
    };
    Ok(Said { http, idle_timeout, requests_per_connection })
}
