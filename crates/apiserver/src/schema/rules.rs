//! Rules of a schema (`x-kubernetes-validations`): read, checked when a CRD is admitted, and run on objects (upstream:
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation`, `pkg/apiserver/schema/cel`).

mod declare;
mod paths;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use policy::cel::{CompileError, Decl, Program, Type as CelType};
use serde_json::{Map, Value};

pub(super) use self::{declare::declaration, run::Validator};
use super::{
    Additional, List, Node, Type,
    parse::{child, key},
};
use crate::field::FieldError;

pub(super) const KEYWORD: &str = "x-kubernetes-validations";
/// The variables of a rule, in this order.
const VARIABLES: [&str; 2] = ["self", "oldSelf"];
const OLD_SELF: usize = 1;

/// One rule as it is written.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The whole of it, for errors.
    source: Value,
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
        source: source.clone(),
        rule: rule.into(),
        message: message.map(Into::into),
        message_expression: expression.map(Into::into),
        reason: known.map(|(_, reason)| *reason).unwrap_or_default(),
        field_path: shown_path,
        optional_old_self,
    })
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

fn compile(rule: &Rule, decl: &Arc<Decl>) -> Result<Compiled, Wrong> {
    let self_ = CelType::of(decl);
    let old = if rule.wants_old_or_none() { CelType::optional(self_.clone()) } else { self_.clone() };
    let variables = [(VARIABLES[0], self_), (VARIABLES[1], old)];
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

/// Everything that is wrong with the rules of a schema beyond how they are written; paths are the schema's.
pub(super) fn check(root: &Arc<Node>) -> Vec<FieldError> {
    let mut check = Check { errors: Vec::new() };
    if has_rules(root) {
        check.node(root, "", &declaration(root, true), None);
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

struct Check {
    errors: Vec<FieldError>,
}

impl Check {
    /// `lost`: where above this place an old value can no longer be found.
    fn node(&mut self, node: &Node, path: &str, decl: &Option<Arc<Decl>>, lost: Option<&str>) {
        if !node.rules.is_empty() {
            self.rules(node, path, decl.as_ref(), lost);
        }
        let inner = |field: Option<&Arc<Node>>| field.filter(|field| has_rules(field)).cloned();
        if let Some(items) = inner(node.items.as_ref()) {
            let lost = lost.or(if matches!(node.list, List::Map(_)) { None } else { Some(path) });
            self.node(&items, &child(path, "items"), &declaration(&items, items.embedded), lost);
        }
        for (name, field) in node.properties.iter().filter(|(_, field)| has_rules(field)) {
            self.node(field, &key(&child(path, "properties"), name), &declaration(field, field.embedded), lost);
        }
        if let Additional::Of(field) = &node.additional
            && let Some(field) = inner(Some(field))
        {
            self.node(&field, &child(path, "additionalProperties"), &declaration(&field, field.embedded), lost);
        }
    }

    fn rules(&mut self, node: &Node, path: &str, decl: Option<&Arc<Decl>>, lost: Option<&str>) {
        let path = child(path, KEYWORD);
        let Some(decl) = decl else {
            let detail = "internal error: failed to construct type information for x-kubernetes-validations rules: unable \
                          to convert structural schema to CEL declarations";
            self.errors.push(FieldError::new(crate::field::FieldErrorKind::InternalError, path, None, detail));
            return;
        };
        for (at, rule) in node.rules.iter().enumerate() {
            let path = format!("{path}[{at}]");
            match compile(rule, decl) {
                Err(Wrong::Rule(detail)) => {
                    self.errors.push(FieldError::invalid(child(&path, "rule"), rule.source.clone(), detail));
                }
                Err(Wrong::Message(detail)) => {
                    self.errors.push(FieldError::invalid(
                        child(&path, "messageExpression"),
                        rule.source.clone(),
                        detail,
                    ));
                }
                Ok(compiled) if compiled.uses_old => {
                    if let Some(lost) = lost {
                        let detail =
                            format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
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
}

/// The type of a place in the words of a schema.
fn type_name(node: &Node) -> &'static str {
    node.type_.map_or("", Type::name)
}
