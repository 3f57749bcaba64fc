//! A read document as the JSON the Kubernetes API would hold.

use outrigger_config::manifest::tree::{Node, Numeric, Value as Read};
use serde_json::Value;

pub fn of(node: &Node) -> Value {
    match &node.value {
        Read::Null | Read::SetAside => Value::Null,
        Read::Bool(value) => (*value).into(),
        Read::Number(number) => match number.value {
            Numeric::Unsigned(number) => number.into(),
            Numeric::Signed(number) => number.into(),
            Numeric::Float(number) => number.into(),
        },
        Read::String(text) => text.as_str().into(),
        Read::Sequence(items) => items.iter().map(of).collect(),
        Read::Mapping(members) => {
            members.iter().map(|member| (member.key.clone(), of(&member.node))).collect()
        }
    }
}
