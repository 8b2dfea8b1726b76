//! Go's `text/template`: reading, and carrying out on values that templates may change. It stands alone: what functions there
//! are, and what a run may ask of the world, is given to it.
//!
//! Left out: complex numbers, channels, functions as values (`call`), and strings that are not UTF-8.

pub mod builtin;
pub mod comparison;
pub mod error;
mod execution;
pub mod format;
pub mod function;
mod lexer;
mod node;
mod parser;
pub mod text;
pub mod value;

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use self::{
    error::{Error, Result},
    function::Function,
    node::Node,
    value::Value,
};

/// A template may be so long, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Actions and parentheses may lie so deep in one another.
pub const DEEP_MAX: usize = 400;
/// Templates may call one another so deep.
pub const CALLS_MAX: usize = 4_000;
/// Nodes, rounds and calls of one run.
pub const STEPS_MAX: usize = 20_000_000;
/// What one run may write and what its functions may make, all told, in bytes.
pub const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Which functions there are, besides `and` and `or`.
pub trait Functions {
    fn find(&self, name: &str) -> Option<&'static Function>;
}

/// A text that has been read, for errors to point into.
#[derive(Debug)]
struct Source {
    name: String,
    text: String,
}

/// One definition.
pub struct Template {
    name: String,
    source: Arc<Source>,
    nodes: Vec<Node>,
}

impl Template {
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "template {}", text::quoted(&self.name))
    }
}

/// What one text defines, itself among it, by name.
#[derive(Debug)]
pub struct Text {
    name: String,
    templates: BTreeMap<String, Arc<Template>>,
}

/// Reads a text. Errors name it `name`, and so is its template.
///
/// # Errors
/// What is wrong with it, as Go says it, or that it is beyond a limit.
pub fn parse(name: &str, text: &str, functions: &dyn Functions) -> Result<Text> {
    if text.len() > TEXT_BYTES_MAX {
        return Error::limit(format!("template: {name}: it has more than {TEXT_BYTES_MAX} bytes"));
    }
    let trees = parser::parse(name, text, functions)?;
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let template =
        |(name, nodes): (String, Vec<Node>)| (name.clone(), Arc::new(Template { name, source: source.clone(), nodes }));
    Ok(Text { name: name.to_owned(), templates: trees.into_iter().map(template).collect() })
}

/// Templates that know one another, over others that they know too.
#[derive(Default)]
pub struct Set<'s> {
    below: Option<&'s Set<'s>>,
    templates: HashMap<String, Arc<Template>>,
}

impl<'s> Set<'s> {
    pub fn over(below: &'s Set<'s>) -> Self {
        Self { below: Some(below), templates: HashMap::new() }
    }

    /// Takes in what a text defines, instead of what had the name before, unless the new one is blank.
    pub fn add(&mut self, text: &Text) {
        for (name, template) in &text.templates {
            if self.find(name).is_none() || !node::is_blank(&template.nodes) {
                self.templates.insert(name.clone(), template.clone());
            }
        }
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Template>> {
        self.templates.get(name).or_else(|| self.below?.find(name))
    }
}

/// One run: what it has used of its limits, and what functions keep over it.
pub struct Run {
    steps: usize,
    bytes: usize,
    calls: usize,
    /// Maps that were changed: what holds itself would never be let go of else.
    changed: Vec<std::rc::Rc<value::Map>>,
    /// For functions: what is theirs.
    pub state: Box<dyn Any>,
}

/// What a function sees.
pub struct Scope<'r> {
    pub run: &'r mut Run,
    pub set: &'r Set<'r>,
}

impl Run {
    pub fn new(state: Box<dyn Any>) -> Self {
        Self { steps: 0, bytes: 0, calls: 0, changed: Vec::new(), state }
    }

    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Error::limit(format!("the templates take more than {STEPS_MAX} steps"));
        }
        Ok(())
    }

    /// Counts what is made, before it is made where that could be large.
    ///
    /// # Errors
    /// That it is too much.
    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES_MAX {
            return Error::limit(format!("the templates make more than {BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<()> {
        self.calls += 1;
        if self.calls > CALLS_MAX {
            return Error::limit(format!("templates call one another more than {CALLS_MAX} deep"));
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.calls -= 1;
    }

    /// To be told by each function that puts something into a map that was there before.
    pub fn changes(&mut self, map: &std::rc::Rc<value::Map>) {
        if self.changed.last().is_none_or(|last| !std::rc::Rc::ptr_eq(last, map)) {
            self.changed.push(map.clone());
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for map in self.changed.drain(..) {
            let held = std::mem::take(&mut *map.entries.borrow_mut());
            drop(held);
        }
    }
}

impl Scope<'_> {
    /// What a template of the set makes of data.
    ///
    /// # Errors
    /// That there is none of the name, or what went wrong in it.
    pub fn execute(&mut self, name: &str, data: Value) -> Result<String> {
        execute(self.run, self.set, name, data)
    }

    /// What a text makes of data; what it defines is known in it alone.
    ///
    /// # Errors
    /// What went wrong in it.
    pub fn execute_text(&mut self, text: &Text, data: Value) -> Result<String> {
        let mut set = Set::over(self.set);
        set.add(text);
        let mut out = String::new();
        if let Some(template) = text.templates.get(&text.name) {
            execution::execute(self.run, &set, template, data, &mut out)?;
        }
        Ok(out)
    }
}

/// What the template `name` of a set makes of data.
///
/// # Errors
/// That there is none of the name, or what went wrong in it.
pub fn execute(run: &mut Run, set: &Set<'_>, name: &str, data: Value) -> Result<String> {
    let mut out = String::new();
    match set.find(name) {
        Some(template) => execution::execute(run, set, template, data, &mut out)?,
        None => {
            let what = format!("template: no template {} associated with template \"gotpl\"", text::quoted(name));
            return Error::call(what);
        }
    }
    Ok(out)
}

/// Templates nest as they like: the stack grows where it is short.
pub(crate) fn on_enough_stack<T>(work: impl FnOnce() -> T) -> T {
    const LEFT: usize = 256 * 1024;
    const MORE: usize = 4 * 1024 * 1024;
    stacker::maybe_grow(LEFT, MORE, work)
}
