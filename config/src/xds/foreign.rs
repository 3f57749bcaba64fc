//! Resources for clients that are not our proxy: what Envoy and gRPC make of the same configuration.
//!
//! Our own messages are left out: no other client reads them. What they alone can say is lost there: which listener of one gateway
//! port a host means (the least specific has it), why a reference does not resolve, a callee's identity (such a client calls in plaintext, which
//! a Strict workload refuses). gRPC is further told only what it accepts: an API listener in place of filter chains, no filter it does not
//! know, a balancing policy localities and path
//! prefixes in its form.

use super::pb::{self, cluster::cluster::LbPolicy, listener as proto};
use super::{cluster, endpoints, fields, listener, route};
use crate::model::{Destination, Listener, Resource};

/// What a client of the control plane understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// Our proxy.
    Outrigger,
    /// Envoy, and whatever is not known to be anything else.
    Envoy,
    /// A gRPC library with `xds:` targets.
    Grpc,
}

impl Client {
    pub const ALL: [Self; 3] = [Self::Outrigger, Self::Envoy, Self::Grpc];
}

/// The resource as `client` understands it.
pub fn encode_for(resource: &Resource, client: Client) -> pb::Any {
    let grpc = match client {
        Client::Outrigger => return super::encode(resource),
        Client::Envoy => false,
        Client::Grpc => true,
    };
    match resource {
        Resource::Listener(Listener::Destination(destination)) if grpc => {
            fields::pack(&api_listener(destination))
        }
        Resource::Listener(listener) => fields::pack(&plain_listener(listener::encode(listener))),
        Resource::RouteTable(table) => fields::pack(&plain_routes(route::encode(table), grpc)),
        Resource::Cluster(cluster) => {
            let mut message = cluster::encode(cluster);
            message.metadata = None;
            if grpc {
                // It knows these two, whatever else it is built with.
                if message.lb_policy != LbPolicy::RingHash as i32 {
                    message.lb_policy = LbPolicy::RoundRobin as i32;
                    message.lb_config = None;
                }
                message.typed_extension_protocol_options.clear();
            }
            fields::pack(&message)
        }
        Resource::Endpoints(endpoints) => fields::pack(&plain_endpoints(endpoints::encode(endpoints), grpc)),
        Resource::Secret(_) | Resource::TrustBundle(_) => super::encode(resource),
    }
}

/// How gRPC finds its routes: there is nothing to listen for in a library.
fn api_listener(destination: &Destination) -> proto::Listener {
    let router = pb::hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(pb::hcm::http_filter::ConfigType::TypedConfig(fields::pack(
            &pb::router::Router::default(),
        ))),
        ..Default::default()
    };
    let manager = pb::hcm::HttpConnectionManager {
        http_filters: vec![router],
        route_specifier: Some(pb::hcm::http_connection_manager::RouteSpecifier::Rds(pb::hcm::Rds {
            config_source: fields::ads(),
            route_config_name: destination.routes.to_string(),
        })),
        ..Default::default()
    };
    proto::Listener {
        name: destination.name.resource_name(),
        api_listener: Some(proto::ApiListener { api_listener: Some(fields::pack(&manager)) }),
        ..Default::default()
    }
}

fn plain_listener(mut listener: proto::Listener) -> proto::Listener {
    listener.metadata = None;
    let chains = listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain);
    for filter in chains.flat_map(|chain| &mut chain.filters) {
        let Some(proto::filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else { continue };
        plain_manager(config);
    }
    listener
}

/// Route tables that stand in the listener itself carry our messages, too.
fn plain_manager(config: &mut pb::Any) {
    use pb::hcm::http_connection_manager::RouteSpecifier::RouteConfig;
    // Another filter has no routes.
    let Ok(mut manager) = fields::unpack::<pb::hcm::HttpConnectionManager>(config, &super::at::At::ROOT)
    else {
        return;
    };
    if let Some(RouteConfig(routes)) = manager.route_specifier.take() {
        manager.route_specifier = Some(RouteConfig(plain_routes(routes, false)));
        *config = fields::pack(&manager);
    }
}

fn plain_routes(mut table: pb::route::RouteConfiguration, grpc: bool) -> pb::route::RouteConfiguration {
    use pb::route::route_match::PathSpecifier::{PathSeparatedPrefix, Prefix};
    for route in table.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
        route.metadata = None;
        if grpc {
            // It refuses a table that configures a filter it has not got, or has prefixes of whole segments.
            route.typed_per_filter_config.clear();
            if let Some(matches) = &mut route.r#match
                && let Some(PathSeparatedPrefix(prefix)) = &matches.path_specifier
            {
                // A path of gRPC is /SERVICE/METHOD: what has the prefix goes on behind it.
                matches.path_specifier = Some(Prefix(format!("{prefix}/")));
            }
        }
    }
    table
}

fn plain_endpoints(
    mut endpoints: pb::endpoint::ClusterLoadAssignment,
    grpc: bool,
) -> pb::endpoint::ClusterLoadAssignment {
    for locality in &mut endpoints.endpoints {
        for endpoint in &mut locality.lb_endpoints {
            endpoint.metadata = None;
        }
        if grpc {
            // It ignores a locality without a weight and refuses one without a name.
            let weights = locality.lb_endpoints.iter().filter_map(|endpoint| endpoint.load_balancing_weight);
            let weight = weights.fold(0_u32, |sum, weight| sum.saturating_add(weight.value));
            locality.load_balancing_weight = fields::uint32(weight);
            locality.locality.get_or_insert_default();
        }
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{own, strategies};
    use super::*;

    proptest! {
        #[test]
        fn nothing_of_our_own_reaches_another_client(resource in strategies::resource()) {
            for client in [Client::Envoy, Client::Grpc] {
                let any = encode_for(&resource, client);
                prop_assert_eq!(&any.type_url, &super::super::encode(&resource).type_url);
                for ours in [own::METADATA_KEY.as_bytes(), b"type.outrigger.dev/"] {
                    // The name of the cluster that nobody has stands in for a backend that is none.
                    let text = String::from_utf8_lossy(&any.value).replace("outrigger.dev|invalid", "");
                    let found = text.as_bytes().windows(ours.len()).any(|window| window == ours);
                    prop_assert!(!found, "{client:?}: {resource:?}");
                }
            }
            prop_assert_eq!(encode_for(&resource, Client::Outrigger), super::super::encode(&resource));
        }

        #[test]
        fn grpc_gets_only_path_matches_it_knows(table in strategies::route_table()) {
            let any = encode_for(&Resource::RouteTable(table), Client::Grpc);
            let table: pb::route::RouteConfiguration = fields::unpack(&any, &super::super::at::At::ROOT).expect("a table");
            for route in table.virtual_hosts.iter().flat_map(|host| &host.routes) {
                let path = route.r#match.as_ref().and_then(|matches| matches.path_specifier.as_ref());
                let separated = matches!(path, Some(pb::route::route_match::PathSpecifier::PathSeparatedPrefix(_)));
                prop_assert!(!separated, "{path:?}");
            }
        }

        #[test]
        fn grpc_gets_an_api_listener(destination in strategies::destination()) {
            let listener = encode_for(&Resource::Listener(Listener::Destination(destination.clone())), Client::Grpc);
            let Resource::Listener(Listener::Destination(read)) = super::super::decode(&listener).expect("ours") else {
                panic!("a destination");
            };
            prop_assert_eq!((read.name, read.routes), (destination.name, destination.routes));
        }
    }
}
