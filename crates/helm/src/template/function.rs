//! Functions and methods, as data: a name, what they take, and what they do.

use std::{rc::Rc, sync::Arc};

use super::{
    Scope,
    error::Result,
    value::{Map, Value},
};

/// A function that templates may call. What it takes is a letter for each parameter: `s` string, `i` int, `l` int64, `u`
/// uint32, `f` float64, `b` bool, `m` map[string]interface {}, `A` []interface {}, `S` []string, `t` time.Time, `c` a
/// certificate, `a` interface {}, `v` any value as it is; a `*` behind the last says: any number of them. Arguments are
/// checked before `run` is called; a method's receiver comes first, unchecked.
pub struct Function {
    pub name: &'static str,
    pub takes: &'static str,
    pub run: fn(&mut Scope<'_>, Args) -> Result<Value>,
}

/// What a function is called with: as many and of such types as it `takes`. What is not there reads as empty.
pub struct Args(pub Vec<Value>);

impl Args {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn at(&self, index: usize) -> &Value {
        self.0.get(index).unwrap_or(&Value::Nil)
    }

    pub fn take(&mut self, index: usize) -> Value {
        self.0.get_mut(index).map_or(Value::Nil, std::mem::take)
    }

    pub fn text(&self, index: usize) -> &str {
        self.at(index).as_str().unwrap_or_default()
    }

    pub fn shared_text(&self, index: usize) -> Arc<str> {
        match self.at(index) {
            Value::Str(text) => text.clone(),
            _ => Arc::from(""),
        }
    }

    pub fn int(&self, index: usize) -> i64 {
        match self.at(index) {
            Value::Int(number) | Value::Int64(number) => *number,
            _ => 0,
        }
    }

    pub fn truth(&self, index: usize) -> bool {
        matches!(self.at(index), Value::Bool(true))
    }

    /// Nothing for a nil map.
    pub fn map(&self, index: usize) -> Option<&Rc<Map>> {
        self.at(index).as_map()
    }

    /// The arguments from there on.
    pub fn rest(&self, from: usize) -> &[Value] {
        self.0.get(from..).unwrap_or_default()
    }
}

impl Function {
    /// The letters of its parameters, without the star, and whether there is one.
    pub(super) fn parameters(&self) -> (&'static [u8], bool) {
        match self.takes.strip_suffix('*') {
            Some(takes) => (takes.as_bytes(), true),
            None => (self.takes.as_bytes(), false),
        }
    }
}

/// The Go name of a parameter's type.
pub(super) fn type_of(letter: u8) -> &'static str {
    match letter {
        b's' => "string",
        b'i' => "int",
        b'l' => "int64",
        b'u' => "uint32",
        b'f' => "float64",
        b'b' => "bool",
        b'm' => "map[string]interface {}",
        b'A' => "[]interface {}",
        b'S' => "[]string",
        b't' => "time.Time",
        b'c' => "sprig.certificate",
        b'v' => "reflect.Value",
        _ => "interface {}",
    }
}

/// Whether a value goes as it is where a parameter of that letter stands.
pub(super) fn accepts(letter: u8, value: &Value) -> bool {
    match (letter, value) {
        (b'a' | b'v', _) | (b's', Value::Str(_)) | (b'i', Value::Int(_)) | (b'l', Value::Int64(_)) => true,
        (b'f', Value::Float(_)) | (b'b', Value::Bool(_)) => true,
        (b'm', Value::Map(map)) => matches!(map.ty.name, "map[string]interface {}" | "chartutil.Values"),
        (b'A', Value::List(list)) => list.ty.name == "[]interface {}",
        (b'S', Value::List(list)) => matches!(list.ty.name, "[]string" | "chartutil.VersionSet"),
        (b't' | b'c', Value::Struct(object)) => object.ty.name == type_of(letter),
        _ => false,
    }
}

/// Whether nil goes there: maps, slices and interfaces.
pub(super) fn accepts_nil(letter: u8) -> bool {
    matches!(letter, b'a' | b'v' | b'm' | b'A' | b'S')
}
