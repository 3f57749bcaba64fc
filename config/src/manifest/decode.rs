//! From the tree to typed manifests, through serde.
//!
//! Owns what a misfit says: where it stands, what was found, what is accepted, which known name is nearest.
//! Null is taken as Kubernetes takes it: as if the field were not there.
//! After one misfit the field is set aside and the rest is read again, so that one run reports them all.
//! Types that use serde's `flatten`, `untagged` or internal tags would lose the path: none here does.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor,
};

use crate::diagnostic::Position;

use super::path::{FieldPath, Segment, find};
use super::tree::{Member, Node, Numeric, Value};

/// More misfits than this in one object are not listed.
const MAX_MISFITS: usize = 20;
/// Readings of one object, those included that find nothing new.
const MAX_READINGS: usize = 100;

/// One field that does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub path: FieldPath,
    pub at: Option<Position>,
    pub message: String,
}

/// Reads a typed value, or says everything that keeps it from being one.
pub fn decode<T: DeserializeOwned>(mut root: Node) -> Result<T, Vec<Misfit>> {
    let mut misfits: Vec<Misfit> = Vec::new();
    // Fields whose absence has been explained.
    let mut explained: Vec<FieldPath> = Vec::new();
    for _ in 0..MAX_READINGS {
        let error = match T::deserialize(&root) {
            Ok(value) if misfits.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => error,
        };
        let meant = error.meant;
        let misfit = error.into_misfit(&root);
        let removed = set_aside(&mut root, misfit.path.segments());
        // What surrounds a field that was set aside may fail only because the field is gone.
        if !explained.iter().any(|gone| gone.segments().starts_with(misfit.path.segments())) {
            explained.push(misfit.path.clone());
            // A misspelt field is the reason why the one that was meant is missing.
            explained.extend(meant.map(|meant| misfit.path.beside(meant)));
            misfits.push(misfit);
        }
        if !removed || misfits.len() == MAX_MISFITS {
            break;
        }
    }
    Err(misfits)
}

/// The text of an error about a member of the value being read, for conversions (`TryFrom`) that find one.
/// serde hands errors of conversions on as text alone, so the member's path travels in front of it.
pub fn member_error(path: &str, message: impl fmt::Display) -> String {
    format!("{MEMBER_MARK}{path}{MEMBER_MARK}{message}")
}

/// The same error, seen from what holds the value under `member`.
pub fn inside(member: &str, error: &str) -> String {
    match error.strip_prefix(MEMBER_MARK).and_then(|rest| rest.split_once(MEMBER_MARK)) {
        Some((path, message)) if path.starts_with('[') => member_error(&format!("{member}{path}"), message),
        Some((path, message)) => member_error(&format!("{member}.{path}"), message),
        None => member_error(member, error),
    }
}

/// The nearest of the known names, if one is near enough to have been meant.
pub fn nearest<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let limit = (found.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(&found.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Whether two words differ by at most so many letters.
pub fn within(a: &str, b: &str, letters: usize) -> bool {
    a.len().abs_diff(b.len()) <= letters && distance(a, b) <= letters
}

const MEMBER_MARK: char = '\u{1f}';

/// Takes the innermost thing on the path that can be taken out of the tree. False when nothing is left to take.
fn set_aside(root: &mut Node, path: &[Segment]) -> bool {
    (1..=path.len()).rev().any(|len| remove(root, &path[..len]))
}

fn remove(root: &mut Node, path: &[Segment]) -> bool {
    let Some((last, holder)) = path.split_last() else { return false };
    let mut node = root;
    for segment in holder {
        let next = match (segment, &mut node.value) {
            (Segment::Key(key), Value::Mapping(members)) => {
                members.iter_mut().find(|m| m.key == *key).map(|m| &mut m.node)
            }
            (Segment::Index(i), Value::Sequence(items)) => items.get_mut(*i),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => return false,
        }
    }
    match (last, &mut node.value) {
        (Segment::Key(key), Value::Mapping(members)) => {
            let before = members.len();
            members.retain(|m| m.key != *key);
            members.len() < before
        }
        (Segment::Index(i), Value::Sequence(items)) => match items.get_mut(*i) {
            Some(item) if item.value != Value::SetAside => {
                item.value = Value::SetAside;
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// Optimal string alignment: insertions, deletions, replacements, neighbours swapped.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// A misfit on its way up from the value where it was found.
#[derive(Debug)]
pub struct Error {
    /// From the innermost outwards.
    path: Vec<Segment>,
    /// Set for a key that should not be there; everything else is found by its path.
    key_at: Option<Position>,
    /// The known field that a misspelt one was taken for.
    meant: Option<&'static str>,
    message: String,
}

impl Error {
    fn new(message: impl Into<String>) -> Error {
        Error { path: Vec::new(), key_at: None, meant: None, message: message.into() }
    }

    fn inside(mut self, segment: Segment) -> Error {
        self.path.push(segment);
        self
    }

    fn into_misfit(mut self, root: &Node) -> Misfit {
        self.path.reverse();
        let path = FieldPath::from(self.path);
        Misfit { at: self.key_at.or_else(|| find(root, &path)), path, message: self.message }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        let message = message.to_string();
        if let Some((member, text)) =
            message.strip_prefix(MEMBER_MARK).and_then(|m| m.split_once(MEMBER_MARK))
        {
            let mut error = Error::new(text);
            error.path = FieldPath::parse(member).segments().iter().rev().cloned().collect();
            return error;
        }
        Error::new(message)
    }

    fn invalid_type(found: Unexpected<'_>, accepted: &dyn de::Expected) -> Error {
        Error::new(misfit_text(&described(found), &accepted.to_string()))
    }

    fn invalid_value(found: Unexpected<'_>, accepted: &dyn de::Expected) -> Error {
        Error::invalid_type(found, accepted)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Error {
        let nearest = nearest(variant, expected.iter().copied());
        let meant = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        Error::new(format!("{variant:?} is not {}{meant}", one_of(expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Error {
        let meant = nearest(field, expected.iter().copied());
        let mut error = Error::new(match meant {
            Some(name) => format!("unknown field; did you mean `{name}`?"),
            None if expected.is_empty() => "unknown field; none is known here".to_owned(),
            None => format!("unknown field; known here: {}", expected.join(", ")),
        });
        error.meant = meant;
        error
    }

    fn missing_field(field: &'static str) -> Error {
        let mut error = Error::new("is required, and missing");
        error.path.push(Segment::Key(field.to_owned()));
        error
    }
}

fn misfit_text(found: &str, accepted: &str) -> String {
    let accepted = match accepted {
        "a boolean" => "true or false".to_owned(),
        "u8" => "a whole number (0 to 255)".to_owned(),
        "u16" => "a whole number (0 to 65535)".to_owned(),
        "u32" => "a whole number (0 to 4294967295)".to_owned(),
        "u64" | "usize" => "a whole number (0 or more)".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        text if text.starts_with("struct ") => "a mapping".to_owned(),
        text => text.to_owned(),
    };
    format!("{found} is not {accepted}")
}

fn described(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Unsigned(n) => n.to_string(),
        Unexpected::Signed(n) => n.to_string(),
        Unexpected::Float(n) => n.to_string(),
        Unexpected::Str(text) => quoted(text),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Other(text) => text.to_owned(),
        other => other.to_string(),
    }
}

/// A text as it is shown in a message: quoted, control characters escaped, cut where it becomes unreadable.
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(SHOWN).collect::<String>())
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => "accepted here".to_owned(),
        [name] => name.to_string(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

impl Node {
    fn mismatch<T>(&self, accepted: &str) -> Result<T, Error> {
        Err(Error::new(format!("{} is not {accepted}", self.in_words())))
    }

    fn in_words(&self) -> String {
        match &self.value {
            Value::Null | Value::SetAside => "nothing".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => n.written.clone(),
            Value::String(text) => quoted(text),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

macro_rules! as_it_is {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.deserialize_any(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null | Value::SetAside => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Number(n) => match n.value {
                Numeric::Unsigned(n) => visitor.visit_u64(n),
                Numeric::Signed(n) => visitor.visit_i64(n),
                Numeric::Float(n) => visitor.visit_f64(n),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Sequence(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Value::Mapping(members) => {
                visitor.visit_map(Members { members: members.iter(), fields: &[], value: None })
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Bool(_) | Value::Number(_) => self.mismatch("a text; put it in quotes to make it one"),
            _ => self.mismatch("a text"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_seq(Items { items: [].iter(), index: 0 }),
            Value::Sequence(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            _ => self.mismatch("a list"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_map(Members { members: [].iter(), fields: &[], value: None }),
            Value::Mapping(members) => {
                visitor.visit_map(Members { members: members.iter(), fields: &[], value: None })
            }
            _ => self.mismatch("a mapping"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Mapping(members) => {
                visitor.visit_map(Members { members: members.iter(), fields, value: None })
            }
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::String(text) => {
                let variant: StrDeserializer<'_, Error> = text.as_str().into_deserializer();
                visitor.visit_enum(variant)
            }
            _ => self.mismatch(&one_of(variants)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    as_it_is! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_bytes deserialize_byte_buf deserialize_unit
        deserialize_identifier
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let (index, item) = loop {
            let Some(item) = self.items.next() else { return Ok(None) };
            let index = self.index;
            self.index += 1;
            if item.value != Value::SetAside {
                break (index, item);
            }
        };
        seed.deserialize(item).map(Some).map_err(|error| error.inside(Segment::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Members<'de> {
    members: std::slice::Iter<'de, Member>,
    /// Known by name: as good as absent where they are null.
    fields: &'static [&'static str],
    value: Option<&'de Member>,
}

impl<'de> de::MapAccess<'de> for Members<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let absent =
            |member: &Member| member.node.value == Value::Null && self.fields.contains(&member.key.as_str());
        let Some(member) = self.members.find(|member| !absent(member)) else { return Ok(None) };
        self.value = Some(member);
        let key: StrDeserializer<'_, Error> = member.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mut error| {
            error.key_at = member.key_at;
            error.inside(Segment::Key(member.key.clone()))
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let member = self.value.take().ok_or_else(|| Error::new("a value without a key"))?;
        seed.deserialize(&member.node).map_err(|error| error.inside(Segment::Key(member.key.clone())))
    }
}
