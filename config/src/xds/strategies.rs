//! Generated model values of every kind, for property tests: everything a resolver may make, corners included (no backend,
//! no weight, odd bytes in header values), and nothing the model rules out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use crate::model::*;

pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    // Each boxed: on the stack of a test there is room for one of them, not for all.
    prop_oneof![
        destination().prop_map(|d| Resource::Listener(Listener::Destination(d))).boxed(),
        inbound().prop_map(|i| Resource::Listener(Listener::Inbound(i))).boxed(),
        gateway().prop_map(|g| Resource::Listener(Listener::Gateway(g))).boxed(),
        route_table().prop_map(Resource::RouteTable).boxed(),
        cluster().prop_map(Resource::Cluster).boxed(),
        endpoints().prop_map(Resource::Endpoints).boxed(),
        secret().prop_map(Resource::Secret).boxed(),
        trust_bundle().prop_map(Resource::TrustBundle).boxed(),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[a-z]([-a-z0-9]{0,8}[a-z0-9])?"
}

fn name() -> impl Strategy<Value = Arc<str>> {
    word().prop_map(Into::into)
}

/// Any text a field may hold.
fn text() -> impl Strategy<Value = Arc<str>> {
    "[ -~é☃]{0,12}".prop_map(Into::into)
}

fn origin() -> impl Strategy<Value = Origin> {
    (word(), word(), word(), text())
        .prop_map(|(kind, namespace, name, field)| Origin::new(&kind, &namespace, &name, &field))
}

fn service() -> impl Strategy<Value = ServiceRef> {
    (word(), word()).prop_map(|(namespace, name)| ServiceRef::new(&namespace, &name))
}

fn port() -> impl Strategy<Value = u16> + Clone {
    1..=u16::MAX
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
    ];
    (ip, port()).prop_map(SocketAddr::from)
}

fn destination_name() -> impl Strategy<Value = DestinationName> {
    prop_oneof![
        (word(), word(), port()).prop_map(
            |(a, b, port)| DestinationName::new(&format!("{a}.{b}"), port).expect("a name and a port")
        ),
        socket().prop_map(|address| DestinationName::ip(address.ip(), address.port())),
    ]
}

fn cluster_name() -> impl Strategy<Value = ClusterName> {
    (port(), word()).prop_map(|(port, host)| ClusterName::outbound(port, "", &host))
}

fn table_name() -> impl Strategy<Value = RouteTableName> {
    word().prop_map(|name| RouteTableName::new(format!("outbound|80|{name}")))
}

fn secret_name() -> impl Strategy<Value = SecretName> {
    (word(), word()).prop_map(|(namespace, name)| SecretName::new(format!("{namespace}/{name}")))
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        Just("*".to_owned()),
        word(),
        (word(), word()).prop_map(|(a, b)| format!("{a}.{b}")),
        (word(), word()).prop_map(|(a, b)| format!("*.{a}.{b}")),
        Just("[::1]".to_owned()),
    ]
    .prop_map(|text| HostPattern::parse(&text).expect("a pattern"))
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(1), 1 => Just(0), 2 => 0..=1_000_000u32]
}

fn tcp_forward() -> impl Strategy<Value = TcpForward> {
    let backend =
        (cluster_name(), weight()).prop_map(|(cluster, weight)| WeightedCluster { cluster, weight });
    (vec(backend, 0..4), option::of(duration()), option::weighted(0.2, faults()))
        .prop_map(|(backends, idle, faults)| TcpForward { backends, idle, faults })
}

fn tls_routes() -> impl Strategy<Value = Vec<TlsRoute>> {
    let route = (host_pattern(), tcp_forward(), origin());
    vec(route.prop_map(|(sni, forward, origin)| TlsRoute { sni, forward, origin }), 0..4)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![
        Protocol::Detect,
        Protocol::Http,
        Protocol::Http2,
        Protocol::Tcp,
        Protocol::Tls,
    ])
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..100_000_000_000u64).prop_map(Duration::from_nanos),
        (1..100_000u64).prop_map(Duration::from_secs),
    ]
}

fn fraction() -> impl Strategy<Value = Fraction> {
    (0..=1_000_000u32).prop_map(|n| Fraction::new(n, 1_000_000).expect("at most one"))
}

pub(crate) fn destination() -> impl Strategy<Value = Destination> {
    let parts = (
        destination_name(),
        option::of(service()),
        protocol(),
        table_name(),
        tls_routes(),
        tcp_forward(),
        option::of(origin()),
    );
    parts.prop_map(|(name, service, protocol, routes, tls, tcp, origin)| Destination {
        name,
        service,
        protocol,
        routes,
        tls,
        tcp,
        origin,
    })
}

fn settings() -> impl Strategy<Value = ProxySettings> {
    let egress = prop::sample::select(vec![Egress::AllowAny, Egress::RegistryOnly]);
    let mode = prop::sample::select(vec![AccessLogMode::Off, AccessLogMode::Errors, AccessLogMode::All]);
    (egress, mode, fraction(), name(), duration()).prop_map(
        |(egress, mode, sampling, trust_domain, app_idle_timeout)| ProxySettings {
            egress,
            access_log: AccessLog { mode, sampling },
            trust_domain,
            app_idle_timeout,
        },
    )
}

pub(crate) fn inbound() -> impl Strategy<Value = Inbound> {
    let parts = (
        port(),
        protocol(),
        socket(),
        option::of(service()),
        mtls(),
        limits(),
        vec(faults(), 0..2),
        option::of(origin()),
    );
    let port = parts.prop_map(|(port, protocol, app, service, mtls, limits, faults, origin)| InboundPort {
        port,
        protocol,
        app,
        service,
        mtls,
        limits,
        faults,
        origin,
    });
    let workload = (name(), name(), name()).prop_map(|(namespace, name, service_account)| WorkloadRef {
        namespace,
        name,
        service_account,
    });
    (workload, vec(port, 0..4), mtls(), access().prop_map(Arc::new), settings()).prop_map(
        |(workload, ports, mtls, access, settings)| Inbound { workload, ports, mtls, access, settings },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let own = (1_u32..1_000_000, 1_u64..3_600, 1_u32..1_000)
        .prop_map(|(tokens, per, burst)| Rate::new(tokens, Duration::from_secs(per), burst).expect("a rate"));
    let counted = (1_u32..1_000_000, prop::sample::select(vec![1_u64, 60, 3_600, 86_400]))
        .prop_map(|(tokens, per)| Rate::new(tokens, Duration::from_secs(per), tokens).expect("a rate"));
    let rate = prop_oneof![
        rate_limit(own.boxed(), Just(None).boxed()),
        rate_limit(counted.boxed(), shared_limit().prop_map(Some).boxed())
    ];
    (vec(rate, 0..3), vec(limit((1_u32..1_000).boxed()), 0..3), option::weighted(0.3, adaptive()))
        .prop_map(|(rates, concurrency, adaptive)| Limits { rates, concurrency, adaptive })
}

fn rate_limit(
    rate: BoxedStrategy<Rate>,
    shared: BoxedStrategy<Option<SharedLimit>>,
) -> impl Strategy<Value = RateLimit> {
    let headers =
        prop::sample::select(vec![LimitHeaders::Always, LimitHeaders::Refused, LimitHeaders::Never]);
    (limit(rate), any::<bool>(), option::of(header_name()), any::<[u32; 2]>(), headers, shared).prop_map(
        |(limit, connections, header, [most, fixed], headers, shared)| {
            let bursts = limit.overrides.iter().filter_map(|given| given.allowed).map(|rate| rate.burst);
            let most = most % bursts.fold(limit.allowed.burst, u32::min) + 1;
            let unit = if connections { LimitUnit::Connections } else { LimitUnit::Requests };
            RateLimit { limit, unit, cost: Cost { fixed: fixed % most + 1, header, most }, headers, shared }
        },
    )
}

fn shared_limit() -> impl Strategy<Value = SharedLimit> {
    let address = option::of(shared(&["limits:8081", "[::1]:1", "10.0.0.1:65535"]));
    let server =
        (address, shared(&["outrigger", "d"])).prop_map(|(address, domain)| LimitServer { address, domain });
    let timeout = (1_u64..=5_000).prop_map(Duration::from_millis);
    (service(), server, any::<bool>(), option::of(1_u32..100), timeout, any::<bool>()).prop_map(
        |(service, server, strict, batch, timeout, open)| SharedLimit {
            service,
            server,
            strict,
            batch,
            timeout,
            open,
        },
    )
}

fn limit<A: Clone + std::fmt::Debug + 'static>(allowed: BoxedStrategy<A>) -> impl Strategy<Value = Limit<A>> {
    let template = || {
        shared(&["/{**}", "/a/{id}/b", "/a/{*}/{**}"])
            .prop_map(|path| PathTemplate::new(&path).expect("a template"))
    };
    let part = prop_oneof![
        Just(KeyPart::Identity),
        Just(KeyPart::Namespace),
        any::<u8>().prop_map(|trusted_hops| KeyPart::Address { trusted_hops }),
        header_name().prop_map(KeyPart::Header),
        vec(template(), 0..3).prop_map(KeyPart::Path),
        Just(KeyPart::Method),
        Just(KeyPart::GrpcMethod),
    ];
    let mode = prop::sample::select(vec![LimitMode::Enforce, LimitMode::Observe]);
    let overrides = vec((vec(option::of(text()), 3), option::of(allowed.clone())), 0..3);
    (name(), mode, vec(call_match(), 0..2), vec(part, 0..3), allowed, overrides, 1_u32..1_000_000, origin())
        .prop_map(|(name, mode, matches, key, allowed, overrides, max_keys, origin)| {
            let fitting = |(values, allowed): (Vec<_>, _)| LimitOverride {
                key: values.into_iter().take(key.len()).collect(),
                allowed,
            };
            let overrides = overrides.into_iter().map(fitting).collect();
            Limit { name, mode, matches, key, allowed, overrides, max_keys, origin }
        })
}

fn faults() -> impl Strategy<Value = Arc<Faults>> {
    let at = prop::sample::select(vec![FaultAt::Caller, FaultAt::CallerBehindRetries, FaultAt::Callee]);
    let stop = (fraction(), 1_u64..300, 1_u32..10_000).prop_map(|(below, interval, min_requests)| StopIf {
        below,
        interval: Duration::from_secs(interval),
        min_requests,
    });
    let fault = (
        name(),
        vec(peer_match(), 0..2),
        vec(call_match(), 0..2),
        fraction(),
        option::of(1..=u32::MAX),
        fault_effect(),
    );
    let fault = fault.prop_map(|(name, from, matches, share, at_most, effect)| Fault {
        name,
        from,
        matches,
        share,
        at_most,
        effect,
    });
    let parts = (
        at,
        vec(fault, 0..3),
        option::of(any::<u64>()),
        option::of(duration()),
        option::of(any::<u64>()),
        option::of(stop),
        origin(),
    );
    parts
        .prop_map(|(at, faults, seed, active_for, since, stop_if, origin)| {
            Arc::new(Faults { at, faults, seed, active_for, since, stop_if, origin })
        })
        // Boxed, as the next: what is made of it is as large as all of its parts, on the stack.
        .boxed()
}

fn fault_effect() -> impl Strategy<Value = FaultEffect> {
    let short = || (1_u64..3_600_000).prop_map(Duration::from_millis);
    let delay = || {
        (short(), short(), 0..3).prop_map(|(a, b, shape)| match shape {
            0 => FaultDelay::Fixed(a),
            1 => FaultDelay::Uniform { min: a.min(b), max: a.max(b) },
            _ => FaultDelay::Exponential { mean: a.min(b), max: a.max(b) },
        })
    };
    let end = prop_oneof![
        (200_u16..600).prop_map(|status| FaultEnd::Http(StatusCode::from_u16(status).expect("a status"))),
        (1_u16..=16).prop_map(FaultEnd::Grpc),
        Just(FaultEnd::Reset),
        Just(FaultEnd::Refuse),
    ];
    let rate = || option::of(prop_oneof![1..=u64::MAX, Just(2048)]);
    let given = (option::of(delay()), option::of(end), rate(), option::of(any::<u64>()), any::<bool>());
    let given = given.prop_map(|(delay, end, throttle, cut, corrupt_trailers)| {
        FaultEffect::Given(GivenFault { delay, end, throttle, cut, corrupt_trailers })
    });
    let by_headers = (option::of(short()), any::<bool>(), rate())
        .prop_map(|(delay, abort, throttle)| FaultEffect::ByHeaders(FaultCeiling { delay, abort, throttle }));
    prop_oneof![3 => given, 1 => by_headers, 1 => delay().prop_map(FaultEffect::SlowAccept)].boxed()
}

fn access() -> impl Strategy<Value = Access> {
    let action = || prop::sample::select(vec![AccessAction::Allow, AccessAction::Deny]);
    let mode = prop::sample::select(vec![AccessMode::Enforce, AccessMode::Audit]);
    let default =
        (action(), option::of(origin())).prop_map(|(action, origin)| AccessDefault { action, origin });
    let rule = (name(), action(), vec(peer_match(), 0..3), vec(call_match(), 0..3), origin())
        .prop_map(|(name, action, from, to, origin)| AccessRule { name, action, from, to, origin });
    let policy = (mode, vec(rule, 0..3), origin()).prop_map(|(mode, rules, origin)| AccessPolicy {
        mode,
        rules,
        origin,
    });
    (default, vec(policy, 0..3)).prop_map(|(default, policies)| Access { default, policies })
}

fn among<T: Clone + std::fmt::Debug + 'static>(
    of: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Among<T>> {
    prop_oneof![
        2 => Just(Among::default()),
        1 => (vec(of.clone(), 0..3), vec(of, 0..3)).prop_map(|(is, is_not)| Among { is, is_not }),
    ]
    .boxed()
}

fn shared(texts: &[&'static str]) -> impl Strategy<Value = Arc<str>> + Clone + use<> {
    prop::sample::select(texts.to_vec()).prop_map(Into::into)
}

fn peer_match() -> impl Strategy<Value = PeerMatch> {
    let words = || shared(&["a", "b", "c.d"]);
    let account = (words(), words()).prop_map(|(namespace, name)| AccountRef { namespace, name });
    let identity = shared(&["spiffe://a/**", "spiffe://*/ns/*/sa/b-*", "spiffe://td/x"])
        .prop_map(|text| text.parse::<IdentityPattern>().expect("a pattern"));
    let nets = shared(&["10.0.0.0/8", "fd00::/8", "10.1.2.3/32", "0.0.0.0/0"])
        .prop_map(|text| text.parse().expect("a network"));
    (vec(words(), 0..2), among(words()), among(words()), among(account), among(identity), among(nets))
        .prop_map(|(home, trust_domains, namespaces, accounts, identities, addresses)| PeerMatch {
            home,
            trust_domains,
            namespaces,
            accounts,
            identities,
            addresses,
        })
}

fn call_match() -> impl Strategy<Value = CallMatch> {
    let path = || {
        prop_oneof![
            shared(&["/", "/a/b", "/a/", "/caf%C3%A9"])
                .prop_map(|path| AccessPath::exact(&path).expect("canonical")),
            shared(&["/", "/a/b", "/a/"]).prop_map(|path| AccessPath::prefix(&path).expect("canonical")),
            shared(&["/{**}", "/a/{id}/b", "/a/{*}/{**}"])
                .prop_map(|path| AccessPath::template(&path).expect("a template")),
        ]
        .boxed()
    };
    let hosts = prop::sample::select(vec!["*", "a.b", "*.c"])
        .prop_map(|text| HostPattern::parse(text).expect("a pattern"));
    let value = shared(&["x-a", "x-b"]);
    let string = prop_oneof![
        shared(&["1", "a b"]).prop_map(StringMatch::Exact),
        Just(StringMatch::Regex(Pattern::new("a|b").expect("valid"))),
    ]
    .boxed();
    let header = prop_oneof![
        value.clone().prop_map(HeaderTest::Present),
        (value, string).prop_map(|(name, value)| HeaderTest::Value(HeaderMatch {
            name: name.parse().expect("a header name"),
            value
        })),
    ]
    .boxed();
    (
        among(port()),
        among(shared(&["GET", "POST"])),
        among(path()),
        among(path()),
        among(hosts),
        among(header),
    )
        .prop_map(|(ports, methods, paths, calls, hosts, headers)| CallMatch {
            ports,
            methods,
            paths,
            calls,
            hosts,
            headers,
        })
}

fn mtls() -> impl Strategy<Value = Mtls> {
    let modes = vec![MtlsMode::Strict, MtlsMode::Permissive, MtlsMode::Disabled];
    (prop::sample::select(modes), option::of(origin())).prop_map(|(mode, origin)| Mtls { mode, origin })
}

fn spiffe_id() -> impl Strategy<Value = SpiffeId> {
    prop_oneof![
        (word(), word(), word()).prop_map(|(domain, namespace, account)| {
            SpiffeId::new(&domain, &namespace, &account).expect("words make one")
        }),
        ("[a-z0-9._-]{1,9}", "(/[A-Za-z0-9_-]{1,6}){1,4}").prop_map(|(domain, path)| format!(
            "spiffe://{domain}{path}"
        )
        .parse()
        .expect("valid")),
    ]
}

pub(crate) fn gateway() -> impl Strategy<Value = Gateway> {
    let protocol = prop_oneof![
        table_name().prop_map(|routes| GatewayProtocol::Http { routes }),
        (vec(secret_name(), 0..3), table_name())
            .prop_map(|(certificates, routes)| GatewayProtocol::Https { certificates, routes }),
        tcp_forward().prop_map(|forward| GatewayProtocol::Tcp { forward }),
        tls_routes().prop_map(|routes| GatewayProtocol::TlsPassthrough { routes }),
        (vec(secret_name(), 0..3), tcp_forward())
            .prop_map(|(certificates, forward)| GatewayProtocol::TlsTerminate { certificates, forward }),
    ];
    let listener = (name(), host_pattern(), protocol, origin())
        .prop_map(|(name, hostname, protocol, origin)| GatewayListener { name, hostname, protocol, origin });
    let ports = btree_map(port(), vec(listener, 0..4), 0..4).prop_map(|ports| {
        ports.into_iter().map(|(port, listeners)| GatewayPort { port, listeners }).collect()
    });
    (name(), name(), ports, settings()).prop_map(|(namespace, name, ports, settings)| Gateway {
        namespace,
        name,
        ports,
        settings,
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop::sample::select(vec!["a|b", "[a-z]+", "/v[0-9]/.*", ".*", "", r"a\.b", "(?i)x"])
        .prop_map(|source| Pattern::new(source).expect("valid"))
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![text().prop_map(StringMatch::Exact), pattern().prop_map(StringMatch::Regex)]
}

fn path() -> impl Strategy<Value = Arc<str>> {
    "(/[a-zA-Z0-9.%~]{1,5}){0,3}/?".prop_map(|path| if path.is_empty() { "/".into() } else { path.into() })
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        path().prop_map(PathMatch::Exact),
        path().prop_map(|path| PathMatch::prefix(&path)),
        pattern().prop_map(PathMatch::Regex),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    word().prop_map(|name| HeaderName::from_bytes(name.as_bytes()).expect("a header name"))
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    prop_oneof![
        "[ -~]{0,10}".prop_map(|value| HeaderValue::from_str(&value).expect("visible text")),
        "[é%]{0,4}".prop_map(|value| HeaderValue::from_bytes(value.as_bytes()).expect("bytes")),
        vec(128..=255u8, 0..6).prop_map(|bytes| HeaderValue::from_bytes(&bytes).expect("opaque bytes")),
    ]
}

fn header_edits() -> impl Strategy<Value = HeaderEdits> {
    let pairs = || vec((header_name(), header_value()), 0..3);
    prop_oneof![
        2 => Just(HeaderEdits::default()),
        1 => (vec(header_name(), 0..3), pairs(), pairs())
            .prop_map(|(remove, set, add)| HeaderEdits { remove, set, add }),
    ]
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let methods = ["GET", "POST", "PURGE"];
    let method = prop::sample::select(methods.to_vec())
        .prop_map(|method| Method::from_bytes(method.as_bytes()).expect("a token"));
    let headers =
        vec((header_name(), string_match()).prop_map(|(name, value)| HeaderMatch { name, value }), 0..3);
    let query = vec((text(), string_match()).prop_map(|(name, value)| QueryMatch { name, value }), 0..3);
    (path_match(), option::of(method), headers, query).prop_map(|(path, method, headers, query)| RouteMatch {
        path,
        method,
        headers,
        query,
    })
}

/// Mostly of the prefix the route matches, which is what resolvers make.
fn path_rewrite(matched: Option<Arc<str>>) -> BoxedStrategy<Option<PathRewrite>> {
    let prefix = |matched: Arc<str>| {
        path()
            .prop_map(move |replacement| Some(PathRewrite::Prefix { matched: matched.clone(), replacement }))
    };
    prop_oneof![
        2 => Just(None),
        1 => path().prop_map(|path| Some(PathRewrite::Full(path))),
        2 => match matched {
            Some(matched) => prefix(matched).boxed(),
            None => path().prop_flat_map(prefix).boxed(),
        },
    ]
    .boxed()
}

fn some_name() -> impl Strategy<Value = Option<Arc<str>>> {
    option::of(name())
}

fn rewrite(matched: Option<Arc<str>>) -> impl Strategy<Value = Rewrite> {
    (some_name(), path_rewrite(matched)).prop_map(|(host, path)| Rewrite { host, path })
}

fn backend() -> impl Strategy<Value = Backend> {
    let target = prop_oneof![
        4 => cluster_name().prop_map(BackendTarget::Cluster),
        1 => text().prop_map(BackendTarget::Invalid),
    ];
    (target, weight(), header_edits(), header_edits(), option::weighted(0.3, rewrite(None))).prop_map(
        |(target, weight, request_headers, response_headers, rewrite)| Backend {
            target,
            weight,
            request_headers,
            response_headers,
            rewrite,
        },
    )
}

fn action(matched: Option<Arc<str>>) -> impl Strategy<Value = Action> {
    let forward = (vec(backend(), 0..4), rewrite(matched.clone()))
        .prop_map(|(backends, rewrite)| Action::Forward(Forward { backends, rewrite }));
    let status = prop::sample::select(vec![301u16, 302, 303, 307, 308])
        .prop_map(|status| StatusCode::from_u16(status).expect("a status"));
    let scheme = prop::sample::select(vec![None, Some("http"), Some("https")]);
    let redirect = (status, scheme, some_name(), option::of(port()), path_rewrite(matched)).prop_map(
        |(status, scheme, host, port, path)| {
            Action::Redirect(Redirect { status, scheme: scheme.map(Into::into), host, port, path })
        },
    );
    prop_oneof![3 => forward, 1 => redirect]
}

fn cors() -> impl Strategy<Value = Cors> {
    let origin = prop_oneof![
        Just("*".to_owned()),
        (word(), word()).prop_map(|(a, b)| format!("https://{a}.{b}")),
        (word(), word()).prop_map(|(a, b)| format!("https://*.{a}.{b}:8443")),
    ];
    let tokens = || vec(prop_oneof![Just("*".to_owned()), "[A-Za-z-]{1,6}"].prop_map(Into::into), 0..3);
    (vec(origin.prop_map(Into::into), 0..3), any::<bool>(), tokens(), tokens(), tokens(), 0..100_000u64)
        .prop_map(|(allow_origins, allow_credentials, methods, headers, exposed, age)| Cors {
            allow_origins,
            allow_credentials,
            allow_methods: methods,
            allow_headers: headers,
            expose_headers: exposed,
            max_age: Duration::from_secs(age),
        })
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    let limit = || option::of(duration());
    (limit(), limit(), limit(), limit()).prop_map(|(request, backend_request, stream_idle, stream)| {
        Timeouts { request, backend_request, stream_idle, stream }
    })
}

fn retry() -> impl Strategy<Value = Arc<Retry>> {
    let on = btree_set(prop::sample::select(RetryOn::ALL.to_vec()), 0..4);
    let status = (400..600u16).prop_map(|status| StatusCode::from_u16(status).expect("a status"));
    let header = (header_name(), string_match()).prop_map(|(name, value)| HeaderMatch { name, value });
    let methods = prop_oneof![
        Just(RetryMethods::Idempotent),
        Just(RetryMethods::Any),
        vec(prop::sample::select(vec![Method::POST, Method::PATCH, Method::GET]), 0..3)
            .prop_map(RetryMethods::Listed),
    ];
    let backoff = (1..1000u64, 0..1000u64).prop_map(|(base, more)| Backoff {
        base: Duration::from_millis(base),
        max: Duration::from_millis(base + more),
    });
    let budget = (fraction(), 0..1000u32, duration()).prop_map(|(share, per_second, interval)| RetryBudget {
        share,
        per_second,
        interval,
    });
    let percentile =
        option::of((1..=1_000_000u32).prop_map(|n| Fraction::new(n, 1_000_000).expect("at most one")));
    let hedge = (duration(), percentile).prop_map(|(after, percentile)| Hedge { after, percentile });
    let parts = (
        0..=10u8,
        on,
        vec(status, 0..3),
        vec(header, 0..3),
        methods,
        backoff,
        budget,
        duration(),
        any::<bool>(),
        option::of(hedge),
    );
    parts.prop_map(
        |(attempts, on, statuses, headers, methods, backoff, budget, max_retry_after, of_retries, hedge)| {
            Arc::new(Retry {
                attempts,
                on: on.into_iter().collect(),
                statuses,
                headers,
                methods,
                backoff,
                budget,
                max_retry_after,
                of_retries,
                hedge,
            })
        },
    )
}

pub(crate) fn route() -> impl Strategy<Value = Route> {
    route_match().prop_flat_map(|matches| {
        let matched = match &matches.path {
            PathMatch::Prefix(prefix) => Some(prefix.clone()),
            _ => None,
        };
        let mirror =
            (cluster_name(), fraction()).prop_map(|(cluster, fraction)| Mirror { cluster, fraction });
        let parts = (
            name(),
            origin(),
            header_edits(),
            header_edits(),
            option::of(cors()),
            vec(mirror, 0..3),
            timeouts(),
            (option::weighted(0.3, retry()), hash()),
            (option::weighted(0.3, route_caps().prop_map(Arc::new)), option::weighted(0.3, faults())),
            action(matched),
        );
        parts.prop_map(
            move |(
                name,
                origin,
                request_headers,
                response_headers,
                cors,
                mirrors,
                timeouts,
                (retry, hash),
                (caps, faults),
                action,
            )| Route {
                name,
                origin,
                matches: matches.clone(),
                request_headers,
                response_headers,
                cors,
                mirrors,
                timeouts,
                retry,
                caps,
                faults,
                hash,
                action,
            },
        )
    })
}

pub(crate) fn route_table() -> impl Strategy<Value = RouteTable> {
    // Keyed by domain: each stands in one virtual host only.
    let hosts = btree_map(host_pattern(), (any::<bool>(), vec(route(), 0..3)), 0..4);
    (table_name(), hosts).prop_map(|(name, hosts)| {
        let mut table = RouteTable { name, hosts: Vec::new() };
        for (domain, (joins, routes)) in hosts {
            match table.hosts.last_mut() {
                Some(host) if joins => host.domains.push(domain),
                _ => table.hosts.push(VirtualHost { domains: vec![domain], routes }),
            }
        }
        table
    })
}

pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    let discovery = prop_oneof![
        Just(Discovery::Endpoints),
        (name(), port()).prop_map(|(host, port)| Discovery::Dns { host, port }),
    ];
    let http = prop::sample::select(vec![UpstreamHttp::AsReceived, UpstreamHttp::Http1, UpstreamHttp::Http2]);
    let connect = (1..=60_000u64).prop_map(Duration::from_millis);
    let idle = prop_oneof![Just(Duration::ZERO), duration()];
    let parts = (
        cluster_name(),
        option::of(service()),
        discovery,
        http,
        connect,
        idle,
        (circuit_breaker().prop_map(Arc::new), balance().prop_map(Arc::new)),
        option::of(origin()),
    );
    parts.prop_map(
        |(
            name,
            service,
            discovery,
            http,
            connect_timeout,
            idle_timeout,
            (circuit_breaker, balance),
            origin,
        )| {
            Cluster {
                name,
                service,
                discovery,
                http,
                connect_timeout,
                idle_timeout,
                circuit_breaker,
                balance,
                origin,
            }
        },
    )
}

fn hash() -> impl Strategy<Value = Vec<HashOn>> {
    let cookie = (name(), option::of(prop_oneof![Just(Duration::ZERO), duration()]), option::of(path()))
        .prop_map(|(name, ttl, path)| HashCookie { name, ttl, path });
    let input = prop_oneof![
        header_name().prop_map(HashInput::Header),
        cookie.prop_map(HashInput::Cookie),
        Just(HashInput::Source),
        name().prop_map(HashInput::Query),
    ];
    vec((input, any::<bool>()).prop_map(|(input, terminal)| HashOn { input, terminal }), 0..3)
}

fn balance() -> impl Strategy<Value = Balance> {
    let algorithm = prop_oneof![
        3 => Just(Algorithm::PeakEwma),
        1 => (2..=Algorithm::MAX_CHOICES).prop_map(|choices| Algorithm::LeastRequest { choices }),
        1 => Just(Algorithm::RoundRobin),
        1 => Just(Algorithm::Random),
        1 => (1..=2_000u32, 0..=10_000u32)
            .prop_map(|(min_size, more)| Algorithm::RingHash { min_size, max_size: min_size + more }),
        1 => prop::sample::select(vec![2, 251, 65_537]).prop_map(|table_size| Algorithm::Maglev { table_size }),
    ];
    let slow_start =
        (duration(), 1..=100u8).prop_map(|(window, min_percent)| SlowStart { window, min_percent });
    let session = (name(), prop_oneof![Just(Duration::ZERO), duration()], path())
        .prop_map(|(name, ttl, path)| SessionCookie { name, ttl, path });
    let parts = (
        algorithm,
        hash(),
        option::weighted(0.3, slow_start),
        option::weighted(0.3, name()),
        option::weighted(0.3, session),
        option::weighted(0.3, health_check().prop_map(Into::into)),
        option::of(origin()),
    );
    prop_oneof![
        1 => Just(Balance::default()),
        3 => parts.prop_map(|(algorithm, hash, slow_start, zone, session, health_check, origin)| Balance {
            algorithm,
            hash,
            slow_start,
            zone,
            session,
            health_check,
            origin,
        }),
    ]
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    let range = (100..=599u16, 1..=10u16).prop_map(|(from, length)| (from, (from + length).min(600)));
    let probe =
        prop_oneof![
            Just(HealthProbe::Tcp),
            (path(), option::of(name()), vec(range, 1..3))
                .prop_map(|(path, host, expected)| HealthProbe::Http { path, host, expected }),
            prop_oneof![Just(String::new()), word()]
                .prop_map(|service| HealthProbe::Grpc { service: service.into() }),
        ];
    (probe, 10..3_600_000u64, 1..60_000u64, 1..=100u8, 1..=100u8).prop_map(
        |(probe, interval, timeout, unhealthy_threshold, healthy_threshold)| HealthCheck {
            probe,
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            unhealthy_threshold,
            healthy_threshold,
        },
    )
}

fn breaker_mode() -> impl Strategy<Value = BreakerMode> {
    prop::sample::select(vec![BreakerMode::Enforce, BreakerMode::Observe])
}

/// A cap of 0 makes sense where something goes on without what it counts.
fn cap(from: u32) -> impl Strategy<Value = Option<u32>> {
    option::of(prop_oneof![4 => from..5_000, 1 => Just(u32::MAX)])
}

fn circuit_breaker() -> impl Strategy<Value = CircuitBreaker> {
    let caps = (breaker_mode(), cap(1), cap(1), cap(0), cap(0), cap(1)).prop_map(
        |(mode, connections, pending, requests, retries, requests_per_connection)| Caps {
            mode,
            connections,
            pending,
            requests,
            retries,
            requests_per_connection,
        },
    );
    (caps, option::of(ejection()), option::weighted(0.3, adaptive()), option::of(origin()))
        .prop_map(|(caps, ejection, adaptive, origin)| CircuitBreaker { caps, ejection, adaptive, origin })
}

fn adaptive() -> impl Strategy<Value = Adaptive> {
    (breaker_mode(), 1..1_000u32, 0..10_000u32, option::of(origin()))
        .prop_map(|(mode, least, more, origin)| Adaptive { mode, least, most: least + more, origin })
}

fn route_caps() -> impl Strategy<Value = RouteCaps> {
    (breaker_mode(), cap(1), cap(0), cap(0), option::of(origin())).prop_map(
        |(mode, pending, requests, retries, origin)| RouteCaps { mode, pending, requests, retries, origin },
    )
}

fn ejection() -> impl Strategy<Value = Ejection> {
    let consecutive = || option::of(1..=Ejection::MAX_CONSECUTIVE);
    let time = || (0..=3_600_000u64).prop_map(Duration::from_millis);
    let interval = || (1_000..=300_000u64).prop_map(Duration::from_millis);
    let requests = || 1..=SuccessRate::MAX_REQUESTS;
    let rate = (fraction(), interval(), requests()).prop_map(|(below, interval, min_requests)| SuccessRate {
        below,
        interval,
        min_requests,
    });
    let slow = (time(), fraction(), interval(), requests()).prop_map(
        |(longer_than, share, interval, min_requests)| SlowCalls {
            longer_than,
            share,
            interval,
            min_requests,
        },
    );
    let errors = prop::sample::select(vec![EjectionErrors::Gateway, EjectionErrors::Server]);
    let rules = (breaker_mode(), errors, consecutive(), consecutive(), option::of(rate), option::of(slow));
    let times = (time(), time(), fraction(), fraction(), time());
    (rules, times).prop_map(|(rules, (base, max, jitter, max_ejected, ramp))| {
        let (mode, errors, consecutive_errors, connect_failures, success_rate, slow_calls) = rules;
        Ejection {
            mode,
            errors,
            consecutive_errors,
            connect_failures,
            success_rate,
            slow_calls,
            base,
            max,
            jitter,
            max_ejected,
            ramp,
        }
    })
}

pub(crate) fn endpoints() -> impl Strategy<Value = Endpoints> {
    let health =
        prop::sample::select(vec![Health::Healthy, Health::Unknown, Health::Draining, Health::Unhealthy]);
    let identity = prop_oneof![
        Just((None, false)),
        spiffe_id().prop_map(|id| (Some(id), true)),
        spiffe_id().prop_map(|id| (Some(id), false)),
    ];
    let zone = option::of(prop::sample::select(vec!["a", "b"]).prop_map(Into::into));
    let for_zones = btree_set(prop::sample::select(vec!["a", "b"]), 0..3)
        .prop_map(|zones| zones.into_iter().map(Into::into).collect());
    let endpoint = (health, 1..=1_000_000u32, some_name(), zone, for_zones, identity);
    (cluster_name(), btree_map(socket(), endpoint, 0..6)).prop_map(|(cluster, endpoints)| Endpoints {
        cluster,
        endpoints: endpoints
            .into_iter()
            .map(|(address, (health, weight, workload, zone, for_zones, (identity, meshed)))| Endpoint {
                address,
                health,
                weight,
                workload,
                zone,
                for_zones,
                identity,
                meshed,
            })
            .collect(),
    })
}

pub(crate) fn secret() -> impl Strategy<Value = Secret> {
    (secret_name(), text(), text()).prop_map(|(name, certificate_chain, private_key)| Secret {
        name,
        certificate_chain,
        private_key,
    })
}

pub(crate) fn trust_bundle() -> impl Strategy<Value = TrustBundle> {
    // Any bytes: the codec carries certificates and does not read them.
    let root = vec(any::<u8>(), 1..200).prop_map(Root::new);
    (name(), vec(root, 1..4))
        .prop_map(|(domain, roots)| TrustBundle::new(domain, roots).expect("there is at least one root"))
}
