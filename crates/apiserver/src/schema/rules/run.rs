//! Running the rules of a schema on an object, within one budget for all.

use std::{cell::OnceCell, sync::Arc};

use policy::cel::{Budget, Decl, Fault, MESSAGE_BYTES_MAX, Value as Cel};
use serde_json::Value;

use super::{
    super::{Additional, Node, lists::Past, validate::NOWHERE},
    Compiled, OLD_SELF, Reason, Rule, Wrong, compile, declaration, has_rules, type_name,
};
use crate::field::{FieldError, FieldErrorKind};

/// The rules of a place and of all below it, compiled. Places without rules are left out.
#[derive(Debug)]
pub(in super::super) struct Validator {
    node: Arc<Node>,
    /// None: expressions cannot speak of it.
    decl: Option<Arc<Decl>>,
    rules: Vec<Result<Compiled, Wrong>>,
    items: Option<Box<Self>>,
    properties: Vec<(Box<str>, Self)>,
    additional: Option<Box<Self>>,
    all_of: Vec<Self>,
}

/// What came of the rules.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub errors: Vec<FieldError>,
    /// Errors of parts that were that way before.
    pub ratcheted: Vec<FieldError>,
}

const SPENT: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

impl Validator {
    /// None if there are no rules.
    pub fn of(root: &Arc<Node>, resource: bool) -> Option<Self> {
        has_rules(root).then(|| Self::node(root, root, declaration(root, resource)))
    }

    /// `rules`: the node whose rules are taken, which is not `node` within `allOf`.
    fn node(rules: &Arc<Node>, node: &Arc<Node>, decl: Option<Arc<Decl>>) -> Self {
        let compiled = match &decl {
            None => Vec::new(),
            Some(decl) => rules.rules.iter().map(|rule| compile(rule, decl)).collect(),
        };
        let below = |rules: &Arc<Node>, node: &Arc<Node>| {
            has_rules(rules).then(|| Self::node(rules, node, declaration(node, node.embedded)))
        };
        let additional = match (&rules.additional, &node.additional) {
            (Additional::Of(rules), Additional::Of(node)) => below(rules, node).map(Box::new),
            _ => None,
        };
        let properties = rules
            .properties
            .iter()
            .filter_map(|(name, rules)| Some((name.clone(), below(rules, node.property(name)?)?)));
        let all_of = rules.checks.as_ref().map_or(&[][..], |checks| &checks.all_of);
        let all_of = all_of.iter().filter(|branch| has_rules(branch));
        Self {
            node: Arc::clone(rules),
            rules: compiled,
            items: rules
                .items
                .as_ref()
                .zip(node.items.as_ref())
                .and_then(|(rules, node)| below(rules, node))
                .map(Box::new),
            properties: properties.collect(),
            additional,
            all_of: all_of.map(|branch| Self::node(&Arc::new(branch.clone()), node, decl.clone())).collect(),
            decl,
        }
    }

    /// `path`: where the object is.
    pub fn run(&self, path: &str, object: &Value, old: Option<&Value>) -> Findings {
        let mut run = Run { findings: Findings::default(), left: Some(Budget::OBJECT), path: path.to_owned() };
        run.place(self, object, old, None);
        run.findings
    }
}

struct Run {
    findings: Findings,
    /// None: used up, nothing more is run.
    left: Option<Budget>,
    path: String,
}

/// A value that has a past.
struct Link<'a> {
    now: &'a Value,
    before: &'a Value,
    /// Found out once, for many may ask.
    same: OnceCell<bool>,
}

impl Link<'_> {
    fn is_same(&self) -> bool {
        *self.same.get_or_init(|| self.now == self.before)
    }
}

/// The nearest value above (or here) that has a past.
type Known<'a> = Option<&'a Link<'a>>;

impl Run {
    fn place(&mut self, at: &Validator, value: &Value, old: Option<&Value>, above: Known<'_>) {
        if value.is_null() || self.left.is_none() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        let link = old.map(|before| Link { now: value, before, same: OnceCell::new() });
        let known = link.as_ref().or(above);
        self.rules(at, value, old, known);
        for branch in &at.all_of {
            self.place(branch, value, old, above);
        }
        match value {
            Value::Array(items) => {
                let Some(validator) = &at.items else { return };
                let past = Past::of(&at.node, old);
                for (index, item) in items.iter().enumerate() {
                    self.below(&format!("[{index}]"), validator, item, past.of_item(item), known);
                }
            }
            Value::Object(fields) => {
                if let Some(validator) = &at.additional {
                    for (name, value) in fields {
                        let old = old.and_then(|old| old.get(name));
                        self.below(&format!("[{name}]"), validator, value, old, known);
                    }
                }
                for (name, validator) in &at.properties {
                    let Some(value) = fields.get(&**name) else { continue };
                    let old = old.and_then(|old| old.get(&**name));
                    let step = if self.path.is_empty() { name.to_string() } else { format!(".{name}") };
                    self.below(&step, validator, value, old, known);
                }
            }
            _ => {}
        }
    }

    fn below(&mut self, step: &str, at: &Validator, value: &Value, old: Option<&Value>, above: Known<'_>) {
        let mark = self.path.len();
        self.path.push_str(step);
        self.place(at, value, old, above);
        self.path.truncate(mark);
    }

    fn stop(&mut self, at: &Validator, detail: String) {
        self.left = None;
        self.fail(at, detail);
    }

    fn fail(&mut self, at: &Validator, detail: String) {
        let path = if self.path.is_empty() { NOWHERE } else { &self.path };
        self.findings.errors.push(FieldError::invalid(path, type_name(&at.node), detail));
    }

    fn rules(&mut self, at: &Validator, value: &Value, old: Option<&Value>, known: Known<'_>) {
        if at.rules.is_empty() {
            return;
        }
        let Some(decl) = &at.decl else { return };
        let here = Cel::of(value, decl);
        let before = old.map(|old| Cel::of(old, decl));
        for (rule, compiled) in at.node.rules.iter().zip(&at.rules) {
            let compiled = match compiled {
                Ok(compiled) => compiled,
                Err(Wrong::Rule(detail)) => {
                    self.fail(at, format!("rule compile error: {detail}"));
                    continue;
                }
                // Without its own message the rule still holds.
                Err(Wrong::Message(_)) => continue,
            };
            if self.left.is_none() {
                return;
            }
            let optional = rule.wants_old_or_none();
            if compiled.uses_old && old.is_none() && !optional {
                continue;
            }
            let variables = match variables(&here, before.as_ref(), optional) {
                Ok(variables) => variables,
                Err(fault) => {
                    self.fail(at, format!("{fault} evaluating rule: {}", rule.shown()));
                    continue;
                }
            };
            self.rule(at, rule, compiled, &variables, (value, known));
        }
    }

    fn rule(
        &mut self,
        at: &Validator,
        rule: &Rule,
        compiled: &Compiled,
        variables: &[Cel<'_>],
        (value, known): (&Value, Known<'_>),
    ) {
        let Some(budget) = self.left else { return };
        let outcome = compiled.program.evaluate(variables, budget.call());
        let Some(left) = budget.after(outcome.used) else {
            return self.stop(at, SPENT.to_owned());
        };
        self.left = Some(left);
        let shown = rule.shown();
        match outcome.result {
            Ok(Cel::Bool(true)) => return,
            Ok(_) => {}
            Err(fault @ Fault::OverBudget) => {
                let text = format!(
                    "'{fault}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                );
                return self.stop(at, text);
            }
            Err(Fault::Failed(text)) if text.starts_with("no such overload") => {
                let text = format!(
                    "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                );
                return self.fail(at, text);
            }
            Err(fault) => return self.fail(at, format!("{fault} evaluating rule: {shown}")),
        }
        let detail = match compiled.message.as_ref().map(|program| self.message(at, rule, program, variables)) {
            None | Some(Said::Nothing) => match &rule.message {
                Some(message) => message.trim().to_owned(),
                None => format!("failed rule: {shown}"),
            },
            Some(Said::Text(text)) => text,
            Some(Said::Stop) => return,
        };
        let error = self.error(rule, value, detail);
        let same = known.is_some_and(Link::is_same);
        if same && !compiled.uses_old {
            self.findings.ratcheted.push(error);
        } else {
            self.findings.errors.push(error);
        }
    }

    fn error(&self, rule: &Rule, value: &Value, detail: String) -> FieldError {
        let path = match &rule.field_path {
            Some(field) if self.path.is_empty() => field.clone(),
            Some(field) => format!("{}.{field}", self.path),
            None if self.path.is_empty() => NOWHERE.to_owned(),
            None => self.path.clone(),
        };
        // Objects and lists are not printed.
        let value = (!value.is_object() && !value.is_array()).then(|| as_go_prints(value));
        match rule.reason {
            Reason::Invalid => FieldError::new(FieldErrorKind::Invalid, path, value, detail),
            Reason::Forbidden => FieldError::forbidden(path, detail),
            Reason::Required => FieldError::required(path, detail),
            Reason::Duplicate => FieldError::new(FieldErrorKind::Duplicate, path, value, ""),
        }
    }

    /// The message of a rule that does not hold, if its expression comes to one.
    fn message(&mut self, at: &Validator, rule: &Rule, program: &policy::cel::Program, variables: &[Cel<'_>]) -> Said {
        let Some(budget) = self.left else { return Said::Stop };
        let outcome = program.evaluate(variables, budget.call());
        let Some(left) = budget.after(outcome.used) else {
            let detail = "messageExpression evaluation failed due to running out of cost budget, no further validation \
                          rules will be run";
            self.stop(at, detail.to_owned());
            return Said::Stop;
        };
        self.left = Some(left);
        match outcome.result {
            Err(Fault::OverBudget) => {
                let source = rule.message_expression.as_deref().unwrap_or_default();
                let detail = format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {source:?}"
                );
                self.stop(at, detail);
                Said::Stop
            }
            Ok(Cel::String(text)) => {
                let text = text.as_str().trim();
                let fits = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
                if fits { Said::Text(text.to_owned()) } else { Said::Nothing }
            }
            _ => Said::Nothing,
        }
    }
}

/// Numbers without a fraction are printed without a point.
fn as_go_prints(value: &Value) -> Value {
    match value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0 && number.abs() < 1e15) {
        #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
        Some(number) => (number as i64).into(),
        None => value.clone(),
    }
}

enum Said {
    Text(String),
    Nothing,
    Stop,
}

/// `self` and `oldSelf`.
fn variables<'v>(
    here: &Result<Cel<'v>, Fault>,
    before: Option<&Result<Cel<'v>, Fault>>,
    optional: bool,
) -> Result<[Cel<'v>; 2], Fault> {
    let before = before.cloned().transpose()?;
    let mut both = [here.clone()?, Cel::Null];
    if let Some(old) = both.get_mut(OLD_SELF) {
        *old = match (before, optional) {
            (before, true) => Cel::Optional(before.map(Arc::new)),
            (Some(before), false) => before,
            (None, false) => Cel::Null,
        };
    }
    Ok(both)
}
