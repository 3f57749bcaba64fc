use super::*;

/// Who asks, what for, what becomes of it, and why.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// A rule's `from` or `to`, what is asked, and what becomes of it. The rule is called `r`.
fn rows(action: &str, rules: &[(&str, &[Row])]) -> usize {
    let mut rows = 0;
    for (rule, asked) in rules {
        let access = access_of(&policy("p", &format!("rules: [{{name: r, action: {action}, {rule}}}]")));
        for (who, what, want, why) in *asked {
            rows += 1;
            let got = judged(&access, who, what);
            assert_eq!(got, *want, "{action} {rule}: {who} {what}: {why}");
        }
    }
    rows
}

/// `what`: a request, `TCP`, either behind `:PORT `.
fn judged(access: &Access, who: &str, what: &str) -> String {
    let (port, what) = match what.strip_prefix(':').and_then(|rest| rest.split_once(' ')) {
        Some((port, what)) => (port.parse().expect("a port"), what),
        None => (80, what),
    };
    let access = access.at(port);
    let (identity, address) = caller(who);
    let caller = Caller { identity: identity.as_ref(), address };
    let request = (what != "TCP").then(|| Request::parse(what));
    word(access.judge(caller, request.as_ref().map(Request::call)).refused.as_ref())
}

#[test]
fn callers_are_who_they_proved_to_be() {
    let get = "GET /";
    let n = rows(
        "Allow",
        &[
            (
                "from: [{serviceAccounts: [web, ops/admin]}]",
                &[
                    ("shop/web", get, "yes", "of the policy's namespace"),
                    ("ops/admin", get, "yes", "of a namespace that is named"),
                    ("ops/web", get, "none", "the name alone is not enough"),
                    ("shop/admin", get, "none", "nor the other way round"),
                    ("shop/web-2", get, "none", "names are compared whole"),
                    (
                        "spiffe://other.domain/ns/shop/sa/web",
                        get,
                        "none",
                        "in another trust domain it is somebody else",
                    ),
                    (
                        "spiffe://cluster.local/ns/shop/sa/web/x",
                        get,
                        "none",
                        "another form of id has no account",
                    ),
                    ("-", get, "none", "nothing is proven"),
                    ("shop/web", "TCP", "yes", "a condition on the peer holds for bytes, too"),
                ],
            ),
            (
                "from: [{namespaces: [a, b]}]",
                &[
                    ("a/x", get, "yes", ""),
                    ("b/y", get, "yes", ""),
                    ("ab/x", get, "none", ""),
                    (
                        "spiffe://other.domain/ns/a/sa/x",
                        get,
                        "none",
                        "in another trust domain it is another namespace",
                    ),
                    ("-", get, "none", ""),
                ],
            ),
            (
                "from: [{notNamespaces: [a]}]",
                &[
                    ("b/x", get, "yes", ""),
                    ("a/x", get, "none", ""),
                    ("-", get, "none", "nobody is not known to be from elsewhere"),
                    ("spiffe://other.domain/ns/b/sa/x", get, "none", "nor is a stranger"),
                ],
            ),
            (
                "from: [{trustDomains: [other.domain], namespaces: [a]}]",
                &[
                    ("spiffe://other.domain/ns/a/sa/x", get, "yes", "the domain named is the one meant"),
                    ("a/x", get, "none", ""),
                    ("spiffe://other.domain/ns/b/sa/x", get, "none", "both conditions"),
                ],
            ),
            (
                "from: [{trustDomains: [other.domain]}]",
                &[
                    ("spiffe://other.domain/whatever/it/is", get, "yes", ""),
                    ("a/x", get, "none", ""),
                    ("-", get, "none", ""),
                ],
            ),
            (
                "from: [{notTrustDomains: [other.domain]}]",
                &[
                    ("a/x", get, "yes", ""),
                    ("spiffe://other.domain/ns/a/sa/x", get, "none", ""),
                    ("-", get, "none", "what is not proven allows nothing"),
                ],
            ),
            (
                "from: [{identities: ['spiffe://cluster.local/ns/*/sa/web-*']}]",
                &[
                    ("a/web-1", get, "yes", ""),
                    ("a/web", get, "none", ""),
                    ("spiffe://cluster.local/ns/a/sa/b/sa/web-1", get, "none", "a star is one segment"),
                ],
            ),
            (
                "from: [{identities: ['spiffe://cluster.local/**'], notServiceAccounts: [web]}]",
                &[("a/x", get, "yes", ""), ("shop/web", get, "none", ""), ("-", get, "none", "")],
            ),
            (
                "from: [{addresses: [10.1.0.0/16, 'fd00::/8', 192.0.2.7]}]",
                &[
                    ("-@10.1.2.3", get, "yes", "an address needs no identity"),
                    ("-@10.2.0.1", get, "none", ""),
                    ("-@fd00::1", get, "yes", ""),
                    ("-@192.0.2.7", get, "yes", ""),
                    ("-@192.0.2.8", get, "none", ""),
                    ("a/x@10.1.0.1", "TCP", "yes", ""),
                ],
            ),
            (
                "from: [{addresses: [10.0.0.0/8], notAddresses: [10.1.0.0/16]}]",
                &[("-@10.2.0.1", get, "yes", ""), ("-@10.1.0.1", get, "none", "")],
            ),
            (
                "from: [{namespaces: [a]}, {addresses: [10.1.0.0/16]}]",
                &[
                    ("a/x@10.9.9.9", get, "yes", "one of the list is enough"),
                    ("b/x@10.1.0.1", get, "yes", ""),
                    ("b/x@10.9.9.9", get, "none", ""),
                ],
            ),
        ],
    );
    assert!(n >= 40, "{n}");
}

#[test]
fn a_rule_that_denies_errs_on_the_safe_side() {
    let get = "GET /";
    rows(
        "Deny",
        &[
            (
                "from: [{namespaces: [a]}]",
                &[
                    ("a/x", get, "r", ""),
                    ("b/x", get, "yes", ""),
                    ("-", get, "yes", "what is not proven is no match"),
                ],
            ),
            (
                "from: [{notNamespaces: [a]}]",
                &[
                    ("a/x", get, "yes", ""),
                    ("b/x", get, "r", ""),
                    ("-", get, "r", "only namespace a may call, and nobody is not known to be from there"),
                    (
                        "spiffe://other.domain/ns/a/sa/x",
                        get,
                        "r",
                        "another domain's namespace a is not that one",
                    ),
                ],
            ),
            (
                "from: [{notServiceAccounts: [web]}]",
                &[("shop/web", get, "yes", ""), ("-", get, "r", ""), ("-", "TCP", "r", "")],
            ),
            (
                "from: [{notIdentities: ['spiffe://cluster.local/**']}]",
                &[("a/x", get, "yes", ""), ("-", get, "r", "")],
            ),
            ("from: [{notTrustDomains: [cluster.local]}]", &[("a/x", get, "yes", ""), ("-", get, "r", "")]),
            (
                "to: [{methods: [DELETE]}]",
                &[
                    ("-", "DELETE /x", "r", ""),
                    ("-", "GET /x", "yes", ""),
                    ("-", "TCP", "r", "bytes may be anything"),
                ],
            ),
            (
                "from: [{namespaces: [a]}], to: [{paths: [{value: /admin}]}]",
                &[("a/x", "TCP", "r", "on bytes only the peer counts"), ("b/x", "TCP", "yes", "")],
            ),
            (
                "to: [{ports: [90]}]",
                &[("-", ":90 TCP", "r", ""), ("-", ":80 TCP", "yes", ""), ("-", ":90 GET /", "r", "")],
            ),
            (
                "to: [{ports: [90], methods: [GET]}]",
                &[
                    ("-", ":90 TCP", "r", ""),
                    ("-", ":80 TCP", "yes", "the port is known whatever is carried"),
                    ("-", ":80 GET /", "yes", ""),
                ],
            ),
            (
                "to: [{headers: [{name: x-env, value: test}]}]",
                &[
                    ("-", "GET / x-env=test", "r", ""),
                    ("-", "GET / x-env=prod", "yes", ""),
                    ("-", "GET / x-env=prod x-env=test", "r", "an app may take the second line"),
                    ("-", "GET / x-env=test x-env=prod", "r", "or the first"),
                ],
            ),
            (
                "to: [{notHeaders: [{name: x-key, type: Present}]}]",
                &[("-", "GET /", "r", ""), ("-", "GET / x-key=1", "yes", "")],
            ),
            (
                "to: [{notHeaders: [{name: x-key, value: good}]}]",
                &[
                    ("-", "GET / x-key=good", "yes", ""),
                    ("-", "GET / x-key=good x-key=bad", "r", "it is not sure to be the good one"),
                ],
            ),
            (
                "to: [{headers: [{name: x-env, type: RegularExpression, value: '.*evil.*'}]}]",
                &[
                    ("-", "GET / x-env=an-evil-one", "r", ""),
                    ("-", "GET / x-env=é", "r", "what is no text cannot be told"),
                ],
            ),
            (
                "to: [{notPaths: [{value: /public}]}]",
                &[("-", "GET /public/x", "yes", ""), ("-", "GET /other", "r", "")],
            ),
            ("", &[("a/x", get, "r", "no condition: everything"), ("-", "TCP", "r", "")]),
        ],
    );
}

#[test]
fn calls_are_compared_field_by_field() {
    rows(
        "Allow",
        &[
            (
                "to: [{methods: [GET, HEAD]}]",
                &[
                    ("-", "GET /", "yes", ""),
                    ("-", "HEAD /", "yes", ""),
                    ("-", "get /", "none", "methods have their case (RFC 9110 section 9.1)"),
                    ("-", "POST /", "none", ""),
                    ("-", "TCP", "none", "a rule that asks for HTTP allows no bytes"),
                ],
            ),
            (
                "to: [{notMethods: [POST]}]",
                &[("-", "PURGE /", "yes", ""), ("-", "POST /", "none", ""), ("-", "TCP", "none", "")],
            ),
            (
                "to: [{ports: [80]}]",
                &[
                    ("-", ":80 GET /", "yes", ""),
                    ("-", ":80 TCP", "yes", ""),
                    ("-", ":90 GET /", "yes", "no rule selects port 90"),
                ],
            ),
            (
                "to: [{ports: [90]}, {ports: [80], methods: [GET]}]",
                &[
                    ("-", ":80 TCP", "none", ""),
                    ("-", ":90 TCP", "yes", "what asks for HTTP is about the other port"),
                ],
            ),
            (
                "to: [{notPorts: [80]}]",
                &[
                    ("-", ":80 GET /", "yes", "not selected"),
                    ("-", ":90 GET /", "yes", ""),
                    ("-", ":12345 TCP", "yes", ""),
                ],
            ),
            (
                "to: [{hosts: [w.shop, '*.example.com', 10.0.0.1]}]",
                &[
                    ("-", "GET / host=w.shop", "yes", ""),
                    ("-", "GET / host=W.Shop", "yes", "hosts have no case"),
                    ("-", "GET / host=w.shop.", "yes", "nor a dot at the end"),
                    ("-", "GET / host=a.b.example.com", "yes", ""),
                    ("-", "GET / host=example.com", "none", ""),
                    ("-", "GET / host=10.0.0.1", "yes", ""),
                    ("-", "GET / host=xw.shop", "none", ""),
                ],
            ),
            (
                "to: [{notHosts: ['*.internal']}]",
                &[("-", "GET / host=a.internal.", "none", ""), ("-", "GET / host=a.example.com", "yes", "")],
            ),
            (
                "to: [{headers: [{name: X-Role, value: admin}]}]",
                &[
                    ("-", "GET / x-role=admin", "yes", "names have no case"),
                    ("-", "GET / x-role=Admin", "none", "values do"),
                    ("-", "GET / x-role=admin x-role=user", "none", "two lines are one value with a comma"),
                    ("-", "GET /", "none", ""),
                ],
            ),
            (
                "to: [{headers: [{name: x-role, type: Present}], notHeaders: [{name: x-debug, value: 'on'}]}]",
                &[
                    ("-", "GET / x-role=any", "yes", ""),
                    ("-", "GET / x-role=any x-debug=on", "none", ""),
                    (
                        "-",
                        "GET / x-role=any x-debug=off x-debug=on",
                        "none",
                        "an app may take the second line",
                    ),
                ],
            ),
            (
                "to: [{grpc: [{service: chat.v1.Chat, method: Say}, {service: health.Health}, {method: Ping}]}]",
                &[
                    ("-", "POST /chat.v1.Chat/Say", "yes", ""),
                    ("-", "POST /chat.v1.Chat/Hear", "none", ""),
                    ("-", "POST /health.Health/Check", "yes", ""),
                    ("-", "POST /health.Health/Check/x", "none", "a call has two segments"),
                    ("-", "POST /any.Service/Ping", "yes", ""),
                    ("-", "POST /chat.v1.Chat/%53ay", "yes", "an escape is the same letter"),
                    ("-", "POST /chat.v1.Chat", "none", ""),
                    ("-", "TCP", "none", ""),
                ],
            ),
            (
                "to: [{notGrpc: [{service: admin.Admin}]}]",
                &[
                    ("-", "POST /chat.v1.Chat/Say", "yes", ""),
                    ("-", "POST /admin.Admin/Drop", "none", ""),
                    ("-", "POST //admin.Admin/Drop", "none", "the same once it is canonical"),
                ],
            ),
            (
                "to: [{methods: [GET]}, {paths: [{value: /open}]}]",
                &[("-", "POST /open/x", "yes", "one of the list is enough"), ("-", "POST /x", "none", "")],
            ),
            (
                "from: [{namespaces: [a]}], to: [{methods: [GET]}]",
                &[
                    ("a/x", "GET /", "yes", "from and to"),
                    ("a/x", "POST /", "none", ""),
                    ("b/x", "GET /", "none", ""),
                ],
            ),
        ],
    );
}

#[test]
fn paths_have_one_spelling_or_none() {
    let n = rows(
        "Allow",
        &[
            (
                "to: [{paths: [{value: /api}, {type: Exact, value: /health}]}]",
                &[
                    ("-", "GET /api", "yes", ""),
                    ("-", "GET /api/", "yes", ""),
                    ("-", "GET /api/v1", "yes", ""),
                    ("-", "GET /apiary", "none", "whole segments"),
                    ("-", "GET /API", "none", "paths have their case"),
                    ("-", "GET /health", "yes", ""),
                    ("-", "GET /health/", "none", "exact is exact"),
                    ("-", "GET /a%70i/x", "yes", "an escaped letter is the letter"),
                    ("-", "GET //api//v1", "yes", "slashes in a row are one"),
                    ("-", "GET /x/../api", "yes", ""),
                    ("-", "GET /./api", "yes", ""),
                    ("-", "GET /api/../secret", "none", "a dot segment leads out"),
                    ("-", "GET /api/%2e%2e/secret", "none", "encoded, too"),
                    ("-", "GET /api/%2E%2e/secret", "none", "in either case"),
                    ("-", "GET /api/.%2e/secret", "none", ""),
                    ("-", "GET /api/../../etc", "ambiguous", "above the root"),
                    ("-", "GET /api/x/..", "yes", ""),
                    ("-", "GET /api/..", "none", ""),
                    ("-", "GET /api;v=1/x", "yes", "parameters are not part of a name"),
                    ("-", "GET /api/..;/secret", "ambiguous", "a dot segment to some"),
                    ("-", "GET /api/.;x/secret", "ambiguous", ""),
                    ("-", "GET /api/%2e%2e;/secret", "ambiguous", ""),
                    ("-", "GET /api%2Fsecret", "ambiguous", "an encoded slash"),
                    ("-", "GET /api%2fsecret", "ambiguous", ""),
                    ("-", "GET /api/..%2fsecret", "ambiguous", ""),
                    ("-", "GET /api%5Csecret", "ambiguous", "a backslash"),
                    ("-", "GET /api\\secret", "ambiguous", ""),
                    ("-", "GET /api/..\\secret", "ambiguous", ""),
                    ("-", "GET /api%00", "ambiguous", "NUL"),
                    ("-", "GET /api%0a", "ambiguous", "a line feed"),
                    ("-", "GET /api%7f", "ambiguous", ""),
                    ("-", "GET /api%", "ambiguous", "escapes nothing"),
                    ("-", "GET /api%2", "ambiguous", ""),
                    ("-", "GET /api%zz", "ambiguous", ""),
                    ("-", "GET /api%u002f", "ambiguous", ""),
                    ("-", "GET /api/%252e%252e/secret", "ambiguous", "encoded twice"),
                    ("-", "GET /api%3B/x", "ambiguous", "parameters to who decodes first"),
                    ("-", "GET /api;%2fx", "ambiguous", "nor may parameters hide anything"),
                    ("-", "GET /%c0%afapi", "ambiguous", "an overlong slash"),
                    ("-", "GET /api/100%25", "yes", "one percent sign is one"),
                    ("-", "GET /api/a%20b", "yes", ""),
                    ("-", "GET /api/caf%c3%a9", "yes", ""),
                    ("-", "OPTIONS *", "ambiguous", "no path at all"),
                ],
            ),
            (
                "to: [{paths: [{type: Exact, value: '/caf%C3%A9'}]}]",
                &[
                    ("-", "GET /caf%c3%a9", "yes", "a rule's escapes are as good"),
                    ("-", "GET /café", "yes", ""),
                ],
            ),
            (
                "to: [{paths: [{type: Template, value: '/users/{id}/posts'}, {type: Template, value: '/files/{**}'}]}]",
                &[
                    ("-", "GET /users/7/posts", "yes", ""),
                    ("-", "GET /users//posts", "none", "a segment that is not empty"),
                    ("-", "GET /users/7/8/posts", "none", "one segment"),
                    ("-", "GET /users/7/posts/1", "none", ""),
                    ("-", "GET /users/a%2fb/posts", "ambiguous", ""),
                    ("-", "GET /files", "yes", "nothing is also a rest"),
                    ("-", "GET /files/", "yes", ""),
                    ("-", "GET /files/a/b", "yes", ""),
                    ("-", "GET /files/../x", "none", ""),
                ],
            ),
            (
                "to: [{notPaths: [{value: /admin}]}]",
                &[
                    ("-", "GET /shop", "yes", ""),
                    ("-", "GET /admin", "none", ""),
                    ("-", "GET /%61dmin", "none", ""),
                    ("-", "GET /;x/admin", "none", ""),
                    ("-", "GET /x/..//admin/", "none", ""),
                    ("-", "GET /admin%2f", "ambiguous", ""),
                ],
            ),
            (
                "to: [{methods: [GET]}]",
                &[
                    ("-", "GET /a%2fb", "yes", "where no path is compared none can be ambiguous"),
                    ("-", "OPTIONS *", "none", ""),
                ],
            ),
        ],
    );
    assert!(n >= 60, "{n}");
    rows(
        "Deny",
        &[(
            "to: [{paths: [{value: /admin}]}]",
            &[
                ("-", "GET /shop", "yes", ""),
                ("-", "GET /admin", "r", ""),
                ("-", "GET /admin/users", "r", ""),
                ("-", "GET //admin", "r", ""),
                ("-", "GET /%61dmin", "r", ""),
                ("-", "GET /./admin", "r", ""),
                ("-", "GET /x/../admin", "r", ""),
                ("-", "GET /admin;x=1", "r", ""),
                ("-", "GET /admin;x=1/users", "r", ""),
                ("-", "GET /%2e/admin", "r", ""),
                ("-", "GET /admin%2fusers", "ambiguous", ""),
                ("-", "GET /x\\..\\admin", "ambiguous", ""),
                ("-", "GET /administrator", "yes", "whole segments"),
            ],
        )],
    );
}

#[test]
fn policies_hold_together() {
    let mesh = "---\napiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec: {access: {default: Deny}}\n";
    let allow_a = policy("a", "rules: [{from: [{namespaces: [a]}]}]");
    let allow_b = policy("b", "selector: {matchLabels: {app: w}}, rules: [{from: [{namespaces: [b]}]}]");
    let other = policy("c", "selector: {matchLabels: {app: other}}, rules: [{from: [{namespaces: [c]}]}]");
    let deny = policy("d", "rules: [{name: no, action: Deny, from: [{serviceAccounts: [a/bad]}]}]");
    let port = policy("e", "rules: [{from: [{namespaces: [e]}], to: [{ports: [90]}]}]");
    let audit = policy(
        "f",
        "mode: Audit, rules: [{from: [{namespaces: [f]}]}, {name: shadow, action: Deny, from: [{namespaces: [a]}]}]",
    );
    for (policies, who, what, want, why) in [
        ("".into(), "a/x", "GET /", "yes", "nothing says anything"),
        (mesh.to_owned(), "a/x", "GET /", "default", "the mesh's own word"),
        (mesh.to_owned(), "-", "TCP", "default", ""),
        (allow_a.clone(), "b/x", "GET /", "none", "what is not allowed is refused once something is"),
        (allow_a.clone() + &allow_b, "b/x", "GET /", "yes", "one policy that allows is enough"),
        (allow_a.clone() + &other, "c/x", "GET /", "none", "a policy about others allows nothing here"),
        (other.clone(), "c/x", "GET /", "yes", "nor does it refuse anything"),
        (allow_a.clone() + &deny, "a/bad", "GET /", "no", "what one denies no other allows"),
        (allow_a.clone() + &deny, "a/good", "GET /", "yes", ""),
        (deny.clone(), "b/x", "GET /", "yes", "denying some leaves the default for others"),
        (deny.clone() + mesh, "b/x", "GET /", "default", ""),
        (allow_a.clone() + mesh, "a/x", "GET /", "yes", "allowed is allowed, whatever the default"),
        (port.clone(), "a/x", ":80 GET /", "yes", "a policy for one port selects no other"),
        (port.clone(), "a/x", ":90 TCP", "none", ""),
        (port.clone() + mesh, "a/x", ":80 GET /", "default", ""),
        (audit.clone(), "a/x", "GET /", "yes", "what is audited goes on"),
        (audit.clone() + &allow_a, "f/x", "GET /", "none", "and allows nothing"),
    ] {
        assert_eq!(judged(&access_of(&policies), who, what), want, "{who} {what}: {why}\n{policies}");
    }
}

#[test]
fn audit_names_what_would_be_refused() {
    let audit = "mode: Audit, rules: [{from: [{namespaces: [a]}]}, {name: no, action: Deny, to: [{paths: [{value: /x}]}]}]";
    let access = access_of(&policy("p", audit)).at(80);
    for (who, what, want) in [
        ("a/x", "GET /", "yes"),
        ("b/x", "GET /", "none"),
        ("a/x", "GET /x", "no"),
        ("a/x", "GET /%2f", "ambiguous"),
    ] {
        let (identity, address) = caller(who);
        let request = Request::parse(what);
        let decision = access.judge(Caller { identity: identity.as_ref(), address }, Some(request.call()));
        assert_eq!(decision.refused, None, "{who} {what}");
        assert_eq!(word(decision.audited.as_ref()), want, "{who} {what}");
    }
}

#[test]
fn judged_again_a_request_has_no_headers_any_more() {
    let allow = access_of(&policy(
        "p",
        "rules: [{from: [{namespaces: [a]}], to: [{headers: [{name: x, value: y}]}]}]",
    ));
    let deny =
        access_of(&policy("p", "rules: [{name: no, action: Deny, to: [{headers: [{name: x, value: y}]}]}]"));
    let request = Request::parse("GET / x=z");
    let again = |access: &Access, who: &str| {
        let (identity, address) = caller(who);
        let call = Call { headers: None, ..request.call() };
        word(
            access.at(80).judge(Caller { identity: identity.as_ref(), address }, Some(call)).refused.as_ref(),
        )
    };
    assert_eq!(again(&allow, "a/x"), "yes", "it was let in by its header");
    assert_eq!(again(&allow, "b/x"), "none", "the peer counts as before");
    assert_eq!(again(&deny, "a/x"), "yes", "it was let in in spite of the rule");
}

#[test]
fn a_connection_is_kept_as_long_as_any_call_may_pass() {
    for (rules, who, want) in [
        ("{from: [{namespaces: [a]}], to: [{methods: [GET]}]}", "a/x", true),
        ("{from: [{namespaces: [a]}], to: [{methods: [GET]}]}", "b/x", false),
        ("{action: Deny, from: [{namespaces: [a]}]}", "a/x", false),
        ("{action: Deny, from: [{namespaces: [a]}], to: [{paths: [{value: /x}]}]}", "a/x", true),
        ("{action: Deny, to: [{ports: [80]}]}", "a/x", false),
        ("{action: Deny, to: [{ports: [90]}]}", "a/x", true),
    ] {
        let access = access_of(&policy("p", &format!("rules: [{rules}]"))).at(80);
        let (identity, address) = caller(who);
        let admits = access.admits(Caller { identity: identity.as_ref(), address });
        assert_eq!(admits, want, "{rules}: {who}");
    }
}

#[test]
fn plain_paths_cost_nothing() {
    for path in ["/", "/a/b", "/a/b/", "/a.b/c..d", "/a:b@c=d&e"] {
        assert!(matches!(canonical(path), Ok(std::borrow::Cow::Borrowed(same)) if same == path), "{path}");
    }
    for (path, want) in [
        ("//", Ok("/")),
        ("/a/.", Ok("/a/")),
        ("/a/b/..", Ok("/a/")),
        ("/..", Err(Ambiguity::AboveRoot)),
        ("/;a", Ok("/")),
        ("/.well-known/x", Ok("/.well-known/x")),
        ("/...", Ok("/...")),
        ("", Err(Ambiguity::NotAbsolute)),
        ("*", Err(Ambiguity::NotAbsolute)),
        ("/%ff", Err(Ambiguity::NotUtf8)),
        ("/%2525", Err(Ambiguity::EncodedTwice)),
        ("/%25%32%35", Err(Ambiguity::EncodedTwice)),
    ] {
        assert_eq!(canonical(path).as_deref(), want.as_deref(), "{path}");
    }
}
