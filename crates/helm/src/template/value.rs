//! What templates compute with: the Go types that reach a template, as one type.

use std::{cell::RefCell, collections::BTreeMap, fmt, rc::Rc, sync::Arc};

use super::function::Function;

/// A value. Maps are shared: who holds one sees what others set in it, as in Go.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// No value at all: what `reflect` calls invalid. A pipeline whose result is nil yields it.
    None,
    /// An `interface {}` that holds nothing: what a map or a list holds for null, and gives for a key that is missing.
    #[default]
    Nil,
    Bool(bool),
    /// Go's `int`: literals, lengths, indexes.
    Int(i64),
    /// Go's `int64`: what functions of arithmetic return.
    Int64(i64),
    Uint64(u64),
    Uint8(u8),
    Float(f64),
    Str(Arc<str>),
    /// Go's `[]uint8`.
    Bytes(Arc<[u8]>),
    List(Rc<List>),
    Map(Rc<Map>),
    Struct(Rc<Struct>),
}

pub type Entries = BTreeMap<Arc<str>, Value>;

/// What is known of a Go type: its name as `%T` has it, and what values of it can do.
pub struct Type {
    pub name: &'static str,
    /// What a key that is missing yields.
    pub zero: fn() -> Value,
    pub methods: &'static [Function],
    /// `String()`, if the type has it.
    pub text: Option<fn(&Struct) -> String>,
    /// What stands for it in JSON, if that is not its fields.
    pub json: Option<fn(&Struct) -> Value>,
}

impl Type {
    pub const fn plain(name: &'static str) -> Self {
        Self { name, zero: || Value::Nil, methods: &[], text: None, json: None }
    }
}

pub static ANY_MAP: Type = Type::plain("map[string]interface {}");
pub static TEXT_MAP: Type = Type { zero: || Value::text(""), ..Type::plain("map[string]string") };
pub static ANY_LIST: Type = Type::plain("[]interface {}");
pub static TEXT_LIST: Type = Type::plain("[]string");
pub static INT_LIST: Type = Type::plain("[]int");
pub static MAP_LIST: Type = Type::plain("[]map[string]interface {}");
pub static LIST_LIST: Type = Type::plain("[][]interface {}");

impl fmt::Debug for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

/// A Go slice. Nothing changes one: functions return new ones.
#[derive(Debug)]
pub struct List {
    pub ty: &'static Type,
    pub items: Vec<Value>,
    /// A nil slice: `null` as JSON, where an empty one is `[]`.
    pub absent: bool,
}

#[derive(Debug)]
pub struct Map {
    pub ty: &'static Type,
    pub entries: RefCell<Entries>,
}

#[derive(Debug)]
pub struct Struct {
    pub ty: &'static Type,
    /// Templates hold the address of one, not one.
    pub pointer: bool,
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    /// As Go has it; one in lower case cannot be seen by templates.
    pub name: &'static str,
    /// As JSON has it, and whether it is left out when empty. Empty: not in JSON.
    pub json: (&'static str, bool),
    pub value: Value,
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|field| field.name == name).map(|field| &field.value)
    }
}

impl Map {
    pub fn get(&self, key: &str) -> Option<Value> {
        self.entries.borrow().get(key).cloned()
    }
}

// Values that hold values that hold values... are taken apart in a loop, not by recursion: a template can nest them without end.
impl Drop for List {
    fn drop(&mut self) {
        take_apart(std::mem::take(&mut self.items));
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        take_apart(std::mem::take(self.entries.get_mut()).into_values().collect());
    }
}

fn take_apart(mut held: Vec<Value>) {
    while let Some(value) = held.pop() {
        match value {
            Value::List(list) => {
                if let Ok(mut list) = Rc::try_unwrap(list) {
                    held.append(&mut list.items);
                }
            }
            Value::Map(map) => {
                if let Ok(mut map) = Rc::try_unwrap(map) {
                    held.extend(std::mem::take(map.entries.get_mut()).into_values());
                }
            }
            _ => {}
        }
    }
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Str(Arc::from(text))
    }

    /// `[]interface {}`.
    pub fn list(items: Vec<Self>) -> Self {
        Self::typed_list(&ANY_LIST, items)
    }

    pub fn typed_list(ty: &'static Type, items: Vec<Self>) -> Self {
        Self::List(Rc::new(List { ty, items, absent: false }))
    }

    pub fn absent_list(ty: &'static Type) -> Self {
        Self::List(Rc::new(List { ty, items: Vec::new(), absent: true }))
    }

    pub fn texts<I: IntoIterator<Item = String>>(texts: I) -> Self {
        Self::typed_list(&TEXT_LIST, texts.into_iter().map(Self::from).collect())
    }

    /// `map[string]interface {}`.
    pub fn map(entries: Entries) -> Self {
        Self::typed_map(&ANY_MAP, entries)
    }

    pub fn typed_map(ty: &'static Type, entries: Entries) -> Self {
        Self::Map(Rc::new(Map { ty, entries: RefCell::new(entries) }))
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Self::None | Self::Nil)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Rc<Map>> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// What `if` makes of it.
    pub fn truth(&self) -> bool {
        match self {
            Self::None | Self::Nil => false,
            Self::Bool(truth) => *truth,
            Self::Int(number) | Self::Int64(number) => *number != 0,
            Self::Uint64(number) => *number != 0,
            Self::Uint8(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::Bytes(bytes) => !bytes.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.borrow().is_empty(),
            Self::Struct(_) => true,
        }
    }

    /// The name of its type, as `%T` has it.
    pub fn type_name(&self) -> String {
        let name = match self {
            Self::None | Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Int64(_) => "int64",
            Self::Uint64(_) => "uint64",
            Self::Uint8(_) => "uint8",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::Bytes(_) => "[]uint8",
            Self::List(list) => list.ty.name,
            Self::Map(map) => map.ty.name,
            Self::Struct(object) if object.pointer => return format!("*{}", object.ty.name),
            Self::Struct(object) => object.ty.name,
        };
        name.to_owned()
    }

    /// As `reflect.Kind` names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None | Self::Nil => "invalid",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Int64(_) => "int64",
            Self::Uint64(_) => "uint64",
            Self::Uint8(_) => "uint8",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::Bytes(_) | Self::List(_) => "slice",
            Self::Map(_) => "map",
            Self::Struct(object) if object.pointer => "ptr",
            Self::Struct(_) => "struct",
        }
    }

    pub fn methods(&self) -> &'static [Function] {
        match self {
            Self::List(list) => list.ty.methods,
            Self::Map(map) => map.ty.methods,
            Self::Struct(object) => object.ty.methods,
            _ => &[],
        }
    }

    /// The items of a slice, of whichever type.
    pub fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(list) => Some(list.items.clone()),
            Self::Bytes(bytes) => Some(bytes.iter().map(|byte| Self::Uint8(*byte)).collect()),
            _ => None,
        }
    }

    /// The size that it is charged with when a function has made it, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Str(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.items.len() * size_of::<Self>(),
            Self::Map(map) => map.entries.borrow().len() * 2 * size_of::<Self>(),
            _ => 0,
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
