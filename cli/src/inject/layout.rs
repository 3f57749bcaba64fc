//! Where in a document's text each value stands, so that a change can be written without touching the rest.
//!
//! Knows places and shapes only; what the values are, `config::manifest::tree` says. Whoever uses it checks the result by reading it,
//! because comments, anchors and rarer forms of YAML are not understood here, only left alone.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, StructureStyle};
use outrigger_config::manifest::tree::MAX_DEPTH;

/// A value in the text.
#[derive(Debug)]
pub struct Node {
    /// Bytes of the value, without what follows it on its last line. Empty for one that is not written.
    pub span: Range<usize>,
    pub shape: Shape,
}

#[derive(Debug)]
pub enum Shape {
    Scalar,
    /// `*name`
    Alias,
    /// `[a, b]` if it is flow, else a line with a dash for each item.
    List {
        flow: bool,
        items: Vec<Node>,
    },
    Mapping {
        flow: bool,
        members: Vec<Member>,
    },
}

#[derive(Debug)]
pub struct Member {
    pub key: String,
    pub key_at: usize,
    /// Behind the colon.
    pub behind_key: usize,
    pub node: Node,
}

impl Node {
    pub fn is_flow(&self) -> bool {
        matches!(self.shape, Shape::List { flow: true, .. } | Shape::Mapping { flow: true, .. })
    }

    pub fn member(&self, key: &str) -> Option<&Member> {
        match &self.shape {
            Shape::Mapping { members, .. } => members.iter().find(|member| member.key == key),
            _ => None,
        }
    }
}

/// The layout of one document; `None` where it is of a form that is not understood.
pub fn of(text: &str) -> Option<Node> {
    let mut options =
        granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    options.set_emit_comments(false);
    let mut reader = Reader { text, parser: Parser::new_from_str_with_options(text, options) };
    loop {
        match reader.next()?.0 {
            Event::StreamEnd => return None,
            Event::DocumentStart(..) => break,
            _ => {}
        }
    }
    let (event, span) = reader.next()?;
    reader.node(event, span, 0)
}

struct Reader<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        self.parser.next_event()?.ok()
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Option<Node> {
        // The reader of values has limits of its own; this one only must not be the weaker.
        if depth > MAX_DEPTH {
            return None;
        }
        let bytes = span.byte_range()?;
        match event {
            // A block of text ends with its last line, which for the parser is the beginning of the next one.
            Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..) => {
                let end = bytes.start + self.text.get(bytes.clone())?.trim_end().len();
                Some(Node { span: bytes.start..end, shape: Shape::Scalar })
            }
            Event::Scalar(..) => Some(Node { span: bytes, shape: Shape::Scalar }),
            Event::Alias(_) => Some(Node { span: bytes, shape: Shape::Alias }),
            Event::SequenceStart(style, ..) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break span,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                };
                let flow = style == StructureStyle::Flow;
                let end = if flow { end.byte_range()?.end } else { items.last()?.span.end };
                Some(Node { span: bytes.start..end, shape: Shape::List { flow, items } })
            }
            Event::MappingStart(style, ..) => {
                let mut members = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::MappingEnd, span) => break span,
                        (event, span) => members.push(self.member(event, span, depth)?),
                    }
                };
                let flow = style == StructureStyle::Flow;
                let (start, end) = match (flow, members.first(), members.last()) {
                    (true, ..) => (bytes.start, end.byte_range()?.end),
                    (false, Some(first), Some(last)) => (first.key_at, last.node.span.end),
                    _ => return None,
                };
                Some(Node { span: start..end, shape: Shape::Mapping { flow, members } })
            }
            _ => None,
        }
    }

    fn member(&mut self, event: Event<'t>, span: Span, depth: usize) -> Option<Member> {
        let Event::Scalar(key, ..) = event else { return None };
        let bytes = span.byte_range()?;
        let (event, value) = self.next()?;
        let mut node = self.node(event, value, depth + 1)?;
        let colon = self.text.get(bytes.end..)?.find(|c: char| c != ' ')? + bytes.end;
        if !self.text[colon..].starts_with(':') {
            return None;
        }
        let behind_key = colon + 1;
        if node.span.is_empty() {
            node.span = behind_key..behind_key;
        }
        Some(Member { key: key.into_owned(), key_at: bytes.start, behind_key, node })
    }
}
