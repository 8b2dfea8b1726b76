//! Checking an object against a schema. The texts are those of kube-openapi's validators as apiextensions turns them into
//! field errors (upstream: `kube-openapi/pkg/validation/{errors,validate}`, `apiextensions-apiserver/pkg/apiserver`).

use std::fmt::Write;

use serde_json::{Map, Number, Value};

use super::{
    Checks, Node, Type, format,
    lists::{self, Past, first_repeated},
};
use crate::field::{FieldError, FieldErrorKind};

/// The path that upstream prints where an error belongs to no single field.
pub(super) const NOWHERE: &str = "<nil>";
/// How near to a whole number counts as one.
const WHOLE_WITHIN: f64 = 1e-9;

/// `old`: what the object was before. Whatever is equal in it is not held against the new one (KEP-4008).
pub(super) fn object(root: &Node, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut check = Check::new("");
    check.node(root, object, old);
    let mut errors = check.errors;
    if let Some(metadata) = object.get("metadata").filter(|_| !root.embedded) {
        let known = root.property("metadata").is_some_and(|node| !node.properties.is_empty() && node.checks.is_none());
        if !known {
            errors.extend(at(&super::object_meta(), metadata, "metadata"));
        }
    }
    let mut path = String::new();
    lists::check(root, object, old, &mut path, &mut errors);
    errors
}

/// The status of an object alone, as its subresource is written; texts name fields as seen from the status.
pub(super) fn status(root: &Node, object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some((node, status)) = root.property("status").zip(object.get("status")) {
        let mut check = Check::new("");
        check.node(node, status, old.get("status"));
        errors = below("status", check.errors);
    }
    let mut path = String::new();
    lists::check(root, object, Some(old), &mut path, &mut errors);
    errors
}

/// Errors with the place of what was checked put before their paths, as upstream joins them.
pub(super) fn below(place: &str, errors: Vec<FieldError>) -> Vec<FieldError> {
    let join = |path: &str| match path {
        NOWHERE => place.to_owned(),
        path if path.starts_with('[') => format!("{place}{path}"),
        path => format!("{place}.{path}"),
    };
    errors.into_iter().map(|error| FieldError { path: join(&error.path), ..error }).collect()
}

/// Checks a value that lies at `path`, without the uniqueness of list items.
pub(super) fn at(node: &Node, value: &Value, path: &str) -> Vec<FieldError> {
    let mut check = Check::new(path);
    check.node(node, value, None);
    check.errors
}

struct Check {
    path: String,
    errors: Vec<FieldError>,
    /// How many validators looked at something: picks the alternative to complain about.
    matches: usize,
}

/// A number as Go prints it with `%v`.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e21 { format!("{value:.0}") } else { format!("{value}") }
}

fn is_integer(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|value| value.fract() == 0.0)
}

/// What upstream calls the type of a value, and its format.
fn name_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

fn is_of(type_: Type, value: &Value) -> bool {
    match (type_, value) {
        (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::String, Value::String(_))
        | (Type::Number, Value::Number(_))
        | (Type::Boolean, Value::Bool(_)) => true,
        (Type::Integer, Value::Number(number)) => is_integer(number),
        _ => false,
    }
}

impl Check {
    fn new(path: &str) -> Self {
        Self { path: path.to_owned(), errors: Vec::new(), matches: 0 }
    }

    fn name(&self) -> &str {
        self.path.strip_prefix('.').unwrap_or(&self.path)
    }

    fn push(&mut self, kind: FieldErrorKind, value: impl Into<Value>, detail: String) {
        let path = if self.path.is_empty() { NOWHERE } else { self.name() };
        self.errors.push(FieldError::new(kind, path, Some(value.into()), detail));
    }

    fn invalid(&mut self, value: impl Into<Value>, detail: &str) {
        let text = format!("{} in body {detail}", self.path);
        self.push(FieldErrorKind::Invalid, value, text);
    }

    /// An error of upstream's that does not carry its field.
    fn lost(&mut self, text: String) {
        self.errors.push(FieldError::invalid(NOWHERE, "", text));
    }

    fn wrong_type(&mut self, expected: &str, found: &str) {
        let text = format!("{} in body must be of type {expected}: {found:?}", self.path);
        self.push(FieldErrorKind::TypeInvalid, found, text);
    }

    fn node(&mut self, node: &Node, value: &Value, old: Option<&Value>) {
        self.matches += 1;
        if old == Some(value) {
            return;
        }
        self.type_(node, value);
        if value.is_null() {
            return;
        }
        if let Some(checks) = &node.checks {
            self.branches(checks, value);
        }
        if let Value::Number(number) = value {
            self.range(node, number);
        }
        if let Some(checks) = &node.checks {
            match value {
                Value::String(text) => self.string(node, checks, text),
                Value::Number(number) => self.number(checks, number),
                _ => {}
            }
        }
        if let Value::Array(list) = value {
            self.list(node, list, old);
        }
        if let Some(values) = node.checks.as_ref().and_then(|checks| checks.one_of_values.as_ref()) {
            self.one_of(values, value);
        }
        if let Value::Object(fields) = value {
            self.fields(node, fields, old);
        }
    }

    fn type_(&mut self, node: &Node, value: &Value) {
        if node.int_or_string {
            let fits = is_of(Type::Integer, value) || value.is_string() || (value.is_null() && node.nullable);
            if !fits {
                self.wrong_type("integer,string", name_of(value).0);
            }
            return;
        }
        let Some(type_) = node.type_ else { return };
        let (found, found_format) = name_of(value);
        if is_of(type_, value) || (value.is_null() && node.nullable) {
            return;
        }
        let format = node.checks.as_ref().and_then(|checks| checks.format.as_deref());
        match format {
            Some(format) if !matches!(value, Value::Null | Value::String(_) | Value::Array(_)) => {
                self.wrong_type(format, found_format);
            }
            _ => self.wrong_type(type_.name(), found),
        }
    }

    /// Runs an alternative on the side.
    fn branch(&self, node: &Node, value: &Value) -> Self {
        let mut side = Self::new(&self.path);
        side.node(node, value, None);
        side
    }

    fn branches(&mut self, checks: &Checks, value: &Value) {
        if !checks.any_of.is_empty() {
            let mut best: Option<Self> = None;
            let mut passed = false;
            for node in &checks.any_of {
                let side = self.branch(node, value);
                if side.errors.is_empty() {
                    passed = true;
                    break;
                }
                if best.as_ref().is_none_or(|best| side.matches > best.matches) {
                    best = Some(side);
                }
            }
            if !passed {
                self.lost(format!("{:?} must validate at least one schema (anyOf)", self.path));
                self.errors.extend(best.into_iter().flat_map(|best| best.errors));
            }
        }
        if !checks.one_of.is_empty() {
            self.exactly_one(&checks.one_of, value);
        }
        if !checks.all_of.is_empty() {
            let sides: Vec<_> = checks.all_of.iter().map(|node| self.branch(node, value).errors).collect();
            let passed = sides.iter().filter(|errors| errors.is_empty()).count();
            self.errors.extend(sides.into_iter().flatten());
            if passed < checks.all_of.len() {
                let more = if passed == 0 { ". None validated" } else { "" };
                self.lost(format!("{:?} must validate all the schemas (allOf){more}", self.path));
            }
        }
        if let Some(not) = &checks.not
            && self.branch(not, value).errors.is_empty()
        {
            self.lost(format!("{:?} must not validate the schema (not)", self.path));
        }
    }

    fn exactly_one(&mut self, nodes: &[Node], value: &Value) {
        let mut best: Option<Self> = None;
        let mut passed = 0;
        for node in nodes {
            let side = self.branch(node, value);
            if side.errors.is_empty() {
                passed += 1;
                best = None;
            } else if passed == 0 && best.as_ref().is_none_or(|best| side.matches > best.matches) {
                best = Some(side);
            }
        }
        if passed == 1 {
            return;
        }
        let more =
            if passed == 0 { "Found none valid".to_owned() } else { format!("Found {passed} valid alternatives") };
        self.lost(format!("{:?} must validate one and only one schema (oneOf). {more}", self.path));
        self.errors.extend(best.into_iter().flat_map(|best| best.errors));
    }

    fn string(&mut self, node: &Node, checks: &Checks, text: &str) {
        let length = || text.chars().count() as u64;
        if let Some(max) = checks.max_length.filter(|max| length() > *max) {
            let limit = usize::try_from(max).unwrap_or(usize::MAX);
            let path = self.name().to_owned();
            self.errors.push(FieldError::too_long(path, limit));
        } else if let Some(min) = checks.min_length.filter(|min| length() < *min) {
            self.invalid(text, &format!("should be at least {min} chars long"));
        } else if let Some(pattern) = &checks.pattern
            && pattern.matches(text) != Some(true)
        {
            self.invalid(text, &format!("should match '{}'", pattern.text));
        }
        let numeric = matches!(node.type_, Some(Type::Integer | Type::Number)) || node.int_or_string;
        if let Some(format) = checks.format.as_deref().filter(|_| !numeric)
            && !format::holds(format, text)
        {
            let detail = format!("{} in body must be of type {format}: {text:?}", self.path);
            self.push(FieldErrorKind::TypeInvalid, text, detail);
        }
    }

    /// Whether a number can be held by its type and format.
    fn range(&mut self, node: &Node, found: &Number) {
        let Some(type_) = node.type_.filter(|type_| matches!(type_, Type::Integer | Type::Number)) else { return };
        let format = node.checks.as_ref().and_then(|checks| checks.format.as_deref());
        let whole = is_integer(found);
        if format::fits(format.unwrap_or_default(), found) && (whole || type_ == Type::Number) {
            return;
        }
        let format = format.map_or_else(|| "(default format)".to_owned(), |format| format!("with format {format}"));
        self.lost(format!("Checked value must be of type {} {format} in {}", type_.name(), self.path));
    }

    /// Of whole numbers upstream takes the factor's whole part alone.
    fn multiple_of_whole(&mut self, value: i64, factor: i64) {
        if factor <= 0 {
            let text = format!("factor MultipleOf declared for {} must be positive: {factor}", self.path);
            self.push(FieldErrorKind::Invalid, factor, text);
        } else if value % factor != 0 {
            self.invalid(value, &format!("should be a multiple of {factor}"));
        }
    }

    fn number(&mut self, checks: &Checks, found: &Number) {
        let Some(value) = found.as_f64() else { return };
        let shown = || Value::Number(found.clone());
        if let Some((factor, whole)) = checks.multiple_of.zip(found.as_i64()) {
            // The cast cuts off the fraction and stays within the range, as is wanted.
            self.multiple_of_whole(whole, factor as i64);
        } else if let Some(factor) = checks.multiple_of {
            // Upstream's way around fractions that binary floats cannot hold.
            let quotient = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
            if factor <= 0.0 {
                let text = format!("factor MultipleOf declared for {} must be positive: {}", self.path, number(factor));
                self.push(FieldErrorKind::Invalid, factor, text);
            } else if (quotient - quotient.round()).abs() > WHOLE_WITHIN {
                self.invalid(shown(), &format!("should be a multiple of {}", number(factor)));
            }
        }
        if let Some(min) = checks.minimum
            && (value < min || (checks.exclusive_minimum && value <= min))
        {
            let or_equal = if checks.exclusive_minimum { "" } else { "or equal to " };
            self.invalid(shown(), &format!("should be greater than {or_equal}{}", number(min)));
        }
        if let Some(max) = checks.maximum
            && (value > max || (checks.exclusive_maximum && value >= max))
        {
            let or_equal = if checks.exclusive_maximum { "" } else { "or equal to " };
            self.invalid(shown(), &format!("should be less than {or_equal}{}", number(max)));
        }
    }

    fn list(&mut self, node: &Node, list: &[Value], old: Option<&Value>) {
        if let Some(items) = &node.items {
            let past = Past::of(node, old);
            for (index, item) in list.iter().enumerate() {
                let mark = self.path.len();
                // Writing to a String cannot fail.
                let _ = write!(self.path, "[{index}]");
                self.node(items, item, past.of_item(item));
                self.path.truncate(mark);
            }
        }
        let Some(checks) = &node.checks else { return };
        let count = list.len() as u64;
        if let Some(min) = checks.min_items.filter(|min| count < *min) {
            self.invalid(count, &format!("should have at least {min} items"));
        }
        if let Some(max) = checks.max_items.filter(|max| count > *max) {
            self.too_many(list.len(), max);
        }
        if checks.unique_items && first_repeated(list.iter()).next().is_some() {
            self.invalid("", "shouldn't contain duplicates");
        }
    }

    fn too_many(&mut self, count: usize, max: u64) {
        let limit = usize::try_from(max).unwrap_or(usize::MAX);
        let path = if self.path.is_empty() { NOWHERE } else { self.name() }.to_owned();
        self.errors.push(FieldError::too_many(path, count, limit));
    }

    fn one_of(&mut self, values: &[Value], value: &Value) {
        let equal = |allowed: &Value| match (allowed, value) {
            (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            (a, b) => a == b,
        };
        if values.iter().any(equal) {
            return;
        }
        let texts = values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned));
        self.push(FieldErrorKind::NotSupported(texts.collect()), value.clone(), String::new());
    }

    fn fields(&mut self, node: &Node, fields: &Map<String, Value>, old: Option<&Value>) {
        let count = fields.len() as u64;
        let checks = node.checks.as_deref();
        if let Some(min) = checks.and_then(|checks| checks.min_properties).filter(|min| count < *min) {
            self.invalid(count, &format!("should have at least {min} properties"));
        }
        if let Some(max) = checks.and_then(|checks| checks.max_properties).filter(|max| count > *max) {
            self.too_many(fields.len(), max);
        }
        for (key, value) in fields {
            let known = node.property(key);
            let Some(inner) = node.field(key) else { continue };
            let mark = self.path.len();
            // Upstream writes the root's own fields without a dot, and everything else with one.
            if mark > 0 || known.is_none() {
                self.path.push('.');
            }
            self.path.push_str(key);
            self.node(inner, value, old.and_then(|old| old.get(key)));
            self.path.truncate(mark);
        }
        for name in checks.map_or(&[][..], |checks| &checks.required) {
            if !fields.contains_key(&**name) {
                self.required(name, "");
            }
        }
        if node.embedded {
            for name in ["apiVersion", "kind"] {
                let path = format!("{}.{name}", self.name());
                match fields.get(name) {
                    Some(Value::String(text)) if !text.is_empty() => {}
                    None => self.errors.push(FieldError::required(path, "")),
                    Some(Value::String(_)) => self.errors.push(FieldError::invalid(path, "", "must not be empty")),
                    Some(other) => self.errors.push(FieldError::invalid(path, other.clone(), "must be a string")),
                }
            }
            if let Some(metadata) = fields.get("metadata") {
                let path = format!("{}.metadata", self.name());
                self.errors.extend(at(&super::object_meta(), metadata, &path));
            }
        }
    }

    fn required(&mut self, name: &str, detail: &str) {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.name()) };
        self.errors.push(FieldError::required(path, detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::schema::Schema;

    fn errors(spec: Value, value: Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        let schema = Schema::parse(&schema).unwrap();
        schema.validate(&json!({"spec": value})).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_restriction_has_the_text_of_kubernetes() {
        let field = |field: Value| json!({"type": "object", "properties": {"x": field}});
        let cases = [
            (
                json!({"type": "integer"}),
                json!("string"),
                "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"",
            ),
            (
                json!({"type": "string"}),
                json!(null),
                "spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\"",
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
            ),
            (json!({"type": "string", "maxLength": 2}), json!("äöü"), "spec.x: Too long: may not be more than 2 bytes"),
            (
                json!({"type": "string", "minLength": 1}),
                json!(""),
                "spec.x: Invalid value: \"\": spec.x in body should be at least 1 chars long",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                "spec.x: Invalid value: \"b\": spec.x in body should match '^a+$'",
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                "spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true}),
                json!(1.5),
                "spec.x: Invalid value: 1.5: spec.x in body should be less than 1.5",
            ),
            (
                json!({"type": "integer", "multipleOf": 3}),
                json!(4),
                "spec.x: Invalid value: 4: spec.x in body should be a multiple of 3",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
                json!([]),
                "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "maxItems": 2}),
                json!(["a", "b", "c"]),
                "spec.x: Too many: 3: must have at most 2 items",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}),
                json!({}),
                "spec.x: Invalid value: 0: spec.x in body should have at least 1 properties",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                json!({"k": 1}),
                "spec.x.k: Invalid value: \"integer\": spec.x.k in body must be of type string: \"integer\"",
            ),
            (
                json!({"type": "object", "properties": {"y": {"type": "string"}}, "required": ["y"]}),
                json!({}),
                "spec.x.y: Required value",
            ),
            (
                json!({"type": "string", "format": "ipv4"}),
                json!("::1"),
                "spec.x: Invalid value: \"::1\": spec.x in body must be of type ipv4: \"::1\"",
            ),
            (
                json!({"type": "integer", "format": "int32"}),
                json!(3_000_000_000_i64),
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.x",
            ),
            (
                json!({"type": "integer", "not": {"minimum": 3}}),
                json!(3),
                "<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
                json!(["a", "b", "a", "a"]),
                "spec.x[2]: Duplicate value: \"a\"",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                    "items": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"},
                        "b": {"type": "integer", "default": 1}}}}),
                json!([{"a": "x", "b": 1}, {"a": "x", "b": 2}, {"a": "x", "b": 1}]),
                "spec.x[2]: Duplicate value: {\"a\":\"x\",\"b\":1}",
            ),
        ];
        for (schema, value, expected) in cases {
            assert_eq!(errors(field(schema.clone()), json!({"x": value})), [expected], "{schema}");
        }
    }

    #[test]
    fn what_fits_passes() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "integer", "minimum": 1, "format": "int64"},
            "b": {"type": "string", "nullable": true, "minLength": 3},
            "c": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "d": {"x-kubernetes-preserve-unknown-fields": true},
            "e": {"type": "number", "enum": [1, 2.5]},
            "t": {"type": "string", "format": "date-time"},
            "m": {"type": "number", "multipleOf": 0.1},
        }, "oneOf": [{"required": ["b"]}, {"required": ["e"]}]});
        let value = json!({"a": 1.0, "b": null, "c": "x", "d": [1, null, {}], "m": 0.3, "t": "2026-01-02T03:04:05Z"});
        assert_eq!(errors(schema.clone(), value), [""; 0]);
        let both = errors(schema, json!({"a": 1, "b": "abc", "e": 1}));
        let expected = "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid \
                        alternatives";
        assert_eq!(both, [expected]);
    }

    #[test]
    fn what_was_wrong_before_may_stay_as_it_is() {
        let item = json!({"type": "object", "required": ["k"], "properties": {
            "k": {"type": "string"}, "n": {"type": "integer", "maximum": 3}}});
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string"},
            "list": {"type": "array", "items": item},
            "map": {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
        }}))
        .unwrap();
        let wrong = json!([{"k": "x", "n": 4}, {"k": "y", "n": 1}]);
        let old = json!({"a": "long", "b": "1", "list": wrong, "map": wrong});
        assert_eq!(schema.validate(&old).len(), 3);
        let mut new = old.clone();
        new["b"] = json!("2");
        new["map"][1]["n"] = json!(2);
        assert_eq!(schema.validate_update(&new, &old, &mut Vec::new()), []);
        new["map"] = json!([{"k": "y", "n": 5}, {"k": "x", "n": 4}]);
        new["a"] = json!("longer");
        new["list"][1]["n"] = json!(2);
        let paths: Vec<_> =
            schema.validate_update(&new, &old, &mut Vec::new()).into_iter().map(|error| error.path).collect();
        assert_eq!(paths, ["a", "list[0].n", "map[0].n"], "items of other lists than maps have no past");
    }

    #[test]
    fn metadata_is_checked_in_every_kind() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"metadata": {"type": "object"}}})).unwrap();
        let errors = schema.validate(&json!({"metadata": {"labels": {"a": 1}}}));
        let expected = "metadata.labels.a: Invalid value: \"integer\": metadata.labels.a in body must be of type string: \
                        \"integer\"";
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
}
