//! OpenAPI documents of the served kinds: what kubectl explains from, and how clients learn what they may send.
//!
//! Version 3 is one document a group and version, which is how kubectl reads it; version 2 is one for all, also in protobuf.
//! Left out: the protobuf form of version 3, and schemas of query answers (Status, DeleteOptions) beyond their names.

mod paths;
pub(crate) mod protobuf;

use serde_json::{Map, Value, json};

use crate::schema::{self, Dialect, Printer, Schema};

/// A kind as it is served at one version.
#[derive(Clone, Copy, Debug)]
pub struct Published<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub plural: &'a str,
    pub namespaced: bool,
    pub schema: &'a Schema,
    /// Which subresources there are.
    pub status: bool,
    pub scale: bool,
}

impl Published<'_> {
    /// The definition's name: that of Kubernetes for built-in kinds, and the group's labels in reverse for others.
    fn name(&self) -> String {
        if let Some(name) = &self.schema.root().name {
            return name.to_string();
        }
        let reversed: Vec<_> = self.group.split('.').rev().collect();
        format!("{}.{}.{}", reversed.join("."), self.version, self.kind)
    }

    fn list_name(&self) -> String {
        format!("{}List", self.name())
    }

    fn gvk(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }
}

/// The document of one group and version (`apps/v1`, or `v1` of the core group).
pub fn v3(group_version: &str, kinds: &[Published<'_>]) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": group_version},
        "paths": paths::all(kinds, Dialect::V3),
        "components": {"schemas": definitions(kinds, Dialect::V3)},
    })
}

/// The document of all kinds.
pub fn v2(kinds: &[Published<'_>]) -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths::all(kinds, Dialect::V2),
        "definitions": definitions(kinds, Dialect::V2),
    })
}

fn reference(name: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
        Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The kinds, their lists, and every definition that they refer to.
fn definitions(kinds: &[Published<'_>], dialect: Dialect) -> Map<String, Value> {
    let mut printer = Printer::new(dialect);
    let mut out = Map::new();
    for kind in kinds {
        let mut body = printer.body(kind.schema.root());
        own_fields(&mut body, dialect);
        body["x-kubernetes-group-version-kind"] = json!([kind.gvk()]);
        out.insert(kind.name(), body);
        out.insert(kind.list_name(), list(kind, dialect));
    }
    out.insert(LIST_META.to_owned(), list_meta());
    let meta = schema::object_meta();
    out.insert(META.to_owned(), printer.body(&meta));
    let mut open = printer.take_names();
    while let Some(name) = open.pop_first() {
        if out.contains_key(&*name) {
            continue;
        }
        if let Some(node) = schema::definition(&name) {
            out.insert(name.to_string(), printer.body(&node));
        }
        open.append(&mut printer.take_names());
    }
    out
}

/// apiVersion, kind and metadata, which schemas of CRDs may leave out.
fn own_fields(body: &mut Value, dialect: Dialect) {
    let Some(body) = body.as_object_mut() else { return };
    body.entry("type").or_insert_with(|| json!("object"));
    let Some(fields) = body.entry("properties").or_insert_with(|| json!({})).as_object_mut() else { return };
    for name in ["apiVersion", "kind"] {
        let field = fields.entry(name).or_insert_with(|| json!({"type": "string"}));
        if field.get("description").is_none() {
            field["description"] = json!(schema::own_text(name));
        }
    }
    let plain = fields.get("metadata").is_none_or(|field| field.get("$ref").is_none() && field.get("allOf").is_none());
    if plain {
        let own = schema::own_text("metadata");
        let metadata = match dialect {
            Dialect::V2 => json!({"description": own, "$ref": format!("#/definitions/{META}")}),
            Dialect::V3 => json!({"description": own, "allOf": [reference(META, dialect)]}),
        };
        fields.insert("metadata".to_owned(), metadata);
    }
}

fn list(kind: &Published<'_>, dialect: Dialect) -> Value {
    json!({
        "description": format!("A list of objects of kind {}.", kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": reference(LIST_META, dialect),
            "items": {"type": "array", "items": reference(&kind.name(), dialect)},
        },
        "x-kubernetes-group-version-kind": [
            {"group": kind.group, "version": kind.version, "kind": format!("{}List", kind.kind)}
        ],
    })
}

fn list_meta() -> Value {
    json!({
        "description": "What a list says of itself.",
        "type": "object",
        "properties": {
            "continue": {"type": "string", "description": "Gets the next page; empty on the last one."},
            "remainingItemCount": {"type": "integer", "format": "int64", "description": "How many objects follow."},
            "resourceVersion": {"type": "string", "description": "The state that the list was read at."},
            "selfLink": {"type": "string"},
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::schema::builtin;

    fn references(value: &Value, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                out.extend(fields.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                fields.values().for_each(|value| references(value, out));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }

    fn published<'a>(group: &'a str, kind: &'a str, plural: &'a str, schema: &'a Schema) -> Published<'a> {
        Published { group, version: "v1", kind, plural, namespaced: true, schema, status: true, scale: true }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let deployment = builtin("apps", "v1", "Deployment").unwrap();
        let crd = builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
        let kinds = [
            published("apps", "Deployment", "deployments", &deployment),
            published("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", &crd),
        ];
        for (document, place) in [(v3("apps/v1", &kinds), "/components/schemas"), (v2(&kinds), "/definitions")] {
            let mut found = BTreeSet::new();
            references(&document, &mut found);
            assert!(found.len() > 50, "{}", found.len());
            for name in &found {
                let name = name.strip_prefix(&format!("#{place}/")).unwrap();
                assert!(document.pointer(place).unwrap().get(name).is_some(), "{name}");
            }
            let spec = &document.pointer(place).unwrap()["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
            assert_eq!(spec["x-kubernetes-patch-merge-key"], "name");
            assert_eq!(spec["x-kubernetes-list-map-keys"], json!(["name"]));
            assert!(spec["items"].get("description").is_none(), "the definition describes itself");
        }
    }

    #[test]
    fn a_custom_kind_is_published_under_its_group() {
        let schema = Schema::parse(&json!({"type": "object", "description": "A thing.", "properties": {
            "spec": {"type": "object", "properties": {"n": {"type": "integer", "description": "How many."}}}}}))
        .unwrap();
        let kinds = [published("things.example.org", "Thing", "things", &schema)];
        let document = v3("things.example.org/v1", &kinds);
        let body = &document["components"]["schemas"]["org.example.things.v1.Thing"];
        assert_eq!(body["description"], "A thing.");
        assert_eq!(body["properties"]["spec"]["properties"]["n"]["description"], "How many.");
        let metadata = &body["properties"]["metadata"];
        assert_eq!(metadata["allOf"][0]["$ref"], format!("#/components/schemas/{META}"));
        assert!(metadata["description"].as_str().is_some_and(|text| text.starts_with("Standard object's metadata")));
        let gvk = json!({"group": "things.example.org", "version": "v1", "kind": "Thing"});
        assert_eq!(body["x-kubernetes-group-version-kind"], json!([gvk]));
        let path = &document["paths"]["/apis/things.example.org/v1/namespaces/{namespace}/things/{name}"];
        assert_eq!(path["patch"]["x-kubernetes-group-version-kind"], gvk);
        let parameters: Vec<_> = path["patch"]["parameters"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
        assert_eq!(parameters, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert!(document["paths"].get("/apis/things.example.org/v1/things").is_some());
        let strategic = "application/strategic-merge-patch+json";
        assert!(path["patch"]["requestBody"]["content"].get(strategic).is_none());
        let pod = builtin("", "v1", "Pod").unwrap();
        let document = v3("v1", &[published("", "Pod", "pods", &pod)]);
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert!(patch["requestBody"]["content"].get(strategic).is_some());
    }
}
