//! Variables of a ClusterClass: what a Cluster leaves out is filled in, what it gives is checked against the schemas.
//!
//! Source: kubernetes-sigs/cluster-api internal/topology/variables.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::rules;
use crate::admission::{Problem, ProblemKind};

/// Variables of a Cluster: no more than this (`maxItems` of `spec.topology.variables`).
pub const VARIABLES_MAX: usize = 1000;

/// Where a variable's definition is from, if it stands in the class itself (`VariableDefinitionFromInline`).
pub const INLINE: &str = "inline";
/// A compiled pattern may take so much.
pub(crate) const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// The variables of a class: those of its own, and those that extensions have been found to bring along.
pub fn definitions(class: &Value) -> Vec<Value> {
    let list = |pointer: &str| class.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let mut all: Vec<Value> = list("/spec/variables").cloned().collect();
    for variable in list("/status/variables") {
        let found = variable["definitions"].as_array().into_iter().flatten().find(|one| one["from"] != INLINE);
        if let Some(found) = found.filter(|_| !all.iter().any(|known| known["name"] == variable["name"])) {
            all.push(json!({"name": variable["name"], "required": found["required"], "schema": found["schema"]}));
        }
    }
    all
}

fn schema<'a>(definitions: &'a [Value], name: &Value) -> Option<&'a Value> {
    let found = definitions.iter().find(|definition| definition["name"] == *name)?;
    found.pointer("/schema/openAPIV3Schema")
}

/// The variables with the defaults of their schemas, and those that were left out and have one. `all`: of the whole
/// cluster; overrides are only completed.
pub fn defaulted(definitions: &[Value], given: &[Value], all: bool) -> Vec<Value> {
    let mut out: Vec<Value> = given.to_vec();
    for variable in &mut out {
        let Some(schema) = schema(definitions, &variable["name"]) else { continue };
        if let Some(value) = variable.get_mut("value") {
            fill(schema, value);
        }
    }
    for definition in definitions.iter().filter(|_| all) {
        let name = &definition["name"];
        let Some(value) = definition.pointer("/schema/openAPIV3Schema/default") else { continue };
        if !given.iter().any(|variable| variable["name"] == *name) {
            let mut value = value.clone();
            if let Some(schema) = schema(definitions, name) {
                fill(schema, &mut value);
            }
            out.push(json!({"name": name, "value": value}));
        }
    }
    out
}

/// Fills in the defaults below a value.
fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = schema.get("default")
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    fill(schema, value);
                }
            }
            if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
                let known = schema["properties"].as_object();
                let others = fields.iter_mut().filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
                others.for_each(|(_, value)| fill(values, value));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(&schema["items"], item)),
        _ => {}
    }
}

/// A value with the defaults below it.
pub(crate) fn filled(schema: &Value, value: &Value) -> Value {
    let mut value = value.clone();
    fill(schema, &mut value);
    value
}

/// What is wrong with a value by its schema, and by the schema's rules.
pub(crate) fn wrong(schema: &Value, value: &Value, path: &str) -> Vec<Problem> {
    changed(schema, value, None, path)
}

fn changed(schema: &Value, value: &Value, old: Option<&Value>, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    check(schema, value, path, &mut problems);
    // Rules may take for granted what the schema says.
    if problems.is_empty() { rules::run(schema, value, old, path) } else { problems }
}

/// What is wrong with the variables. `old`: those that stand so far; `path`: where they stand; `all`: of the whole
/// cluster, where none may be missing.
pub fn validate(definitions: &[Value], given: &[Value], old: &[Value], all: bool, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names = Vec::new();
    for variable in given {
        let name = &variable["name"];
        let at = format!("{path}[{}]", name.as_str().unwrap_or_default());
        if names.contains(&name) {
            problems.push(problem(ProblemKind::Duplicate, &at, name, "a variable is given once"));
        }
        names.push(name);
        match schema(definitions, name) {
            Some(schema) => {
                let before = old.iter().find(|before| before["name"] == *name).map(|before| &before["value"]);
                problems.extend(changed(schema, &variable["value"], before, &at));
            }
            None => problems.push(problem(ProblemKind::Invalid, &at, name, "variable is not defined")),
        }
    }
    for definition in definitions.iter().filter(|definition| all && definition["required"] == true) {
        if !names.contains(&&definition["name"]) {
            let at = format!("{path}[{}]", definition["name"].as_str().unwrap_or_default());
            problems.push(problem(ProblemKind::Required, &at, &Value::Null, "required variable must be set"));
        }
    }
    problems
}

fn problem(kind: ProblemKind, path: &str, value: &Value, detail: &str) -> Problem {
    Problem { kind, path: path.to_owned(), value: Some(value.clone()), detail: detail.to_owned() }
}

/// Adds what is wrong with a value by its schema.
fn check(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let mut wrong = |detail: String| problems.push(problem(ProblemKind::Invalid, path, value, &detail));
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    if let Some(type_) = schema["type"].as_str().filter(|type_| !type_.is_empty() && !int_or_string)
        && !is_of(type_, value)
    {
        return wrong(format!("must be of type {type_}"));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        wrong(format!("must be one of {}", Value::from(choices.clone())));
    }
    for detail in numbers(schema, value).into_iter().chain(texts(schema, value)) {
        wrong(detail);
    }
    combined(schema, value, path, problems);
    match value {
        Value::Object(fields) => object(schema, fields, path, problems),
        Value::Array(items) => list(schema, items, value, path, problems),
        _ => {}
    }
}

fn is_of(type_: &str, value: &Value) -> bool {
    match type_ {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        _ => true,
    }
}

fn numbers(schema: &Value, value: &Value) -> Vec<String> {
    let Some(number) = value.as_f64() else { return Vec::new() };
    let mut wrong = Vec::new();
    if let Some(least) = schema["minimum"].as_f64() {
        let open = schema["exclusiveMinimum"] == true;
        if number < least || open && number == least {
            wrong.push(format!("should be greater than {}{least}", if open { "" } else { "or equal to " }));
        }
    }
    if let Some(most) = schema["maximum"].as_f64() {
        let open = schema["exclusiveMaximum"] == true;
        if number > most || open && number == most {
            wrong.push(format!("should be less than {}{most}", if open { "" } else { "or equal to " }));
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step > 0.0)
        && (number / step).fract() != 0.0
    {
        wrong.push(format!("should be a multiple of {step}"));
    }
    wrong
}

fn texts(schema: &Value, value: &Value) -> Vec<String> {
    let Some(text) = value.as_str() else { return Vec::new() };
    let mut wrong = Vec::new();
    let length = text.chars().count() as u64;
    if schema["minLength"].as_u64().is_some_and(|least| length < least) {
        wrong.push(format!("should be at least {} chars long", schema["minLength"]));
    }
    if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
        wrong.push(format!("may not be more than {} chars long", schema["maxLength"]));
    }
    if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| !pattern.is_empty()) {
        match regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build() {
            Ok(pattern) if pattern.is_match(text) => {}
            Ok(_) => wrong.push(format!("should match '{pattern}'")),
            Err(error) => wrong.push(format!("the pattern of its schema cannot be read: {error}")),
        }
    }
    let is_address = |v4: bool| text.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_ipv4() == v4);
    let fits = match schema["format"].as_str() {
        Some("ipv4") => is_address(true),
        Some("ipv6") => is_address(false),
        Some("cidr") => text.parse::<ipnet::IpNet>().is_ok(),
        Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
        Some("date") => text.parse::<jiff::civil::Date>().is_ok(),
        _ => true,
    };
    if !fits {
        wrong.push(format!("must be of format {}", schema["format"]));
    }
    wrong
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let holds = |schema: &Value| {
        let mut problems = Vec::new();
        check(schema, value, path, &mut problems);
        problems.is_empty()
    };
    let count = |key: &str| schema[key].as_array().map(|parts| parts.iter().filter(|part| holds(part)).count());
    let mut wrong = |detail: &str| problems.push(problem(ProblemKind::Invalid, path, value, detail));
    if count("allOf").is_some_and(|found| schema["allOf"].as_array().is_some_and(|parts| found < parts.len())) {
        wrong("must validate all the schemas (allOf)");
    }
    if count("anyOf") == Some(0) {
        wrong("must validate at least one schema (anyOf)");
    }
    if count("oneOf").is_some_and(|found| found != 1) {
        wrong("must validate one and only one schema (oneOf)");
    }
    if schema.get("not").is_some_and(|not| not.is_object() && holds(not)) {
        wrong("must not validate the schema (not)");
    }
}

fn object(schema: &Value, fields: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    let properties = schema["properties"].as_object();
    let values = schema.get("additionalProperties").filter(|values| values.is_object());
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true
        || schema["additionalProperties"] == true
        || properties.is_none() && values.is_none();
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(required) {
            let at = format!("{path}.{required}");
            problems.push(problem(ProblemKind::Required, &at, &Value::Null, "Required value"));
        }
    }
    let count = fields.len() as u64;
    if schema["minProperties"].as_u64().is_some_and(|least| count < least) {
        problems.push(problem(ProblemKind::Invalid, path, &count.into(), "has too few properties"));
    }
    if schema["maxProperties"].as_u64().is_some_and(|most| count > most) {
        problems.push(problem(ProblemKind::Invalid, path, &count.into(), "has too many properties"));
    }
    for (name, value) in fields {
        let at = format!("{path}.{name}");
        match properties.and_then(|properties| properties.get(name)).or(values) {
            Some(schema) => check(schema, value, &at, problems),
            None if open => {}
            None => problems.push(problem(ProblemKind::Invalid, &at, value, "unknown field")),
        }
    }
}

fn list(schema: &Value, items: &[Value], value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let count = items.len() as u64;
    let mut wrong = |detail: String| problems.push(problem(ProblemKind::Invalid, path, value, &detail));
    if schema["minItems"].as_u64().is_some_and(|least| count < least) {
        wrong(format!("should have at least {} items", schema["minItems"]));
    }
    if schema["maxItems"].as_u64().is_some_and(|most| count > most) {
        wrong(format!("must have at most {} items", schema["maxItems"]));
    }
    // By their texts: a list may be too long to compare each with each.
    let mut known = HashSet::new();
    if schema["uniqueItems"] == true && !items.iter().all(|item| known.insert(item.to_string())) {
        wrong("shouldn't contain duplicates".to_owned());
    }
    if schema["items"].is_object() {
        for (index, item) in items.iter().enumerate() {
            check(&schema["items"], item, &format!("{path}[{index}]"), problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<Value> {
        let definition = |name: &str, required: bool, schema: Value| json!({"name": name, "required": required, "schema": {"openAPIV3Schema": schema}});
        vec![
            definition("zone", true, json!({"type": "string", "enum": ["a", "b"]})),
            definition("count", false, json!({"type": "integer", "minimum": 1, "maximum": 5, "default": 3})),
            definition(
                "network",
                false,
                json!({"type": "object", "required": ["cidr"], "properties": {
                "cidr": {"type": "string", "format": "cidr"}, "mtu": {"type": "integer", "default": 1450}}}),
            ),
            definition(
                "names",
                false,
                json!({"type": "array", "maxItems": 2, "uniqueItems": true, "items": {"type": "string", "pattern": "^[a-z]+$"}}),
            ),
        ]
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let given = [json!({"name": "network", "value": {"cidr": "10.0.0.0/8"}})];
        let filled = json!({"name": "network", "value": {"cidr": "10.0.0.0/8", "mtu": 1450}});
        assert_eq!(defaulted(&classes(), &given, true), [filled.clone(), json!({"name": "count", "value": 3})]);
        assert_eq!(defaulted(&classes(), &given, false), [filled]);
        let again = defaulted(&classes(), &defaulted(&classes(), &given, true), true);
        assert_eq!(again.len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        let told = |value: Value| {
            let given = [json!({"name": "zone", "value": "a"}), value];
            let problems = validate(&classes(), &given, &[], true, "v");
            problems
                .into_iter()
                .map(|problem| format!("{}: {}", problem.path, problem.detail))
                .collect::<Vec<_>>()
                .join("\n")
        };
        for (value, wanted) in [
            (json!({"name": "count", "value": 3}), ""),
            (json!({"name": "count", "value": 6}), "v[count]: should be less than or equal to 5"),
            (json!({"name": "count", "value": "3"}), "v[count]: must be of type integer"),
            (json!({"name": "network", "value": {"cidr": "x"}}), "v[network].cidr: must be of format \"cidr\""),
            (json!({"name": "network", "value": {}}), "v[network].cidr: Required value"),
            (json!({"name": "network", "value": {"cidr": "10.0.0.0/8", "vlan": 1}}), "v[network].vlan: unknown field"),
            (json!({"name": "names", "value": ["a", "a"]}), "v[names]: shouldn't contain duplicates"),
            (json!({"name": "names", "value": ["a", "B"]}), "v[names][1]: should match '^[a-z]+$'"),
            (json!({"name": "other", "value": 1}), "v[other]: variable is not defined"),
        ] {
            assert_eq!(told(value), wanted);
        }
        let problems = validate(&classes(), &[json!({"name": "zone", "value": "c"})], &[], true, "v");
        assert_eq!(problems.len(), 1);
        assert_eq!(validate(&classes(), &[], &[], true, "v")[0].kind, ProblemKind::Required);
        assert!(validate(&classes(), &[], &[], false, "v").is_empty());
    }
}
