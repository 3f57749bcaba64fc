//! Rules of a manifest that go beyond the type of one field: bounds of lists, unique names, members that exclude
//! each other. They see a manifest whose fields all fit their types.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use crate::diagnostic::Severity;

use super::path::FieldPath;

/// What the rules found in one manifest.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

#[derive(Debug)]
pub struct Finding {
    pub severity: Severity,
    pub path: FieldPath,
    pub message: String,
}

/// A manifest, or a part of one, with rules of its own.
pub trait Check {
    /// `at` is the path of this part in its manifest.
    fn check(&self, at: &FieldPath, findings: &mut Findings);
}

impl Findings {
    pub fn error(&mut self, path: FieldPath, message: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Error, path, message: message.into() });
    }

    pub fn warning(&mut self, path: FieldPath, message: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Warning, path, message: message.into() });
    }

    /// A list has at most this many items.
    pub fn at_most(&mut self, path: &FieldPath, len: usize, most: usize) {
        if len > most {
            self.error(path.clone(), format!("{len} items are more than the {most} accepted"));
        }
    }

    pub fn not_empty(&mut self, path: &FieldPath, len: usize) {
        if len == 0 {
            self.error(path.clone(), "at least one item is required");
        }
    }

    /// No two items have the same key. `key` gives an item's key and the path of what it is made of, below the item.
    pub fn unique<T, K: Eq + Hash + Display>(
        &mut self,
        path: &FieldPath,
        items: &[T],
        member: &str,
        key: impl Fn(&T) -> Option<K>,
    ) {
        let mut first: HashMap<K, usize> = HashMap::new();
        for (i, item) in items.iter().enumerate() {
            let Some(key) = key(item) else { continue };
            match first.get(&key) {
                Some(earlier) => {
                    let at = path.index(i);
                    let at = if member.is_empty() { at } else { at.key(member) };
                    self.error(at, format!("{key} is given twice, first in item {earlier}"));
                }
                None => {
                    first.insert(key, i);
                }
            }
        }
    }

    /// The rules of every item of a list.
    pub fn each<T: Check>(&mut self, path: &FieldPath, items: &[T]) {
        for (i, item) in items.iter().enumerate() {
            item.check(&path.index(i), self);
        }
    }
}
