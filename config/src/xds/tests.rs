use proptest::prelude::*;
use prost::Message;

use super::at::At;
use super::{Client, cluster, decode, encode, encode_for, endpoints, fields, names, pb, route, strategies};
use crate::model::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_decodes_to_itself(resource in strategies::resource()) {
        let any = encode(&resource);
        prop_assert_eq!(names::kind(&any.type_url), Some(resource.kind()));
        let decoded = decode(&any).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(decoded.version(), resource.version());
        prop_assert_eq!(decoded, resource);
    }

    /// Whoever sends it: bytes either decode or are refused.
    #[test]
    fn damaged_bytes_are_refused_without_a_panic(
        resource in strategies::resource(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut any = encode(&resource);
        for (at, byte) in damage {
            if !any.value.is_empty() {
                let at = at.index(any.value.len());
                any.value[at] = byte;
            }
        }
        let _ = decode(&any);
        any.value.truncate(cut.index(any.value.len() + 1));
        let _ = decode(&any);
    }

    /// A newer release's fields are skipped.
    #[test]
    fn unknown_fields_change_nothing(resource in strategies::resource()) {
        let mut any = encode(&resource);
        prost::encoding::string::encode(12_345, &"new".to_owned(), &mut any.value);
        prop_assert_eq!(decode(&any), Ok(resource));
    }

    /// The constraints Envoy checks before it takes a resource and the model does not know.
    #[test]
    fn weighted_clusters_have_weight(table in strategies::route_table()) {
        for host in route::encode(&table).virtual_hosts {
            for route in host.routes {
                let Some(pb::route::route::Action::Route(action)) = route.action else { continue };
                if let Some(pb::route::route_action::ClusterSpecifier::WeightedClusters(weighted)) =
                    action.cluster_specifier
                {
                    prop_assert!(weighted.clusters.iter().any(|c| c.weight.is_some_and(|w| w.value > 0)));
                }
            }
        }
    }
}

/// What each kind of protobuf message does not ask of us is refused by its path.
#[test]
fn what_we_do_not_do_is_refused_by_its_path() {
    use pb::core::header_value_option::HeaderAppendAction;
    use pb::route as r;

    let forward = |action: r::RouteAction| r::Route {
        r#match: Some(prefix("/")),
        action: Some(r::route::Action::Route(r::RouteAction { cluster_specifier: to("a"), ..action })),
        ..Default::default()
    };
    let cases: Vec<(pb::Any, &str)> = vec![
        (
            table(forward(r::RouteAction { hash_policy: vec![Default::default()], ..Default::default() })),
            "virtual_hosts[0].routes[0].route.hash_policy[0]: says nothing to hash",
        ),
        (
            table(forward(r::RouteAction {
                retry_policy: Some(r::RetryPolicy {
                    retry_on: "5xx,retriable-4xx".into(),
                    ..Default::default()
                }),
                ..Default::default()
            })),
            "virtual_hosts[0].routes[0].route.retry_policy.retry_on: \"retriable-4xx\" is not supported",
        ),
        (
            table(r::Route {
                r#match: Some(r::RouteMatch {
                    headers: vec![r::HeaderMatcher {
                        name: "x".into(),
                        invert_match: true,
                        ..Default::default()
                    }],
                    ..prefix("/")
                }),
                ..Default::default()
            }),
            "virtual_hosts[0].routes[0].match.headers[0].invert_match: not supported",
        ),
        (
            table(r::Route {
                request_headers_to_add: vec![pb::core::HeaderValueOption {
                    header: Some(pb::core::HeaderValue {
                        key: "x".into(),
                        value: "y".into(),
                        ..Default::default()
                    }),
                    append_action: HeaderAppendAction::AddIfAbsent as i32,
                    ..Default::default()
                }],
                ..forward(Default::default())
            }),
            "virtual_hosts[0].routes[0].request_headers_to_add[0].append_action: not supported",
        ),
        (
            table(forward(r::RouteAction {
                timeout: Some(pb::Duration { seconds: -1, nanos: 0 }),
                ..Default::default()
            })),
            "virtual_hosts[0].routes[0].route.timeout: -1 s 0 ns is not a duration",
        ),
        (
            fields::pack(&pb::cluster::Cluster {
                outlier_detection: Some(Default::default()),
                metadata: None,
                ..cluster::encode(&some_cluster())
            }),
            "outlier_detection.enforcing_success_rate: the deviation of success rates is not supported; set it to 0",
        ),
        (
            fields::pack(&pb::endpoint::ClusterLoadAssignment {
                endpoints: vec![pb::endpoint::LocalityLbEndpoints { priority: 1, ..Default::default() }],
                ..Default::default()
            }),
            "endpoints[0].priority: not supported",
        ),
        (
            fields::pack(&pb::listener::Listener { name: "web".into(), ..Default::default() }),
            "name: \"web\" is none of outbound|HOST:PORT, inbound, gateway|NAMESPACE/NAME",
        ),
        (
            fields::pack(&pb::listener::Listener { name: "inbound".into(), ..Default::default() }),
            "metadata.typed_filter_metadata[\"outrigger.dev\"]: missing",
        ),
        (
            pb::Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] },
            "\"type.googleapis.com/x.Y\" is not a kind of resource we know",
        ),
    ];
    for (any, want) in cases {
        assert_eq!(decode(&any).expect_err(want).to_string(), want);
    }
}

#[test]
fn a_plain_envoy_route_table_is_understood() {
    use pb::route as r;
    let table = r::RouteConfiguration {
        name: "reviews".into(),
        virtual_hosts: vec![r::VirtualHost {
            name: "reviews".into(),
            domains: vec!["reviews".into(), "reviews:9080".into(), "*.example.com".into()],
            routes: vec![r::Route {
                r#match: Some(prefix("/api")),
                action: Some(r::route::Action::Route(r::RouteAction {
                    cluster_specifier: to("reviews-v1"),
                    ..Default::default()
                })),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let Ok(Resource::RouteTable(table)) = decode(&fields::pack(&table)) else { panic!("refused") };
    assert_eq!(table.hosts[0].domains.len(), 2, "the port is no part of a host");
    let route = &table.hosts[0].routes[0];
    assert!(route.matches.path.matches("/apiary"), "a plain prefix is not by segments");
    assert!(!route.matches.path.matches("/ap"));
    assert_eq!(route.timeouts.request, Some(std::time::Duration::from_secs(15)), "Envoy's default");
    assert_eq!(
        route.origin.to_string(),
        "RouteConfiguration//reviews virtual_hosts[0].routes[0]",
        "what decided is still named"
    );
}

/// Istio puts the filter before its router without a word, and says per route what it does.
#[test]
fn a_plain_envoy_fault_is_understood_and_written_again() {
    use pb::fault::{FaultAbort, HttpFault, fault_abort::ErrorType};
    use pb::fault_common::{FaultDelay, fault_delay::FaultDelaySecifier};
    use pb::route as r;
    let percent = |numerator| {
        Some(pb::percent::FractionalPercent { numerator, ..pb::percent::FractionalPercent::default() })
    };
    let table = |fault: &HttpFault| r::RouteConfiguration {
        name: "ratings".into(),
        virtual_hosts: vec![r::VirtualHost {
            domains: vec!["*".into()],
            routes: vec![r::Route {
                r#match: Some(prefix("/")),
                action: Some(r::route::Action::Route(r::RouteAction {
                    cluster_specifier: to("ratings-v1"),
                    ..Default::default()
                })),
                typed_per_filter_config: [("envoy.filters.http.fault".to_owned(), fields::pack(fault))]
                    .into(),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let jason = r::HeaderMatcher {
        name: "end-user".into(),
        header_match_specifier: Some(r::header_matcher::HeaderMatchSpecifier::StringMatch(
            fields::string_matcher(&StringMatch::Exact("jason".into())),
        )),
        ..Default::default()
    };
    let fault = HttpFault {
        delay: Some(FaultDelay {
            percentage: percent(100),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(pb::Duration { seconds: 7, nanos: 0 })),
        }),
        abort: Some(FaultAbort {
            percentage: percent(10),
            error_type: Some(ErrorType::HttpStatus(555)),
            ..FaultAbort::default()
        }),
        headers: vec![jason],
        ..Default::default()
    };
    let Ok(Resource::RouteTable(read)) = decode(&fields::pack(&table(&fault))) else { panic!("refused") };
    let faults = read.hosts[0].routes[0].faults.clone().expect("faults");
    let said: Vec<_> = faults.faults.iter().map(|fault| (&*fault.name, fault.share.millionths())).collect();
    assert_eq!(said, [("delay", 1_000_000), ("abort", 100_000)], "each throws dice of its own");
    assert_eq!(faults.at, FaultAt::Caller);

    let any = encode_for(&Resource::RouteTable(read.clone()), Client::Envoy);
    let written: r::RouteConfiguration = fields::unpack(&any, &At::ROOT).expect("a table");
    let config = &written.virtual_hosts[0].routes[0].typed_per_filter_config["envoy.filters.http.fault"];
    let config: HttpFault = fields::unpack(config, &At::ROOT).expect("a fault");
    assert_eq!(
        (config.headers, config.delay.map(|delay| delay.fault_delay_secifier)),
        (fault.headers.clone(), fault.delay.map(|delay| delay.fault_delay_secifier))
    );

    // What would end by itself is not given to whoever would not end it.
    let mut ending = (*faults).clone();
    ending.active_for = Some(std::time::Duration::from_secs(60));
    let mut table_with = read;
    table_with.hosts[0].routes[0].faults = Some(ending.into());
    let any = encode_for(&Resource::RouteTable(table_with), Client::Envoy);
    let written: r::RouteConfiguration = fields::unpack(&any, &At::ROOT).expect("a table");
    assert!(written.virtual_hosts[0].routes[0].typed_per_filter_config.is_empty());

    for (broken, at) in [
        (HttpFault { upstream_cluster: "a".into(), ..fault.clone() }, "upstream_cluster"),
        (
            HttpFault { headers: vec![fault.headers[0].clone(), fault.headers[0].clone()], ..fault.clone() },
            "headers[1]",
        ),
        (HttpFault { max_active_faults: fields::uint32(1), ..fault.clone() }, "max_active_faults"),
    ] {
        let refused = decode(&fields::pack(&table(&broken))).expect_err("not supported").path;
        assert!(refused.ends_with(at), "{refused}");
    }
}

#[test]
fn a_plain_envoy_cluster_balances_as_it_says() {
    use pb::cluster::cluster::{self as c, LbConfig, LbPolicy};
    use pb::lb;
    let slow_start = || c::SlowStartConfig {
        slow_start_window: Some(pb::Duration { seconds: 60, nanos: 0 }),
        aggression: None,
        min_weight_percent: None,
    };
    let extension = |any: pb::Any| {
        let unknown = pb::Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] };
        let policy = |any| pb::cluster::load_balancing_policy::Policy {
            typed_extension_config: Some(pb::core::TypedExtensionConfig {
                name: "any".into(),
                typed_config: Some(any),
            }),
        };
        pb::cluster::Cluster {
            load_balancing_policy: Some(pb::cluster::LoadBalancingPolicy {
                policies: vec![policy(unknown), policy(any)],
            }),
            ..Default::default()
        }
    };
    let by_name = |policy: LbPolicy, lb_config| pb::cluster::Cluster {
        lb_policy: policy as i32,
        lb_config,
        ..Default::default()
    };
    let one_minute = SlowStart { window: std::time::Duration::from_secs(60), min_percent: 10 };
    for (said, algorithm, slow_start) in [
        (by_name(LbPolicy::RoundRobin, None), Algorithm::RoundRobin, None),
        (by_name(LbPolicy::LeastRequest, None), Algorithm::LeastRequest { choices: 2 }, None),
        (
            by_name(
                LbPolicy::RoundRobin,
                Some(LbConfig::RoundRobinLbConfig(c::RoundRobinLbConfig {
                    slow_start_config: Some(slow_start()),
                })),
            ),
            Algorithm::RoundRobin,
            Some(one_minute),
        ),
        (by_name(LbPolicy::Random, None), Algorithm::Random, None),
        (by_name(LbPolicy::RingHash, None), Algorithm::RingHash { min_size: 1_024, max_size: 65_536 }, None),
        (by_name(LbPolicy::Maglev, None), Algorithm::Maglev { table_size: 65_537 }, None),
        (
            extension(fields::pack(&lb::maglev::Maglev {
                table_size: Some(pb::UInt64Value { value: 251 }),
                ..Default::default()
            })),
            Algorithm::Maglev { table_size: 251 },
            None,
        ),
        (
            extension(fields::pack(&lb::least_request::LeastRequest {
                choice_count: fields::uint32(5),
                ..Default::default()
            })),
            Algorithm::LeastRequest { choices: 5 },
            None,
        ),
    ] {
        let message = pb::cluster::Cluster {
            lb_policy: said.lb_policy,
            lb_config: said.lb_config,
            load_balancing_policy: said.load_balancing_policy,
            metadata: None,
            ..cluster::encode(&some_cluster())
        };
        let Ok(Resource::Cluster(cluster)) = decode(&fields::pack(&message)) else { panic!("refused") };
        assert_eq!((cluster.balance.algorithm, cluster.balance.slow_start), (algorithm, slow_start));
    }
    for (said, path) in [
        (by_name(LbPolicy::ClusterProvided, None), "lb_policy"),
        (by_name(LbPolicy::Maglev, Some(LbConfig::RoundRobinLbConfig(Default::default()))), "lb_config"),
        (
            by_name(
                LbPolicy::Maglev,
                Some(LbConfig::MaglevLbConfig(c::MaglevLbConfig {
                    table_size: Some(pb::UInt64Value { value: 100 }),
                })),
            ),
            "maglev_lb_config.table_size",
        ),
        (extension(pb::Any::default()), "load_balancing_policy"),
    ] {
        let message = pb::cluster::Cluster {
            lb_policy: said.lb_policy,
            lb_config: said.lb_config,
            load_balancing_policy: said.load_balancing_policy,
            metadata: None,
            ..cluster::encode(&some_cluster())
        };
        assert_eq!(decode(&fields::pack(&message)).expect_err("unsupported").path, path);
    }
}

#[test]
fn a_plain_envoy_listener_is_understood() {
    use pb::listener as l;
    let http = Resource::Listener(Listener::Destination(Destination {
        name: DestinationName::new("reviews", 80).expect("a name"),
        service: None,
        protocol: Protocol::Http,
        routes: "reviews-routes".into(),
        tls: vec![],
        tcp: Default::default(),
        origin: None,
    }));
    let mut message = l::Listener::decode(encode(&http).value.as_slice()).expect("our own");
    message.metadata = None;
    message.default_filter_chain = None;
    assert_eq!(decode(&fields::pack(&message)), Ok(http.clone()));

    // What gRPC clients are given.
    let chain = message.filter_chains.remove(0);
    let Some(l::filter::ConfigType::TypedConfig(manager)) = chain.filters[0].config_type.clone() else {
        panic!("an HTTP connection manager")
    };
    message.api_listener = Some(l::ApiListener { api_listener: Some(manager) });
    assert_eq!(decode(&fields::pack(&message)), Ok(http));
}

#[test]
fn plain_envoy_endpoints_are_unmeshed() {
    let assignment = endpoints::of_name("a", "10.0.0.1", 80);
    let Ok(Resource::Endpoints(decoded)) = decode(&fields::pack(&assignment)) else { panic!("refused") };
    let endpoint = &decoded.endpoints[0];
    assert_eq!((endpoint.weight, endpoint.health, endpoint.meshed), (1, Health::Unknown, false));
    assert_eq!(
        decode(&fields::pack(&endpoints::of_name("a", "reviews", 80))).expect_err("a name").path,
        "endpoints[0].lb_endpoints[0].endpoint.address.socket_address"
    );
}

fn some_cluster() -> Cluster {
    Cluster {
        name: "a".into(),
        service: None,
        discovery: Discovery::Endpoints,
        http: UpstreamHttp::AsReceived,
        connect_timeout: Cluster::DEFAULT_CONNECT_TIMEOUT,
        idle_timeout: Cluster::DEFAULT_IDLE_TIMEOUT,
        multiplex: Multiplex::Never,
        circuit_breaker: Default::default(),
        balance: Default::default(),
        origin: None,
    }
}

fn prefix(prefix: &str) -> pb::route::RouteMatch {
    pb::route::RouteMatch {
        path_specifier: Some(pb::route::route_match::PathSpecifier::Prefix(prefix.into())),
        ..Default::default()
    }
}

fn to(cluster: &str) -> Option<pb::route::route_action::ClusterSpecifier> {
    Some(pb::route::route_action::ClusterSpecifier::Cluster(cluster.into()))
}

fn table(route: pb::route::Route) -> pb::Any {
    fields::pack(&pb::route::RouteConfiguration {
        name: "t".into(),
        virtual_hosts: vec![pb::route::VirtualHost {
            domains: vec!["*".into()],
            routes: vec![route],
            ..Default::default()
        }],
        ..Default::default()
    })
}
