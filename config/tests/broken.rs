//! Broken manifests and what is said about each, word for word: `broken/NAME.yaml` and `broken/NAME.expected`.
//!
//! `OUTRIGGER_BLESS=1` writes the expected texts anew; read the difference before it is committed.

use std::fs;
use std::path::{Path, PathBuf};

use outrigger_config::manifest::{MAX_DOCUMENTS, MAX_FILE_BYTES, Parsed, parse};

#[test]
fn broken_manifests_are_reported_where_they_are_broken() {
    let mut inputs: Vec<PathBuf> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 25, "only {} broken inputs", inputs.len());
    for input in inputs {
        let name = input.file_name().unwrap().to_str().unwrap();
        let found = listing(&parse(&fs::read(&input).unwrap(), name));
        let expected_in = input.with_extension("expected");
        if std::env::var_os("OUTRIGGER_BLESS").is_some() {
            fs::write(&expected_in, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_in).unwrap_or_default();
        assert!(!expected.is_empty(), "{name}: nothing is expected to be found");
        assert_eq!(found, expected, "{name}");
    }
}

/// A refusal that names no place, or a place outside the text, helps nobody.
#[test]
fn every_finding_has_a_place_in_the_text() {
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for found in parse(text.as_bytes(), "x").diagnostics {
            let at = found.position.unwrap_or_else(|| panic!("{}: {found} has no place", path.display()));
            let line = lines.get(at.line as usize - 1).map_or(0, |line| line.chars().count());
            let within = at.line as usize <= lines.len() + 1 && at.column as usize <= line + 1;
            assert!(within, "{}: {found} is outside the text", path.display());
        }
    }
}

#[test]
fn an_alias_bomb_costs_its_own_document_only() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let parsed = parse(format!("{bomb}---\n{GOOD}").as_bytes(), "bomb.yaml");
    assert_eq!(listing(&parsed), "bomb.yaml:6:20: aliases repeat more than a document may hold\n");
    assert_eq!(parsed.objects.len(), 1);

    let many = format!("a: &a x\nb: [{}]\n", vec!["*a"; 101].join(", "));
    let found = listing(&parse(many.as_bytes(), "many.yaml"));
    assert_eq!(found, "many.yaml:2:405: more than 100 aliases in one document\n");

    let itself = parse(b"a: &a [*a]\n", "itself.yaml");
    assert_eq!(listing(&itself), "itself.yaml:1:8: this alias stands inside the value it names\n");
}

#[test]
fn deep_nesting_is_refused_in_every_style() {
    let flow = "[".repeat(5_000);
    let block: String = (0..5_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let compact = "- ".repeat(5_000);
    let json = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
    for text in [flow, block, compact, json] {
        let parsed = parse(format!("{text}\n---\n{GOOD}").as_bytes(), "deep.yaml");
        assert_eq!(parsed.objects.len(), 1, "{parsed:?}");
        assert_eq!(parsed.diagnostics.len(), 1, "{parsed:?}");
        assert!(parsed.diagnostics[0].message.contains("nest"), "{}", parsed.diagnostics[0]);
    }
    let deepest = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    assert!(listing(&parse(deepest.as_bytes(), "x")).contains("an object is a mapping"));
}

#[test]
fn large_texts_are_refused_before_they_are_read() {
    let huge = vec![b'a'; MAX_FILE_BYTES + 1];
    assert_eq!(
        listing(&parse(&huge, "huge.yaml")),
        "huge.yaml: 16777217 bytes are more than the 16777216 accepted\n"
    );
    let many = "---\n".repeat(MAX_DOCUMENTS + 1);
    assert_eq!(
        listing(&parse(many.as_bytes(), "many.yaml")),
        "many.yaml: 50001 documents are more than the 50000 accepted\n"
    );
    let wide = format!("a: [{}]", "1,".repeat(250_001));
    assert!(
        listing(&parse(wide.as_bytes(), "wide.yaml")).contains("more than 250000 values in one document")
    );
}

#[test]
fn what_is_no_text_is_refused() {
    let mut text = b"a: b\nkey: v\xc3\xa4lue ".to_vec();
    text.push(0xff);
    assert_eq!(listing(&parse(&text, "latin.yaml")), "latin.yaml:2:12: is not UTF-8 text\n");
    let png = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', 0, 0, 0, 0x0d];
    assert_eq!(listing(&parse(&png, "logo.yaml")), "logo.yaml:1:1: is not UTF-8 text\n");
    assert!(parse(b"a: \x00\x01\x02", "control.yaml").has_errors());
    assert!(parse("\u{feff}".as_bytes(), "empty.yaml").diagnostics.is_empty());
}

const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: good}\nspec: {ports: [{port: 80}]}\n";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken")
}

fn listing(parsed: &Parsed) -> String {
    parsed.diagnostics.iter().map(|found| format!("{found}\n")).collect()
}
