//! YAML or JSON text as a tree in which every value and every key knows its line and column.
//!
//! Built from the parser's events and not through serde: only the events say how a scalar was quoted and where a
//! key stands, and a document that breaks a limit costs that document alone. JSON is read as the YAML it also is.
//! Scalars follow YAML 1.2's core schema, so `yes` and `on` are text; `0755` and `1_000`, which YAML's versions
//! read differently, are text as well.
//! Never knows what a manifest is.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::diagnostic::Position;

mod scalar;

use scalar::resolve;

/// Nesting of lists and mappings.
pub const MAX_DEPTH: usize = 64;
const TOO_DEEP: &str = "nested more than 64 deep";
/// Values in one document, those that an alias repeats included.
pub const MAX_NODES: usize = 250_000;
/// `*alias` uses in one document.
pub const MAX_ALIASES: usize = 100;
/// Text in one document, bytes, that which an alias repeats included.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// A value and where it begins. Values that have no text (see [`Node::from_json`]) have no position.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub at: Option<Position>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Sequence(Vec<Node>),
    /// In the order of the text; keys are unique.
    Mapping(Vec<Member>),
    /// An item of a list whose misfit has been reported; those behind it keep their numbers. See `decode`.
    SetAside,
}

/// A number and how it was written: `1.10` given for a text must be reported as `1.10`.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    pub written: String,
    pub value: Numeric,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Numeric {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub key: String,
    pub key_at: Option<Position>,
    pub node: Node,
}

/// Why a text is not a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub at: Position,
    pub message: String,
}

/// Reads one document; `None` when it holds nothing but comments. `first_line` is the line at which the text
/// begins in its file.
pub fn parse(text: &str, first_line: u32) -> Result<Option<Node>, SyntaxError> {
    let mut options =
        granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    Builder { parser, first_line, anchors: HashMap::new(), nodes: 0, aliases: 0, text_bytes: 0 }.document()
}

impl Node {
    /// The tree of a value that has no text. Nothing is lost: JSON numbers out of range do not exist here.
    pub fn from_json(value: serde_json::Value) -> Node {
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(b),
            serde_json::Value::Number(n) => {
                let written = n.to_string();
                let value = match (n.as_u64(), n.as_i64()) {
                    (Some(n), _) => Numeric::Unsigned(n),
                    (None, Some(n)) => Numeric::Signed(n),
                    (None, None) => Numeric::Float(n.as_f64().unwrap_or(f64::NAN)),
                };
                Value::Number(Number { written, value })
            }
            serde_json::Value::String(s) => Value::String(s),
            serde_json::Value::Array(items) => {
                Value::Sequence(items.into_iter().map(Node::from_json).collect())
            }
            serde_json::Value::Object(members) => Value::Mapping(
                members
                    .into_iter()
                    .map(|(key, value)| Member { key, key_at: None, node: Node::from_json(value) })
                    .collect(),
            ),
        };
        Node { at: None, value }
    }

    /// The member of a mapping; `None` if this is no mapping or has no such key.
    pub fn member(&self, key: &str) -> Option<&Member> {
        match &self.value {
            Value::Mapping(members) => members.iter().find(|m| m.key == key),
            _ => None,
        }
    }

    /// The text of a member that is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.member(key)?.node.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// How many values this holds, itself included, and how much text.
    fn size(&self) -> (usize, usize) {
        match &self.value {
            Value::Null | Value::Bool(_) | Value::SetAside => (1, 0),
            Value::Number(n) => (1, n.written.len()),
            Value::String(s) => (1, s.len()),
            Value::Sequence(items) => items.iter().fold((1, 0), |sum, item| add(sum, item.size())),
            Value::Mapping(members) => {
                members.iter().fold((1, 0), |sum, m| add(add(sum, m.node.size()), (0, m.key.len())))
            }
        }
    }

    /// How deep the collections in this go; 0 for a scalar.
    fn depth(&self) -> usize {
        match &self.value {
            Value::Sequence(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Mapping(members) => 1 + members.iter().map(|m| m.node.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

fn add(a: (usize, usize), b: (usize, usize)) -> (usize, usize) {
    (a.0 + b.0, a.1 + b.1)
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    first_line: u32,
    /// By the parser's id. An anchor that is still being read is not here yet, so no tree can contain itself.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    aliases: usize,
    text_bytes: usize,
}

impl<'t> Builder<'t> {
    fn document(mut self) -> Result<Option<Node>, SyntaxError> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::DocumentStart(..), _) => break,
                _ => {}
            }
        }
        let (event, span) = self.next()?;
        let root = self.node(event, span, 0)?;
        // A second document in the same text stands behind a `...` line, where the splitter does not look.
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) => {
                    return Err(
                        self.error(span, "another document begins here; put a line with --- before it")
                    );
                }
                _ => {}
            }
        }
        Ok(match root.value {
            Value::Null => None,
            _ => Some(root),
        })
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let at = self.position(*error.marker());
                let message = match error.kind() {
                    ErrorKind::RecursionLimitExceeded => TOO_DEEP.to_owned(),
                    _ => error.info(),
                };
                Err(SyntaxError { at, message })
            }
            None => Ok((Event::StreamEnd, Span::empty(granit_parser::Marker::new(0, 1, 0)))),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        let at = Some(self.position(span.start));
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.error(span, format!("more than {MAX_NODES} values in one document")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.text_bytes += text.len();
                (self.scalar(&text, style, tag.as_deref(), span)?, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span)?;
                (Value::Sequence(self.sequence(span, depth + 1)?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span)?;
                (Value::Mapping(self.mapping(span, depth + 1)?), anchor)
            }
            Event::Alias(id) => return self.alias(id, span, depth),
            _ => return Err(self.error(span, "a value is missing here")),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, span: Span, depth: usize) -> Result<Vec<Node>, SyntaxError> {
        self.nested(span, depth)?;
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth)?),
            }
        }
    }

    fn mapping(&mut self, span: Span, depth: usize) -> Result<Vec<Member>, SyntaxError> {
        self.nested(span, depth)?;
        let mut members: Vec<Member> = Vec::new();
        // Linear search is quadratic: mappings past this size (a Secret, labels) are looked up by hash.
        let mut seen: HashMap<String, Option<Position>> = HashMap::new();
        let mut merged: Vec<(Node, Span)> = Vec::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                next => next,
            };
            let key_at = Some(self.position(span.start));
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.key(event, span)?;
            self.text_bytes += key.len();
            let (event, value_span) = self.next()?;
            let node = self.node(event, value_span, depth)?;
            if merge {
                merged.push((node, value_span));
                continue;
            }
            if let Some(first) = seen.insert(key.clone(), key_at) {
                let line = first.map_or(0, |at| at.line);
                return Err(self.error(span, format!("`{key}` is given twice, first on line {line}")));
            }
            members.push(Member { key, key_at, node });
        }
        for (node, span) in merged {
            let sources = match node.value {
                Value::Sequence(items) => items,
                _ => vec![node],
            };
            for source in sources {
                let Value::Mapping(inherited) = source.value else {
                    return Err(self.error(span, "`<<` takes a mapping, or a list of mappings"));
                };
                for member in inherited {
                    if seen.insert(member.key.clone(), member.key_at).is_none() {
                        members.push(member);
                    }
                }
            }
        }
        Ok(members)
    }

    /// Keys are texts; a number or a boolean is taken as it is written, as Kubernetes does.
    fn key(&mut self, event: Event<'t>, span: Span) -> Result<String, SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                // The parser gives `~` for a key that is not there.
                if style == ScalarStyle::Plain && resolve(&text) == Value::Null {
                    return Err(self.error(span, "a key is missing before the colon, or is null"));
                }
                if anchor != 0 {
                    let node = Node {
                        at: Some(self.position(span.start)),
                        value: Value::String(text.clone().into_owned()),
                    };
                    self.anchors.insert(anchor, node);
                }
                Ok(text.into_owned())
            }
            Event::Alias(id) => match self.alias(id, span, 0)?.value {
                Value::String(text) => Ok(text),
                _ => Err(self.error(span, "a key must be a text")),
            },
            _ => Err(self.error(span, "a key must be a text, not a list or a mapping")),
        }
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            return Err(self.error(span, format!("more than {MAX_ALIASES} aliases in one document")));
        }
        let Some(node) = self.anchors.get(&id) else {
            return Err(self.error(span, "this alias stands inside the value it names"));
        };
        let (nodes, text_bytes) = node.size();
        if self.nodes + nodes > MAX_NODES || self.text_bytes + text_bytes > MAX_TEXT_BYTES {
            return Err(self.error(span, "aliases repeat more than a document may hold"));
        }
        if depth + node.depth() > MAX_DEPTH {
            return Err(self.error(span, TOO_DEEP));
        }
        self.nodes += nodes;
        self.text_bytes += text_bytes;
        Ok(node.clone())
    }

    fn nested(&self, span: Span, depth: usize) -> Result<(), SyntaxError> {
        if depth <= MAX_DEPTH {
            return Ok(());
        }
        Err(self.error(span, TOO_DEEP))
    }

    fn collection_tag(&self, tag: Option<&Tag>, own: &str, span: Span) -> Result<(), SyntaxError> {
        match tag {
            None => Ok(()),
            Some(tag) if tag.core_suffix() == Some(own) => Ok(()),
            Some(tag) => Err(self.error(span, format!("the tag {} is not read", tag.original()))),
        }
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Value, SyntaxError> {
        let resolved = || resolve(text);
        match tag.map(|tag| (tag, tag.core_suffix())) {
            None if style == ScalarStyle::Plain => Ok(resolved()),
            None | Some((_, Some("str"))) => Ok(Value::String(text.to_owned())),
            Some((_, Some("null" | "bool" | "int" | "float"))) => match resolved() {
                Value::String(_) => Err(self.error(span, format!("{text:?} is not what its tag says"))),
                value => Ok(value),
            },
            Some((tag, _)) if tag.original() == "!" => Ok(Value::String(text.to_owned())),
            Some((tag, _)) => Err(self.error(span, format!("the tag {} is not read", tag.original()))),
        }
    }

    fn position(&self, marker: granit_parser::Marker) -> Position {
        // The parser counts lines from 1 and columns from 0.
        let line = u32::try_from(marker.line().max(1) - 1).unwrap_or(u32::MAX);
        let column = u32::try_from(marker.col()).unwrap_or(u32::MAX);
        Position { line: line.saturating_add(self.first_line), column: column.saturating_add(1) }
    }

    fn error(&self, span: Span, message: impl Into<String>) -> SyntaxError {
        SyntaxError { at: self.position(span.start), message: message.into() }
    }
}

#[cfg(test)]
mod tests;
