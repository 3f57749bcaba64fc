//! The order of routes against a slow reading of the Gateway API's own words, over random rules and requests.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::model::RequestHead;
use crate::registry::tests::{registry, services};

/// A route as its author thinks of it.
#[derive(Clone, Debug)]
struct Plain {
    namespace: &'static str,
    name: &'static str,
    /// Day of January.
    created: Option<u8>,
    /// Of each rule, its matches.
    rules: Vec<Vec<Match>>,
}

#[derive(Clone, Debug)]
struct Match {
    exact: bool,
    /// Segments; none is `/`.
    path: Vec<&'static str>,
    trailing_slash: bool,
    method: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

#[derive(Clone, Debug)]
struct Request {
    path: Vec<&'static str>,
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

const SEGMENTS: [&str; 3] = ["a", "b", "ab"];
const METHODS: [&str; 2] = ["GET", "POST"];
const NAMES: [&str; 2] = ["x", "y"];
const VALUES: [&str; 2] = ["1", "2"];

fn pairs() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    proptest::collection::btree_map(prop::sample::select(&NAMES), prop::sample::select(&VALUES), 0..=2)
        .prop_map(|pairs| pairs.into_iter().collect())
}

fn segments() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(prop::sample::select(&SEGMENTS), 0..=2)
}

fn a_match() -> impl Strategy<Value = Match> {
    let method = proptest::option::of(prop::sample::select(&METHODS));
    (any::<bool>(), segments(), any::<bool>(), method, pairs(), pairs()).prop_map(
        |(exact, path, trailing_slash, method, headers, query)| Match {
            exact,
            path,
            trailing_slash,
            method,
            headers,
            query,
        },
    )
}

fn routes() -> impl Strategy<Value = Vec<Plain>> {
    let rules = proptest::collection::vec(proptest::collection::vec(a_match(), 0..=2), 1..=3);
    let created = proptest::option::of(1u8..=2);
    proptest::collection::vec((created, rules), 1..=3).prop_map(|routes| {
        let names = ["b", "a", "c"];
        routes
            .into_iter()
            .zip(names)
            .map(|((created, rules), name)| Plain { namespace: "default", name, created, rules })
            .collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    (segments(), prop::sample::select(&METHODS), pairs(), pairs())
        .prop_map(|(path, method, headers, query)| Request { path, method, headers, query })
}

fn manifest(route: &Plain) -> String {
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(n, v)| format!("{{name: {n}, value: '{v}'}}")).collect::<Vec<_>>().join(", ")
    };
    let one = |m: &Match| {
        let kind = if m.exact { "Exact" } else { "PathPrefix" };
        let slash = if m.trailing_slash && !m.path.is_empty() { "/" } else { "" };
        let method = m.method.map(|method| format!("method: {method}, ")).unwrap_or_default();
        format!(
            "{{path: {{type: {kind}, value: '/{}{slash}'}}, {method}headers: [{}], queryParams: [{}]}}",
            m.path.join("/"),
            pairs(&m.headers),
            pairs(&m.query)
        )
    };
    let rules: Vec<_> = route
        .rules
        .iter()
        .map(|rule| {
            let matches: Vec<_> = rule.iter().map(one).collect();
            format!("{{matches: [{}], backendRefs: [{{name: a, port: 80}}]}}", matches.join(", "))
        })
        .collect();
    let created = route
        .created
        .map(|day| format!(", creationTimestamp: '2026-01-{day:02}T00:00:00Z'"))
        .unwrap_or_default();
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {}, namespace: {}{created}}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: a}}], rules: [{}]}}\n",
        route.name,
        route.namespace,
        rules.join(", ")
    )
}

impl Match {
    /// What a rule without matches stands for.
    fn everything() -> Self {
        Self {
            exact: false,
            path: vec![],
            trailing_slash: false,
            method: None,
            headers: vec![],
            query: vec![],
        }
    }

    fn fits(&self, request: &Request) -> bool {
        let path = if self.exact {
            // An exact path with a slash at its end is another path; requests here have none.
            self.path == request.path && (self.path.is_empty() || !self.trailing_slash)
        } else {
            request.path.starts_with(&self.path)
        };
        path && self.method.is_none_or(|method| method == request.method)
            && self.headers.iter().all(|header| request.headers.contains(header))
            && self.query.iter().all(|query| request.query.contains(query))
    }

    fn prefix_characters(&self) -> usize {
        if self.path.is_empty() { 1 } else { self.path.iter().map(|segment| 1 + segment.len()).sum() }
    }
}

/// `HTTPRouteRule.matches` of the API, sentence by sentence.
fn goes_before(a: &(&Plain, usize, usize, Match), b: &(&Plain, usize, usize, Match)) -> Ordering {
    let (ma, mb) = (&a.3, &b.3);
    // "Exact" path match.
    if ma.exact != mb.exact {
        return if ma.exact { Ordering::Less } else { Ordering::Greater };
    }
    // "Prefix" path match with largest number of characters.
    if !ma.exact && ma.prefix_characters() != mb.prefix_characters() {
        return mb.prefix_characters().cmp(&ma.prefix_characters());
    }
    // Method match.
    if ma.method.is_some() != mb.method.is_some() {
        return if ma.method.is_some() { Ordering::Less } else { Ordering::Greater };
    }
    // Largest number of header matches.
    if ma.headers.len() != mb.headers.len() {
        return mb.headers.len().cmp(&ma.headers.len());
    }
    // Largest number of query param matches.
    if ma.query.len() != mb.query.len() {
        return mb.query.len().cmp(&ma.query.len());
    }
    // The oldest Route based on creation timestamp; one that has none is taken for the youngest.
    let age = |route: &Plain| route.created.unwrap_or(u8::MAX);
    if age(a.0) != age(b.0) {
        return age(a.0).cmp(&age(b.0));
    }
    // The Route appearing first in alphabetical order by "{namespace}/{name}".
    let name = |route: &Plain| format!("{}/{}", route.namespace, route.name);
    if name(a.0) != name(b.0) {
        return name(a.0).cmp(&name(b.0));
    }
    // Within an HTTPRoute, the FIRST matching rule (in list order).
    (a.1, a.2).cmp(&(b.1, b.2))
}

fn slowly<'p>(routes: &'p [Plain], request: &Request) -> Option<(&'p str, usize)> {
    let mut fitting = Vec::new();
    for route in routes {
        for (i, rule) in route.rules.iter().enumerate() {
            let matches = if rule.is_empty() { vec![Match::everything()] } else { rule.clone() };
            for (j, m) in matches.into_iter().enumerate().filter(|(_, m)| m.fits(request)) {
                fitting.push((route, i, j, m));
            }
        }
    }
    let first =
        fitting.into_iter().reduce(|a, b| if goes_before(&b, &a) == Ordering::Less { b } else { a })?;
    Some((first.0.name, first.1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_first_match_of_a_table_is_the_one_the_specification_prefers(
        routes in routes(),
        requests in proptest::collection::vec(request(), 20),
    ) {
        let text = services(&["default/a"]) + &routes.iter().map(manifest).collect::<String>();
        let table =
            registry(&text).table_of(&sidecar("default"), "outbound|80|a.default.svc.cluster.local");
        for request in requests {
            let method = http::Method::from_bytes(request.method.as_bytes()).unwrap();
            let path = format!("/{}", request.path.join("/"));
            let query: Vec<_> = request.query.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let query = query.join("&");
            let mut headers = http::HeaderMap::new();
            for (name, value) in &request.headers {
                headers.insert(*name, http::HeaderValue::from_static(value));
            }
            let head = RequestHead { method: &method, host: "a", path: &path, query: Some(&query), headers: &headers };
            let found = table.find(&head).map(|route| {
                let rule = route.origin.field.strip_prefix("spec.rules[").unwrap();
                (&*route.name, rule.split(']').next().unwrap().parse::<usize>().unwrap())
            });
            prop_assert_eq!(found, slowly(&routes, &request), "{:?}", request);
        }
    }
}
