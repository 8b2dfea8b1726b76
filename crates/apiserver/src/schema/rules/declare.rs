//! From schemas to the types of expressions (upstream: `k8s.io/apiserver/pkg/cel/common/schemas.go`).

use std::sync::Arc;

use policy::cel::{Decl, DeclKind, Merge, REQUEST_BYTES_MAX};
use serde_json::Value;

use super::super::{Additional, Checks, List, Node, Type};

/// Bytes of a duration or a time as JSON, at most and at least (`MaxDurationSizeJSON` and its like).
const DURATION_BYTES: (u64, u64) = (32, 3);
const DATE_BYTES: (u64, u64) = (12, 12);
const DATE_TIME_BYTES: (u64, u64) = (32, 21);

/// What expressions may know of a place; None if nothing. `resource`: it has `apiVersion`, `kind` and `metadata`.
pub(in super::super) fn declaration(node: &Node, resource: bool) -> Option<Arc<Decl>> {
    let mut decl = whole(node, resource)?;
    decl.nullable = node.nullable;
    Some(Arc::new(decl))
}

fn whole(node: &Node, resource: bool) -> Option<Decl> {
    let checks = node.checks.as_deref();
    if node.int_or_string {
        let max =
            checks.and_then(|checks| checks.max_length).map_or(REQUEST_BYTES_MAX - 2, |max| max.saturating_mul(4));
        return Some(Decl::new(DeclKind::IntOrString, max, 1));
    }
    match node.type_? {
        Type::Array => {
            let items = node.items.as_ref()?;
            let items = declaration(items, items.embedded)?;
            let merge = match &node.list {
                List::Atomic => Merge::Atomic,
                List::Set => Merge::Set,
                List::Map(keys) => Merge::Map(keys.clone()),
            };
            Some(Decl::list(items, checks.and_then(|checks| checks.max_items), merge))
        }
        Type::Object => object(node, checks, resource),
        Type::String => Some(string(checks)),
        Type::Boolean => Some(Decl::bool()),
        Type::Number => Some(Decl::double()),
        Type::Integer => Some(Decl::int()),
    }
}

fn object(node: &Node, checks: Option<&Checks>, resource: bool) -> Option<Decl> {
    if let Additional::Of(values) = &node.additional
        && !resource
    {
        let values = declaration(values, values.embedded)?;
        return Some(Decl::map(values, checks.and_then(|checks| checks.max_properties)));
    }
    let required = checks.map_or(&[][..], |checks| &checks.required);
    let mut bytes = 2;
    let mut fields: Vec<(Box<str>, Arc<Decl>)> = Vec::new();
    for (name, field) in node.properties.iter() {
        if resource && matches!(&**name, "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let Some(decl) = declaration(field, field.embedded) else { continue };
        if required.contains(name) && field.default.is_none() {
            bytes += name.len() as u64 + decl.min_bytes + 4;
        }
        fields.push((name.clone(), decl));
    }
    if resource {
        let text = || Arc::new(Decl::string(None));
        let names = [("name".into(), text()), ("generateName".into(), text())];
        fields.push(("apiVersion".into(), text()));
        fields.push(("kind".into(), text()));
        fields.push(("metadata".into(), Arc::new(Decl::object(names, 2))));
    }
    Some(Decl::object(fields, bytes))
}

fn string(checks: Option<&Checks>) -> Decl {
    let max = checks.and_then(|checks| checks.max_length);
    let format = checks.and_then(|checks| checks.format.as_deref()).unwrap_or_default();
    let timed = |kind, (max, min): (u64, u64)| Decl::new(kind, max, min);
    match format {
        "byte" => Decl::new(DeclKind::Bytes, max.unwrap_or(REQUEST_BYTES_MAX - 2), 2),
        "duration" => timed(DeclKind::Duration, DURATION_BYTES),
        "date" => timed(DeclKind::Date, DATE_BYTES),
        "date-time" | "datetime" => timed(DeclKind::DateTime, DATE_TIME_BYTES),
        _ => {
            let mut decl = Decl::string(max);
            let values = checks.and_then(|checks| checks.one_of_values.as_deref());
            if let Some(values) = values.filter(|_| max.is_none()) {
                let longest = values.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(0);
                decl.max_elements = longest as u64;
            }
            decl
        }
    }
}
