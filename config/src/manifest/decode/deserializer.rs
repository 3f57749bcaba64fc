//! serde's view of the tree.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use crate::manifest::path::Segment;
use crate::manifest::tree::{Member, Node, Numeric, Value};

use super::error::Error;
use super::words::{one_of, quoted};

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
