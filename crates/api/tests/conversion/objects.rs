//! Objects made from schemas: each seed gives another.

use api::crd;
use serde_json::{Map, Value, json};

/// A kind with the schemas of both versions.
pub struct Kind {
    pub group: String,
    pub kind: String,
    pub hub: Value,
    pub spoke: Value,
}

pub struct Schemas(Vec<Kind>);

impl Schemas {
    pub fn new() -> Self {
        let kinds = crd::all().into_iter().filter_map(|crd| {
            let crd = serde_json::to_value(crd).unwrap();
            let schema = |name: &str| {
                let versions = crd["spec"]["versions"].as_array().unwrap();
                versions
                    .iter()
                    .find(|version| version["name"] == name)
                    .map(|version| version["schema"]["openAPIV3Schema"].clone())
            };
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let (group, kind) = (text(&crd["spec"]["group"]), text(&crd["spec"]["names"]["kind"]));
            Some(Kind { group, hub: schema("v1beta2")?, spoke: schema(api::conversion::spoke(&kind))?, kind })
        });
        Self(kinds.collect())
    }

    pub fn kinds(&self) -> &[Kind] {
        &self.0
    }

    /// What v1beta1 says in its own words, where v1beta2 has a place for it.
    pub fn words(&self, kind: &Kind, seed: u64) -> Option<Map<String, Value>> {
        let words = kind.hub.pointer("/properties/status/properties/deprecated/properties/v1beta1")?;
        let mut words = Source::of(seed).value(words, 0);
        // A condition of each type.
        if let Some(conditions) = words.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.sort_by_key(|one| one["type"].to_string());
            conditions.dedup_by_key(|one| one["type"].clone());
        }
        words.as_object().cloned()
    }

    pub fn object(&self, kind: &Kind, version: &str, seed: u64) -> Value {
        let schema = if version == "v1beta2" { &kind.hub } else { &kind.spoke };
        let mut source = Source::of(seed);
        let mut object = json!({
            "apiVersion": format!("{}/{version}", kind.group), "kind": kind.kind, "metadata": {"name": "a", "namespace": "org"},
        });
        for part in ["spec", "status"] {
            if let Some(schema) = schema["properties"].get(part) {
                object[part] = source.value(schema, 0);
            }
        }
        object
    }
}

/// References without a namespace get that of their object, as v1beta1's defaulting has it.
pub fn with_namespaces(object: &Value) -> Value {
    const REFERENCES: [&str; 5] = ["controlPlaneRef", "infrastructureRef", "configRef", "remediationTemplate", "ref"];
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    if REFERENCES.contains(&name.as_str()) && value.is_object() && value.get("namespace").is_none() {
                        value["namespace"] = "org".into();
                    }
                    walk(value);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    let mut object = object.clone();
    for part in ["spec", "status"] {
        if let Some(part) = object.get_mut(part) {
            walk(part);
        }
    }
    object
}

/// The object without the fields that the schema does not know.
pub fn pruned(object: &Value, schema: &Value) -> Value {
    let mut object = object.clone();
    for part in ["spec", "status"] {
        if let Some(part_value) = object.get_mut(part) {
            *part_value = known(part_value, &schema["properties"][part]);
        }
    }
    object
}

fn known(object: &Value, schema: &Value) -> Value {
    if schema["x-kubernetes-preserve-unknown-fields"] == true || schema["x-kubernetes-int-or-string"] == true {
        return object.clone();
    }
    match object {
        Value::Object(fields) => {
            let keep = |(name, value): (&String, &Value)| {
                let field = schema["properties"].get(name).or(schema.get("additionalProperties"));
                Some((name.clone(), known(value, field?)))
            };
            Value::Object(fields.iter().filter_map(keep).collect())
        }
        Value::Array(items) => items.iter().map(|item| known(item, &schema["items"])).collect(),
        other => other.clone(),
    }
}

/// Numbers that follow from a seed (splitmix64).
struct Source(u64);

/// Types that conditions of both versions have, so that some are made of others.
const TYPES: [&str; 5] = ["Available", "InfrastructureReady", "MachinesReady", "Ready", "RemediationAllowed"];

impl Source {
    fn of(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    fn value(&mut self, schema: &Value, depth: u64) -> Value {
        if let Some(choices) = schema["enum"].as_array() {
            let index = usize::try_from(self.below(choices.len() as u64)).unwrap();
            return choices[index].clone();
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return if self.below(2) == 0 { json!(self.below(100)) } else { json!(format!("{}%", self.below(100))) };
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, depth),
            Some("array") => self.list(schema, depth),
            Some("string") => self.text(schema).into(),
            Some("integer") => (self.below(1000) + schema["minimum"].as_u64().unwrap_or(0)).into(),
            Some("number") => json!(self.below(1000)),
            Some("boolean") => (self.below(2) == 0).into(),
            _ => json!({"anything": self.below(10)}),
        }
    }

    fn object(&mut self, schema: &Value, depth: u64) -> Value {
        let mut fields = Map::new();
        let required =
            |name: &str| schema["required"].as_array().is_some_and(|list| list.iter().any(|one| one == name));
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let is_condition = properties.contains_key("lastTransitionTime");
        let chosen = self.below(properties.len() as u64);
        for (index, (name, schema)) in properties.iter().enumerate() {
            // One field at least, where there are any.
            if required(name) || index as u64 == chosen || self.below(3 + depth / 2) == 0 {
                let known = usize::try_from(self.below(2 * TYPES.len() as u64)).unwrap();
                let value = match TYPES.get(known) {
                    Some(known) if is_condition && name == "type" => json!(known),
                    _ => self.value(schema, depth + 1),
                };
                fields.insert(name.clone(), value);
            }
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            for _ in 0..=self.below(2) {
                fields.insert(format!("key-{}", self.below(50)), self.value(values, depth + 1));
            }
        }
        fields.into()
    }

    fn list(&mut self, schema: &Value, depth: u64) -> Value {
        let count = self.below(3).max(schema["minItems"].as_u64().unwrap_or(0));
        (0..count).map(|_| self.value(&schema["items"], depth + 1)).collect()
    }

    fn text(&mut self, schema: &Value) -> String {
        let number = self.below(1000);
        let pattern = schema["pattern"].as_str().unwrap_or_default();
        match schema["format"].as_str() {
            Some("date-time") => return format!("2026-01-01T00:{:02}:00Z", number % 60),
            Some("uuid") => return format!("00000000-0000-4000-8000-{number:012}"),
            _ => {}
        }
        if pattern.contains("\\[[0-9]+-[0-9]+\\]") {
            return format!("[{}-{}]", number % 5, number);
        }
        if pattern.contains("\\/") {
            return format!("group.example/v{number}");
        }
        // Texts without a pattern may be anything: durations among them, and what is none.
        match (pattern.is_empty(), number % 5) {
            (true, 0) => format!("{number}m{}s", number % 60),
            (true, 1) => format!("{number}s"),
            (true, 2) => format!("{number}.5s"),
            (true, 3) => "group.example/v1".to_owned(),
            _ => format!("text{number}"),
        }
    }
}
