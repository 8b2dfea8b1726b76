//! The one way into the store: raw bytes become a draft, a draft becomes admitted, and only what is admitted is
//! committed. Each step takes the one before it, so none can be left out.

use std::sync::Arc;

use bytes::Bytes;
use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde_json::{Map, Value};
use store::{KeyValue, Range};

use crate::{
    admission::{Operation, Request, chain},
    apply,
    body::{self, Media},
    convert, decode,
    field::{FieldError, FieldErrorKind},
    kinds::Kind,
    names::{self, check_metadata},
    object::{self, meta, meta_mut},
    rest,
    server::Server,
    service_ip,
    status::{Error, Result},
    strategy::Cx,
};

mod commit;
mod scope;
mod types;

pub(crate) use commit::{Admitted, Outcome, Stored, has_namespace_finalizers, is_done, namespace_guard};
pub(crate) use scope::{FieldValidation, Scope};
pub(crate) use types::{Mistyped, check_type, fit};

use self::types::{beginning, check_custom_type};

/// Stored objects, in bytes (etcd's request limit, as Kubernetes runs it).
pub const OBJECT_BYTES_MAX: usize = 1_572_864;
/// How often a write is tried again because another came first.
pub(crate) const RETRIES_MAX: usize = 64;
/// How often another name is made up for a `generateName` whose name is taken.
pub(crate) const NAMES_TRIED_MAX: usize = 8;

/// The time as Kubernetes writes it: whole seconds, UTC.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
    PRINTER.timestamp_to_string(&time)
}

pub(crate) async fn get(server: &Server, key: String) -> Result<Option<KeyValue>> {
    let page = server.store().range(Range::key(key), store::At::Latest, 1).await.map_err(store_error)?;
    Ok(page.items.into_iter().next())
}

pub(crate) fn store_error(error: store::Error) -> Error {
    match error {
        store::Error::TooLarge { .. } => Error::object_too_large(),
        store::Error::Compacted { .. } => Error::expired("The resourceVersion for the provided list is too old."),
        store::Error::Future { requested, current } => Error::future_version(requested.0, current.0),
        store::Error::Closed => Error::unavailable("the store was closed"),
        store::Error::TooManyWatchers { .. } => Error::too_many_requests(error.to_string(), 1),
        store::Error::Unavailable { .. } => Error::unavailable(error.to_string()).retried(1),
        store::Error::Unknown { .. } => Error::timeout(error.to_string()),
        store::Error::Append { source } => Error::internal_plain(format!("make a commit durable: {source}")),
        store::Error::Broken { source } => {
            Error::internal_plain(format!("the store takes no more commits until it is opened again: {source}"))
        }
        store::Error::Full { .. } | store::Error::Refused { .. } => Error::internal_plain(error),
        other => Error::internal(other),
    }
}

/// A body as it came.
pub(crate) struct Raw {
    pub bytes: Bytes,
    pub media: Media,
}

impl Raw {
    /// Reads the object; its kind must be the one that the path names, or be left out.
    pub(crate) fn decode(self, scope: &mut Scope) -> Result<Draft> {
        let kind = Arc::clone(&scope.kind);
        let parsed = body::parse(&self.bytes, self.media).map_err(|why| {
            let why = match self.media {
                Media::Json => format!("json parse error: {}", decode::json_fault(&self.bytes)),
                _ => why,
            };
            let shown = beginning(&self.bytes);
            let why = if self.media != Media::Json { why } else { format!("couldn't get version/kind; {why}") };
            body::unrecognized(&kind.kind, &format!("{why} ({shown})"))
        })?;
        let mut object = parsed.value;
        if kind.is_custom() {
            check_custom_type(&kind, &object, &self.bytes)?;
        }
        if object.is_null() {
            object = Value::Object(serde_json::Map::new());
        }
        check_type(&mut object, &kind.api_version(), &kind.kind).map_err(|wrong| match wrong {
            Mistyped::NoObject(why) => {
                let shown = beginning(&self.bytes);
                body::unrecognized(&kind.kind, &format!("couldn't get version/kind; json parse error: {why} ({shown})"))
            }
            Mistyped::ApiVersion { found, .. } if found.matches('/').count() > 1 => {
                let shown = beginning(&self.bytes);
                body::unrecognized(&kind.kind, &format!("unexpected GroupVersion string: {found} ({shown})"))
            }
            other => other.into_error(&kind),
        })?;
        fit(&kind, &object).map_err(|why| {
            let (name, version) = (&kind.kind, &kind.version);
            Error::bad_request(format!("{name} in version \"{version}\" cannot be handled as a {name}: {why}"))
        })?;
        decode::fill(&kind, &mut object);
        decode::drop_empty(&kind, &mut object);
        scope.duplicates = parsed.duplicates.iter().map(|path| format!("duplicate field \"{path}\"")).collect();
        Ok(Draft { object })
    }
}

/// Refuses fields that should not be there, or warns of them, or lets them go.
fn report_fields(scope: &mut Scope, problems: Vec<String>) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    match scope.validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => {
            for problem in problems {
                if !scope.warnings.contains(&problem) {
                    scope.warnings.push(problem);
                }
            }
        }
        FieldValidation::Strict => {
            let kind = &scope.kind.kind;
            if let Some(patched) = &scope.patched {
                return Err(Error::bad_patch(patched, &format!("strict decoding error: {}", problems.join(", "))));
            }
            return Err(Error::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {}",
                scope.kind.version,
                problems.join(", ")
            )));
        }
    }
    Ok(())
}

/// An object that somebody wants stored.
pub(crate) struct Draft {
    pub object: Value,
}

/// Fields of the metadata that the server alone sets.
const SERVER_SET: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "resourceVersion",
];

impl Draft {
    /// Removes what the schema does not know.
    pub(crate) fn prune(&mut self, scope: &mut Scope) -> Result<()> {
        let unknown = scope.kind.schema().map(|schema| schema.prune(&mut self.object)).unwrap_or_default();
        let mut problems = std::mem::take(&mut scope.duplicates);
        problems.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
        report_fields(scope, problems)
    }

    /// Removes what the schema does not know and sets its defaults.
    fn shape(&mut self, scope: &mut Scope) -> Result<()> {
        self.prune(scope)?;
        if let Some(schema) = scope.kind.schema() {
            schema.default(&mut self.object);
        }
        Ok(())
    }

    /// Everything that must hold before a new object may be stored. `applied`: managedFields are made already.
    pub(crate) async fn admit_new(mut self, scope: &mut Scope, applied: bool) -> Result<Admitted> {
        let kind = Arc::clone(&scope.kind);
        let now = scope.server.now();
        self.place(scope)?;
        if !matches!(object::resource_version(&self.object), "" | "0") {
            return Err(Error::internal_plain("resourceVersion should not be set on objects to be created"));
        }
        let metadata = meta_mut(&mut self.object);
        let generation = metadata.get("generation").filter(|_| !kind.is_custom()).cloned();
        for key in SERVER_SET {
            metadata.remove(key);
        }
        let mut generated = self.name_new(scope);
        if kind.status && !kind.strategy.status_on_create {
            self.object.as_object_mut().and_then(|o| o.remove("status"));
        }
        self.shape(scope)?;
        let (server, user) = (scope.server.clone(), Arc::clone(&scope.user));
        let mut cx = Cx { server: &server, user: &user, kind: &kind, subresource: "", now, rights: Vec::new() };
        cx.ask(&self.object, None).await;
        (kind.strategy.create)(&cx, &mut self.object)?;
        if !applied {
            self.track(scope, None, now);
        }
        // A name that is made up is made up after others have had their say.
        let made_up = if generated { meta_mut(&mut self.object).remove("name") } else { None };
        let (mut request, changed) = self.mutate(scope, Operation::Create, None).await?;
        if object::name(&self.object).is_empty() {
            meta_mut(&mut self.object).extend(made_up.map(|name| ("name".to_owned(), name)));
        } else {
            generated = false;
        }
        if changed {
            self.place(scope)?;
            cx.ask(&self.object, None).await;
            (kind.strategy.create)(&cx, &mut self.object)?;
        }
        self.own(scope, generation, now);
        (kind.strategy.prepare)(&cx, &mut self.object);
        let name = object::name(&self.object).to_owned();
        name.clone_into(&mut request.name);
        let mut errors = match meta(&self.object) {
            Some(metadata) => check_metadata(metadata, kind.strategy.names, kind.namespaced),
            None => vec![FieldError::required("metadata", "")],
        };
        // Definitions have rules of their own for all of it, and all that is wrong is told at once.
        let own_rules = kind.group == crate::crd::GROUP || kind.group == crate::admission::GROUP;
        if own_rules {
            errors.extend((kind.strategy.check)(&cx, &self.object, None));
        } else {
            errors.extend(check_schema(&cx, &self.object, None, &mut scope.warnings));
        }
        if kind.group.is_empty() {
            errors.extend(names::check_finalizer_names(&self.object));
        }
        if errors.is_empty() && !own_rules {
            errors = (kind.strategy.check)(&cx, &self.object, None);
        }
        if !errors.is_empty() {
            return Err(scope.invalid(&name, &errors));
        }
        scope.warnings.extend((kind.strategy.warn)(&self.object, None));
        name.clone_into(&mut scope.name);
        let reservation = service_ip::assign(scope, &mut self.object).await?;
        chain::validate(scope, &request, Some(&self.object)).await?;
        let mut admitted = Admitted::new(scope, convert::to_stored(&kind, self.object).await?, None, generated)?;
        admitted.also.extend(reservation);
        Ok(admitted)
    }

    /// The namespace of the path and that of the body must agree.
    fn place(&mut self, scope: &Scope) -> Result<()> {
        let metadata = meta_mut(&mut self.object);
        if !scope.kind.namespaced {
            metadata.remove("namespace");
            return Ok(());
        }
        let own = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
        if scope.namespace.is_empty() {
            return Err(Error::bad_request("an empty namespace may not be set during creation"));
        }
        if !own.is_empty() && own != scope.namespace {
            return Err(Error::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.insert("namespace".into(), scope.namespace.as_str().into());
        Ok(())
    }

    /// Makes a name up if only its beginning was given.
    fn name_new(&mut self, scope: &Scope) -> bool {
        let metadata = meta_mut(&mut self.object);
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
        if !text("name").is_empty() {
            return false;
        }
        if !scope.name.is_empty() {
            metadata.insert("name".into(), scope.name.as_str().into());
            return false;
        }
        let base = text("generateName");
        if base.is_empty() {
            return false;
        }
        let mut end = base.len().min(names::GENERATE_NAME_BYTES_MAX);
        while !base.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{}", &base[..end], scope.server.new_suffix());
        metadata.insert("name".into(), name.into());
        true
    }

    /// Sets what is the server's of a new object.
    fn own(&mut self, scope: &Scope, generation: Option<Value>, now: Timestamp) {
        let metadata = meta_mut(&mut self.object);
        for key in SERVER_SET {
            metadata.remove(key);
        }
        metadata.insert("uid".into(), scope.server.new_uid().into());
        metadata.insert("creationTimestamp".into(), rfc3339(now).into());
        match generation {
            _ if scope.kind.strategy.generation => drop(metadata.insert("generation".into(), 1.into())),
            // What nobody counts stays as it was said.
            Some(generation) => drop(metadata.insert("generation".into(), generation)),
            None => {}
        }
    }

    /// Lets others change the object. True: they did.
    async fn mutate(
        &mut self,
        scope: &mut Scope,
        operation: Operation,
        old: Option<&Arc<Value>>,
    ) -> Result<(Request, bool)> {
        let mut request = scope.admission_request(operation, old);
        object::name(&self.object).clone_into(&mut request.name);
        let changed = chain::mutate(scope, &request, Some(&mut self.object)).await?;
        Ok((request, changed))
    }

    fn track(&mut self, scope: &Scope, old: Option<&Value>, now: Timestamp) {
        let kind = &scope.kind;
        let Some(schema) = kind.schema() else { return };
        let (api_version, now) = (kind.api_version(), rfc3339(now));
        apply::track_update(old, &mut self.object, &scope.manager, &scope.subresource, &api_version, &now, &schema);
    }

    /// Everything that must hold before `old` may be replaced. `applied`: managedFields are made already.
    pub(crate) async fn admit_change(
        mut self,
        scope: &mut Scope,
        old: &Arc<Value>,
        base: &KeyValue,
        applied: bool,
    ) -> Result<Admitted> {
        let kind = Arc::clone(&scope.kind);
        let now = scope.server.now();
        self.check_identity(scope, old)?;
        let deletion_change = check_deletion_time(&self.object, old);
        self.carry_over(scope, old, applied);
        self.shape(scope)?;
        let (server, user) = (scope.server.clone(), Arc::clone(&scope.user));
        let subresource = scope.subresource.clone();
        let mut cx =
            Cx { server: &server, user: &user, kind: &kind, subresource: &subresource, now, rights: Vec::new() };
        cx.ask(&self.object, Some(old)).await;
        (kind.strategy.update)(&cx, &mut self.object, old)?;
        if !applied {
            self.track(scope, Some(old), now);
        }
        let (request, changed) = self.mutate(scope, Operation::Update, Some(old)).await?;
        if changed {
            self.carry_over(scope, old, true);
            cx.ask(&self.object, Some(old)).await;
            (kind.strategy.update)(&cx, &mut self.object, old)?;
        }
        let mut errors = match meta(&self.object) {
            Some(metadata) => check_metadata(metadata, kind.strategy.names, kind.namespaced),
            None => vec![FieldError::required("metadata", "")],
        };
        errors.extend(deletion_change);
        check_metadata_change(&self.object, old, &mut errors);
        if kind.group != crate::admission::GROUP {
            errors.extend(check_schema(&cx, &self.object, Some(old), &mut scope.warnings));
        }
        if errors.is_empty() {
            errors = (kind.strategy.check)(&cx, &self.object, Some(old));
        }
        if !errors.is_empty() {
            return Err(scope.invalid(object::name(old), &errors));
        }
        scope.warnings.extend((kind.strategy.warn)(&self.object, Some(old)));
        if kind.strategy.generation && spec_differs(&kind, &self.object, old) {
            let generation = meta(old).and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0);
            meta_mut(&mut self.object).insert("generation".into(), (generation + 1).into());
        }
        chain::validate(scope, &request, Some(&self.object)).await?;
        Admitted::new(scope, convert::to_stored(&kind, self.object).await?, Some(base), false)
    }

    fn check_identity(&self, scope: &Scope, old: &Value) -> Result<()> {
        let named = object::name(&self.object);
        if !named.is_empty() && named != scope.name {
            return Err(Error::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({})",
                scope.name
            )));
        }
        let namespace = object::namespace(&self.object);
        if scope.kind.namespaced && !namespace.is_empty() && namespace != scope.namespace {
            return Err(Error::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let (asked, stands) = (object::uid(&self.object), object::uid(old));
        if !asked.is_empty() && asked != stands && scope.is_patch {
            let error = FieldError::invalid("metadata.uid", asked, "field is immutable");
            return Err(scope.invalid(object::name(old), &[error.clone(), error]));
        }
        if !asked.is_empty() && asked != stands {
            return Err(scope.uid_conflict(asked, stands));
        }
        let version = object::resource_version(&self.object);
        if let Err(error) = version.parse::<u64>()
            && !version.is_empty()
        {
            let why = if matches!(error.kind(), std::num::IntErrorKind::PosOverflow) {
                "value out of range"
            } else {
                "invalid syntax"
            };
            return Err(Error::internal_plain(format!("strconv.ParseUint: parsing {version:?}: {why}")));
        }
        if !matches!(version, "" | "0") && version != object::resource_version(old) {
            let text = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(scope.conflict(text));
        }
        Ok(())
    }

    /// Keeps of the old object what this request may not touch.
    fn carry_over(&mut self, scope: &Scope, old: &Value, applied: bool) {
        let kind = &scope.kind;
        let nothing = Map::new();
        let old_meta = meta(old).unwrap_or(&nothing);
        if scope.subresource == "status" && kind.is_custom() {
            // Of the metadata, a status update may touch only who manages which fields.
            let managed = meta_mut(&mut self.object).remove("managedFields");
            let managed = managed.or_else(|| old_meta.get("managedFields").cloned());
            let others = old_meta.iter().filter(|(key, _)| *key != "managedFields");
            let mut metadata: Map<_, _> = others.map(|(key, value)| (key.clone(), value.clone())).collect();
            metadata.extend(managed.map(|m| ("managedFields".to_owned(), m)));
            self.object["metadata"] = Value::Object(metadata);
        }
        let metadata = meta_mut(&mut self.object);
        for key in SERVER_SET.into_iter().chain(["name", "namespace"]) {
            match old_meta.get(key) {
                Some(value) => drop(metadata.insert(key.into(), value.clone())),
                None => drop(metadata.remove(key)),
            }
        }
        if !applied
            && !metadata.contains_key("managedFields")
            && let Some(managed) = old_meta.get("managedFields")
        {
            metadata.insert("managedFields".into(), managed.clone());
        }
        match scope.subresource.as_str() {
            "status" => keep_all_but_status(&mut self.object, old),
            "" | "finalize" if kind.status => replace(&mut self.object, "status", old.get("status")),
            _ => {}
        }
    }
}

/// Makes everything but the status and the metadata what it was. Most of it is that already, and is not copied.
fn keep_all_but_status(object: &mut Value, old: &Value) {
    let is_its_own = |key: &str| key == "status" || key == "metadata";
    let (Some(fields), Some(old)) = (object.as_object_mut(), old.as_object()) else { return };
    fields.retain(|key, _| is_its_own(key) || old.contains_key(key));
    for (key, value) in old.iter().filter(|(key, _)| !is_its_own(key)) {
        if fields.get(key) != Some(value) {
            fields.insert(key.clone(), value.clone());
        }
    }
}

fn replace(object: &mut Value, key: &str, value: Option<&Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match value {
        Some(value) if fields.get(key) == Some(value) => {}
        Some(value) => drop(fields.insert(key.to_owned(), value.clone())),
        None => drop(fields.remove(key)),
    }
}

/// Whether what `metadata.generation` counts is different.
fn spec_differs(kind: &Kind, new: &Value, old: &Value) -> bool {
    let is_counted = |key: &str| match key {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => !kind.status,
        _ => true,
    };
    let fields = |object: &Value| object.as_object().into_iter().flatten().filter(|(key, _)| is_counted(key)).count();
    let same = |(key, value): (&String, &Value)| !is_counted(key) || old.get(key) == Some(value);
    fields(new) != fields(old) || !new.as_object().into_iter().flatten().all(same)
}

/// `warnings`: what is wrong, but was before.
fn check_schema(cx: &Cx<'_>, object: &Value, old: Option<&Value>, warnings: &mut Vec<String>) -> Vec<FieldError> {
    let kind = cx.kind;
    let Some(schema) = kind.schema() else { return Vec::new() };
    let status = cx.subresource == "status" && kind.is_custom();
    let mut errors = match old {
        Some(old) if status => schema.validate_status(object, old, warnings),
        Some(old) => schema.validate_update(object, old, warnings),
        None => schema.validate(object),
    };
    if let Some(scale) = kind.scale.as_ref().filter(|_| kind.is_custom()) {
        if !status {
            errors.extend(rest::check_replicas(&scale.spec_replicas, object));
        }
        errors.extend(rest::check_replicas(&scale.status_replicas, object));
    }
    if !kind.is_custom() {
        // Kubernetes' own reads what a built-in kind's status leaves out as zero.
        errors.retain(|e| !(e.kind == FieldErrorKind::Required && e.path.starts_with("status.")));
        // Owners are looked at with the rest of the metadata, and the role of a binding by its own rules.
        errors.retain(|e| !e.path.starts_with("metadata.ownerReferences["));
        errors.retain(|e| !(e.kind == FieldErrorKind::Required && e.path.starts_with("roleRef.")));
        // Nor is null anything but zero to it.
        errors.retain(|e| !(e.kind == FieldErrorKind::TypeInvalid && e.value.as_ref().is_some_and(|v| v == "null")));
    }
    errors
}

/// When an object is to go is not for an update to say.
fn check_deletion_time(new: &Value, old: &Value) -> Vec<FieldError> {
    const KEY: &str = "deletionTimestamp";
    match (object::meta_str(new, KEY), object::meta_str(old, KEY)) {
        ("", _) => Vec::new(),
        (new, old) if new == old => Vec::new(),
        (new, _) => {
            let error = FieldError::invalid("metadata.deletionTimestamp", new, "field is immutable");
            vec![error.clone(), error]
        }
    }
}

fn check_metadata_change(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if !object::is_deleting(old) {
        return;
    }
    let added: Vec<_> = object::finalizers(new).filter(|f| !object::has_finalizer(old, f)).collect();
    if !added.is_empty() {
        let list = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        // Upstream looks twice, once for all kinds and once for each.
        let error = FieldError::forbidden("metadata.finalizers", text);
        errors.extend([error.clone(), error]);
    }
}

/// Asks admission whether an object may be deleted.
pub(crate) async fn admit_deletion(scope: &mut Scope, base: &KeyValue) -> Result<()> {
    let old = Arc::new(rest::served_value(&scope.kind, &convert::served_one(&scope.kind, base.clone()).await?)?);
    let request = scope.admission_request(Operation::Delete, Some(&old));
    chain::mutate(scope, &request, None).await?;
    chain::validate(scope, &request, None).await
}
