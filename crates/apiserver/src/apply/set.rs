//! Sets of fields, and their form in `managedFields` (FieldsV1; upstream: `structured-merge-diff/fieldpath`).

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use serde_json::{Map, Value};

/// Levels of a FieldsV1 document; deeper ones are not read.
const DEPTH_LIMIT: usize = 128;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Element {
    Field(String),
    /// A list item by its keys: JSON of an object with sorted keys.
    Key(String),
    /// A list item by its value: JSON.
    Value(String),
    Index(i64),
}

/// A value as JSON that is the same for equal values: objects sorted, whole numbers without a fraction.
fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) => match number.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "only whole numbers that fit")]
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => (float as i64).to_string(),
            _ => number.to_string(),
        },
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let parts: Vec<_> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), canonical(value)))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(list) => {
            let parts: Vec<_> = list.iter().map(canonical).collect();
            format!("[{}]", parts.join(","))
        }
        other => other.to_string(),
    }
}

impl Element {
    pub fn key(fields: Map<String, Value>) -> Self {
        Self::Key(canonical(&Value::Object(fields)))
    }

    pub fn value(value: &Value) -> Self {
        Self::Value(canonical(value))
    }

    fn parse(text: &str) -> Option<Self> {
        let (tag, rest) = text.split_once(':')?;
        match tag {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => match serde_json::from_str(rest).ok()? {
                Value::Object(fields) => Some(Self::key(fields)),
                _ => None,
            },
            "v" => Some(Self::value(&serde_json::from_str(rest).ok()?)),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    pub fn serialize(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(json) => format!("k:{json}"),
            Self::Value(json) => format!("v:{json}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// As conflicts print it: `.name`, `[name="x",port=80]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(json) => {
                let fields: BTreeMap<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let parts: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", parts.join(","))
            }
            Self::Value(json) => write!(f, "[={json}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A set of paths, as a tree. Nodes that are no member and have no children do not exist, but for the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    pub member: bool,
    children: BTreeMap<Element, Set>,
}

impl Set {
    pub fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub fn child(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    pub fn field(&self, name: &str) -> Option<&Self> {
        self.children.get(&Element::Field(name.to_owned()))
    }

    pub fn children(&self) -> impl Iterator<Item = (&Element, &Self)> {
        self.children.iter()
    }

    /// Puts a subtree in; an empty one leaves no trace.
    pub fn put(&mut self, element: Element, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().union(child);
        }
    }

    /// Takes out the paths of `other`, not what lies below them.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        self.children.retain(|element, child| {
            if let Some(other) = other.children.get(element) {
                child.subtract(other);
            }
            !child.is_empty()
        });
    }

    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(other) = other.children.get(element) {
                out.put(element.clone(), child.intersection(other));
            }
        }
        out
    }

    /// Drops a field with everything below it.
    pub fn remove_field(&mut self, path: &[&str]) {
        let [name, rest @ ..] = path else { return };
        let element = Element::Field((*name).to_owned());
        if rest.is_empty() {
            self.children.remove(&element);
        } else if let Some(child) = self.children.get_mut(&element) {
            child.remove_field(rest);
            if child.is_empty() {
                self.children.remove(&element);
            }
        }
    }

    /// Takes a field of the root out, and leaves what lies below it.
    pub fn unmark_field(&mut self, name: &str) {
        let element = Element::Field(name.to_owned());
        if let Some(child) = self.children.get_mut(&element) {
            child.member = false;
            if child.is_empty() {
                self.children.remove(&element);
            }
        }
    }

    /// Makes the fields that lead to a member members as well.
    pub fn with_parents(&self) -> Self {
        let children = self.children.iter().map(|(element, child)| {
            let mut child = child.with_parents();
            child.member |= matches!(element, Element::Field(_));
            (element.clone(), child)
        });
        Self { member: self.member, children: children.collect() }
    }

    /// All members, as they print.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, path: &mut String, out: &mut Vec<String>) {
        if self.member {
            out.push(path.clone());
        }
        for (element, child) in &self.children {
            let mark = path.len();
            // Writing to a String cannot fail.
            let _ = write!(path, "{element}");
            child.collect(path, out);
            path.truncate(mark);
        }
    }

    /// FieldsV1.
    pub fn to_fields(&self) -> Value {
        let mut out = Map::new();
        if self.member && !self.children.is_empty() {
            out.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            out.insert(element.serialize(), child.to_fields());
        }
        Value::Object(out)
    }

    /// None: not FieldsV1.
    pub fn from_fields(fields: &Value) -> Option<Self> {
        let mut set = Self::read(fields, 0)?;
        set.member = false;
        Some(set)
    }

    fn read(fields: &Value, depth: usize) -> Option<Self> {
        let fields = fields.as_object().filter(|_| depth < DEPTH_LIMIT)?;
        let mut set = Self { member: fields.is_empty() || fields.contains_key("."), children: BTreeMap::new() };
        for (name, inner) in fields.iter().filter(|(name, _)| *name != ".") {
            set.put(Element::parse(name)?, Self::read(inner, depth + 1)?);
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_keep_their_form() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {".": {}, "v:\"x\"": {}}},
            "f:spec": {"f:containers": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:image": {}}}, "i:3": {}},
        });
        let set = Set::from_fields(&fields).unwrap();
        assert_eq!(set.to_fields(), fields);
        assert_eq!(
            set.paths(),
            [
                ".metadata.finalizers",
                ".metadata.finalizers[=\"x\"]",
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[containerPort=80,protocol=\"TCP\"]",
                ".spec.containers[containerPort=80,protocol=\"TCP\"].image",
                ".spec[3]",
            ]
        );
        for bad in [json!([]), json!({"spec": {}}), json!({"k:x": {}}), json!({"f:a": 1})] {
            assert!(Set::from_fields(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn sets_have_a_depth_limit() {
        let nested = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({"f:a": inner}));
        assert!(Set::from_fields(&nested(DEPTH_LIMIT - 1)).is_some());
        assert!(Set::from_fields(&nested(DEPTH_LIMIT)).is_none());
    }

    #[test]
    fn sets_are_added_and_subtracted_path_by_path() {
        let set = |fields: Value| Set::from_fields(&fields).unwrap();
        let mut a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        a.subtract(&set(json!({"f:a": {}, "f:d": {}})));
        assert_eq!(a.to_fields(), json!({"f:a": {"f:b": {}}, "f:c": {}}));
        a.union(&set(json!({"f:a": {"f:e": {}}})));
        assert_eq!(a.to_fields(), json!({"f:a": {"f:b": {}, "f:e": {}}, "f:c": {}}));
        let both = a.intersection(&set(json!({"f:a": {"f:e": {}}, "f:c": {"f:x": {}}})));
        assert_eq!(both.to_fields(), json!({"f:a": {"f:e": {}}}));
        a.remove_field(&["a", "b"]);
        a.remove_field(&["a", "e"]);
        assert_eq!(a.to_fields(), json!({"f:c": {}}));
    }
}
