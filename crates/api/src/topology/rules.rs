//! Rules in CEL of variables' schemas (`x-kubernetes-validations`): checked with their class, run on what clusters give.
//!
//! A class says nothing of how its lists merge, so items of lists have no past, and rules about them none either.
//!
//! Source: kubernetes-sigs/cluster-api internal/topology/variables; `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel`.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use policy::cel::{
    Budget, Decl, DeclKind, Fault, MESSAGE_BYTES_MAX, Merge, Program, REQUEST_BYTES_MAX, Type, Value as Cel,
};
use serde_json::Value;

use crate::admission::{Problem, ProblemKind};

const KEYWORD: &str = "x-kubernetes-validations";
/// What a rule may cost at worst, as often as it may be run (`StaticEstimatedCostLimit`).
const RULE_COST_MAX: u64 = 10_000_000;
/// What all rules of a variable may cost at worst together (`StaticEstimatedCRDCostLimit`).
const VARIABLE_COST_MAX: u64 = 100_000_000;
/// Characters of a message that is no expression.
const MESSAGE_CHARS_MAX: usize = 2048;
const REASONS: [(&str, ProblemKind); 4] = [
    ("FieldValueDuplicate", ProblemKind::Duplicate),
    ("FieldValueForbidden", ProblemKind::Forbidden),
    ("FieldValueInvalid", ProblemKind::Invalid),
    ("FieldValueRequired", ProblemKind::Required),
];
/// So much that is wrong with a value is told, and then no more is looked for.
const PROBLEMS_MAX: usize = 100;
/// `oldSelf` among the variables of a rule.
const OLD_SELF: usize = 1;

/// What expressions may know of a place; none if nothing.
fn declaration(schema: &Value) -> Option<Arc<Decl>> {
    let number = |field: &str| schema[field].as_u64();
    let mut decl = if schema["x-kubernetes-int-or-string"] == true {
        let max = number("maxLength").map_or(REQUEST_BYTES_MAX - 2, |max| max.saturating_mul(4));
        Decl::new(DeclKind::IntOrString, max, 1)
    } else {
        match schema["type"].as_str()? {
            "array" => Decl::list(declaration(&schema["items"])?, number("maxItems"), Merge::Atomic),
            "object" if schema["additionalProperties"].is_object() => {
                Decl::map(declaration(&schema["additionalProperties"])?, number("maxProperties"))
            }
            "object" => object(schema),
            "boolean" => Decl::bool(),
            "integer" => Decl::int(),
            "number" => Decl::double(),
            "string" => string(schema),
            _ => return None,
        }
    };
    decl.nullable = schema["nullable"] == true;
    Some(Arc::new(decl))
}

fn object(schema: &Value) -> Decl {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let mut bytes = 2;
    let mut fields: Vec<(Box<str>, Arc<Decl>)> = Vec::new();
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let Some(decl) = declaration(below) else { continue };
        if required(name) && below.get("default").is_none() {
            bytes += name.len() as u64 + decl.min_bytes + 4;
        }
        fields.push((name.as_str().into(), decl));
    }
    Decl::object(fields, bytes)
}

fn string(schema: &Value) -> Decl {
    let max = schema["maxLength"].as_u64();
    match schema["format"].as_str().unwrap_or_default() {
        "byte" => Decl::new(DeclKind::Bytes, max.unwrap_or(REQUEST_BYTES_MAX - 2), 2),
        "duration" => Decl::new(DeclKind::Duration, 32, 3),
        "date" => Decl::new(DeclKind::Date, 12, 12),
        "date-time" | "datetime" => Decl::new(DeclKind::DateTime, 32, 21),
        _ => {
            let mut decl = Decl::string(max);
            if let Some(values) = schema["enum"].as_array().filter(|_| max.is_none()) {
                decl.max_elements = values.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(0) as u64;
            }
            decl
        }
    }
}

fn rules_of(schema: &Value) -> &[Value] {
    schema[KEYWORD].as_array().map_or(&[], Vec::as_slice)
}

fn has_rules(schema: &Value) -> bool {
    !rules_of(schema).is_empty()
        || ["items", "additionalProperties"]
            .iter()
            .any(|field| schema[*field].is_object() && has_rules(&schema[*field]))
        || schema["properties"].as_object().is_some_and(|all| all.values().any(has_rules))
}

fn text<'a>(rule: &'a Value, field: &str) -> Option<&'a str> {
    rule[field].as_str().filter(|text| !text.is_empty())
}

fn variables(decl: &Arc<Decl>) -> [(&'static str, Type); 2] {
    [("self", Type::of(decl)), ("oldSelf", Type::of(decl))]
}

fn problem(kind: ProblemKind, path: &str, value: &Value, detail: impl Into<String>) -> Problem {
    Problem { kind, path: path.to_owned(), value: Some(value.clone()), detail: detail.into() }
}

/// A field of a rule, what it must come to, and what is said if it does not.
type Expression = (&'static str, fn(&Type) -> bool, &'static str);

/// What is wrong with the rules of a schema themselves.
pub(crate) fn check(schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    if !has_rules(schema) {
        return;
    }
    let mut check = Check { problems, total: 0 };
    check.place(schema, path, Some(1), None);
    if check.total > VARIABLE_COST_MAX {
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let detail = too_dear(what, check.total, VARIABLE_COST_MAX);
        problems.push(Problem { kind: ProblemKind::Forbidden, path: path.to_owned(), value: None, detail });
    }
}

fn too_dear(what: &str, cost: u64, max: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let factor = match cost as f64 / max as f64 {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

struct Check<'a> {
    problems: &'a mut Vec<Problem>,
    total: u64,
}

impl Check<'_> {
    /// `times`: how often the place may be there (none: nothing bounds it); `lost`: where the past ends.
    fn place(&mut self, schema: &Value, path: &str, times: Option<u64>, lost: Option<&str>) {
        let decl = declaration(schema);
        for (index, rule) in rules_of(schema).iter().enumerate() {
            let at = format!("{path}.{KEYWORD}[{index}]");
            let before = self.problems.len();
            self.written(schema, rule, &at);
            if self.problems.len() > before {
                continue;
            }
            match &decl {
                Some(decl) => self.rule(rule, decl, &at, times, lost),
                None => {
                    let detail = "rules need a type that is known: this place has none";
                    self.problems.push(problem(ProblemKind::Invalid, &at, &Value::Null, detail));
                }
            }
        }
        let below = |max: &Value, least: u64| match (times, max.as_u64()) {
            (Some(times), Some(max)) => Some(times.saturating_mul(max)),
            // As many as a request has room for.
            (Some(times), None) => Some(times.saturating_mul((REQUEST_BYTES_MAX - 2) / (least + 1))),
            (None, _) => None,
        };
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            self.place(inner, &format!("{path}.properties[{name}]"), times, lost);
        }
        let least = |inner: &Value| declaration(inner).map_or(1, |decl| decl.min_bytes);
        let inner = &schema["additionalProperties"];
        if inner.is_object() {
            let times = below(&schema["maxProperties"], least(inner) + 5);
            self.place(inner, &format!("{path}.additionalProperties"), times, lost);
        }
        let inner = &schema["items"];
        if inner.is_object() {
            let at = format!("{path}.items");
            self.place(inner, &at, below(&schema["maxItems"], least(inner)), lost.or(Some(&at)));
        }
    }

    /// How a rule is written.
    fn written(&mut self, schema: &Value, rule: &Value, path: &str) {
        let mut tell = |kind: ProblemKind, field: &str, detail: String| {
            self.problems.push(problem(kind, &format!("{path}.{field}"), &rule[field], detail));
        };
        let given = |field: &str| rule[field].as_str().unwrap_or_default();
        let (source, message) = (given("rule").trim(), given("message"));
        let breaks = |text: &str| text.contains(['\n', '\r']);
        if source.is_empty() {
            tell(ProblemKind::Required, "rule", "rule is not specified".to_owned());
        } else if !message.is_empty() && message.trim().is_empty() {
            tell(ProblemKind::Invalid, "message", "message must be non-empty if specified".to_owned());
        } else if message.len() > MESSAGE_CHARS_MAX {
            let detail = format!("message must have a maximum length of {MESSAGE_CHARS_MAX} characters");
            tell(ProblemKind::Invalid, "message", detail);
        } else if breaks(message.trim()) {
            tell(ProblemKind::Invalid, "message", "message must not contain line breaks".to_owned());
        } else if breaks(source) && message.trim().is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            tell(ProblemKind::Required, "message", detail.to_owned());
        }
        if text(rule, "messageExpression").is_some_and(|text| text.trim().is_empty()) {
            let detail = "messageExpression must be non-empty if specified";
            tell(ProblemKind::Required, "messageExpression", detail.to_owned());
        }
        if text(rule, "reason").is_some_and(|reason| !REASONS.iter().any(|(known, _)| *known == reason)) {
            let known = REASONS.map(|(name, _)| format!("{name:?}")).join(", ");
            tell(ProblemKind::Invalid, "reason", format!("supported values: {known}"));
        }
        if let Some(field) = text(rule, "fieldPath")
            && !is_path(schema, field)
        {
            tell(ProblemKind::Invalid, "fieldPath", "fieldPath must be a valid path".to_owned());
        }
    }

    fn rule(&mut self, rule: &Value, decl: &Arc<Decl>, path: &str, times: Option<u64>, lost: Option<&str>) {
        let variables = variables(decl);
        let is_bool = |type_: &Type| matches!(type_, Type::Bool);
        let is_string = |type_: &Type| matches!(type_, Type::String);
        let expressions: [Expression; 2] = [
            ("rule", is_bool, "cel expression must evaluate to a bool"),
            ("messageExpression", is_string, "messageExpression must evaluate to a string"),
        ];
        for (field, is_type, what) in expressions {
            let Some(source) = text(rule, field) else { continue };
            let at = format!("{path}.{field}");
            let mut wrong = |kind, detail: String| self.problems.push(problem(kind, &at, &rule[field], detail));
            match Program::compile(source, &variables) {
                Err(error) => {
                    wrong(ProblemKind::Invalid, format!("compilation failed: {error}"));
                    continue;
                }
                Ok(program) if !is_type(program.output()) => wrong(ProblemKind::Invalid, what.to_owned()),
                Ok(program) => {
                    if let Some(lost) = lost.filter(|_| program.reads(OLD_SELF) && field == "rule") {
                        let detail =
                            format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
                        wrong(ProblemKind::Invalid, detail);
                    }
                }
            }
            // Messages are bounded when they are made.
            if field == "rule" {
                let worst = Program::worst_cost(source, &variables, decl).unwrap_or(u64::MAX);
                let cost = times.map_or(u64::MAX, |times| worst.saturating_mul(times));
                if cost > RULE_COST_MAX {
                    wrong(ProblemKind::Forbidden, too_dear("estimated rule cost", cost, RULE_COST_MAX));
                }
                self.total = self.total.saturating_add(cost);
            }
        }
    }
}

/// Whether a path such as `.a.b` or `['a.b']` leads to a field below a schema.
fn is_path(schema: &Value, path: &str) -> bool {
    let (mut at, mut rest) = (schema, path);
    while !rest.is_empty() {
        let (name, after) = if let Some(inner) = rest.strip_prefix("['") {
            let Some(split) = inner.split_once("']") else { return false };
            split
        } else if let Some(inner) = rest.strip_prefix('.') {
            inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
        } else {
            return false;
        };
        let below = at.pointer("/properties").and_then(|all| all.get(name));
        let values = Some(&at["additionalProperties"]).filter(|values| values.is_object());
        let Some(next) = below.or(values).filter(|_| !name.is_empty()) else { return false };
        (at, rest) = (next, after);
    }
    !path.is_empty()
}

/// What the rules of a schema say about a value. `old`: what stands so far.
pub(super) fn run(schema: &Value, value: &Value, old: Option<&Value>, path: &str) -> Vec<Problem> {
    if !has_rules(schema) {
        return Vec::new();
    }
    let mut run = Run { problems: Vec::new(), left: Some(Budget::OBJECT), places: HashMap::new() };
    run.place(schema, value, old, path);
    run.problems
}

/// What is the same for all values that a schema describes: lists may have many of them.
struct Place {
    has_rules: bool,
    decl: Option<Arc<Decl>>,
    /// Of its own rules.
    programs: Vec<Result<Program, String>>,
}

impl Place {
    fn of(schema: &Value) -> Self {
        let own = rules_of(schema);
        let decl = if own.is_empty() { None } else { declaration(schema) };
        let compile = |decl: &Arc<Decl>, rule: &Value| {
            let program = Program::compile(text(rule, "rule").unwrap_or_default(), &variables(decl));
            program.map_err(|error| error.to_string())
        };
        let programs = decl.iter().flat_map(|decl| own.iter().map(move |rule| compile(decl, rule))).collect();
        Self { has_rules: has_rules(schema), decl, programs }
    }
}

struct Run {
    problems: Vec<Problem>,
    /// None: used up, nothing more is run.
    left: Option<Budget>,
    /// By where the schema lies, which stays there for as long as it is run.
    places: HashMap<*const Value, Rc<Place>>,
}

impl Run {
    fn of(&mut self, schema: &Value) -> Rc<Place> {
        self.places.entry(std::ptr::from_ref(schema)).or_insert_with(|| Rc::new(Place::of(schema))).clone()
    }

    fn place(&mut self, schema: &Value, value: &Value, old: Option<&Value>, path: &str) {
        let place = self.of(schema);
        if value.is_null() || self.left.is_none() || !place.has_rules || self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        if !rules_of(schema).is_empty() {
            match &place.decl {
                Some(decl) => self.rules(schema, decl, &place.programs, value, old, path),
                None => self.fail(path, "its rules need a type that is known".to_owned()),
            }
        }
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.place(&schema["items"], item, None, &format!("{path}[{index}]"));
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    let below = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                    if below.is_object() {
                        self.place(below, value, old.and_then(|old| old.get(name)), &format!("{path}.{name}"));
                    }
                }
            }
            _ => {}
        }
    }

    fn fail(&mut self, path: &str, detail: String) {
        self.problems.push(Problem { kind: ProblemKind::Invalid, path: path.to_owned(), value: None, detail });
    }

    fn rules(
        &mut self,
        schema: &Value,
        decl: &Arc<Decl>,
        programs: &[Result<Program, String>],
        value: &Value,
        old: Option<&Value>,
        path: &str,
    ) {
        let types = variables(decl);
        let seen = Cel::of(value, decl).and_then(|now| Ok([now, old.map_or(Ok(Cel::Null), |old| Cel::of(old, decl))?]));
        let seen = match seen {
            Ok(seen) => seen,
            Err(fault) => return self.fail(path, format!("{fault} evaluating the rules")),
        };
        for (rule, program) in rules_of(schema).iter().zip(programs) {
            let program = match program {
                Ok(program) => program,
                Err(error) => {
                    self.fail(path, format!("rule compile error: compilation failed: {error}"));
                    continue;
                }
            };
            if program.reads(OLD_SELF) && old.is_none() {
                continue;
            }
            let shown = text(rule, "message").or(text(rule, "rule")).unwrap_or_default().trim();
            match self.evaluate(program, &seen) {
                None => {
                    let spent =
                        "validation failed due to running out of cost budget, no further validation rules will be run";
                    return self.fail(path, spent.to_owned());
                }
                Some(Ok(Cel::Bool(true))) => {}
                Some(Ok(_)) => {
                    let detail = self.message(rule, &types, &seen);
                    self.broken(rule, value, path, detail);
                }
                Some(Err(Fault::OverBudget)) => {
                    self.left = None;
                    let detail = format!(
                        "no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                    );
                    return self.fail(path, detail);
                }
                Some(Err(fault)) => self.fail(path, format!("{fault} evaluating rule: {shown}")),
            }
        }
    }

    /// None: the budget of the whole variable is used up.
    fn evaluate<'v>(&mut self, program: &Program, seen: &[Cel<'v>]) -> Option<Result<Cel<'v>, Fault>> {
        let outcome = program.evaluate(seen, self.left?.call());
        self.left = self.left?.after(outcome.used);
        self.left.map(|_| outcome.result)
    }

    fn message(&mut self, rule: &Value, types: &[(&str, Type)], seen: &[Cel<'_>]) -> String {
        let program = text(rule, "messageExpression").and_then(|source| Program::compile(source, types).ok());
        if let Some(Some(Ok(Cel::String(made)))) = program.map(|program| self.evaluate(&program, seen)) {
            let made = made.as_str().trim();
            if !made.is_empty() && made.len() <= MESSAGE_BYTES_MAX && !made.contains('\n') {
                return made.to_owned();
            }
        }
        let rule_text = text(rule, "rule").unwrap_or_default().trim();
        text(rule, "message").map_or_else(|| format!("failed rule: {rule_text}"), |text| text.trim().to_owned())
    }

    fn broken(&mut self, rule: &Value, value: &Value, path: &str, detail: String) {
        let kind =
            REASONS.iter().find(|(name, _)| rule["reason"] == *name).map_or(ProblemKind::Invalid, |(_, kind)| *kind);
        let path = format!("{path}{}", text(rule, "fieldPath").unwrap_or_default());
        let value = matches!(kind, ProblemKind::Invalid | ProblemKind::Duplicate).then(|| value.clone());
        self.problems.push(Problem { kind, path, value, detail });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(rules: Value) -> Value {
        json!({"type": "object", KEYWORD: rules, "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "zone": {"type": "string", "maxLength": 10},
            "list": {"type": "array", "maxItems": 3, "items": {"type": "integer"}},
        }})
    }

    #[test]
    fn rules_hold_for_values_and_their_past() {
        let told = |rule: Value, value: Value, old: Option<Value>| {
            let found = run(&schema(json!([rule])), &value, old.as_ref(), "v");
            found.into_iter().map(|one| format!("{:?} {}: {}", one.kind, one.path, one.detail)).collect::<Vec<_>>()
        };
        let order = json!({"rule": "self.min <= self.max", "message": "min is above max"});
        assert!(told(order.clone(), json!({"min": 1, "max": 2}), None).is_empty());
        assert_eq!(told(order, json!({"min": 3, "max": 2}), None), ["Invalid v: min is above max"]);
        let fixed = json!({
            "rule": "self.zone == oldSelf.zone", "messageExpression": "'zone was ' + oldSelf.zone", "fieldPath": ".zone",
            "reason": "FieldValueForbidden",
        });
        assert!(told(fixed.clone(), json!({"zone": "b"}), None).is_empty(), "nothing to compare with");
        let moved = told(fixed, json!({"zone": "b"}), Some(json!({"zone": "a"})));
        assert_eq!(moved, ["Forbidden v.zone: zone was a"]);
    }

    #[test]
    fn long_lists_are_judged_item_by_item_and_so_much_is_told() {
        let schema = json!({"type": "array", "items": {"type": "integer", KEYWORD: [{"rule": "self < 30000"}]}});
        let list = |end: u64| Value::from((0..end).collect::<Vec<_>>());
        assert!(run(&schema, &list(30_000), None, "v").is_empty());
        let found = run(&schema, &list(40_000), None, "v");
        assert_eq!((found.len(), found[0].path.as_str()), (PROBLEMS_MAX, "v[30000]"));
    }

    #[test]
    fn rules_are_checked_with_their_class() {
        let told = |rule: Value| {
            let mut problems = Vec::new();
            check(&schema(json!([rule])), "s", &mut problems);
            problems.into_iter().map(|one| format!("{}: {}", one.path, one.detail)).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(told(json!({"rule": "self.min < 3"})), "");
        for (rule, wanted) in [
            (json!({"rule": " "}), "rule is not specified"),
            (json!({"rule": "self.none == 1"}), "undefined field 'none'"),
            (json!({"rule": "self.min"}), "must evaluate to a bool"),
            (json!({"rule": "true", "messageExpression": "1"}), "must evaluate to a string"),
            (json!({"rule": "true", "reason": "Because"}), "supported values"),
            (json!({"rule": "true", "fieldPath": ".none"}), "fieldPath must be a valid path"),
            (json!({"rule": "true", "message": "x".repeat(MESSAGE_CHARS_MAX + 1)}), "maximum length of 2048"),
        ] {
            assert!(told(rule.clone()).contains(wanted), "{rule}: {}", told(rule.clone()));
        }
        let mut problems = Vec::new();
        let dear = json!({"type": "array", "items": {"type": "string"}, KEYWORD: [{"rule": "self.all(a, self.all(b, a != b))"}]});
        check(&dear, "s", &mut problems);
        assert!(problems.iter().any(|one| one.detail.contains("exceeds budget")), "{problems:?}");
        let mut problems = Vec::new();
        let past = json!({"type": "array", "maxItems": 3, "items": {"type": "integer", KEYWORD: [{"rule": "self == oldSelf"}]}});
        check(&past, "s", &mut problems);
        assert!(problems.iter().any(|one| one.detail.contains("uncorrelatable")), "{problems:?}");
    }
}
