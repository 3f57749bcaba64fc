//! The JSON Schema of each kind, made from the very types that read it.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::*;

/// JSON Schema (draft 2020-12) of a kind, `apiVersion` and `kind` included. It says the shape of each field; rules
/// between fields are the parser's.
pub fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Service => of::<Service>(kind),
        Kind::Secret => of::<Secret>(kind),
        Kind::EndpointSlice => of::<EndpointSlice>(kind),
        Kind::Gateway => of::<Gateway>(kind),
        Kind::HttpRoute => of::<HttpRoute>(kind),
        Kind::GrpcRoute => of::<GrpcRoute>(kind),
        Kind::TcpRoute => of::<TcpRoute>(kind),
        Kind::TlsRoute => of::<TlsRoute>(kind),
        Kind::ReferenceGrant => of::<ReferenceGrant>(kind),
        Kind::TrafficPolicy => of::<TrafficPolicy>(kind),
        Kind::AccessPolicy => of::<AccessPolicy>(kind),
        Kind::Mesh => of::<Mesh>(kind),
        Kind::Workload => of::<Workload>(kind),
    }
}

fn of<T: JsonSchema>(kind: Kind) -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    schema["title"] = kind.as_str().into();
    let group = kind.group();
    let versions: Vec<String> = kind
        .versions()
        .iter()
        .map(|version| if group.is_empty() { version.to_string() } else { format!("{group}/{version}") })
        .collect();
    let mut properties = serde_json::Map::new();
    properties.insert("apiVersion".to_owned(), json!({ "enum": versions }));
    properties.insert("kind".to_owned(), json!({ "const": kind.as_str() }));
    if let Some(Value::Object(own)) = schema.get_mut("properties").map(Value::take) {
        properties.extend(own);
    }
    schema["properties"] = properties.into();
    let mut required = vec![json!("apiVersion"), json!("kind")];
    if let Some(Value::Array(own)) = schema.get_mut("required").map(Value::take) {
        required.extend(own);
    }
    schema["required"] = required.into();
    schema
}
