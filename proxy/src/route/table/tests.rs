use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outrigger_config::model::{
    HeaderMatch, Pattern, QueryMatch, Redirect, RouteTable, StringMatch, VirtualHost,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::telemetry::{Direction, Metrics};

/// Few words, so that what is generated meets what is asked for.
const WORDS: [&str; 4] = ["a", "b", "ab", "api"];
const HOSTS: [&str; 8] = ["*", "*.a", "*.b.a", "a", "b.a", "*.com", "x.b.a", "*.x.b.a"];

fn route(matches: RouteMatch, number: usize) -> model::Route {
    model::Route {
        name: format!("route-{number}").into(),
        origin: Origin::new("HTTPRoute", "default", "test", ""),
        matches,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        cors: None,
        mirrors: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        caps: None,
        faults: None,
        hash: vec![],
        action: model::Action::Redirect(Redirect {
            status: StatusCode::FOUND,
            scheme: None,
            host: None,
            port: None,
            path: None,
        }),
    }
}

fn some_path() -> impl Strategy<Value = String> {
    (prop::collection::vec(select(&WORDS), 0..4), any::<bool>()).prop_map(|(words, slash)| {
        let path = words.iter().map(|word| format!("/{word}")).collect::<String>();
        if slash || path.is_empty() { path + "/" } else { path }
    })
}

fn some_match() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        some_path().prop_map(|path| PathMatch::Exact(path.into())),
        some_path().prop_map(|path| PathMatch::prefix(&path)),
        select(vec!["/a.*", "/(a|b)/api", ".*"])
            .prop_map(|pattern| PathMatch::Regex(Pattern::new(pattern).expect("valid"))),
    ];
    let method = prop::option::weighted(0.3, select(vec![Method::GET, Method::POST]));
    let header = prop::option::weighted(0.3, select(&WORDS)).prop_map(|value| {
        let name = HeaderName::from_static("x-who");
        value.map(|value| HeaderMatch { name, value: StringMatch::Exact(value.into()) }).into_iter().collect()
    });
    let query = prop::option::weighted(0.2, select(&WORDS)).prop_map(|value| {
        value
            .map(|value| QueryMatch { name: "q".into(), value: StringMatch::Exact(value.into()) })
            .into_iter()
            .collect()
    });
    (path, method, header, query).prop_map(|(path, method, headers, query)| RouteMatch {
        path,
        method,
        headers,
        query,
    })
}

fn some_table() -> impl Strategy<Value = RouteTable> {
    let routes = prop::collection::vec(some_match(), 0..40);
    let hosts = (subsequence(&HOSTS, 0..=HOSTS.len()), prop::collection::vec(routes, 1..4));
    hosts.prop_map(|(domains, tables)| {
        let mut hosts: Vec<VirtualHost> = tables
            .into_iter()
            .map(|routes| VirtualHost {
                domains: Vec::new(),
                routes: routes.into_iter().enumerate().map(|(n, matches)| route(matches, n)).collect(),
            })
            .collect();
        // Each domain stands in one virtual host only.
        for (n, domain) in domains.into_iter().enumerate() {
            let n = n % hosts.len();
            hosts[n].domains.push(HostPattern::parse(domain).expect("a pattern"));
        }
        RouteTable { name: "test".into(), hosts }
    })
}

fn compile(table: &RouteTable) -> Table {
    let service = Metrics::new(1).service(Direction::Outbound, None);
    let no_cluster = |_: &ClusterName| -> Upstream { unreachable!("the routes of these tests redirect") };
    Table::compile(table, no_cluster, |route| service.route(&route.name), |_| None)
}

proptest! {
    /// The index finds what the scan finds.
    #[test]
    fn the_index_answers_like_the_model(
        table in some_table(),
        asked in prop::collection::vec(
            (some_path(), select(vec!["a", "A", "b.a", "x.B.a", "y.x.b.a", "x.com", "com", "é.a", ""]), any::<bool>(),
             prop::option::of(select(&WORDS)), prop::option::of(select(&WORDS))),
            1..20,
        ),
    ) {
        let compiled = compile(&table);
        for (path, host, post, who, q) in asked {
            let mut headers = HeaderMap::new();
            if let Some(who) = who {
                headers.insert("x-who", HeaderValue::from_static(who));
            }
            let query = q.map(|q| format!("q={q}"));
            let request = RequestHead {
                method: if post { &Method::POST } else { &Method::GET },
                host, path: &path, query: query.as_deref(), headers: &headers,
            };
            let want = table.find(&request).map(|route| (&route.name, Some(&route.matches)));
            let got = compiled.find(&request).map(|route| (&route.name, route.matches.as_ref()));
            prop_assert_eq!(got, want);
        }
    }
}

#[test]
fn ten_thousand_routes_are_told_apart() {
    let routes = (0..10_000).map(|n| {
        let path = PathMatch::prefix(&format!("/service/{n}"));
        route(RouteMatch { path, method: None, headers: Vec::new(), query: Vec::new() }, n)
    });
    let table = RouteTable {
        name: "test".into(),
        hosts: vec![VirtualHost { domains: vec![HostPattern::Any], routes: routes.collect() }],
    };
    let table = compile(&table);
    let headers = HeaderMap::new();
    let find = |path| {
        let request = RequestHead { method: &Method::GET, host: "x", path, query: None, headers: &headers };
        table.find(&request).map(|route| route.name.to_string())
    };
    assert_eq!(find("/service/9999/deep/er").as_deref(), Some("route-9999"));
    assert_eq!(find("/service/10000"), None);
    assert_eq!(find("*"), None); // OPTIONS *
}
