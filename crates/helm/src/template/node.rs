//! A template that has been read: what it consists of, and how Go writes it when it tells where an error is.

use std::{fmt, ops::Range, sync::Arc};

use super::function::Function;

/// A byte offset in the text.
pub type Place = usize;

pub enum Node {
    /// From where to where in the source, and whether it is but white space.
    Text {
        span: Range<Place>,
        blank: bool,
    },
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template(Invocation),
    Break,
    Continue,
}

pub struct Branch {
    pub pipe: Pipe,
    pub body: Vec<Node>,
    pub otherwise: Option<Vec<Node>>,
}

pub struct Invocation {
    pub place: Place,
    pub name: String,
    pub pipe: Option<Pipe>,
}

pub struct Pipe {
    pub place: Place,
    /// `=` instead of `:=`.
    pub assigns: bool,
    pub variables: Vec<Box<str>>,
    pub commands: Vec<Command>,
}

pub struct Command {
    pub place: Place,
    /// Never empty.
    pub words: Vec<Operand>,
}

pub struct Operand {
    pub place: Place,
    pub term: Term,
}

pub enum Term {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    Text {
        quoted: Box<str>,
        text: Arc<str>,
    },
    /// Names with dots between them: templates have too many for a box each.
    Field(Box<str>),
    /// The variable with its `$`, then fields, all with dots between them.
    Variable(Box<str>),
    Function(Callee),
    /// A parenthesis or a function, then fields.
    Chain(Box<Operand>, Box<str>),
    Pipe(Pipe),
}

/// What a name means: found when the template is read.
#[derive(Clone, Copy)]
pub enum Callee {
    And,
    Or,
    Known(&'static Function),
}

impl Callee {
    pub fn name(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Known(function) => function.name,
        }
    }
}

/// A constant with all the types that it can have.
pub struct Number {
    pub text: Box<str>,
    pub int: Option<i64>,
    pub uint: Option<u64>,
    pub float: Option<f64>,
}

fn separated<T: fmt::Display>(out: &mut fmt::Formatter<'_>, parts: &[T], between: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.write_str(between)?;
        }
        write!(out, "{part}")?;
    }
    Ok(())
}

impl fmt::Display for Pipe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            separated(out, &self.variables, ", ")?;
            out.write_str(if self.assigns { " = " } else { " := " })?;
        }
        separated(out, &self.commands, " | ")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                out.write_str(" ")?;
            }
            match &word.term {
                Term::Pipe(pipe) => write!(out, "({pipe})")?,
                _ => write!(out, "{word}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.term {
            Term::Dot => out.write_str("."),
            Term::Nil => out.write_str("nil"),
            Term::Bool(truth) => write!(out, "{truth}"),
            Term::Number(number) => out.write_str(&number.text),
            Term::Text { quoted, .. } => out.write_str(quoted),
            Term::Field(names) => write!(out, ".{names}"),
            Term::Variable(names) => out.write_str(names),
            Term::Function(callee) => out.write_str(callee.name()),
            Term::Chain(of, names) => {
                match &of.term {
                    Term::Pipe(pipe) => write!(out, "({pipe})")?,
                    _ => write!(out, "{of}")?,
                }
                write!(out, ".{names}")
            }
            Term::Pipe(pipe) => write!(out, "{pipe}"),
        }
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{{{{template {}", super::text::quoted(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(out, " {pipe}")?;
        }
        out.write_str("}}")
    }
}

/// Whether nothing but white space would come of it: such a definition does not take the place of another.
pub fn is_blank(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| matches!(node, Node::Text { blank: true, .. }))
}
