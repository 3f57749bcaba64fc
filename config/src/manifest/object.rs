//! Objects of any kind: what tells them apart, what they say, where they came from.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Position, Severity};

use super::path::{FieldPath, Positions};
use super::{
    AccessPolicy, EndpointSlice, Gateway, GrpcRoute, HttpRoute, Kind, Mesh, Metadata, ReferenceGrant, Secret,
    Service, TcpRoute, TlsRoute, TrafficPolicy, Workload,
};

/// One object of any kind that is read.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Manifest {
    Service(Service),
    Secret(Secret),
    EndpointSlice(EndpointSlice),
    Gateway(Gateway),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    TcpRoute(TcpRoute),
    TlsRoute(TlsRoute),
    ReferenceGrant(ReferenceGrant),
    /// Boxed: with its sections it is far larger than the others.
    TrafficPolicy(Box<TrafficPolicy>),
    AccessPolicy(AccessPolicy),
    Mesh(Mesh),
    Workload(Workload),
}

/// What tells objects apart. Ordered by kind, then namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    pub kind: Kind,
    /// Empty for kinds that belong to no namespace.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A manifest with what is known about where it came from.
#[derive(Clone, Debug)]
pub struct Object {
    pub key: ObjectKey,
    pub manifest: Manifest,
    pub source: Source,
    /// Of the content, without status and the API's book-keeping: equal for equal manifests within one build.
    pub hash: u64,
}

/// Where an object came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file, or the name of another source (`kubernetes`).
    pub file: Arc<str>,
    positions: Positions,
}

impl Source {
    pub(super) fn new(file: Arc<str>, positions: Positions) -> Source {
        Source { file, positions }
    }

    /// Where a field stands, or the nearest thing around it; `None` for objects without text.
    pub fn locate(&self, field: &str) -> Option<Position> {
        self.positions.locate(&FieldPath::parse(field))
    }
}

impl Object {
    /// A finding about one field of this object, with its place.
    pub fn diagnostic(&self, severity: Severity, field: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(severity, &self.source.file, message)
            .at(self.source.locate(field))
            .object(self.key.to_string())
            .field(field)
    }

    pub fn metadata(&self) -> &Metadata {
        self.manifest.metadata()
    }
}

/// `HTTPRoute default/reviews`; `Mesh default`
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

impl ObjectKey {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
        let namespace = if kind.is_namespaced() { namespace } else { "" };
        ObjectKey { kind, namespace: namespace.into(), name: name.into() }
    }
}

macro_rules! each_kind {
    ($manifest:expr, $object:ident => $value:expr) => {
        match $manifest {
            Manifest::Service($object) => $value,
            Manifest::Secret($object) => $value,
            Manifest::EndpointSlice($object) => $value,
            Manifest::Gateway($object) => $value,
            Manifest::HttpRoute($object) => $value,
            Manifest::GrpcRoute($object) => $value,
            Manifest::TcpRoute($object) => $value,
            Manifest::TlsRoute($object) => $value,
            Manifest::ReferenceGrant($object) => $value,
            Manifest::TrafficPolicy($object) => $value,
            Manifest::AccessPolicy($object) => $value,
            Manifest::Mesh($object) => $value,
            Manifest::Workload($object) => $value,
        }
    };
}

impl Manifest {
    pub const fn kind(&self) -> Kind {
        match self {
            Manifest::Service(_) => Kind::Service,
            Manifest::Secret(_) => Kind::Secret,
            Manifest::EndpointSlice(_) => Kind::EndpointSlice,
            Manifest::Gateway(_) => Kind::Gateway,
            Manifest::HttpRoute(_) => Kind::HttpRoute,
            Manifest::GrpcRoute(_) => Kind::GrpcRoute,
            Manifest::TcpRoute(_) => Kind::TcpRoute,
            Manifest::TlsRoute(_) => Kind::TlsRoute,
            Manifest::ReferenceGrant(_) => Kind::ReferenceGrant,
            Manifest::TrafficPolicy(_) => Kind::TrafficPolicy,
            Manifest::AccessPolicy(_) => Kind::AccessPolicy,
            Manifest::Mesh(_) => Kind::Mesh,
            Manifest::Workload(_) => Kind::Workload,
        }
    }

    pub fn metadata(&self) -> &Metadata {
        each_kind!(self, object => &object.metadata)
    }

    /// The manifest as it would be written, with `apiVersion` and `kind` first. Holds the content of Secrets.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        object.insert("apiVersion".to_owned(), self.kind().api_version().into());
        object.insert("kind".to_owned(), self.kind().as_str().into());
        // Every type here serialises: texts, numbers, lists and maps with text keys.
        if let Ok(serde_json::Value::Object(members)) = serde_json::to_value(self) {
            object.extend(members);
        }
        serde_json::Value::Object(object)
    }

    /// See [`Object::hash`].
    pub(super) fn content_hash(&self) -> u64 {
        let mut content = self.to_json();
        if let Some(metadata) = content.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
            metadata.shift_remove("resourceVersion");
            metadata.shift_remove("generation");
        }
        let mut hasher = DefaultHasher::new();
        content.to_string().hash(&mut hasher);
        hasher.finish()
    }
}
