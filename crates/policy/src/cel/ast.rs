//! The tree of an expression, macros already expanded.

use std::sync::Arc;

use super::value::Value;

/// A name; shared by all places that speak of it.
pub(super) type Name = Arc<str>;

#[derive(Clone, Debug)]
pub(super) struct Expr {
    /// Index into the tables that the checker fills. A tree that a macro repeats keeps its numbers.
    pub id: u32,
    /// Where it starts, in characters.
    pub at: u32,
    /// The longest way down to a leaf; bounds every recursion over the tree.
    pub depth: u16,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Const(Value<'static>),
    Ident(Name),
    Select {
        operand: Box<Expr>,
        field: Name,
        /// From `has(operand.field)`.
        test_only: bool,
    },
    Call {
        target: Option<Box<Expr>>,
        function: Name,
        args: Vec<Expr>,
    },
    /// Elements, and whether each is optional (`?x`).
    List(Vec<(Expr, bool)>),
    /// Keys, values, and whether each entry is optional.
    Map(Vec<(Expr, Expr, bool)>),
    /// A message by name, with its fields: where the colon of each is, and whether it is optional.
    Struct(Name, Vec<(Name, u32, Expr, bool)>),
    Fold(Box<Fold>),
}

/// A comprehension. Iterates over a list or the keys of a map; with two variables over (index, item) or (key, value).
#[derive(Clone, Debug)]
pub(super) struct Fold {
    pub range: Expr,
    pub var: Name,
    pub var2: Option<Name>,
    pub accu: Name,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

impl Expr {
    /// Calls `f` with each expression right below this one.
    pub fn children(&self, f: &mut dyn FnMut(&Self)) {
        match &self.kind {
            Kind::Const(_) | Kind::Ident(_) => {}
            Kind::Struct(_, fields) => fields.iter().for_each(|(_, _, value, _)| f(value)),
            Kind::Select { operand, .. } => f(operand),
            Kind::Call { target, args, .. } => {
                if let Some(target) = target {
                    f(target);
                }
                args.iter().for_each(f);
            }
            Kind::List(items) => items.iter().for_each(|(item, _)| f(item)),
            Kind::Map(entries) => entries.iter().for_each(|(key, value, _)| {
                f(key);
                f(value);
            }),
            Kind::Fold(fold) => {
                for inner in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                    f(inner);
                }
            }
        }
    }

    /// `a.b.c` as written, if it is names alone.
    pub fn qualified(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, test_only: false } => Some(format!("{}.{field}", operand.qualified()?)),
            _ => None,
        }
    }
}
