//! Values as YAML that people and every reader of YAML take for the same.
//!
//! Kubernetes' tools read YAML 1.1, where `yes` is true and `0755` is 493, others 1.2: whatever could be meant otherwise is quoted.
//! Values that stood in the text already are written as they stood there.

use serde_json::{Map, Value};

use super::layout::{Node, Shape};

/// How generated lines look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether the dashes of a list are indented below its key, as the document has it, or stand under the key, as `kubectl` writes.
    pub indented_lists: bool,
}

/// A value that stood in `text` at `node` and was `before`.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub text: &'a str,
    pub node: &'a Node,
    pub before: &'a Value,
}

impl<'a> Source<'a> {
    fn member(self, key: &str) -> Option<Source<'a>> {
        Some(Source { node: &self.node.member(key)?.node, before: self.before.get(key)?, ..self })
    }

    fn item(self, index: usize) -> Option<Source<'a>> {
        let Shape::List { items, .. } = &self.node.shape else { return None };
        Some(Source { node: items.get(index)?, before: self.before.get(index)?, ..self })
    }

    /// The text of a value that is still the same, if it can stand anywhere.
    fn verbatim(self, value: &Value) -> Option<&'a str> {
        let may_stand_anywhere = matches!(self.node.shape, Shape::Scalar) || self.node.is_flow();
        let text = self.text.get(self.node.span.clone())?;
        let fits =
            may_stand_anywhere && !text.is_empty() && !text.contains('\n') && !text.starts_with(['|', '>']);
        (fits && self.before == value).then_some(text)
    }
}

impl Style {
    /// The lines of a mapping or a list that is not empty, the first without its indentation, the last without its end.
    pub fn block(self, value: &Value, source: Option<Source>, indent: usize) -> String {
        let mut lines = Vec::new();
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    let source = source.and_then(|source| source.member(key));
                    lines.push(self.member(key, value, source, indent));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let source = source.and_then(|source| source.item(index));
                    lines.push(self.item(item, source, indent));
                }
            }
            other => lines.push(scalar(other, indent)),
        }
        lines.join(&format!("\n{:indent$}", ""))
    }

    /// `key: value`, without the indentation of its first line.
    pub fn member(self, key: &str, value: &Value, source: Option<Source>, indent: usize) -> String {
        format!("{}:{}", text(key), self.behind_key(value, source, indent))
    }

    /// What stands behind the colon of a key at `indent`.
    pub fn behind_key(self, value: &Value, source: Option<Source>, indent: usize) -> String {
        if let Some(verbatim) = source.and_then(|source| source.verbatim(value)) {
            return format!(" {verbatim}");
        }
        if !is_block(value) {
            return format!(" {}", scalar(value, indent));
        }
        let inner = if value.is_array() && !self.indented_lists { indent } else { indent + 2 };
        format!("\n{:inner$}{}", "", self.block(value, source, inner))
    }

    /// `- value`, without the indentation of its first line.
    pub fn item(self, value: &Value, source: Option<Source>, indent: usize) -> String {
        if let Some(verbatim) = source.and_then(|source| source.verbatim(value)) {
            return format!("- {verbatim}");
        }
        if !is_block(value) {
            return format!("- {}", scalar(value, indent));
        }
        format!("- {}", self.block(value, source, indent + 2))
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// A value on the line of its key; `indent` is that of the key.
fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::String(value) if value.contains('\n') => literal(value, indent).unwrap_or_else(|| text(value)),
        Value::String(value) => text(value),
        Value::Object(members) if *members == Map::new() => "{}".to_owned(),
        // Null, booleans, numbers and what is empty are the same in JSON.
        other => other.to_string(),
    }
}

/// A text of several lines as a block, where that is sure to keep it.
fn literal(value: &str, indent: usize) -> Option<String> {
    let (body, chomp) = match value.strip_suffix('\n') {
        Some(body) => (body, ""),
        None => (value, "-"),
    };
    let is_plain = |c: char| c == '\n' || c == ' ' || c.is_alphanumeric() || c.is_ascii_graphic();
    let is_safe = body.chars().all(is_plain)
        && !body.starts_with([' ', '\n'])
        && !body.ends_with([' ', '\n'])
        && !body.is_empty();
    let inner = indent + 2;
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("\n{:inner$}{line}", "") };
    is_safe.then(|| format!("|{chomp}{}", body.split('\n').map(line).collect::<String>()))
}

/// A text on one line, quoted where it is not certainly one.
fn text(value: &str) -> String {
    if is_plain(value) || is_amount(value) {
        return value.to_owned();
    }
    let needs_escapes = value.chars().any(|c| c.is_control() || !(c.is_ascii() || c.is_alphanumeric()));
    if value.contains(['"', '\\']) && !needs_escapes {
        return format!("'{}'", value.replace('\'', "''"));
    }
    Value::from(value).to_string()
}

/// Begins like a word, a path or a flag and has nothing in it that means something to YAML.
fn is_plain(value: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let begins =
        value.trim_start_matches("--").starts_with(|c: char| c.is_ascii_alphabetic() || "/_$".contains(c));
    let body = value.chars().all(|c| c.is_ascii_alphanumeric() || "_./$()=,:+-@ []".contains(c));
    let is_word = WORDS.iter().any(|word| word.eq_ignore_ascii_case(value));
    let marks = value.contains(": ") || value.ends_with([':', ' ']);
    begins && body && !is_word && !marks
}

/// `64Mi`, `50m`: digits alone would be a number.
fn is_amount(value: &str) -> bool {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && ["m", "k", "Ki", "Mi", "Gi"].contains(&&value[digits.len()..])
}
