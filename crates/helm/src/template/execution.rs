//! Carries a template out: what `text/template/exec.go` does, on our values.

mod calls;
mod evaluation;

use std::fmt::Display;

use super::{
    Run, Set, Template,
    error::{Class, Error, Result},
    format,
    node::{Branch, Command, Invocation, Node, Operand, Pipe, Place},
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
                Node::Text { span, .. } => {
                    let template = self.template;
                    self.write(template.source.text.get(span.clone()).unwrap_or_default(), out)?;
                }
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
                ran = self.range_to(branch, &value, out)?;
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

    /// The body for each number below another. Whether it ran.
    fn range_to(&mut self, branch: &'t Branch, end: &Value, out: &mut String) -> Result<bool> {
        if branch.pipe.variables.len() > 1 {
            let shown = format::shown(end)?;
            return self.fail(format!("can't use {shown} to iterate over more than one variable"));
        }
        let (end, of): (i128, fn(i128) -> Value) = match end {
            Value::Int64(end) => ((*end).into(), |at| Value::Int64(i64::try_from(at).unwrap_or_default())),
            Value::Uint64(end) => ((*end).into(), |at| Value::Uint64(u64::try_from(at).unwrap_or_default())),
            Value::Uint8(end) => ((*end).into(), |at| Value::Uint8(u8::try_from(at).unwrap_or_default())),
            Value::Int(end) => ((*end).into(), |at| Value::Int(i64::try_from(at).unwrap_or_default())),
            _ => (0, |_| Value::None),
        };
        for at in 0..end {
            if self.once(branch, Value::None, Dot::plain(of(at)), out)? == Flow::Break {
                break;
            }
        }
        Ok(end > 0)
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
}
