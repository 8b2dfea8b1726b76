//! From a document to nodes, with the rules that make a schema structural (upstream: apiextensions-apiserver,
//! `pkg/apiserver/schema/validation.go`, `pkg/apis/apiextensions/validation`).

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Additional, Checks, DEPTH_LIMIT, List, Node, Pattern, Texts, Type, complete, format, pattern, rules, validate,
};
use crate::field::FieldError;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Parses a whole schema, or says everything that is wrong with it.
pub(super) fn root(value: &Value) -> Result<Node, Vec<FieldError>> {
    let mut parser = Parser { errors: Vec::new(), depth: 0 };
    let node = parser.node(value, "", Level::Root);
    if node.type_.is_some_and(|type_| type_ != Type::Object) {
        parser.errors.push(FieldError::invalid(
            "type",
            node.type_.map_or("", Type::name),
            "must be object at the root",
        ));
    }
    if node.nullable {
        parser.errors.push(FieldError::forbidden("nullable", "nullable cannot be true at the root"));
    }
    complete::check(&node, "", &mut parser.errors);
    if parser.errors.is_empty() {
        return Ok(node);
    }
    parser.errors.sort_by_cached_key(ToString::to_string);
    Err(parser.errors)
}

pub(super) fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

pub(super) fn key(path: &str, name: &str) -> String {
    format!("{path}[{name}]")
}

/// The schemas within one that was not parsed.
pub(crate) fn each_below(map: &Map<String, Value>, mut see: impl FnMut(&Value)) {
    for name in ["items", "additionalProperties", "not"] {
        map.get(name).into_iter().for_each(&mut see);
    }
    map.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values).for_each(&mut see);
    for name in ["allOf", "anyOf", "oneOf"] {
        map.get(name).and_then(Value::as_array).into_iter().flatten().for_each(&mut see);
    }
}

struct Parser {
    errors: Vec<FieldError>,
    depth: usize,
}

const REFUSED: [&str; 7] =
    ["id", "$ref", "$schema", "additionalItems", "patternProperties", "definitions", "dependencies"];
const CARRIED: [&str; 4] = ["title", "example", "externalDocs", "x-kubernetes-validations"];

impl Parser {
    fn object<'a>(&mut self, value: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
        if let Value::Object(map) = value {
            return Some(map);
        }
        self.errors.push(FieldError::type_invalid(path, value.clone(), "must be an object"));
        None
    }

    fn text<'a>(&mut self, map: &'a Map<String, Value>, name: &str, path: &str) -> Option<&'a str> {
        match map.get(name)? {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => {
                self.errors.push(FieldError::type_invalid(child(path, name), other.clone(), "must be a string"));
                None
            }
        }
    }

    fn flag(&mut self, map: &Map<String, Value>, name: &str, path: &str) -> bool {
        match map.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.errors.push(FieldError::type_invalid(child(path, name), other.clone(), "must be a boolean"));
                false
            }
        }
    }

    fn number(&mut self, map: &Map<String, Value>, name: &str, path: &str) -> Option<f64> {
        let value = map.get(name).filter(|value| !value.is_null())?;
        if value.as_f64().is_none() {
            self.errors.push(FieldError::type_invalid(child(path, name), value.clone(), "must be a number"));
        }
        value.as_f64()
    }

    fn count(&mut self, map: &Map<String, Value>, name: &str, path: &str) -> Option<u64> {
        let value = map.get(name).filter(|value| !value.is_null())?;
        // One below nothing is no restriction.
        let nothing = name.starts_with("min") && value.as_i64().is_some_and(|count| count < 0);
        if value.as_u64().is_none() && !nothing {
            self.errors.push(FieldError::type_invalid(child(path, name), value.clone(), "must be a whole number"));
        }
        value.as_u64()
    }

    fn list<'a>(&mut self, map: &'a Map<String, Value>, name: &str, path: &str) -> &'a [Value] {
        match map.get(name) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.errors.push(FieldError::type_invalid(child(path, name), other.clone(), "must be a list"));
                &[]
            }
        }
    }

    fn texts(&mut self, map: &Map<String, Value>, name: &str, path: &str) -> Box<[Box<str>]> {
        let list = self.list(map, name, path);
        if list.iter().any(|item| !item.is_string()) {
            self.errors.push(FieldError::type_invalid(child(path, name), list.to_vec(), "must be a list of strings"));
        }
        list.iter().filter_map(Value::as_str).map(Into::into).collect()
    }

    fn type_(&mut self, map: &Map<String, Value>, path: &str) -> Option<Type> {
        let name = self.text(map, "type", path)?;
        let found = Type::ALL.into_iter().find(|type_| type_.name() == name);
        if name == "null" {
            let detail = "type cannot be set to null, use nullable as an alternative";
            self.errors.push(FieldError::forbidden(child(path, "type"), detail));
        } else if found.is_none() && !name.is_empty() {
            let names = Type::ALL.map(Type::name);
            self.errors.push(FieldError::not_supported(child(path, "type"), name, &names));
        }
        found
    }

    fn node(&mut self, value: &Value, path: &str, level: Level) -> Node {
        let Some(map) = self.object(value, path) else { return Node::default() };
        if self.depth >= DEPTH_LIMIT {
            let detail = format!("schemas may not be nested deeper than {DEPTH_LIMIT} levels");
            self.errors.push(FieldError::forbidden(path, detail));
            return Node::default();
        }
        self.depth += 1;
        for name in REFUSED {
            if map.get(name).is_some_and(|value| !value.is_null()) {
                self.errors.push(FieldError::forbidden(child(path, name), format!("{name} is not supported")));
            }
        }
        let mut node = Node {
            type_: self.type_(map, path),
            nullable: self.flag(map, "nullable", path),
            preserve_unknown: self.flag(map, "x-kubernetes-preserve-unknown-fields", path),
            int_or_string: self.flag(map, "x-kubernetes-int-or-string", path),
            embedded: self.flag(map, "x-kubernetes-embedded-resource", path),
            properties: self.properties(map, path),
            default: map.get("default").filter(|value| !value.is_null()).cloned(),
            texts: self.carried(map, path),
            ..Node::default()
        };
        self.inner(map, path, &mut node);
        self.lists_and_maps(map, path, &mut node);
        node.checks = self.checks(map, path, node.int_or_string, node.type_);
        self.invariants(map, path, level, &node);
        node.rules = rules::read(map, path, &node, &mut self.errors);
        if let Some(default) = &node.default {
            self.errors.extend(validate::below(&child(path, "default"), validate::at(&node, default, "")));
        }
        self.depth -= 1;
        node
    }

    fn properties(&mut self, map: &Map<String, Value>, path: &str) -> Arc<[(Box<str>, Arc<Node>)]> {
        let Some(value) = map.get("properties").filter(|value| !value.is_null()) else { return Arc::default() };
        let path = child(path, "properties");
        let Some(fields) = self.object(value, &path) else { return Arc::default() };
        let mut properties: Vec<(Box<str>, _)> = fields
            .iter()
            .map(|(name, value)| (name.as_str().into(), Arc::new(self.node(value, &key(&path, name), Level::Field))))
            .collect();
        properties.sort_by(|(a, _), (b, _)| a.cmp(b));
        properties.into()
    }

    fn carried(&mut self, map: &Map<String, Value>, path: &str) -> Option<Arc<Texts>> {
        let description = self.text(map, "description", path).map(Into::into);
        let others: Vec<_> = CARRIED
            .into_iter()
            .filter_map(|name| Some((name.into(), map.get(name).filter(|value| !value.is_null())?.clone())))
            .collect();
        (description.is_some() || !others.is_empty()).then(|| Arc::new(Texts { description, others }))
    }

    /// `items` and `additionalProperties`.
    fn inner(&mut self, map: &Map<String, Value>, path: &str, node: &mut Node) {
        match map.get("items") {
            None | Some(Value::Null) if node.type_ == Some(Type::Array) => {
                self.errors.push(FieldError::required(child(path, "items"), "must be specified"));
            }
            None | Some(Value::Null) => {}
            Some(Value::Array(_)) => {
                let detail = "items must be a schema object and not an array";
                self.errors.push(FieldError::forbidden(child(path, "items"), detail));
            }
            Some(items) => node.items = Some(Arc::new(self.node(items, &child(path, "items"), Level::Item))),
        }
        let name = "additionalProperties";
        node.additional = match map.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => Additional::None,
            Some(Value::Bool(true)) => Additional::Any,
            Some(value) => Additional::Of(Arc::new(self.node(value, &child(path, name), Level::Field))),
        };
        if !matches!(node.additional, Additional::None) && !node.properties.is_empty() {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.errors.push(FieldError::forbidden(child(path, name), detail));
        }
    }

    fn lists_and_maps(&mut self, map: &Map<String, Value>, path: &str, node: &mut Node) {
        if let Some(map_type) = self.text(map, "x-kubernetes-map-type", path) {
            node.atomic_map = map_type == "atomic";
            if map_type != "atomic" && map_type != "granular" {
                let path = child(path, "x-kubernetes-map-type");
                self.errors.push(FieldError::not_supported(path, map_type, &["atomic", "granular"]));
            }
            self.must_be(node, Type::Object, path, "must be object if x-kubernetes-map-type is specified");
        }
        let keys = self.texts(map, "x-kubernetes-list-map-keys", path);
        let list_type = self.text(map, "x-kubernetes-list-type", path);
        if list_type.is_some() {
            node.list_said = true;
            self.must_be(node, Type::Array, path, "must be array if x-kubernetes-list-type is specified");
        }
        let type_path = child(path, "x-kubernetes-list-type");
        if !keys.is_empty() && list_type != Some("map") {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.errors.push(match list_type {
                None => FieldError::required(type_path, detail),
                Some(list_type) => FieldError::invalid(type_path, list_type, detail),
            });
            return;
        }
        match list_type {
            None | Some("atomic") => {}
            Some("set") => {
                node.list = List::Set;
                self.set_items(node, path);
            }
            Some("map") => {
                self.map_items(node, &keys, path);
                node.list = List::Map(keys);
            }
            Some(other) => {
                self.errors.push(FieldError::not_supported(type_path, other, &["atomic", "set", "map"]));
            }
        }
    }

    fn must_be(&mut self, node: &Node, type_: Type, path: &str, detail: &str) {
        let path = child(path, "type");
        match node.type_ {
            Some(found) if found == type_ => {}
            None => self.errors.push(FieldError::required(path, detail)),
            Some(found) => self.errors.push(FieldError::invalid(path, found.name(), detail)),
        }
    }

    /// The items of a set are compared whole, so they may not be merged.
    fn set_items(&mut self, node: &Node, path: &str) {
        let Some(items) = &node.items else { return };
        let path = child(path, "items");
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        if items.type_ == Some(Type::Array) && items.list != List::Atomic {
            self.errors.push(FieldError::invalid(child(&path, "x-kubernetes-list-type"), Value::Null, detail));
        }
        if items.type_ == Some(Type::Object) && !items.atomic_map {
            self.errors.push(FieldError::invalid(child(&path, "x-kubernetes-map-type"), Value::Null, detail));
        }
        if items.nullable {
            let detail = "cannot be nullable when x-kubernetes-list-type is set";
            self.errors.push(FieldError::forbidden(child(&path, "nullable"), detail));
        }
    }

    fn map_items(&mut self, node: &Node, keys: &[Box<str>], path: &str) {
        let keys_path = child(path, "x-kubernetes-list-map-keys");
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(&keys_path, detail));
        }
        if keys.iter().collect::<BTreeSet<_>>().len() < keys.len() {
            let names: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
            self.errors.push(FieldError::invalid(&keys_path, names, "must not contain duplicate entries"));
        }
        let items_path = child(path, "items");
        let Some(items) = &node.items else {
            let detail = "must have a schema if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(items_path, detail));
            return;
        };
        if items.type_ != Some(Type::Object) {
            let found = items.type_.map_or("", Type::name);
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.errors.push(FieldError::invalid(child(&items_path, "type"), found, detail));
        }
        if items.nullable {
            let detail = "cannot be nullable when x-kubernetes-list-type is map";
            self.errors.push(FieldError::forbidden(child(&items_path, "nullable"), detail));
        }
        let required = items.checks.as_ref().map_or(&[][..], |checks| &checks.required);
        for name in keys {
            let Some(field) = items.property(name) else {
                let names: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
                let detail = "entries must all be names of item properties";
                self.errors.push(FieldError::invalid(&keys_path, names, detail));
                continue;
            };
            let field_path = key(&child(&items_path, "properties"), name);
            if matches!(field.type_, Some(Type::Array | Type::Object)) {
                let found = field.type_.map_or("", Type::name);
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.errors.push(FieldError::invalid(child(&field_path, "type"), found, detail));
            }
            if field.default.is_none() && !required.contains(name) {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                              required property";
                self.errors.push(FieldError::required(child(&field_path, "default"), detail));
            }
            if field.nullable {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.errors.push(FieldError::forbidden(child(&field_path, "nullable"), detail));
            }
        }
    }

    fn checks(
        &mut self,
        map: &Map<String, Value>,
        path: &str,
        int_or_string: bool,
        type_: Option<Type>,
    ) -> Option<Arc<Checks>> {
        let pattern = self.text(map, "pattern", path).filter(|text| !text.is_empty());
        if let Some(text) = pattern
            && let Err(error) = Pattern::compile(text)
        {
            let error = pattern::go_error(text, &error);
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            self.errors.push(FieldError::invalid(child(path, "pattern"), text, detail));
        }
        let format = self.text(map, "format", path).filter(|name| format::is_known(type_, name));
        let values = self.list(map, "enum", path);
        let checks = Checks {
            format: format.map(Into::into),
            pattern: pattern.map(Pattern::new),
            minimum: self.number(map, "minimum", path),
            maximum: self.number(map, "maximum", path),
            exclusive_minimum: self.flag(map, "exclusiveMinimum", path),
            exclusive_maximum: self.flag(map, "exclusiveMaximum", path),
            multiple_of: self.number(map, "multipleOf", path),
            min_length: self.count(map, "minLength", path),
            max_length: self.count(map, "maxLength", path),
            min_items: self.count(map, "minItems", path),
            max_items: self.count(map, "maxItems", path),
            unique_items: self.flag(map, "uniqueItems", path),
            min_properties: self.count(map, "minProperties", path),
            max_properties: self.count(map, "maxProperties", path),
            one_of_values: (!values.is_empty()).then(|| values.into()),
            required: self.texts(map, "required", path),
            all_of: self.branches(map, "allOf", path, int_or_string),
            any_of: self.branches(map, "anyOf", path, int_or_string),
            one_of: self.branches(map, "oneOf", path, false),
            not: map
                .get("not")
                .filter(|value| !value.is_null())
                .map(|value| Box::new(self.nested(value, &child(path, "not"), false))),
        };
        if checks.unique_items {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.push(FieldError::forbidden(child(path, "uniqueItems"), detail));
        }
        (!checks.is_empty()).then(|| Arc::new(checks))
    }

    fn branches(&mut self, map: &Map<String, Value>, name: &str, path: &str, typed: bool) -> Box<[Node]> {
        let list = self.list(map, name, path);
        let path = child(path, name);
        // The one place where a type may be repeated: an int-or-string says so with `anyOf`, first in an `allOf` or not.
        let types: Vec<_> = list.iter().map(|value| value.get("type").and_then(Value::as_str)).collect();
        let typed_any_of = typed && name == "anyOf" && types == [Some("integer"), Some("string")];
        list.iter()
            .enumerate()
            .map(|(index, value)| {
                let inherits = typed && name == "allOf" && index == 0;
                self.nested_with(value, &format!("{path}[{index}]"), typed_any_of, inherits)
            })
            .collect()
    }

    fn nested(&mut self, value: &Value, path: &str, int_or_string: bool) -> Node {
        self.nested_with(value, path, false, int_or_string)
    }

    /// A schema under allOf, anyOf, oneOf or not: it restricts values, and defines no fields.
    fn nested_with(&mut self, value: &Value, path: &str, may_have_type: bool, int_or_string: bool) -> Node {
        let Some(map) = self.object(value, path) else { return Node::default() };
        if self.depth >= DEPTH_LIMIT {
            let detail = format!("schemas may not be nested deeper than {DEPTH_LIMIT} levels");
            self.errors.push(FieldError::forbidden(path, detail));
            return Node::default();
        }
        self.depth += 1;
        let forbidden = [
            ("type", "must be empty to be structural"),
            ("additionalProperties", "must be undefined to be structural"),
            ("default", "must be undefined to be structural"),
            ("title", "must be empty to be structural"),
            ("description", "must be empty to be structural"),
            ("nullable", "must be false to be structural"),
            ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
            ("x-kubernetes-embedded-resource", "must be false to be structural"),
            ("x-kubernetes-int-or-string", "must be false to be structural"),
            ("x-kubernetes-list-map-keys", "must be empty to be structural"),
            ("x-kubernetes-list-type", "must be undefined to be structural"),
            ("x-kubernetes-map-type", "must be undefined to be structural"),
            ("x-kubernetes-validations", "must be empty to be structural"),
        ];
        for (name, detail) in forbidden {
            let said = map.get(name).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
            if said && !(name == "type" && may_have_type) {
                self.errors.push(FieldError::forbidden(child(path, name), detail));
            }
        }
        let type_ = if may_have_type { self.type_(map, path) } else { None };
        let mut node = Node { type_, ..Node::default() };
        let properties_path = child(path, "properties");
        if let Some(fields) = map.get("properties").and_then(Value::as_object) {
            if fields.contains_key("metadata") {
                let detail = "must not be specified in a nested context";
                self.errors.push(FieldError::forbidden(key(&properties_path, "metadata"), detail));
            }
            let mut properties: Vec<(Box<str>, _)> = fields
                .iter()
                .map(|(name, value)| {
                    let path = key(&properties_path, name);
                    (name.as_str().into(), Arc::new(self.nested(value, &path, false)))
                })
                .collect();
            properties.sort_by(|(a, _), (b, _)| a.cmp(b));
            node.properties = properties.into();
        }
        if let Some(items) = map.get("items").filter(|value| !value.is_null()) {
            node.items = Some(Arc::new(self.nested(items, &child(path, "items"), false)));
        }
        node.checks = self.checks(map, path, int_or_string, type_);
        self.depth -= 1;
        node
    }

    fn invariants(&mut self, map: &Map<String, Value>, path: &str, level: Level, node: &Node) {
        let type_path = child(path, "type");
        if node.embedded && node.type_ != Some(Type::Object) {
            self.must_be(node, Type::Object, path, "must be object if x-kubernetes-embedded-resource is true");
        } else if node.type_.is_none()
            && !node.int_or_string
            && !node.preserve_unknown
            && !map.contains_key("type")
            && !map.contains_key("$ref")
        {
            let detail = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            };
            self.errors.push(FieldError::required(type_path, detail));
        }
        let additional = !matches!(node.additional, Additional::None);
        if additional && level == Level::Root {
            let path = child(path, "additionalProperties");
            self.errors.push(FieldError::forbidden(path, "must not be used at the root"));
        }
        if additional && node.embedded {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            self.errors.push(FieldError::forbidden(child(path, "additionalProperties"), detail));
        }
        if node.int_or_string {
            for (said, name) in [
                (node.preserve_unknown, "x-kubernetes-preserve-unknown-fields"),
                (node.embedded, "x-kubernetes-embedded-resource"),
            ] {
                if said {
                    let detail = "must be false if x-kubernetes-int-or-string is true";
                    self.errors.push(FieldError::invalid(child(path, name), true, detail));
                }
            }
        }
        if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let path = child(path, "x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(path, false, "must be true or undefined"));
        }
        if node.embedded && !node.preserve_unknown && node.properties.is_empty() {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                          x-kubernetes-preserve-unknown-fields";
            self.errors.push(FieldError::required(child(path, "properties"), detail));
        }
        if level == Level::Root || node.embedded {
            self.meta_fields(path, level, node);
        }
    }

    fn meta_fields(&mut self, path: &str, level: Level, node: &Node) {
        let path = child(path, "properties");
        for (name, type_, detail) in [
            ("apiVersion", Type::String, "must be string"),
            ("kind", Type::String, "must be string"),
            ("metadata", Type::Object, "must be object"),
        ] {
            if let Some(field) = node.property(name)
                && field.type_ != Some(type_)
            {
                let found = field.type_.map_or("", Type::name);
                self.errors.push(FieldError::invalid(child(&key(&path, name), "type"), found, detail));
            }
        }
        let Some(metadata) = node.property("metadata").filter(|_| level == Level::Root) else { return };
        let restricts_more = metadata.properties.iter().any(|(name, _)| !matches!(&**name, "name" | "generateName"));
        if restricts_more || metadata.preserve_unknown || !matches!(metadata.additional, Additional::None) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                          specified";
            self.errors.push(FieldError::forbidden(key(&path, "metadata"), detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::schema::Schema;

    fn errors(schema: &Value) -> Vec<String> {
        Schema::parse(schema).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    fn with(field: Value) -> Value {
        json!({"type": "object", "properties": {"f": field}})
    }

    #[test]
    fn what_is_not_structural_is_refused_with_its_path() {
        let cases = [
            (json!({}), "type: Required value: must not be empty at the root"),
            (json!({"type": "string"}), "type: Invalid value: \"string\": must be object at the root"),
            (with(json!({})), "properties[f].type: Required value: must not be empty for specified object fields"),
            (with(json!({"type": "array"})), "properties[f].items: Required value: must be specified"),
            (
                with(json!({"type": "array", "items": {}})),
                "properties[f].items.type: Required value: must not be empty for specified array items",
            ),
            (
                with(json!({"type": "thing"})),
                "properties[f].type: Unsupported value: \"thing\": supported values: \"array\", \"boolean\", \
                 \"integer\", \"number\", \"object\", \"string\"",
            ),
            (
                with(json!({"type": "string", "anyOf": [{"type": "string"}]})),
                "properties[f].anyOf[0].type: Forbidden: must be empty to be structural",
            ),
            (
                with(json!({"type": "object", "oneOf": [{"properties": {"x": {"minimum": 1}}}]})),
                "properties[f].properties[x]: Required value: because it is defined in \
                 properties[f].oneOf[0].properties[x]",
            ),
            (with(json!({"$ref": "#/x", "type": "string"})), "properties[f].$ref: Forbidden: $ref is not supported"),
            (
                with(json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "properties": {"k": {"type": "string"}}}})),
                "properties[f].items.properties[k].default: Required value: this property is in \
                 x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ),
            (
                with(json!({"type": "integer", "default": "x"})),
                "properties[f].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(errors(&schema), [expected], "{schema}");
        }
    }

    #[test]
    fn int_or_string_may_name_its_types() {
        let pattern = json!([{"type": "integer"}, {"type": "string"}]);
        assert!(errors(&with(json!({"x-kubernetes-int-or-string": true, "anyOf": pattern}))).is_empty());
        let all_of = json!([{"anyOf": pattern}, {"pattern": "^x"}]);
        assert!(errors(&with(json!({"x-kubernetes-int-or-string": true, "allOf": all_of}))).is_empty());
    }

    #[test]
    fn patterns_are_limited_in_size_and_kind() {
        let pattern = |text: &str| errors(&with(json!({"type": "string", "pattern": text})));
        assert!(pattern("^[a-z]{1,63}$").is_empty());
        for bad in ["(", "(?=x)", "((a{100}){100}){1000}"] {
            let found = pattern(bad);
            let expected = "properties[f].pattern: Invalid value: ";
            assert!(found.len() == 1 && found[0].starts_with(expected), "{bad}: {found:?}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let mut schema = json!({"type": "string"});
        for _ in 0..super::DEPTH_LIMIT - 2 {
            schema = with(schema);
        }
        assert!(errors(&with(schema.clone())).is_empty());
        let refused = errors(&with(with(schema)));
        assert!(refused.iter().any(|text| text.contains("nested deeper than 64")), "{refused:?}");
    }
}
