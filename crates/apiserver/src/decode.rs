//! Whether a body fits the Go type that Kubernetes reads it into: where it does not, the request is refused before it means
//! anything, in the words of Go's decoder, which clients and people know (`encoding/json`).

use serde_json::Value;

use crate::{
    kinds::Kind,
    schema::{Additional, Node, Type},
};

/// The first thing that does not fit a built-in kind.
pub(crate) fn misfit(node: &Node, object: &Value) -> Option<String> {
    fields(node, object, &last(node.name.as_deref().unwrap_or_default()), "")
}

/// The same for the metadata of a custom object, which is all of it that has a Go type.
pub(crate) fn metadata_misfit(object: &Value) -> Option<String> {
    let metadata = object.get("metadata").filter(|metadata| !metadata.is_null())?;
    let found = match metadata {
        Value::Object(_) => return fields(&crate::schema::object_meta(), metadata, "ObjectMeta", ""),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => return None,
    };
    Some(format!("json: cannot unmarshal {found} into Go value of type v1.ObjectMeta"))
}

fn last(name: &str) -> String {
    name.rsplit('.').next().unwrap_or_default().to_owned()
}

/// `v1.ObjectMeta`: the package is the version.
fn go_name(name: &str) -> String {
    let mut parts = name.rsplit('.');
    let (kind, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{package}.{kind}")
}

fn fields(node: &Node, object: &Value, holder: &str, path: &str) -> Option<String> {
    let members = object.as_object()?;
    let holder = node.name.as_deref().map_or_else(|| holder.to_owned(), last);
    members.iter().filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind")).find_map(|(name, value)| {
        match node.property(name) {
            Some(inner) => {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                misfit_at(inner, value, &holder, &path)
            }
            // The key of a map is no part of the path.
            None => match &node.additional {
                Additional::Of(inner) => misfit_at(inner, value, &holder, path),
                Additional::None | Additional::Any => None,
            },
        }
    })
}

fn misfit_at(node: &Node, value: &Value, holder: &str, path: &str) -> Option<String> {
    let wrong = |found: &str| {
        Some(format!("json: cannot unmarshal {found} into Go struct field {holder}.{path} of type {}", go_type(node)))
    };
    if value.is_null() || node.int_or_string || node.quantity || node.preserve_unknown {
        return None;
    }
    let format = node.checks.as_ref().and_then(|checks| checks.format.as_deref()).unwrap_or_default();
    match (node.type_?, value) {
        (Type::Object, Value::Object(_)) => fields(node, value, holder, path),
        (Type::Array, Value::Array(list)) => {
            let items = node.items.as_deref()?;
            list.iter().find_map(|item| misfit_at(items, item, holder, path))
        }
        (Type::String, Value::String(text)) => match format {
            "byte" => base64_misfit(text),
            "date-time" => time_misfit(text),
            _ => None,
        },
        (Type::Boolean, Value::Bool(_)) | (Type::Number, Value::Number(_)) => None,
        (Type::Integer, Value::Number(number)) => {
            let fits = match number.as_i64() {
                Some(value) => format != "int32" || i32::try_from(value).is_ok(),
                None => number.as_f64().is_some_and(|value| value.fract() == 0.0 && value.abs() < 9e15),
            };
            if fits { None } else { wrong(&format!("number {number}")) }
        }
        (_, Value::Object(_)) => wrong("object"),
        (_, Value::Array(_)) => wrong("array"),
        (_, Value::String(_)) => wrong("string"),
        (_, Value::Bool(_)) => wrong("bool"),
        (_, Value::Number(_)) => wrong("number"),
        (_, Value::Null) => None,
    }
}

fn go_type(node: &Node) -> String {
    let format = node.checks.as_ref().and_then(|checks| checks.format.as_deref()).unwrap_or_default();
    match node.type_ {
        Some(Type::String) if format == "byte" => "[]uint8".to_owned(),
        Some(Type::String) => "string".to_owned(),
        Some(Type::Boolean) => "bool".to_owned(),
        Some(Type::Number) => "float64".to_owned(),
        Some(Type::Integer) if format == "int32" => "int32".to_owned(),
        Some(Type::Integer) => "int64".to_owned(),
        Some(Type::Array) => format!("[]{}", node.items.as_deref().map(go_type).unwrap_or_default()),
        Some(Type::Object) | None => match (&node.name, &node.additional) {
            (Some(name), _) => go_name(name),
            (None, Additional::Of(inner)) => format!("map[string]{}", go_type(inner)),
            (None, _) => "map[string]interface {}".to_owned(),
        },
    }
}

fn base64_misfit(text: &str) -> Option<String> {
    use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
    let stripped: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    let at = match STANDARD.decode(&stripped).err()? {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => stripped.len() / 4 * 4,
    };
    Some(format!("illegal base64 data at input byte {at}"))
}

fn time_misfit(text: &str) -> Option<String> {
    if text.is_empty() || text.parse::<jiff::Timestamp>().is_ok() {
        return None;
    }
    Some(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""))
}

/// What is left of an object once it went through Go's types: empty maps and lists are not there, unless they must be.
pub(crate) fn drop_empty(kind: &Kind, object: &mut Value) {
    fn is_idle(node: &Node, value: &Value) -> bool {
        match value {
            Value::Object(fields) => {
                fields.is_empty() && node.properties.is_empty() && matches!(node.additional, Additional::Of(_))
            }
            Value::Array(list) => list.is_empty() && node.type_ == Some(Type::Array),
            _ => false,
        }
    }
    fn walk(node: &Node, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let required = node.checks.as_ref().map(|checks| &checks.required[..]).unwrap_or_default();
                fields.retain(|name, value| {
                    let Some(inner) = node.property(name).filter(|_| name != "managedFields") else { return true };
                    walk(inner, value);
                    // Upstream writes the rules of roles out even if there are none.
                    !is_idle(inner, value) || name == "rules" || required.iter().any(|required| **required == **name)
                });
                if let Additional::Of(inner) = &node.additional {
                    fields.values_mut().for_each(|value| walk(inner, value));
                }
            }
            Value::Array(list) => {
                if let Some(items) = &node.items {
                    list.iter_mut().for_each(|item| walk(items, item));
                }
            }
            _ => {}
        }
    }
    if let Some(schema) = kind.schema().filter(|_| !kind.is_custom()) {
        walk(schema.root(), object);
    }
}

/// Puts in what Go's decoder makes of null where there are only texts: the empty one.
pub(crate) fn fill(kind: &Kind, object: &mut Value) {
    fn walk(node: &Node, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    match node.property(name) {
                        Some(inner) => walk(inner, value),
                        None => match &node.additional {
                            Additional::Of(inner) if value.is_null() && inner.type_ == Some(Type::String) => {
                                *value = "".into();
                            }
                            Additional::Of(inner) => walk(inner, value),
                            Additional::None | Additional::Any => {}
                        },
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &node.items {
                    list.iter_mut().for_each(|item| walk(items, item));
                }
            }
            _ => {}
        }
    }
    if kind.is_custom() {
        return;
    }
    if let Some(schema) = kind.schema() {
        walk(schema.root(), object);
    }
}

/// Why bytes are no JSON, as Go says it.
pub(crate) fn json_fault(bytes: &[u8]) -> String {
    let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes) else { return "invalid JSON".to_owned() };
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let line_start: usize =
        bytes.split(|byte| *byte == b'\n').take(error.line().saturating_sub(1)).map(|line| line.len() + 1).sum();
    let at = line_start + error.column().saturating_sub(1);
    let context = match bytes.first() {
        _ if error.to_string().starts_with("trailing characters") => "after top-level value",
        _ if error.to_string().starts_with("key must be a string") => "looking for beginning of object key string",
        _ => "looking for beginning of value",
    };
    let text = String::from_utf8_lossy(bytes.get(at..).unwrap_or_default()).into_owned();
    let found = text.trim_start().chars().next().unwrap_or_default();
    format!("invalid character {found:?} {context}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_named_as_go_names_it() {
        let schema = crate::schema::builtin("", "v1", "ConfigMap").unwrap();
        let said = |object: Value| misfit(schema.root(), &object).unwrap_or_default();
        let field = "json: cannot unmarshal number into Go struct field";
        assert_eq!(
            said(json!({"metadata": {"labels": {"a": 1}}})),
            format!("{field} ObjectMeta.metadata.labels of type string")
        );
        assert_eq!(said(json!({"data": {"a": 1}})), format!("{field} ConfigMap.data of type string"));
        assert_eq!(said(json!({"data": 1})), format!("{field} ConfigMap.data of type map[string]string"));
        assert_eq!(said(json!({"metadata": 1})), format!("{field} ConfigMap.metadata of type v1.ObjectMeta"));
        assert_eq!(said(json!({"metadata": {"name": "a"}, "data": {"a": null}, "immutable": true})), "");
    }

    #[test]
    fn faults_of_json_are_told_as_go_tells_them() {
        assert_eq!(json_fault(b"{"), "unexpected end of JSON input");
        assert_eq!(json_fault(b"hello"), "invalid character 'h' looking for beginning of value");
        assert_eq!(json_fault(b"{} x"), "invalid character 'x' after top-level value");
    }
}
