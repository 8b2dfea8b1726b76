//! Rules of a schema (`x-kubernetes-validations`): read, checked when a CRD is admitted, and run on objects (upstream:
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation`, `pkg/apiserver/schema/cel`).

mod declare;
mod paths;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use policy::cel::{CompileError, Decl, Program, REQUEST_BYTES_MAX, Type as CelType};
use serde_json::{Map, Value};

pub(super) use self::{declare::declaration, run::Validator};
use super::{
    Additional, List, Node, Type,
    parse::{child, key},
};
use crate::field::{FieldError, FieldErrorKind};

pub(super) const KEYWORD: &str = "x-kubernetes-validations";
/// The variables of a rule, in this order.
const VARIABLES: [&str; 2] = ["self", "oldSelf"];
const OLD_SELF: usize = 1;
/// What a rule may cost at worst, as often as it may be run (`StaticEstimatedCostLimit`).
const RULE_COST_MAX: u64 = 10_000_000;
/// What all rules of a schema may cost at worst together (`StaticEstimatedCRDCostLimit`).
const SCHEMA_COST_MAX: u64 = 100_000_000;

/// One rule as it is written.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The whole of it, as errors print it.
    printed: Box<str>,
    rule: Box<str>,
    message: Option<Box<str>>,
    message_expression: Option<Box<str>>,
    reason: Reason,
    /// As errors print it.
    field_path: Option<String>,
    optional_old_self: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reason {
    #[default]
    Invalid,
    Forbidden,
    Required,
    Duplicate,
}

const REASONS: [(&str, Reason); 4] = [
    ("FieldValueDuplicate", Reason::Duplicate),
    ("FieldValueForbidden", Reason::Forbidden),
    ("FieldValueInvalid", Reason::Invalid),
    ("FieldValueRequired", Reason::Required),
];

impl Rule {
    /// What stands for the rule in messages.
    fn shown(&self) -> &str {
        self.message.as_deref().unwrap_or(&self.rule).trim()
    }

    fn wrong(&self, path: String, detail: String) -> FieldError {
        FieldError::new(FieldErrorKind::InvalidAs(self.printed.to_string()), path, None, detail)
    }

    fn wants_old_or_none(&self) -> bool {
        self.optional_old_self == Some(true)
    }
}

/// The rules at one place of a schema; `errors` gets what is wrong with how they are written.
pub(super) fn read(map: &Map<String, Value>, path: &str, node: &Node, errors: &mut Vec<FieldError>) -> Arc<[Rule]> {
    let path = child(path, KEYWORD);
    let list = match map.get(KEYWORD) {
        None | Some(Value::Null) => return Arc::default(),
        Some(Value::Array(list)) => list,
        Some(other) => {
            errors.push(FieldError::type_invalid(path, other.clone(), "must be a list"));
            return Arc::default();
        }
    };
    list.iter().enumerate().filter_map(|(at, rule)| read_one(rule, &format!("{path}[{at}]"), node, errors)).collect()
}

fn read_one(source: &Value, path: &str, node: &Node, errors: &mut Vec<FieldError>) -> Option<Rule> {
    let before = errors.len();
    let text = |name: &str, errors: &mut Vec<FieldError>| match source.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(other) => {
            errors.push(FieldError::type_invalid(child(path, name), other.clone(), "must be a string"));
            None
        }
    };
    let rule = text("rule", errors).unwrap_or_default();
    let message = text("message", errors).filter(|text| !text.is_empty());
    let expression = text("messageExpression", errors).filter(|text| !text.is_empty());
    let field_path = text("fieldPath", errors).filter(|text| !text.is_empty());
    let reason = text("reason", errors);
    let at = |name: &str| child(path, name);
    let trimmed = message.map(str::trim);
    if rule.trim().is_empty() {
        errors.push(FieldError::required(at("rule"), "rule is not specified"));
    } else if let Some("") = trimmed {
        errors.push(FieldError::invalid(at("message"), message, "must be non-empty if specified"));
    } else if trimmed.is_some_and(|text| text.contains('\n')) {
        errors.push(FieldError::invalid(at("message"), message, "must not contain line breaks"));
    } else if rule.trim().contains('\n') && trimmed.is_none() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(at("message"), detail));
    }
    if expression.is_some_and(|text| text.trim().is_empty()) {
        errors.push(FieldError::required(at("messageExpression"), "messageExpression must be non-empty if specified"));
    }
    let known = reason.and_then(|name| REASONS.iter().find(|(known, _)| *known == name));
    if let Some(reason) = reason.filter(|_| known.is_none()) {
        errors.push(FieldError::not_supported(at("reason"), reason, &REASONS.map(|(name, _)| name)));
    }
    let mut shown_path = None;
    if let Some(text) = field_path {
        if text.trim().is_empty() {
            errors.push(FieldError::invalid(at("fieldPath"), text, "must be non-empty if specified"));
        }
        if text.contains('\n') {
            errors.push(FieldError::invalid(at("fieldPath"), text, "must not contain line breaks"));
        }
        shown_path = paths::normal(text, node);
        if shown_path.is_none() {
            errors.push(FieldError::invalid(at("fieldPath"), text, "must be a valid path"));
        }
    }
    let optional_old_self = match source.get("optionalOldSelf") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(value)) => Some(*value),
        Some(other) => {
            errors.push(FieldError::type_invalid(at("optionalOldSelf"), other.clone(), "must be a boolean"));
            None
        }
    };
    (errors.len() == before).then(|| Rule {
        printed: printed(source).into(),
        rule: rule.into(),
        message: message.map(Into::into),
        message_expression: expression.map(Into::into),
        reason: known.map(|(_, reason)| *reason).unwrap_or_default(),
        field_path: shown_path,
        optional_old_self,
    })
}

/// A rule as upstream prints it: its internal form, in Go's JSON.
fn printed(rule: &Value) -> String {
    let go = |value: &Value| {
        let text = value.to_string();
        [("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")].iter().fold(text, |text, (c, to)| text.replace(c, to))
    };
    let text = |name: &str| rule.get(name).filter(|value| !value.is_null()).map_or_else(|| "\"\"".to_owned(), go);
    let or_null = |name: &str| rule.get(name).map_or_else(|| "null".to_owned(), go);
    format!(
        r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{},"FieldPath":{},"OptionalOldSelf":{}}}"#,
        text("rule"),
        text("message"),
        text("messageExpression"),
        or_null("reason"),
        text("fieldPath"),
        or_null("optionalOldSelf")
    )
}

/// A rule that can be run.
#[derive(Debug)]
struct Compiled {
    program: Program,
    uses_old: bool,
    message: Option<Program>,
}

/// What is wrong with a rule, and where: in the rule or in its message expression.
#[derive(Debug)]
enum Wrong {
    Rule(String),
    Message(String),
}

fn variables(rule: &Rule, decl: &Arc<Decl>) -> [(&'static str, CelType); 2] {
    let self_ = CelType::of(decl);
    let old = if rule.wants_old_or_none() { CelType::optional(self_.clone()) } else { self_.clone() };
    [(VARIABLES[0], self_), (VARIABLES[1], old)]
}

fn compile(rule: &Rule, decl: &Arc<Decl>) -> Result<Compiled, Wrong> {
    let variables = variables(rule, decl);
    let compile = |source: &str| Program::compile(source, &variables);
    let failed = |error: CompileError| format!("compilation failed: {error}");
    let program = compile(&rule.rule).map_err(|error| Wrong::Rule(failed(error)))?;
    if !matches!(program.output(), CelType::Bool) {
        return Err(Wrong::Rule("cel expression must evaluate to a bool".to_owned()));
    }
    let message = match &rule.message_expression {
        None => None,
        Some(source) => {
            let message =
                compile(source).map_err(|error| Wrong::Message(format!("messageExpression {}", failed(error))))?;
            if !matches!(message.output(), CelType::String) {
                return Err(Wrong::Message("messageExpression must evaluate to a string".to_owned()));
            }
            Some(message)
        }
    };
    Ok(Compiled { uses_old: program.reads(OLD_SELF), program, message })
}

/// Everything that is wrong with the rules of a schema beyond how they are written; paths are the schema's. `costs`:
/// whether a single rule may be too expensive, which what is there already may be.
pub(super) fn check(root: &Arc<Node>, costs: bool, place: &str) -> Vec<FieldError> {
    let mut check = Check { errors: Vec::new(), place, costs, total: 0, dearest: Vec::new() };
    if has_rules(root) {
        check.node(root, "", declaration(root, true).as_ref(), &Above { lost: None, times: Some(1) });
    }
    if check.total > SCHEMA_COST_MAX {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        check.dearest.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        check.errors.extend(check.dearest.iter().take(4).map(|(path, _)| FieldError::forbidden(path, detail)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        check.errors.push(FieldError::forbidden("", too_dear(what, check.total, SCHEMA_COST_MAX)));
    }
    check.errors
}

/// Whether there is a rule at a place or below.
pub(super) fn has_rules(node: &Node) -> bool {
    !node.rules.is_empty()
        || node.items.as_deref().is_some_and(has_rules)
        || node.properties.iter().any(|(_, field)| has_rules(field))
        || matches!(&node.additional, Additional::Of(inner) if has_rules(inner))
        || node.checks.as_ref().is_some_and(|checks| checks.all_of.iter().any(has_rules))
}

struct Check<'a> {
    errors: Vec<FieldError>,
    place: &'a str,
    costs: bool,
    total: u64,
    /// Rules that are a part of the total worth naming, with what they cost.
    dearest: Vec<(String, u64)>,
}

/// What the places above make of one.
#[derive(Clone, Copy)]
struct Above<'a> {
    /// Where an old value can no longer be found.
    lost: Option<&'a str>,
    /// How often the place may be there; None if nothing bounds it.
    times: Option<u64>,
}

impl Check<'_> {
    fn node(&mut self, node: &Arc<Node>, path: &str, decl: Option<&Arc<Decl>>, above: &Above<'_>) {
        if !node.rules.is_empty() {
            self.rules(node, path, decl, above);
        }
        if let Some(default) = &node.default {
            let findings = Validator::of(node, node.embedded)
                .map(|validator| validator.run(&child(path, "default"), default, None));
            self.errors.extend(findings.into_iter().flat_map(|findings| findings.errors));
        }
        let checks = node.checks.as_deref();
        let within = |most: Option<u64>| above.times.zip(most).map(|(times, most)| times.saturating_mul(most));
        if let Some(items) = node.items.as_ref().filter(|items| has_rules(items)) {
            let lost = above.lost.or(if matches!(node.list, List::Map(_)) { None } else { Some(path) });
            let above = Above { lost, times: within(checks.and_then(|checks| checks.max_items)) };
            self.node(items, &child(path, "items"), declaration(items, items.embedded).as_ref(), &above);
        }
        for (name, field) in node.properties.iter().filter(|(_, field)| has_rules(field)) {
            let path = key(&child(path, "properties"), name);
            self.node(field, &path, declaration(field, field.embedded).as_ref(), above);
        }
        if let Additional::Of(field) = &node.additional
            && has_rules(field)
        {
            let above = Above { times: within(checks.and_then(|checks| checks.max_properties)), ..*above };
            let path = child(path, "additionalProperties");
            self.node(field, &path, declaration(field, field.embedded).as_ref(), &above);
        }
    }

    fn rules(&mut self, node: &Node, path: &str, decl: Option<&Arc<Decl>>, above: &Above<'_>) {
        let path = child(path, KEYWORD);
        let Some(decl) = decl else {
            let detail = "internal error: failed to construct type information for x-kubernetes-validations rules: unable \
                          to convert structural schema to CEL declarations";
            self.errors.push(FieldError::new(FieldErrorKind::InternalError, path, None, detail));
            return;
        };
        let times = above.times.unwrap_or(REQUEST_BYTES_MAX / (decl.min_bytes + 1));
        for (at, rule) in node.rules.iter().enumerate() {
            let path = format!("{path}[{at}]");
            self.cost(rule, decl, times, &path);
            match compile(rule, decl) {
                Err(Wrong::Rule(detail)) => {
                    self.errors.push(rule.wrong(child(&path, "rule"), detail));
                }
                Err(Wrong::Message(detail)) => {
                    self.errors.push(rule.wrong(child(&path, "messageExpression"), detail));
                }
                Ok(compiled) if compiled.uses_old => {
                    if let Some(lost) = above.lost {
                        let detail = format!(
                            "oldSelf cannot be used on the uncorrelatable portion of the schema within {}",
                            child(self.place, lost)
                        );
                        self.errors.push(FieldError::invalid(child(&path, "rule"), &*rule.rule, detail));
                    }
                }
                Ok(_) => {
                    if let Some(said) = rule.optional_old_self {
                        let detail = "may not be set if oldSelf is not used in rule";
                        self.errors.push(FieldError::invalid(child(&path, "optionalOldSelf"), said, detail));
                    }
                }
            }
        }
    }

    /// What a rule may cost at worst, for as often as it may be run.
    fn cost(&mut self, rule: &Rule, decl: &Arc<Decl>, times: u64, path: &str) {
        let variables = variables(rule, decl);
        let parts = [
            ("rule", "estimated rule cost", Some(&rule.rule), times),
            ("messageExpression", "estimated messageExpression cost", rule.message_expression.as_ref(), 1),
        ];
        for (name, what, source, times) in parts {
            let Some(Ok(cost)) = source.map(|source| Program::worst_cost(source, &variables, decl)) else { continue };
            let cost = cost.saturating_mul(times);
            let path = child(path, name);
            self.total = self.total.saturating_add(cost);
            if self.costs && cost > RULE_COST_MAX {
                self.errors.push(FieldError::forbidden(&path, too_dear(what, cost, RULE_COST_MAX)));
            }
            if cost >= SCHEMA_COST_MAX / 100 {
                self.dearest.push((path, cost));
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "only printed")]
fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let shown = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// The type of a place in the words of a schema.
fn type_name(node: &Node) -> &'static str {
    node.type_.map_or("", Type::name)
}
