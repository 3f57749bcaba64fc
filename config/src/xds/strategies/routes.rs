//! Routes, what they match and do.

use super::*;

fn pattern() -> impl Strategy<Value = Pattern> {
    prop::sample::select(vec!["a|b", "[a-z]+", "/v[0-9]/.*", ".*", "", r"a\.b", "(?i)x"])
        .prop_map(|source| Pattern::new(source).expect("valid"))
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![text().prop_map(StringMatch::Exact), pattern().prop_map(StringMatch::Regex)]
}

pub(super) fn path() -> impl Strategy<Value = Arc<str>> {
    "(/[a-zA-Z0-9.%~]{1,5}){0,3}/?".prop_map(|path| if path.is_empty() { "/".into() } else { path.into() })
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        path().prop_map(PathMatch::Exact),
        path().prop_map(|path| PathMatch::prefix(&path)),
        pattern().prop_map(PathMatch::Regex),
    ]
}

pub(super) fn header_name() -> impl Strategy<Value = HeaderName> {
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

pub(super) fn some_name() -> impl Strategy<Value = Option<Arc<str>>> {
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

fn route() -> impl Strategy<Value = Route> {
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
