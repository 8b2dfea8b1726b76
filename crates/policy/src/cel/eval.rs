//! Running a plan within a budget.

use std::{collections::BTreeMap, fmt, mem, sync::Arc};

use super::{
    Budget,
    cost::{self, REGEX_FACTOR, STRING_FACTOR, scaled},
    functions,
    message::Message,
    plan::{Attribute, By, Folding, Match, MatchKind, Plan, Root},
    value::{Key, List, Map, Value},
};

/// Bytes of text and lists that one evaluation may make.
pub(super) const MADE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The expression failed: `no such key: x`, `division by zero`.
    Failed(Box<str>),
    /// The evaluation was stopped.
    OverBudget,
}

impl Fault {
    pub(super) fn failed(text: impl Into<Box<str>>) -> Self {
        Self::Failed(text.into())
    }

    pub(super) fn overload() -> Self {
        Self::failed("no such overload")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) => f.write_str(text),
            Self::OverBudget => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

type Result<T> = std::result::Result<T, Fault>;

/// Counts what an evaluation costs.
#[derive(Debug)]
pub(super) struct Meter {
    pub cost: u64,
    pub work: u64,
    limit: Budget,
    made: u64,
}

impl Meter {
    pub fn new(limit: Budget) -> Self {
        Self { cost: 0, work: 0, limit, made: 0 }
    }

    pub fn charge(&mut self, cost: u64) -> Result<()> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit.cost { Err(Fault::OverBudget) } else { Ok(()) }
    }

    /// To be said before the work is done.
    pub fn work(&mut self, steps: u64) -> Result<()> {
        self.work = self.work.saturating_add(steps);
        if self.work > self.limit.work { Err(Fault::OverBudget) } else { Ok(()) }
    }

    /// To be said before so much is made.
    pub fn make(&mut self, bytes: usize) -> Result<()> {
        self.made = self.made.saturating_add(bytes as u64);
        if self.made > MADE_BYTES_MAX { Err(Fault::OverBudget) } else { self.work(bytes as u64 / 8 + 1) }
    }
}

/// Where the values of variables come from, by their place in the declaration. Each is asked for when an expression
/// reads it, and perhaps again.
pub trait Variables<'v> {
    fn value(&self, at: usize) -> Result<Value<'v>>;
}

impl<'v> Variables<'v> for &[Value<'v>] {
    fn value(&self, at: usize) -> Result<Value<'v>> {
        self.get(at).cloned().ok_or_else(|| Fault::failed("no such attribute(s)"))
    }
}

pub(super) struct Run<'p, 'v> {
    pub meter: Meter,
    variables: &'p dyn Variables<'v>,
    locals: Vec<Result<Value<'v>>>,
}

impl<'p, 'v> Run<'p, 'v> {
    pub fn new(variables: &'p dyn Variables<'v>, places: usize, limit: Budget) -> Self {
        Self { meter: Meter::new(limit), variables, locals: vec![Ok(Value::Null); places] }
    }

    pub fn eval(&mut self, plan: &Plan) -> Result<Value<'v>> {
        match plan {
            Plan::Const(value) => Ok(value.clone()),
            Plan::Attribute(attribute) => self.attribute(attribute),
            Plan::And(terms) => self.junction(terms, false),
            Plan::Or(terms) => self.junction(terms, true),
            Plan::If(branches) => {
                let [condition, truthy, falsy] = &**branches;
                match self.eval(condition)? {
                    Value::Bool(true) => self.eval(truthy),
                    Value::Bool(false) => self.eval(falsy),
                    _ => Err(Fault::overload()),
                }
            }
            Plan::Call(call) => {
                let args = call.args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>>>()?;
                self.meter.work(1)?;
                match (call.run)(&mut self.meter, &args) {
                    Ok(result) => {
                        self.meter.charge(call.charge.amount(&args, &result))?;
                        Ok(result)
                    }
                    Err(fault) => {
                        self.meter.charge(1)?;
                        Err(fault)
                    }
                }
            }
            Plan::Match(call) => self.matching(call),
            Plan::NotStrictlyFalse(arg) => self.not_strictly_false(arg),
            Plan::Member(member) => {
                let (item, set) = &**member;
                let item = self.eval(item)?;
                self.meter.work(1)?;
                Ok(Value::Bool(Key::of(&item).is_some_and(|key| set.contains(&key))))
            }
            Plan::List(items) => self.list(items),
            Plan::Map(entries) => self.map(entries),
            Plan::Message(name, fields) => self.message(name, fields),
            Plan::Fold(folding) => self.fold(folding),
            Plan::Append { accu, item } => self.append(*accu, item),
            Plan::Insert { accu, key, value } => self.insert(*accu, key.as_deref(), value),
        }
    }

    /// `&&` and `||`: a side that decides makes up for the failure of another.
    fn junction(&mut self, terms: &[Plan], decides: bool) -> Result<Value<'v>> {
        let mut failed = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or_else(|| Some(Fault::overload())),
                Err(Fault::OverBudget) => return Err(Fault::OverBudget),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn not_strictly_false(&mut self, arg: &Plan) -> Result<Value<'v>> {
        let value = self.eval(arg);
        self.meter.charge(1)?;
        match value {
            Err(Fault::OverBudget) => Err(Fault::OverBudget),
            Ok(Value::Bool(false)) => Ok(Value::Bool(false)),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn attribute(&mut self, attribute: &Attribute) -> Result<Value<'v>> {
        let root = match &attribute.root {
            Root::Variable(at) => self.variables.value(*at),
            Root::Local(at) => self.locals.get(*at).cloned().unwrap_or(Ok(Value::Null)),
            Root::Result(plan) => self.eval(plan),
        };
        if attribute.counted {
            self.meter.charge(cost::SELECT)?;
        }
        self.meter.work(1 + attribute.qualifiers.len() as u64)?;
        let mut value = root?;
        let mut optional = false;
        if let Value::Optional(inner) = &value
            && !attribute.qualifiers.is_empty()
        {
            match inner.clone() {
                None => return Ok(if attribute.test { Value::Bool(false) } else { Value::Optional(None) }),
                Some(inner) => {
                    value = Value::clone(&inner);
                    optional = true;
                }
            }
        }
        let last = attribute.qualifiers.len().wrapping_sub(1);
        for (at, qualifier) in attribute.qualifiers.iter().enumerate() {
            optional |= qualifier.optional;
            let found = match &qualifier.by {
                By::Key(key) => lookup(&value, key),
                By::Plan(plan) => {
                    let key = self.eval(plan)?;
                    lookup(&value, &key)
                }
            };
            self.meter.charge(cost::SELECT)?;
            value = match found? {
                Ok(_) if attribute.test && at == last => return Ok(Value::Bool(true)),
                Ok(found) => found,
                Err(_) if attribute.test && at == last => return Ok(Value::Bool(false)),
                Err(_) if optional && attribute.test => return Ok(Value::Bool(false)),
                Err(_) if optional => return Ok(Value::Optional(None)),
                Err(missing) => return Err(missing),
            };
        }
        Ok(if optional { Value::some(value) } else { value })
    }

    fn matching(&mut self, call: &Match) -> Result<Value<'v>> {
        let text = self.eval(&call.text)?;
        let limit = call.limit.as_ref().map(|limit| self.eval(limit)).transpose()?;
        let Value::String(text) = text else { return Err(Fault::overload()) };
        let chars = call.pattern.chars;
        let cost = scaled(text.chars_len() + 1, STRING_FACTOR).saturating_mul(scaled(chars, REGEX_FACTOR));
        self.meter.charge(cost)?;
        match call.function {
            MatchKind::Matches => functions::regex::matches(&mut self.meter, &text, &call.pattern),
            MatchKind::Find => functions::regex::find(&mut self.meter, &text, &call.pattern),
            MatchKind::FindAll => functions::regex::find_all(&mut self.meter, &text, &call.pattern, limit.as_ref()),
        }
    }

    fn list(&mut self, items: &[(Plan, bool)]) -> Result<Value<'v>> {
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(item)?, optional) {
                (value, false) => list.push(value),
                (Value::Optional(Some(value)), true) => list.push(Value::clone(&value)),
                (Value::Optional(None), true) => {}
                (_, true) => return Err(Fault::overload()),
            }
        }
        self.meter.make(list.len() * size_of::<Value<'_>>())?;
        self.meter.charge(cost::LIST)?;
        Ok(Value::made(list))
    }

    fn map(&mut self, entries: &[(Plan, Plan, bool)]) -> Result<Value<'v>> {
        let mut pairs = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            match (self.eval(value)?, optional) {
                (value, false) => pairs.push((key, value)),
                (Value::Optional(Some(value)), true) => pairs.push((key, Value::clone(&value))),
                (Value::Optional(None), true) => {}
                (_, true) => return Err(Fault::overload()),
            }
        }
        self.meter.make(pairs.len() * 2 * size_of::<Value<'_>>())?;
        self.meter.charge(cost::MAP)?;
        functions::map_of(pairs)
    }

    fn message(&mut self, name: &Arc<str>, fields: &[(Box<str>, Plan, bool)]) -> Result<Value<'v>> {
        let mut made = BTreeMap::new();
        for (field, value, optional) in fields {
            match (self.eval(value)?, optional) {
                (value, false) => drop(made.insert(field.clone(), value)),
                (Value::Optional(Some(value)), true) => drop(made.insert(field.clone(), Value::clone(&value))),
                (Value::Optional(None), true) => {}
                (_, true) => return Err(Fault::overload()),
            }
        }
        self.meter.make(made.len() * 2 * size_of::<Value<'_>>())?;
        self.meter.charge(cost::STRUCT)?;
        Ok(Value::Message(Arc::new(Message { name: name.clone(), fields: made })))
    }

    fn put(&mut self, place: usize, value: Result<Value<'v>>) {
        if let Some(local) = self.locals.get_mut(place) {
            *local = value;
        }
    }

    fn fold(&mut self, folding: &Folding) -> Result<Value<'v>> {
        let range = self.eval(&folding.range)?;
        let init = self.eval(&folding.init);
        if matches!(init, Err(Fault::OverBudget)) {
            return init;
        }
        self.put(folding.accu, init);
        match range {
            Value::List(list) => {
                for at in 0..list.len() {
                    let Some(item) = list.get(at) else { break };
                    match folding.var2 {
                        None => self.put(folding.var, item),
                        Some(var2) => {
                            self.put(folding.var, Ok(Value::Int(i64::try_from(at).unwrap_or(i64::MAX))));
                            self.put(var2, item);
                        }
                    }
                    if !self.step(folding)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                self.meter.make(map.len() * size_of::<Key<'_>>())?;
                for key in map.keys() {
                    if let Some(var2) = folding.var2 {
                        self.put(var2, map.find(&key).unwrap_or(Ok(Value::Null)));
                    }
                    self.put(folding.var, Ok(key.value()));
                    if !self.step(folding)? {
                        break;
                    }
                }
            }
            other => return Err(Fault::failed(format!("got '{}', expected iterable type", other.type_().name()))),
        }
        self.eval(&folding.result)
    }

    /// One round; false if it was the last that is needed.
    fn step(&mut self, folding: &Folding) -> Result<bool> {
        self.meter.work(1)?;
        match self.eval(&folding.condition) {
            Ok(Value::Bool(false)) => return Ok(false),
            Err(Fault::OverBudget) => return Err(Fault::OverBudget),
            _ => {}
        }
        let next = self.eval(&folding.step);
        if matches!(next, Err(Fault::OverBudget)) {
            return Err(Fault::OverBudget);
        }
        self.put(folding.accu, next);
        Ok(true)
    }

    fn take(&mut self, place: usize) -> Result<Value<'v>> {
        self.locals.get_mut(place).map_or(Ok(Value::Null), |local| mem::replace(local, Ok(Value::Null)))
    }

    fn append(&mut self, accu: usize, item: &Plan) -> Result<Value<'v>> {
        let constant = matches!(item, Plan::Const(_));
        let item = self.eval(item)?;
        self.meter.charge(cost::SELECT + if constant { 0 } else { cost::LIST } + 1)?;
        self.meter.make(size_of::<Value<'_>>())?;
        let Value::List(List::Made(mut list)) = self.take(accu)? else { return Err(Fault::overload()) };
        Arc::make_mut(&mut list).push(item);
        Ok(Value::List(List::Made(list)))
    }

    fn insert(&mut self, accu: usize, key: Option<&Plan>, value: &Plan) -> Result<Value<'v>> {
        let key = key.map(|key| self.eval(key)).transpose()?;
        let value = self.eval(value)?;
        self.meter.charge(cost::SELECT + 1)?;
        let entries: Vec<(Key<'v>, Value<'v>)> = match (key, value) {
            (Some(key), value) => vec![(Key::of(&key).ok_or_else(Fault::overload)?, value)],
            (None, Value::Map(Map::Made(map))) => map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            (None, Value::Map(map)) => {
                let entries = map.keys().into_iter().filter_map(|key| Some((key.clone(), map.find(&key)?)));
                entries.map(|(key, value)| Ok((key, value?))).collect::<Result<_>>()?
            }
            _ => return Err(Fault::overload()),
        };
        self.meter.make(entries.len() * 2 * size_of::<Value<'_>>())?;
        let Value::Map(Map::Made(mut map)) = self.take(accu)? else { return Err(Fault::overload()) };
        let map_ref: &mut BTreeMap<_, _> = Arc::make_mut(&mut map);
        for (key, value) in entries {
            if map_ref.contains_key(&key) {
                return Err(Fault::failed(format!(
                    "insert failed: key {} already exists",
                    functions::shown(&key.value())
                )));
            }
            map_ref.insert(key, value);
        }
        Ok(Value::Map(Map::Made(map)))
    }
}

/// The value at a key or index. The inner error says that it is not there, the outer that it could not be looked up.
pub(super) fn lookup<'v>(value: &Value<'v>, key: &Value<'_>) -> Result<Result<Value<'v>>> {
    match value {
        Value::Map(map) => {
            let Some(by) = Key::of(key) else {
                return Err(Fault::failed(format!("unsupported key type: {}", key.type_().name())));
            };
            let missing = || Fault::failed(format!("no such key: {}", functions::shown(key)));
            map.find(&by).map_or_else(|| Ok(Err(missing())), |found| found.map(Ok))
        }
        Value::List(list) => {
            let Some(Key::Int(index)) = Key::of(key) else {
                return Err(Fault::failed(format!("unsupported index type '{}' in list", key.type_().name())));
            };
            let found = usize::try_from(index).ok().and_then(|index| list.get(index));
            found.map_or_else(|| Ok(Err(Fault::failed(format!("index out of bounds: {index}")))), |found| found.map(Ok))
        }
        Value::Message(message) => {
            let found = match key {
                Value::String(name) => message.fields.get(name.as_str()),
                _ => None,
            };
            Ok(found.cloned().ok_or_else(|| Fault::failed(format!("no such key: {}", functions::shown(key)))))
        }
        Value::Optional(Some(inner)) => lookup(inner, key),
        Value::Optional(None) => Ok(Err(Fault::failed("no such key"))),
        _ => Err(Fault::overload()),
    }
}
