//! Label and field selectors of list and watch (`apimachinery/pkg/labels`, `pkg/fields`).

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::Value;

use crate::{
    field::FieldError,
    names,
    object::Partial,
    status::{Error, Result},
};

/// Longer selectors are refused.
pub(crate) const SELECTOR_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    operator: Operator,
}

/// Conditions on labels; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Labels(Vec<Requirement>);

impl Labels {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        limit(text)?;
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        parser.requirements().map(Self).map_err(Error::bad_request)
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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    /// As it is written; empty at the end.
    text: String,
    /// Neither an operator nor a bracket.
    word: bool,
}

/// Two-letter operators come before their first letters.
const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
/// Other white space is part of a word.
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

fn tokens(text: &str) -> Vec<Token> {
    let is_special = |c: char| SIGNS.iter().any(|sign| sign.starts_with(c));
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(SPACES);
    while !rest.is_empty() {
        let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign)).map(|sign| sign.len());
        let word_end = || rest.find(|c: char| is_special(c) || SPACES.contains(&c)).unwrap_or(rest.len());
        let (taken, left) = rest.split_at(sign.unwrap_or_else(word_end));
        found.push(Token { text: taken.to_owned(), word: sign.is_none() });
        rest = left.trim_start_matches(SPACES);
    }
    found
}

/// Reads as upstream's does (`apimachinery/pkg/labels`), so that errors name the same token.
struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token { text: String::new(), word: false })
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut found = Vec::new();
        loop {
            let token = self.peek();
            match token.text.as_str() {
                _ if token.word => {}
                "!" => {}
                "" => return Ok(found),
                other => return Err(format!("found '{other}', expected: !, identifier, or 'end of string'")),
            }
            let requirement = self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
            found.push(requirement);
            let token = self.next();
            match token.text.as_str() {
                "" => return Ok(found),
                "," => {
                    let next = self.peek();
                    if !next.word && next.text != "!" {
                        return Err(format!("found '{}', expected: identifier after ','", next.text));
                    }
                }
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek().text == "!";
        if absent {
            self.at += 1;
        }
        let key = self.next();
        if !key.word {
            return Err(format!("found '{}', expected: identifier", key.text));
        }
        if let Some(wrong) = names::qualified_name(&key.text).first() {
            return Err(FieldError::invalid("<nil>", key.text.as_str(), wrong.as_str()).to_string());
        }
        let ends = matches!(self.peek().text.as_str(), "" | ",");
        if absent || ends {
            let operator = if absent { Operator::Absent } else { Operator::Exists };
            return Ok(Requirement { key: key.text, operator });
        }
        let operator = self.next().text;
        let values = match operator.as_str() {
            "in" | "notin" => self.values()?,
            "=" | "==" | "!=" | ">" | "<" => vec![self.exact_value()?],
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        if let ">" | "<" = operator.as_str() {
            let value = values.first().map(String::as_str).unwrap_or_default();
            let text = "for 'Gt', 'Lt' operators, the value must be an integer";
            let bound: i64 = value.parse().map_err(|_| FieldError::invalid("values[0]", value, text).to_string())?;
            let operator = if operator == ">" { Operator::Greater(bound) } else { Operator::Less(bound) };
            return Ok(Requirement { key: key.text, operator });
        }
        for (i, value) in values.iter().enumerate() {
            if let Some(wrong) = names::label_value(value).first() {
                let path = format!("values[{i}][{}]", key.text);
                return Err(FieldError::invalid(path, value.as_str(), wrong.as_str()).to_string());
            }
        }
        let operator = match operator.as_str() {
            "in" | "=" | "==" => Operator::In(values),
            _ => Operator::NotIn(values),
        };
        Ok(Requirement { key: key.text, operator })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        let token = self.peek();
        if matches!(token.text.as_str(), "" | ",") {
            return Ok(String::new());
        }
        self.at += 1;
        if token.word { Ok(token.text) } else { Err(format!("found '{}', expected: identifier", token.text)) }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open.text != "(" {
            return Err(format!("found '{}' expected: '('", open.text));
        }
        let mut values = std::collections::BTreeSet::new();
        loop {
            let token = self.next();
            match token.text.as_str() {
                _ if token.word => {
                    values.insert(token.text);
                    match self.peek().text.as_str() {
                        "," => {
                            self.at += 1;
                            if self.peek().text == ")" {
                                values.insert(String::new());
                            }
                        }
                        ")" => {}
                        other => return Err(format!("found '{other}', expected: ',' or ')'")),
                    }
                }
                "," => drop(values.insert(String::new())),
                ")" => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    return Ok(values.into_iter().collect());
                }
                other => return Err(format!("found '{other}', expected: ',', or identifier")),
            }
        }
    }
}

/// Conditions on fields; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Fields(Vec<FieldTerm>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FieldTerm {
    path: String,
    value: String,
    equal: bool,
}

const META_FIELDS: &str = "\"metadata.name\", \"metadata.namespace\"";

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
                let why = match supported {
                    [] => format!("{:?} is not a known field selector: only {META_FIELDS}", term.path),
                    _ => format!("field label not supported: {}", term.path),
                };
                return Err(Error::bad_request(why));
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
                _ => {
                    term.value.is_empty()
                        || (term.value == "false"
                            && matches!(term.path.as_str(), "spec.unschedulable" | "spec.hostNetwork"))
                }
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
    fn white_space_that_is_no_space_ends_no_word() {
        for text in ["a\u{b}", "\u{a0}a", "a\u{85}=b", "\u{c}"] {
            assert!(Labels::parse(text).is_err(), "{text:?}");
        }
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
