//! What the expressions of mutating policies make: `Object{...}` and its parts, and `JSONPatch{...}`
//! (`k8s.io/apiserver/pkg/cel/mutation`).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map as JsonMap, Value as Json};

use super::{
    eval::Fault,
    functions::{Function, Result},
    time,
    types::Type,
    value::{Key, Value},
};

pub(super) const PATCH: &str = "JSONPatch";
pub(super) const OBJECT: &str = "Object";

/// An object that an expression made, of a type with a name.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub name: Arc<str>,
    pub fields: BTreeMap<Box<str>, Value<'a>>,
}

/// Whether there is such a type.
pub(super) fn is_known(name: &str) -> bool {
    name == PATCH || name == OBJECT || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'))
}

/// The type of a field; None if there is none of that name.
pub(super) fn field(of: &str, name: &str) -> Option<Type> {
    match (of, name) {
        (PATCH, "op" | "path" | "from") => Some(Type::String),
        (PATCH, "value") => Some(Type::Dyn),
        (PATCH, _) => None,
        _ => Some(Type::Dyn),
    }
}

impl Message<'_> {
    /// What does not agree: the type of each part is named after the fields that lead to it.
    pub fn misnamed(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        check(&Value::Message(Arc::new(self.clone())), &self.name, &mut wrong);
        wrong
    }
}

fn check(value: &Value<'_>, path: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Message(message) => {
            if *message.name != *path {
                wrong.push(format!(
                    "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                    message.name
                ));
            }
            for (name, field) in &message.fields {
                check(field, &format!("{path}.{name}"), wrong);
            }
        }
        Value::List(list) => list.iter().flatten().for_each(|item| check(&item, path, wrong)),
        Value::Map(map) => {
            let values = map.keys().into_iter().filter_map(|key| map.find(&key)).flatten();
            values.for_each(|value| check(&value, path, wrong));
        }
        _ => {}
    }
}

impl Value<'_> {
    /// As JSON; fails if something in it has no such form.
    pub fn to_json(&self) -> Result<Json> {
        Ok(match self {
            Self::Null | Self::Optional(None) => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => serde_json::Number::from_f64(*value).map(Json::Number).unwrap_or_default(),
            Self::String(text) => text.as_str().into(),
            Self::Bytes(bytes) => {
                use base64::{Engine, engine::general_purpose::STANDARD};
                STANDARD.encode(bytes).into()
            }
            Self::Timestamp(stamp) => time::timestamp_text(*stamp).into(),
            Self::Duration(nanos) => time::duration_text(*nanos).into(),
            Self::List(list) => list.iter().map(|item| item?.to_json()).collect::<Result<Vec<_>>>()?.into(),
            Self::Map(map) => {
                let mut out = JsonMap::new();
                for key in map.keys() {
                    let Key::String(name) = &key else {
                        return Err(Fault::failed("map key is not a string"));
                    };
                    let value = map.find(&key).unwrap_or(Ok(Value::Null))?;
                    out.insert(name.as_str().to_owned(), value.to_json()?);
                }
                out.into()
            }
            Self::Message(message) => {
                let mut out = JsonMap::new();
                for (name, value) in &message.fields {
                    // An optional field that is not there is left out.
                    if !matches!(value, Self::Optional(None)) {
                        out.insert(name.to_string(), value.to_json()?);
                    }
                }
                out.into()
            }
            Self::Optional(Some(inner)) => inner.to_json()?,
            Self::Type(_) | Self::Opaque(_) => {
                return Err(Fault::failed(format!("a value of type {} has no form in JSON", self.type_())));
            }
        })
    }
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "jsonpatch.escapeKey" => |meter, args| match args {
            [Value::String(text)] => {
                meter.make(text.as_str().len() * 2)?;
                Ok(Value::text(text.as_str().replace('~', "~0").replace('/', "~1")))
            }
            _ => Err(Fault::overload()),
        },
        _ => return None,
    })
}
