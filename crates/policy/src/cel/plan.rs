//! From a checked tree to one that runs: names become places, calls become functions, constants are folded as cel-go
//! folds them, for what is folded costs nothing.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Budget,
    ast::{Expr, Fold, Kind, Name},
    check::{Checked, Reference},
    cost::Charge,
    eval::{Fault, Meter},
    functions::{self, Function},
    lexer::Issue,
    macros::ACCU,
    pattern::Pattern,
    types::Type,
    value::{Key, List, Value},
};

#[derive(Debug)]
pub(super) enum Plan {
    Const(Value<'static>),
    Attribute(Box<Attribute>),
    And(Box<[Self]>),
    Or(Box<[Self]>),
    If(Box<[Self; 3]>),
    Call(Box<Call>),
    Match(Box<Match>),
    /// False only if the argument is, so that a failure does not end a comprehension.
    NotStrictlyFalse(Box<Self>),
    /// `x in` a constant list.
    Member(Box<(Self, BTreeSet<Key<'static>>)>),
    List(Box<[(Self, bool)]>),
    Map(Box<[(Self, Self, bool)]>),
    Message(Arc<str>, Box<[(Box<str>, Self, bool)]>),
    Fold(Box<Folding>),
    /// Adds an item to the list that a comprehension gathers.
    Append {
        accu: usize,
        item: Box<Self>,
    },
    /// Adds entries to the map that a comprehension gathers.
    Insert {
        accu: usize,
        key: Option<Box<Self>>,
        value: Box<Self>,
    },
}

/// A variable, or a result, and what is looked up in it.
#[derive(Debug)]
pub(super) struct Attribute {
    pub root: Root,
    pub qualifiers: Vec<Qualifier>,
    /// `has(...)`: whether the last one is there.
    pub test: bool,
    /// Whether looking at it costs by itself.
    pub counted: bool,
}

#[derive(Debug)]
pub(super) enum Root {
    Variable(usize),
    Local(usize),
    Result(Plan),
}

#[derive(Debug)]
pub(super) struct Qualifier {
    pub by: By,
    pub optional: bool,
}

#[derive(Debug)]
pub(super) enum By {
    Key(Value<'static>),
    Plan(Plan),
}

#[derive(Debug)]
pub(super) struct Call {
    pub run: Function,
    pub charge: Charge,
    pub args: Box<[Plan]>,
}

/// A call with a regular expression that is known before.
#[derive(Debug)]
pub(super) struct Match {
    pub function: MatchKind,
    pub pattern: Arc<Pattern>,
    pub text: Plan,
    pub limit: Option<Plan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatchKind {
    Matches,
    Find,
    FindAll,
}

#[derive(Debug)]
pub(super) struct Folding {
    pub range: Plan,
    pub accu: usize,
    pub var: usize,
    pub var2: Option<usize>,
    pub init: Plan,
    pub condition: Plan,
    pub step: Plan,
    pub result: Plan,
}

/// The plan of a tree, and how many local places it needs.
pub(super) fn plan(expr: &Expr, checked: &Checked) -> Result<(Plan, usize), Issue> {
    let mut planner = Planner { checked, locals: Vec::new(), places: 0 };
    let plan = planner.plan(expr)?;
    Ok((plan, planner.places))
}

struct Planner<'a> {
    checked: &'a Checked,
    locals: Vec<Name>,
    places: usize,
}

const CONVERSIONS: [&str; 9] = ["bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint", "dyn"];

impl Planner<'_> {
    fn reference(&self, expr: &Expr) -> Option<&Reference> {
        self.checked.references.get(usize::try_from(expr.id).ok()?)?.as_ref()
    }

    fn plan(&mut self, expr: &Expr) -> Result<Plan, Issue> {
        match &expr.kind {
            Kind::Const(value) => Ok(Plan::Const(value.clone())),
            Kind::Ident(name) => Ok(self.ident(expr, name)),
            Kind::Select { operand, field, test_only } => {
                if !test_only && let Some(plan) = self.global(expr) {
                    return Ok(plan);
                }
                let by = By::Key(Value::String(field.clone().into()));
                let mut attribute = self.attribute(operand)?;
                attribute.qualifiers.push(Qualifier { by, optional: false });
                if *test_only {
                    attribute.test = true;
                    attribute.counted = false;
                }
                Ok(Plan::Attribute(Box::new(attribute)))
            }
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => {
                let items = items.iter().map(|(item, optional)| Ok((self.plan(item)?, *optional)));
                let items: Box<[_]> = items.collect::<Result<_, Issue>>()?;
                let constants: Option<Vec<_>> =
                    items.iter().map(|(item, optional)| item.constant().filter(|_| !optional)).collect();
                Ok(constants.map_or(Plan::List(items), |list| Plan::Const(Value::made(list))))
            }
            Kind::Map(entries) => {
                let entries = entries.iter().map(|(key, value, opt)| Ok((self.plan(key)?, self.plan(value)?, *opt)));
                let entries: Box<[_]> = entries.collect::<Result<_, Issue>>()?;
                let constants: Option<Vec<_>> = entries
                    .iter()
                    .map(|(key, value, optional)| Some((key.constant()?, value.constant().filter(|_| !optional)?)))
                    .collect();
                match constants {
                    None => Ok(Plan::Map(entries)),
                    Some(pairs) => functions::map_of(pairs)
                        .map(Plan::Const)
                        .map_err(|fault| Issue::new(expr.at, fault.to_string())),
                }
            }
            Kind::Struct(name, fields) => {
                let fields =
                    fields.iter().map(|(field, _, value, opt)| Ok((Box::from(&**field), self.plan(value)?, *opt)));
                Ok(Plan::Message(name.clone(), fields.collect::<Result<_, Issue>>()?))
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&self, expr: &Expr, name: &Name) -> Plan {
        if let Some(place) = self.locals.iter().rposition(|local| local == name) {
            return attribute(Root::Local(place));
        }
        self.global(expr).unwrap_or(Plan::Const(Value::Null))
    }

    fn global(&self, expr: &Expr) -> Option<Plan> {
        match self.reference(expr)? {
            Reference::Variable(at) => Some(attribute(Root::Variable(*at))),
            Reference::Type(type_) => Some(Plan::Const(Value::Type(type_.clone()))),
            Reference::Function { .. } => None,
        }
    }

    /// What is looked into: an attribute itself, or the result of anything else.
    fn attribute(&mut self, operand: &Expr) -> Result<Attribute, Issue> {
        Ok(match self.plan(operand)? {
            Plan::Attribute(attribute) if !attribute.test => *attribute,
            plan => {
                let counted = !matches!(plan, Plan::If(_));
                Attribute { root: Root::Result(plan), qualifiers: Vec::new(), test: false, counted }
            }
        })
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &Name, args: &[Expr]) -> Result<Plan, Issue> {
        match (&**function, args) {
            ("_&&_", args) => return Ok(Plan::And(self.all(args)?)),
            ("_||_", args) => return Ok(Plan::Or(self.all(args)?)),
            ("_?_:_", [condition, truthy, falsy]) => {
                let branches = [self.plan(condition)?, self.plan(truthy)?.uncounted(), self.plan(falsy)?.uncounted()];
                return Ok(Plan::If(Box::new(branches)));
            }
            ("_[_]" | "_[?_]" | "_?._", [operand, index]) => {
                let mut attribute = self.attribute(operand)?;
                let by = match self.plan(index)?.uncounted() {
                    Plan::Const(value) => By::Key(value),
                    plan => By::Plan(plan),
                };
                attribute.qualifiers.push(Qualifier { by, optional: &**function != "_[_]" });
                return Ok(Plan::Attribute(Box::new(attribute)));
            }
            _ => {}
        }
        if let Some(plan) = self.gather(target, function, args)? {
            return Ok(plan);
        }
        let Some(Reference::Function { name, overloads, target: has_target }) = self.reference(expr).cloned() else {
            return Err(Issue::new(expr.at, format!("undeclared reference to '{function}' (in container '')")));
        };
        let target = target.filter(|_| has_target);
        let plans: Vec<_> = target.into_iter().chain(args).map(|arg| self.plan(arg)).collect::<Result<_, _>>()?;
        let only = <&[Arc<str>; 1]>::try_from(&*overloads).ok().map(|[only]| &**only);
        self.special(expr, &name, only, plans)
    }

    fn all(&mut self, list: &[Expr]) -> Result<Box<[Plan]>, Issue> {
        list.iter().map(|item| self.plan(item)).collect()
    }

    /// Calls that are done in a way of their own, and all others.
    fn special(&self, expr: &Expr, name: &str, only: Option<&str>, mut args: Vec<Plan>) -> Result<Plan, Issue> {
        let wrong = |text: String| Issue::new(expr.at, text);
        let matcher = match name {
            "matches" => Some(MatchKind::Matches),
            "find" => Some(MatchKind::Find),
            "findAll" => Some(MatchKind::FindAll),
            _ => None,
        };
        if let Some(function) = matcher
            && let Some(Plan::Const(Value::String(text))) = args.get(1)
        {
            let invalid = |_| Issue::new(literal_at(expr), "invalid matches argument");
            let pattern = Pattern::new(text.as_str()).map_err(invalid)?;
            let mut args = args.into_iter();
            let text = args.next().ok_or_else(|| wrong("missing argument".to_owned()))?;
            let limit = args.nth(1);
            return Ok(Plan::Match(Box::new(Match { function, pattern: Arc::new(pattern), text, limit })));
        }
        if name == "@in"
            && only == Some("in_list")
            && let Some(Plan::Const(Value::List(List::Made(list)))) = args.get(1)
        {
            let keys: Option<BTreeSet<_>> = list.iter().map(primitive).collect();
            if list.is_empty() {
                return Ok(Plan::Const(Value::Bool(false)));
            }
            if let Some(keys) = keys {
                let item = args.swap_remove(0);
                return Ok(Plan::Member(Box::new((item, keys))));
            }
        }
        if name == "@not_strictly_false"
            && let Some(arg) = args.pop()
        {
            return Ok(Plan::NotStrictlyFalse(Box::new(arg)));
        }
        let run = functions::find(name).ok_or_else(|| wrong(format!("no such overload: {name}")))?;
        if let [Plan::Const(arg)] = &*args
            && CONVERSIONS.contains(&name)
        {
            let folded = run(&mut Meter::new(Budget::CALL), std::slice::from_ref(arg));
            return folded.map(Plan::Const).map_err(|fault| match name {
                "duration" | "timestamp" => Issue::new(literal_at(expr), format!("invalid {name} argument")),
                _ => wrong(fault.to_string()),
            });
        }
        Ok(Plan::Call(Box::new(Call { run, charge: Charge::of(name, only), args: args.into() })))
    }

    /// The step of a comprehension that gathers: done in place, for lists would be copied over and over.
    fn gather(&mut self, target: Option<&Expr>, function: &str, args: &[Expr]) -> Result<Option<Plan>, Issue> {
        let is_accu = |expr: &Expr| matches!(&expr.kind, Kind::Ident(name) if **name == *ACCU);
        let Some((first, rest)) = args.split_first().filter(|(first, _)| target.is_none() && is_accu(first)) else {
            return Ok(None);
        };
        let Kind::Ident(name) = &first.kind else { return Ok(None) };
        let Some(accu) = self.locals.iter().rposition(|local| local == name) else { return Ok(None) };
        Ok(match (function, rest) {
            ("_+_", [Expr { kind: Kind::List(items), .. }]) => match &**items {
                [(item, false)] => Some(Plan::Append { accu, item: Box::new(self.plan(item)?) }),
                _ => None,
            },
            ("cel.@mapInsert", [value]) => Some(Plan::Insert { accu, key: None, value: Box::new(self.plan(value)?) }),
            ("cel.@mapInsert", [key, value]) => {
                let key = Some(Box::new(self.plan(key)?));
                Some(Plan::Insert { accu, key, value: Box::new(self.plan(value)?) })
            }
            _ => None,
        })
    }

    fn fold(&mut self, fold: &Fold) -> Result<Plan, Issue> {
        let range = self.plan(&fold.range)?;
        let init = self.plan(&fold.init)?;
        let accu = self.locals.len();
        self.locals.push(fold.accu.clone());
        let var = self.locals.len();
        self.locals.push(fold.var.clone());
        let var2 = fold.var2.as_ref().map(|name| {
            self.locals.push(name.clone());
            self.locals.len() - 1
        });
        self.places = self.places.max(self.locals.len());
        let condition = self.plan(&fold.condition)?;
        let step = self.plan(&fold.step)?;
        self.locals.truncate(accu + 1);
        let result = self.plan(&fold.result)?;
        self.locals.truncate(accu);
        Ok(Plan::Fold(Box::new(Folding { range, accu, var, var2, init, condition, step, result })))
    }
}

/// Where the last argument of a call stands.
fn literal_at(expr: &Expr) -> u32 {
    match &expr.kind {
        Kind::Call { args, .. } => args.last().map_or(expr.at, |arg| arg.at),
        _ => expr.at,
    }
}

fn attribute(root: Root) -> Plan {
    Plan::Attribute(Box::new(Attribute { root, qualifiers: Vec::new(), test: false, counted: true }))
}

/// Values that a set of constants may hold.
fn primitive(value: &Value<'static>) -> Option<Key<'static>> {
    Key::of(value).filter(|_| !matches!(value, Value::Double(_)))
}

impl Plan {
    fn constant(&self) -> Option<Value<'static>> {
        match self {
            Self::Const(value) => Some(value.clone()),
            _ => None,
        }
    }

    /// As a part of an attribute, where only what is looked up counts.
    fn uncounted(mut self) -> Self {
        if let Self::Attribute(attribute) = &mut self {
            attribute.counted = false;
        }
        self
    }
}

/// The type that the whole expression has.
pub(super) fn output(expr: &Expr, checked: &Checked) -> Type {
    usize::try_from(expr.id).ok().and_then(|id| checked.types.get(id)).cloned().unwrap_or(Type::Dyn)
}

impl From<Fault> for Issue {
    fn from(fault: Fault) -> Self {
        Self::new(0, fault.to_string())
    }
}
