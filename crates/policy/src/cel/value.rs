//! Values of expressions. Data is borrowed and taken apart as far as an expression looks into it.

use std::{cmp::Ordering, collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use serde_json::{Map as JsonMap, Value as Json};

use super::{
    authorizer::Question,
    decl::{Decl, DeclKind, Merge},
    eval::Fault,
    format::Format,
    message::Message,
    quantity::Quantity,
    semver::Semver,
    time,
    types::{self, Type},
    url::Url,
};

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Self>>),
    Type(Type),
    Opaque(Opaque),
    Message(Arc<Message<'a>>),
}

/// Text, borrowed from data or made.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Made(Arc<str>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Items, and what they are.
    Data(&'a [Json], &'a Decl, &'a Merge),
    Made(Arc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// Entries, and what the whole is: an object, a map or anything.
    Data(&'a JsonMap<String, Json>, &'a Decl),
    Made(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// Values of the Kubernetes libraries.
#[derive(Clone, Debug)]
pub enum Opaque {
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Quantity(Quantity),
    Semver(Arc<Semver>),
    Url(Arc<Url>),
    Format(&'static Format),
    /// Of the authorizer.
    Question(Arc<Question>),
}

/// What a map can be looked up by.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Int(i128),
    String(Text<'a>),
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }

    pub(super) fn chars_len(&self) -> u64 {
        self.as_str().chars().count() as u64
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text)
    }
}

impl From<Arc<str>> for Text<'_> {
    fn from(text: Arc<str>) -> Self {
        Self::Made(text)
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Made(text.into())
    }
}

impl Key<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) => 1,
            Self::String(_) => 2,
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.as_str().cmp(b.as_str()),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

impl<'a> Key<'a> {
    /// None: not a value that maps are keyed by.
    pub(super) fn of(value: &Value<'a>) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Int(value) => Some(Self::Int(i128::from(*value))),
            Value::Uint(value) => Some(Self::Int(i128::from(*value))),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e19 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and small, as checked right above")]
                Some(Self::Int(*value as i128))
            }
            Value::String(text) => Some(Self::String(text.clone())),
            _ => None,
        }
    }

    pub(super) fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => match i64::try_from(*value) {
                Ok(value) => Value::Int(value),
                Err(_) => Value::Uint(u64::try_from(*value).unwrap_or(u64::MAX)),
            },
            Self::String(text) => Value::String(text.clone()),
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(text: impl Into<Text<'a>>) -> Self {
        Self::String(text.into())
    }

    pub(super) fn made(list: Vec<Self>) -> Self {
        Self::List(List::Made(Arc::new(list)))
    }

    pub(super) fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// A piece of data as its declaration has it. Fails if it does not fit.
    pub fn of(json: &'a Json, decl: &'a Decl) -> Result<Self, Fault> {
        let unfit = |what: &str| Err(Fault::failed(format!("invalid data, expected {what}")));
        if json.is_null() {
            return match decl.nullable {
                true => Ok(Self::Null),
                false => Err(Fault::failed("invalid data, got null for schema with nullable=false")),
            };
        }
        match (&decl.kind, json) {
            (DeclKind::Any, _) => Ok(Self::any(json, decl)),
            (DeclKind::IntOrString | DeclKind::String, Json::String(text)) => Ok(Self::text(text.as_str())),
            (DeclKind::IntOrString | DeclKind::Int, Json::Number(number)) => match whole(number) {
                Some(value) => Ok(Self::Int(value)),
                None => unfit("int, got float64"),
            },
            (DeclKind::IntOrString, _) => unfit("XIntOrString value to be either a string or integer"),
            (DeclKind::Bool, Json::Bool(value)) => Ok(Self::Bool(*value)),
            (DeclKind::Double, Json::Number(number)) => Ok(Self::Double(number.as_f64().unwrap_or(f64::NAN))),
            (DeclKind::Bytes, Json::String(text)) => {
                use base64::{Engine, engine::general_purpose::STANDARD};
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|error| Fault::failed(format!("Invalid byte formatted string {text}: {error}")))?;
                Ok(Self::Bytes(bytes.into()))
            }
            (DeclKind::Duration, Json::String(text)) => match time::schema_duration(text) {
                Some(nanos) => Ok(Self::Duration(nanos)),
                None => Err(Fault::failed(format!("Invalid duration {text}: not a duration"))),
            },
            (DeclKind::Date, Json::String(text)) => match time::date(text) {
                Some(stamp) => Ok(Self::Timestamp(stamp)),
                None => Err(Fault::failed(format!("Invalid date formatted string {text}: not a date"))),
            },
            (DeclKind::DateTime, Json::String(text)) => match time::timestamp(text) {
                Some(stamp) => Ok(Self::Timestamp(stamp)),
                None => Err(Fault::failed(format!("Invalid date-time formatted string {text}: not a time"))),
            },
            (DeclKind::List { items, merge }, Json::Array(list)) => Ok(Self::List(List::Data(list, items, merge))),
            (DeclKind::Map { .. } | DeclKind::Object { .. }, Json::Object(map)) => Ok(Self::Map(Map::Data(map, decl))),
            (DeclKind::List { .. }, _) => unfit("an array for the provided schema with type=array"),
            (DeclKind::Map { .. } | DeclKind::Object { .. }, _) => {
                unfit("a map for the provided schema with type=object")
            }
            (DeclKind::Bool, _) => unfit("bool"),
            (DeclKind::Int, _) => unfit("int"),
            (DeclKind::Double, _) => unfit("float"),
            _ => unfit("string"),
        }
    }

    fn any(json: &'a Json, decl: &'a Decl) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Self::Int(value),
                None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::text(text.as_str()),
            Json::Array(list) => Self::List(List::Data(list, decl, &Merge::Atomic)),
            Json::Object(map) => Self::Map(Map::Data(map, decl)),
        }
    }

    pub(super) fn type_(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Type(_) => Type::Type(Arc::new(Type::Dyn)),
            Self::Opaque(opaque) => Type::Opaque(opaque.type_name()),
            Self::Message(message) => Type::Message(message.name.clone()),
        }
    }

    /// What costs reckon with: characters, bytes, items or entries; 1 of all else.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.chars_len(),
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Optional(Some(inner)) => inner.size(),
            Self::Opaque(Opaque::Ip(ip)) => ip_bytes(ip),
            Self::Opaque(Opaque::Cidr(ip, bits)) => ip_bytes(ip).min(u64::from(*bits).div_ceil(8)),
            _ => 1,
        }
    }
}

fn ip_bytes(ip: &IpAddr) -> u64 {
    if ip.is_ipv4() { 4 } else { 16 }
}

fn whole(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let value = number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 9e15)?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and small, as checked right above")]
        Some(value as i64)
    })
}

impl Opaque {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Ip(_) => types::IP,
            Self::Cidr(..) => types::CIDR,
            Self::Quantity(_) => types::QUANTITY,
            Self::Semver(_) => types::SEMVER,
            Self::Url(_) => types::URL,
            Self::Format(_) => types::FORMAT,
            Self::Question(question) => question.type_name(),
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(list, ..) => list.len(),
            Self::Made(list) => list.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Result<Value<'a>, Fault>> {
        match self {
            Self::Data(list, items, _) => list.get(index).map(|json| Value::of(json, items)),
            Self::Made(list) => list.get(index).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Result<Value<'a>, Fault>> + use<'_, 'a> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(map, _) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    /// The value of a key; names of fields are escaped.
    pub(super) fn find(&self, key: &Key<'_>) -> Option<Result<Value<'a>, Fault>> {
        match (self, key) {
            (Self::Data(map, decl), Key::String(name)) => match &decl.kind {
                DeclKind::Object { .. } => {
                    let field = decl.field(name.as_str())?;
                    let json = map.get(&*field.name).filter(|json| !json.is_null())?;
                    Some(Value::of(json, &field.decl))
                }
                DeclKind::Map { values } => map.get(name.as_str()).map(|json| Value::of(json, values)),
                _ => map.get(name.as_str()).map(|json| Value::of(json, decl)),
            },
            (Self::Data(..), _) => None,
            (Self::Made(map), key) => map.get(key).cloned().map(Ok),
        }
    }

    /// The keys that expressions see, in order.
    pub(super) fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Self::Data(map, decl) => match &decl.kind {
                DeclKind::Object { fields } => {
                    let there = |field: &&super::decl::Field| map.contains_key(&*field.name);
                    let key = |field: &'a super::decl::Field| Key::String(Text::Borrowed(&field.escaped));
                    fields.iter().filter(there).map(key).collect()
                }
                _ => map.keys().map(|key| Key::String(Text::Borrowed(key))).collect(),
            },
            Self::Made(map) => map.keys().cloned().collect(),
        }
    }
}
