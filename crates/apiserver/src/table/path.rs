//! JSON paths as kubectl and printer columns write them (upstream: `client-go/util/jsonpath`): fields, quoted fields, wildcards,
//! indices, slices, unions of those, recursive descent and filters that compare. Not in: functions, and templates around
//! a path.

use serde_json::Value;

/// Characters of a path.
const LENGTH_LIMIT: usize = 2_000;
/// Values that a path may lead to; beyond, the rest is left out.
const RESULTS_LIMIT: usize = 10_000;

/// A parsed path. The empty one leads nowhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path has {0} characters, the limit is {LENGTH_LIMIT}")]
    TooLong(usize),
    #[error("at character {at}: {what}")]
    Syntax { at: usize, what: &'static str },
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Union(Vec<Step>),
    Descend,
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    test: Option<(Comparison, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Path {
    /// Reads a path such as `.spec.replicas`, `$.a`, `{.a}` or `.status.conditions[?(@.type=="Ready")].status`.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > LENGTH_LIMIT {
            return Err(PathError::TooLong(text.len()));
        }
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(inner);
        let mut parser = Parser { chars: inner.chars().collect(), at: 0 };
        if matches!(parser.peek(), Some('$' | '@')) {
            parser.at += 1;
        }
        let path = parser.steps(&[])?;
        if parser.at < parser.chars.len() {
            return Err(parser.error("unexpected character"));
        }
        Ok(path)
    }

    /// Everything the path leads to, in order. Missing fields lead nowhere.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        if self.0.is_empty() {
            return Vec::new();
        }
        self.walk(root)
    }

    fn walk<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.follow(value, &mut next);
                next.truncate(RESULTS_LIMIT);
            }
            found = next;
        }
        found
    }
}

fn resolve(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { index + length } else { index };
    usize::try_from(index).ok()
}

impl Step {
    fn follow<'a>(&self, value: &'a Value, out: &mut Vec<&'a Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(fields)) => out.extend(fields.get(name)),
            (Self::Wildcard, Value::Object(fields)) => out.extend(fields.values()),
            (Self::Wildcard, Value::Array(list)) => out.extend(list),
            (Self::Index(index), Value::Array(list)) => {
                out.extend(resolve(*index, list.len()).and_then(|index| list.get(index)));
            }
            (Self::Slice(start, end, step), Value::Array(list)) => {
                let clamp = |index: i64| resolve(index, list.len()).unwrap_or(0).min(list.len());
                let (start, end) = (start.map_or(0, clamp), end.map_or(list.len(), clamp));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                out.extend(list.iter().take(end).skip(start).step_by(step));
            }
            (Self::Union(steps), value) => steps.iter().for_each(|step| step.follow(value, out)),
            (Self::Descend, value) => {
                let mut open = vec![value];
                while let Some(value) = open.pop() {
                    out.push(value);
                    if out.len() > RESULTS_LIMIT {
                        return;
                    }
                    match value {
                        Value::Object(fields) => open.extend(fields.values().rev()),
                        Value::Array(list) => open.extend(list.iter().rev()),
                        _ => {}
                    }
                }
            }
            (Self::Filter(filter), Value::Array(list)) => out.extend(list.iter().filter(|item| filter.holds(item))),
            _ => {}
        }
    }
}

impl Filter {
    fn holds(&self, item: &Value) -> bool {
        let values = |operand: &Operand| match operand {
            Operand::Path(path) => path.walk(item).into_iter().next().cloned(),
            Operand::Literal(value) => Some(value.clone()),
        };
        let Some((comparison, right)) = &self.test else { return values(&self.left).is_some() };
        let (Some(left), Some(right)) = (values(&self.left), values(right)) else { return false };
        let order = match (&left, &right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match comparison {
            Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Comparison::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
            Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        self.at += usize::from(found);
        found
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn error(&self, what: &'static str) -> PathError {
        PathError::Syntax { at: self.at, what }
    }

    /// Steps up to a character of `stops` or the end.
    fn steps(&mut self, stops: &[char]) -> Result<Path, PathError> {
        let mut steps = Vec::new();
        while let Some(next) = self.peek() {
            if stops.contains(&next) || next.is_whitespace() {
                break;
            }
            match next {
                '.' => {
                    self.at += 1;
                    if self.eat('.') {
                        steps.push(Step::Descend);
                    }
                    match self.peek() {
                        Some('[') => {}
                        Some('*') => {
                            self.at += 1;
                            steps.push(Step::Wildcard);
                        }
                        None if steps.is_empty() => {}
                        _ => steps.push(Step::Field(self.field(stops)?)),
                    }
                }
                '[' => {
                    self.at += 1;
                    steps.push(self.brackets()?);
                }
                _ if steps.is_empty() => steps.push(Step::Field(self.field(stops)?)),
                _ => return Err(self.error("a dot or a bracket is expected")),
            }
        }
        Ok(Path(steps))
    }

    fn field(&mut self, stops: &[char]) -> Result<String, PathError> {
        let mut name = String::new();
        while let Some(next) = self.peek() {
            if matches!(next, '.' | '[') || stops.contains(&next) || next.is_whitespace() {
                break;
            }
            self.at += 1;
            if next == '\\' {
                name.extend(self.peek());
                self.at += 1;
            } else {
                name.push(next);
            }
        }
        if name.is_empty() { Err(self.error("a field name is expected")) } else { Ok(name) }
    }

    fn brackets(&mut self) -> Result<Step, PathError> {
        if self.eat('?') {
            if !self.eat('(') {
                return Err(self.error("a filter begins with ?("));
            }
            let filter = self.filter()?;
            if !(self.eat(')') && self.eat(']')) {
                return Err(self.error("a filter ends with )]"));
            }
            return Ok(Step::Filter(filter));
        }
        let mut parts = Vec::new();
        loop {
            self.spaces();
            parts.push(self.subscript()?);
            self.spaces();
            if self.eat(']') {
                break;
            }
            if !self.eat(',') {
                return Err(self.error("a closing bracket is expected"));
            }
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Step::Union(parts) })
    }

    fn subscript(&mut self) -> Result<Step, PathError> {
        match self.peek() {
            Some('*') => {
                self.at += 1;
                Ok(Step::Wildcard)
            }
            Some('\'' | '"') => Ok(Step::Field(self.quoted()?)),
            _ => {
                let mut parts = vec![self.integer()?];
                while self.eat(':') && parts.len() < 4 {
                    parts.push(self.integer()?);
                }
                match parts[..] {
                    [Some(index)] => Ok(Step::Index(index)),
                    [start, end] => Ok(Step::Slice(start, end, 1)),
                    [start, end, step] => Ok(Step::Slice(start, end, step.unwrap_or(1))),
                    _ => Err(self.error("an index is expected")),
                }
            }
        }
    }

    fn integer(&mut self) -> Result<Option<i64>, PathError> {
        let start = self.at;
        self.eat('-');
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        if start == self.at {
            return Ok(None);
        }
        let text: String = self.chars.get(start..self.at).unwrap_or_default().iter().collect();
        text.parse().map(Some).map_err(|_| self.error("an index is a whole number"))
    }

    fn quoted(&mut self) -> Result<String, PathError> {
        let quote = self.peek();
        self.at += 1;
        let mut text = String::new();
        while let Some(next) = self.peek() {
            self.at += 1;
            if Some(next) == quote {
                return Ok(text);
            }
            if next == '\\' {
                text.extend(self.peek());
                self.at += 1;
            } else {
                text.push(next);
            }
        }
        Err(self.error("a quote is not closed"))
    }

    fn filter(&mut self) -> Result<Filter, PathError> {
        let left = self.operand()?;
        self.spaces();
        let comparison = match (self.peek(), self.chars.get(self.at + 1)) {
            (Some('='), Some('=')) => Some((Comparison::Equal, 2)),
            (Some('!'), Some('=')) => Some((Comparison::NotEqual, 2)),
            (Some('<'), Some('=')) => Some((Comparison::LessOrEqual, 2)),
            (Some('>'), Some('=')) => Some((Comparison::GreaterOrEqual, 2)),
            (Some('<'), _) => Some((Comparison::Less, 1)),
            (Some('>'), _) => Some((Comparison::Greater, 1)),
            _ => None,
        };
        let Some((comparison, length)) = comparison else { return Ok(Filter { left, test: None }) };
        self.at += length;
        let right = self.operand()?;
        self.spaces();
        Ok(Filter { left, test: Some((comparison, right)) })
    }

    fn operand(&mut self) -> Result<Operand, PathError> {
        self.spaces();
        match self.peek() {
            Some('@') => {
                self.at += 1;
                self.steps(&['=', '!', '<', '>', ')']).map(Operand::Path)
            }
            Some('\'' | '"') => Ok(Operand::Literal(self.quoted()?.into())),
            _ => {
                let start = self.at;
                while self.peek().is_some_and(|c| c.is_alphanumeric() || "+-.".contains(c)) {
                    self.at += 1;
                }
                let text: String = self.chars.get(start..self.at).unwrap_or_default().iter().collect();
                match text.parse::<Value>() {
                    Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Operand::Literal(value)),
                    _ => Err(self.error("a path, a number, a truth value or a quoted text is expected")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_kubectl_would_go() {
        let object = json!({
            "a": {"b.c": 1, "list": [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}, {"n": 3}]},
            "m": {"k": "v", "k2": "v2"},
        });
        let cases = [
            (".a.list[0].n", json!([1])),
            ("$.a.list[-1].n", json!([3])),
            ("{.a.list[*].n}", json!([1, 2, 3])),
            (".a.list[0:2].n", json!([1, 2])),
            (".a.list[::2].n", json!([1, 3])),
            (".a.list[0,2].n", json!([1, 3])),
            (".a['b.c']", json!([1])),
            (".a.b\\.c", json!([1])),
            (".m.*", json!(["v", "v2"])),
            ("..t", json!(["x", "y"])),
            (".a.list[?(@.t==\"y\")].n", json!([2])),
            (".a.list[?(@.t == 'y')].n", json!([2])),
            (".a.list[?(@.n>=2)].n", json!([2, 3])),
            (".a.list[?(@.t)].n", json!([1, 2])),
            (".a.list[?(@.t!='x')].n", json!([2])),
            (".missing.x", json!([])),
            ("", json!([])),
        ];
        for (path, expected) in cases {
            let found = Path::parse(path).unwrap();
            assert_eq!(json!(found.find(&object)), expected, "{path}");
        }
    }

    #[test]
    fn results_have_a_limit() {
        let list: Value = (0..=RESULTS_LIMIT).collect();
        assert_eq!(Path::parse("[*]").unwrap().find(&list).len(), RESULTS_LIMIT);
        let wide = json!({"l": vec![vec![0; 200]; 200]});
        assert_eq!(Path::parse("..[*]").unwrap().find(&wide).len(), RESULTS_LIMIT);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [".a[", ".a[x]", ".a['b", ".a[?(@.b=1)]", ".a..", ".a b", ".a[?(@.t==)]"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse(&format!(".{}", "a".repeat(LENGTH_LIMIT - 1))).is_ok());
        assert_eq!(Path::parse(&"a".repeat(LENGTH_LIMIT + 1)), Err(PathError::TooLong(LENGTH_LIMIT + 1)));
    }
}
