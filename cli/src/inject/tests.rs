//! Changes written into text: what changes, and what does not.

use serde_json::json;

use super::*;

fn read(text: &str) -> Value {
    value::of(&tree::parse(text, 1).unwrap().unwrap())
}

/// The text after `change` was made to what it says.
fn changed(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let before = read(text);
    let mut after = before.clone();
    change(&mut after);
    let written = edit::write(text, &before, &after).expect("can be written");
    assert_eq!(read(&written), after, "{written}");
    written
}

#[test]
fn comments_order_and_spelling_of_the_rest_stay() {
    let text = "# top\nz: 0755   # octal\na:\n    - {name: one, x: yes}\n    # about two\n    - name: two\n\n\
                    \x20     # inside\n      b: [1,\n        2]\nlast: |\n  text\n";
    let written = changed(text, |value| {
        value["a"].as_array_mut().unwrap().insert(1, json!({"name": "new"}));
        value["a"][2]["c"] = json!({"d": ["e", {"f": null}]});
        value["more"] = "0755".into();
    });
    let want = "# top\nz: 0755   # octal\na:\n    - {name: one, x: yes}\n    - name: new\n    # about two\n    - name: two\n\n\
                \x20     # inside\n      b: [1,\n        2]\n      c:\n        d:\n          - e\n          - f: null\n\
                last: |\n  text\nmore: \"0755\"\n";
    assert_eq!(written, want);
}

#[test]
fn lists_are_indented_as_the_document_has_it() {
    let add = |value: &mut Value| value["b"] = json!([{"c": []}]);
    assert_eq!(changed("a:\n- 1\n", add), "a:\n- 1\nb:\n- c: []\n");
    assert_eq!(changed("a:\n  - 1\n", add), "a:\n  - 1\nb:\n  - c: []\n");
    assert_eq!(changed("a: 1", add), "a: 1\nb:\n- c: []\n");
}

#[test]
fn flow_becomes_block_around_what_changed_only() {
    let text = "a: {b: {c: 1}, d: {e: 0755, f: [yes, 'x']}} # why\n";
    let written = changed(text, |value| value["a"]["b"]["new"] = "x".into());
    assert_eq!(written, "a:\n  b:\n    c: 1\n    new: x\n  d: {e: 0755, f: [yes, 'x']} # why\n");
    let written = changed("- {a: 1}\n- {b: 2}\n", |value| value[0]["c"] = json!({"d": 1}));
    assert_eq!(written, "- a: 1\n  c:\n    d: 1\n- {b: 2}\n");
}

#[test]
fn values_can_appear_change_and_go() {
    for (text, change, want) in [
        ("a:\nb: 1\n", json!({"a": {"c": 1}, "b": 1}), "a:\n  c: 1\nb: 1\n"),
        ("a: {}\nb: 1\n", json!({"a": [1], "b": 1}), "a:\n- 1\nb: 1\n"),
        ("a:\n  b: 1\n  c: 2\n", json!({"a": {"c": 2}}), "a:\n  c: 2\n"),
        ("- a: 1\n  b: 2\n", json!([{"b": 2}]), "- b: 2\n"),
        ("a:\n  b: 1\nc: 2\n", json!({"a": 3, "c": 2}), "a: 3\nc: 2\n"),
        ("a:\n- name: x\n- name: y\n", json!({"a": [{"name": "y"}]}), "a:\n- name: y\n"),
        (
            "a:\n- name: x\n  v: 1\n",
            json!({"a": [{"name": "w"}, {"name": "x", "v": 2}]}),
            "a:\n- name: w\n- name: x\n  v: 2\n",
        ),
        ("a: 'x' # c\n", json!({"a": "w"}), "a: w # c\n"),
    ] {
        assert_eq!(changed(text, |value| *value = change), want, "{text}");
    }
}

#[test]
fn what_repeats_by_an_alias_is_written_out_where_it_differs() {
    let text = "base: &b {x: 1}\none: *b\ntwo: *b\n";
    let written = changed(text, |value| value["one"]["w"] = 2.into());
    assert_eq!(written, "base: &b {x: 1}\none:\n  x: 1\n  w: 2\ntwo: *b\n");
    // A change where the anchor is would change what the aliases mean.
    let written = changed(text, |value| value["base"]["w"] = 2.into());
    assert_eq!(written, "base:\n  x: 1\n  w: 2\none:\n  x: 1\ntwo:\n  x: 1\n");
    let merged = "base: &b\n  x: 1\none:\n  <<: *b\n  z: 3\n";
    let written = changed(merged, |value| value["one"]["x"] = 2.into());
    assert_eq!(written, "base: &b\n  x: 1\none:\n  <<: *b\n  z: 3\n  x: 2\n");
}

#[test]
fn rarer_forms_keep_their_meaning() {
    for text in [
        "? a\n: b\nc: 1\n",
        "a: !!str 80\nb: {}\n",
        "a: |+\n  keep\n\n\nb:\n  - >-\n    folded\n    text\n",
        "- - 1\n  - 2\n- -\n    a: 1\n",
        "\"a\": 'it''s'\n'b': \"\\t\\u00e9\"\n",
        "a: plain\n  over lines\nb: [\n  x,\n]\n",
        "a: 1\r\nb:\r\n- name: c\r\n",
        "---\n# c\na: 1\n...\n",
    ] {
        changed(text, |value| match value {
            Value::Object(object) => {
                drop(object.insert("new".to_owned(), json!({"x": ["y\nz\n", "#", "a: b"]})))
            }
            Value::Array(list) => list.insert(1, json!({"x": 1})),
            _ => unreachable!("{text}"),
        });
    }
    let windows = changed("a: 1\r\n", |value| value["b"] = json!({"c": 1}));
    assert_eq!(windows, "a: 1\r\nb:\r\n  c: 1\r\n");
}

#[test]
fn json_stays_json() {
    let written = changed("{\"a\": {\"b\": [1]}}\n", |value| value["c"] = 2.into());
    assert_eq!(written, "{\n  \"a\": {\n    \"b\": [\n      1\n    ]\n  },\n  \"c\": 2\n}\n");
}

/// What is generated is what the programs take: their own command lines read it.
#[test]
fn the_proxy_and_the_capture_take_the_arguments_they_are_given() {
    #[derive(Debug, clap::Parser)]
    struct Proxy {
        #[command(flatten)]
        options: outrigger_proxy::options::Options,
    }
    #[derive(Debug, clap::Parser)]
    struct Outrigger {
        #[command(subcommand)]
        command: Part,
    }
    #[derive(Debug, clap::Subcommand)]
    enum Part {
        Capture(crate::capture::Args),
    }
    let settings = Settings {
        proxy_image: "outrigger-proxy:1".to_owned(),
        capture_image: "outrigger:1".to_owned(),
        control: vec!["a.system.svc:15012".to_owned(), "b.system.svc:15012".to_owned()],
        roots: "roots".to_owned(),
    };
    let everything: Vec<Value> =
        ["jobs.yaml", "statefulset.yaml", "tuned.yaml"].iter().flat_map(|name| documents(name)).collect();
    let (mut seen, mut probed) = (0, 0);
    for object in everything {
        let outcome = inject::inject(&object, &settings);
        let template = match object["kind"].as_str().unwrap() {
            "CronJob" => &outcome.object["spec"]["jobTemplate"]["spec"]["template"],
            "ConfigMap" => continue,
            _ => &outcome.object["spec"]["template"],
        };
        let arguments = |name: &str| -> Vec<String> {
            let containers = template["spec"]["initContainers"].as_array().unwrap();
            let container = containers.iter().find(|container| container["name"] == name).unwrap();
            let given = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
            let given = given.map(|arg| {
                // As the kubelet does.
                let arg = arg.replace("$(POD_IP)", "10.1.2.3").replace("$(POD_NAME)", "web-0");
                arg.replace("$(POD_NAMESPACE)", "default")
            });
            std::iter::once(name.to_owned()).chain(given).collect()
        };
        let proxy = <Proxy as clap::Parser>::try_parse_from(arguments(inject::PROXY_CONTAINER));
        let options = proxy.unwrap_or_else(|error| panic!("{error}")).options;
        options.setup().unwrap();
        let containers = template["spec"]["initContainers"].as_array().unwrap();
        let env = containers.iter().flat_map(|container| container["env"].as_array()).flatten();
        for variable in env.filter(|variable| variable["name"] == inject::PROBES_ENV) {
            let expanded = variable["value"].as_str().unwrap().replace("$$", "$");
            expanded.parse::<outrigger_proxy::admin::AppProbes>().unwrap();
            probed += 1;
        }
        assert_eq!((options.control.len(), options.workload.as_deref()), (2, Some("web-0")));
        let capture = <Outrigger as clap::Parser>::try_parse_from(arguments(inject::CAPTURE_CONTAINER));
        capture.unwrap_or_else(|error| panic!("{error}"));
        seen += 1;
    }
    assert_eq!((seen, probed), (4, 1));
}

/// The objects of one of the recorded inputs.
fn documents(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/inject/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    split::documents(&text).into_iter().map(|part| read(part.text)).collect()
}

mod any {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any value can become any other, and both readers of YAML agree on what was written.
        #[test]
        fn any_change_can_be_written(before in any_object(), after in any_object(), text in any::<u8>()) {
            let text = match text % 3 {
                0 => serde_yaml::to_string(&before).unwrap(),
                1 => before.to_string(),
                _ => format!("# top\nroot: {before}\nother: 1\n"),
            };
            let before = read(&text);
            let mut after = after;
            if let (Some(_), Value::Object(after)) = (before.get("root"), &mut after) {
                *after = serde_json::Map::from_iter([("root".to_owned(), Value::Object(after.clone()))]);
            }
            let written = edit::write(&text, &before, &after);
            prop_assert!(written.is_some(), "{text}");
            let written = written.unwrap();
            prop_assert_eq!(&read(&written), &after, "{}", &written);
            let other: Value = serde_yaml::from_str(&written).unwrap();
            prop_assert_eq!(&other, &after, "{}", &written);
        }
    }

    fn any_object() -> impl Strategy<Value = Value> {
        let keys = || prop::sample::select(vec!["a", "b", "name", "x y", "0", "yes", "$k"]);
        let text = prop_oneof![
            prop::sample::select(vec![
                "", "yes", "0755", "1e3", "null", "~", "a: b", "# c", "- d", "x\ny\n", " x", "x ", "{",
                "--f=$(A)", "'", "\"", "12Mi", "12e", "a#b", "a\n\n b", "\t", "é\u{85}", "=", "<<", "-", "?",
                "--", "@"
            ])
            .prop_map(str::to_owned),
            "[ -~]{0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        let inner = leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(keys(), inner, 0..4).prop_map(|members| {
                    Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                }),
            ]
        });
        prop::collection::btree_map(keys(), inner, 1..4).prop_map(|members| {
            Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        })
    }
}
