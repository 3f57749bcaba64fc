//! What is wrong with a configuration, and where.
//!
//! Owns the one shape in which the manifest reader, the registry and the command line report problems:
//! `mesh.yaml:41:9: spec.clusters[2].x: 140 is not a percentage (0 to 100)`.
//! Never decides whether a problem matters to traffic: that is the registry's, which keeps the last good version.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is left out, or its last good version stays in force.
    Error,
    /// The object is used, but something in it does not do what it may seem to.
    Warning,
    /// Worth knowing; nothing to do.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

/// A place in a text: line and column, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    pub const START: Position = Position { line: 1, column: 1 };
}

/// One finding about one object, or about a text in which no object could be made out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The file as it was named on the command line, or the source it came from (`kubernetes`).
    pub file: Arc<str>,
    /// Absent for objects that have no text, such as those from the Kubernetes API.
    #[serde(flatten, serialize_with = "position_fields")]
    pub position: Option<Position>,
    /// `HTTPRoute default/reviews`; absent where the text does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The path of the field, `spec.rules[0].matches[1].path.type`; empty for the object as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    pub message: String,
}

impl Diagnostic {
    pub fn new(severity: Severity, file: &Arc<str>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity,
            file: file.clone(),
            position: None,
            object: None,
            field: String::new(),
            message: message.into(),
        }
    }

    pub fn at(mut self, position: impl Into<Option<Position>>) -> Diagnostic {
        self.position = position.into();
        self
    }

    pub fn object(mut self, object: impl Into<String>) -> Diagnostic {
        self.object = Some(object.into());
        self
    }

    pub fn field(mut self, field: impl Into<String>) -> Diagnostic {
        self.field = field.into();
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The order in which findings are listed: by file, then by place, then the worst first.
    pub fn listing_order(&self) -> impl Ord + '_ {
        (&*self.file, self.position, self.severity, &*self.field, &*self.message)
    }
}

/// `file:line:column: field: message`, without what is not known. An error needs no word; a warning and a note say so.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match (self.position, &self.object) {
            (Some(at), _) => write!(f, ":{}:{}", at.line, at.column)?,
            (None, Some(object)) => write!(f, ": {object}")?,
            (None, None) => {}
        }
        f.write_str(": ")?;
        if self.severity != Severity::Error {
            write!(f, "{}: ", self.severity)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

fn position_fields<S: Serializer>(position: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(None)?;
    if let Some(at) = position {
        map.serialize_entry("line", &at.line)?;
        map.serialize_entry("column", &at.column)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_file_place_field_and_message() {
        let file: Arc<str> = "mesh.yaml".into();
        let mut found = Diagnostic::new(Severity::Error, &file, "140 is not a percentage (0 to 100)")
            .at(Position { line: 41, column: 9 })
            .object("Mesh default")
            .field("spec.accessLog.sampling");
        assert_eq!(
            found.to_string(),
            "mesh.yaml:41:9: spec.accessLog.sampling: 140 is not a percentage (0 to 100)"
        );
        assert_eq!(
            serde_json::to_value(&found).unwrap(),
            serde_json::json!({
                "severity": "error", "file": "mesh.yaml", "line": 41, "column": 9, "object": "Mesh default",
                "field": "spec.accessLog.sampling", "message": "140 is not a percentage (0 to 100)",
            })
        );
        found.position = None;
        found.severity = Severity::Warning;
        assert_eq!(
            found.to_string(),
            "mesh.yaml: Mesh default: warning: spec.accessLog.sampling: 140 is not a percentage (0 to 100)"
        );
    }
}
