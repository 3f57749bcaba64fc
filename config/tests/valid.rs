//! Manifests that are right: those in `valid/` and every example of the documentation.
//!
//! They are read without a word, come back the same from what they are written as, and fit the schema, so that schema and
//! parser say the same.

use std::collections::BTreeSet;
use std::fs;

use outrigger_config::manifest::{Kind, Manifest, Object, Parsed, from_json, parse, schema};
use proptest::prelude::*;
use serde_json::{Value, json};

mod support;

use support::json_schema::violations;

fn all() -> Vec<Object> {
    let files = ["tests/valid", "../docs/examples"].into_iter().flat_map(support::manifests);
    files
        .flat_map(|path| {
            let name = path.display().to_string();
            let parsed = parse(&fs::read(&path).unwrap(), &name);
            let found: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
            assert_eq!(found, Vec::<String>::new());
            assert!(!parsed.objects.is_empty(), "{name} holds nothing");
            parsed.objects
        })
        .collect()
}

#[test]
fn valid_manifests_are_read_without_a_word() {
    let kinds: BTreeSet<Kind> = all().iter().map(|object| object.key.kind).collect();
    assert_eq!(kinds, Kind::ALL.into_iter().collect(), "every kind has an example");
}

#[test]
fn what_is_written_is_read_as_the_same_manifest() {
    for object in all() {
        let again = only(from_json(object.manifest.to_json(), "again"));
        assert_eq!(again.manifest, object.manifest, "{}", object.key);
        assert_eq!((again.key, again.hash), (object.key, object.hash));
    }
}

#[test]
fn the_schema_accepts_what_the_parser_accepts() {
    for object in all() {
        let written = object.manifest.to_json();
        let found = violations(&schema(object.key.kind), &written);
        assert_eq!(found, Vec::<String>::new(), "{} as {written:#}", object.key);
    }
}

/// As their authors wrote them, read by another YAML reader.
#[test]
fn the_schema_accepts_the_examples_as_they_stand() {
    for path in support::manifests("../docs/examples") {
        let documents: Vec<Value> = serde_yaml::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
        for document in documents {
            let kind = Kind::from_name(document["kind"].as_str().unwrap()).unwrap();
            assert_eq!(violations(&schema(kind), &document), Vec::<String>::new(), "{}", path.display());
        }
    }
}

/// Each of these is refused by the parser for the shape or value of one field, so the schema has to refuse it as well.
#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let changes: [(Kind, &str, Value); 22] = [
        (Kind::Service, "/spec/unknown", json!(1)),
        (Kind::Service, "/metadata/name", json!("Reviews")),
        (Kind::Service, "/metadata/labels", json!({"app": 1})),
        (Kind::Service, "/spec/ports", json!([{"port": 0}])),
        (Kind::Service, "/spec/ports", json!([{"name": "http"}])),
        (Kind::Service, "/spec/ports", json!({"port": 80})),
        (Kind::Service, "/spec/type", json!("External")),
        (Kind::Service, "/apiVersion", json!("v2")),
        (Kind::EndpointSlice, "/addressType", json!("IPv5")),
        (Kind::Gateway, "/spec/listeners", json!([{"name": "a", "port": 70000, "protocol": "HTTP"}])),
        (Kind::HttpRoute, "/spec/rules", json!([{"matches": [{"method": "get"}]}])),
        (Kind::HttpRoute, "/spec/rules", json!([{"timeouts": {"request": "1.5s"}}])),
        (Kind::HttpRoute, "/spec/rules", json!([{"retry": {"attempts": 11}}])),
        (Kind::HttpRoute, "/spec/hostnames", json!(["*"])),
        (Kind::HttpRoute, "/spec/parentRefs", json!([{"kind": "Gateway"}])),
        (Kind::GrpcRoute, "/spec/rules", json!([{"matches": [{"method": {"name": "a"}}]}])),
        (Kind::TcpRoute, "/spec/rules", json!([{"backendRefs": [{"name": "a", "port": 1, "weight": -1}]}])),
        (Kind::ReferenceGrant, "/spec/to", json!([{"kind": "Service"}])),
        (Kind::TrafficPolicy, "/spec/fault", json!({"faults": [{"abort": {"httpStatus": 199}}]})),
        (Kind::Mesh, "/spec/accessLog", json!({"sampling": 101})),
        (Kind::Workload, "/spec/replicas", json!(65)),
        (Kind::Workload, "/spec/address", json!(1)),
    ];
    let objects = all();
    for (kind, at, value) in changes {
        let object = objects.iter().find(|object| object.key.kind == kind).unwrap();
        let mut written = object.manifest.to_json();
        let (holder, member) = at.rsplit_once('/').unwrap();
        written.pointer_mut(holder).unwrap()[member] = value.clone();
        assert!(from_json(written.clone(), "changed").has_errors(), "the parser takes {at}: {value}");
        assert!(!violations(&schema(kind), &written).is_empty(), "the schema takes {at}: {value}");
    }
}

/// Nothing may be added at any level of a manifest without being named.
#[test]
fn schemas_are_closed() {
    fn closed(schema: &Value, at: &str) {
        if schema.get("properties").is_some() {
            assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{at}");
        }
        for (key, member) in schema.as_object().into_iter().flatten() {
            closed(member, &format!("{at}/{key}"));
        }
        for (i, item) in schema.as_array().into_iter().flatten().enumerate() {
            closed(item, &format!("{at}/{i}"));
        }
    }
    for kind in Kind::ALL {
        let schema = schema(kind);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], kind.as_str());
        closed(&schema, kind.as_str());
    }
}

proptest! {


    /// What still parses after a change means the same when it is written and read again; nothing panics.
    #[test]
    fn a_changed_manifest_is_refused_or_understood(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), edit()), 1..4),
    ) {
        let texts = texts();
        let mut text = texts[which.index(texts.len())].clone();
        for (at, edit) in edits {
            edit.apply(&mut text, at);
        }
        let parsed = parse(&text, "changed.yaml");
        for object in &parsed.objects {
            let again = only(from_json(object.manifest.to_json(), "again"));
            prop_assert_eq!(&again.manifest, &object.manifest);
            for field in ["", "spec", "spec.rules[0].backendRefs[0].port", "metadata.labels[\"app\"]"] {
                prop_assert!(object.source.locate(field).is_some());
            }
        }
        for found in &parsed.diagnostics {
            prop_assert!(!found.message.is_empty());
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        parse(&bytes, "noise");
    }

    #[test]
    fn any_text_of_yaml_signs_is_survived(text in "([-:?{}\\[\\],&*!|>'\"%@` \n#a~<0.]|---\n|kind: |Service){0,120}") {
        parse(text.as_bytes(), "noise");
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Put(&'static str),
    Delete(usize),
    Byte(u8),
    Swap,
}

fn edit() -> impl Strategy<Value = Edit> {
    let words = [
        "0", "-1", "null", "\"\"", "[]", "{}", "true", "*", "&a ", "*a", "- ", ": ", "x", "\n", "\t", "1e9",
        "/",
    ];
    prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(Edit::Put),
        (1usize..20).prop_map(Edit::Delete),
        any::<u8>().prop_map(Edit::Byte),
        Just(Edit::Swap),
    ]
}

impl Edit {
    fn apply(self, text: &mut Vec<u8>, at: prop::sample::Index) {
        let at = at.index(text.len() + 1);
        match self {
            Edit::Put(word) => drop(text.splice(at..at, word.bytes())),
            Edit::Delete(len) => drop(text.drain(at..(at + len).min(text.len()))),
            Edit::Byte(byte) if at < text.len() => text[at] = byte,
            Edit::Byte(byte) => text.push(byte),
            Edit::Swap => {
                // Two lines change places.
                let mut lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
                if lines.len() > 1 {
                    let i = at % (lines.len() - 1);
                    lines.swap(i, i + 1);
                }
                *text = lines.concat();
            }
        }
    }
}

/// Read once: the cases of a property are many.
fn texts() -> &'static [Vec<u8>] {
    static TEXTS: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
        support::manifests("tests/valid").iter().map(|path| fs::read(path).unwrap()).collect()
    });
    &TEXTS
}

fn only(parsed: Parsed) -> Object {
    let found: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    let [object] = <[Object; 1]>::try_from(parsed.objects).unwrap_or_else(|_| panic!("{found:?}"));
    object
}

#[test]
fn a_section_that_is_empty_is_not_one_that_is_absent() {
    let policy = |spec: &str| {
        let text = format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        let parsed = parse(text.as_bytes(), "a.yaml");
        match parsed.objects.into_iter().next().map(|object| object.manifest) {
            Some(Manifest::TrafficPolicy(policy)) => Some(policy.spec.timeout.is_some()),
            _ => None,
        }
    };
    assert_eq!(policy("{targetRefs: [{kind: Service, name: a}], timeout: {}}"), Some(true));
    assert_eq!(policy("{targetRefs: [{kind: Service, name: a}], timeout: null}"), None);
    assert_eq!(policy("{targetRefs: [{kind: Service, name: a}]}"), None);
}

/// What the pages show can be applied as it stands there.
#[test]
fn the_manifests_of_the_page_on_circuit_breakers_are_valid() {
    let page = include_str!("../../docs/breaking.md");
    let blocks: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    assert!(blocks.len() > 1);
    for block in blocks {
        let parsed = parse(block.as_bytes(), "breaking.md");
        let found: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{found:?} in {block}");
        assert!(!parsed.objects.is_empty());
    }
}
