//! A changed object, written into the text it came from.
//!
//! Only the lines that change are written anew: comments, order and spelling of everything else stay. The result is read again, and
//! unless it says exactly what it should, the document is written anew as a whole; never is a text handed out that was not checked.

use std::ops::Range;

use outrigger_config::manifest::tree;
use serde_json::Value;

use super::emit::{Source, Style};
use super::layout::{self, Member, Node, Shape};
use super::value;

/// The text of a document whose object was `before` and is to be `after`; `None` if there is no way to write it that reads back
/// the same.
pub fn write(text: &str, before: &Value, after: &Value) -> Option<String> {
    if serde_json::from_str::<Value>(text).is_ok() {
        return Some(format!("{after:#}\n"));
    }
    let layout = layout::of(text);
    let style = Style { indented_lists: layout.as_ref().is_some_and(|root| has_indented_lists(root, text)) };
    let edited = || edited(text, layout.as_ref()?, style, before, after);
    let source = || layout.as_ref().map(|node| Source { text, node, before });
    let anew = |source| Some(format!("{}{}\n", preamble(text), style.block(after, source, 0)));
    let says_so = |written: &String| {
        let read = tree::parse(written, 1).ok().flatten();
        read.is_some_and(|root| value::of(&root) == *after)
    };
    edited()
        .filter(says_so)
        .or_else(|| anew(Some(source()?)).filter(says_so))
        .or_else(|| anew(None).filter(says_so))
}

/// Comments and markers above the object.
fn preamble(text: &str) -> &str {
    let is_above =
        |line: &&str| line.starts_with("---") || line.trim().is_empty() || line.starts_with(['#', '%']);
    &text[..text.split_inclusive('\n').take_while(is_above).map(str::len).sum()]
}

fn edited(text: &str, root: &Node, style: Style, before: &Value, after: &Value) -> Option<String> {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut editor = Editor { text, style, edits: Vec::new() };
    editor.change(root, None, before, after)?;
    editor.edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = String::with_capacity(text.len() * 2);
    let mut done = 0;
    for (range, replacement) in editor.edits {
        // Two edits of the same bytes cannot both be right.
        out.push_str(text.get(done..range.start)?);
        out.push_str(&replacement.replace('\n', newline));
        done = range.end;
    }
    out.push_str(&text[done..]);
    Some(out)
}

struct Editor<'t> {
    text: &'t str,
    style: Style,

    /// Ranges of the text and what takes their place.
    edits: Vec<(Range<usize>, String)>,
}

/// What a value hangs on.
#[derive(Clone, Copy)]
struct Place {
    /// Behind the colon, or the dash.
    behind: usize,
    /// Column of the key, or the dash.
    column: usize,
    is_item: bool,
}

impl Editor<'_> {
    /// Notes the edits that turn one value into another; `None` if they cannot be made in place.
    fn change(&mut self, node: &Node, place: Option<Place>, before: &Value, after: &Value) -> Option<()> {
        if before == after {
            return Some(());
        }
        match (&node.shape, before, after) {
            (Shape::Mapping { flow: false, members }, Value::Object(before), Value::Object(after))
                if members.iter().any(|member| after.contains_key(&member.key)) =>
            {
                let column = self.column(node.span.start);
                self.members(members, column, before, after)
            }
            (Shape::List { flow: false, items }, Value::Array(before), Value::Array(after))
                if !after.is_empty() =>
            {
                self.items(items, before, after)
            }
            _ => self.replace(node, place?, before, after),
        }
    }

    fn members(
        &mut self,
        members: &[Member],
        column: usize,
        before: &serde_json::Map<String, Value>,
        after: &serde_json::Map<String, Value>,
    ) -> Option<()> {
        // A merge key is no member of what it merges into.
        let own = |member: &&Member| before.contains_key(&member.key);
        let own: Vec<&Member> = members.iter().filter(own).collect();
        for (index, member) in own.iter().enumerate() {
            match after.get(&member.key) {
                None => self.remove(member, own.get(index + 1).copied()),
                Some(value) => {
                    let place = Place { behind: member.behind_key, column, is_item: false };
                    self.change(&member.node, Some(place), before.get(&member.key)?, value)?;
                }
            }
        }
        let is_new = |key: &String| members.iter().all(|member| member.key != *key);
        let added: Vec<String> = after
            .iter()
            // What a merge key brings is there without being written.
            .filter(|(key, value)| is_new(key) && before.get(*key) != Some(*value))
            .map(|(key, value)| self.style.member(key, value, None, column))
            .collect();
        if !added.is_empty() {
            let end = self.line_end(members.last()?.node.span.end);
            self.insert_lines(end, column, &added);
        }
        Some(())
    }

    fn items(&mut self, items: &[Node], before: &[Value], after: &[Value]) -> Option<()> {
        if items.len() != before.len() {
            return None;
        }
        let dashes: Vec<usize> = items.iter().map(|item| self.dash(item)).collect::<Option<_>>()?;
        let column = self.column(*dashes.first()?);
        let mut next = 0;
        let mut added = Vec::new();
        for item in after {
            let Some(index) = (next..before.len()).find(|index| is_same(&before[*index], item)) else {
                added.push(self.style.item(item, None, column));
                continue;
            };
            self.remove_items(next..index, &dashes, items);
            if !added.is_empty() {
                let at = self.above_comments(self.line_start(dashes[index]));
                self.insert_lines(at, column, &std::mem::take(&mut added));
            }
            let place = Place { behind: dashes[index] + 1, column, is_item: true };
            self.change(&items[index], Some(place), &before[index], item)?;
            next = index + 1;
        }
        self.remove_items(next..before.len(), &dashes, items);
        if !added.is_empty() {
            let end = self.line_end(items.last()?.span.end);
            self.insert_lines(end, column, &added);
        }
        Some(())
    }

    fn remove_items(&mut self, indices: Range<usize>, dashes: &[usize], items: &[Node]) {
        for index in indices {
            let range = self.line_start(dashes[index])..self.line_end(items[index].span.end);
            self.edits.push((range, String::new()));
        }
    }

    /// A member goes with its lines; one that shares its first line with a dash leaves that to the next.
    fn remove(&mut self, member: &Member, next: Option<&Member>) {
        let start = self.line_start(member.key_at);
        let stands_alone = self.text[start..member.key_at].trim().is_empty();
        let range = match next {
            Some(next) if !stands_alone => member.key_at..next.key_at,
            _ => start..self.line_end(member.node.span.end),
        };
        self.edits.push((range, String::new()));
    }

    fn replace(&mut self, node: &Node, place: Place, before: &Value, after: &Value) -> Option<()> {
        let source = Some(Source { text: self.text, node, before });
        let written = match place.is_item {
            false => self.style.behind_key(after, source, place.column),
            true => self.style.item(after, source, place.column).strip_prefix('-')?.to_owned(),
        };
        self.edits.push((place.behind..node.span.end.max(place.behind), written));
        Some(())
    }

    /// Puts whole lines before `at`, the beginning of a line or the end of the text.
    fn insert_lines(&mut self, at: usize, column: usize, entries: &[String]) {
        let mut lines = String::new();
        if at > 0 && !self.text[..at].ends_with('\n') {
            lines.push('\n');
        }
        for entry in entries {
            lines.push_str(&format!("{:column$}{entry}\n", ""));
        }
        self.edits.push((at..at, lines));
    }

    /// The dash of an item, if it stands on the line where the item begins and nothing before it.
    fn dash(&self, item: &Node) -> Option<usize> {
        let start = self.line_start(item.span.start);
        let line = &self.text[start..item.span.start];
        let dash = line.trim_end().strip_suffix('-')?;
        dash.trim().is_empty().then_some(start + dash.len())
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |end| end + 1)
    }

    /// Behind the end of the line.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |end| at + end + 1)
    }

    /// Comments right above a line belong to it.
    fn above_comments(&self, line: usize) -> usize {
        let above = self.line_start(line.saturating_sub(1));
        let is_comment = above < line && self.text[above..line].trim_start().starts_with('#');
        if is_comment { self.above_comments(above) } else { line }
    }

    fn column(&self, at: usize) -> usize {
        self.text[self.line_start(at)..at].chars().count()
    }
}

/// Whether an item became another, or made way for it.
fn is_same(before: &Value, after: &Value) -> bool {
    match (before.get("name"), after.get("name")) {
        (Some(before), Some(after)) => before == after,
        _ => before == after,
    }
}

/// By the first list below a key in the document.
fn has_indented_lists(node: &Node, text: &str) -> bool {
    fn first(node: &Node, text: &str) -> Option<bool> {
        let line_start = |at: usize| text[..at].rfind('\n').map_or(0, |end| end + 1);
        match &node.shape {
            Shape::Mapping { members, .. } => members.iter().find_map(|member| match &member.node.shape {
                Shape::List { flow: false, items } => {
                    let line = line_start(items.first()?.span.start);
                    let dash = text[line..].find(|c: char| c != ' ')?;
                    Some(dash > member.key_at - line_start(member.key_at))
                }
                _ => first(&member.node, text),
            }),
            Shape::List { items, .. } => items.iter().find_map(|item| first(item, text)),
            _ => None,
        }
    }
    first(node, text).unwrap_or(false)
}
