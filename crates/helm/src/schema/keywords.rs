//! The keywords of JSON Schema as a table: since which draft there is one, and what stands behind it.

use std::borrow::Cow;

use serde_json::Value as Json;

/// 4, 6, 7, 2019 or 2020.
pub type Draft = u16;

/// What a keyword's value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Schema,
    Schemas,
    /// A schema, or before 2020-12 a list of them.
    SchemaOrSchemas,
    SchemaMap,
    /// A schema or a list of names, by name.
    Dependencies,
    Types,
    List,
    Number,
    /// Draft 4 has a truth value there.
    Bound,
    /// A number above zero.
    Divisor,
    /// A whole number that is not negative.
    Count,
    Text,
    Pattern,
    Texts,
    TextsMap,
    Truth,
}

pub const KEYWORDS: &[(&str, Draft, Shape)] = &[
    ("$anchor", 2019, Shape::Text),
    ("$comment", 7, Shape::Text),
    ("$defs", 2019, Shape::SchemaMap),
    ("$dynamicAnchor", 2020, Shape::Text),
    ("$dynamicRef", 2020, Shape::Text),
    ("$id", 6, Shape::Text),
    ("$recursiveAnchor", 2019, Shape::Truth),
    ("$recursiveRef", 2019, Shape::Text),
    ("$ref", 4, Shape::Text),
    ("$schema", 4, Shape::Text),
    ("additionalItems", 4, Shape::Schema),
    ("additionalProperties", 4, Shape::Schema),
    ("allOf", 4, Shape::Schemas),
    ("anyOf", 4, Shape::Schemas),
    ("contains", 6, Shape::Schema),
    ("definitions", 4, Shape::SchemaMap),
    ("dependencies", 4, Shape::Dependencies),
    ("dependentRequired", 2019, Shape::TextsMap),
    ("dependentSchemas", 2019, Shape::SchemaMap),
    ("description", 4, Shape::Text),
    ("else", 7, Shape::Schema),
    ("enum", 4, Shape::List),
    ("exclusiveMaximum", 4, Shape::Bound),
    ("exclusiveMinimum", 4, Shape::Bound),
    ("format", 4, Shape::Text),
    ("id", 4, Shape::Text),
    ("if", 7, Shape::Schema),
    ("items", 4, Shape::SchemaOrSchemas),
    ("maxContains", 2019, Shape::Count),
    ("maxItems", 4, Shape::Count),
    ("maxLength", 4, Shape::Count),
    ("maxProperties", 4, Shape::Count),
    ("maximum", 4, Shape::Number),
    ("minContains", 2019, Shape::Count),
    ("minItems", 4, Shape::Count),
    ("minLength", 4, Shape::Count),
    ("minProperties", 4, Shape::Count),
    ("minimum", 4, Shape::Number),
    ("multipleOf", 4, Shape::Divisor),
    ("not", 4, Shape::Schema),
    ("oneOf", 4, Shape::Schemas),
    ("pattern", 4, Shape::Pattern),
    ("patternProperties", 4, Shape::SchemaMap),
    ("prefixItems", 2020, Shape::Schemas),
    ("properties", 4, Shape::SchemaMap),
    ("propertyNames", 6, Shape::Schema),
    ("required", 4, Shape::Texts),
    ("then", 7, Shape::Schema),
    ("title", 4, Shape::Text),
    ("type", 4, Shape::Types),
    ("unevaluatedItems", 2019, Shape::Schema),
    ("unevaluatedProperties", 2019, Shape::Schema),
    ("uniqueItems", 4, Shape::Truth),
];

/// In the order in which they are told.
pub const TYPES: [&str; 7] = ["null", "boolean", "number", "integer", "string", "array", "object"];

pub fn type_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

impl Shape {
    /// The names of schemas behind the keyword, and the schemas.
    pub fn schemas(self, value: &Json) -> Vec<(Option<Cow<'_, str>>, &Json)> {
        fn name(key: &str) -> Option<Cow<'_, str>> {
            Some(Cow::Borrowed(key))
        }
        match (self, value) {
            (Self::Schemas | Self::SchemaOrSchemas, Json::Array(items)) => {
                items.iter().enumerate().map(|(at, item)| (Some(Cow::Owned(at.to_string())), item)).collect()
            }
            (Self::Schema | Self::SchemaOrSchemas, _) => vec![(None, value)],
            (Self::SchemaMap, Json::Object(map)) => map.iter().map(|(key, of)| (name(key), of)).collect(),
            (Self::Dependencies, Json::Object(map)) => {
                map.iter().filter(|(_, of)| !of.is_array()).map(|(key, of)| (name(key), of)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What is wrong with a keyword's value; what is below it is looked at where it is a schema itself.
    pub fn wrong(self, draft: Draft, value: &Json) -> Option<String> {
        let want = |what: &str| Some(format!("got {}, want {what}", type_of(value)));
        match (self, value) {
            (Self::Schema, Json::Object(_) | Json::Bool(_)) => None,
            (Self::Schema, _) => want("boolean or object"),
            (Self::Schemas, Json::Array(items)) if items.is_empty() => Some("minItems: got 0, want 1".to_owned()),
            (Self::Schemas | Self::List, Json::Array(_)) => None,
            (Self::SchemaOrSchemas, Json::Array(_)) if draft < 2020 => None,
            (Self::SchemaOrSchemas, Json::Object(_) | Json::Bool(_)) => None,
            (Self::SchemaOrSchemas, _) => {
                want(if draft < 2020 { "boolean, object or array" } else { "boolean or object" })
            }
            (Self::SchemaMap | Self::Dependencies | Self::TextsMap, Json::Object(_)) => None,
            (Self::SchemaMap | Self::Dependencies | Self::TextsMap, _) => want("object"),
            (Self::Types, Json::String(name)) => unknown_type(name),
            (Self::Types, Json::Array(items)) => items.iter().find_map(|item| match item {
                Json::String(name) => unknown_type(name),
                other => Some(format!("got {}, want string", type_of(other))),
            }),
            (Self::Types, _) => want("string or array"),
            (Self::Bound, Json::Bool(_)) if draft == 4 => None,
            (Self::Number | Self::Bound, Json::Number(_)) => None,
            (Self::Number | Self::Bound | Self::Divisor, _) if !value.is_number() => want("number"),
            (Self::Divisor, _) => match value.as_f64() {
                Some(number) if number > 0.0 => None,
                _ => Some(format!("exclusiveMinimum: got {value}, want 0")),
            },
            (Self::Count, Json::Number(_)) => match value.as_f64() {
                Some(number) if number.fract() != 0.0 => want("integer"),
                Some(number) if number < 0.0 => Some(format!("minimum: got {value}, want 0")),
                _ => None,
            },
            (Self::Count, _) => want("integer"),
            (Self::Text | Self::Pattern, Json::String(_)) | (Self::Truth, Json::Bool(_)) => None,
            (Self::Text | Self::Pattern, _) => want("string"),
            (Self::Texts, Json::Array(items)) => {
                let other = items.iter().find(|item| !item.is_string())?;
                Some(format!("got {}, want string", type_of(other)))
            }
            (Self::Truth, _) => want("boolean"),
            _ => want("array"),
        }
    }
}

fn unknown_type(name: &str) -> Option<String> {
    let mut known = TYPES.map(|name| format!("'{name}'"));
    known.sort();
    let known = known.join(", ");
    (!TYPES.contains(&name)).then(|| format!("value must be one of {known}"))
}
