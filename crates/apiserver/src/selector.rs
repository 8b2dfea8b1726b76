//! Label and field selectors of list and watch (`apimachinery/pkg/labels`, `pkg/fields`).

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::Value;

use crate::{
    names,
    object::Partial,
    status::{Error, Result},
};

/// Longer selectors are refused.
pub(crate) const SELECTOR_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

/// Conditions on labels; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels(Vec<Requirement>);

impl Labels {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        limit(text)?;
        let mut requirements = Vec::new();
        for part in split(text) {
            requirements.push(
                requirement(part.trim())
                    .map_err(|why| Error::bad_request(format!("unable to parse requirement: {why}")))?,
            );
        }
        Ok(Self(requirements))
    }

    /// A LabelSelector object: `matchLabels` and `matchExpressions`.
    pub(crate) fn from_value(selector: &Value) -> Result<Self> {
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement { key: key.clone(), operator: Operator::In(vec![value]) });
        }
        for entry in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let values = entry.get("values").and_then(Value::as_array).into_iter().flatten();
            let values: Vec<String> = values.filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match text("operator") {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::Absent,
                other => return Err(Error::bad_request(format!("{other:?} is not a valid label selector operator"))),
            };
            requirements.push(Requirement { key: text("key").to_owned(), operator });
        }
        Ok(Self(requirements))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels, found by their key, satisfy it.
    pub(crate) fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|v| values.iter().any(|own| own == v)),
                Operator::NotIn(values) => value.is_none_or(|v| !values.iter().any(|own| own == v)),
                Operator::Exists => value.is_some(),
                Operator::Absent => value.is_none(),
                Operator::Greater(bound) => value.and_then(|v| v.parse().ok()).is_some_and(|v: i64| v > *bound),
                Operator::Less(bound) => value.and_then(|v| v.parse().ok()).is_some_and(|v: i64| v < *bound),
            }
        })
    }

    pub(crate) fn matches_map(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }

    fn matches_partial(&self, labels: Option<&BTreeMap<Cow<'_, str>, Cow<'_, str>>>) -> bool {
        self.matches(|key| labels.and_then(|l| l.get(key)).map(AsRef::as_ref))
    }
}

fn limit(text: &str) -> Result<()> {
    if text.len() > SELECTOR_BYTES_MAX {
        return Err(Error::bad_request(format!("the selector is longer than {SELECTOR_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// The parts between commas that stand outside of brackets.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    })
    .filter(|part| !part.trim().is_empty())
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let (key, operator) = if let Some(key) = text.strip_prefix('!') {
        (key.trim(), Operator::Absent)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key.trim(), Operator::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = text.split_once('=') {
        (key.trim(), Operator::In(vec![value.trim_start_matches('=').trim().to_owned()]))
    } else if let Some((key, value)) = text.split_once(['>', '<']) {
        let bound = value
            .trim()
            .parse()
            .map_err(|_| format!("values[0][{key}]: for 'Gt', 'Lt' operators, the value must be an integer"))?;
        (key.trim(), if text.contains('>') { Operator::Greater(bound) } else { Operator::Less(bound) })
    } else if let Some((head, list)) = text.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(|| format!("found '{list}', expected: ',', or ')'"))?;
        let values = list.split(',').map(|v| v.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => (key, Operator::In(values)),
            [key, "notin"] => (key, Operator::NotIn(values)),
            _ => return Err(format!("found '{head}', expected: in, notin")),
        }
    } else {
        (text, Operator::Exists)
    };
    if let Some(wrong) = names::qualified_name(key).first() {
        return Err(format!("<nil>: Invalid value: {key:?}: {wrong}"));
    }
    if let Operator::In(values) | Operator::NotIn(values) = &operator {
        for value in values {
            if let Some(wrong) = names::label_value(value).first() {
                return Err(format!("values[0][{key}]: Invalid value: {value:?}: {wrong}"));
            }
        }
    }
    Ok(Requirement { key: key.to_owned(), operator })
}

/// Conditions on fields; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<FieldTerm>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    path: String,
    value: String,
    equal: bool,
}

impl Fields {
    /// `supported` are the fields of the kind that may be selected besides `metadata.name` and `metadata.namespace`.
    pub(crate) fn parse(text: &str, supported: &[&str]) -> Result<Self> {
        limit(text)?;
        let mut terms = Vec::new();
        for part in split_escaped(text, ',').into_iter().filter(|part| !part.is_empty()) {
            let found = [("!=", false), ("==", true), ("=", true)].into_iter().find_map(|(sign, equal)| {
                let (path, value) = part.split_once(sign)?;
                Some(FieldTerm { path: path.trim().to_owned(), value: unescape(value.trim()), equal })
            });
            let Some(term) = found else {
                return Err(Error::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'")));
            };
            if !matches!(term.path.as_str(), "metadata.name" | "metadata.namespace")
                && !supported.contains(&term.path.as_str())
            {
                return Err(Error::bad_request(format!("field label not supported: {}", term.path)));
            }
            terms.push(term);
        }
        Ok(Self(terms))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one name that is asked for, if it is asked for by name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.0.iter().find(|t| t.equal && t.path == "metadata.name").map(|t| t.value.as_str())
    }

    /// Whether only metadata is looked at.
    fn is_shallow(&self) -> bool {
        self.0.iter().all(|term| term.path.starts_with("metadata."))
    }

    fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| {
            let found = term.path.split('.').try_fold(object, |value, key| value.get(key));
            let equal = match found {
                Some(Value::String(text)) => *text == term.value,
                Some(Value::Bool(flag)) => flag.to_string() == term.value,
                Some(Value::Number(number)) => number.to_string() == term.value,
                // An absent flag is false in Go.
                _ => term.value.is_empty() || (term.path == "spec.unschedulable" && term.value == "false"),
            };
            equal == term.equal
        })
    }
}

fn split_escaped(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        if c == separator && !escaped {
            parts.push(&text[start..i]);
            start = i + separator.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next());
        } else {
            out.push(c);
        }
    }
    out
}

/// Which objects of a kind are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    pub labels: Labels,
    pub fields: Fields,
}

impl Selector {
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether a stored object satisfies it; decodes no more than it must.
    pub(crate) fn matches(&self, stored: &[u8]) -> Result<bool> {
        if self.is_everything() {
            return Ok(true);
        }
        if self.fields.is_shallow() {
            let partial = Partial::read(stored)?;
            let metadata = &partial.metadata;
            let fields = self.fields.0.iter().all(|term| {
                let value = if term.path == "metadata.name" { &metadata.name } else { &metadata.namespace };
                (value.as_ref() == term.value) == term.equal
            });
            return Ok(fields && self.labels.matches_partial(metadata.labels.as_ref()));
        }
        let object: Value = serde_json::from_slice(stored).map_err(Error::internal)?;
        Ok(self.fields.matches(&object) && self.matches_labels(&object))
    }

    fn matches_labels(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        self.labels.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(selector: &str, labels: &Value) -> bool {
        let stored = serde_json::to_vec(&json!({"metadata": {"name": "n", "labels": labels}})).unwrap();
        let labels = Labels::parse(selector).unwrap();
        Selector { labels, fields: Fields::default() }.matches(&stored).unwrap()
    }

    #[test]
    fn every_operator_of_a_label_selector_works() {
        let labels = json!({"a": "1", "x.io/b": "two"});
        for yes in [
            "",
            "a",
            "a=1",
            "a==1",
            "a in (1,2)",
            "a!=2",
            "c!=2",
            "!c",
            "c notin (1)",
            "a>0,a<2",
            "a=1, x.io/b in (two)",
        ] {
            assert!(selects(yes, &labels), "{yes}");
        }
        for no in ["c", "a=2", "a in (2, 3)", "a!=1", "!a", "a notin (1)", "a>1", "x.io/b<5", "a=1,c"] {
            assert!(!selects(no, &labels), "{no}");
        }
        for bad in ["a in 1", "a in (1", "=x", "a=b c", "a>x", "a~b"] {
            assert_eq!(Labels::parse(bad).unwrap_err().code(), 400, "{bad}");
        }
    }

    #[test]
    fn fields_select_by_metadata_and_by_what_the_kind_offers() {
        let stored = br#"{"metadata":{"name":"n","namespace":"s"},"spec":{"nodeName":"x,y"}}"#;
        let selects = |text: &str| {
            let fields = Fields::parse(text, &["spec.nodeName", "spec.unschedulable"]).unwrap();
            Selector { labels: Labels::default(), fields }.matches(stored).unwrap()
        };
        assert!(selects("metadata.name=n,metadata.namespace!=t") && !selects("metadata.name=m"));
        assert!(selects("spec.nodeName=x\\,y") && !selects("spec.nodeName!=x\\,y"));
        assert!(selects("spec.unschedulable=false") && !selects("spec.unschedulable=true"));
        assert_eq!(Fields::parse("spec.other=1", &[]).unwrap_err().code(), 400);
        assert_eq!(Fields::parse("metadata.name", &[]).unwrap_err().code(), 400);
        assert_eq!(Fields::parse("metadata.name=n", &[]).unwrap().name(), Some("n"));
    }

    #[test]
    fn a_selector_of_one_byte_too_many_is_refused() {
        assert!(Labels::parse(&" ".repeat(SELECTOR_BYTES_MAX)).is_ok());
        assert!(Labels::parse(&" ".repeat(SELECTOR_BYTES_MAX + 1)).is_err());
    }
}
