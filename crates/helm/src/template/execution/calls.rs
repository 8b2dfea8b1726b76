//! Calls of functions and methods: which arguments go where, and what is made of constants.

use super::{Dot, Execution, Site, evaluation::Piped};
use crate::template::{
    Scope,
    error::Result,
    function::{Args, Function, accepts, accepts_nil, type_of},
    node::{Callee, Number, Operand, Term},
    on_enough_stack,
    value::Value,
};

impl<'t> Execution<'t, '_> {
    pub(super) fn call(
        &mut self,
        callee: Callee,
        site: Site<'t>,
        dot: &Dot,
        arguments: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        match callee {
            Callee::Known(function) => self.apply(function, None, site, dot, arguments, piped),
            Callee::And => self.short_circuit("and", false, dot, arguments, piped),
            Callee::Or => self.short_circuit("or", true, dot, arguments, piped),
        }
    }

    /// The first argument whose truth is `until`, or the last one.
    pub(super) fn short_circuit(
        &mut self,
        name: &str,
        until: bool,
        dot: &Dot,
        arguments: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        let mut value = Value::None;
        if arguments.is_empty() && piped.is_none() {
            return self.fail(format!("wrong number of args for {name}: want at least 1 got 0"));
        }
        for argument in arguments {
            value = self.argument(b'v', argument, dot)?;
            if value.truth() == until {
                return Ok(value);
            }
        }
        Ok(piped.unwrap_or(value))
    }

    pub(super) fn apply(
        &mut self,
        function: &'static Function,
        receiver: Option<Value>,
        site: Site<'t>,
        dot: &Dot,
        arguments: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        self.run.step()?;
        let (takes, variadic) = function.parameters();
        let given = arguments.len() + usize::from(piped.is_some());
        let fixed = takes.len() - usize::from(variadic);
        if variadic && given < fixed {
            let arguments = arguments.len();
            return self
                .fail(format!("wrong number of args for {}: want at least {fixed} got {arguments}", function.name));
        }
        if !variadic && given != takes.len() {
            return self.fail(format!("wrong number of args for {}: want {} got {given}", function.name, takes.len()));
        }
        let letter = |index: usize| takes.get(index).or(takes.last()).copied().unwrap_or(b'a');
        let mut values = Vec::with_capacity(given + 1);
        let first = usize::from(receiver.is_some());
        values.extend(receiver);
        for (index, argument) in arguments.iter().enumerate() {
            values.push(self.argument(letter(index), argument, dot)?);
        }
        if let Some(value) = piped {
            values.push(self.validated(letter(arguments.len()), value)?);
        }
        for value in values.iter_mut().skip(first) {
            if matches!(value, Value::None) {
                *value = Value::Nil;
            }
        }
        let mut scope = Scope { run: &mut *self.run, set: self.set };
        let result = (function.run)(&mut scope, Args(values)).and_then(|value| {
            scope.run.charge(value.size())?;
            Ok(value)
        });
        result.map_err(|error| {
            self.site = site;
            error.within(|what| self.located(&format!("error calling {}: {what}", function.name)))
        })
    }

    /// Whether a value may stand where a parameter of that letter is.
    pub(super) fn validated(&self, letter: u8, value: Value) -> Result<Value> {
        if accepts(letter, &value) {
            return Ok(value);
        }
        let expected = type_of(letter);
        match value {
            Value::None if accepts_nil(letter) => Ok(Value::Nil),
            Value::None => self.fail(format!("invalid value; expected {expected}")),
            Value::Nil => self.fail(format!("wrong type for value; expected {expected}; got interface {{}}")),
            _ => self.fail(format!("wrong type for value; expected {expected}; got {}", value.type_name())),
        }
    }

    pub(super) fn argument(&mut self, letter: u8, operand: &'t Operand, dot: &Dot) -> Result<Value> {
        self.site = Site::Operand(operand);
        let value = match &operand.term {
            Term::Dot => dot.value.clone(),
            Term::Nil if accepts_nil(letter) => return Ok(Value::Nil),
            Term::Nil => return self.fail(format!("cannot assign nil to {}", type_of(letter))),
            Term::Field(names) => self.chain(dot, dot.clone(), operand, names, &[], None)?,
            Term::Variable(names) => self.variable(operand, names, dot, &[], None)?,
            Term::Pipe(pipe) => {
                let value = on_enough_stack(|| self.pipe(pipe, dot))?;
                return self.validated(letter, value);
            }
            Term::Function(callee) => {
                let site = Site::Operand(operand);
                self.call(*callee, site, dot, &[], None)?
            }
            Term::Chain(of, names) => self.chained(operand, of, names, dot, &[], None)?,
            Term::Bool(_) | Term::Number(_) | Term::Text { .. } => return self.literal(letter, operand),
        };
        self.validated(letter, value)
    }

    /// A constant where a parameter says of which type it is to be.
    pub(super) fn literal(&self, letter: u8, operand: &Operand) -> Result<Value> {
        let expected = match (letter, &operand.term) {
            (b'a' | b'v', Term::Number(number)) => return self.constant(number),
            (b'a' | b'v' | b'b', Term::Bool(truth)) => return Ok(Value::Bool(*truth)),
            (b'a' | b'v' | b's', Term::Text { text, .. }) => return Ok(Value::Str(text.clone())),
            (b'i', Term::Number(Number { int: Some(int), .. })) => return Ok(Value::Int(*int)),
            (b'l', Term::Number(Number { int: Some(int), .. })) => return Ok(Value::Int64(*int)),
            (b'u', Term::Number(Number { uint: Some(uint), .. })) => return Ok(Value::Uint64(u64::from(*uint as u32))),
            (b'f', Term::Number(Number { float: Some(float), .. })) => return Ok(Value::Float(*float)),
            (b's', _) => "string",
            (b'i' | b'l', _) => "integer",
            (b'u', _) => "unsigned integer",
            (b'f', _) => "float",
            (b'b', _) => "bool",
            _ => return self.fail(format!("can't handle {operand} for arg of type {}", type_of(letter))),
        };
        self.fail(format!("expected {expected}; found {operand}"))
    }
}
