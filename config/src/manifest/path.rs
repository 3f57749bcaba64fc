//! Field paths, and where in a text each one stands.
//!
//! A path is written as in `spec.rules[0].matches[1].path.type`; a key that is not a plain word is written as
//! `metadata.labels["app.kubernetes.io/name"]`.

use std::fmt;
use std::hash::BuildHasher;

use crate::diagnostic::Position;

use super::tree::{Node, Value};

/// One step from a value to one it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    Key(String),
    Index(usize),
}

/// A path from the root of an object to one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<Segment>);

impl FieldPath {
    pub fn root() -> FieldPath {
        FieldPath::default()
    }

    /// The path of a member of this.
    pub fn key(&self, key: impl Into<String>) -> FieldPath {
        self.with(Segment::Key(key.into()))
    }

    /// The path of an item of this.
    pub fn index(&self, index: usize) -> FieldPath {
        self.with(Segment::Index(index))
    }

    /// The path of another member of what holds this.
    pub fn beside(&self, key: impl Into<String>) -> FieldPath {
        let holder = self.0.split_last().map_or(&[][..], |(_, holder)| holder);
        FieldPath(holder.to_vec()).key(key)
    }

    fn with(&self, segment: Segment) -> FieldPath {
        let mut segments = self.0.clone();
        segments.push(segment);
        FieldPath(segments)
    }

    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Reads what `Display` writes. Whatever is not a path in that form is read as far as it is one.
    pub fn parse(text: &str) -> FieldPath {
        let mut segments = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("[\"") {
                let Some(end) = after.find("\"]") else { break };
                segments.push(Segment::Key(after[..end].to_owned()));
                rest = &after[end + 2..];
            } else if let Some(after) = rest.strip_prefix('[') {
                let Some(end) = after.find(']') else { break };
                let Ok(index) = after[..end].parse() else { break };
                segments.push(Segment::Index(index));
                rest = &after[end + 1..];
            } else {
                rest = rest.strip_prefix('.').unwrap_or(rest);
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                if end == 0 {
                    break;
                }
                segments.push(Segment::Key(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
        FieldPath(segments)
    }
}

impl From<Vec<Segment>> for FieldPath {
    fn from(segments: Vec<Segment>) -> FieldPath {
        FieldPath(segments)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if is_word(key) && i == 0 => f.write_str(key)?,
                Segment::Key(key) if is_word(key) => write!(f, ".{key}")?,
                Segment::Key(key) => write!(f, "[\"{key}\"]")?,
            }
        }
        Ok(())
    }
}

fn is_word(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'$'))
}

/// Where each field of one object stands in its text, kept beside the object for findings that come later.
///
/// Sixteen bytes a field: the path's hash and its place, in the hash's order. Two paths that share a hash (one pair
/// in 2^64) would cost a wrong line in a message, nothing else.
#[derive(Clone, Debug, Default)]
pub struct Positions(Box<[(u64, Position)]>);

impl Positions {
    pub fn of(root: &Node) -> Positions {
        let mut found = Vec::new();
        collect(root, root.at, seed(), &mut found);
        found.sort_unstable_by_key(|(hash, _)| *hash);
        Positions(found.into_boxed_slice())
    }

    /// The place of a field, or of the nearest thing around it that is in the text.
    pub fn locate(&self, path: &FieldPath) -> Option<Position> {
        let mut nearest = None;
        let mut hash = seed();
        for segment in std::iter::once(None).chain(path.segments().iter().map(Some)) {
            hash = match segment {
                None => hash,
                Some(Segment::Key(key)) => key_hash(hash, key),
                Some(Segment::Index(index)) => index_hash(hash, *index),
            };
            match self.0.binary_search_by_key(&hash, |(hash, _)| *hash) {
                Ok(i) => nearest = Some(self.0[i].1),
                Err(_) => break,
            }
        }
        nearest
    }
}

/// A list or mapping that begins below its key is found at the key, everything else where the value begins.
pub fn place(key_at: Option<Position>, node: &Node) -> Option<Position> {
    match (&node.value, key_at, node.at) {
        (Value::Sequence(_) | Value::Mapping(_), Some(key), Some(value)) if value.line != key.line => {
            Some(key)
        }
        (Value::Null, Some(key), _) => Some(key),
        (_, key, value) => value.or(key),
    }
}

/// The place of a field in a tree, or of the nearest thing around it.
pub fn find(root: &Node, path: &FieldPath) -> Option<Position> {
    let (mut node, mut at) = (root, root.at);
    for segment in path.segments() {
        let next = match (segment, &node.value) {
            (Segment::Key(key), Value::Mapping(_)) => {
                node.member(key).map(|member| (&member.node, place(member.key_at, &member.node)))
            }
            (Segment::Index(i), Value::Sequence(items)) => items.get(*i).map(|item| (item, item.at)),
            _ => None,
        };
        match next {
            Some(next) => (node, at) = next,
            None => break,
        }
    }
    at
}

fn collect(node: &Node, at: Option<Position>, hash: u64, found: &mut Vec<(u64, Position)>) {
    if let Some(at) = at {
        found.push((hash, at));
    }
    match &node.value {
        Value::Sequence(items) => {
            for (i, item) in items.iter().enumerate() {
                collect(item, item.at, index_hash(hash, i), found);
            }
        }
        Value::Mapping(members) => {
            for member in members {
                let at = place(member.key_at, &member.node);
                collect(&member.node, at, key_hash(hash, &member.key), found);
            }
        }
        _ => {}
    }
}

fn seed() -> u64 {
    0
}

/// The hash of a member's path, from that of what holds it.
fn key_hash(holder: u64, key: &str) -> u64 {
    foldhash::quality::FixedState::with_seed(holder).hash_one(key)
}

/// The hash of an item's path, from that of the list.
fn index_hash(holder: u64, index: usize) -> u64 {
    foldhash::quality::FixedState::with_seed(holder).hash_one(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let path = FieldPath::root().key("spec").key("rules").index(0).key("matches").index(1).key("type");
        assert_eq!(path.to_string(), "spec.rules[0].matches[1].type");
        let label = FieldPath::root().key("metadata").key("labels").key("app.kubernetes.io/name");
        assert_eq!(label.to_string(), "metadata.labels[\"app.kubernetes.io/name\"]");
    }

    #[test]
    fn a_field_is_found_at_its_value_and_a_block_at_its_key() {
        let text = "kind: X\nspec:\n  ports:\n  - name: a\n    port: 80\n  flow: {x: 1}\n";
        let positions = Positions::of(&super::super::tree::parse(text, 10).unwrap().unwrap());
        for (path, line, column) in [
            ("", 10, 1),
            ("kind", 10, 7),
            ("spec", 11, 1),
            ("spec.ports", 12, 3),
            ("spec.ports[0]", 13, 5),
            ("spec.ports[0].port", 14, 11),
            ("spec.flow", 15, 9),
            ("spec.flow.x", 15, 13),
            ("spec.ports[0].missing.deeper", 13, 5),
            ("spec.ports[7].port", 12, 3),
        ] {
            let found = positions.locate(&FieldPath::parse(path));
            assert_eq!(found, Some(Position { line, column }), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_survives_being_written(segments in proptest::collection::vec(segment(), 0..6)) {
            let path = FieldPath(segments);
            prop_assert_eq!(FieldPath::parse(&path.to_string()), path);
        }

        #[test]
        fn any_text_can_be_asked_for(text in ".*") {
            FieldPath::parse(&text);
        }
    }

    fn segment() -> impl Strategy<Value = Segment> {
        prop_oneof!["[a-zA-Z0-9./_-]{1,12}".prop_map(Segment::Key), (0usize..100).prop_map(Segment::Index)]
    }
}
