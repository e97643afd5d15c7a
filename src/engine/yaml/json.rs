//! A tree as JSON: what NixOS options are handed over as.

use serde_json::{Map, Number, Value};
use thiserror::Error;

use super::{Node, Resolved, Scalar, Span, Tree};

/// A value that YAML can write and JSON can't.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` has no form in JSON, which NixOS options are passed as; write it as a text, in quotes")]
pub struct JsonError {
    pub text: String,
    pub span: Span,
}

/// Turns a tree into JSON. Integers stay integers (64 bits), everything else follows [`Scalar::resolve`].
///
/// # Errors
/// For an infinity or NaN, which JSON can't write.
pub fn to_json(node: &Node) -> Result<Value, JsonError> {
    match &node.tree {
        Tree::Scalar(scalar) => scalar_to_json(scalar, node.span),
        Tree::List(items) => items.iter().map(to_json).collect::<Result<Vec<_>, _>>().map(Value::Array),
        Tree::Map(entries) => {
            let mut map = Map::new();
            for entry in entries {
                map.insert(entry.key.text.clone(), to_json(&entry.value)?);
            }
            Ok(Value::Object(map))
        }
    }
}

fn scalar_to_json(scalar: &Scalar, span: Span) -> Result<Value, JsonError> {
    let number = match scalar.resolve() {
        Resolved::Null => return Ok(Value::Null),
        Resolved::Bool(value) => return Ok(Value::Bool(value)),
        Resolved::String(text) => return Ok(Value::String(text.to_owned())),
        Resolved::Integer(value) => Number::from_i128(value),
        Resolved::Float(value) => Number::from_f64(value),
    };
    number.map(Value::Number).ok_or_else(|| JsonError { text: scalar.text.clone(), span })
}
