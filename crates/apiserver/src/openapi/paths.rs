//! The operations: enough to find a kind's path, its verbs, and the parameters that they take.

use serde_json::{Map, Value, json};

use super::{Published, reference};
use crate::schema::Dialect;

const JSON: &str = "application/json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCHES: [&str; 4] =
    ["application/json-patch+json", "application/merge-patch+json", STRATEGIC, "application/apply-patch+yaml"];

#[derive(Clone, Copy)]
struct Operation {
    method: &'static str,
    action: &'static str,
    parameters: &'static [&'static str],
    takes_body: bool,
    answers_list: bool,
}

const LIST_PARAMETERS: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];

const fn operation(method: &'static str, action: &'static str, parameters: &'static [&'static str]) -> Operation {
    Operation { method, action, parameters, takes_body: false, answers_list: false }
}

const LIST: Operation = Operation { answers_list: true, ..operation("get", "list", LIST_PARAMETERS) };
const POST: Operation = Operation { takes_body: true, ..operation("post", "post", WRITE) };
const DELETE_ALL: Operation = operation("delete", "deletecollection", LIST_PARAMETERS);
const GET: Operation = operation("get", "get", &[]);
const PUT: Operation = Operation { takes_body: true, ..operation("put", "put", WRITE) };
const PATCH: Operation = Operation {
    takes_body: true,
    ..operation("patch", "patch", &["dryRun", "fieldManager", "fieldValidation", "force"])
};
const DELETE: Operation =
    operation("delete", "delete", &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"]);

fn type_of(parameter: &str) -> &'static str {
    match parameter {
        "allowWatchBookmarks" | "force" | "orphanDependents" | "sendInitialEvents" | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    }
}

fn parameter(name: &str, place: &str, dialect: Dialect) -> Value {
    let mut out = json!({"name": name, "in": place, "uniqueItems": true});
    if place == "path" {
        out["required"] = json!(true);
    }
    match dialect {
        Dialect::V2 => out["type"] = json!(type_of(name)),
        Dialect::V3 => out["schema"] = json!({"type": type_of(name), "uniqueItems": true}),
    }
    out
}

impl Operation {
    fn print(&self, kind: &Published<'_>, what: &str, dialect: Dialect) -> Value {
        let parameters: Vec<_> = self.parameters.iter().map(|name| parameter(name, "query", dialect)).collect();
        let answer = reference(&if self.answers_list { kind.list_name() } else { kind.name() }, dialect);
        let is_patch = self.method == "patch";
        // kubectl sends a strategic merge patch wherever the document has it, and kinds of CRDs take none.
        let strategic = kind.schema.root().name.is_some();
        let consumed: Vec<_> = match is_patch {
            true => PATCHES.into_iter().filter(|name| strategic || *name != STRATEGIC).collect(),
            false => vec![JSON],
        };
        let body = if is_patch { json!({"type": "object"}) } else { reference(&kind.name(), dialect) };
        let mut out = json!({
            "operationId": format!("{}{what}", self.action),
            "parameters": parameters,
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": kind.gvk(),
        });
        match dialect {
            Dialect::V2 => {
                out["produces"] = json!([JSON]);
                out["responses"] = json!({"200": {"description": "OK", "schema": answer}});
                if self.takes_body {
                    out["consumes"] = json!(consumed);
                    if let Some(parameters) = out["parameters"].as_array_mut() {
                        parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": body}));
                    }
                }
            }
            Dialect::V3 => {
                out["responses"] = json!({"200": {"description": "OK", "content": {JSON: {"schema": answer}}}});
                if self.takes_body {
                    let content: Map<_, _> =
                        consumed.iter().map(|name| ((*name).to_owned(), json!({"schema": body}))).collect();
                    out["requestBody"] = json!({"required": true, "content": content});
                }
            }
        }
        out
    }
}

pub(super) fn all(kinds: &[Published<'_>], dialect: Dialect) -> Map<String, Value> {
    let mut out = Map::new();
    for kind in kinds {
        let group_version = if kind.group.is_empty() {
            format!("/api/{}", kind.version)
        } else {
            format!("/apis/{}/{}", kind.group, kind.version)
        };
        let mut put = |path: String, operations: &[Operation], what: &str| {
            let mut item = Map::new();
            let named = ["namespace", "name"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
            let parameters: Vec<_> = named.map(|name| parameter(name, "path", dialect)).collect();
            item.insert("parameters".to_owned(), parameters.into());
            for operation in operations {
                item.insert(operation.method.to_owned(), operation.print(kind, what, dialect));
            }
            out.insert(path, Value::Object(item));
        };
        let (kind_name, plural) = (kind.kind, kind.plural);
        let base = if kind.namespaced {
            put(format!("{group_version}/{plural}"), &[LIST], &format!("{kind_name}ForAllNamespaces"));
            format!("{group_version}/namespaces/{{namespace}}/{plural}")
        } else {
            format!("{group_version}/{plural}")
        };
        put(base.clone(), &[LIST, POST, DELETE_ALL], kind_name);
        put(format!("{base}/{{name}}"), &[GET, PUT, PATCH, DELETE], kind_name);
        for (there, name) in [(kind.status, "status"), (kind.scale, "scale")] {
            if there {
                put(format!("{base}/{{name}}/{name}"), &[GET, PUT, PATCH], &format!("{kind_name}{name}"));
            }
        }
    }
    out
}
