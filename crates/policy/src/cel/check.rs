//! Types of expressions (cel-go `checker`): says what is undeclared or does not fit before anything runs.

use std::{fmt::Write, sync::Arc};

use super::{
    ast::{Expr, Fold, Kind, Name},
    lexer::Issue,
    library::{self, Overload},
    message,
    types::Type,
    value::Value,
};

/// What an expression's name or call stands for.
#[derive(Clone, Debug)]
pub(super) enum Reference {
    /// A declared variable.
    Variable(usize),
    Type(Type),
    /// A function: its whole name, the overloads that fit, and whether the target is the first argument rather than part
    /// of the name.
    Function {
        name: Name,
        overloads: Vec<Arc<str>>,
        target: bool,
    },
}

#[derive(Debug)]
pub(super) struct Checked {
    pub types: Vec<Type>,
    pub references: Vec<Option<Reference>>,
}

/// Types everything below `expr`. `variables` are those that the environment declares.
pub(super) fn check(expr: &Expr, ids: u32, variables: &[(Name, Type)], messages: bool) -> Result<Checked, Vec<Issue>> {
    let count = usize::try_from(ids).unwrap_or(0);
    let mut checker = Checker {
        variables,
        messages,
        locals: Vec::new(),
        types: vec![Type::Dyn; count],
        references: vec![None; count],
        bound: Vec::new(),
        trail: Vec::new(),
        issues: Vec::new(),
        mixed: 0,
    };
    checker.expr(expr);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let types = checker.types.iter().map(|type_| checker.resolved(type_)).collect();
    Ok(Checked { types, references: checker.references })
}

struct Checker<'a> {
    variables: &'a [(Name, Type)],
    /// Whether expressions may make messages.
    messages: bool,
    locals: Vec<(Name, Type)>,
    types: Vec<Type>,
    references: Vec<Option<Reference>>,
    /// What each type parameter was found to be.
    bound: Vec<Option<Type>>,
    /// Parameters in the order they were bound: to take back an attempt.
    trail: Vec<u32>,
    issues: Vec<Issue>,
    /// How many calls of functions that take lists of anything this is within.
    mixed: u32,
}

/// Functions whose arguments may be literals of several types.
const MIXED: [&str; 1] = ["format"];

impl Checker<'_> {
    fn issue(&mut self, at: u32, text: String) {
        self.issues.push(Issue { at, text });
    }

    fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Param(u32::try_from(self.bound.len() - 1).unwrap_or(u32::MAX))
    }

    /// A type with what is known of its parameters put in.
    fn resolved(&self, type_: &Type) -> Type {
        match type_ {
            Type::Param(n) => match self.binding(*n) {
                Some(bound) => self.resolved(bound),
                None => type_.clone(),
            },
            Type::List(of) => Type::list(self.resolved(of)),
            Type::Optional(of) => Type::optional(self.resolved(of)),
            Type::Type(of) => Type::Type(Arc::new(self.resolved(of))),
            Type::Map(of) => Type::map(self.resolved(&of.0), self.resolved(&of.1)),
            other => other.clone(),
        }
    }

    fn binding(&self, param: u32) -> Option<&Type> {
        self.bound.get(usize::try_from(param).ok()?)?.as_ref()
    }

    fn bind(&mut self, param: u32, type_: &Type) -> bool {
        let type_ = self.resolved(type_);
        if matches!(type_, Type::Param(n) if n == param) {
            return true;
        }
        if self.mentions(&type_, param) {
            return false;
        }
        if let Some(place) = usize::try_from(param).ok().and_then(|at| self.bound.get_mut(at)) {
            *place = Some(type_);
            self.trail.push(param);
        }
        true
    }

    fn mentions(&self, type_: &Type, param: u32) -> bool {
        match type_ {
            Type::Param(n) => *n == param,
            Type::List(of) | Type::Optional(of) | Type::Type(of) => self.mentions(of, param),
            Type::Map(of) => self.mentions(&of.0, param) || self.mentions(&of.1, param),
            _ => false,
        }
    }

    fn undo(&mut self, to: usize) {
        for param in self.trail.drain(to..) {
            if let Some(place) = usize::try_from(param).ok().and_then(|at| self.bound.get_mut(at)) {
                *place = None;
            }
        }
    }

    /// Whether a value of type `from` may stand where `to` is asked for; binds parameters.
    fn fits(&mut self, from: &Type, to: &Type) -> bool {
        match (from, to) {
            (_, Type::Param(n)) => match self.binding(*n).cloned() {
                Some(bound) => self.fits(from, &bound),
                None => self.bind(*n, from),
            },
            (Type::Param(n), _) => match self.binding(*n).cloned() {
                Some(bound) => self.fits(&bound, to),
                None => self.bind(*n, to),
            },
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, _) => matches!(
                to,
                Type::Null
                    | Type::Duration
                    | Type::Timestamp
                    | Type::Object(_)
                    | Type::Message(_)
                    | Type::Opaque(_)
                    | Type::Optional(_)
            ),
            // What a parameter was bound to by a null before.
            (Type::Object(_) | Type::Message(_) | Type::Duration | Type::Timestamp | Type::Opaque(_), Type::Null) => {
                true
            }
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.fits(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Map(a), Type::Map(b)) => self.fits(&a.0, &b.0) && self.fits(&a.1, &b.1),
            _ => from.same(to),
        }
    }

    fn set(&mut self, expr: &Expr, type_: Type) -> Type {
        if let Some(place) = usize::try_from(expr.id).ok().and_then(|id| self.types.get_mut(id)) {
            *place = type_.clone();
        }
        type_
    }

    fn refer(&mut self, expr: &Expr, reference: Reference) {
        if let Some(place) = usize::try_from(expr.id).ok().and_then(|id| self.references.get_mut(id)) {
            *place = Some(reference);
        }
    }

    fn expr(&mut self, expr: &Expr) -> Type {
        let type_ = match &expr.kind {
            Kind::Const(value) => constant(value),
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select { operand, field, test_only } => self.select(expr, operand, field, *test_only),
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => {
                let mut of = None;
                for (item, optional) in items {
                    let found = self.entry(item, *optional);
                    of = Some(self.join(of, found, item.at));
                }
                let of = of.unwrap_or_else(|| self.fresh());
                Type::list(of)
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (key, value, optional) in entries {
                    let found = self.expr(key);
                    keys = Some(self.join(keys, found, key.at));
                    let found = self.entry(value, *optional);
                    values = Some(self.join(values, found, value.at));
                }
                let keys = keys.unwrap_or_else(|| self.fresh());
                let values = values.unwrap_or_else(|| self.fresh());
                Type::map(keys, values)
            }
            Kind::Struct(name, fields) if self.messages && message::is_known(name) => self.message(expr, name, fields),
            Kind::Struct(name, _) => {
                self.issue(expr.at, format!("undeclared reference to '{name}' (in container '')"));
                Type::Dyn
            }
            Kind::Fold(fold) => self.fold(fold),
        };
        self.set(expr, type_)
    }

    fn message(&mut self, expr: &Expr, name: &Name, fields: &[(Name, u32, Expr, bool)]) -> Type {
        for (field, colon, value, optional) in fields {
            let found = self.entry(value, *optional);
            let Some(wanted) = message::field(name, field) else {
                self.issue(expr.at, format!("undefined field '{field}'"));
                continue;
            };
            let mark = self.trail.len();
            if !self.fits(&found, &wanted) {
                self.undo(mark);
                let found = self.resolved(&found);
                let text = format!("expected type of field '{field}' is '{wanted}' but provided type is '{found}'");
                self.issue(*colon, text);
            }
        }
        Type::Message(name.clone())
    }

    /// An item of a literal; an optional one is of what is in it.
    fn entry(&mut self, item: &Expr, optional: bool) -> Type {
        let found = self.expr(item);
        if !optional {
            return found;
        }
        match self.resolved(&found) {
            Type::Optional(of) => (*of).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                self.issue(item.at, format!("expected type 'optional_type({other})' but found '{other}'"));
                Type::Dyn
            }
        }
    }

    /// All items of a literal are of one type.
    fn join(&mut self, before: Option<Type>, found: Type, at: u32) -> Type {
        let Some(before) = before else { return found };
        let mark = self.trail.len();
        if self.fits(&found, &before) {
            let before = self.resolved(&before);
            return if self.resolved(&found).is_dyn() { Type::Dyn } else { before };
        }
        self.undo(mark);
        if self.mixed == 0 {
            let (before, found) = (self.resolved(&before), self.resolved(&found));
            self.issue(at, format!("expected type '{before}' but found '{found}'"));
        }
        Type::Dyn
    }

    fn ident(&mut self, expr: &Expr, name: &Name) -> Type {
        if let Some((_, type_)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return type_.clone();
        }
        match self.global(expr, name) {
            Some(type_) => type_,
            None => {
                self.issue(expr.at, format!("undeclared reference to '{name}' (in container '')"));
                Type::Dyn
            }
        }
    }

    fn global(&mut self, expr: &Expr, name: &str) -> Option<Type> {
        if let Some(at) = self.variables.iter().position(|(variable, _)| **variable == *name) {
            self.refer(expr, Reference::Variable(at));
            return self.variables.get(at).map(|(_, type_)| type_.clone());
        }
        let type_ = Type::by_name(name)?;
        self.refer(expr, Reference::Type(type_.clone()));
        Some(Type::Type(Arc::new(type_)))
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test_only: bool) -> Type {
        if !test_only && let Some(name) = expr.qualified() {
            let root = name.split('.').next().unwrap_or_default();
            let shadowed = self.locals.iter().any(|(local, _)| **local == *root);
            if !shadowed && let Some(type_) = self.global(expr, &name) {
                return type_;
            }
        }
        let of = self.expr(operand);
        let found = self.field(expr.at, &of, field, false);
        if test_only { Type::Bool } else { found }
    }

    fn field(&mut self, at: u32, of: &Type, field: &str, optional: bool) -> Type {
        let of = self.resolved(of);
        let (of, wrapped) = match of {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, false),
        };
        let found = match &of {
            Type::Dyn => Type::Dyn,
            Type::Map(inner) => inner.1.clone(),
            Type::Object(decl) => match decl.field(field) {
                Some(field) => Type::of(&field.decl),
                None => {
                    self.issue(at, format!("undefined field '{field}'"));
                    Type::Dyn
                }
            },
            Type::Message(name) => message::field(name, field).unwrap_or_else(|| {
                self.issue(at, format!("undefined field '{field}'"));
                Type::Dyn
            }),
            Type::Param(n) => {
                self.bind(*n, &Type::Dyn);
                Type::Dyn
            }
            other => {
                self.issue(at, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if wrapped || optional { Type::optional(found) } else { found }
    }

    fn overloads(&self, name: &str) -> Option<&'static [Overload]> {
        library::overloads(name).filter(|_| self.messages || name != library::ESCAPE_KEY)
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &Name, args: &[Expr]) -> Type {
        match (&**function, args) {
            ("_&&_" | "_||_", args) => {
                for arg in args {
                    let found = self.expr(arg);
                    self.expect(arg, &found, &Type::Bool);
                }
                return Type::Bool;
            }
            ("_?_:_", [condition, truthy, falsy]) => return self.conditional(expr, condition, truthy, falsy),
            ("_?._", [operand, field]) => {
                let of = self.expr(operand);
                self.expr(field);
                let Kind::Const(Value::String(name)) = &field.kind else { return Type::Dyn };
                return self.field(expr.at, &of, name.as_str(), true);
            }
            _ => {}
        }
        let mut types = Vec::new();
        let mut name = function.clone();
        let mut has_target = false;
        if let Some(target) = target {
            let qualified = target.qualified().map(|prefix| format!("{prefix}.{function}"));
            match qualified.filter(|whole| self.overloads(whole).is_some()) {
                Some(whole) => name = whole.into(),
                None => {
                    has_target = true;
                    types.push(self.expr(target));
                }
            }
        }
        let mixed = u32::from(MIXED.contains(&&**function));
        self.mixed += mixed;
        types.extend(args.iter().map(|arg| self.expr(arg)));
        self.mixed -= mixed;
        let Some(overloads) = self.overloads(&name) else {
            self.issue(expr.at, format!("undeclared reference to '{function}' (in container '')"));
            return Type::Dyn;
        };
        if let (1, Some(Expr { kind: Kind::Const(Value::String(text)), .. }), [list]) = (mixed, target, args) {
            self.format(expr, text.as_str(), list);
        }
        let (found, fitting) = self.resolve(overloads, has_target, &types);
        if fitting.is_empty() {
            let text = self.mismatch(&name, has_target, &types);
            self.issue(expr.at, text);
        }
        self.refer(expr, Reference::Function { name, overloads: fitting, target: has_target });
        found
    }

    /// Whether what is to be formatted fits a format that is written out.
    fn format(&mut self, call: &Expr, text: &str, list: &Expr) {
        let Kind::List(items) = &list.kind else { return };
        let mut next = 0;
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('%') {
            if let Some(after) = after.strip_prefix('%') {
                rest = after;
                continue;
            }
            let after = after.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            let mut chars = after.chars();
            let Some(clause) = chars.next() else { return };
            rest = chars.as_str();
            let Some(takes) = takes(clause) else {
                let text = format!("could not parse formatting clause: unrecognized formatting clause \"{clause}\"");
                return self.issue(call.at, text);
            };
            let Some((item, _)) = items.get(next) else {
                return self.issue(call.at, format!("index {next} out of range"));
            };
            next += 1;
            let found = usize::try_from(item.id).ok().and_then(|id| self.types.get(id)).cloned().unwrap_or(Type::Dyn);
            let found = self.resolved(&found);
            if !matches!(found, Type::Dyn | Type::Param(_)) && !takes.0(&found) {
                let text = format!("error during formatting: {}, was given {}", takes.1, found.name());
                return self.issue(item.at, text);
            }
        }
    }

    fn conditional(&mut self, expr: &Expr, condition: &Expr, truthy: &Expr, falsy: &Expr) -> Type {
        let types = [self.expr(condition), self.expr(truthy), self.expr(falsy)];
        let [asked, yes, no] = &types;
        let mark = self.trail.len();
        if self.fits(asked, &Type::Bool) && self.fits(no, yes) {
            let (yes, no) = (self.resolved(yes), self.resolved(no));
            return match (&yes, &no) {
                (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
                (Type::Null, _) => no,
                _ => yes,
            };
        }
        self.undo(mark);
        let text = self.mismatch("_?_:_", false, &types);
        self.issue(expr.at, text);
        Type::Dyn
    }

    fn mismatch(&self, name: &str, target: bool, types: &[Type]) -> String {
        let shown = |types: &[Type]| {
            let names: Vec<_> = types.iter().map(|type_| self.resolved(type_).to_string()).collect();
            names.join(", ")
        };
        let mut text = format!("found no matching overload for '{name}' applied to '");
        let _ = match types.split_first().filter(|_| target) {
            Some((first, rest)) => write!(text, "{}.({})'", self.resolved(first), shown(rest)),
            None => write!(text, "({})'", shown(types)),
        };
        text
    }

    /// The type of a call and the overloads that fit; dyn where several of them disagree.
    fn resolve(&mut self, overloads: &[Overload], target: bool, types: &[Type]) -> (Type, Vec<Arc<str>>) {
        let mut fitting = Vec::new();
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|o| o.member == target && o.args.len() == types.len()) {
            let mark = self.trail.len();
            let fresh: Vec<_> = (0..overload.params).map(|_| self.fresh()).collect();
            let fits = overload.args.iter().zip(types).all(|(to, from)| self.fits(from, &instance(to, &fresh)));
            if !fits {
                self.undo(mark);
                continue;
            }
            fitting.push(overload.id.clone());
            let found = instance(&overload.result, &fresh);
            result = Some(match result {
                None => found,
                Some(before) if self.resolved(&before).same(&self.resolved(&found)) => before,
                Some(_) => Type::Dyn,
            });
        }
        (result.unwrap_or(Type::Dyn), fitting)
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let range = self.expr(&fold.range);
        let range = self.resolved(&range);
        let init = self.expr(&fold.init);
        let (first, second) = match &range {
            Type::List(of) if fold.var2.is_some() => (Type::Int, (**of).clone()),
            Type::List(of) => ((**of).clone(), Type::Dyn),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Dyn | Type::Param(_) => (Type::Dyn, Type::Dyn),
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(fold.range.at, text);
                (Type::Dyn, Type::Dyn)
            }
        };
        let depth = self.locals.len();
        self.locals.push((fold.accu.clone(), init.clone()));
        self.locals.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.locals.push((var2.clone(), second));
        }
        let condition = self.expr(&fold.condition);
        self.expect(&fold.condition, &condition, &Type::Bool);
        let step = self.expr(&fold.step);
        self.expect(&fold.step, &step, &init);
        self.locals.truncate(depth + 1);
        let result = self.expr(&fold.result);
        self.locals.truncate(depth);
        self.resolved(&result)
    }

    fn expect(&mut self, expr: &Expr, found: &Type, wanted: &Type) {
        let mark = self.trail.len();
        if !self.fits(found, wanted) {
            self.undo(mark);
            let (found, wanted) = (self.resolved(found), self.resolved(wanted));
            self.issue(expr.at, format!("expected type '{wanted}' but found '{found}'"));
        }
    }
}

/// What a formatting clause takes, as a test and in words.
type Takes = (fn(&Type) -> bool, &'static str);

fn takes(clause: char) -> Option<Takes> {
    Some(match clause {
        's' => (
            |found| !matches!(found, Type::Optional(_) | Type::Opaque(_) | Type::Object(_)),
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and \
             timestamps",
        ),
        'd' => (|found| matches!(found, Type::Int | Type::Uint), "decimal clause can only be used on integers"),
        'f' => (|found| matches!(found, Type::Double), "fixed-point clause can only be used on doubles"),
        'e' => (|found| matches!(found, Type::Double), "scientific clause can only be used on doubles"),
        'b' => (
            |found| matches!(found, Type::Int | Type::Uint | Type::Bool),
            "only integers and bools can be formatted as binary",
        ),
        'o' => (|found| matches!(found, Type::Int | Type::Uint), "octal clause can only be used on integers"),
        'x' | 'X' => (
            |found| matches!(found, Type::Int | Type::Uint | Type::Bytes | Type::String),
            "only integers, byte buffers, and strings can be formatted as hex",
        ),
        _ => return None,
    })
}

fn constant(value: &Value<'_>) -> Type {
    value.type_()
}

/// A declared type with this call's own parameters.
fn instance(type_: &Type, fresh: &[Type]) -> Type {
    match type_ {
        Type::Param(n) => usize::try_from(*n).ok().and_then(|at| fresh.get(at)).cloned().unwrap_or(Type::Dyn),
        Type::List(of) => Type::list(instance(of, fresh)),
        Type::Optional(of) => Type::optional(instance(of, fresh)),
        Type::Type(of) => Type::Type(Arc::new(instance(of, fresh))),
        Type::Map(of) => Type::map(instance(&of.0, fresh), instance(&of.1, fresh)),
        other => other.clone(),
    }
}
