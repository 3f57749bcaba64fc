//! Reading fields of a pod that may hold anything.
//!
//! A value of the wrong type is an error of the user's, which Kubernetes would refuse as well; it is reported with its path, here
//! once for all who look. A field that is `null` is one that is absent, as the API server has it.

use outrigger_config::manifest::path::FieldPath;
use serde_json::{Map, Value};

use super::{Refused, Report};

pub type Object = Map<String, Value>;

fn present<'v>(holder: &'v Object, key: &str) -> Option<&'v Value> {
    holder.get(key).filter(|value| !value.is_null())
}

/// A member that is a mapping; absent is `None`.
pub fn object<'v>(
    holder: &'v Object,
    at: &FieldPath,
    key: &str,
    report: &mut Report,
) -> Result<Option<&'v Object>, Refused> {
    match present(holder, key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(report.error(&at.key(key), "must be a mapping")),
    }
}

/// A member that is a list of mappings; absent is empty.
pub fn objects<'v>(
    holder: &'v Object,
    at: &FieldPath,
    key: &str,
    report: &mut Report,
) -> Result<Vec<&'v Object>, Refused> {
    let items = match present(holder, key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(report.error(&at.key(key), "must be a list")),
    };
    let mapping = |(index, item): (usize, &'v Value)| match item {
        Value::Object(item) => Ok(item),
        _ => Err(report.error(&at.key(key).index(index), "must be a mapping")),
    };
    items.iter().enumerate().map(mapping).collect()
}

pub fn text<'v>(
    holder: &'v Object,
    at: &FieldPath,
    key: &str,
    report: &mut Report,
) -> Result<Option<&'v str>, Refused> {
    match present(holder, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(report.error(&at.key(key), "must be a text")),
    }
}

pub fn boolean(holder: &Object, at: &FieldPath, key: &str, report: &mut Report) -> Result<bool, Refused> {
    match present(holder, key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(report.error(&at.key(key), "must be true or false")),
    }
}

pub fn number(
    holder: &Object,
    at: &FieldPath,
    key: &str,
    report: &mut Report,
) -> Result<Option<u64>, Refused> {
    match present(holder, key) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(report.error(&at.key(key), "must be a whole number, 0 or more")),
        },
    }
}

/// A member that is a mapping, made where it is absent. Only for what was looked at with [`object`] before.
pub fn object_mut<'v>(holder: &'v mut Object, key: &str) -> &'v mut Object {
    let member = holder.entry(key).or_insert(Value::Null);
    if !member.is_object() {
        *member = Value::Object(Map::new());
    }
    member.as_object_mut().expect("made one just now, if it was none")
}

/// As [`object_mut`], for lists.
pub fn list_mut<'v>(holder: &'v mut Object, key: &str) -> &'v mut Vec<Value> {
    let member = holder.entry(key).or_insert(Value::Null);
    if !member.is_array() {
        *member = Value::Array(Vec::new());
    }
    member.as_array_mut().expect("made one just now, if it was none")
}

/// Takes a member away if nothing is left in it.
pub fn drop_if_empty(holder: &mut Object, key: &str) {
    let is_empty = match holder.get(key) {
        Some(Value::Object(object)) => object.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => false,
    };
    if is_empty {
        holder.shift_remove(key);
    }
}

/// A container by its name, among the init containers, too.
pub fn container_mut<'v>(spec: &'v mut Object, name: &str) -> Option<&'v mut Object> {
    let mut which = None;
    for key in ["initContainers", "containers"] {
        let list = spec.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if let Some(index) = list.iter().position(|container| container["name"] == name) {
            which = Some((key, index));
        }
    }
    let (key, index) = which?;
    spec.get_mut(key)?.get_mut(index)?.as_object_mut()
}
