//! Functions over paths with slashes: Go's `path`, and `path/filepath` where it is the same.

use crate::template::{function::Function, value::Value};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "base", takes: "s", run: |_, args| Ok(base(args.text(0)).into()) },
    Function { name: "clean", takes: "s", run: |_, args| Ok(clean(args.text(0)).into()) },
    Function { name: "dir", takes: "s", run: |_, args| Ok(dir(args.text(0)).into()) },
    Function { name: "ext", takes: "s", run: |_, args| Ok(Value::text(ext(args.text(0)))) },
    Function { name: "isAbs", takes: "s", run: |_, args| Ok(args.text(0).starts_with('/').into()) },
    Function { name: "osBase", takes: "s", run: |_, args| Ok(base(args.text(0)).into()) },
    Function { name: "osClean", takes: "s", run: |_, args| Ok(clean(args.text(0)).into()) },
    Function { name: "osDir", takes: "s", run: |_, args| Ok(dir(args.text(0)).into()) },
    Function { name: "osExt", takes: "s", run: |_, args| Ok(Value::text(ext(args.text(0)))) },
    Function { name: "osIsAbs", takes: "s", run: |_, args| Ok(args.text(0).starts_with('/').into()) },
];

pub fn base(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(last) => last.to_owned(),
    }
}

fn dir(path: &str) -> String {
    clean(&path[..path.rfind('/').map_or(0, |slash| slash + 1)])
}

fn ext(path: &str) -> &str {
    let last = path.rfind('/').map_or(0, |slash| slash + 1);
    path[last..].rfind('.').map_or("", |dot| &path[last + dot..])
}

/// The shortest path that says the same.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}
