//! `docs/reference/`: a page of every kind's fields, written from the schema, so that it cannot say anything else than the parser.
//!
//! `OUTRIGGER_BLESS=1` writes the pages anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use outrigger_config::manifest::{Kind, schema};
use serde_json::Value;

#[test]
fn the_reference_is_what_the_schema_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    for kind in Kind::ALL {
        let page = page(kind);
        let path = directory.join(format!("{}.md", kind.as_str().to_lowercase()));
        if std::env::var_os("OUTRIGGER_BLESS").is_some() {
            fs::write(&path, &page).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, page, "{} is not up to date; OUTRIGGER_BLESS=1 writes it", path.display());
    }
    let contents = fs::read_to_string(directory.join("README.md")).unwrap();
    for kind in Kind::ALL {
        let link = format!("[{kind}]({}.md)", kind.as_str().to_lowercase());
        assert!(contents.contains(&link), "README.md does not mention {link}");
    }
}

/// One field, as a row of the table.
struct Field {
    path: String,
    value: String,
    required: bool,
    default: Option<String>,
    meaning: String,
}

#[derive(Default)]
struct Fields {
    rows: Vec<Field>,
    /// Where each definition was first met, by its reference.
    met: BTreeMap<String, String>,
    not_yet: Vec<String>,
    ignored: Vec<String>,
}

fn page(kind: Kind) -> String {
    let schema = schema(kind);
    let mut fields = Fields::default();
    for (name, member) in schema["properties"].as_object().unwrap() {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            let required = schema["required"].as_array().unwrap().contains(&name.as_str().into());
            field(&schema, member, name, required, &mut fields);
        }
    }
    let mut page = format!("# {kind}\n\n`apiVersion: {}`", kind.api_version());
    let other: Vec<String> = schema["properties"]["apiVersion"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .map(|version| format!("`{}`", version.as_str().unwrap()))
        .collect();
    if !other.is_empty() {
        let _ = write!(page, "; also read: {}", other.join(", "));
    }
    let _ = write!(page, "\n\n");
    if let Some(text) = schema.get("description").and_then(Value::as_str) {
        let _ = write!(page, "{}\n\n", one_line(text));
    }
    page.push_str("| field | value | default | meaning |\n|---|---|---|---|\n");
    for row in &fields.rows {
        let default = match (&row.default, row.required) {
            (_, true) => "**required**".to_owned(),
            (Some(default), false) => format!("`{default}`"),
            (None, false) => String::new(),
        };
        let _ =
            writeln!(page, "| `{}` | {} | {default} | {} |", row.path, cell(&row.value), cell(&row.meaning));
    }
    for (heading, list) in [
        ("Known and not available yet: refused where they are set", &fields.not_yet),
        ("Accepted without a meaning to the mesh", &fields.ignored),
    ] {
        if !list.is_empty() {
            let names: Vec<String> = list.iter().map(|name| format!("`{name}`")).collect();
            let _ = write!(page, "\n{heading}: {}.\n", names.join(", "));
        }
    }
    page
}

fn field(root: &Value, schema: &Value, path: &str, required: bool, fields: &mut Fields) {
    let description = schema.get("description").and_then(Value::as_str);
    let target = resolved(root, schema);
    if target.get("not").is_some() {
        return fields.not_yet.push(path.to_owned());
    }
    if target.get("x-outrigger-ignored").is_some() {
        return fields.ignored.push(path.to_owned());
    }
    let meaning =
        description.or_else(|| target.get("description").and_then(Value::as_str)).unwrap_or_default();
    let default = schema.get("default").filter(|default| !default.is_object() && !default.is_array());
    let items = target.get("items");
    let described = format!("{path}{}", if items.is_some() { "[]" } else { "" });
    let earlier = definition(items.unwrap_or(schema)).and_then(|name| fields.met.get(name)).cloned();
    let mut meaning = one_line(meaning);
    if let Some(earlier) = &earlier {
        let _ = write!(meaning, "{}As `{earlier}`.", if meaning.is_empty() { "" } else { " " });
    }
    if path != "spec" {
        fields.rows.push(Field {
            path: path.to_owned(),
            value: value(root, target),
            required,
            default: default.map(ToString::to_string),
            meaning,
        });
    }
    if earlier.is_none() {
        if let Some(name) = definition(items.unwrap_or(schema)) {
            fields.met.insert(name.to_owned(), described);
        }
        members(root, target, path, fields);
    }
}

/// The name of what a schema refers to, past the null that an optional field also accepts.
fn definition(schema: &Value) -> Option<&str> {
    let option = schema.get("anyOf").and_then(|options| options.get(0));
    option.unwrap_or(schema).get("$ref").and_then(Value::as_str)
}

fn members(root: &Value, schema: &Value, path: &str, fields: &mut Fields) {
    if let Some(items) = schema.get("items") {
        members(root, resolved(root, items), &format!("{path}[]"), fields);
    }
    for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|list| list.contains(&name.as_str().into()));
        field(root, member, &format!("{path}.{name}"), required, fields);
    }
}

/// Through references, and past the null that an optional field also accepts.
fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        return resolved(root, root.pointer(target.trim_start_matches('#')).expect("a definition"));
    }
    match schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([one, null]) if null["type"] == "null" => resolved(root, one),
        _ => schema,
    }
}

/// What is accepted, in words.
fn value(root: &Value, schema: &Value) -> String {
    if let Some(title) = schema.get("title").and_then(Value::as_str) {
        return title.to_owned();
    }
    let options: Vec<&Value> = ["enum", "oneOf", "anyOf"]
        .iter()
        .filter_map(|keyword| schema.get(keyword).and_then(Value::as_array))
        .flatten()
        .flat_map(|option| match option.get("enum").and_then(Value::as_array) {
            Some(inner) => inner.iter().collect(),
            None => vec![option],
        })
        .filter(|option| !option.is_null() && option["type"] != "null")
        .collect();
    if !options.is_empty() {
        let names: Vec<String> = options
            .iter()
            .map(|option| match option.get("const").unwrap_or(option) {
                Value::String(text) => text.clone(),
                Value::Object(_) => value(root, option),
                other => other.to_string(),
            })
            .collect();
        return names.join(", ");
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        kind => vec![kind.as_str().unwrap_or_default()],
    };
    match kind.as_slice() {
        ["array"] => match value(root, resolved(root, &schema["items"])).as_str() {
            "" | "mapping" => "list".to_owned(),
            item => format!("list: {item}"),
        },
        ["object"] => "mapping".to_owned(),
        ["string"] => "text".to_owned(),
        ["boolean"] => "true, false".to_owned(),
        ["integer", "string"] => "a number or a name".to_owned(),
        ["integer"] => match (schema.get("minimum"), schema.get("maximum")) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            (Some(least), None) => format!("a whole number ({least} or more)"),
            _ => "a whole number".to_owned(),
        },
        kinds => kinds.join(", "),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
