//! A validator for the part of JSON Schema (draft 2020-12) that the schemas of manifests use.
//!
//! A keyword it does not know is an error, so that a schema cannot promise what nothing checks.

use regex::Regex;
use serde_json::Value;

/// Everything about `value` that `schema` forbids, each with its place.
pub fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = match schema {
        Value::Bool(true) => return,
        Value::Bool(false) => return found.push(format!("{at}: nothing is accepted here")),
        Value::Object(keywords) => keywords,
        other => panic!("{other} is not a schema"),
    };
    let known = |keyword: &str| schema.get(keyword);
    for (keyword, wanted) in schema {
        let fits = match keyword.as_str() {
            "title"
            | "description"
            | "default"
            | "$schema"
            | "$defs"
            | "writeOnly"
            | "x-outrigger-ignored"
            | "format"
            | "contentEncoding" => true,
            "$ref" => {
                let target = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(target).expect("a definition"), value, at, found);
                true
            }
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|wanted| is_of(value, wanted)),
                wanted => is_of(value, wanted),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "anyOf" => wanted.as_array().unwrap().iter().any(|option| holds(root, option, value)),
            "oneOf" => {
                wanted.as_array().unwrap().iter().filter(|option| holds(root, option, value)).count() == 1
            }
            "not" => !holds(root, wanted, value),
            "minimum" => value.as_f64().is_none_or(|n| n >= wanted.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|n| n <= wanted.as_f64().unwrap()),
            "multipleOf" => value.as_f64().is_none_or(|n| {
                let times = n / wanted.as_f64().unwrap();
                (times - times.round()).abs() < 1e-6
            }),
            "minLength" => {
                value.as_str().is_none_or(|s| s.chars().count() as u64 >= wanted.as_u64().unwrap())
            }
            "maxLength" => {
                value.as_str().is_none_or(|s| s.chars().count() as u64 <= wanted.as_u64().unwrap())
            }
            "pattern" => {
                value.as_str().is_none_or(|s| Regex::new(wanted.as_str().unwrap()).unwrap().is_match(s))
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item, &format!("{at}[{i}]"), found);
                }
                true
            }
            "required" => wanted.as_array().unwrap().iter().all(|name| {
                value.as_object().is_none_or(|members| members.contains_key(name.as_str().unwrap()))
            }),
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        check(root, schema, member, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            "patternProperties" => {
                for (pattern, schema) in wanted.as_object().unwrap() {
                    let pattern = Regex::new(pattern).unwrap();
                    for (name, member) in value.as_object().into_iter().flatten() {
                        if pattern.is_match(name) {
                            check(root, schema, member, &format!("{at}.{name}"), found);
                        }
                    }
                }
                true
            }
            "additionalProperties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let named = known("properties").is_some_and(|named| named.get(name).is_some());
                    let by_pattern =
                        known("patternProperties").and_then(Value::as_object).is_some_and(|patterns| {
                            patterns.keys().any(|pattern| Regex::new(pattern).unwrap().is_match(name))
                        });
                    if !named && !by_pattern {
                        check(root, wanted, member, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            other => panic!("{other} is not a keyword that is checked"),
        };
        if !fits {
            found.push(format!("{at}: {value} does not fit {keyword}: {wanted}"));
        }
    }
}

fn holds(root: &Value, schema: &Value, value: &Value) -> bool {
    let mut found = Vec::new();
    check(root, schema, value, "", &mut found);
    found.is_empty()
}

fn is_of(value: &Value, wanted: &Value) -> bool {
    match wanted.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is not a type"),
    }
}
