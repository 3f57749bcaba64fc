//! What YAML means, and where it stands.

use super::*;

fn read(text: &str) -> Node {
    parse(text, 1)
        .unwrap_or_else(|e| panic!("{text:?}: {e:?}"))
        .unwrap_or_else(|| panic!("{text:?} is empty"))
}

fn value(text: &str) -> Value {
    read(&format!("a: {text}\n")).member("a").expect("a member").node.value.clone()
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn number(written: &str, value: Numeric) -> Value {
    Value::Number(Number { written: written.to_owned(), value })
}

fn position(line: u32, column: u32) -> Option<Position> {
    Some(Position { line, column })
}

/// The tree without places, for comparing with other readers.
fn plain(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null | Value::SetAside => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => match n.value {
            Numeric::Unsigned(n) => n.into(),
            Numeric::Signed(n) => n.into(),
            Numeric::Float(n) => n.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Sequence(items) => items.iter().map(plain).collect(),
        Value::Mapping(members) => members.iter().map(|m| (m.key.clone(), plain(&m.node))).collect(),
    }
}

#[test]
fn plain_scalars_follow_the_core_schema() {
    use Numeric::{Float, Signed, Unsigned};
    for (text, want) in [
        ("", Value::Null),
        ("~", Value::Null),
        ("null", Value::Null),
        ("true", Value::Bool(true)),
        ("FALSE", Value::Bool(false)),
        ("tRUE", string("tRUE")),
        ("yes", string("yes")), // YAML 1.1's booleans are texts
        ("on", string("on")),
        ("80", number("80", Unsigned(80))),
        ("+80", number("+80", Unsigned(80))),
        ("-80", number("-80", Signed(-80))),
        ("0", number("0", Unsigned(0))),
        ("0x1F", number("0x1F", Unsigned(31))),
        ("0o17", number("0o17", Unsigned(15))),
        ("0755", string("0755")),   // 493 in YAML 1.1, 755 in 1.2
        ("1_000", string("1_000")), // 1000 in YAML 1.1
        ("1:30", string("1:30")),   // 90 in YAML 1.1
        ("0x", string("0x")),
        ("0x+1", string("0x+1")),
        ("-0x1", string("-0x1")),
        ("1.10", number("1.10", Float(1.1))),
        (".5", number(".5", Float(0.5))),
        ("1.", number("1.", Float(1.0))),
        ("1e3", number("1e3", Float(1000.0))),
        ("-1E-3", number("-1E-3", Float(-0.001))),
        ("1e999", string("1e999")), // no number can hold it
        (".inf", string(".inf")),
        (".nan", string(".nan")),
        ("inf", string("inf")),
        (".", string(".")),
        ("1.2.3", string("1.2.3")),
        ("1e", string("1e")),
        ("18446744073709551615", number("18446744073709551615", Unsigned(u64::MAX))),
        ("18446744073709551616", number("18446744073709551616", Float(18446744073709551616.0))),
        ("2026-10-01", string("2026-10-01")),
        ("\"80\"", string("80")), // quoted is text
        ("'true'", string("true")),
        ("!!str 80", string("80")),
        ("! 80", string("80")),
        ("!!int \"80\"", number("80", Unsigned(80))),
    ] {
        assert_eq!(value(text), want, "{text}");
    }
}

#[test]
fn tags_that_say_something_else_are_refused() {
    for text in ["!custom 1", "!!int x", "!!set {a}", "!!map [a]", "!!seq {}", "!local [a]", "!!binary aGk="]
    {
        assert!(parse(&format!("a: {text}\n"), 1).is_err(), "{text}");
    }
    assert_eq!(plain(&read("!!seq [1]")), serde_json::json!([1]));
}

#[test]
fn every_value_and_key_knows_its_place() {
    let text = "spec:\n  ports:\n  - {name: ä, port: 80}\n  - port: |\n      x\n";
    let root = parse(text, 7).expect("valid").expect("not empty");
    assert_eq!(root.at, position(7, 1));
    let spec = root.member("spec").expect("spec");
    assert_eq!((spec.key_at, spec.node.at), (position(7, 1), position(8, 3)));
    let ports = spec.node.member("ports").expect("ports");
    let Value::Sequence(items) = &ports.node.value else { panic!("{ports:?}") };
    assert_eq!(items[0].at, position(9, 5));
    let port = items[0].member("port").expect("port");
    // Columns count characters: the letter before is two bytes.
    assert_eq!((port.key_at, port.node.at), (position(9, 15), position(9, 21)));
    // A block of text is where its first line is.
    assert_eq!(items[1].member("port").expect("port").node.at, position(11, 7));
}

#[test]
fn aliases_and_merges_repeat_what_they_name() {
    let root = read("base: &b {a: 1, c: [2]}\nx: *b\ny: {<<: *b, a: 3}\nz: {<<: [*b, {d: 4}], c: 5}\n");
    let want = serde_json::json!({
        "base": {"a": 1, "c": [2]}, "x": {"a": 1, "c": [2]}, "y": {"a": 3, "c": [2]}, "z": {"c": 5, "a": 1, "d": 4},
    });
    assert_eq!(plain(&root), want);
    // A value that came by an alias is reported where it is written.
    let x = root.member("x").and_then(|x| x.node.member("a")).expect("a member");
    assert_eq!(x.node.at, position(1, 14));
    assert_eq!(plain(&read("a: &k name\n*k : 1\n")), serde_json::json!({"a": "name", "name": 1}));
    assert_eq!(plain(&read("&k name: 1\nb: *k\n")), serde_json::json!({"name": 1, "b": "name"}));
    assert_eq!(
        plain(&read("\"<<\": 1\n")),
        serde_json::json!({"<<": 1}),
        "quoted, it is a key like any other"
    );
}

#[test]
fn keys_are_texts_as_they_are_written() {
    let root = read("80: a\ntrue: b\n\"\": c\n1.10: d\n");
    assert_eq!(plain(&root), serde_json::json!({"80": "a", "true": "b", "": "c", "1.10": "d"}));
    let twice = parse("a: 1\n\"a\": 2\n", 3).expect_err("a key twice");
    assert_eq!(
        twice,
        SyntaxError {
            at: Position { line: 4, column: 1 },
            message: "`a` is given twice, first on line 3".to_owned()
        }
    );
}

#[test]
fn a_text_without_content_is_no_document() {
    for text in ["", "\n", "# only\n# comments\n", "---\n", "---\n...\n", "--- # nothing\n", "~\n"] {
        assert_eq!(parse(text, 1), Ok(None), "{text:?}");
    }
}

#[test]
fn a_document_that_hides_behind_another_is_not_lost() {
    let error = parse("a: 1\n...\nb: 2\n", 1).expect_err("two documents");
    assert_eq!((error.at.line, error.message.contains("---")), (3, true), "{error:?}");
}

/// On what people write, another reader of YAML says the same.
#[test]
fn valid_files_mean_what_another_reader_says() {
    for file in [
        include_str!("../../../tests/valid/kubernetes.yaml"),
        include_str!("../../../tests/valid/http-routes.yaml"),
        include_str!("../../../tests/valid/other-routes.yaml"),
        include_str!("../../../tests/valid/outrigger.yaml"),
        include_str!("../../../tests/valid/list.json"),
    ] {
        let other: Vec<serde_json::Value> = serde_yaml::from_multiple(file).expect("valid");
        let ours: Vec<serde_json::Value> = super::super::split::documents(file)
            .into_iter()
            .filter_map(|part| parse(part.text, part.first_line).expect("valid"))
            .map(|root| plain(&root))
            .collect();
        assert_eq!(ours, other);
    }
}
