//! CEL, the expression language of Kubernetes' rules and policies: an own parser, type checker and evaluator, with the
//! libraries and the cost model of kube-apiserver 1.36.
//!
//! An expression is compiled once against the types of its variables and evaluated many times, each time within a budget:
//! whatever it does, it ends. Left out: messages (`Type{...}`) other than those of mutating policies, protobuf types, named
//! time zones, escaped identifiers in backticks, and selectors in authorization checks, which roles do not know. Why not a library: `docs/decisions/cel.md`.

use std::fmt::Write;

mod ast;
mod authorizer;
mod check;
mod cost;
mod decl;
mod estimate;
mod eval;
mod format;
mod functions;
mod lexer;
mod library;
mod macros;
mod message;
mod parser;
mod pattern;
mod plan;
mod quantity;
mod semver;
mod time;
mod types;
mod url;
mod value;

#[cfg(test)]
mod tests;

use self::{ast::Name, eval::Run, lexer::Issue, plan::Plan};
pub use self::{
    authorizer::{Authorize, authorizer, resource_check},
    decl::{Decl, DeclKind, Field, Merge, REQUEST_BYTES_MAX, escape},
    eval::{Fault, Variables},
    message::Message,
    pattern::go_regex,
    quantity::Quantity,
    types::Type,
    value::{List, Map, Text, Value},
};

/// The cost that one evaluation may have (`PerCallLimit`).
pub const CALL_COST_MAX: u64 = 1_000_000;
/// The cost that all rules of one object may have together (`RuntimeCELCostBudget`).
pub const OBJECT_COST_MAX: u64 = 10_000_000;
/// Elementary steps (values compared, bytes looked at) that one evaluation may take, whatever their cost is said to be: the
/// cost model charges a comparison of two large objects as one of two small ones.
pub const CALL_WORK_MAX: u64 = 20_000_000;
/// The steps that all rules of one object may take together.
pub const OBJECT_WORK_MAX: u64 = 40_000_000;
/// Bytes that an evaluated message may have (`MaxEvaluatedMessageExpressionSizeBytes`).
pub const MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// Expressions may be nested so deep; it bounds the stack of every walk over one.
pub(crate) const DEPTH_MAX: u16 = 100;

/// An expression that can be evaluated. Immutable; share it.
#[derive(Debug)]
pub struct Program {
    plan: Plan,
    places: usize,
    output: Type,
    /// Which variables it reads, by their place in the declaration.
    reads: Vec<bool>,
}

/// What is wrong with an expression, as cel-go words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CompileError {
    text: String,
}

/// What evaluations may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// In the units of Kubernetes' cost model.
    pub cost: u64,
    /// In elementary steps.
    pub work: u64,
}

impl Budget {
    /// What one evaluation may use.
    pub const CALL: Self = Self { cost: CALL_COST_MAX, work: CALL_WORK_MAX };
    /// What all rules of one object may use.
    pub const OBJECT: Self = Self { cost: OBJECT_COST_MAX, work: OBJECT_WORK_MAX };

    /// What is left of it for one evaluation.
    pub fn call(self) -> Self {
        Self { cost: CALL_COST_MAX, work: self.work.min(CALL_WORK_MAX) }
    }

    /// What is left after an evaluation; None if that was more than there was.
    pub fn after(self, used: Self) -> Option<Self> {
        Some(Self { cost: self.cost.checked_sub(used.cost)?, work: self.work.saturating_sub(used.work) })
    }
}

/// What came of an evaluation.
#[derive(Debug)]
pub struct Outcome<'v> {
    pub result: Result<Value<'v>, Fault>,
    pub used: Budget,
}

impl Program {
    /// Compiles an expression over variables of these names and types.
    pub fn compile(source: &str, variables: &[(&str, Type)]) -> Result<Self, CompileError> {
        Self::compile_with(source, variables, false)
    }

    /// The same for an expression that may make `Object{...}` and `JSONPatch{...}`, as those of mutating policies do.
    pub fn compile_patch(source: &str, variables: &[(&str, Type)]) -> Result<Self, CompileError> {
        Self::compile_with(source, variables, true)
    }

    fn compile_with(source: &str, variables: &[(&str, Type)], messages: bool) -> Result<Self, CompileError> {
        let variables: Vec<(Name, Type)> =
            variables.iter().map(|(name, type_)| (Name::from(*name), type_.clone())).collect();
        let shown = |issues: Vec<Issue>| CompileError { text: report(source, issues) };
        let (expr, ids) = parser::parse(source).map_err(|issue| shown(vec![issue]))?;
        let checked = check::check(&expr, ids, &variables, messages).map_err(shown)?;
        let (plan, places) = plan::plan(&expr, &checked).map_err(|issue| shown(vec![issue]))?;
        let mut reads = vec![false; variables.len()];
        for reference in checked.references.iter().flatten() {
            if let check::Reference::Variable(at) = reference
                && let Some(read) = reads.get_mut(*at)
            {
                *read = true;
            }
        }
        Ok(Self { plan, places, output: plan::output(&expr, &checked), reads })
    }

    /// What an expression may cost at worst over variables that all are what `root` declares. Costs as much as compiling.
    pub fn worst_cost(source: &str, variables: &[(&str, Type)], root: &Decl) -> Result<u64, CompileError> {
        let variables: Vec<(Name, Type)> =
            variables.iter().map(|(name, type_)| (Name::from(*name), type_.clone())).collect();
        let shown = |issues: Vec<Issue>| CompileError { text: report(source, issues) };
        let (expr, ids) = parser::parse(source).map_err(|issue| shown(vec![issue]))?;
        let checked = check::check(&expr, ids, &variables, false).map_err(shown)?;
        Ok(estimate::worst(&expr, &checked, root))
    }

    /// The type of what it evaluates to.
    pub fn output(&self) -> &Type {
        &self.output
    }

    /// Whether it speaks of the variable declared at that place.
    pub fn reads(&self, variable: usize) -> bool {
        self.reads.get(variable).copied().unwrap_or(false)
    }

    /// Evaluates over the variables' values, in the order of their declaration. Ends when the budget is used up.
    pub fn evaluate<'v>(&self, variables: &[Value<'v>], budget: Budget) -> Outcome<'v> {
        self.evaluate_over(&variables, budget)
    }

    /// The same, with values that are looked up when they are read.
    pub fn evaluate_over<'v>(&self, variables: &dyn Variables<'v>, budget: Budget) -> Outcome<'v> {
        let mut run = Run::new(variables, self.places, budget);
        let result = run.eval(&self.plan);
        Outcome { result, used: Budget { cost: run.meter.cost, work: run.meter.work } }
    }
}

/// Issues as cel-go prints them: the place, the text, the line and a mark below it.
fn report(source: &str, mut issues: Vec<Issue>) -> String {
    issues.sort_by_key(|issue| issue.at);
    issues.dedup();
    let mut out = String::new();
    for issue in issues {
        if !out.is_empty() {
            out.push('\n');
        }
        let at = usize::try_from(issue.at).unwrap_or(usize::MAX);
        let before: Vec<char> = source.chars().take(at).collect();
        let line = before.iter().filter(|c| **c == '\n').count();
        let column = before.iter().rev().take_while(|c| **c != '\n').count();
        let text = source.split('\n').nth(line).unwrap_or_default();
        let _ = write!(out, "ERROR: <input>:{}:{}: {}\n | {text}\n | ", line + 1, column + 1, issue.text);
        // Below wide characters stand wide marks.
        let mut chars = text.chars();
        out.extend(chars.by_ref().take(column).map(|c| if c.len_utf8() > 1 { '．' } else { '.' }));
        out.push(if chars.next().is_some_and(|c| c.len_utf8() > 1) { '＾' } else { '^' });
    }
    out
}
