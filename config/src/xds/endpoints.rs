//! Endpoints of a cluster, grouped by zone as Envoy groups them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::at::{At, Unsupported, take};
use super::pb::endpoint as proto;
use super::pb::endpoint::lb_endpoint::HostIdentifier;
use super::pb::{self};
use super::{fields, own};
use crate::model::{Endpoint, Endpoints, Health, SpiffeId};

/// Bound of a weight in the model.
const LARGEST_WEIGHT: u32 = 1_000_000;

pub(super) fn encode(endpoints: &Endpoints) -> proto::ClusterLoadAssignment {
    let mut zones: BTreeMap<Option<&Arc<str>>, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in &endpoints.endpoints {
        zones.entry(endpoint.zone.as_ref()).or_default().push(endpoint);
    }
    proto::ClusterLoadAssignment {
        cluster_name: endpoints.cluster.to_string(),
        endpoints: zones
            .into_iter()
            .map(|(zone, endpoints)| proto::LocalityLbEndpoints {
                locality: zone
                    .map(|zone| pb::core::Locality { zone: zone.to_string(), ..Default::default() }),
                lb_endpoints: endpoints.into_iter().map(lb_endpoint).collect(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn lb_endpoint(endpoint: &Endpoint) -> proto::LbEndpoint {
    use pb::core::HealthStatus;
    let own = own::Endpoint {
        workload: endpoint.workload.as_deref().map(Into::into),
        identity: endpoint.identity.as_ref().map(ToString::to_string),
        meshed: endpoint.meshed,
        for_zones: endpoint.for_zones.iter().map(|zone| zone.to_string()).collect(),
    };
    proto::LbEndpoint {
        health_status: match endpoint.health {
            Health::Healthy => HealthStatus::Healthy,
            Health::Unknown => HealthStatus::Unknown,
            Health::Draining => HealthStatus::Draining,
            Health::Unhealthy => HealthStatus::Unhealthy,
        } as i32,
        metadata: own::metadata(&own),
        load_balancing_weight: fields::uint32(endpoint.weight),
        host_identifier: Some(HostIdentifier::Endpoint(proto::Endpoint {
            address: fields::address(&endpoint.address.ip().to_string(), endpoint.address.port()),
            ..Default::default()
        })),
    }
}

pub(super) fn decode(message: proto::ClusterLoadAssignment) -> Result<Endpoints, Unsupported> {
    let at = At::ROOT;
    let (cluster, localities) = localities(message, &at)?;
    let mut endpoints = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, locality) in localities.into_iter().enumerate() {
        let at = at.index("endpoints", i);
        let (zone, members) = members(locality, &at)?;
        for (i, endpoint) in members.into_iter().enumerate() {
            let at = at.index("lb_endpoints", i);
            let endpoint = decode_endpoint(endpoint, zone.clone(), &at)?;
            if !seen.insert(endpoint.address) {
                return Err(at.field("endpoint").refuse(format!("{} is there twice", endpoint.address)));
            }
            endpoints.push(endpoint);
        }
    }
    endpoints.sort_by_key(|endpoint| endpoint.address);
    Ok(Endpoints { cluster: cluster.as_str().into(), endpoints })
}

fn localities(
    message: proto::ClusterLoadAssignment,
    at: &At<'_>,
) -> Result<(String, Vec<proto::LocalityLbEndpoints>), Unsupported> {
    take! { at, message => proto::ClusterLoadAssignment;
        read { cluster_name, endpoints, policy }
        ignore {}
        refuse { named_endpoints }
    };
    let at = at.field("policy");
    take! { at, policy.unwrap_or_default() => proto::cluster_load_assignment::Policy;
        read {}
        ignore { overprovisioning_factor, endpoint_stale_after }
        refuse { drop_overloads, weighted_priority_health }
    };
    Ok((cluster_name, endpoints))
}

fn members(
    locality: proto::LocalityLbEndpoints,
    at: &At<'_>,
) -> Result<(Option<Arc<str>>, Vec<proto::LbEndpoint>), Unsupported> {
    take! { at, locality => proto::LocalityLbEndpoints;
        read { locality, lb_endpoints }
        // Weights of localities count only for load balancers that are asked for elsewhere.
        ignore { metadata, load_balancing_weight, proximity }
        refuse { priority, lb_config }
    };
    Ok((locality.and_then(|locality| fields::some_arc(locality.zone)), lb_endpoints))
}

fn decode_endpoint(
    endpoint: proto::LbEndpoint,
    zone: Option<Arc<str>>,
    at: &At<'_>,
) -> Result<Endpoint, Unsupported> {
    use pb::core::HealthStatus;
    take! { at, endpoint => proto::LbEndpoint;
        read { health_status, metadata, load_balancing_weight, host_identifier }
        ignore {}
        refuse {}
    };
    let own: own::Endpoint = own::unpack(metadata, at)?.unwrap_or_default();
    let metadata_at = at.field("metadata");
    let own_at = own::at(&metadata_at);
    let identity = own.identity.map(|id| id.parse::<SpiffeId>()).transpose();
    let identity = identity.map_err(|error| own_at.field("identity").refuse(error.to_string()))?;
    if own.meshed && identity.is_none() {
        return Err(own_at.field("identity").missing());
    }
    let weight = load_balancing_weight.map_or(1, |weight| weight.value);
    if !(1..=LARGEST_WEIGHT).contains(&weight) {
        return Err(at
            .field("load_balancing_weight")
            .refuse(format!("{weight} is not within 1 and {LARGEST_WEIGHT}")));
    }
    Ok(Endpoint {
        address: fields::socket_address(
            address(host_identifier, at)?,
            &at.field("endpoint").field("address"),
        )?,
        health: match HealthStatus::try_from(health_status) {
            Ok(HealthStatus::Unknown) => Health::Unknown,
            Ok(HealthStatus::Healthy) => Health::Healthy,
            // Both get nothing new while others can take it.
            Ok(HealthStatus::Draining | HealthStatus::Degraded) => Health::Draining,
            Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Health::Unhealthy,
            Err(_) => return Err(at.field("health_status").unsupported()),
        },
        weight,
        workload: own.workload.map(Into::into),
        zone,
        for_zones: own.for_zones.into_iter().map(Into::into).collect(),
        identity,
        meshed: own.meshed,
    })
}

fn address(host: Option<HostIdentifier>, at: &At<'_>) -> Result<Option<pb::core::Address>, Unsupported> {
    let Some(HostIdentifier::Endpoint(endpoint)) = host else {
        return Err(at.field("endpoint").missing());
    };
    let at = at.field("endpoint");
    take! { at, endpoint => proto::Endpoint;
        read { address }
        ignore { hostname, observability_name }
        refuse { health_check_config, additional_addresses }
    };
    Ok(address)
}

/// The inline assignment of a cluster that is one name.
pub(super) fn of_name(cluster: &str, host: &str, port: u16) -> proto::ClusterLoadAssignment {
    let endpoint = proto::LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(proto::Endpoint {
            address: fields::address(host, port),
            ..Default::default()
        })),
        ..Default::default()
    };
    proto::ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![proto::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    }
}

/// The reverse of [`of_name`].
pub(super) fn single_name(
    message: Option<proto::ClusterLoadAssignment>,
    at: &At<'_>,
) -> Result<(String, u16), Unsupported> {
    let (_, mut groups) = localities(message.ok_or_else(|| at.missing())?, at)?;
    let (Some(group), true) = (groups.pop(), groups.is_empty()) else {
        return Err(at.field("endpoints").refuse("only one endpoint is supported here"));
    };
    let group_at = at.index("endpoints", 0);
    let (_, mut endpoints) = members(group, &group_at)?;
    let (Some(endpoint), true) = (endpoints.pop(), endpoints.is_empty()) else {
        return Err(group_at.field("lb_endpoints").refuse("only one endpoint is supported here"));
    };
    let at = group_at.index("lb_endpoints", 0);
    fields::host_and_port(address(endpoint.host_identifier, &at)?, &at.field("endpoint").field("address"))
}
