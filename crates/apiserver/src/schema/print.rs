//! A schema as a document again.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Number, Value, json};

use super::{Additional, Checks, List, Node, Type};

/// Which OpenAPI a document is for. Version 2 cannot say some things, and clients of it fail where it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "only whole numbers that fit")]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return json!(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Writes schemas for a document.
pub(crate) struct Printer {
    dialect: Dialect,
    /// The definitions that were referred to.
    names: BTreeSet<Arc<str>>,
}

impl Printer {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, names: BTreeSet::new() }
    }

    /// The definitions referred to since the last call.
    pub fn take_names(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.names)
    }

    /// A node in its place: a reference where it has a name.
    pub fn node(&mut self, node: &Node) -> Value {
        let Some(name) = &node.name else { return self.body(node) };
        self.names.insert(name.clone());
        let mut out = Map::new();
        // The definition's own description stands with the definition.
        let own = super::definition(name).and_then(|definition| definition.texts.clone());
        let texts = node.texts.as_ref().filter(|texts| own.is_none_or(|own| !Arc::ptr_eq(texts, &own)));
        if let Some(description) = texts.and_then(|texts| texts.description.as_ref()) {
            out.insert("description".to_owned(), json!(description));
        } else if **name == *super::builtin::META
            && let Some(description) = super::own_text("metadata")
        {
            out.insert("description".to_owned(), json!(description));
        }
        if let Some(default) = &node.default {
            out.insert("default".to_owned(), default.clone());
        }
        patch_hints(node, &mut out);
        match self.dialect {
            Dialect::V2 => {
                out.insert("$ref".to_owned(), json!(format!("#/definitions/{name}")));
            }
            Dialect::V3 => {
                let reference = json!({"$ref": format!("#/components/schemas/{name}")});
                if out.is_empty() {
                    return reference;
                }
                out.insert("allOf".to_owned(), json!([reference]));
            }
        }
        Value::Object(out)
    }

    /// A node written out.
    pub fn body(&mut self, node: &Node) -> Value {
        let dialect = self.dialect;
        let mut out = Map::new();

        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        if let Some(texts) = &node.texts {
            if let Some(description) = &texts.description {
                put("description", json!(description));
            }
            for (name, value) in &texts.others {
                put(name, value.clone());
            }
        }
        // A list that may be null has no type in version 2: a client that checks types would refuse the null.
        let hide_type = dialect == Dialect::V2 && (node.nullable || node.preserve_unknown);
        if node.quantity && dialect == Dialect::V3 {
            put("oneOf", json!([{"type": "string"}, {"type": "number"}]));
        } else if let Some(type_) = node.type_.filter(|_| !hide_type) {
            put("type", json!(type_.name()));
        }
        if node.nullable && dialect == Dialect::V3 {
            put("nullable", json!(true));
        }
        if node.int_or_string {
            put("x-kubernetes-int-or-string", json!(true));
            if dialect == Dialect::V3 && node.checks.as_ref().is_none_or(|checks| checks.any_of.is_empty()) {
                put("anyOf", json!([{"type": "integer"}, {"type": "string"}]));
            }
        }
        if node.preserve_unknown {
            put("x-kubernetes-preserve-unknown-fields", json!(true));
        }
        if node.embedded {
            put("x-kubernetes-embedded-resource", json!(true));
        }
        if node.atomic_map {
            put("x-kubernetes-map-type", json!("atomic"));
        }
        match &node.list {
            List::Atomic if node.list_said => {
                put("x-kubernetes-list-type", json!("atomic"));
            }
            List::Atomic => {}
            List::Set => {
                put("x-kubernetes-list-type", json!("set"));
            }
            List::Map(keys) => {
                put("x-kubernetes-list-type", json!("map"));
                put("x-kubernetes-list-map-keys", json!(keys));
            }
        }
        if let Some(default) =
            node.default.as_ref().filter(|_| dialect == Dialect::V3 || node.type_ != Some(Type::Object))
        {
            put("default", default.clone());
        }
        patch_hints(node, &mut out);
        // What is below a field that keeps everything cannot be said in version 2.
        if dialect == Dialect::V3 || !node.preserve_unknown {
            self.inner(node, &mut out);
        }
        if let Some(checks) = node.checks.as_ref().filter(|_| !node.quantity) {
            self.restrictions(checks, &mut out);
        }
        Value::Object(out)
    }

    fn inner(&mut self, this: &Node, out: &mut Map<String, Value>) {
        if !this.properties.is_empty() {
            let fields = this.properties.iter().map(|(name, field)| (name.to_string(), self.node(field)));
            out.insert("properties".to_owned(), Value::Object(fields.collect()));
        }
        match &this.additional {
            Additional::None => {}
            Additional::Any => {
                out.insert("additionalProperties".to_owned(), json!(true));
            }
            Additional::Of(value) => {
                out.insert("additionalProperties".to_owned(), self.node(value));
            }
        }
        if let Some(items) = &this.items {
            out.insert("items".to_owned(), self.node(items));
        }
    }

    fn restrictions(&mut self, checks: &Checks, out: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(name.to_owned(), value);
            }
        };
        let flag = |on: bool| on.then_some(json!(true));
        put("format", checks.format.as_ref().map(|format| json!(format)));
        put("pattern", checks.pattern.as_ref().map(|pattern| json!(pattern.text)));
        put("minimum", checks.minimum.map(number));
        put("maximum", checks.maximum.map(number));
        put("exclusiveMinimum", flag(checks.exclusive_minimum));
        put("exclusiveMaximum", flag(checks.exclusive_maximum));
        put("multipleOf", checks.multiple_of.map(number));
        put("minLength", checks.min_length.map(Into::into));
        put("maxLength", checks.max_length.map(Into::into));
        put("minItems", checks.min_items.map(Into::into));
        put("maxItems", checks.max_items.map(Into::into));
        put("uniqueItems", flag(checks.unique_items));
        put("minProperties", checks.min_properties.map(Into::into));
        put("maxProperties", checks.max_properties.map(Into::into));
        put("enum", checks.one_of_values.as_ref().map(|values| json!(values)));
        put("required", (!checks.required.is_empty()).then(|| json!(checks.required)));
        if self.dialect == Dialect::V2 {
            return;
        }
        for (name, list) in [("allOf", &checks.all_of), ("anyOf", &checks.any_of), ("oneOf", &checks.one_of)] {
            let list: Vec<_> = list.iter().map(|inner| self.node(inner)).collect();
            put(name, (!list.is_empty()).then(|| json!(list)));
        }
        put("not", checks.not.as_ref().map(|inner| self.node(inner)));
    }
}

fn patch_hints(node: &Node, out: &mut Map<String, Value>) {
    let Some(patch) = &node.patch else { return };
    let parts = [(patch.merge, "merge"), (patch.replace, "replace"), (patch.retain_keys, "retainKeys")];
    let strategy: Vec<_> = parts.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if !strategy.is_empty() {
        out.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategy.join(",")));
    }
    if let Some(key) = &patch.key {
        out.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Dialect, Printer};
    use crate::schema::Schema;

    #[test]
    fn a_schema_is_published_as_it_was_written() {
        let schema = json!({"type": "object", "description": "d", "required": ["a"], "properties": {
            "a": {"type": "integer", "minimum": 1, "maximum": 2.5, "format": "int32", "default": 1},
            "b": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "maxItems": 3},
            "c": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "d": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^x", "enum": ["x", "xy"]}},
            "e": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "nullable": true},
        }, "x-kubernetes-validations": [{"rule": "self.a > 0"}], "not": {"required": ["z"]}});
        assert_eq!(Printer::new(Dialect::V3).body(Schema::parse(&schema).unwrap().root()), schema);
    }
}
