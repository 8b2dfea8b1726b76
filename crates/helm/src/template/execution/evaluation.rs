//! What pipelines, commands, variables and fields yield.

use super::{Dot, Execution, Site, holds_any, solid};
use crate::template::{
    error::Result,
    node::{Command, Number, Operand, Pipe, Term},
    on_enough_stack,
    value::Value,
};

/// What comes before the last argument of a command in a pipeline.
pub(super) type Piped = Option<Value>;

impl<'t> Execution<'t, '_> {
    pub(super) fn pipe(&mut self, pipe: &'t Pipe, dot: &Dot) -> Result<Value> {
        self.site = Site::Pipe(pipe);
        let mut value = None;
        for command in &pipe.commands {
            value = Some(solid(self.command(command, dot, value)?));
        }
        let value = value.unwrap_or(Value::None);
        for name in &pipe.variables {
            let held = Dot::plain(value.clone());
            if pipe.assigns {
                self.assign(name, held)?;
            } else {
                self.variables.push((name, held));
            }
        }
        Ok(value)
    }

    pub(super) fn no_arguments(&self, words: &[Operand], piped: &Piped) -> Result<()> {
        if words.len() > 1 || piped.is_some() {
            let first = words.first().map_or_else(|| "nil".to_owned(), word);
            return self.fail(format!("can't give argument to non-function {first}"));
        }
        Ok(())
    }

    pub(super) fn command(&mut self, command: &'t Command, dot: &Dot, piped: Piped) -> Result<Value> {
        let words = &command.words;
        let Some(first) = words.first() else { return self.fail("empty command") };
        match &first.term {
            Term::Field(names) => {
                self.site = Site::Operand(first);
                self.chain(dot, dot.clone(), first, names, words, piped)
            }
            Term::Chain(of, names) => self.chained(first, of, names, dot, words, piped),
            Term::Function(callee) => {
                self.site = Site::Operand(first);
                self.call(*callee, Site::Command(command), dot, words.get(1..).unwrap_or_default(), piped)
            }
            Term::Pipe(pipe) => {
                self.no_arguments(words, &piped)?;
                on_enough_stack(|| self.pipe(pipe, dot))
            }
            Term::Variable(names) => self.variable(first, names, dot, words, piped),
            _ => {
                self.site = Site::Operand(first);
                self.no_arguments(words, &piped)?;
                match &first.term {
                    Term::Bool(truth) => Ok(Value::Bool(*truth)),
                    Term::Dot => Ok(dot.value.clone()),
                    Term::Number(number) => self.constant(number),
                    Term::Text { text, .. } => Ok(Value::Str(text.clone())),
                    _ => self.fail("nil is not a command"),
                }
            }
        }
    }

    /// A number where nothing says of which type it is to be.
    pub(super) fn constant(&self, number: &Number) -> Result<Value> {
        let text = &number.text;
        let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
        let is_float = text.contains(['.', 'e', 'E', 'p', 'P']) && !text.starts_with('\'') && !hexadecimal;
        match (number.float, number.int) {
            (Some(float), _) if is_float => Ok(Value::Float(float)),
            (_, Some(int)) => Ok(Value::Int(int)),
            _ => self.fail(format!("{text} overflows int")),
        }
    }

    pub(super) fn variable(
        &mut self,
        site: &'t Operand,
        names: &'t str,
        dot: &Dot,
        words: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        self.site = Site::Operand(site);
        let (name, fields) = match names.split_once('.') {
            Some((name, fields)) => (name, Some(fields)),
            None => (names, None),
        };
        let found = self.variables.iter().rev().find(|(known, _)| *known == name);
        let Some(value) = found.map(|(_, value)| value.clone()) else {
            return self.fail(format!("undefined variable: {name}"));
        };
        let Some(fields) = fields else {
            self.no_arguments(words, &piped)?;
            return Ok(value.value);
        };
        self.chain(dot, value, site, fields, words, piped)
    }

    pub(super) fn chained(
        &mut self,
        site: &'t Operand,
        of: &'t Operand,
        names: &'t str,
        dot: &Dot,
        words: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        self.site = Site::Operand(site);
        if matches!(of.term, Term::Nil) {
            return self.fail(format!("indirection through explicit nil in {site}"));
        }
        let value = self.argument(b'v', of, dot)?;
        self.chain(dot, Dot::plain(value), site, names, words, piped)
    }

    /// `.a.b.c`, of which the last may be a method that takes arguments.
    pub(super) fn chain(
        &mut self,
        dot: &Dot,
        of: Dot,
        site: &'t Operand,
        names: &'t str,
        words: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        let mut value = of;
        let mut rest = names;
        while let Some((name, after)) = rest.split_once('.') {
            let boxed = holds_any(&value.value);
            value = Dot { value: self.field(dot, value, site, name, &[], None)?, boxed };
            rest = after;
        }
        self.field(dot, value, site, rest, words.get(1..).unwrap_or_default(), piped)
    }

    pub(super) fn field(
        &mut self,
        dot: &Dot,
        of: Dot,
        site: &'t Operand,
        name: &str,
        arguments: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        let has_arguments = !arguments.is_empty() || piped.is_some();
        let Dot { value: of, boxed } = of;
        if let Some(method) = of.methods().iter().find(|method| method.name == name) {
            return self.apply(method, Some(of), Site::Operand(site), dot, arguments, piped);
        }
        match &of {
            Value::None => return Ok(Value::None),
            Value::Nil => return self.fail(format!("nil pointer evaluating interface {{}}.{name}")),
            Value::Map(map) => {
                if has_arguments {
                    return self.fail(format!("{name} is not a method but has arguments"));
                }
                return Ok(map.get(name).unwrap_or_else(map.ty.zero));
            }
            Value::Struct(object) => {
                if let Some(value) = object.field(name) {
                    if name.starts_with(|c: char| c.is_lowercase()) {
                        return self.fail(format!("{name} is an unexported field of struct type {}", of.type_name()));
                    }
                    if has_arguments {
                        return self.fail(format!("{name} has arguments but cannot be invoked as function"));
                    }
                    return Ok(value.clone());
                }
            }
            _ => {}
        }
        let of = if boxed { "interface {}".to_owned() } else { of.type_name() };
        self.fail(format!("can't evaluate field {name} in type {of}"))
    }
}

/// How a word of a command is shown: Go shows a parenthesis without its marks here.
fn word(operand: &Operand) -> String {
    operand.to_string()
}
