//! What an expression may cost at worst, from its text and the bounds of its data: what kube-apiserver refuses a CRD for
//! (cel-go `checker/cost.go`, `ext/lists.go`, `ext/sets.go`; `k8s.io/apiserver/pkg/cel/library/cost.go`).

mod calls;

use std::collections::HashMap;

use super::{
    ast::{Expr, Fold, Kind, Name},
    check::{Checked, Reference},
    cost::{LIST, MAP, STRING_FACTOR, STRUCT},
    decl::{Decl, DeclKind},
    macros::ACCU,
    types::Type,
    value::Value,
};

/// From the least to the most, of a size or of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub min: u64,
    pub max: u64,
}

const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

impl Range {
    const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn scaled(self, factor: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "as upstream calculates; too large is held at the largest"
        )]
        let scale = |value: u64| (value as f64 * factor).ceil() as u64;
        Self { min: scale(self.min), max: scale(self.max) }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// What is in a list or a map.
#[derive(Clone, Copy, Debug)]
struct Entries {
    list: bool,
    keys: Range,
    values: Range,
}

#[derive(Clone, Debug)]
struct Local {
    name: Name,
    path: Path,
    size: Option<Range>,
    entries: Option<Entries>,
}

/// Where a value lies in the data: names of fields, or the marks below. The first is the variable.
type Path = Vec<Name>;

const ITEMS: &str = "@items";
const VALUES: &str = "@values";
const KEYS: &str = "@keys";
const INDICES: &str = "@indices";

/// The most that an expression may cost. `root` is what its variables are.
pub(super) fn worst(expr: &Expr, checked: &Checked, root: &Decl) -> u64 {
    let mut estimate = Estimate {
        checked,
        root,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    estimate.cost(expr).max
}

struct Estimate<'a> {
    checked: &'a Checked,
    root: &'a Decl,
    paths: HashMap<u32, Path>,
    sizes: HashMap<u32, Range>,
    entries: HashMap<u32, Entries>,
    locals: Vec<Local>,
}

impl Estimate<'_> {
    fn type_(&self, expr: &Expr) -> &Type {
        usize::try_from(expr.id).ok().and_then(|id| self.checked.types.get(id)).unwrap_or(&Type::Dyn)
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| *local.name == *name)
    }

    fn path(&self, expr: &Expr) -> Path {
        let local = match &expr.kind {
            Kind::Ident(name) => self.local(name).map(|local| local.path.clone()),
            _ => None,
        };
        local.or_else(|| self.paths.get(&expr.id).cloned()).unwrap_or_default()
    }

    /// The bound that the schema sets at a place.
    fn bound(&self, path: &[Name]) -> Option<Range> {
        let (_, steps) = path.split_first()?;
        let mut at = self.root;
        for (index, step) in steps.iter().enumerate() {
            at = match (&at.kind, &**step) {
                (DeclKind::List { items, .. }, ITEMS | VALUES) => items,
                (DeclKind::Map { values }, ITEMS | VALUES) => values,
                // Keys have no bound of their own, which upstream takes for none at all.
                (DeclKind::Map { .. }, KEYS) if index + 1 == steps.len() => return Some(Range::fixed(0)),
                (DeclKind::Object { .. }, name) => &at.field(name)?.decl,
                _ => return None,
            };
        }
        Some(Range { min: 0, max: at.max_elements })
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let own = match &expr.kind {
            Kind::Const(Value::String(text)) => Some(text.chars_len()),
            Kind::Const(Value::Bytes(bytes)) => Some(bytes.len() as u64),
            Kind::Const(_) => Some(1),
            Kind::List(items) => Some(items.len() as u64),
            Kind::Map(entries) => Some(entries.len() as u64),
            _ => None,
        };
        if let Some(own) = own {
            return Some(Range::fixed(own));
        }
        let path = self.path(expr);
        if let Some(size) = self.bound(&path) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.type_(expr)) {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(UNKNOWN)
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        self.entries.get(&expr.id).copied().or_else(|| match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entries,
            _ => None,
        })
    }

    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Const(_) => Range::fixed(0),
            Kind::Struct(_, fields) => {
                let mut sum = Range::fixed(STRUCT);
                for (_, _, value, _) in fields {
                    sum = sum.plus(self.cost(value));
                }
                sum
            }
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                Range::fixed(1)
            }
            Kind::Select { operand, field, test_only } => {
                if let Some(Reference::Type(_) | Reference::Variable(_)) = self.reference(expr) {
                    self.paths.insert(expr.id, vec![field.clone()]);
                    return Range::fixed(1);
                }
                let below = self.cost(operand);
                if *test_only {
                    return below;
                }
                let mut path = self.path(operand);
                path.push(field.clone());
                self.paths.insert(expr.id, path);
                let looks = matches!(self.type_(operand), Type::Map(_) | Type::Object(_) | Type::Param(_));
                if looks { below.plus(Range::fixed(1)) } else { below }
            }
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => {
                let mut sum = Range::fixed(LIST);
                let mut values = Range { min: if items.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for (item, _) in items {
                    sum = sum.plus(self.cost(item));
                    values = values.union(self.size_or_unknown(item));
                }
                self.entries.insert(expr.id, Entries { list: true, keys: Range::fixed(1), values });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Range::fixed(MAP);
                let least = if entries.is_empty() { 0 } else { u64::MAX };
                let (mut keys, mut values) = (Range { min: least, max: 0 }, Range { min: least, max: 0 });
                for (key, value, _) in entries {
                    sum = sum.plus(self.cost(key)).plus(self.cost(value));
                    keys = keys.union(self.size_or_unknown(key));
                    values = values.union(self.size_or_unknown(value));
                }
                self.entries.insert(expr.id, Entries { list: false, keys, values });
                sum
            }
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn reference(&self, expr: &Expr) -> Option<&Reference> {
        self.checked.references.get(usize::try_from(expr.id).ok()?)?.as_ref()
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn push(&mut self, name: &Name, range: &Expr, mark: &str, size: Option<Range>) {
        let mut path = self.path(range);
        path.push(mark.into());
        self.locals.push(Local { name: name.clone(), path, size, entries: None });
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let bind = matches!(&fold.range.kind, Kind::List(items) if items.is_empty())
            && matches!(fold.condition.kind, Kind::Const(Value::Bool(false)))
            && *fold.accu != *ACCU;
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        let depth = self.locals.len();
        let path = self.path(&fold.init);
        let (size, entries) = (self.size(&fold.init), self.entries_of(&fold.init));
        self.locals.push(Local { name: fold.accu.clone(), path, size, entries });
        if bind {
            sum = sum.plus(self.cost(&fold.result));
            self.copy_sizes(expr, &fold.result);
            self.locals.truncate(depth);
            return sum;
        }
        let entries = self.entries_of(&fold.range);
        let list = entries.map_or_else(|| matches!(self.type_(&fold.range), Type::List(_)), |entries| entries.list);
        let (keys, values) = (entries.map(|entries| entries.keys), entries.map(|entries| entries.values));
        match &fold.var2 {
            Some(var2) => {
                self.push(&fold.var, &fold.range, if list { INDICES } else { KEYS }, keys);
                self.push(var2, &fold.range, if list { ITEMS } else { VALUES }, values);
            }
            None if list => self.push(&fold.var, &fold.range, ITEMS, values),
            None => self.push(&fold.var, &fold.range, KEYS, keys),
        }
        let round = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(depth + 1);
        sum = sum.plus(self.cost(&fold.result));
        self.locals.truncate(depth);
        let rounds = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            Kind::Const(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(expr.id, rounds);
                if let Some(entries) = self.entries_of(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum.plus(rounds.times(round))
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Range {
        if let ("dyn", [arg]) = (function, args) {
            let below = self.cost(arg);
            self.copy_sizes(expr, arg);
            return below.plus(Range::fixed(1));
        }
        let costs: Vec<Range> = args.iter().map(|arg| self.cost(arg)).collect();
        let all = costs.iter().fold(Range::fixed(0), |sum, cost| sum.plus(*cost));
        match (function, args) {
            ("_&&_" | "_||_", _) => {
                return Range { min: costs.first().map_or(0, |first| first.min), max: all.max };
            }
            ("_?_:_", [_, truthy, falsy]) => {
                let size = self.size_or_unknown(truthy).union(self.size_or_unknown(falsy));
                if let (Some(a), Some(b)) = (self.entries_of(truthy), self.entries_of(falsy)) {
                    self.entries.insert(expr.id, both(a, b));
                }
                self.sizes.insert(expr.id, size);
                let [condition, truthy, falsy] = <[Range; 3]>::try_from(&*costs).unwrap_or([UNKNOWN; 3]);
                return condition.plus(truthy.union(falsy));
            }
            ("_?._", _) => return all.plus(Range::fixed(1)),
            _ => {}
        }
        let Some(Reference::Function { name, overloads, target: has_target }) = self.reference(expr).cloned() else {
            return all.plus(Range::fixed(1));
        };
        let target = target.filter(|_| has_target);
        let mut sum = all;
        if let Some(target) = target {
            sum = sum.plus(self.cost(target));
        }
        let mut most = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        for overload in &overloads {
            let (cost, made) = self.function(expr, &name, overload, target, args);
            most = most.union(cost);
            if let Some(made) = made {
                size = Some(size.map_or(made, |size| size.union(made)));
            }
            if let ("index_list" | "index_map", Some(first)) = (&**overload, args.first()) {
                size = self.entries_of(first).map(|entries| entries.values);
                let mut path = self.path(first);
                path.push(if &**overload == "index_list" { ITEMS } else { VALUES }.into());
                self.paths.insert(expr.id, path);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        sum.plus(most)
    }

    fn join_entries(&mut self, expr: &Expr, a: &Expr, b: &Expr) {
        if let (Some(a), Some(b)) = (self.entries_of(a), self.entries_of(b)) {
            self.entries.insert(expr.id, both(a, b));
        }
    }

    /// The size of an item of a list, if something is known of it; None if it is no list.
    fn item(&mut self, list: &Expr) -> Option<(Type, Range)> {
        let Type::List(of) = self.type_(list).clone() else { return None };
        let mut path = self.path(list);
        if path.first().is_some_and(|first| **first == *ACCU) {
            path.clear();
        }
        let size = if path.is_empty() {
            UNKNOWN
        } else {
            path.push(ITEMS.into());
            self.bound(&path).unwrap_or(UNKNOWN)
        };
        Some(((*of).clone(), size))
    }

    fn text(&mut self, expr: &Expr, factor: f64) -> Range {
        self.size_or_unknown(expr).scaled(factor * STRING_FACTOR)
    }
}

fn both(a: Entries, b: Entries) -> Entries {
    Entries { list: a.list, keys: a.keys.union(b.keys), values: a.values.union(b.values) }
}

fn is_scalar(type_: &Type) -> bool {
    match type_ {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => is_scalar(of),
        _ => false,
    }
}
