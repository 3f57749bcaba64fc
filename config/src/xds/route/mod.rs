//! Route tables.

use super::at::{At, Unsupported, take};
use super::pb::{self, route as proto};
use super::{circuit_breaker, faults, fields, own};
use crate::model::{HostPattern, Origin, Route, RouteTable, VirtualHost};

mod action;
mod backends;
mod cors;
pub(super) mod fault;
mod matches;
mod retry;
mod rewrite;

pub(super) use backends::LARGEST_WEIGHT;

pub(super) fn encode(table: &RouteTable) -> proto::RouteConfiguration {
    proto::RouteConfiguration {
        name: table.name.to_string(),
        virtual_hosts: table.hosts.iter().enumerate().map(|(i, host)| virtual_host(i, host)).collect(),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

fn virtual_host(index: usize, host: &VirtualHost) -> proto::VirtualHost {
    proto::VirtualHost {
        name: index.to_string(),
        domains: host.domains.iter().map(ToString::to_string).collect(),
        routes: host.routes.iter().map(route).collect(),
        ..Default::default()
    }
}

fn route(route: &Route) -> proto::Route {
    let (request_headers_to_add, request_headers_to_remove) = fields::header_edits(&route.request_headers);
    let (response_headers_to_add, response_headers_to_remove) = fields::header_edits(&route.response_headers);
    let mut own = own::Route {
        origin: Some((&route.origin).into()),
        retry: route.retry.as_deref().map(retry::own),
        caps: route.caps.as_deref().map(circuit_breaker::own_route_caps),
        faults: route.faults.as_deref().map(faults::encode),
        ..Default::default()
    };
    let action = action::encode(route, &mut own);
    proto::Route {
        name: route.name.to_string(),
        r#match: Some(matches::encode(&route.matches)),
        action: Some(action),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config: route
            .cors
            .iter()
            .map(cors::encode)
            .chain(route.faults.as_deref().and_then(fault::encode))
            .collect(),
        metadata: own::metadata(&own),
        ..Default::default()
    }
}

pub(super) fn decode(message: proto::RouteConfiguration) -> Result<RouteTable, Unsupported> {
    decode_at(message, &At::ROOT)
}

pub(super) fn decode_at(message: proto::RouteConfiguration, at: &At<'_>) -> Result<RouteTable, Unsupported> {
    take! { at, message => proto::RouteConfiguration;
        read { name, virtual_hosts }
        // Ports are never part of a host that is compared.
        ignore { ignore_port_in_host_matching, validate_clusters, metadata, max_direct_response_body_size_bytes }
        refuse {
            vhds, internal_only_headers, response_headers_to_add, response_headers_to_remove, request_headers_to_add,
            request_headers_to_remove, most_specific_header_mutations_wins, cluster_specifier_plugins,
            request_mirror_policies, vhost_header, ignore_path_parameters_in_path_matching, typed_per_filter_config,
            route_specifiers
        }
    };
    let mut hosts = Vec::with_capacity(virtual_hosts.len());
    let mut seen = std::collections::BTreeMap::new();
    for (i, host) in virtual_hosts.into_iter().enumerate() {
        let at = at.index("virtual_hosts", i);
        let host = decode_host(host, &name, &at)?;
        for domain in &host.domains {
            if seen.insert(domain.clone(), i).is_some() {
                return Err(at
                    .field("domains")
                    .refuse(format!("{domain} already stands in another virtual host")));
            }
        }
        hosts.push(host);
    }
    Ok(RouteTable { name: name.as_str().into(), hosts })
}

fn decode_host(host: proto::VirtualHost, table: &str, at: &At<'_>) -> Result<VirtualHost, Unsupported> {
    take! { at, host => proto::VirtualHost;
        read { domains, routes }
        ignore { name, virtual_clusters, metadata }
        refuse {
            matcher, require_tls, rate_limits, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, cors, typed_per_filter_config,
            include_request_attempt_count, include_attempt_count_in_response, retry_policy, retry_policy_typed_config,
            hedge_policy, include_is_timeout_retry_header, per_request_buffer_limit_bytes, request_body_buffer_limit,
            request_mirror_policies, route_specifiers
        }
    };
    let mut patterns: Vec<HostPattern> = Vec::with_capacity(domains.len());
    for (i, domain) in domains.iter().enumerate() {
        let pattern = HostPattern::parse(without_port(domain))
            .ok_or_else(|| at.index("domains", i).refuse(format!("{domain:?} is not a host pattern")))?;
        // Other control planes list a host with and without its port; to us that is one.
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    let mut decoded = Vec::with_capacity(routes.len());
    for (i, route) in routes.into_iter().enumerate() {
        decoded.push(decode_route(route, table, &at.index("routes", i))?);
    }
    Ok(VirtualHost { domains: patterns, routes: decoded })
}

fn decode_route(route: proto::Route, table: &str, at: &At<'_>) -> Result<Route, Unsupported> {
    take! { at, route => proto::Route;
        read {
            name, r#match, metadata, typed_per_filter_config, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, action
        }
        ignore { stat_prefix, decorator }
        refuse { tracing, per_request_buffer_limit_bytes, request_body_buffer_limit, route_specifiers }
    };
    let own: Option<own::Route> = own::unpack(metadata, at)?;
    let foreign = own.is_none();
    let mut own = own.unwrap_or_default();
    let origin = match own.origin.take() {
        Some(origin) => origin.into(),
        None if foreign => Origin::new("RouteConfiguration", "", table, &at.to_string()),
        None => return Err(own::at(&at.field("metadata")).field("origin").missing()),
    };
    let matches = matches::decode(r#match.unwrap_or_default(), &at.field("match"))?;
    let own_retry = own.retry.take();
    let in_own = at.field("metadata");
    let caps =
        own.caps.take().map(|caps| circuit_breaker::decode_route_caps(caps, &own::at(&in_own).field("caps")));
    let mut typed_per_filter_config = typed_per_filter_config;
    let envoys = fault::take_out(&mut typed_per_filter_config, &origin, at)?.filter(|_| foreign);
    let own_faults = own.faults.take();
    let own_faults = faults::decode_some(own_faults, &own::at(&in_own).field("faults"))?;
    let (action, common) = action::decode(action, own, foreign, &matches, at)?;
    let retry = match own_retry {
        Some(own) => Some(retry::decode_own(own, &own::at(&at.field("metadata")).field("retry"))?),
        None => common.retry,
    };
    Ok(Route {
        name: match name.as_str() {
            "" => "default".into(),
            name => name.into(),
        },
        origin,
        request_headers: fields::header_edits_of(
            request_headers_to_add,
            request_headers_to_remove,
            ("request_headers_to_add", "request_headers_to_remove"),
            at,
        )?,
        response_headers: fields::header_edits_of(
            response_headers_to_add,
            response_headers_to_remove,
            ("response_headers_to_add", "response_headers_to_remove"),
            at,
        )?,
        cors: cors::decode(typed_per_filter_config, at)?,
        mirrors: common.mirrors,
        timeouts: common.timeouts,
        retry: retry.map(Into::into),
        caps: caps.transpose()?.map(Into::into),
        faults: own_faults.or(envoys.map(Into::into)),
        hash: common.hash,
        action,
        matches,
    })
}

/// `reviews:9080` → `reviews`; an IPv6 address keeps its colons.
fn without_port(domain: &str) -> &str {
    match domain.rsplit_once(':') {
        Some((host, port))
            if !port.is_empty()
                && port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => domain,
    }
}

/// Status codes a [`pb::route::RedirectAction`] knows.
type RedirectCode = pb::route::redirect_action::RedirectResponseCode;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_a_domain() {
        for (domain, want) in [
            ("reviews:9080", "reviews"),
            ("reviews", "reviews"),
            ("*.example.com:80", "*.example.com"),
            ("::1", "::1"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("a:b", "a:b"),
        ] {
            assert_eq!(without_port(domain), want, "{domain}");
        }
    }
}
