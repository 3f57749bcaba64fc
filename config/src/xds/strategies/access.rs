//! Who may call.

use super::*;

pub(super) fn access() -> impl Strategy<Value = Access> {
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

pub(super) fn shared(texts: &[&'static str]) -> impl Strategy<Value = Arc<str>> + Clone + use<> {
    prop::sample::select(texts.to_vec()).prop_map(Into::into)
}

pub(super) fn peer_match() -> impl Strategy<Value = PeerMatch> {
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

pub(super) fn call_match() -> impl Strategy<Value = CallMatch> {
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

pub(super) fn spiffe_id() -> impl Strategy<Value = SpiffeId> {
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
