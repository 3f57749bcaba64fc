//! Random rules in their YAML words, judged by the model and by a reading of the words that knows no shortcuts.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

const NAMESPACES: [&str; 3] = ["a", "b", "shop"];
const ACCOUNTS: [&str; 3] = ["web", "a/web", "b/api"];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const PREFIXES: [&str; 4] = ["/", "/x", "/x/y", "/z"];
const PATHS: [&str; 8] = ["/", "/x", "/x/y", "//x", "/%78", "/z/../x", "/q;p", "/x%2f"];
const CANONICAL: [Option<&str>; 8] =
    [Some("/"), Some("/x"), Some("/x/y"), Some("/x"), Some("/x"), Some("/x"), Some("/q"), None];
const PORTS: [u16; 2] = [80, 90];
const CALLERS: [Option<(&str, &str, &str)>; 6] = [
    None,
    Some(("cluster.local", "a", "web")),
    Some(("cluster.local", "b", "api")),
    Some(("cluster.local", "shop", "web")),
    Some(("other", "a", "web")),
    Some(("other", "b", "x")),
];

type Words = Vec<&'static str>;

#[derive(Clone, Debug)]
struct Rule {
    deny: bool,
    /// Namespaces, not namespaces, accounts; empty is no condition.
    from: Option<(Words, Words, Words)>,
    /// Ports, methods, prefixes, not prefixes.
    to: Option<(Vec<u16>, Words, Words, Words)>,
}

impl Rule {
    fn yaml(&self) -> String {
        let mut parts = vec![format!("action: {}", if self.deny { "Deny" } else { "Allow" })];
        let list = |name: &str, items: Vec<String>| {
            (!items.is_empty()).then(|| format!("{name}: [{}]", items.join(", ")))
        };
        let texts = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        let paths =
            |items: &[&str]| items.iter().map(|path| format!("{{value: {path}}}")).collect::<Vec<_>>();
        if let Some((namespaces, not_namespaces, accounts)) = &self.from {
            let members = [
                list("namespaces", texts(namespaces)),
                list("notNamespaces", texts(not_namespaces)),
                list("serviceAccounts", texts(accounts)),
            ];
            let members: Vec<_> = members.into_iter().flatten().collect();
            if !members.is_empty() {
                parts.push(format!("from: [{{{}}}]", members.join(", ")));
            }
        }
        if let Some((ports, methods, prefixes, not_prefixes)) = &self.to {
            let members = [
                list("ports", ports.iter().map(ToString::to_string).collect()),
                list("methods", texts(methods)),
                list("paths", paths(prefixes)),
                list("notPaths", paths(not_prefixes)),
            ];
            let members: Vec<_> = members.into_iter().flatten().collect();
            if !members.is_empty() {
                parts.push(format!("to: [{{{}}}]", members.join(", ")));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }

    fn compares_paths(&self) -> bool {
        self.to.as_ref().is_some_and(|(_, _, is, is_not)| !is.is_empty() || !is_not.is_empty())
    }

    fn on(&self, port: u16) -> bool {
        self.to.as_ref().is_none_or(|(ports, ..)| ports.is_empty() || ports.contains(&port))
    }

    fn meets(&self, asked: &Asked) -> bool {
        let from = match (&self.from, asked.caller) {
            (None, _) => true,
            (Some((is, is_not, accounts)), Some(("cluster.local", namespace, account))) => {
                let named = |text: &&str| {
                    **text == format!("{namespace}/{account}") || (namespace == "shop" && **text == *account)
                };
                (is.is_empty() || is.contains(&namespace))
                    && !is_not.contains(&namespace)
                    && (accounts.is_empty() || accounts.iter().any(named))
            }
            // Nobody, or from another trust domain: no namespace, no account.
            (Some((is, is_not, accounts)), _) => {
                is.is_empty() && accounts.is_empty() && (is_not.is_empty() || self.deny)
            }
        };
        let to = match (&self.to, asked.request) {
            (None, _) => true,
            (Some((_, methods, is, is_not)), None) => {
                self.deny || (methods.is_empty() && is.is_empty() && is_not.is_empty())
            }
            (Some((_, methods, is, is_not)), Some((method, path))) => {
                let below = |prefix: &&str| match CANONICAL[path] {
                    Some(path) => {
                        format!("{path}/").starts_with(&format!("{}/", prefix.trim_end_matches('/')))
                    }
                    None => false,
                };
                (methods.is_empty() || methods.contains(&method))
                    && (is.is_empty() || is.iter().any(below))
                    && !is_not.iter().any(below)
            }
        };
        from && to && self.on(asked.port)
    }
}

#[derive(Clone, Debug)]
struct Policy {
    audit: bool,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Asked {
    caller: Option<(&'static str, &'static str, &'static str)>,
    port: u16,
    /// Method, and which of the paths.
    request: Option<(&'static str, usize)>,
}

/// Whether it passes, by policies that count.
fn passes(policies: &[&Policy], deny_by_default: bool, asked: &Asked) -> bool {
    let rules: Vec<&Rule> =
        policies.iter().flat_map(|policy| &policy.rules).filter(|rule| rule.on(asked.port)).collect();
    let ambiguous = asked.request.is_some_and(|(_, path)| CANONICAL[path].is_none());
    if ambiguous && rules.iter().any(|rule| rule.compares_paths()) {
        return false;
    }
    if rules.iter().any(|rule| rule.deny && rule.meets(asked)) {
        return false;
    }
    let mut allows = rules.iter().filter(|rule| !rule.deny).peekable();
    match allows.peek() {
        None => !deny_by_default,
        Some(_) => allows.any(|rule| rule.meets(asked)),
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let some = |of: &[&'static str]| subsequence(of.to_vec(), 0..=2.min(of.len()));
    let from = option::of((some(&NAMESPACES), some(&NAMESPACES[..2]), some(&ACCOUNTS)));
    let to = option::of((
        subsequence(PORTS.to_vec(), 0..=1),
        some(&METHODS),
        some(&PREFIXES),
        some(&PREFIXES[1..]),
    ));
    (any::<bool>(), from, to).prop_map(|(deny, from, to)| Rule { deny, from, to })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let policy =
        (prop::bool::weighted(0.3), vec(rule(), 1..4)).prop_map(|(audit, rules)| Policy { audit, rules });
    vec(policy, 0..4)
}

fn asked() -> impl Strategy<Value = Asked> {
    let request = option::weighted(0.8, (select(METHODS.to_vec()), 0..PATHS.len()));
    (select(CALLERS.to_vec()), select(PORTS.to_vec()), request).prop_map(|(caller, port, request)| Asked {
        caller,
        port,
        request,
    })
}

fn text(policies: &[Policy], deny_by_default: bool, all_enforced: bool) -> String {
    let default = if deny_by_default { "Deny" } else { "Allow" };
    let mut text = format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: default}}\nspec: {{access: {{default: {default}}}}}\n"
    );
    for (i, one) in policies.iter().enumerate() {
        let rules: Vec<_> = one.rules.iter().map(Rule::yaml).collect();
        let mode = if one.audit && !all_enforced { "Audit" } else { "Enforce" };
        text += &policy(&format!("p{i}"), &format!("mode: {mode}, rules: [{}]", rules.join(", ")));
    }
    text
}

/// What is refused, and what is only audited.
fn judged(access: &Access, asked: &Asked) -> (bool, bool) {
    let identity = asked
        .caller
        .map(|(domain, namespace, account)| SpiffeId::new(domain, namespace, account).expect("an id"));
    let caller = Caller { identity: identity.as_ref(), address: "10.0.0.9".parse().expect("an address") };
    let request = asked.request.map(|(method, path)| Request::parse(&format!("{method} {}", PATHS[path])));
    let access = access.at(asked.port);
    let Decision { refused, audited } = access.judge(caller, request.as_ref().map(Request::call));
    // A connection that any call may pass on is never cut, and the reverse.
    assert!(refused.is_some() || access.admits(caller), "{asked:?}");
    (refused.is_some(), audited.is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rules_are_what_their_words_say(
        policies in policies(),
        deny_by_default in any::<bool>(),
        all in vec(asked(), 1..12),
    ) {
        let written = text(&policies, deny_by_default, false);
        let (access, enforced) = (access_of(&written), access_of(&text(&policies, deny_by_default, true)));
        let counted: Vec<&Policy> = policies.iter().filter(|policy| !policy.audit).collect();
        let everything: Vec<&Policy> = policies.iter().collect();
        for asked in all {
            let (refused, audited) = judged(&access, &asked);
            prop_assert_eq!(refused, !passes(&counted, deny_by_default, &asked), "{:?}\n{}", asked, written);
            // Audit counts exactly what would be refused if it were enforced, and is not already.
            let (would, _) = judged(&enforced, &asked);
            prop_assert_eq!(would, !passes(&everything, deny_by_default, &asked), "{:?}\n{}", asked, written);
            prop_assert_eq!(audited, would && !refused, "{:?}\n{}", asked, written);
        }
    }
}
