//! CustomResourceDefinitions (apiextensions.k8s.io/v1) turned into kinds.

use std::sync::Arc;

use policy::User;
use serde_json::Value;
use store::SharedStore;

use crate::{
    apply,
    catalog::CustomKinds,
    convert::{Conversion, Converter, Local},
    field::FieldError,
    kinds::{Custom, Kind, Scale, Shape, Storage, api_version, version_rank},
    object::{self, at, text_at},
    rest,
    schema::Schema,
    status, strategy,
    table::Column,
    write::{Scope, rfc3339},
};

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
/// Holds a CRD until its objects are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

fn texts(value: Option<&Value>) -> Vec<std::borrow::Cow<'static, str>> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(|s| s.to_owned().into()).collect()
}

pub(crate) fn versions(crd: &Value) -> &[Value] {
    at(crd, &["spec", "versions"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The version that is stored.
pub(crate) fn storage_version(crd: &Value) -> &str {
    versions(crd).iter().find(|v| v.get("storage") == Some(&Value::Bool(true))).map_or("", |v| text_at(v, &["name"]))
}

pub(crate) fn is_established(crd: &Value) -> bool {
    let conditions = at(crd, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|c| text_at(c, &["type"]) == "Established" && text_at(c, &["status"]) == "True")
}

/// The kinds that a CRD serves once it is established; what is wrong with its schemas if they cannot be served.
/// `store`: what converters are looked up in that are named as services. `conversion`: what this process converts.
pub(crate) fn compile(
    crd: &Value,
    store: Option<&SharedStore>,
    conversion: Option<&Arc<dyn Conversion>>,
) -> Result<CustomKinds, Vec<FieldError>> {
    let group = text_at(crd, &["spec", "group"]);
    let names = |key: &str| text_at(crd, &["spec", "names", key]);
    let namespaced = text_at(crd, &["spec", "scope"]) == "Namespaced";
    let storage = Storage { group: group.to_owned().into(), plural: names("plural").to_owned().into() };
    let storage_api_version = api_version(group, storage_version(crd));
    let mut served = Vec::new();
    let together = is_one_schema(crd);
    let local = Local::of(crd, conversion);
    let converter = Converter::of(crd, store).filter(|_| local.is_none()).map(Arc::new);
    for (i, version) in versions(crd).iter().enumerate() {
        if version.get("served") != Some(&Value::Bool(true)) {
            continue;
        }
        let path = match together {
            true => "spec.validation.openAPIV3Schema".to_owned(),
            false => format!("spec.versions[{i}].schema.openAPIV3Schema"),
        };
        let schema = at(version, &["schema", "openAPIV3Schema"]).cloned().unwrap_or(Value::Null);
        let is_stored = version.get("storage") == Some(&Value::Bool(true));
        let shape = match &local {
            // It is one of the program's own.
            Some(_) if !is_stored => Shape::later(&schema),
            _ => Shape::Parsed(Arc::new(Schema::parse(&schema).map_err(|errors| below(&path, errors))?)),
        };
        let kind = Kind {
            group: group.to_owned().into(),
            version: text_at(version, &["name"]).to_owned().into(),
            kind: names("kind").to_owned().into(),
            list_kind: names("listKind").to_owned().into(),
            plural: storage.plural.clone(),
            singular: names("singular").to_owned().into(),
            short_names: texts(at(crd, &["spec", "names", "shortNames"])),
            categories: texts(at(crd, &["spec", "names", "categories"])),
            namespaced,
            status: at(version, &["subresources", "status"]).is_some_and(|s| !s.is_null()),
            scale: at(version, &["subresources", "scale"]).and_then(scale),
            review: false,
            strategy: &strategy::CUSTOM,
            storage: storage.clone(),
            convert: None,
            storage_api_version: storage_api_version.clone().into(),
            shape,
            custom: Some(Custom {
                crd: object::name(crd).to_owned(),
                columns: columns(version),
                deprecation: deprecation(crd, version),
                selectable: selectable(version),
                converter: converter.clone(),
                local: local.clone(),
            }),
            head: Box::default(),
            storage_head: Box::default(),
        };
        served.push(Arc::new(kind.with_heads()));
    }
    served.sort_by_key(|kind| version_rank(&kind.version));
    Ok(CustomKinds { group: group.to_owned(), served, namespaced, terminating: object::is_deleting(crd) })
}

/// What is wrong with the rules of a CRD's schemas, whose form is right. A schema that `old` had is not too expensive now.
pub(crate) fn check_rules(crd: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let together = is_one_schema(crd);
    let of = |version: &Value| at(version, &["schema", "openAPIV3Schema"]).cloned();
    for (i, version) in versions(crd).iter().enumerate().take(if together { 1 } else { usize::MAX }) {
        let path = match together {
            true => "spec.validation.openAPIV3Schema".to_owned(),
            false => format!("spec.versions[{i}].schema.openAPIV3Schema"),
        };
        let Some(schema) = of(version) else { continue };
        let before = old.into_iter().flat_map(versions).find(|old| old.get("name") == version.get("name"));
        let costs = before.and_then(of).as_ref() != Some(&schema);
        if let Ok(schema) = Schema::parse(&schema) {
            errors.extend(below(&path, schema.check_rules(costs, &path)));
            // What was taken before this was looked at stays.
            if costs {
                errors.extend(below(&path, schema.check_defaults()));
            }
        }
    }
    errors
}

/// Whether all versions have the same schema: upstream keeps it, and speaks of it, in one place then.
pub(crate) fn is_one_schema(crd: &Value) -> bool {
    let mut schemas = versions(crd).iter().map(|version| version.get("schema"));
    let first = schemas.next();
    schemas.all(|schema| Some(schema) == first)
}

/// What follows once a CRD is stored: whether its names are free, and with that whether its kinds are served, is said in a
/// write of its own.
pub(crate) async fn establish(scope: &Scope) -> status::Result<()> {
    let mut internal = Scope::internal(&scope.server, &scope.user, Arc::clone(&scope.kind), "", &scope.name);
    "status".clone_into(&mut internal.subresource);
    let now = scope.server.now();
    let user = User::master("system:apiserver");
    rest::modify_internal(&internal, |crd| {
        let mut old = crd.clone();
        let kind = &scope.kind;
        let cx =
            strategy::Cx { server: &scope.server, user: &user, kind, subresource: "status", now, rights: Vec::new() };
        strategy::crd_conditions(&cx, crd);
        if *crd == old {
            return false;
        }
        // The list is there from the beginning, though there is nothing in it.
        if old.pointer("/status/conditions").is_some_and(Value::is_null) {
            old["status"]["conditions"] = Value::Array(Vec::new());
        }
        if let Some(schema) = kind.schema() {
            let (version, now) = (kind.api_version(), rfc3339(now));
            apply::track_update(Some(&old), crd, &internal.manager, "status", &version, &now, &schema);
        }
        true
    })
    .await
    .map(drop)
}

/// The errors of a schema, with its place in the CRD put before their paths.
pub(crate) fn below(path: &str, errors: Vec<FieldError>) -> Vec<FieldError> {
    let join = |error: &FieldError| {
        if error.path.is_empty() {
            path.to_owned()
        } else if error.path.starts_with('[') {
            format!("{path}{}", error.path)
        } else {
            format!("{path}.{}", error.path)
        }
    };
    errors.into_iter().map(|error| FieldError { path: join(&error), ..error }).collect()
}

fn scale(scale: &Value) -> Option<Scale> {
    let path = |key: &str| {
        let text = text_at(scale, &[key]).strip_prefix('.')?;
        Some(text.split('.').map(|part| part.to_owned().into()).collect::<Vec<_>>())
    };
    Some(Scale {
        spec_replicas: path("specReplicasPath")?,
        status_replicas: path("statusReplicasPath")?,
        selector: path("labelSelectorPath"),
    })
}

fn columns(version: &Value) -> Vec<Column> {
    let list = version.get("additionalPrinterColumns").and_then(Value::as_array);
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return vec![Column::new("Age", "date", ".metadata.creationTimestamp")];
    };
    let column = |entry: &Value| {
        let mut column =
            Column::new(text_at(entry, &["name"]), text_at(entry, &["type"]), text_at(entry, &["jsonPath"]));
        column.format = text_at(entry, &["format"]).to_owned();
        column.description = text_at(entry, &["description"]).to_owned();
        column.priority =
            entry.get("priority").and_then(Value::as_i64).and_then(|p| i32::try_from(p).ok()).unwrap_or(0);
        column
    };
    list.iter().map(column).collect()
}

fn selectable(version: &Value) -> Vec<String> {
    let list = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
    list.map(|field| text_at(field, &["jsonPath"]).trim_start_matches('.').to_owned()).collect()
}

fn deprecation(crd: &Value, version: &Value) -> Option<String> {
    if version.get("deprecated") != Some(&Value::Bool(true)) {
        return None;
    }
    let own = text_at(version, &["deprecationWarning"]);
    if !own.is_empty() {
        return Some(own.to_owned());
    }
    let (group, kind) = (text_at(crd, &["spec", "group"]), text_at(crd, &["spec", "names", "kind"]));
    let api = api_version(group, text_at(version, &["name"]));
    let is_good = |other: &&Value| other.get("served") == Some(&Value::Bool(true)) && other["deprecated"] != true;
    let better =
        versions(crd).iter().filter(is_good).map(|other| text_at(other, &["name"])).min_by_key(|v| version_rank(v));
    Some(match better {
        Some(better) => format!("{api} {kind} is deprecated; use {} {kind}", api_version(group, better)),
        None => format!("{api} {kind} is deprecated"),
    })
}
