//! The types of expressions.

use std::{fmt, sync::Arc};

use super::{
    authorizer,
    decl::{Decl, DeclKind},
};

#[derive(Clone, Debug)]
pub enum Type {
    /// Known when it runs.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Self>),
    Map(Arc<(Self, Self)>),
    Object(Arc<Decl>),
    Optional(Arc<Self>),
    /// The type of a type.
    Type(Arc<Self>),
    /// A type of the Kubernetes libraries, by name.
    Opaque(&'static str),
    /// What an expression makes of a type with a name.
    Message(Arc<str>),
    /// Stands for any one type in a declaration.
    Param(u32),
}

pub(super) const IP: &str = "net.IP";
pub(super) const CIDR: &str = "net.CIDR";
pub(super) const URL: &str = "kubernetes.URL";
pub(super) const QUANTITY: &str = "kubernetes.Quantity";
pub(super) const SEMVER: &str = "kubernetes.Semver";
pub(super) const FORMAT: &str = "kubernetes.NamedFormat";

const OPAQUE: [&str; 11] = [
    IP,
    CIDR,
    URL,
    QUANTITY,
    SEMVER,
    FORMAT,
    authorizer::AUTHORIZER,
    authorizer::PATH_CHECK,
    authorizer::GROUP_CHECK,
    authorizer::RESOURCE_CHECK,
    authorizer::DECISION,
];

impl Type {
    /// The type of the variable `authorizer`.
    pub const AUTHORIZER: Self = Self::Opaque(authorizer::AUTHORIZER);
    /// The type of the variable `authorizer.requestResource`.
    pub const RESOURCE_CHECK: Self = Self::Opaque(authorizer::RESOURCE_CHECK);

    pub fn list(items: Self) -> Self {
        Self::List(Arc::new(items))
    }

    pub fn map(keys: Self, values: Self) -> Self {
        Self::Map(Arc::new((keys, values)))
    }

    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// The type that data of this declaration have.
    pub fn of(decl: &Arc<Decl>) -> Self {
        match &decl.kind {
            DeclKind::Any | DeclKind::IntOrString => Self::Dyn,
            DeclKind::Bool => Self::Bool,
            DeclKind::Int => Self::Int,
            DeclKind::Double => Self::Double,
            DeclKind::String => Self::String,
            DeclKind::Bytes => Self::Bytes,
            DeclKind::Duration => Self::Duration,
            DeclKind::Date | DeclKind::DateTime => Self::Timestamp,
            DeclKind::List { items, .. } => Self::list(Self::of(items)),
            DeclKind::Map { values } => Self::map(Self::String, Self::of(values)),
            DeclKind::Object { .. } => Self::Object(decl.clone()),
        }
    }

    /// Types that an expression may name.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "null_type" => Self::Null,
            "list" => Self::list(Self::Dyn),
            "map" => Self::map(Self::Dyn, Self::Dyn),
            "type" => Self::Type(Arc::new(Self::Dyn)),
            "optional_type" => Self::optional(Self::Dyn),
            "google.protobuf.Duration" => Self::Duration,
            "google.protobuf.Timestamp" => Self::Timestamp,
            _ => Self::Opaque(OPAQUE.into_iter().find(|known| *known == name)?),
        })
    }

    /// What `type(x)` compares: containers without what is in them.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Dyn => "dyn",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) | Self::Object(_) => "map",
            Self::Message(_) => "object",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Opaque(name) => name,
            Self::Param(_) => "param",
        }
    }

    pub(super) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    /// The same type, to the last.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b))
            | (Self::Optional(a), Self::Optional(b))
            | (Self::Type(a), Self::Type(b)) => a.same(b),
            (Self::Map(a), Self::Map(b)) => a.0.same(&b.0) && a.1.same(&b.1),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b),
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Message(a), Self::Message(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::List(items) => write!(f, "list({items})"),
            Self::Map(inner) => write!(f, "map({}, {})", inner.0, inner.1),
            Self::Object(_) => f.write_str("object"),
            Self::Message(name) => f.write_str(name),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Type(of) => write!(f, "type({of})"),
            Self::Param(_) => f.write_str("dyn"),
            other => f.write_str(other.name()),
        }
    }
}
