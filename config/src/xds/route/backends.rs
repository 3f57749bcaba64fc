//! Where a route forwards to: Envoy's weighted clusters.

use super::super::at::{At, Unsupported, take};
use super::super::pb::route as proto;
use super::super::{fields, own};
use super::proto::route_action::ClusterSpecifier;
use super::proto::weighted_cluster::ClusterWeight;
use super::proto::weighted_cluster::cluster_weight::HostRewriteSpecifier;
use crate::model::{Backend, BackendTarget, HeaderEdits, Rewrite};

/// Bound of a weight in the model (Gateway API `BackendRef.weight`).
pub(in super::super) const LARGEST_WEIGHT: u32 = 1_000_000;

/// The cluster an unresolved reference names: none has it, so that Envoy answers as `cluster_not_found_response_code` says.
const INVALID: &str = "outrigger.dev|invalid";

pub(super) fn encode(backends: &[Backend], own: &mut own::Route) -> ClusterSpecifier {
    for (index, backend) in backends.iter().enumerate() {
        let invalid = match &backend.target {
            BackendTarget::Cluster(_) => None,
            BackendTarget::Invalid(reason) => Some(reason.to_string()),
        };
        if invalid.is_some() || backend.rewrite.is_some() {
            let rewrite = backend.rewrite.as_ref().map(Into::into);
            own.backends.push(own::Backend { index: index as u32, invalid, rewrite });
        }
    }
    match backends {
        [
            Backend {
                target: BackendTarget::Cluster(cluster),
                weight: 1,
                request_headers,
                response_headers,
                rewrite: None,
            },
        ] if request_headers.is_empty() && response_headers.is_empty() => {
            ClusterSpecifier::Cluster(cluster.to_string())
        }
        backends => ClusterSpecifier::WeightedClusters(proto::WeightedCluster {
            clusters: backends.iter().map(weighted).collect(),
            ..Default::default()
        }),
    }
}

fn weighted(backend: &Backend) -> ClusterWeight {
    let (request_headers_to_add, request_headers_to_remove) = fields::header_edits(&backend.request_headers);
    let (response_headers_to_add, response_headers_to_remove) =
        fields::header_edits(&backend.response_headers);
    ClusterWeight {
        name: match &backend.target {
            BackendTarget::Cluster(cluster) => cluster.to_string(),
            BackendTarget::Invalid(_) => INVALID.into(),
        },
        weight: fields::uint32(backend.weight),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        host_rewrite_specifier: backend
            .rewrite
            .as_ref()
            .and_then(|rewrite| rewrite.host.as_deref())
            .map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.into())),
        ..Default::default()
    }
}

/// `rewrite` is the route's own: another control plane's host rewrite of a backend leaves its path part in force.
pub(super) fn decode(
    specifier: Option<ClusterSpecifier>,
    own: Vec<own::Backend>,
    rewrite: &Rewrite,
    at: &At<'_>,
) -> Result<Vec<Backend>, Unsupported> {
    let mut backends = match specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![Backend {
            target: BackendTarget::Cluster(name.as_str().into()),
            weight: 1,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            rewrite: None,
        }],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let at = at.field("weighted_clusters");
            take! { at, weighted => proto::WeightedCluster;
                read { clusters }
                ignore { total_weight, runtime_key_prefix }
                refuse { random_value_specifier }
            };
            let mut backends = Vec::with_capacity(clusters.len());
            for (i, cluster) in clusters.into_iter().enumerate() {
                backends.push(decode_weighted(cluster, rewrite, &at.index("clusters", i))?);
            }
            backends
        }
        Some(ClusterSpecifier::ClusterHeader(_)) => return Err(at.field("cluster_header").unsupported()),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            return Err(at.field("cluster_specifier_plugin").unsupported());
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            return Err(at.field("inline_cluster_specifier_plugin").unsupported());
        }
        None => return Err(at.field("cluster_specifier").missing()),
    };
    for own in own {
        let Some(backend) = backends.get_mut(own.index as usize) else {
            return Err(
                at.refuse(format!("has no weighted cluster {}, which our metadata speaks of", own.index))
            );
        };
        backend.rewrite = own.rewrite.map(Into::into);
        if let Some(reason) = own.invalid {
            backend.target = BackendTarget::Invalid(reason.into());
        }
    }
    Ok(backends)
}

fn decode_weighted(cluster: ClusterWeight, route: &Rewrite, at: &At<'_>) -> Result<Backend, Unsupported> {
    take! { at, cluster => ClusterWeight;
        read {
            name, weight, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, host_rewrite_specifier
        }
        ignore {}
        refuse { cluster_header, metadata_match, typed_per_filter_config }
    };
    let weight = weight.map_or(0, |weight| weight.value);
    if weight > LARGEST_WEIGHT {
        return Err(at.field("weight").refuse(format!("{weight} is over {LARGEST_WEIGHT}")));
    }
    Ok(Backend {
        target: BackendTarget::Cluster(name.as_str().into()),
        weight,
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
        rewrite: host_rewrite_specifier.map(|HostRewriteSpecifier::HostRewriteLiteral(host)| Rewrite {
            host: Some(host.into()),
            path: route.path.clone(),
        }),
    })
}
