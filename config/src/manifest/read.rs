//! From a text, or an object of the Kubernetes API, to typed objects and what is wrong with the others.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::diagnostic::{Diagnostic, Position, Severity};

use super::check::{Check, Finding, Findings};
use super::decode::{self, Misfit};
use super::kind::{self, Kind, Recognized};
use super::object::{Manifest, Object, ObjectKey, Source};
use super::path::{FieldPath, Positions, Segment};
use super::tree::{self, Node, Value};
use super::{gateway, split};

/// Texts beyond this are refused; bytes.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Documents of one file beyond this are refused, empty ones counted; a generated mesh of 5,000 services has 15,000.
pub const MAX_DOCUMENTS: usize = 50_000;
/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What a text held.
#[derive(Debug, Default)]
pub struct Parsed {
    pub objects: Vec<Object>,
    /// Errors are about what is not among the objects; warnings and notes may be about those that are.
    pub diagnostics: Vec<Diagnostic>,
    /// Objects that could be told apart but not used: their last good version stays in force.
    pub refused: Vec<ObjectKey>,
}

impl Parsed {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads a file's content, YAML or JSON, of any number of documents. `file` is how the file is named in findings.
pub fn parse(text: &[u8], file: &str) -> Parsed {
    let mut reader = Reader { file: file.into(), parsed: Parsed::default() };
    reader.text(text);
    reader.parsed
}

/// Reads one object that has no text. `source` is how its origin is named in findings.
pub fn from_json(value: serde_json::Value, source: &str) -> Parsed {
    let mut reader = Reader { file: source.into(), parsed: Parsed::default() };
    reader.object(Node::from_json(value));
    reader.parsed
}

struct Reader {
    file: Arc<str>,
    parsed: Parsed,
}

impl Reader {
    fn text(&mut self, bytes: &[u8]) {
        if bytes.len() > MAX_FILE_BYTES {
            let text = format!("{} bytes are more than the {MAX_FILE_BYTES} accepted", bytes.len());
            return self.error(None, text);
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = before.iter().filter(|b| **b == b'\n').count() + 1;
                let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
                let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
                return self.error(position(line, column), "is not UTF-8 text");
            }
        };
        let parts = split::documents(text);
        if parts.len() > MAX_DOCUMENTS {
            let text = format!("{} documents are more than the {MAX_DOCUMENTS} accepted", parts.len());
            return self.error(None, text);
        }
        for part in parts {
            match tree::parse(part.text, part.first_line) {
                Ok(Some(root)) => self.object(root),
                Ok(None) => {}
                Err(error) => self.error(Some(error.at), error.message),
            }
        }
    }

    fn object(&mut self, root: Node) {
        if !matches!(root.value, Value::Mapping(_)) {
            return self.error(root.at, "an object is a mapping with apiVersion and kind");
        }
        let (Some(api_version), Some(kind)) = (root.text("apiVersion"), root.text("kind")) else {
            for field in ["apiVersion", "kind"] {
                match root.member(field) {
                    None => self.field_error(root.at, field, "is required, and missing".to_owned()),
                    Some(member) if root.text(field).is_none() => {
                        self.field_error(member.node.at, field, "must be a text".to_owned());
                    }
                    Some(_) => {}
                }
            }
            return;
        };
        if kind == "List" && api_version == "v1" || is_typed_list(api_version, kind) {
            return self.list(root);
        }
        let place = |field| root.member(field).and_then(|member| member.node.at);
        match kind::recognize(api_version, kind) {
            Recognized::Kind(kind) => self.recognized(kind, root),
            Recognized::NotRead => {
                let text = format!("{kind} is not read by the mesh");
                self.push(Diagnostic::new(Severity::Note, &self.file, text).at(place("kind")), &root);
            }
            Recognized::Unsupported(text) => {
                self.push(Diagnostic::new(Severity::Warning, &self.file, text).at(place("kind")), &root);
            }
            Recognized::BadApiVersion(text) => {
                let found = Diagnostic::new(Severity::Error, &self.file, text).at(place("apiVersion"));
                self.push(found.field("apiVersion"), &root);
            }
            Recognized::BadKind(text) => {
                let found = Diagnostic::new(Severity::Error, &self.file, text).at(place("kind"));
                self.push(found.field("kind"), &root);
            }
        }
    }

    /// The items of a `kind: List`, as if each were a document of its own.
    fn list(&mut self, root: Node) {
        let Value::Mapping(members) = root.value else { return };
        for member in members {
            match (member.key.as_str(), member.node.value) {
                ("apiVersion" | "kind" | "metadata", _) => {}
                ("items", Value::Sequence(items)) => {
                    for item in items {
                        self.object(item);
                    }
                }
                ("items", Value::Null) => {}
                ("items", _) => self.field_error(member.node.at, "items", "must be a list".to_owned()),
                (other, _) => {
                    let field = other.to_owned();
                    self.field_error(member.key_at, &field, "unknown field; known here: items".to_owned());
                }
            }
        }
    }

    fn recognized(&mut self, kind: Kind, root: Node) {
        match kind {
            Kind::Service => self.decoded(kind, root, Manifest::Service),
            Kind::Secret => self.decoded(kind, root, Manifest::Secret),
            Kind::EndpointSlice => self.decoded(kind, root, Manifest::EndpointSlice),
            Kind::Gateway => self.decoded(kind, root, Manifest::Gateway),
            Kind::HttpRoute => self.decoded(kind, root, Manifest::HttpRoute),
            Kind::GrpcRoute => self.decoded(kind, root, Manifest::GrpcRoute),
            Kind::TcpRoute => self.decoded(kind, root, Manifest::TcpRoute),
            Kind::TlsRoute => self.decoded(kind, root, Manifest::TlsRoute),
            Kind::ReferenceGrant => self.decoded(kind, root, Manifest::ReferenceGrant),
            Kind::TrafficPolicy => {
                self.decoded(kind, root, |policy| Manifest::TrafficPolicy(Box::new(policy)))
            }
            Kind::AccessPolicy => self.decoded(kind, root, Manifest::AccessPolicy),
            Kind::Mesh => self.decoded(kind, root, Manifest::Mesh),
            Kind::Workload => self.decoded(kind, root, Manifest::Workload),
        }
    }

    fn decoded<T>(&mut self, kind: Kind, mut root: Node, wrap: fn(T) -> Manifest)
    where
        T: DeserializeOwned + Check,
    {
        let positions = Positions::of(&root);
        let key = key_of(kind, &root);
        let described = described(&root);
        let class =
            root.member("spec").and_then(|spec| spec.node.text("gatewayClassName")).map(str::to_owned);
        if let Value::Mapping(members) = &mut root.value {
            members.retain(|member| member.key != "apiVersion" && member.key != "kind");
        }
        let manifest: T = match decode::decode(root) {
            Ok(manifest) => manifest,
            Err(_) if kind == Kind::Gateway && is_foreign(class.as_deref()) => {
                let text =
                    format!("a Gateway of class {}, which is not this mesh's", class.unwrap_or_default());
                let found = Diagnostic::new(Severity::Note, &self.file, text);
                let at = positions.locate(&FieldPath::parse("spec.gatewayClassName"));
                return self.parsed.diagnostics.push(found.at(at).object(described));
            }
            Err(misfits) => {
                for Misfit { path, at, message } in misfits {
                    let message = if kind == Kind::Secret { secret_message(&path, message) } else { message };
                    let found = Diagnostic::new(Severity::Error, &self.file, message).at(at);
                    self.parsed.diagnostics.push(found.object(&described).field(path.to_string()));
                }
                self.parsed.refused.extend(key);
                return;
            }
        };
        let mut findings = Findings::default();
        manifest.check(&FieldPath::root(), &mut findings);
        let refused = findings.0.iter().any(|finding| finding.severity == Severity::Error);
        for Finding { severity, path, message } in findings.0 {
            let found = Diagnostic::new(severity, &self.file, message).at(positions.locate(&path));
            self.parsed.diagnostics.push(found.object(&described).field(path.to_string()));
        }
        // The name was checked with the rest: a manifest that decodes has a key.
        let Some(key) = key else { return };
        if refused {
            self.parsed.refused.push(key);
            return;
        }
        let manifest = wrap(manifest);
        let hash = manifest.content_hash();
        let source = Source::new(self.file.clone(), positions);
        self.parsed.objects.push(Object { key, manifest, source, hash });
    }

    fn error(&mut self, at: Option<Position>, message: impl Into<String>) {
        let found = Diagnostic::new(Severity::Error, &self.file, message);
        self.parsed.diagnostics.push(found.at(at));
    }

    fn field_error(&mut self, at: Option<Position>, field: &str, message: String) {
        let found = Diagnostic::new(Severity::Error, &self.file, message);
        self.parsed.diagnostics.push(found.at(at).field(field));
    }

    fn push(&mut self, found: Diagnostic, root: &Node) {
        self.parsed.diagnostics.push(found.object(described(root)));
    }
}

/// `ServiceList` and its kin, as `kubectl get -o yaml` of other tools writes them.
fn is_typed_list(api_version: &str, kind: &str) -> bool {
    kind.strip_suffix("List").is_some_and(|item| {
        !item.is_empty() && matches!(kind::recognize(api_version, item), Recognized::Kind(_))
    })
}

/// Other implementations' gateways may use fields and values that mean nothing here.
fn is_foreign(class: Option<&str>) -> bool {
    class.is_some_and(|class| class != gateway::GATEWAY_CLASS)
}

/// Whatever stands in a Secret is not shown, however little it fits.
fn secret_message(path: &FieldPath, message: String) -> String {
    let what = match path.segments() {
        [Segment::Key(key)] if key == "data" || key == "stringData" => "is not a mapping",
        [Segment::Key(key), ..] if key == "data" => "is not base64 text",
        [Segment::Key(key), ..] if key == "stringData" => "is not a text; put it in quotes to make it one",
        _ => return message,
    };
    what.to_owned()
}

fn position(line: usize, column: usize) -> Option<Position> {
    Some(Position { line: u32::try_from(line).ok()?, column: u32::try_from(column).ok()? })
}

fn name_and_namespace(root: &Node) -> (Option<&str>, Option<&str>) {
    let metadata = root.member("metadata").map(|member| &member.node);
    (metadata.and_then(|m| m.text("name")), metadata.and_then(|m| m.text("namespace")))
}

fn key_of(kind: Kind, root: &Node) -> Option<ObjectKey> {
    let (name, namespace) = name_and_namespace(root);
    let namespace = if kind.is_namespaced() { namespace.unwrap_or(DEFAULT_NAMESPACE) } else { "" };
    Some(ObjectKey { kind, namespace: namespace.into(), name: name?.into() })
}

/// `HTTPRoute default/reviews`
fn described(root: &Node) -> String {
    let kind = root.text("kind").unwrap_or("object");
    let (name, namespace) = name_and_namespace(root);
    let name = name.unwrap_or("(no name)");
    match (Kind::from_name(kind), namespace) {
        (Some(kind), _) if !kind.is_namespaced() => format!("{kind} {name}"),
        (_, namespace) => format!("{kind} {}/{name}", namespace.unwrap_or(DEFAULT_NAMESPACE)),
    }
}
