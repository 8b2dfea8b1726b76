//! Carries a template out: what `text/template/exec.go` does, on our values.

use std::fmt::Display;

use super::{
    Run, Scope, Set, Template,
    error::{Class, Error, Result},
    format,
    function::{Args, Function, accepts, accepts_nil, type_of},
    node::{Branch, Callee, Command, Invocation, Node, Number, Operand, Pipe, Place, Term},
    text::quoted,
    value::Value,
};

/// What an error is told to be at.
#[derive(Clone, Copy)]
enum Site<'t> {
    Start,
    Pipe(&'t Pipe),
    Command(&'t Command),
    Operand(&'t Operand),
    Invocation(&'t Invocation),
}

/// How the walk of a list ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// What `.` is.
#[derive(Clone)]
struct Dot {
    value: Value,
    /// It came out of a list or a map whose items are `interface {}`: errors name that type then, and not its own.
    boxed: bool,
}

impl Dot {
    fn plain(value: Value) -> Self {
        Self { value, boxed: false }
    }
}

/// Whether what such a value holds is `interface {}` to Go.
fn holds_any(value: &Value) -> bool {
    match value {
        Value::Map(map) => matches!(map.ty.name, "map[string]interface {}" | "chartutil.Values"),
        Value::List(list) => list.ty.name == "[]interface {}",
        _ => false,
    }
}

/// What comes before the last argument of a command in a pipeline.
type Piped = Option<Value>;

pub(super) struct Execution<'t, 'r> {
    run: &'r mut Run,
    set: &'t Set<'t>,
    template: &'t Template,
    site: Site<'t>,
    /// The innermost last.
    variables: Vec<(&'t str, Dot)>,
}

/// What a template makes of data, added to `out`.
pub(super) fn execute(run: &mut Run, set: &Set<'_>, template: &Template, data: Value, out: &mut String) -> Result<()> {
    let data = Dot::plain(solid(data));
    let mut execution = Execution { run, set, template, site: Site::Start, variables: vec![("$", data.clone())] };
    execution.whole(&data, out)
}

/// A nil interface that is looked into is no value.
fn solid(value: Value) -> Value {
    if matches!(value, Value::Nil) { Value::None } else { value }
}

impl<'t> Execution<'t, '_> {
    fn whole(&mut self, dot: &Dot, out: &mut String) -> Result<()> {
        self.run.enter()?;
        let template = self.template;
        let done = super::on_enough_stack(|| self.list(&template.nodes, dot, out));
        self.run.leave();
        done.map(drop)
    }

    fn located(&self, what: &str) -> String {
        let name = &self.template.name;
        let (place, context): (Place, &dyn Display) = match self.site {
            Site::Start => return format!("template: {name}: {what}"),
            Site::Pipe(pipe) => (pipe.place, pipe),
            Site::Command(command) => (command.place, command),
            Site::Operand(operand) => (operand.place, operand),
            Site::Invocation(invocation) => (invocation.place, invocation),
        };
        let source = &self.template.source;
        let before = source.text.get(..place).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(place, |newline| place - newline - 1);
        format!("template: {}:{line}:{column}: executing {} at <{context}>: {what}", source.name, quoted(name))
    }

    fn fail<T>(&self, what: impl AsRef<str>) -> Result<T> {
        Err(Error::new(Class::Run, self.located(what.as_ref())))
    }

    fn block(&mut self, nodes: &'t [Node], dot: &Dot, out: &mut String) -> Result<Flow> {
        super::on_enough_stack(|| self.list(nodes, dot, out))
    }

    fn list(&mut self, nodes: &'t [Node], dot: &Dot, out: &mut String) -> Result<Flow> {
        for node in nodes {
            self.run.step()?;
            match node {
                Node::Text(text) => self.write(text, out)?,
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        self.print(&value, out)?;
                    }
                }
                Node::If(branch) => {
                    let flow = self.branch(branch, dot, false, out)?;
                    if flow != Flow::Next {
                        return Ok(flow);
                    }
                }
                Node::With(branch) => {
                    let flow = self.branch(branch, dot, true, out)?;
                    if flow != Flow::Next {
                        return Ok(flow);
                    }
                }
                Node::Range(branch) => {
                    let known = self.variables.len();
                    let flow = self.range(branch, dot, out)?;
                    self.variables.truncate(known);
                    if flow != Flow::Next {
                        return Ok(flow);
                    }
                }
                Node::Template(invocation) => self.invoke(invocation, dot, out)?,
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::Next)
    }

    fn write(&mut self, text: &str, out: &mut String) -> Result<()> {
        self.run.charge(text.len())?;
        out.push_str(text);
        Ok(())
    }

    fn print(&mut self, value: &Value, out: &mut String) -> Result<()> {
        match value {
            Value::Str(text) => self.write(text, out),
            Value::None => self.write("<no value>", out),
            _ => {
                let before = out.len();
                format::show(out, value).map_err(|error| error.within(|what| self.located(what)))?;
                self.run.charge(out.len() - before)
            }
        }
    }

    fn branch(&mut self, branch: &'t Branch, dot: &Dot, with: bool, out: &mut String) -> Result<Flow> {
        let known = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        let flow = if value.truth() {
            let inner = Dot::plain(value);
            self.block(&branch.body, if with { &inner } else { dot }, out)?
        } else if let Some(otherwise) = &branch.otherwise {
            self.block(otherwise, dot, out)?
        } else {
            Flow::Next
        };
        self.variables.truncate(known);
        Ok(flow)
    }

    fn range(&mut self, branch: &'t Branch, dot: &Dot, out: &mut String) -> Result<Flow> {
        let value = self.pipe(&branch.pipe, dot)?;
        let mut ran = false;
        let boxed = holds_any(&value);
        match &value {
            Value::Int(_) | Value::Int64(_) | Value::Uint64(_) | Value::Uint8(_) => {
                if branch.pipe.variables.len() > 1 {
                    let shown = format::shown(&value)?;
                    return self.fail(format!("can't use {shown} to iterate over more than one variable"));
                }
                let (end, of): (i128, fn(i128) -> Value) = match value {
                    Value::Int64(end) => (end.into(), |at| Value::Int64(i64::try_from(at).unwrap_or_default())),
                    Value::Uint64(end) => (end.into(), |at| Value::Uint64(u64::try_from(at).unwrap_or_default())),
                    Value::Uint8(end) => (end.into(), |at| Value::Uint8(u8::try_from(at).unwrap_or_default())),
                    Value::Int(end) => (end.into(), |at| Value::Int(i64::try_from(at).unwrap_or_default())),
                    _ => (0, |_| Value::None),
                };
                for at in 0..end {
                    ran = true;
                    if self.once(branch, Value::None, Dot::plain(of(at)), out)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::List(list) => {
                for (index, item) in list.items.iter().enumerate() {
                    ran = true;
                    let index = Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
                    if self.once(branch, index, Dot { value: item.clone(), boxed }, out)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Bytes(bytes) => {
                for (index, item) in bytes.iter().enumerate() {
                    ran = true;
                    let index = Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
                    if self.once(branch, index, Dot::plain(Value::Uint8(*item)), out)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                // What the body sets in the map is not ranged over: the keys and values are those of now.
                let entries: Vec<_> =
                    map.entries.borrow().iter().map(|(key, item)| (key.clone(), item.clone())).collect();
                for (key, item) in entries {
                    ran = true;
                    if self.once(branch, Value::Str(key), Dot { value: item, boxed }, out)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::None | Value::Nil => {}
            _ => {
                let shown = format::shown(&value)?;
                return self.fail(format!("range can't iterate over {shown}"));
            }
        }
        match &branch.otherwise {
            Some(otherwise) if !ran => self.block(otherwise, dot, out),
            _ => Ok(Flow::Next),
        }
    }

    /// The body for one item. `Next` when it goes on.
    fn once(&mut self, branch: &'t Branch, index: Value, item: Dot, out: &mut String) -> Result<Flow> {
        let index = Dot::plain(index);
        self.run.step()?;
        let known = self.variables.len();
        let pipe = &branch.pipe;
        let count = pipe.variables.len();
        if pipe.assigns {
            if count > 1 {
                self.assign(&pipe.variables[0], index)?;
                self.assign(&pipe.variables[1], item.clone())?;
            } else if count == 1 {
                self.assign(&pipe.variables[0], item.clone())?;
            }
        } else {
            // `pipe` has declared them: the last is the item.
            if let (1.., Some(top)) = (count, self.variables.last_mut()) {
                top.1 = item.clone();
            }
            if let (2.., Some(below)) = (count, known.checked_sub(2)) {
                self.variables[below].1 = index;
            }
        }
        let flow = self.block(&branch.body, &item, out)?;
        self.variables.truncate(known);
        Ok(if flow == Flow::Break { Flow::Break } else { Flow::Next })
    }

    fn invoke(&mut self, invocation: &'t Invocation, dot: &Dot, out: &mut String) -> Result<()> {
        self.site = Site::Invocation(invocation);
        let Some(template) = self.set.find(&invocation.name) else {
            return self.fail(format!("template {} not defined", quoted(&invocation.name)));
        };
        let data = Dot::plain(match &invocation.pipe {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Value::None,
        });
        let variables = vec![("$", data.clone())];
        let mut inner =
            Execution { run: self.run, set: self.set, template, site: Site::Invocation(invocation), variables };
        inner.whole(&data, out)
    }

    fn assign(&mut self, name: &str, value: Dot) -> Result<()> {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some(variable) => {
                variable.1 = value;
                Ok(())
            }
            None => self.fail(format!("undefined variable: {name}")),
        }
    }

    fn pipe(&mut self, pipe: &'t Pipe, dot: &Dot) -> Result<Value> {
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

    fn no_arguments(&self, words: &[Operand], piped: &Piped) -> Result<()> {
        if words.len() > 1 || piped.is_some() {
            let first = words.first().map_or_else(|| "nil".to_owned(), word);
            return self.fail(format!("can't give argument to non-function {first}"));
        }
        Ok(())
    }

    fn command(&mut self, command: &'t Command, dot: &Dot, piped: Piped) -> Result<Value> {
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
                super::on_enough_stack(|| self.pipe(pipe, dot))
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
    fn constant(&self, number: &Number) -> Result<Value> {
        let text = &number.text;
        let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
        let is_float = text.contains(['.', 'e', 'E', 'p', 'P']) && !text.starts_with('\'') && !hexadecimal;
        match (number.float, number.int) {
            (Some(float), _) if is_float => Ok(Value::Float(float)),
            (_, Some(int)) => Ok(Value::Int(int)),
            _ => self.fail(format!("{text} overflows int")),
        }
    }

    fn variable(
        &mut self,
        site: &'t Operand,
        names: &'t [Box<str>],
        dot: &Dot,
        words: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        self.site = Site::Operand(site);
        let Some((name, fields)) = names.split_first() else { return self.fail("a variable has no name") };
        let found = self.variables.iter().rev().find(|(known, _)| *known == &**name);
        let Some(value) = found.map(|(_, value)| value.clone()) else {
            return self.fail(format!("undefined variable: {name}"));
        };
        if fields.is_empty() {
            self.no_arguments(words, &piped)?;
            return Ok(value.value);
        }
        self.chain(dot, value, site, fields, words, piped)
    }

    fn chained(
        &mut self,
        site: &'t Operand,
        of: &'t Operand,
        names: &'t [Box<str>],
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
    fn chain(
        &mut self,
        dot: &Dot,
        of: Dot,
        site: &'t Operand,
        names: &'t [Box<str>],
        words: &'t [Operand],
        piped: Piped,
    ) -> Result<Value> {
        let Some((last, before)) = names.split_last() else { return Ok(of.value) };
        let mut value = of;
        for name in before {
            let boxed = holds_any(&value.value);
            value = Dot { value: self.field(dot, value, site, name, &[], None)?, boxed };
        }
        self.field(dot, value, site, last, words.get(1..).unwrap_or_default(), piped)
    }

    fn field(
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

    fn call(
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
    fn short_circuit(
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

    fn apply(
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
    fn validated(&self, letter: u8, value: Value) -> Result<Value> {
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

    fn argument(&mut self, letter: u8, operand: &'t Operand, dot: &Dot) -> Result<Value> {
        self.site = Site::Operand(operand);
        let value = match &operand.term {
            Term::Dot => dot.value.clone(),
            Term::Nil if accepts_nil(letter) => return Ok(Value::Nil),
            Term::Nil => return self.fail(format!("cannot assign nil to {}", type_of(letter))),
            Term::Field(names) => self.chain(dot, dot.clone(), operand, names, &[], None)?,
            Term::Variable(names) => self.variable(operand, names, dot, &[], None)?,
            Term::Pipe(pipe) => {
                let value = super::on_enough_stack(|| self.pipe(pipe, dot))?;
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
    fn literal(&self, letter: u8, operand: &Operand) -> Result<Value> {
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

/// How a word of a command is shown: Go shows a parenthesis without its marks here.
fn word(operand: &Operand) -> String {
    operand.to_string()
}
