//! What is known of data before it is there: the types of a schema, with the bounds that costs are estimated from
//! (upstream: `k8s.io/apiserver/pkg/cel/common/schemas.go`, `pkg/cel/types.go`, `pkg/cel/limits.go`).

use std::sync::Arc;

/// The largest request that estimates reckon with (`MaxRequestSizeBytes`).
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// The type of a piece of JSON.
#[derive(Clone, Debug)]
pub struct Decl {
    pub kind: DeclKind,
    pub nullable: bool,
    /// Characters, bytes, items or entries that a value may have; 0 of what has none. Costs are estimated from it.
    pub max_elements: u64,
    /// Bytes that a value takes as JSON, at least.
    pub min_bytes: u64,
}

#[derive(Clone, Debug)]
pub enum DeclKind {
    /// Whatever is there, by its own type.
    Any,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
    Bool,
    Int,
    Double,
    String,
    /// Text in base64.
    Bytes,
    /// Text that Go's `time.ParseDuration` takes.
    Duration,
    /// Text as `2006-01-02`.
    Date,
    /// Text as RFC 3339 has it.
    DateTime,
    List {
        items: Arc<Decl>,
        merge: Merge,
    },
    Map {
        values: Arc<Decl>,
    },
    /// Sorted by `escaped`.
    Object {
        fields: Arc<[Field]>,
    },
}

/// How two lists compare and add up (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    #[default]
    Atomic,
    Set,
    /// By these fields.
    Map(Box<[Box<str>]>),
}

#[derive(Clone, Debug)]
pub struct Field {
    /// As expressions name it.
    pub escaped: Box<str>,
    /// As data names it.
    pub name: Box<str>,
    pub decl: Arc<Decl>,
}

impl Decl {
    pub fn new(kind: DeclKind, max_elements: u64, min_bytes: u64) -> Self {
        Self { kind, nullable: false, max_elements, min_bytes }
    }

    /// Data of which nothing is known.
    pub fn any() -> Self {
        Self { nullable: true, ..Self::new(DeclKind::Any, REQUEST_BYTES_MAX, 1) }
    }

    pub fn bool() -> Self {
        Self::new(DeclKind::Bool, 0, 4)
    }

    pub fn int() -> Self {
        Self::new(DeclKind::Int, 0, 1)
    }

    pub fn double() -> Self {
        Self::new(DeclKind::Double, 0, 1)
    }

    /// Text of so many characters at most.
    pub fn string(max_chars: Option<u64>) -> Self {
        let max = max_chars.map_or(REQUEST_BYTES_MAX - 2, |max| max.saturating_mul(4));
        Self::new(DeclKind::String, max, 2)
    }

    pub fn list(items: Arc<Self>, max_items: Option<u64>, merge: Merge) -> Self {
        let max = max_items.unwrap_or((REQUEST_BYTES_MAX - 2) / (items.min_bytes + 1));
        Self::new(DeclKind::List { items, merge }, max, 2)
    }

    pub fn map(values: Arc<Self>, max_entries: Option<u64>) -> Self {
        let max = max_entries.unwrap_or((REQUEST_BYTES_MAX - 2) / (values.min_bytes + 6));
        Self::new(DeclKind::Map { values }, max, 2)
    }

    /// An object of these fields; those that cannot be escaped are left out.
    pub fn object(fields: impl IntoIterator<Item = (Box<str>, Arc<Self>)>, min_bytes: u64) -> Self {
        let mut list: Vec<_> = fields
            .into_iter()
            .filter_map(|(name, decl)| Some(Field { escaped: escape(&name)?.into(), name, decl }))
            .collect();
        list.sort_by(|a, b| a.escaped.cmp(&b.escaped));
        Self::new(DeclKind::Object { fields: list.into() }, 0, min_bytes)
    }

    /// The field that expressions name so.
    pub fn field(&self, escaped: &str) -> Option<&Field> {
        let DeclKind::Object { fields } = &self.kind else { return None };
        let find = |name: &str| fields.get(fields.binary_search_by(|field| (*field.escaped).cmp(name)).ok()?);
        // Words that only names of variables may not be are taken as they are, too.
        find(escaped).or_else(|| RESERVED.contains(&escaped).then(|| find(&format!("__{escaped}__"))).flatten())
    }
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a property as an identifier: `__namespace__`, `a__dash__b`; None if it cannot be one (upstream:
/// `k8s.io/apiserver/pkg/cel/escaping.go`).
pub fn escape(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if first.is_ascii_digit() {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(next) = chars.next() {
        match next {
            '_' if chars.next_if_eq(&'_').is_some() => out.push_str("__underscores__"),
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_kubernetes_does() {
        let cases = [
            ("a", Some("a")),
            ("a-b.c/d", Some("a__dash__b__dot__c__slash__d")),
            ("namespace", Some("__namespace__")),
            ("a__b", Some("a__underscores__b")),
            ("_a_", Some("_a_")),
            ("", None),
            ("1a", None),
            ("a b", None),
            ("ä", None),
        ];
        for (name, expected) in cases {
            assert_eq!(escape(name).as_deref(), expected, "{name}");
        }
    }
}
