//! The last good version of every object, and the registry made of them.
//!
//! Owns what becomes of files that change for the worse: an object that cannot be read any more stays as it was, a new one
//! that cannot be read is left out, a file that is gone takes its objects along. Of two objects with one key the first by file
//! name is used.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};
use crate::manifest::{self, Object, ObjectKey};
use crate::source::{Content, Files};

use super::Registry;

#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<Arc<str>, File>,
    registry: Arc<Registry>,
}

/// What is known of one file.
#[derive(Clone, Debug)]
struct File {
    content: Content,
    objects: Vec<Arc<Object>>,
    /// Last good versions of objects that the file does not have in a readable form.
    kept: Vec<Arc<Object>>,
    refused: Vec<ObjectKey>,
    diagnostics: Vec<Diagnostic>,
}

impl Store {
    pub fn new() -> Self {
        Self::default()
    }

    /// The state after the last update; empty before the first.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Takes over a new state of all files. Only what changed is parsed; where nothing did, the registry is the same one.
    pub fn update(&mut self, files: &Files) -> Arc<Registry> {
        let mut next = BTreeMap::new();
        for (name, content) in files.iter() {
            let file = match self.files.get(name) {
                Some(file) if same(&file.content, content) => file.clone(),
                before => File::read(name, content, before),
            };
            next.insert(name.clone(), file);
        }
        self.keep_unseen(files, &mut next);
        self.keep_moved(&mut next);
        let unchanged = next.len() == self.files.len()
            && next
                .iter()
                .zip(&self.files)
                .all(|((a, file), (b, before))| a == b && same(&file.content, &before.content));
        self.files = next;
        if !unchanged {
            self.registry = Arc::new(self.merged());
        }
        self.registry.clone()
    }

    /// What lay below a directory that cannot be read now is not gone, only out of sight.
    fn keep_unseen(&self, files: &Files, next: &mut BTreeMap<Arc<str>, File>) {
        let hidden: Vec<_> = files
            .iter()
            .filter(|(_, content)| matches!(content, Content::Unreadable(_)))
            .map(|(name, _)| name)
            .collect();
        for (name, file) in &self.files {
            let out_of_sight = hidden.iter().any(|unreadable| {
                ***unreadable == *crate::source::LIMIT
                    || name.strip_prefix(&***unreadable).is_some_and(|rest| rest.starts_with('/'))
            });
            if out_of_sight && !next.contains_key(name) {
                next.insert(name.clone(), file.clone());
            }
        }
    }

    /// An object that was moved from one file to another and broken on the way.
    fn keep_moved(&self, next: &mut BTreeMap<Arc<str>, File>) {
        let at_hand: HashSet<ObjectKey> = next
            .values()
            .flat_map(|file| file.objects.iter().chain(&file.kept))
            .map(|object| object.key.clone())
            .collect();
        for file in next.values_mut() {
            for key in &file.refused {
                if !at_hand.contains(key)
                    && let Some(object) = self.registry.object(key)
                {
                    file.kept.push(object.clone());
                }
            }
        }
    }

    fn merged(&self) -> Registry {
        let mut objects: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        for file in self.files.values() {
            diagnostics.extend_from_slice(&file.diagnostics);
            for object in &file.objects {
                match objects.get(&object.key) {
                    None => {
                        objects.insert(object.key.clone(), object.clone());
                    }
                    Some(first) => {
                        let text = format!(
                            "{} is already defined {}; this one is not used",
                            object.key,
                            place(first)
                        );
                        diagnostics.push(object.diagnostic(Severity::Error, "metadata.name", text));
                    }
                }
            }
        }
        for object in self.files.values().flat_map(|file| &file.kept) {
            if !objects.contains_key(&object.key) {
                objects.insert(object.key.clone(), object.clone());
                let text = "what it said last, before it could not be read any more, stays in force";
                diagnostics.push(
                    Diagnostic::new(Severity::Note, &object.source.file, text).object(object.key.to_string()),
                );
            }
        }
        Registry::new(objects, diagnostics)
    }
}

impl File {
    fn read(name: &Arc<str>, content: &Content, before: Option<&Self>) -> Self {
        let mut file = Self {
            content: content.clone(),
            objects: vec![],
            kept: vec![],
            refused: vec![],
            diagnostics: vec![],
        };
        match content {
            Content::Text(text) => {
                let parsed = manifest::parse(text.as_bytes(), name);
                file.objects = parsed.objects.into_iter().map(Arc::new).collect();
                file.refused = parsed.refused;
                file.diagnostics = parsed.diagnostics;
            }
            Content::Unreadable(reason) => {
                file.diagnostics.push(Diagnostic::new(Severity::Error, name, &**reason));
            }
        }
        let nameless = file.has_nameless_errors();
        for object in before.into_iter().flat_map(|before| before.objects.iter().chain(&before.kept)) {
            let gone = file.objects.iter().chain(&file.kept).all(|now| now.key != object.key);
            if gone && (nameless || file.refused.contains(&object.key)) {
                file.kept.push(object.clone());
            }
        }
        file
    }

    /// Whether something is wrong that no object can be named for: it may have been any of those the file had.
    fn has_nameless_errors(&self) -> bool {
        let named: HashSet<String> = self.refused.iter().map(ToString::to_string).collect();
        self.diagnostics
            .iter()
            .filter(|found| found.is_error())
            .any(|found| found.object.as_ref().is_none_or(|object| !named.contains(object)))
    }
}

/// Quick where the source kept the text, right where it did not.
fn same(a: &Content, b: &Content) -> bool {
    match (a, b) {
        (Content::Text(a), Content::Text(b)) => Arc::ptr_eq(a, b) || a == b,
        (Content::Unreadable(a), Content::Unreadable(b)) => a == b,
        (Content::Text(_), Content::Unreadable(_)) | (Content::Unreadable(_), Content::Text(_)) => false,
    }
}

fn place(object: &Object) -> String {
    match object.source.locate("metadata.name") {
        Some(at) => format!("at {}:{}", object.source.file, at.line),
        None => format!("in {}", object.source.file),
    }
}
